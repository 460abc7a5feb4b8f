//! Comes in: a Go program. Goes out: where its runtime keeps what is read of a goroutine, by its version of Go; nothing for
//! versions that are not known.
//!
//! The offsets are those that the compilers of each version wrote into the debugging information of a program.

use std::fs::File;
use std::path::Path;

use object::read::ReadCache;
use object::read::elf::{FileHeader, SectionHeader};
use object::{Endianness, elf};
use spanwise_common::golang::Layout;

/// Longest block of build information that is looked at.
const LONGEST: u64 = 1 << 20;
/// Bytes before the version.
const HEAD: usize = 32;

/// The layout for a program file.
pub fn layout(program: &Path) -> Option<Layout> {
    of_version(&version(program)?)
}

/// The name the compiler gave itself, as `go1.24.3`.
fn version(program: &Path) -> Option<String> {
    let cache = ReadCache::new(File::open(program).ok()?);
    let header = elf::FileHeader64::<Endianness>::parse(&cache).ok()?;
    let endian = header.endian().ok()?;
    let table = header.sections(endian, &cache).ok()?;
    let (_, section) = table.section_by_name(endian, b".go.buildinfo")?;
    if section.sh_size(endian) > LONGEST {
        return None;
    }
    let block: &[u8] = section.data(endian, &cache).ok()?;
    // Before Go 1.18 there are pointers where now the text is.
    if block.get(15)? & 2 == 0 {
        return None;
    }
    let length = usize::from(*block.get(HEAD)?);
    let text = block.get(HEAD + 1..)?.get(..length).filter(|_| length < 0x80)?;
    String::from_utf8(text.to_vec()).ok()
}

fn of_version(name: &str) -> Option<Layout> {
    let (major, rest) = name.strip_prefix("go")?.split_once('.')?;
    let minor = rest.split_once('.').map_or(rest, |(minor, _)| minor);
    let of = |curg, goid, parent, start| Some(Layout { m: 48, curg, goid, parent, start, pad: 0 });
    match (major, minor.parse::<u32>().ok()?) {
        ("1", 21 | 22) => of(192, 152, 272, 296),
        ("1", 23 | 24) => of(192, 160, 280, 304),
        ("1", 25) => of(184, 152, 272, 296),
        ("1", 26) => of(184, 152, 280, 304),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(of_version("go1.24.3").map(|layout| (layout.goid, layout.parent)), Some((160, 280)));
        assert_eq!(of_version("go1.26.8").map(|layout| (layout.curg, layout.start)), Some((184, 304)));
        for unknown in ["go1.20.14", "go1.99.1", "devel go1.27-abc", "go1.26rc1", "go2.1", "", "go"] {
            assert_eq!(of_version(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn this_program_is_not_go() {
        assert_eq!(layout(&std::env::current_exe().unwrap()), None);
        assert_eq!(layout(Path::new("/does/not/exist")), None);
    }
}
