//! Which programs a command will run, before it is run. Comes in: the command's first word. Goes out: files, the program itself last.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::language::{Libraries, language};
use super::{Language, elf};

/// Scripts whose interpreter is a script again.
const DEEPEST: usize = 4;
/// Longest first line of a script that the kernel reads.
const LINE: usize = 256;

/// The program, and where it is a script what interprets it.
#[must_use]
pub fn programs(command: &OsStr) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = find(command);
    while let Some(path) = next.take() {
        next = interpreter(&path).and_then(|words| match words.as_slice() {
            // `env` finds the program by its name; what begins with a dash or sets a variable is not one.
            [env, names @ ..] if Path::new(env).file_name() == Some(OsStr::new("env")) => names
                .iter()
                .find(|word| !word.starts_with('-') && !word.contains('='))
                .and_then(|name| find(OsStr::new(name))),
            [program, ..] => find(OsStr::new(program)),
            [] => None,
        });
        found.push(path);
        if found.len() > DEEPEST {
            break;
        }
    }
    found
}

/// The language of a program that does not run yet.
#[must_use]
pub fn language_of(path: &Path) -> Language {
    let found = elf::look(path).unwrap_or_default();
    language(found, &path.canonicalize().unwrap_or_else(|_| path.into()), &Libraries::default())
}

/// Finds a command as a shell does.
fn find(command: &OsStr) -> Option<PathBuf> {
    let runs = |path: &PathBuf| {
        path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
    };
    if command.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(command)).filter(runs);
    }
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(command)).find(runs)
}

/// The words behind `#!`.
fn interpreter(path: &Path) -> Option<Vec<String>> {
    let mut head = Vec::with_capacity(LINE);
    File::open(path).ok()?.take(LINE as u64).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    Some(str::from_utf8(line).ok()?.split_ascii_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn scripts_lead_to_their_interpreters() {
        let folder = tempfile::tempdir().unwrap();
        let shell = find(OsStr::new("sh")).unwrap();
        let direct = script(folder.path(), "direct", &format!("#!{} -e\nexit 0\n", shell.display()));
        assert_eq!(programs(direct.as_os_str()), [direct.clone(), shell.clone()]);
        let by_name = script(folder.path(), "by_name", "#!/usr/bin/env -S A=1 sh\n");
        assert_eq!(programs(by_name.as_os_str()), [by_name.clone(), shell.clone()]);
        let twice = script(folder.path(), "twice", &format!("#!{}\n", direct.display()));
        assert_eq!(programs(twice.as_os_str()), [twice.clone(), direct, shell.clone()]);
        let own = script(folder.path(), "own", &format!("#!{}\n", folder.path().join("own").display()));
        assert_eq!(programs(own.as_os_str()).len(), DEEPEST + 1);
        assert_eq!(programs(OsStr::new("sh")), [shell]);
        assert!(programs(OsStr::new("no-such-command")).is_empty());
        let data = folder.path().join("data");
        std::fs::write(&data, "#!/bin/sh\n").unwrap();
        assert!(programs(data.as_os_str()).is_empty(), "it cannot be run");
    }

    #[test]
    fn languages_of_files() {
        assert_eq!(language_of(Path::new("/bin/sh")), Language::Cpp);
        assert_eq!(language_of(&std::env::current_exe().unwrap()), Language::Rust);
    }
}
