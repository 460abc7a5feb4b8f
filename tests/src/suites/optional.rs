//! Capabilities that the agent can do without. In: an agent without one of them. Out: the loss that docs/privileges.md names, and
//! no more; with it there is none.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::privileges::{SET, as_user, copy};
use crate::agent::{Agent, Options, once_under};
use crate::paths;
use crate::runner::{Case, Context, skip};

pub(super) const CASES: &[Case] = &[
    Case { name: "privileges/without_net_admin", seconds: 30, run: without_net_admin },
    Case { name: "privileges/without_sys_nice", seconds: 30, run: without_sys_nice },
    Case { name: "privileges/without_kill", seconds: 30, run: without_kill },
];

/// The agent's user, and that of the program of `run`.
const AGENT: u32 = 65_534;
const OTHER: u32 = 65_533;

/// Status, sentence and advice of a finding of `doctor`, of a user with the documented capabilities and these.
fn finding(context: &Context, more: &[&str], key: &str) -> Result<[String; 3]> {
    let command = as_user(AGENT, &[&SET, more].concat());
    let limit = Duration::from_secs(20);
    let (code, out, err) = once_under(&context.dir, &command, &copy(context)?, &["doctor", "--json"], limit)?;
    ensure!(code == Some(0), "doctor ended with {code:?}:\n{err}");
    let report: Value = serde_json::from_str(&out).with_context(|| out.clone())?;
    let all = report.get("findings").and_then(Value::as_array).context("no findings")?;
    let found = all.iter().find(|one| one.get("key").and_then(Value::as_str) == Some(key));
    let found = found.with_context(|| format!("doctor does not name {key}"))?;
    let text = |name: &str| found.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok(["status", "sentence", "todo"].map(text))
}

/// What sockmaps do here cannot be tried, so they are refused.
fn without_net_admin(context: &Context) -> Result<()> {
    const KEY: &str = "hazard.sockmap";
    let [status, sentence, todo] = finding(context, &[], KEY)?;
    ensure!(status == "refused" && sentence.contains("could not be tried"), "{status}: {sentence}");
    ensure!(todo.contains("CAP_NET_ADMIN"), "{todo}");
    let [_, sentence, _] = finding(context, &["net_admin"], KEY)?;
    ensure!(!sentence.contains("tried"), "with it: {sentence}");
    Ok(())
}

/// The agent cannot go first.
fn without_sys_nice(context: &Context) -> Result<()> {
    const KEY: &str = "capabilities.priority";
    let [status, sentence, _] = finding(context, &[], KEY)?;
    ensure!(status == "limited" && sentence.contains("CAP_SYS_NICE"), "{status}: {sentence}");
    let [status, sentence, _] = finding(context, &["sys_nice"], KEY)?;
    ensure!(status == "ok", "with it: {sentence}");
    Ok(())
}

/// A program that has become another user runs on when the agent ends.
fn without_kill(context: &Context) -> Result<()> {
    if paths::which("setpriv").is_none() {
        return skip("setpriv is not installed");
    }
    let becomes = as_user(OTHER, &[]);
    let mut program: Vec<&str> = becomes.iter().map(String::as_str).collect();
    program.extend(["sleep", "47"]);
    let without = ["setpriv", "--bounding-set=-kill", "--inh-caps=-kill"];
    let options = Options::default().under(&without).arg(&["--duration", "700ms"]);
    let mut agent = Agent::run(&context.dir, &program, &options)?.proc;
    let group = agent.pids();
    ensure!(group.len() == 2, "the agent and its program are {group:?}");
    let own = agent.pid();
    agent.wait(Duration::from_secs(10))?;
    let left: Vec<_> = group.iter().filter(|pid| Path::new("/proc").join(pid.to_string()).exists()).collect();
    ensure!(left.len() == 1 && left.iter().all(|pid| **pid != own), "{left:?} of {group:?} run on");
    Ok(())
}
