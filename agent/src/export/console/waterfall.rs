//! A trace as a tree with timing bars.
//!
//! Comes in: the spans of a trace (or of several). Goes out: text, a few columns and one line a span.

use std::collections::HashMap;
use std::fmt::Write;

use super::text::{Paint, duration, fit, harmless, paint, right, service_paint, width as cells};
use crate::attribute::Value;
use crate::span::{Kind, Span, SpanId, Status, TraceId};

/// Widths of the picture that make sense.
const NARROWEST: usize = 64;
const WIDEST: usize = 240;
/// Deeper spans are not indented further.
const DEEPEST: usize = 16;
const KIND_CELLS: usize = 6;
const STATUS_CELLS: usize = 3;
const DURATION_CELLS: usize = 8;

/// Draws spans as waterfalls, one for each trace, in the order of their first start.
pub fn render(spans: &[Span], width: usize, color: bool) -> String {
    let mut traces: HashMap<TraceId, Vec<&Span>> = HashMap::new();
    for span in spans {
        traces.entry(span.trace_id).or_default().push(span);
    }
    let mut traces: Vec<Vec<&Span>> = traces.into_values().collect();
    for trace in &mut traces {
        trace.sort_by_key(|span| (span.start_unix_ns, std::cmp::Reverse(span.end_unix_ns), span.span_id));
    }
    traces.sort_by_key(|trace| trace.first().map(|span| (span.start_unix_ns, span.trace_id)));
    let mut out = String::new();
    for trace in &traces {
        draw(&mut out, trace, width.clamp(NARROWEST, WIDEST), color);
    }
    out
}

/// One line of the picture.
struct Row<'a> {
    span: &'a Span,
    service: String,
    label: String,
    status: String,
    note: String,
}

/// A trace sorted by start.
fn draw(out: &mut String, trace: &[&Span], width: usize, color: bool) {
    let Some(start) = trace.iter().map(|span| span.start_unix_ns).min() else { return };
    let end = trace.iter().map(|span| span.end_unix_ns).max().unwrap_or(start).max(start);
    headline(out, trace, start, end, color);
    let rows = rows(trace);
    let longest =
        |of: for<'r> fn(&'r Row<'_>) -> &'r str| rows.iter().map(|row| cells(of(row))).max().unwrap_or(0);
    let service_cells = longest(|row| &row.service).clamp(4, 14);
    // Two before the service and two between columns.
    let fixed = 2 + service_cells + 2 + KIND_CELLS + 2 + 2 + STATUS_CELLS + 2 + 2 + DURATION_CELLS;
    // Notes are the first to go where it is narrow.
    let note_cells = if width < 90 { 0 } else { longest(|row| &row.note).min(26) };
    let fixed = fixed + if note_cells > 0 { 2 + note_cells } else { 0 };
    let room = width.saturating_sub(fixed);
    let label_cells = longest(|row| &row.label).min((room * 2 / 3).max(12));
    let bar_cells = room.saturating_sub(label_cells).max(6);
    for row in &rows {
        let failed = row.span.status == Status::Error;
        let service = service_paint(&row.service);
        let or_red = |paint: Paint| if failed { Paint::Red } else { paint };
        let kind = match row.span.kind {
            Kind::Server => "server",
            Kind::Client => "client",
        };
        let mut line = String::from("  ");
        paint(&mut line, &fit(&row.service, service_cells), service, color);
        line.push_str("  ");
        paint(&mut line, kind, Paint::Dim, color);
        line.push_str("  ");
        paint(&mut line, &fit(&row.label, label_cells), or_red(Paint::Plain), color);
        line.push_str("  ");
        paint(&mut line, &fit(&row.status, STATUS_CELLS), or_red(Paint::Plain), color);
        line.push_str("  ");
        paint(&mut line, &bar(row.span, start, end, bar_cells), or_red(service), color);
        line.push_str("  ");
        let took = duration(row.span.end_unix_ns.saturating_sub(row.span.start_unix_ns));
        paint(&mut line, &right(&took, DURATION_CELLS), Paint::Plain, color);
        if note_cells > 0 {
            line.push_str("  ");
            paint(&mut line, fit(&row.note, note_cells).trim_end(), Paint::Dim, color);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out.push('\n');
}

fn headline(out: &mut String, trace: &[&Span], start: u64, end: u64, color: bool) {
    let mut services: Vec<u32> = trace.iter().map(|span| span.service.id).collect();
    services.sort_unstable();
    services.dedup();
    let errors = trace.iter().filter(|span| span.status == Status::Error).count();
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let id = trace.first().map(|span| hex(&span.trace_id)).unwrap_or_default();
    let of_day = start / 1_000_000 % 86_400_000;
    let clock = format!(
        "{:02}:{:02}:{:02}.{:03}Z",
        of_day / 3_600_000,
        of_day / 60_000 % 60,
        of_day / 1_000 % 60,
        of_day % 1_000
    );
    paint(out, "trace ", Paint::Dim, color);
    paint(out, &id, Paint::Bold, color);
    paint(out, &format!("  {clock}  "), Paint::Dim, color);
    paint(out, &duration(end - start), Paint::Bold, color);
    let sums = format!("  {}, {}", count(trace.len(), "span"), count(services.len(), "service"));
    paint(out, &sums, Paint::Dim, color);
    if errors > 0 {
        paint(out, &format!(", {}", count(errors, "error")), Paint::Red, color);
    }
    out.push('\n');
}

/// The spans in the order of the tree. A span whose parent is not here stands at the left; a ring of parents, which
/// only nonsense can bring about, is opened where it is met first.
fn rows<'a>(trace: &[&'a Span]) -> Vec<Row<'a>> {
    let ids: HashMap<SpanId, usize> =
        trace.iter().enumerate().rev().map(|(index, span)| (span.span_id, index)).collect();
    let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut tops = Vec::new();
    for (index, span) in trace.iter().enumerate() {
        match span.parent_span_id.and_then(|parent| ids.get(&parent)) {
            Some(&parent) if parent != index => children.entry(parent).or_default().push(index),
            _ => tops.push(index),
        }
    }
    let mut rows = Vec::with_capacity(trace.len());
    let mut seen = vec![false; trace.len()];
    // Every index once more after the tops, so that rings are met too.
    for top in tops.into_iter().chain(0..trace.len()) {
        let mut stack = vec![(top, String::new(), None)];
        while let Some((index, indent, last)) = stack.pop() {
            let (Some(span), Some(seen)) = (trace.get(index), seen.get_mut(index)) else { continue };
            if std::mem::replace(seen, true) {
                continue;
            }
            let (branch, below) = match last {
                None => ("", ""),
                Some(true) => ("└─ ", "   "),
                Some(false) => ("├─ ", "│  "),
            };
            rows.push(row(span, &format!("{indent}{branch}")));
            let indent = if indent.chars().count() < DEEPEST * 3 { indent + below } else { indent };
            let below = children.get(&index).map_or(&[][..], Vec::as_slice);
            for (place, &child) in below.iter().enumerate().rev() {
                stack.push((child, indent.clone(), Some(place + 1 == below.len())));
            }
        }
    }
    rows
}

