//! Where this system gets Debian from. In: the files of apt's configuration, in both of their forms. Out: the addresses of the
//! main archive and of the one for security updates.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

/// Where packages come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mirrors {
    /// The main archive.
    pub(super) main: String,
    /// Security updates.
    pub(super) security: String,
}

/// An entry of the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
}

/// Names of suites by which an archive of Debian is told from others.
const SUITES: [&str; 9] =
    ["bullseye", "bookworm", "trixie", "forky", "oldoldstable", "oldstable", "stable", "testing", "sid"];

impl Mirrors {
    /// From the system's own configuration, `/etc/apt`.
    pub(super) fn of_system() -> Result<Self> {
        Self::read(Path::new("/etc/apt"))
    }

    fn read(apt: &Path) -> Result<Self> {
        let mut files = vec![apt.join("sources.list")];
        let mut parts: Vec<_> = fs::read_dir(apt.join("sources.list.d"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        parts.sort();
        files.extend(parts);
        let mut sources = Vec::new();
        for file in files {
            // A file that is not there names no source.
            let text = fs::read_to_string(&file).unwrap_or_default();
            match file.extension().and_then(|end| end.to_str()) {
                Some("list") => sources.extend(text.lines().filter_map(one_line)),
                Some("sources") => sources.extend(stanzas(&text)),
                _ => {}
            }
        }
        Self::choose(&sources)
    }

    fn choose(sources: &[Source]) -> Result<Self> {
        let with = |end: &str| {
            let wanted = |suite: &String| suite.strip_suffix(end).is_some_and(|name| SUITES.contains(&name));
            sources
                .iter()
                .filter(|source| source.components.iter().any(|component| component == "main"))
                .filter(|source| source.suites.iter().any(wanted))
                .flat_map(|source| &source.uris)
                .find(|uri| ["http://", "https://", "file:"].iter().any(|scheme| uri.starts_with(scheme)))
                .map(|uri| uri.trim_end_matches('/').to_owned())
        };
        let Some(main) = with("") else {
            bail!(
                "apt's configuration below /etc/apt names no archive of Debian, so kernels to test with cannot be fetched: add \
                 one (`deb URI bookworm main`)"
            );
        };
        // Mirrors that carry both keep them side by side.
        let security = with("-security")
            .or_else(|| main.strip_suffix("/debian").map(|base| format!("{base}/debian-security")));
        match security {
            Some(security) => Ok(Self { main, security }),
            None => bail!(
                "apt's configuration below /etc/apt names no archive of Debian's security updates, where the older kernels are: \
                 add one (`deb URI bookworm-security main`)"
            ),
        }
    }
}

/// `deb [options] URI SUITE COMPONENT...`
fn one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next().unwrap_or_default();
    let rest = line.trim().strip_prefix("deb")?;
    // Not `deb-src`.
    let rest = rest.starts_with([' ', '\t']).then(|| rest.trim_start())?;
    let rest = if rest.starts_with('[') { rest.split_once(']')?.1 } else { rest };
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Source { uris: vec![words.next()?], suites: vec![words.next()?], components: words.collect() })
}

/// Stanzas of `Key: value` lines (deb822), with an empty line between them; a line that starts with a blank continues a value.
fn stanzas(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut fields: Vec<(String, Vec<String>)> = Vec::new();
    for line in text.lines().chain([""]) {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        if line.trim().is_empty() {
            sources.extend(source(&fields));
            fields.clear();
        } else if line.starts_with('#') {
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, values)) = fields.last_mut() {
                values.extend(words(line));
            }
        } else if let Some((key, value)) = line.split_once(':') {
            fields.push((key.trim().to_ascii_lowercase(), words(value)));
        }
    }
    sources
}

fn source(fields: &[(String, Vec<String>)]) -> Option<Source> {
    let field = |name: &str| {
        fields.iter().find(|(key, _)| key == name).map(|(_, values)| values.clone()).unwrap_or_default()
    };
    let off = ["no", "false", "off", "0"];
    if field("enabled").iter().any(|value| off.contains(&value.to_ascii_lowercase().as_str())) {
        return None;
    }
    field("types").iter().any(|kind| kind == "deb").then(|| Source {
        uris: field("uris"),
        suites: field("suites"),
        components: field("components"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(files: &[(&str, &str)]) -> Result<Mirrors> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Mirrors::read(dir.path())
    }

    fn mirrors(main: &str, security: &str) -> Mirrors {
        Mirrors { main: main.into(), security: security.into() }
    }

    #[test]
    fn one_line_form() {
        let text = "# deb http://old.example/debian bookworm main\n\
                    deb-src http://src.example/debian bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] https://m.example/debian/ bookworm main contrib # ours\n\
                    deb\thttp://m.example/debian-security bookworm-security main\n";
        let found = written(&[("sources.list", text)]).unwrap();
        assert_eq!(found, mirrors("https://m.example/debian", "http://m.example/debian-security"));
    }

    #[test]
    fn deb822_form() {
        let text = "Types: deb deb-src\n# a comment\nURIs: http://m.example/x/debian\nSuites: bookworm\n bookworm-updates\n\
                    Components: main\nSigned-By: /k.gpg\n\nTypes: deb\nURIs: http://s.example/debian-security\n\
                    Suites: bookworm-security\nComponents: main\n";
        let found = written(&[("sources.list.d/debian.sources", text)]).unwrap();
        assert_eq!(found, mirrors("http://m.example/x/debian", "http://s.example/debian-security"));
    }

    #[test]
    fn what_is_off_or_not_debian_is_left_out() {
        let off =
            "Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\n";
        let node = "Types: deb\nURIs: https://node.example/node\nSuites: nodistro\nComponents: main\n";
        let files = [("sources.list.d/a.sources", off), ("sources.list.d/b.sources", node)];
        assert!(written(&files).unwrap_err().to_string().contains("names no archive of Debian,"));
        let good = "deb http://m.example/debian trixie main\n";
        let disabled = ("sources.list.d/c.list.disabled", "deb http://no.example/debian trixie main\n");
        let found =
            written(&[disabled, ("sources.list.d/d.list", good), ("sources.list.d/a.sources", off)]).unwrap();
        assert_eq!(
            found,
            mirrors("http://m.example/debian", "http://m.example/debian-security"),
            "side by side"
        );
    }

    #[test]
    fn a_mirror_without_security_updates_is_an_error() {
        let text = "deb http://m.example/packages trixie main\n";
        assert!(written(&[("sources.list", text)]).unwrap_err().to_string().contains("security updates"));
    }
}
