//! A real OpenTelemetry Collector. In: the spans of a live run, by each of the three protocols. Out: every span found in what
//! the collector received.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{SETTLE, until};
use crate::agent::{Agent, Options};
use crate::apps::{Kind, Setup, pids};
use crate::load::{Plan, Target, Until};
use crate::proc::Proc;
use crate::runner::{Case, Context};
use crate::{paths, toolbox};

// The first of them builds the collector where it was not built yet.
pub(super) const CASES: &[Case] = &[
    Case { name: "collector/grpc", seconds: 420, run: |context| through(context, "grpc", &[]) },
    Case {
        name: "collector/http_protobuf",
        seconds: 420,
        run: |context| through(context, "http/protobuf", &[]),
    },
    Case { name: "collector/http_json", seconds: 420, run: |context| through(context, "http/json", &[]) },
    Case {
        name: "collector/gzip",
        seconds: 420,
        run: |context| through(context, "http/protobuf", &[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")]),
    },
];

const REQUESTS: u64 = 500;

fn collector(context: &Context) -> Result<(Proc, u16, u16)> {
    let binary = toolbox::collector()?;
    let (grpc, http) = (paths::free_port()?, paths::free_port()?);
    let config = format!(
        "receivers:\n  otlp:\n    protocols:\n      grpc:\n        endpoint: 127.0.0.1:{grpc}\n      http:\n        endpoint: 127.0.0.1:{http}\n\
         exporters:\n  debug:\n    verbosity: detailed\n    sampling_initial: 1000000\n\
         service:\n  telemetry:\n    metrics:\n      level: none\n  pipelines:\n    traces:\n      receivers: [otlp]\n      exporters: [debug]\n"
    );
    let path = context.dir.join("collector.yaml");
    std::fs::write(&path, config)?;
    let mut command = Command::new(binary);
    let proc = Proc::start("collector", command.arg("--config").arg(&path), &context.dir)?;
    for port in [grpc, http] {
        Target::tcp(port).wait(Duration::from_secs(20)).with_context(|| proc.tail())?;
    }
    Ok((proc, grpc, http))
}

fn through(context: &Context, protocol: &str, environment: &[(&str, &str)]) -> Result<()> {
    let (collector, grpc, http) = collector(context)?;
    let leaf = Setup::new(Kind::Go("direct"), &context.dir).named("leaf").start()?;
    let app = Setup::new(Kind::Threaded, &context.dir).named("front-app").calling(&leaf).start()?;
    let endpoint = format!("http://127.0.0.1:{}", if protocol == "grpc" { grpc } else { http });
    let mut options =
        Options::default().arg(&["--exporter", "otlp", "--endpoint", &endpoint, "--protocol", protocol]);
    for (key, value) in environment {
        options = options.env(key, value);
    }
    let agent = Agent::attach(&context.dir, &pids(&[&app, &leaf]), &options)?;
    Plan::new(app.target(), 8, Until::Requests(REQUESTS), "/work/{n}").run()?.all_good()?;
    std::thread::sleep(SETTLE);
    let report = agent.stop()?;
    report.stats.check_balance()?;
    // The file exporter has the same spans: three for each request.
    let due: BTreeSet<&str> = report.spans.all.iter().map(|span| span.id.as_str()).collect();
    ensure!(
        due.len() as u64 == 3 * REQUESTS,
        "{} spans of {}\n{}",
        due.len(),
        3 * REQUESTS,
        report.stats.table()
    );
    let mut missing = due.len();
    let found = until(Duration::from_secs(5), "the arrival of every span", || {
        let text = collector.stderr() + &collector.stdout();
        let came: BTreeSet<&str> = text.lines().filter_map(id).collect();
        missing = due.difference(&came).count();
        missing == 0
    });
    ensure!(
        found.is_ok(),
        "{missing} of {} spans did not reach the collector by {protocol}:\n{}",
        due.len(),
        report.stderr
    );
    let text = collector.stderr() + &collector.stdout();
    for service in ["service.name: Str(front-app)", "service.name: Str(leaf)"] {
        ensure!(text.contains(service), "the collector saw no resource with {service}");
    }
    Ok(())
}

/// The span id in a line of the debug exporter.
fn id(line: &str) -> Option<&str> {
    let id = line.trim().strip_prefix("ID")?.trim_start().strip_prefix(':')?.trim();
    (id.len() == 16).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::id;

    #[test]
    fn ids_are_found() {
        assert_eq!(id("    ID             : 00f067aa0ba902b7"), Some("00f067aa0ba902b7"));
        assert_eq!(id("    Parent ID      : 00f067aa0ba902b7"), None);
        assert_eq!(id("    Trace ID       : 4bf92f3577b34da6a3ce929d0e0e4736"), None);
    }
}
