//! Files whose code a process has mapped. Comes in: a process id. Goes out: each file once, and an open descriptor of it, also when
//! it lies in another mount namespace or has been deleted.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Files of one process that are looked at.
pub const MOST: usize = 1024;

/// Which file it is, whatever it is called.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct FileId {
    /// Device, as in `/proc/PID/maps`.
    pub device: u64,
    /// Inode.
    pub inode: u64,
}

/// A file whose code is mapped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapped {
    /// Which one.
    pub id: FileId,
    /// Its path as the process sees it.
    pub path: String,
    /// It has no name any more.
    pub deleted: bool,
    /// Where the first of its code is mapped.
    pub start: u64,
    /// End of that mapping.
    pub end: u64,
    /// What of the file is there.
    pub offset: u64,
}

/// Files with code of a process, in the order of their addresses.
pub fn mapped(proc: &Path, pid: u32) -> io::Result<Vec<Mapped>> {
    let text = std::fs::read(proc.join(pid.to_string()).join("maps"))?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

fn parse(text: &str) -> Vec<Mapped> {
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
    for one in text.lines().filter_map(line) {
        if all.len() < MOST && seen.insert(one.id) {
            all.push(one);
        }
    }
    all
}

/// `55d0c0a00000-55d0c0a25000 r-xp 00002000 fe:01 1234    /usr/bin/cat`
fn line(text: &str) -> Option<Mapped> {
    let (range, rest) = text.split_once(' ')?;
    let (mode, rest) = rest.split_once(' ')?;
    if mode.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let (offset, rest) = rest.split_once(' ')?;
    let (device, rest) = rest.split_once(' ')?;
    let (inode, path) = rest.split_once(' ')?;
    let path = path.trim_start();
    let (start, end) = range.split_once('-')?;
    let (major, minor) = device.split_once(':')?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let inode = inode.parse().ok().filter(|inode| *inode != 0)?;
    if !path.starts_with('/') {
        return None;
    }
    let (path, deleted) = match path.strip_suffix(" (deleted)") {
        Some(path) => (path, true),
        None => (path, false),
    };
    let device = libc::makedev(hex(major)? as libc::c_uint, hex(minor)? as libc::c_uint);
    Some(Mapped {
        id: FileId { device, inode },
        // The kernel writes line ends in names so.
        path: path.replace("\\012", "\n"),
        deleted,
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
    })
}

/// Opens a mapped file: the same inode, whatever is at its path by now.
pub fn open(proc: &Path, pid: u32, mapped: &Mapped) -> io::Result<File> {
    let own = proc.join(pid.to_string());
    let relative = mapped.path.trim_start_matches('/');
    // By its name below the process's root; by its name here (a process in a chroot is told the whole path); the program itself;
    // and the mapping, which only some may follow.
    let places: [PathBuf; 4] = [
        own.join("root").join(relative),
        PathBuf::from(&mapped.path),
        own.join("exe"),
        own.join("map_files").join(format!("{:x}-{:x}", mapped.start, mapped.end)),
    ];
    let mut first = None;
    for place in places {
        match open_plain(&place) {
            Ok(file) if is(&file, mapped.id) => return Ok(file),
            Ok(_) => {}
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(match first {
        Some(error) if !mapped.deleted => error,
        _ => io::Error::new(
            io::ErrorKind::NotFound,
            "its name is gone, and CAP_CHECKPOINT_RESTORE, with which it could be opened without one, is not there",
        ),
    })
}

/// Opens what should be a plain file, and does not wait for the other end if it is a pipe.
pub fn open_plain(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

/// File systems in layers give their files a device of their own, which the kernel does not show in `maps`: the inode decides.
fn is(file: &File, id: FileId) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.ino() == id.inode)
}

/// Libraries in the usual folders below a process's root whose names begin so, each file once.
pub fn libraries(proc: &Path, pid: u32, beginnings: &[&str]) -> Vec<PathBuf> {
    const FOLDERS: [&str; 6] =
        ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib64", "lib", "usr/lib"];
    const FEW: usize = 32;
    let root = proc.join(pid.to_string()).join("root");
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for folder in FOLDERS {
        let Ok(entries) = std::fs::read_dir(root.join(folder)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if found.len() >= FEW || !name.contains(".so") {
                continue;
            }
            if !beginnings.iter().any(|beginning| name.starts_with(beginning)) {
                continue;
            }
            // Links within the same root only: one that begins at the root would lead into ours.
            let path = entry.path();
            let inside = |target: PathBuf| !target.is_absolute();
            if path.read_link().is_ok_and(|target| !inside(target)) {
                continue;
            }
            if let Ok(about) = std::fs::metadata(&path)
                && about.is_file()
                && seen.insert((about.dev(), about.ino()))
            {
                found.push(path);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
5581e0000000-5581e0001000 r--p 00000000 fe:01 77                         /usr/bin/python3.11
5581e0001000-5581e0010000 r-xp 00001000 fe:01 77                         /usr/bin/python3.11
5581e0010000-5581e0011000 r-xp 00010000 fe:01 77                         /usr/bin/python3.11
7f0000000000-7f0000010000 r-xp 00002000 00:2f 4242                       /tmp/a name.so (deleted)
7f0000020000-7f0000030000 rwxp 00000000 00:00 0
7f0000040000-7f0000050000 r-xp 00000000 00:01 9                          anon_inode:[perf]
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0                          [vdso]
broken line
";

    #[test]
    fn each_file_once() {
        let all = parse(TEXT);
        assert_eq!(all.len(), 2, "{all:?}");
        assert_eq!(all[0].path, "/usr/bin/python3.11");
        assert_eq!((all[0].start, all[0].offset, all[0].deleted), (0x5581_e000_1000, 0x1000, false));
        assert_eq!((all[1].path.as_str(), all[1].deleted), ("/tmp/a name.so", true));
        assert_eq!(all[1].id, FileId { device: libc::makedev(0, 0x2f), inode: 4242 });
    }

    #[test]
    fn this_program_can_be_opened() {
        let proc = Path::new("/proc");
        let own = std::process::id();
        let all = mapped(proc, own).unwrap();
        let program = std::fs::metadata(std::env::current_exe().unwrap()).unwrap();
        let this = all.iter().find(|one| one.id.inode == program.ino()).unwrap();
        assert!(open(proc, own, this).unwrap().metadata().unwrap().ino() == program.ino());
        let other = Mapped { id: FileId { device: 0, inode: 1 }, ..this.clone() };
        assert!(open(proc, own, &other).is_err(), "another file is not taken for it");
    }
}
