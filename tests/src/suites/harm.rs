//! Applications under load without, with and without the agent. In: web servers, a database, a cache. Out: no failed request,
//! the same answers byte for byte; a span for each request, or a counter that says why not.

use anyhow::Result;

use crate::harm::{Subject, compare};
use crate::runner::{Case, Context};

/// Of each of the three loads.
const SECONDS: u64 = 1;

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
    let comparison = compare(&subject, &context.dir, SECONDS)?;
    let load = &comparison.with.load;
    println!(
        "    {name}: {} requests with the agent, {} failed, {} spans",
        load.requests, load.failed, comparison.spans
    );
    comparison.check(subject.is_web())
}