fn row<'a>(span: &'a Span, branch: &str) -> Row<'a> {
    let source = text(span, "spanwise.parent.source");
    let abstained = source == Some("abstained");
    let mut label = branch.to_owned();
    if abstained {
        label.push_str("~ ");
    }
    label.push_str(&harmless(&span.name));
    if let Some(path) = path(span).filter(|path| !span.name.ends_with(path)) {
        label.push(' ');
        label.push_str(&harmless(path));
    }
    let status = match (int(span, "http.response.status_code"), span.status) {
        (Some(code), _) => code.to_string(),
        (None, Status::Error) => {
            text(span, "db.response.status_code").map_or_else(|| "ERR".to_owned(), harmless)
        }
        (None, Status::Unset) => "-".to_owned(),
    };
    let mut note = Vec::new();
    if let Some(source) = source.filter(|source| *source != "root") {
        note.push(harmless(source));
    }
    match attribute(span, "spanwise.parent.confidence") {
        Some(Value::Double(sure)) if *sure < 0.995 && !abstained => note.push(format!("{sure:.2}")),
        _ => {}
    }
    if let Some(link) = span.links.first() {
        let mut text = format!("link {}", hex(link.span_id.get(..4).unwrap_or_default()));
        if span.links.len() > 1 {
            let _ = write!(text, " +{}", span.links.len() - 1);
        }
        note.push(text);
    }
    Row { span, service: harmless(&span.service.name), label, status, note: note.join(" ") }
}

/// Path of a request: as the server saw it, or the URL of a client without scheme and query.
fn path(span: &Span) -> Option<&str> {
    if let Some(path) = text(span, "url.path") {
        return Some(path);
    }
    let url = text(span, "url.full")?;
    let url = url.split_once("://").map_or(url, |(_, rest)| rest);
    url.split(['?', '#']).next()
}

fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a Value> {
    span.all_attributes().find(|attribute| attribute.0 == key).map(|attribute| &attribute.1)
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    match attribute(span, key) {
        Some(Value::Str(text)) => Some(text),
        _ => None,
    }
}

fn int(span: &Span, key: &str) -> Option<i64> {
    match attribute(span, key) {
        Some(Value::Int(number)) => Some(*number),
        _ => None,
    }
}

/// A bar from start to end of a span within the whole.
fn bar(span: &Span, start: u64, end: u64, width: usize) -> String {
    let whole = (end - start).max(1) as f64;
    let place = |at: u64| at.saturating_sub(start) as f64 / whole * width as f64;
    let (from, to) = (place(span.start_unix_ns), place(span.end_unix_ns.min(end)));
    let first = (from.floor() as usize).min(width.saturating_sub(1));
    // Rounded, so that neighbours do not seem to overlap; a sliver where less than half a cell is left.
    let full = (to.round() as usize).saturating_sub(first).min(width - first);
    let mut bar = " ".repeat(first);
    if full == 0 {
        bar.push('▏');
    } else {
        bar.extend(std::iter::repeat_n('█', full));
    }
    fit(&bar, width)
}

fn hex(bytes: &[u8]) -> String {
    let mut out = Vec::with_capacity(bytes.len() * 2);
    super::super::json::hex(&mut out, bytes);
    out.into_iter().map(char::from).collect()
}
