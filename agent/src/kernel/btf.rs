//! The kernel's own description of its types (BTF).
//!
//! Comes in: the bytes of `/sys/kernel/btf/vmlinux`. Goes out: byte offsets of struct members, and which
//! types, functions and tracepoints there are. Every read is checked: garbage gives an error, never a panic.
//! The file is kept as it is; beside it there is one word for each type and two for each name.

use std::io;
use std::path::Path;

/// Where the kernel shows its BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const HEADER: usize = 24;
/// Anonymous members and typedefs are followed to this depth; real kernels stay below ten.
const MAX_DEPTH: usize = 32;

/// Why there is no BTF to work with.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file is not there.
    #[error(
        "this kernel does not describe its types: {VMLINUX} is not there; use a kernel built with CONFIG_DEBUG_INFO_BTF=y"
    )]
    Missing,
    /// The file cannot be read.
    #[error("cannot read {VMLINUX}: {0}; run as root or with CAP_DAC_READ_SEARCH")]
    Read(io::Error),
    /// Not BTF, or of a foreign byte order or version.
    #[error("the kernel's type description is not BTF version 1 in this machine's byte order")]
    NotBtf,
    /// A length or offset points out of the data.
    #[error("the kernel's type description is damaged at byte {0}")]
    Damaged(usize),
    /// A kind of type that this version does not know, so that what follows it cannot be found.
    #[error(
        "the kernel's type description has a kind of type ({kind}) that this version does not know (type {id}); use a newer version"
    )]
    UnknownKind {
        /// The kind.
        kind: u32,
        /// Id of the type.
        id: u32,
    },
}

/// Why there is no offset for a member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffsetError {
    /// No such struct.
    #[error("this kernel has no struct {0}")]
    NoStruct(Box<str>),
    /// The struct has no such member.
    #[error("struct {0} of this kernel has no member {1}")]
    NoMember(Box<str>, Box<str>),
    /// The member is a bit field, which has no byte offset.
    #[error("member {1} of struct {0} is a bit field in this kernel")]
    Bitfield(Box<str>, Box<str>),
    /// Several structs of this name have the member, each elsewhere.
    #[error("this kernel has several structs {0} with a member {1} at different offsets")]
    Ambiguous(Box<str>, Box<str>),
}

/// Kinds of types that can be asked for by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A struct with its members.
    Struct,
    /// A union with its members.
    Union,
    /// A typedef.
    Typedef,
    /// A function.
    Func,
    /// An enumeration (of either width).
    Enum,
}

const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const FWD: u32 = 7;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const RESTRICT: u32 = 11;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const VAR: u32 = 14;
const DATASEC: u32 = 15;
const FLOAT: u32 = 16;
const DECL_TAG: u32 = 17;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

/// Header of one type record.
#[derive(Clone, Copy)]
struct Type {
    /// Offset of the record in the data.
    at: usize,
    name: u32,
    kind: u32,
    vlen: usize,
    kind_flag: bool,
    /// `size` or `type`, as the kind has it.
    size_or_type: u32,
}

/// Parsed BTF.
pub struct Btf {
    data: Vec<u8>,
    /// Range of the strings in `data`.
    strings: (usize, usize),
    /// Offset of each type's record; type ids start at 1.
    types: Vec<u32>,
    /// (hash of the name, type id) of the named types one asks for, sorted.
    names: Vec<(u32, u32)>,
}

impl std::fmt::Debug for Btf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Btf").field("bytes", &self.data.len()).field("types", &self.types.len()).finish()
    }
}

impl Btf {
    /// Reads the running kernel's BTF.
    pub fn from_kernel() -> Result<Self, BtfError> {
        Self::from_file(Path::new(VMLINUX))
    }

    /// Reads raw BTF from a file.
    pub fn from_file(path: &Path) -> Result<Self, BtfError> {
        match std::fs::read(path) {
            Ok(data) => Self::parse(data),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(BtfError::Missing),
            Err(error) => Err(BtfError::Read(error)),
        }
    }

