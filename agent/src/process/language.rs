//! Which language a program is written in: what compiled it, what it is called, what it has loaded.

use std::path::Path;

use super::elf::Findings;
use super::service::Language;

/// Libraries worth knowing of, by the beginning of the file name, and the language that one stands for.
const LIBRARIES: &[(&str, &str, Option<Language>)] = &[
    ("libpython", "libpython", Some(Language::Python)),
    ("libjvm.so", "libjvm", Some(Language::Java)),
    ("libruby", "libruby", Some(Language::Ruby)),
    ("libcoreclr.so", "libcoreclr", Some(Language::Dotnet)),
    ("libphp", "libphp", Some(Language::Php)),
    ("libnode.so", "libnode", Some(Language::Nodejs)),
    ("libssl.so", "libssl", None),
    ("libssl3.so", "libssl3 (NSS)", None),
    ("libgnutls.so", "libgnutls", None),
    ("libmbedtls.so", "libmbedtls", None),
    ("libwolfssl.so", "libwolfssl", None),
    ("libs2n.so", "libs2n", None),
    ("liburing.so", "liburing", None),
];

/// Libraries of interest among the mapped files, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Libraries(Vec<usize>);

impl Libraries {
    /// Takes note of a mapped file.
    pub(super) fn see(&mut self, path: &str) {
        let file = path.rsplit('/').next().unwrap_or(path);
        if !file.starts_with("lib") {
            return;
        }
        if let Some(index) = LIBRARIES.iter().position(|(prefix, ..)| file.starts_with(prefix))
            && !self.0.contains(&index)
        {
            self.0.push(index);
        }
    }

    /// Their short names.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.entries().map(|entry| entry.1).collect()
    }

    fn entries(&self) -> impl Iterator<Item = &'static (&'static str, &'static str, Option<Language>)> {
        self.0.iter().filter_map(|index| LIBRARIES.get(*index))
    }
}

/// The language. What compiled the program is certain, its name nearly so; a loaded library counts last, because
/// programs of any language load others. A program that has only just started has not loaded its libraries yet.
pub(super) fn language(found: Findings, exe: &Path, libraries: &Libraries) -> Language {
    if found.go {
        return Language::Go;
    }
    let name = exe.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is = |stem: &str| {
        name.strip_prefix(stem)
            .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-')))
    };
    match name {
        "node" | "nodejs" => Language::Nodejs,
        "java" => Language::Java,
        "dotnet" => Language::Dotnet,
        _ if is("python") || is("pypy") => Language::Python,
        _ if is("ruby") => Language::Ruby,
        _ if is("php") || is("php-fpm") || is("php-cgi") => Language::Php,
        _ if is("perl") || name.starts_with("perl5.") => Language::Perl,
        _ => libraries.entries().find_map(|entry| entry.2).unwrap_or(match found.rust {
            true => Language::Rust,
            false => Language::Cpp,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(exe: &str, found: Findings, mapped: &[&str]) -> Language {
        let mut libraries = Libraries::default();
        mapped.iter().for_each(|path| libraries.see(path));
        language(found, Path::new(exe), &libraries)
    }

    #[test]
    fn languages() {
        let none = Findings::default();
        for (exe, expected) in [
            ("/usr/bin/python3.11", Language::Python),
            ("/usr/bin/python", Language::Python),
            ("/usr/bin/pythonista", Language::Cpp),
            ("/usr/bin/node", Language::Nodejs),
            ("/usr/bin/ruby3.1", Language::Ruby),
            ("/usr/sbin/php-fpm8.2", Language::Php),
            ("/usr/bin/perl", Language::Perl),
            ("/usr/bin/perl5.36-x86_64-linux-gnu", Language::Perl),
            ("/usr/bin/perlbal", Language::Cpp),
            ("/usr/sbin/nginx", Language::Cpp),
        ] {
            assert_eq!(of(exe, none, &["/usr/lib/libc.so.6"]), expected, "{exe}");
        }
        assert_eq!(of("/app/node", Findings { go: true, ..none }, &[]), Language::Go);
        assert_eq!(of("/app/x", Findings { rust: true, ..none }, &["/lib/libssl.so.3"]), Language::Rust);
        assert_eq!(of("/usr/bin/uwsgi", none, &["/usr/lib/libpython3.11.so.1.0"]), Language::Python);
        assert_eq!(of("/opt/run", none, &["/opt/jdk/lib/server/libjvm.so"]), Language::Java);
        assert_eq!(of("/opt/app", none, &["/usr/share/dotnet/libcoreclr.so"]), Language::Dotnet);
    }

    #[test]
    fn libraries_once_each() {
        let mut libraries = Libraries::default();
        for path in
            ["/l/libssl.so.3", "/l/libssl.so.3", "/l/libpython3.11.so.1.0 (deleted)", "/l/notlibssl.so"]
        {
            libraries.see(path);
        }
        assert_eq!(libraries.names(), ["libssl", "libpython"]);
    }
}
