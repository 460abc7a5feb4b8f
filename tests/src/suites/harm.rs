//! Applications under load without, with and without the agent. In: web servers, a database, a cache. Out: no failed request,
//! the same answers byte for byte; a span for each request, or a counter that says why not. Ratios are printed and not judged: on a busy
//! machine they are noise, which stands beside them.

use anyhow::Result;

use crate::harm::{Subject, compare};
use crate::runner::{Case, Context, full};

/// Seconds of each of the three loads, and at full size.
const SECONDS: [u64; 2] = [1, 5];

pub(super) const CASES: &[Case] = &[
    Case { name: "harm/nginx", seconds: 60, run: |context| unharmed(context, "nginx") },
    Case { name: "harm/node", seconds: 60, run: |context| unharmed(context, "node") },
    Case { name: "harm/gunicorn", seconds: 60, run: |context| unharmed(context, "gunicorn") },
    Case { name: "harm/go", seconds: 60, run: |context| unharmed(context, "go") },
    Case { name: "harm/postgres", seconds: 60, run: |context| unharmed(context, "postgres") },
    Case { name: "harm/redis", seconds: 60, run: |context| unharmed(context, "redis") },
];

fn unharmed(context: &Context, name: &str) -> Result<()> {
    let subject = Subject::start(name, &context.dir)?;
    let [short, long] = SECONDS;
    let comparison = compare(&subject, &context.dir, if full() { long } else { short })?;
    let load = &comparison.with.load;
    println!(
        "    {name}: {} requests with the agent, {} failed, {} spans",
        load.requests, load.failed, comparison.spans
    );
    let (p99, p99_noise) = comparison.ratios(|load| f64::from(load.p99_us));
    let (rate, rate_noise) = comparison.ratios(|load| load.per_second);
    println!(
        "    {name}: with the agent by without (after by before): p99 {p99:.2} ({p99_noise:.2}), requests a second {rate:.2} \
         ({rate_noise:.2})"
    );
    comparison.check(subject.is_web())
}
