//! Where the probes of TLS libraries are, and that returns that the kernel hooks do no harm. In: servers. Out: no call
//! of Node ends at a single-stepped instruction, and Node goes on through whatever its callbacks do inside a hooked call.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{SETTLE, tls, until};
use crate::agent::{Agent, Options, once, once_under};
use crate::apps::App;
use crate::certs::Certs;
use crate::clients::Client;
use crate::paths;
use crate::runner::{Case, Context, skip};
use crate::spans::Kind;

const LIMIT: Duration = Duration::from_secs(60);

pub(super) const CASES: &[Case] = &[
    Case { name: "tls/sites", seconds: 60, run: sites },
    Case { name: "tls/node_callbacks", seconds: 60, run: node_callbacks },
];

/// Function, kind of instruction, and program of each site of an instrument; with a fault on purpose.
fn listed(context: &Context, app: &App, instrument: &str, fault: &str) -> Result<Vec<[String; 3]>> {
    let pid = app.pids().first().context("no process")?.to_string();
    let with = ["env".to_owned(), format!("SPANWISE_FAULT={fault}")];
    let arguments = ["ps", "--probes", &pid, "--json"];
    let (code, out, err) = once_under(&context.dir, &with, &paths::agent()?, &arguments, LIMIT)?;
    ensure!(code == Some(0), "ps --probes: {err}");
    let told: Value = serde_json::from_str(&out)?;
    let files = told.get("files").and_then(Value::as_array).into_iter().flatten();
    let instruments = files.filter_map(|file| file.get("instruments")?.as_array()).flatten();
    let sites = instruments
        .filter(|one| one.get("name").is_some_and(|name| name == instrument))
        .filter_map(|one| one.get("sites")?.as_array())
        .flatten();
    let text = |site: &Value, key| site.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let all: Vec<_> = sites.map(|site| ["function", "class", "program"].map(|key| text(site, key))).collect();
    ensure!(!all.is_empty(), "{}: no site of {instrument}: {told:#}", app.name);
    Ok(all)
}

/// Whether this kernel lets returns be hooked.
fn returns(context: &Context) -> Result<bool> {
    let (_, out, err) = once(&context.dir, &["doctor", "--json"], LIMIT)?;
    let told: Value = serde_json::from_str(&out).with_context(|| format!("doctor: {err}"))?;
    let found = told.get("findings").and_then(Value::as_array).into_iter().flatten();
    let mut found = found.filter(|one| one.get("key").is_some_and(|key| key == "hazard.uretprobe_seccomp"));
    let status = found.next().and_then(|one| one.get("status")).context("doctor does not say")?;
    Ok(status == "ok")
}

/// Nothing that a request passes is single-stepped.
fn sites(context: &Context) -> Result<()> {
    let (nginx, _certs) = tls::server(context, tls::NGINX)?;
    for [function, class, _] in listed(context, &nginx, "openssl", "")? {
        let usual = matches!(function.as_str(), "SSL_read" | "SSL_write");
        ensure!(!usual || class != "stepped", "nginx: {function} is single-stepped");
    }
    if !returns(context)? {
        return skip("this kernel kills programs whose returns are hooked under a seccomp filter");
    }
    let (node, _certs) = tls::server(context, tls::NODE)?;
    let sites = listed(context, &node, "openssl", "")?;
    for [function, class, program] in &sites {
        ensure!(!class.starts_with("stepped"), "Node: {function} is single-stepped for {program}");
    }
    for function in ["SSL_read", "SSL_write"] {
        let hooked = |[name, class, _]: &&[String; 3]| name == function && class == "return";
        ensure!(
            sites.iter().filter(hooked).count() == 1,
            "Node: no return of {function} is hooked: {sites:?}"
        );
    }
    // Where hooked returns do harm, the ends of the usual calls are found without.
    let without = listed(context, &node, "openssl", "hazard:uretprobe_seccomp")?;
    for [function, class, _] in &without {
        ensure!(class != "return", "Node: the return of {function} is hooked where that is refused");
    }
    for usual in ["SSL_read", "SSL_write"] {
        let ends =
            without.iter().filter(|[function, _, program]| function == usual && program == "tls_leave");
        ensure!(ends.count() > 0, "Node: no end of {usual} is found without its return: {without:?}");
    }
    Ok(())
}

