//! `spanwise ps --probes PID`: where probes would go in a process, and why there. Nothing is attached.

use serde_json::{Value, json};

use super::printable;
use crate::cli::{CliError, print};
use crate::instrument::{Explained, Found, Wanted, explain};

/// Runs the command.
pub(super) fn main(pid: u32, as_json: bool) -> Result<(), CliError> {
    let files = explain(pid).map_err(|error| CliError::usage(error.to_string()))?;
    print(&if as_json { to_json(pid, &files) } else { to_text(pid, &files) })
}

fn site_json(wanted: &Wanted) -> Value {
    let site = &wanted.site;
    json!({
        "program": wanted.program,
        "function": site.function,
        "address": site.address,
        "file_offset": site.file_offset,
        "from_start": site.from_start,
        "instruction": site.instruction,
        "class": site.class.name(),
        "cost_ns": site.class.cost_ns(),
        "why": site.why,
    })
}

fn to_json(pid: u32, files: &[Explained]) -> String {
    let instrument = |(name, result): &(&'static str, Result<Found, String>)| match result {
        Ok(found) => json!({
            "name": name,
            "sites": found.probes.iter().map(site_json).collect::<Vec<_>>(),
            "later": found.later.iter().map(|(_, wanted)| site_json(wanted)).collect::<Vec<_>>(),
            "refusals": found.refusals.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "notes": found.notes,
        }),
        Err(why) => json!({ "name": name, "sites": [], "refusals": [why], "notes": [] }),
    };
    let file = |file: &Explained| json!({ "path": file.path, "instruments": file.by.iter().map(instrument).collect::<Vec<_>>() });
    format!("{:#}\n", json!({ "pid": pid, "files": files.iter().map(file).collect::<Vec<_>>() }))
}

fn site_text(Wanted { site, program, .. }: &Wanted, more: &str) -> String {
    format!(
        "    {}+{:#x}  {}  ({}, about {} ns a hit, {program})\n      {}\n{more}",
        printable(&site.function),
        site.from_start,
        site.instruction,
        site.class.name(),
        site.class.cost_ns(),
        site.why
    )
}

fn to_text(pid: u32, files: &[Explained]) -> String {
    if files.is_empty() {
        return format!(
            "process {pid} gets no probes: nothing that it has mapped is of a kind that needs them\n"
        );
    }
    let mut out = String::new();
    for file in files {
        out.push_str(&printable(&file.path));
        out.push('\n');
        for (name, result) in &file.by {
            out.push_str(&format!("  {name}\n"));
            let found = match result {
                Ok(found) => found,
                Err(why) => {
                    out.push_str(&format!("    not used: {}\n", printable(why)));
                    continue;
                }
            };
            for wanted in &found.probes {
                out.push_str(&site_text(wanted, ""));
            }
            for (need, wanted) in &found.later {
                out.push_str(&site_text(wanted, &format!("      {}\n", need.when())));
            }
            let refusals = found.refusals.iter().map(|refusal| format!("no probe: {refusal}"));
            for sentence in refusals.chain(found.notes.iter().cloned()) {
                out.push_str(&format!("    {}\n", printable(&sentence)));
            }
            if found.probes.is_empty() && found.refusals.is_empty() && found.notes.is_empty() {
                out.push_str("    nothing of what is looked for is here\n");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instrument::Need;
    use crate::placement::{Class, Refusal, Site};

    fn files() -> Vec<Explained> {
        let site = Site {
            function: "SSL_read\u{1b}".into(),
            address: 0x1016,
            file_offset: 0x16,
            from_start: 0x16,
            instruction: "js +0x47".into(),
            class: Class::Jump,
            why: "cheap".into(),
            places: vec![],
        };
        let found = Found {
            probes: vec![Wanted { program: "up_trial", site: site.clone(), cookie: 7 }],
            later: vec![(
                Need::HandOffs,
                Wanted { program: "late", site: Site { function: "send".into(), ..site }, cookie: 8 },
            )],
            refusals: vec![Refusal::NotOnce("SSL_peek".into())],
            notes: vec!["a note".into()],
            ..Found::default()
        };
        let by =
            vec![("openssl", Ok(found)), ("other", Err("damaged".into())), ("third", Ok(Found::default()))];
        vec![Explained { path: "/lib/libssl.so.3".into(), by }]
    }

    #[test]
    fn text() {
        let lines = to_text(7, &files());
        let expected = "/lib/libssl.so.3\n  openssl\n    SSL_read?+0x16  js +0x47  (jump, about 705 ns a hit, up_trial)\n      cheap\n    \
                        send+0x16  js +0x47  (jump, about 705 ns a hit, late)\n      cheap\n      attached only once calls of tasks that live on are \
                        not explained\n    \
                        no probe: SSL_peek: no instruction is passed exactly once by every call\n    a note\n  other\n    not used: damaged\n  \
                        third\n    nothing of what is looked for is here\n";
        assert_eq!(lines, expected);
        assert!(to_text(7, &[]).starts_with("process 7 gets no probes"));
    }

    #[test]
    fn json() {
        let json: Value = serde_json::from_str(&to_json(7, &files())).unwrap();
        assert_eq!(json["pid"], 7);
        let by = &json["files"][0]["instruments"];
        assert_eq!(
            (by[0]["name"].as_str(), by[0]["sites"][0]["class"].as_str()),
            (Some("openssl"), Some("jump"))
        );
        assert_eq!(by[1]["refusals"][0], "damaged");
        for key in
            ["program", "function", "address", "file_offset", "from_start", "instruction", "cost_ns", "why"]
        {
            assert!(!by[0]["sites"][0][key].is_null(), "{key}");
        }
    }
}
