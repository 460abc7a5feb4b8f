//! The load client as a program of its own, so that it can be traced. In: a port, connections, milliseconds, and a line on
//! standard input that starts it. Out: "ready", "done SENT GOOD" when every request that was begun has ended.

use std::io::BufRead as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use spanwise_tests::load::{Plan, Target, Until};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().context("client PORT CONNECTIONS MILLISECONDS");
    let (port, connections, time) = (next()?.parse()?, next()?.parse()?, next()?.parse()?);
    println!("ready");
    std::io::stdin().lock().read_line(&mut String::new())?;
    let until = Until::Time(Duration::from_millis(time));
    let outcome = Plan::new(Target::tcp(port), connections, until, "/leaf/{n}").run()?;
    println!("done {} {}", outcome.sent, outcome.good);
    // The agent is to see the end of the connections before the end of the process.
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}
