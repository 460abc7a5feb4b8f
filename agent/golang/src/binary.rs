//! Comes in: a program file. Goes out: what can be asked of a Go program.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;

use crate::buildinfo::BuildInfo;
use crate::bytes::{Bytes, Opened};
use crate::dwarf::Members;
use crate::functions::{Found, Function, Functions};
use crate::image::Image;
use crate::table::{Known, STD, Table};
use crate::version::Version;

/// Structs whose layout may be asked for: when debug information has to be read, it is read once for all of them.
pub(crate) const STRUCTS: &str = include_str!("wanted.txt");

/// Why a program file cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum GoError {
    /// It could not be read.
    #[error("cannot read the program file: {0}")]
    Read(#[from] io::Error),
    /// It is something else.
    #[error("the program file is not a 64-bit Go program")]
    NotGo,
}

/// Why an offset is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The compiler is none that was measured.
    #[error(
        "the layout of {compiler} is not known and the program has no debug information: traced at socket level only; \
         build with a released Go {first} to {last}, or without -ldflags=-w"
    )]
    Compiler {
        /// What it calls itself.
        compiler: Box<str>,
        /// First release measured.
        first: Version,
        /// Last release measured.
        last: Version,
    },
    /// The version of a module is none that was measured.
    #[error(
        "the layout of {module} {version} is not known and the program has no debug information: traced at socket level only"
    )]
    Module {
        /// The module.
        module: Box<str>,
        /// Its version.
        version: Box<str>,
    },
    /// There is no such thing in this version.
    #[error("{compiler} has no {strukt}.{member}")]
    Missing {
        /// Compiler or module.
        compiler: Box<str>,
        /// The struct.
        strukt: Box<str>,
        /// The member.
        member: Box<str>,
    },
}

/// A Go program.
pub struct Binary<'a> {
    image: Image<'a>,
    /// What it says about its making.
    pub info: BuildInfo,
    functions: Option<Functions>,
    members: OnceCell<Option<Members>>,
}

impl Binary<'static> {
    /// Opens a program file: `/proc/PID/exe` works also where the file is gone.
    pub fn open(path: &Path) -> Result<Self, GoError> {
        Self::read(Box::new(Opened::new(File::open(path)?)?))
    }
}

impl<'a> Binary<'a> {
    /// Looks into bytes.
    pub fn read(bytes: Box<dyn Bytes + Send + 'a>) -> Result<Self, GoError> {
        let image = Image::parse(bytes).ok_or(GoError::NotGo)?;
        let info = BuildInfo::read(&image).ok_or(GoError::NotGo)?;
        let functions = Functions::locate(&image);
        Ok(Self { image, info, functions, members: OnceCell::new() })
    }

    /// Whether the kernel chooses where it is mapped.
    pub fn movable(&self) -> bool {
        self.image.movable
    }

    /// Where it begins to run, as the file has it.
    pub(crate) fn entry(&self) -> u64 {
        self.image.entry
    }

    /// How many functions it has; nothing if their table was not found.
    pub fn functions(&self) -> Option<u64> {
        self.functions.map(|functions| functions.count())
    }

    /// Looks for functions by name, all in one walk.
    pub fn find<'n>(&self, names: &[&'n str]) -> HashMap<&'n str, Found> {
        match self.functions {
            Some(functions) => functions.find(&self.image, names),
            None => names.iter().map(|name| (*name, Found::Absent)).collect(),
        }
    }

    /// Name and extent of the function that an address (as in the file) is in.
    pub fn name_of(&self, address: u64) -> Option<(String, Function)> {
        self.functions?.name_of(&self.image, address)
    }

    /// The code of a function.
    pub fn code(&self, function: Function) -> Option<Vec<u8>> {
        /// No compiler makes longer functions of those that are probed.
        const LONGEST: u64 = 1 << 20;
        crate::bytes::piece(&*self.image.bytes, function.offset, function.size.min(LONGEST))
    }

    /// The offset of a member of a struct of the standard library.
    pub fn offset(&self, strukt: &str, member: &str) -> Result<u32, Unknown> {
        self.layout(STD, self.info.version(), strukt, member)
    }

    /// The offset of a member of a struct of a module.
    pub fn module_offset(&self, module: &str, strukt: &str, member: &str) -> Result<u32, Unknown> {
        let version = self.info.module(module).and_then(Version::of_module);
        self.layout(module, version, strukt, member)
    }

    fn layout(
        &self,
        module: &str,
        version: Option<Version>,
        strukt: &str,
        member: &str,
    ) -> Result<u32, Unknown> {
        let table = Table::own();
        let known = version.map_or(Known::Unknown, |version| table.offset(module, version, strukt, member));
        let missing = || Unknown::Missing {
            compiler: match module {
                STD => self.info.compiler.clone(),
                _ => format!("{module} {}", self.info.module(module).unwrap_or_default()).into(),
            },
            strukt: strukt.into(),
            member: member.into(),
        };
        match known {
            Known::At(offset) => return Ok(offset),
            Known::Missing => return Err(missing()),
            Known::Unknown => {}
        }
        if let Some(members) = self.members()
            && members.has(strukt)
        {
            return members.offset(strukt, member).ok_or_else(missing);
        }
        Err(match (module, table.span(module)) {
            (STD, Some((first, last))) => {
                Unknown::Compiler { compiler: self.info.compiler.clone(), first, last }
            }
            _ => Unknown::Module {
                module: module.into(),
                version: self.info.module(module).unwrap_or("of unknown version").into(),
            },
        })
    }

    /// What the debug information tells, read when first asked for.
    fn members(&self) -> Option<&Members> {
        let read = || {
            let structs: Vec<&str> = wanted().map(|(_, strukt, _)| strukt).collect();
            Members::read(&self.image, &structs)
        };
        self.members.get_or_init(read).as_ref()
    }

    /// What the debug information tells of these structs: what the table is made from.
    pub fn debug_members(&self, structs: &[&str]) -> Option<Members> {
        Members::read(&self.image, structs)
    }
}

/// Modules, structs and members that the table is about.
pub fn wanted() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    STRUCTS.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let (module, path) = line.split_once(' ')?;
        let (strukt, member) = path.rsplit_once('.')?;
        Some((module, strukt, member))
    })
}
