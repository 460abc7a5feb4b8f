//! Just enough type information for the BPF library to attach to typed tracepoints and to functions.
//!
//! To attach, the library looks up one number: the id of `btf_trace_NAME`, or of the function, in the kernel's BTF. Given all of that it parses a
//! hundred thousand types first, which takes longer than everything else at start and peaks at 20 MB. We know the numbers
//! already, so we hand it a table in which only those types have a name.

use super::btf::Btf;

const MAGIC: u16 = 0xeb9f;
const HEADER: u32 = 24;
const KIND_FORWARD: u32 = 7 << 24;
const KIND_TYPEDEF: u32 = 8 << 24;
const KIND_FUNCTION: u32 = 12 << 24;

/// A BTF blob in which each of `hooks` (tracepoints and functions) that the kernel has stands at the kernel's own id.
pub(super) fn blob<'a>(btf: &Btf, hooks: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let mut known: Vec<(u32, u32, String)> = Vec::new();
    for name in hooks {
        let tracepoint = btf.type_id_of_tracepoint(name);
        known.extend(tracepoint.map(|id| (id, KIND_TYPEDEF, format!("btf_trace_{name}"))));
        known.extend(btf.type_id_of_function(name).map(|id| (id, KIND_FUNCTION, name.to_owned())));
    }
    known.sort_unstable();
    known.dedup();
    let last = known.last().map_or(0, |(id, ..)| *id);
    // The empty name, then one for all types without a name of their own (a forward declaration must have one).
    let mut strings = b"\0_\0".to_vec();
    let mut types = Vec::with_capacity(last as usize * 12);
    let mut named = known.iter().peekable();
    for id in 1..=last {
        let (name, info) = match named.next_if(|(known, ..)| *known == id) {
            Some((_, kind, name)) => {
                let at = strings.len() as u32;
                strings.extend_from_slice(name.as_bytes());
                strings.push(0);
                (at, *kind)
            }
            None => (1, KIND_FORWARD),
        };
        for word in [name, info, 0] {
            types.extend_from_slice(&word.to_ne_bytes());
        }
    }
    let mut blob = Vec::with_capacity(HEADER as usize + types.len() + strings.len());
    blob.extend_from_slice(&MAGIC.to_ne_bytes());
    blob.extend_from_slice(&[1, 0]);
    let (types_len, strings_len) = (types.len() as u32, strings.len() as u32);
    for word in [HEADER, 0, types_len, types_len, strings_len] {
        blob.extend_from_slice(&word.to_ne_bytes());
    }
    blob.extend_from_slice(&types);
    blob.extend_from_slice(&strings);
    blob
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_kernel() {
        if !std::path::Path::new(super::super::btf::VMLINUX).exists() {
            return;
        }
        let kernel = Btf::from_kernel().unwrap();
        let names = ["sched_process_exit", "sys_exit", "no_such_tracepoint"];
        let small = Btf::parse(blob(&kernel, names.into_iter())).unwrap();
        for name in names {
            assert_eq!(small.type_id_of_tracepoint(name), kernel.type_id_of_tracepoint(name), "{name}");
        }
        assert!(kernel.type_id_of_tracepoint("sys_exit").is_some());
        let functions = ["inet_sendmsg", "unix_stream_recvmsg", "no_such_function"];
        let small = Btf::parse(blob(&kernel, functions.into_iter())).unwrap();
        for name in functions {
            assert_eq!(small.type_id_of_function(name), kernel.type_id_of_function(name), "{name}");
        }
        assert!(kernel.type_id_of_function("inet_sendmsg").is_some());
    }
}
