//! Processes are followed. In: a shell that is traced, which starts curl and ends. Out: a span of curl (its fork and its exec
//! were seen), and an agent that ends by itself and leaves nothing (the exits were).

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use spanwise_tests::paths;
use spanwise_tests::proc::Proc;
use spanwise_tests::spans::Kind;

use crate::exchange::Apps;
use crate::objects::Objects;
use crate::plane::{Started, start};

const PATIENCE: Duration = Duration::from_secs(60);

/// Tries it on this plane.
pub(crate) fn examine(plane: &str, apps: &Apps, dir: &Path) -> Result<String> {
    let curl = paths::need("curl")?;
    let url = format!("http://{}/leaf/9", apps.nginx.address());
    let script = format!("read go; {} -s {url}; echo; echo ended", curl.display());
    let mut shell = Command::new("sh");
    let mut shell = Proc::start("shell", shell.args(["-c", &script]).env("SPANWISE_KEEP_STDIN", "1"), dir)?;
    let running = match start(plane, &[shell.pid()], dir)? {
        Started::Running(running) => running,
        Started::Refused(why) => bail!("this time it refused: {why}"),
    };
    shell.stdin().context("the shell has no standard input")?.write_all(b"go\n")?;
    shell.wait_line("ended", PATIENCE)?;
    shell.wait(PATIENCE)?;
    let before = running.before;
    let report = running.agent.finish(PATIENCE).context("all that was traced has ended")?;
    let span = report.spans.of(Kind::Client).next().context("no span of the child: its fork was not seen")?;
    ensure!(span.service() == "curl", "the child's exec was not seen: its service is `{}`", span.service());
    ensure!(span.path() == "/leaf/9" && span.number("http.response.status_code") == Some(200), "{span:?}");
    Objects::wait_gone(&before)?;
    report.stats.check_balance()?;
    Ok(String::new())
}