/// A server and its client in one process, a new connection for each request. Handshakes are made inside `SSL_read`, and call back: for a
/// certificate that comes later, and for keys, where another connection is written to at once, and now and then a program is
/// started and waited for.
const CALLBACKS: &str = r"
'use strict';
const child = require('child_process'), fs = require('fs'), https = require('https'), tls = require('tls');
const [cert, key, ca] = process.argv.slice(2).map((path) => fs.readFileSync(path));
const echo = tls.createServer({ cert, key }, (socket) => socket.resume());
const made = () => tls.createSecureContext({ cert, key });
let keys = 0, names = 0, good = 0;
const server = https.createServer({ cert, key,
  SNICallback: (name, done) => { names++; setImmediate(() => done(null, made())); },
}, (request, response) => response.end(request.url.split('/')[2]));
echo.listen(0, '127.0.0.1', () => server.listen(0, '127.0.0.1', () => {
  const beside = tls.connect({ host: '127.0.0.1', port: echo.address().port, servername: 'localhost', ca });
  server.on('keylog', () => {
    beside.write('x');
    if (++keys % 500 === 0) child.execFileSync('true');
  });
  const get = (number) => new Promise((done) => https.get({ host: '127.0.0.1', port: server.address().port,
    servername: 'localhost', path: '/leaf/' + number, ca, agent: false }, (answer) => {
      let text = '';
      answer.on('data', (part) => (text += part));
      answer.on('end', () => { if (text === String(number)) good++; done(); });
    }).on('error', (error) => { console.error(String(error)); done(); }));
  beside.on('secureConnect', () => console.log('ready'));
  process.stdin.once('data', async () => {
    let requests = 0, stop = false;
    process.stdin.once('data', () => (stop = true));
    await Promise.all(Array.from({ length: 8 }, async () => { while (!stop) await get(++requests); }));
    const fine = keys >= requests && names === requests;
    console.error(`${keys} keys, ${names} names`);
    console.log(`done ${requests} ${fine ? good : 0}`);
  });
}));
";

/// Agents come and go while callbacks run inside hooked calls: every request is answered, and the last agent has the spans.
fn node_callbacks(context: &Context) -> Result<()> {
    const ROUNDS: u32 = 4;
    let certs = Certs::make(&context.dir)?;
    let script = context.dir.join("callbacks.js");
    std::fs::write(&script, CALLBACKS)?;
    let mut command = Command::new(paths::need("node")?);
    command.arg(&script).args([&certs.cert, &certs.key, &certs.ca]);
    command.env("OTEL_SERVICE_NAME", "callbacks").current_dir(&context.dir);
    let mut client = Client::start("callbacks", &mut command, &context.dir)?;
    client.go()?;
    let mut seen = 0;
    for round in 0..ROUNDS {
        let dir = context.dir.join(format!("round-{round}"));
        std::fs::create_dir_all(&dir)?;
        let agent = Agent::attach(&dir, &client.pids(), &Options::default())?;
        until(LIMIT, "spans of a connection that was made under the agent", || {
            agent.spans_so_far().is_ok_and(|spans| spans.at(Kind::Server, "callbacks").count() > 0)
        })?;
        let report = agent.stop()?;
        report.stats.check_balance()?;
        seen += report.spans.at(Kind::Server, "callbacks").count();
    }
    // A return that comes after the agent has gone was hooked while it was there.
    std::thread::sleep(SETTLE);
    client.go()?;
    let sent = client.done(LIMIT)?;
    println!("    {sent} requests, {seen} of them while an agent was there");
    Ok(())
}
