//! What a program file says of its functions. Comes in: the file's bytes. Goes out: functions by name, and where an address is
//! in the file. Nothing is copied; a file that is damaged or cut off gives less, or an error, and never a panic.

use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, SectionTable, Sym as _};
use object::{Endianness, SectionIndex};
use thiserror::Error;

use super::Function;

/// Why a file cannot be used.
#[derive(Debug, Error)]
pub enum ElfError {
    /// Not a 64-bit ELF file, or a damaged one.
    #[error("it is not a 64-bit program file, or it is damaged ({0})")]
    Damaged(#[from] object::read::Error),
    /// For another processor.
    #[error("its code is for another processor")]
    Processor,
}

type Header = FileHeader64<Endianness>;

/// A program file or library.
pub struct Elf<'a> {
    data: &'a [u8],
    endian: Endianness,
    header: &'a Header,
    sections: SectionTable<'a, Header>,
}

impl<'a> Elf<'a> {
    /// Looks at the headers.
    pub fn parse(data: &'a [u8]) -> Result<Self, ElfError> {
        let header = Header::parse(data)?;
        let endian = header.endian()?;
        if header.e_machine(endian) != elf::EM_X86_64 {
            return Err(ElfError::Processor);
        }
        // A file without section headers still has segments.
        let sections = header.sections(endian, data).unwrap_or_default();
        Ok(Self { data, endian, header, sections })
    }

    /// All bytes of the file.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// Whether it can be loaded anywhere (libraries, PIE).
    #[must_use]
    pub fn moves(&self) -> bool {
        self.header.e_type(self.endian) == elf::ET_DYN
    }

    /// The segments that are loaded: address, bytes in the file, offset in the file, and whether it is code.
    fn segments(&self) -> impl Iterator<Item = (u64, u64, u64, bool)> + '_ {
        let headers = self.header.program_headers(self.endian, self.data).unwrap_or_default();
        headers.iter().filter(|segment| segment.p_type(self.endian) == elf::PT_LOAD).map(|segment| {
            (
                segment.p_vaddr(self.endian),
                segment.p_filesz(self.endian),
                segment.p_offset(self.endian),
                segment.p_flags(self.endian) & elf::PF_X != 0,
            )
        })
    }

    /// Where an address of code is in the file.
    #[must_use]
    pub fn offset(&self, address: u64) -> Option<u64> {
        self.place(address).map(|(offset, _)| offset)
    }

    /// Offset in the file of an address of code, and how many bytes of code follow.
    fn place(&self, address: u64) -> Option<(u64, u64)> {
        self.segments().filter(|(.., code)| *code).find_map(|(from, len, offset, _)| {
            let into = address.checked_sub(from).filter(|into| *into < len)?;
            Some((offset.checked_add(into)?, len - into))
        })
    }

    /// Address, as linked, of an offset in the file that is mapped.
    #[must_use]
    pub fn address(&self, offset: u64) -> Option<u64> {
        self.segments().find_map(|(address, len, from, _)| {
            let into = offset.checked_sub(from).filter(|into| *into < len)?;
            address.checked_add(into)
        })
    }

    /// Address as linked, and offset in the file, of the first segment with code.
    #[must_use]
    pub fn first_code(&self) -> Option<(u64, u64)> {
        self.segments().find(|(.., code)| *code).map(|(address, _, offset, _)| (address, offset))
    }

    /// The build id.
    #[must_use]
    pub fn build_id(&self) -> Option<&'a [u8]> {
        let headers = self.header.program_headers(self.endian, self.data).ok()?;
        headers.iter().find_map(|segment| {
            let mut notes = segment.notes(self.endian, self.data).ok()??;
            while let Ok(Some(note)) = notes.next() {
                if note.name() == elf::ELF_NOTE_GNU && note.n_type(self.endian) == elf::NT_GNU_BUILD_ID {
                    return Some(note.desc());
                }
            }
            None
        })
    }

    /// The bytes of a section, and its address.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<(u64, &'a [u8])> {
        let (_, section) = self.sections.section_by_name(self.endian, name.as_bytes())?;
        Some((section.sh_addr(self.endian), section.data(self.endian, self.data).ok()?))
    }

    /// A function whose address and size are known. A size of zero, or one that is too long, ends with the segment.
    #[must_use]
    pub fn function(&self, name: &'a str, address: u64, size: u64) -> Option<Function<'a>> {
        let (file_offset, left) = self.place(address)?;
        let size = if size == 0 { left.min(UNKNOWN_SIZE) } else { size.min(left) };
        let from = usize::try_from(file_offset).ok()?;
        let code = self.data.get(from..from.checked_add(usize::try_from(size).ok()?)?)?;
        Some(Function { name, address, file_offset, code, jumped_to: &[] })
    }

    /// Calls `each` for every function that a symbol names, the version after an `@` left out. A function may come twice, of both
    /// tables.
    pub fn each_function(&self, each: &mut dyn FnMut(&'a str, u64, u64)) {
        for table in [elf::SHT_DYNSYM, elf::SHT_SYMTAB] {
            let Ok(symbols) = self.sections.symbols(self.endian, self.data, table) else { continue };
            for symbol in symbols.iter() {
                let kind = symbol.st_type();
                let is_function = matches!(kind, elf::STT_FUNC | elf::STT_GNU_IFUNC);
                if !is_function || symbol.st_shndx(self.endian) == elf::SHN_UNDEF {
                    continue;
                }
                let name = symbol.name(self.endian, symbols.strings()).ok();
                if let Some(name) = name.and_then(|name| std::str::from_utf8(name).ok()) {
                    let bare = name.split('@').next().unwrap_or(name);
                    each(bare, symbol.st_value(self.endian), symbol.st_size(self.endian));
                }
            }
        }
    }

    /// Functions by their names, in that order; one pass over the symbols.
    #[must_use]
    pub fn functions(&self, names: &[&str]) -> Vec<Option<Function<'a>>> {
        let mut found: Vec<Option<Function<'a>>> = vec![None; names.len()];
        self.each_function(&mut |name, address, size| {
            for (_, place) in names.iter().zip(&mut found).filter(|(wanted, _)| **wanted == name) {
                if place.is_none() {
                    *place = self.function(name, address, size);
                }
            }
        });
        found
    }

    /// Functions whose names `wanted` accepts, each address once, at most `most`.
    #[must_use]
    pub fn functions_where(&self, wanted: &dyn Fn(&str) -> bool, most: usize) -> Vec<Function<'a>> {
        let mut found: Vec<Function<'a>> = Vec::new();
        self.each_function(&mut |name, address, size| {
            if found.len() < most && wanted(name) && found.iter().all(|known| known.address != address) {
                found.extend(self.function(name, address, size));
            }
        });
        found
    }

    /// Whether there are symbols of what is inside (not only of what is exported).
    #[must_use]
    pub fn has_symbols(&self) -> bool {
        self.sections
            .symbols(self.endian, self.data, elf::SHT_SYMTAB)
            .is_ok_and(|symbols| symbols.iter().len() > 1 && symbols.section() != SectionIndex(0))
    }
}

/// What is looked at of a function whose symbol has no size.
const UNKNOWN_SIZE: u64 = 4096;
