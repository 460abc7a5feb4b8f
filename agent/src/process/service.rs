//! The identity a process's spans are exported under.

use crate::attribute::Attribute;

/// Language of the observed program, as `telemetry.sdk.language` spells it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Language {
    /// C or C++ (or anything native that is not recognised).
    Cpp,
    /// Go.
    Go,
    /// Java and other JVM languages.
    Java,
    /// Node.js.
    Nodejs,
    /// Python.
    Python,
    /// Ruby.
    Ruby,
    /// PHP.
    Php,
    /// Perl.
    Perl,
    /// Rust.
    Rust,
    /// .NET.
    Dotnet,
}

/// One service: one OTLP resource.
#[derive(Clone, PartialEq, Debug)]
pub struct Service {
    /// Distinct for each resource of this run; spans are grouped by it.
    pub id: u32,
    /// `service.name`.
    pub name: Box<str>,
    /// All resource attributes, `service.name` included, ready for export.
    pub attributes: Vec<Attribute>,
}

impl Language {
    /// As `telemetry.sdk.language` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cpp => "cpp",
            Self::Go => "go",
            Self::Java => "java",
            Self::Nodejs => "nodejs",
            Self::Python => "python",
            Self::Ruby => "ruby",
            Self::Php => "php",
            // No well-known value: the conventions allow others.
            Self::Perl => "perl",
            Self::Rust => "rust",
            Self::Dotnet => "dotnet",
        }
    }
}
