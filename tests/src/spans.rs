//! What the agent exported. In: a file of OTLP/JSON lines. Out: spans with the fields that tests ask for, and who is whose
//! parent.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Server or client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A request that was served.
    Server,
    /// A call that was made.
    Client,
    /// Anything else.
    Other,
}

/// A span.
#[derive(Clone, Debug)]
pub struct Span {
    /// Trace id, hex.
    pub trace: String,
    /// Span id, hex.
    pub id: String,
    /// Parent's span id, hex; empty without one.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// Start and end, in nanoseconds since 1970.
    pub start: u64,
    /// See `start`.
    pub end: u64,
    /// Status code: 0 unset, 2 error.
    pub status: u64,
    /// Trace state.
    pub state: String,
    /// Attributes of the span, values as text.
    pub attributes: BTreeMap<String, String>,
    /// Attributes of its resource, values as text.
    pub resource: BTreeMap<String, String>,
    /// Linked spans, trace id and span id.
    pub links: Vec<(String, String)>,
}

impl Span {
    /// Value of an attribute.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.attributes.get(key).map(String::as_str)
    }

    /// Number of an attribute.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key)?.parse().ok()
    }

    /// Name of the service.
    pub fn service(&self) -> &str {
        self.resource.get("service.name").map_or("", String::as_str)
    }

    /// Pid of the process, where the resource says it.
    pub fn pid(&self) -> Option<u32> {
        self.resource.get("process.pid")?.parse().ok()
    }

    /// Path of the URL, of either kind of span; of a remote procedure call, its full method.
    pub fn path(&self) -> &str {
        if let Some(path) = self.get("url.path").or_else(|| self.rpc_method()) {
            return path;
        }
        let url = self.get("url.full").unwrap_or_default();
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let path = rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/");
        path.split('?').next().unwrap_or(path)
    }

    /// Full method of a remote procedure call, as it was sent.
    pub fn rpc_method(&self) -> Option<&str> {
        self.get("rpc.method_original").or_else(|| self.get("rpc.method"))
    }

    /// The number that the request carries in its path: the 17 of `/work/17` and `/leaf/17/2`, and of the calls
    /// `load.Work/W17` and `load.Work/L17`.
    pub fn request_number(&self) -> Option<u64> {
        if let Some(method) = self.rpc_method() {
            return method.strip_prefix("load.Work/")?.strip_prefix(['W', 'L'])?.parse().ok();
        }
        let mut parts = self.path().split('/').skip(1);
        parts.next().filter(|word| ["work", "leaf"].contains(word))?;
        parts.next()?.parse().ok()
    }

    /// How sure the agent is of the parent.
    pub fn confidence(&self) -> Option<f64> {
        self.get("spanwise.parent.confidence")?.parse().ok()
    }

    /// How the agent found the parent.
    pub fn source(&self) -> &str {
        self.get("spanwise.parent.source").unwrap_or_default()
    }
}

/// All spans of a run.
#[derive(Clone, Default, Debug)]
pub struct Spans {
    /// In the order of the file.
    pub all: Vec<Span>,
    by_id: HashMap<String, usize>,
}

impl Spans {
    /// Reads a file of OTLP/JSON lines. A last line that is cut short (a killed agent) is an error.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(path).with_context(|| format!("the agent left no {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not OTLP/JSON lines", path.display()))
    }

    /// Reads OTLP/JSON lines.
    pub fn parse(text: &str) -> Result<Self> {
        let mut all = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let value: Value = serde_json::from_str(line).with_context(|| format!("line {}", number + 1))?;
            for resource in list(&value, "resourceSpans") {
                let attributes = attributes(resource.get("resource").unwrap_or(&Value::Null));
                for scope in list(resource, "scopeSpans") {
                    for raw in list(scope, "spans") {
                        all.push(span(raw, &attributes).with_context(|| format!("line {}", number + 1))?);
                    }
                }
            }
        }
        let by_id = all.iter().enumerate().map(|(place, span)| (span.id.clone(), place)).collect();
        Ok(Self { all, by_id })
    }

    /// The parent, if it is among them.
    pub fn parent(&self, span: &Span) -> Option<&Span> {
        self.all.get(*self.by_id.get(&span.parent)?)
    }

    /// From the parent to the root.
    pub fn ancestors<'a>(&'a self, span: &'a Span) -> impl Iterator<Item = &'a Span> {
        let mut left = 100;
        std::iter::successors(self.parent(span), move |next| {
            left -= 1;
            if left > 0 { self.parent(next) } else { None }
        })
    }

    /// Spans of one kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Span> {
        self.all.iter().filter(move |span| span.kind == kind)
    }

    /// Spans of one kind and service.
    pub fn at<'a>(&'a self, kind: Kind, service: &'a str) -> impl Iterator<Item = &'a Span> {
        self.of(kind).filter(move |span| span.service() == service)
    }

    /// Spans whose path starts so.
    pub fn under<'a>(&'a self, kind: Kind, path: &'a str) -> impl Iterator<Item = &'a Span> {
        self.of(kind).filter(move |span| span.path().starts_with(path))
    }

    /// What must hold of any set of spans: ids are well formed and unique, parents are in the same trace and no span is its
    /// own ancestor, ends are not before starts.
    pub fn check_shape(&self) -> Result<()> {
        let mut seen = HashSet::new();
        for span in &self.all {
            let hex =
                |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
            if !hex(&span.trace, 32)
                || !hex(&span.id, 16)
                || !(span.parent.is_empty() || hex(&span.parent, 16))
            {
                bail!("malformed ids: {span:?}");
            }
            if !seen.insert(&span.id) {
                bail!("span id {} comes twice ({})", span.id, span.name);
            }
            if span.end < span.start {
                bail!("a span ends before it starts: {span:?}");
            }
            if self.parent(span).is_some_and(|parent| parent.trace != span.trace) {
                bail!("a span and its parent are in different traces: {span:?}");
            }
            if self.ancestors(span).count() > 90 {
                bail!("a chain of parents has no end at {span:?}");
            }
        }
        Ok(())
    }

    /// A few of them in a line each, for messages.
    pub fn sample(&self) -> String {
        self.all
            .iter()
            .take(8)
            .map(|span| {
                format!(
                    "    {:?} {} `{}` {} parent={} source={}\n",
                    span.kind,
                    span.service(),
                    span.name,
                    span.path(),
                    if span.parent.is_empty() { "none" } else { &span.parent },
                    span.source()
                )
            })
            .collect()
    }
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase()
}

