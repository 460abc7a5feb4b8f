//! What the program file says about itself: its class, and what compiled it. Only headers are read.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use object::read::ReadCache;
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, elf};

/// Longest `.comment` section that is looked at.
const LONGEST_COMMENT: u64 = 1 << 16;

/// Findings about a program file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// 32-bit code (x32 included).
    pub(super) narrow: bool,
    /// Built by the Go tool chain.
    pub(super) go: bool,
    /// Built by rustc.
    pub(super) rust: bool,
}

/// Looks at a program file. What is damaged or not ELF at all gives no findings.
pub(super) fn look(path: &Path) -> std::io::Result<Findings> {
    let mut file = File::open(path)?;
    let mut head = [0; 5];
    if file.read_exact(&mut head).is_err() || head.get(..4) != Some(&elf::ELFMAG[..]) {
        return Ok(Findings::default());
    }
    if head.get(4) == Some(&elf::ELFCLASS32) {
        return Ok(Findings { narrow: true, ..Findings::default() });
    }
    let cache = ReadCache::new(file);
    Ok(sections(&cache).unwrap_or_default())
}

fn sections(data: &ReadCache<File>) -> object::Result<Findings> {
    let header = elf::FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let table = header.sections(endian, data)?;
    let mut findings = Findings::default();
    for section in table.iter() {
        match table.section_name(endian, section)? {
            b".go.buildinfo" | b".note.go.buildid" => findings.go = true,
            b".comment" if section.sh_size(endian) <= LONGEST_COMMENT => {
                let comment = section.data(endian, data)?;
                findings.rust |= memchr::memmem::find(comment, b"rustc version").is_some();
            }
            _ => {}
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn this_program_is_rust() {
        let found = look(&std::env::current_exe().unwrap()).unwrap();
        assert_eq!(found, Findings { narrow: false, go: false, rust: true });
    }

    #[test]
    fn other_files() {
        let of = |bytes: &[u8]| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(bytes).unwrap();
            look(file.path()).unwrap()
        };
        assert_eq!(of(b""), Findings::default());
        assert_eq!(of(b"#!/bin/sh\n"), Findings::default());
        assert!(of(b"\x7fELF\x01\x01\x01").narrow);
        assert_eq!(of(b"\x7fELF\x02\x01\x01 cut off"), Findings::default());
        let this = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(of(&this[..4096]), Findings::default(), "its section headers are missing");
        assert!(look(Path::new("/does/not/exist")).is_err());
    }
}
