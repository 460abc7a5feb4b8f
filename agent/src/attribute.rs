//! Keys and values, as resources, spans and links carry them.

use std::borrow::Cow;

/// Value of an attribute.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Text.
    Str(Cow<'static, str>),
    /// Integer.
    Int(i64),
    /// Floating point number.
    Double(f64),
    /// Truth value.
    Bool(bool),
    /// List of texts.
    StrList(Vec<Box<str>>),
}

/// Key and value.
pub type Attribute = (Cow<'static, str>, Value);
