//! The BPF object inside the binary, and the loader for it.

use aya::EbpfLoader;

/// Bytes with the alignment that an ELF reader wants.
#[repr(C, align(32))]
struct Aligned<T: ?Sized>(T);

static OBJECT: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(env!("OUT_DIR"), "/spanwise-ebpf")));

/// The object; empty in builds made with `SPANWISE_BPF=stub`.
pub fn bytes() -> &'static [u8] {
    &OBJECT.0
}

/// Whether this build carries the BPF programs.
pub fn is_present() -> bool {
    !bytes().is_empty()
}

/// A loader without the kernel's type information: the object has no CO-RE relocations, so nothing of it is needed.
///
/// The library reads and parses all of it in the loader's constructor, whether asked to or not: 30 ms and 20 MB, the highest
/// peak of the agent's whole life. If the file cannot be opened it goes on without, so for that moment no file can be. The
/// agent has one thread at this point.
pub(super) fn loader<'a>() -> EbpfLoader<'a> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the result.
    #[expect(unsafe_code, reason = "system call")]
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0;
    if known {
        set_open_files(libc::rlimit { rlim_cur: 0, ..limit });
    }
    let mut loader = EbpfLoader::new();
    if known {
        set_open_files(limit);
    }
    loader.btf(None);
    loader
}

fn set_open_files(limit: libc::rlimit) {
    // SAFETY: `limit` is alive during the call; lowering the soft limit and raising it again up to the hard one is open to
    // everyone.
    #[expect(unsafe_code, reason = "system call")]
    unsafe {
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
    }
}
