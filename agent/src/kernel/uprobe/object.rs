//! Programs on user code out of the BPF object. Comes in: the object, and the maps that were made for it. Goes out: loaded programs.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use aya::Ebpf;
use aya::maps::Map;
use aya_obj::{Object, ProgramSection};

use super::calls;
use crate::kernel::object::bytes;

/// Descriptors of all maps, of our own. To be called before any map is taken out.
pub(super) fn maps(ebpf: &Ebpf) -> io::Result<HashMap<String, OwnedFd>> {
    let mut all = HashMap::new();
    for (name, map) in ebpf.maps() {
        let data = match map {
            Map::Array(data)
            | Map::HashMap(data)
            | Map::LruHashMap(data)
            | Map::PerCpuArray(data)
            | Map::PerCpuHashMap(data)
            | Map::PerCpuLruHashMap(data)
            | Map::LpmTrie(data)
            | Map::SkStorage(data)
            | Map::RingBuf(data)
            | Map::Unsupported(data) => data,
            _ => continue,
        };
        all.insert(name.to_owned(), data.fd().as_fd().try_clone_to_owned()?);
    }
    Ok(all)
}

/// The object with all references to maps and functions filled in, and its types, if the kernel takes them.
pub(super) struct Linked {
    object: Object,
    types: Option<OwnedFd>,
}

/// Makes it.
pub(super) fn linked(maps: &HashMap<String, OwnedFd>) -> Result<Linked, String> {
    let mut object =
        Object::parse(bytes()).map_err(|error| format!("the BPF object cannot be read ({error})"))?;
    let types = aya::features()
        .btf()
        .and_then(|features| object.fixup_and_sanitize_btf(features).ok().flatten())
        .and_then(|types| calls::load_types(&types.to_bytes()).ok());
    if let Some(name) = object.maps.keys().find(|name| !maps.contains_key(*name)) {
        return Err(format!("map {name} cannot be opened"));
    }
    let text: HashSet<usize> = object.functions.keys().map(|(section, _)| *section).collect();
    let known = object.maps.clone();
    let places =
        known.iter().filter_map(|(name, map)| Some((name.as_str(), maps.get(name)?.as_raw_fd(), map)));
    object.relocate_maps(places, &text).map_err(|error| error.to_string())?;
    object.relocate_calls(&text).map_err(|error| error.to_string())?;
    Ok(Linked { object, types })
}

/// Loads one program.
pub(super) fn load(linked: &Linked, name: &'static str, multi: bool) -> Result<OwnedFd, String> {
    let object = &linked.object;
    let program = object.programs.get(name).ok_or("the BPF object has no such program")?;
    let sleeps = match program.section {
        ProgramSection::UProbe { sleepable } => sleepable,
        _ => return Err("it is not a program for user code".to_owned()),
    };
    let function =
        object.functions.get(&program.function_key()).ok_or("the BPF object has no code for it")?;
    let functions =
        linked.types.as_ref().map(|types| calls::Functions { types, list: &function.func_info.func_info });
    let functions = functions.filter(|functions| !functions.list.is_empty());
    let load =
        |functions| calls::load(name, &function.instructions, &program.license, sleeps, multi, functions);
    // A kernel that does not like the types may like the code.
    load(functions.as_ref())
        .or_else(|refusal| if functions.is_some() { load(None) } else { Err(refusal) })
        .map_err(|(error, log)| format!("the kernel refuses it ({error}) {log}").trim_end().to_owned())
}
