//! Comes in: an ELF image. Goes out: which Go compiled it, and from which versions of which modules.

use crate::bytes::{Window, piece, u64_at};
use crate::image::Image;
use crate::version::Version;

/// What the block begins with.
const MAGIC: &[u8] = b"\xff Go buildinf:";
/// Longest list of modules that is looked at.
const MAX_LIST: u64 = 1 << 20;
/// Most modules kept.
const MAX_MODULES: usize = 2048;
/// What stands before and behind the list of modules.
const GUARD: usize = 16;

/// What a Go program says about its making.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildInfo {
    /// The compiler's name for itself, as `go1.24.3`.
    pub compiler: Box<str>,
    /// The package of `main`.
    pub path: Box<str>,
    /// Modules linked in, the main one included: path, version.
    pub modules: Vec<(Box<str>, Box<str>)>,
}

impl BuildInfo {
    /// The release of Go.
    pub fn version(&self) -> Option<Version> {
        Version::of_go(&self.compiler)
    }

    /// What the program says of the version of a module. One that was replaced by another path is not that module.
    pub fn module(&self, path: &str) -> Option<&str> {
        self.modules.iter().find(|(module, _)| &**module == path).map(|(_, version)| &**version)
    }

    pub(crate) fn read(image: &Image<'_>) -> Option<Self> {
        let place = find(image)?;
        let head = piece(&*image.bytes, place, 32)?;
        let (compiler, list) = match head.get(15)? & 2 {
            0 => {
                // Before 1.18: pointers to strings.
                let string = |at| pointed(image, u64_at(&head, at)?);
                (string(16)?, string(24).unwrap_or_default())
            }
            _ => {
                let (compiler, next) = inline(image, place.checked_add(32)?)?;
                (compiler, inline(image, next).map(|(list, _)| list).unwrap_or_default())
            }
        };
        let compiler = String::from_utf8_lossy(&compiler).into();
        let mut info = Self { compiler, ..Self::default() };
        if let Some(text) = list.get(GUARD..list.len().saturating_sub(GUARD)) {
            info.list(&String::from_utf8_lossy(text));
        }
        Some(info)
    }

    fn list(&mut self, text: &str) {
        for line in text.lines() {
            let mut columns = line.split('\t');
            match (columns.next(), columns.next(), columns.next()) {
                (Some("path"), Some(path), _) => self.path = path.into(),
                (Some("mod" | "dep"), Some(path), version) if self.modules.len() < MAX_MODULES => {
                    self.modules.push((path.into(), version.unwrap_or_default().into()));
                }
                (Some("=>"), Some(path), version) => {
                    if let Some(last) = self.modules.last_mut() {
                        *last = (path.into(), version.unwrap_or_default().into());
                    }
                }
                _ => {}
            }
        }
    }
}

/// Where the block is in the file.
fn find(image: &Image<'_>) -> Option<u64> {
    if let Some(section) = image.section(".go.buildinfo") {
        return search(image, section.offset, section.size);
    }
    // No sections: it is in one of the writable segments, which are the shorter part of a program.
    let mut writable = image.segments.iter().filter(|segment| segment.flags & 2 != 0);
    writable.find_map(|segment| search(image, segment.offset, segment.size))
}

fn search(image: &Image<'_>, offset: u64, len: u64) -> Option<u64> {
    let mut window = Window::new(&*image.bytes, offset, len);
    let mut at = 0;
    while let Some(held) = window.rest(at) {
        for found in memchr::memmem::find_iter(held, MAGIC) {
            let place = offset.checked_add(at)?.checked_add(found as u64)?;
            // Behind it: the size of a pointer (not used any more where the texts are here), and flags.
            let next = piece(&*image.bytes, place.checked_add(14)?, 2)?;
            if matches!(next.as_slice(), [8, 0] | [_, 2]) {
                return Some(place);
            }
        }
        // Windows overlap, for a block that begins at the end of one.
        at += (held.len() - MAGIC.len().min(held.len() - 1)) as u64;
    }
    None
}

/// A string with its length before it, and where the next one is.
fn inline(image: &Image<'_>, place: u64) -> Option<(Vec<u8>, u64)> {
    let mut len = 0_u64;
    let mut at = place;
    for shift in (0..).step_by(7).take(5) {
        let byte = *piece(&*image.bytes, at, 1)?.first()?;
        at = at.checked_add(1)?;
        len |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((
                piece(&*image.bytes, at, (len <= MAX_LIST).then_some(len)?)?,
                at.checked_add(len)?,
            ));
        }
    }
    None
}

/// The string that a string header at an address tells of.
fn pointed(image: &Image<'_>, header: u64) -> Option<Vec<u8>> {
    let data = image.pointer(header)?;
    let len = u64_at(&image.at(header.checked_add(8)?, 8)?, 0)?;
    image.at(data, (len <= MAX_LIST).then_some(len)?)
}