/// 64-bit numbers are strings in OTLP/JSON.
fn number(value: &Value, key: &str) -> Option<u64> {
    let value = value.get(key)?;
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

fn attributes(of: &Value) -> BTreeMap<String, String> {
    list(of, "attributes")
        .filter_map(|pair| {
            let key = pair.get("key")?.as_str()?.to_owned();
            let (_, value) = pair.get("value")?.as_object()?.iter().next()?;
            Some((key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        })
        .collect()
}

fn span(raw: &Value, resource: &BTreeMap<String, String>) -> Result<Span> {
    Ok(Span {
        trace: text(raw, "traceId"),
        id: text(raw, "spanId"),
        parent: text(raw, "parentSpanId"),
        name: raw.get("name").and_then(Value::as_str).context("a span has no name")?.to_owned(),
        kind: match number(raw, "kind") {
            Some(2) => Kind::Server,
            Some(3) => Kind::Client,
            _ => Kind::Other,
        },
        start: number(raw, "startTimeUnixNano").context("a span has no start")?,
        end: number(raw, "endTimeUnixNano").context("a span has no end")?,
        status: raw.get("status").and_then(|status| number(status, "code")).unwrap_or(0),
        state: raw.get("traceState").and_then(Value::as_str).unwrap_or_default().to_owned(),
        attributes: attributes(raw),
        resource: resource.clone(),
        links: list(raw, "links").map(|link| (text(link, "traceId"), text(link, "spanId"))).collect(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A line with one span.
    pub(crate) fn line(service: &str, kind: u8, id: u64, parent: u64, path: &str, confidence: f64) -> String {
        let parent = if parent == 0 { String::new() } else { format!("{parent:016x}") };
        let (key, path) =
            if kind == 2 { ("url.path", path.to_owned()) } else { ("url.full", format!("http://h:1{path}")) };
        format!(
            r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"service.name","value":{{"stringValue":"{service}"}}}}]}},"scopeSpans":[{{"spans":[{{"traceId":"{:032x}","spanId":"{id:016x}","parentSpanId":"{parent}","name":"GET","kind":{kind},"startTimeUnixNano":"1","endTimeUnixNano":"5","attributes":[{{"key":"{key}","value":{{"stringValue":"{path}"}}}},{{"key":"http.response.status_code","value":{{"intValue":"200"}}}},{{"key":"spanwise.parent.confidence","value":{{"doubleValue":{confidence}}}}}],"status":{{}}}}]}}]}}]}}"#,
            7
        ) + "\n"
    }

    #[test]
    fn a_line_is_read() {
        let text = line("a", 2, 1, 0, "/work/17", 1.0) + &line("a", 3, 2, 1, "/leaf/17/2?x=1", 0.5);
        let spans = Spans::parse(&text).unwrap();
        spans.check_shape().unwrap();
        let client = spans.at(Kind::Client, "a").next().unwrap();
        assert_eq!((client.path(), client.request_number()), ("/leaf/17/2", Some(17)));
        assert_eq!(client.number("http.response.status_code"), Some(200));
        assert_eq!(client.confidence(), Some(0.5));
        assert_eq!(spans.parent(client).unwrap().path(), "/work/17");
        assert_eq!(spans.ancestors(client).count(), 1);
    }

    #[test]
    fn loops_and_doubles_are_found() {
        let circle = line("a", 2, 1, 2, "/", 1.0) + &line("a", 3, 2, 1, "/", 1.0);
        assert!(Spans::parse(&circle).unwrap().check_shape().is_err());
        let double = line("a", 2, 1, 0, "/", 1.0) + &line("a", 3, 1, 0, "/", 1.0);
        assert!(Spans::parse(&double).unwrap().check_shape().is_err());
        assert!(Spans::parse("{\"resourceSpans\":[").is_err());
    }
}
