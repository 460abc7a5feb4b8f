//! Short-lived processes that each make a request. In: how many, a port, and a line on standard input that starts it. Out:
//! "ready", "at N" after each 500, "done N FAILED". `churn one PORT` is one of them.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["one", port] => one(port),
        [count, port] => many(count, port),
        _ => Err(anyhow::anyhow!("churn COUNT PORT, or churn one PORT")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("churn: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn one(port: &str) -> Result<()> {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}"))?;
    let number = std::process::id();
    write!(stream, "GET /leaf/{number} HTTP/1.1\r\nHost: churn\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200") || !answer.ends_with(&number.to_string()) {
        bail!("answered `{answer}`");
    }
    Ok(())
}

fn many(count: &str, port: &str) -> Result<()> {
    let count: u32 = count.parse().context("how many?")?;
    println!("ready");
    std::io::stdin().lock().read_line(&mut String::new())?;
    let own = std::env::current_exe()?;
    let mut failed = 0;
    for number in 1..=count {
        if !Command::new(&own).args(["one", port]).status()?.success() {
            failed += 1;
        }
        if number % 500 == 0 {
            println!("at {number}");
        }
    }
    println!("done {count} {failed}");
    // The agent is to see the end of the last one before the end of this one.
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}
