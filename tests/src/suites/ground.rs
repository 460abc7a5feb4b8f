//! The ground the other suites stand on. In: every application, without an agent. Out: each answers what it should, so that a
//! failure elsewhere is about the agent.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::apps::{Kind, Setup};
use crate::load::{Connection, Plan, Until, wrk};
use crate::proc::Proc;
use crate::runner::{Case, Context};
use crate::{paths, toolbox};

pub(super) const CASES: &[Case] = &[
    // The first use fetches what comes from PyPI and builds the Go application.
    Case { name: "ground/applications", seconds: 300, run: applications },
    Case { name: "ground/exerciser", seconds: 60, run: exerciser },
    Case { name: "ground/wrk", seconds: 60, run: load_generator },
];

/// All kinds that the suites and the accuracy table use.
const KINDS: &[Kind] = &[
    Kind::Nginx,
    Kind::Threaded,
    Kind::Gunicorn,
    Kind::Asyncio("direct"),
    Kind::Asyncio("before"),
    Kind::Asyncio("both"),
    Kind::Node("callback"),
    Kind::Node("before"),
    Kind::Node("all"),
    Kind::Node("both"),
    Kind::Go("direct"),
    Kind::Go("child"),
    Kind::Go("both"),
    Kind::Java,
];

fn applications(context: &Context) -> Result<()> {
    toolbox::python()?;
    toolbox::goapp()?;
    let leaf = Setup::new(Kind::Go("direct"), &context.dir).named("leaf").delayed(5).start()?;
    // nginx passes the path on, so what it calls must serve /work/ itself.
    let front = Setup::new(Kind::Threaded, &context.dir).named("front").calling(&leaf).start()?;
    for kind in KINDS.iter().filter(|kind| kind.available()) {
        let next = if *kind == Kind::Nginx { &front } else { &leaf };
        let app = Setup::new(*kind, &context.dir).calling(next).start()?;
        let due: &[u8] = if *kind == Kind::Node("all") { b"171717" } else { b"17" };
        let answer = Connection::open(&app.target())?.request("GET", "/work/17", b"")?;
        ensure!(answer.status == 200 && answer.body == due, "{}: {answer:?}", app.name);
        Plan::new(app.target(), 16, Until::Requests(200), "/work/{n}").run()?.all_good()?;
        Plan::new(app.target(), 4, Until::Requests(50), "/leaf/{n}").run()?.all_good()?;
        ensure!(app.pids().contains(&app.proc.pid()), "{}: its own pid is not among its processes", app.name);
    }
    Ok(())
}

fn exerciser(context: &Context) -> Result<()> {
    let mut command = Command::new(paths::exerciser()?);
    let mut exerciser = Proc::start("exerciser", &mut command, &context.dir)?;
    ensure!(exerciser.wait(Duration::from_secs(20))?.success(), "{}", exerciser.tail());
    let said = exerciser.stdout();
    for case in ["/case/sendmmsg-tcp6", "/case/partial-unix", "/split/mapped/10", "done"] {
        ensure!(said.contains(case), "the exerciser did not do {case}");
    }
    Ok(())
}

fn load_generator(context: &Context) -> Result<()> {
    let app = Setup::new(Kind::Nginx, &context.dir).start()?;
    let report = wrk::run(&format!("http://{}/", app.address()), 16, 1, &context.dir)?;
    ensure!(report.requests > 1_000 && report.errors == 0, "{report:?}");
    ensure!(app.proc.cpu_us() > 10_000, "nginx used {} us of CPU under load", app.proc.cpu_us());
    Ok(())
}
