//! The application is not harmed. In: loads with and without an agent, and an agent that is killed. Out: the same bytes, no
//! failed request, nothing left in the kernel.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};

use super::until;
use crate::agent::{Agent, Options};
use crate::apps::{App, Kind, Setup};
use crate::bpf::Loaded;
use crate::load::{Connection, Plan, Until};
use crate::runner::{Case, Context};

pub(super) const CASES: &[Case] = &[
    Case { name: "harmless/bytes", seconds: 90, run: bytes },
    Case { name: "harmless/kill9", seconds: 60, run: kill9 },
];

/// Digest of what clients received, and of what the server received.
fn digests(app: &App) -> Result<(u64, String)> {
    let server = |app: &App| -> Result<u64> {
        let answer = Connection::open(&app.target())?.request("GET", "/digest", b"")?;
        Ok(String::from_utf8_lossy(&answer.body).parse()?)
    };
    let before = server(app)?;
    let mut plan = Plan::new(app.target(), 8, Until::Requests(400), "/hash/{n}");
    plan.body = 20_000;
    let outcome = plan.run()?.all_good()?;
    let after = server(app)?;
    ensure!(outcome.bytes == 400 * 20_000, "{} bytes came back", outcome.bytes);
    Ok((outcome.digest, after.wrapping_sub(before).to_string()))
}

fn bytes(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Threaded, &context.dir).start()?;
    let nginx = Setup::new(Kind::Nginx, &context.dir).start()?;
    let file = |plan: Plan| -> Result<u64> { Ok(plan.run()?.all_good()?.digest) };
    let plan = || Plan::new(nginx.target(), 8, Until::Requests(200), "/static/file");
    let (without, file_without) = (digests(&app)?, file(plan())?);
    let agent = Agent::attach(&context.dir, &[app.pids(), nginx.pids()].concat(), &Options::default())?;
    let (with, file_with) = (digests(&app)?, file(plan())?);
    let report = agent.stop()?;
    ensure!(report.spans.all.len() >= 600, "{} spans: the agent was not there", report.spans.all.len());
    ensure!(with == without, "bytes differ with the agent: {with:?}, without: {without:?}");
    ensure!(file_with == file_without, "the file's bytes differ with the agent");
    Ok(())
}

static STOP: AtomicBool = AtomicBool::new(false);

fn kill9(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    let before = Loaded::now()?;
    STOP.store(false, Ordering::SeqCst);
    let plan = Plan::new(app.target(), 8, Until::Flag(&STOP), "/leaf/{n}");
    let load = std::thread::spawn(move || plan.run());
    let result = killed_under_load(context, &app, &before);
    STOP.store(true, Ordering::SeqCst);
    let outcome = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))??;
    result?;
    ensure!(outcome.good > 1_000, "only {} requests were made", outcome.good);
    outcome.all_good().map(drop)
}

fn killed_under_load(context: &Context, app: &App, before: &Loaded) -> Result<()> {
    for _ in 0..3 {
        let mut agent = Agent::attach(&context.dir, &app.pids(), &Options::default())?;
        std::thread::sleep(Duration::from_millis(300));
        ensure!(Loaded::now()?.count() > before.count(), "nothing was attached, so this test shows nothing");
        agent.proc.signal(libc::SIGKILL)?;
        agent.proc.wait(Duration::from_secs(5))?;
        let mut left = String::new();
        let gone = until(Duration::from_secs(3), "detaching", || {
            left = Loaded::now().map_or_else(|error| error.to_string(), |now| now.beyond(before));
            left.is_empty()
        });
        ensure!(gone.is_ok(), "left in the kernel after kill -9: {left}");
    }
    std::thread::sleep(Duration::from_millis(300));
    Ok(())
}