    /// Indexes raw BTF.
    pub fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        if read_u16(&data, 0) != Some(MAGIC) || data.get(2) != Some(&1) {
            return Err(BtfError::NotBtf);
        }
        let field = |at: usize| read_u32(&data, at).map(|v| v as usize).ok_or(BtfError::Damaged(at));
        let header = field(4)?;
        if header < HEADER {
            return Err(BtfError::Damaged(4));
        }
        let section = |at: usize| -> Result<(usize, usize), BtfError> {
            let start = header.checked_add(field(at)?).ok_or(BtfError::Damaged(at))?;
            let end = start.checked_add(field(at + 4)?).ok_or(BtfError::Damaged(at))?;
            if end > data.len() { Err(BtfError::Damaged(at)) } else { Ok((start, end)) }
        };
        let (type_start, type_end) = section(8)?;
        let strings = section(16)?;
        let mut btf = Self { data, strings, types: Vec::new(), names: Vec::new() };
        btf.index(type_start, type_end)?;
        Ok(btf)
    }

    fn index(&mut self, start: usize, end: usize) -> Result<(), BtfError> {
        // A record with its members takes 40 bytes on average: saves most of the growing.
        self.types.reserve((end - start) / 32);
        let mut at = start;
        while at < end {
            let ty = self.record(at).ok_or(BtfError::Damaged(at))?;
            let id = self.types.len() as u32 + 1;
            let extra = match ty.kind {
                PTR | FWD | TYPEDEF | VOLATILE | CONST | RESTRICT | FUNC | FLOAT | TYPE_TAG => 0,
                INT | VAR | DECL_TAG => 4,
                ARRAY => 12,
                STRUCT | UNION | DATASEC | ENUM64 => 12 * ty.vlen,
                ENUM | FUNC_PROTO => 8 * ty.vlen,
                kind => return Err(BtfError::UnknownKind { kind, id }),
            };
            let next = at + 12 + extra;
            if next > end {
                return Err(BtfError::Damaged(at));
            }
            if ty.name != 0 && named(ty.kind) {
                let name = self.name(ty.name).ok_or(BtfError::Damaged(at))?;
                self.names.push((hash(name), id));
            }
            self.types.push(u32::try_from(at).map_err(|_| BtfError::Damaged(at))?);
            at = next;
        }
        self.names.sort_unstable();
        Ok(())
    }

    /// Byte offset of a member; `path` is dotted where members are nested, anonymous members are left out.
    pub fn offset_of(&self, strukt: &str, path: &str) -> Option<u32> {
        self.member(strukt, path).ok()
    }

    /// [`Self::offset_of`], with the reason why there is none.
    pub fn member(&self, strukt: &str, path: &str) -> Result<u32, OffsetError> {
        let missing = || OffsetError::NoMember(strukt.into(), path.into());
        let mut found = None;
        let mut none = OffsetError::NoStruct(strukt.into());
        for ty in self.by_name(strukt).filter(|ty| matches!(ty.kind, STRUCT | UNION)) {
            match self.descend(ty, path, 0, 0) {
                Some(Place::Byte(offset)) => match found {
                    Some(other) if other != offset => {
                        return Err(OffsetError::Ambiguous(strukt.into(), path.into()));
                    }
                    _ => found = Some(offset),
                },
                Some(Place::Bits) => none = OffsetError::Bitfield(strukt.into(), path.into()),
                None if matches!(none, OffsetError::NoStruct(_)) => none = missing(),
                None => {}
            }
        }
        found.ok_or(none)
    }

    /// Whether there is a type of this kind and name.
    pub fn has_type(&self, kind: Kind, name: &str) -> bool {
        self.by_name(name).any(|ty| match kind {
            Kind::Struct => ty.kind == STRUCT,
            Kind::Union => ty.kind == UNION,
            Kind::Typedef => ty.kind == TYPEDEF,
            Kind::Func => ty.kind == FUNC,
            Kind::Enum => matches!(ty.kind, ENUM | ENUM64),
        })
    }

    /// Id of the typedef that describes a tracepoint's arguments; none if there is no such tracepoint.
    pub fn type_id_of_tracepoint(&self, name: &str) -> Option<u32> {
        let name = format!("btf_trace_{name}");
        self.ids_by_name(&name).find(|id| self.type_of(*id).is_some_and(|ty| ty.kind == TYPEDEF))
    }

    /// Id of a function of the kernel; none if it has none of that name (or the compiler left none over).
    pub fn type_id_of_function(&self, name: &str) -> Option<u32> {
        self.ids_by_name(name).find(|id| self.type_of(*id).is_some_and(|ty| ty.kind == FUNC))
    }

    /// Types of a tracepoint's arguments, such as `sock *` or `int`. The first is always the tracer's own
    /// `void *`; programs get those after it.
    pub fn tracepoint_params(&self, name: &str) -> Option<Vec<String>> {
        let typedef = self.type_of(self.type_id_of_tracepoint(name)?)?;
        let pointer = self.strip(typedef)?;
        let proto = self.strip(self.type_of(pointer.size_or_type).filter(|_| pointer.kind == PTR)?)?;
        if proto.kind != FUNC_PROTO {
            return None;
        }
        (0..proto.vlen)
            .map(|i| read_u32(&self.data, proto.at + 12 + 8 * i + 4).map(|id| self.spell(id, 0)))
            .collect()
    }

    fn spell(&self, id: u32, depth: usize) -> String {
        if id == 0 {
            return "void".into();
        }
        let Some(ty) = self.type_of(id).filter(|_| depth < MAX_DEPTH) else { return "?".into() };
        match ty.kind {
            PTR => {
                let target = self.spell(ty.size_or_type, depth + 1);
                format!("{target}{}*", if target.ends_with('*') { "" } else { " " })
            }
            VOLATILE | CONST | RESTRICT | TYPE_TAG => self.spell(ty.size_or_type, depth + 1),
            _ => match self.name(ty.name) {
                Some(name) if !name.is_empty() => String::from_utf8_lossy(name).into_owned(),
                _ => "(anonymous)".into(),
            },
        }
    }

    /// Finds the member whose path is given, below `ty` which itself begins at bit `base`.
    fn descend(&self, ty: Type, path: &str, base: u32, depth: usize) -> Option<Place> {
        if depth > MAX_DEPTH || !matches!(ty.kind, STRUCT | UNION) {
            return None;
        }
        let (first, rest) = match path.split_once('.') {
            Some((first, rest)) => (first, Some(rest)),
            None => (path, None),
        };
        (0..ty.vlen).find_map(|i| {
            let at = ty.at + 12 + 12 * i;
            let name = self.name(read_u32(&self.data, at)?)?;
            let member = read_u32(&self.data, at + 4)?;
            let raw = read_u32(&self.data, at + 8)?;
            let (bits, width) = if ty.kind_flag { (raw & 0x00ff_ffff, raw >> 24) } else { (raw, 0) };
            let place = base.checked_add(bits)?;
            let inner = || self.type_of(member).and_then(|ty| self.strip(ty));
            if name.is_empty() {
                return self.descend(inner()?, path, place, depth + 1);
            }
            if name != first.as_bytes() {
                return None;
            }
            match rest {
                Some(rest) => self.descend(inner()?, rest, place, depth + 1),
                None if width != 0 || !place.is_multiple_of(8) || self.narrow(inner()) => Some(Place::Bits),
                None => Some(Place::Byte(place / 8)),
            }
        })
    }

    /// Whether this is an integer of fewer bits than its bytes hold: how older BTF writes bit fields.
    fn narrow(&self, ty: Option<Type>) -> bool {
        ty.is_some_and(|ty| {
            ty.kind == INT
                && read_u32(&self.data, ty.at + 12).is_some_and(|info| {
                    let (bits, offset) = (info & 0xff, (info >> 16) & 0xff);
                    offset != 0 || u64::from(bits) != u64::from(ty.size_or_type) * 8
                })
        })
    }

    /// Follows typedefs and qualifiers.
    fn strip(&self, mut ty: Type) -> Option<Type> {
        for _ in 0..MAX_DEPTH {
            if !matches!(ty.kind, TYPEDEF | VOLATILE | CONST | RESTRICT | TYPE_TAG) {
                return Some(ty);
            }
            ty = self.type_of(ty.size_or_type)?;
        }
        None
    }

    fn by_name<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Type> + 'a {
        self.ids_by_name(name).filter_map(|id| self.type_of(id))
    }

    fn ids_by_name<'a>(&'a self, name: &'a str) -> impl Iterator<Item = u32> + 'a {
        let wanted = hash(name.as_bytes());
        let start = self.names.partition_point(|(hash, _)| *hash < wanted);
        self.names.iter().skip(start).take_while(move |(hash, _)| *hash == wanted).map(|(_, id)| *id).filter(
            move |id| {
                self.type_of(*id).and_then(|ty| self.name(ty.name)).is_some_and(|n| n == name.as_bytes())
            },
        )
    }

    fn type_of(&self, id: u32) -> Option<Type> {
        self.record(*self.types.get((id as usize).checked_sub(1)?)? as usize)
    }

    fn record(&self, at: usize) -> Option<Type> {
        let info = read_u32(&self.data, at + 4)?;
        Some(Type {
            at,
            name: read_u32(&self.data, at)?,
            kind: (info >> 24) & 0x1f,
            vlen: (info & 0xffff) as usize,
            kind_flag: info >> 31 == 1,
            size_or_type: read_u32(&self.data, at + 8)?,
        })
    }

    fn name(&self, offset: u32) -> Option<&[u8]> {
        let strings = self.data.get(self.strings.0..self.strings.1)?;
        let rest = strings.get(offset as usize..)?;
        rest.get(..memchr::memchr(0, rest)?)
    }
}

/// Where a member is.
enum Place {
    Byte(u32),
    Bits,
}

fn named(kind: u32) -> bool {
    matches!(kind, STRUCT | UNION | TYPEDEF | FUNC | ENUM | ENUM64)
}

/// FNV-1a: short names, no attacker.
fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

fn read_u16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*data.get(at..)?.first_chunk()?))
}

fn read_u32(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*data.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
