//! Keys and values, as resources, spans and links carry them.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Text of a value. Most texts of a span are constant, or the same for every span of a connection: they are not copied.
#[derive(Clone)]
pub enum Text {
    /// Part of the program.
    Constant(&'static str),
    /// Of this value alone.
    Own(String),
    /// Of many values.
    Shared(Arc<str>),
}

/// Value of an attribute.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// Text.
    Str(Text),
    /// Integer.
    Int(i64),
    /// Floating point number.
    Double(f64),
    /// Truth value.
    Bool(bool),
    /// List of texts.
    StrList(Box<[Box<str>]>),
}

/// Key and value.
pub type Attribute = (Cow<'static, str>, Value);

/// Empties a list. The same as `clear`, but what to do for each kind of value stands here, in one piece, and that is nothing for most
/// of what spans say.
pub(crate) fn clear(list: &mut Vec<Attribute>) {
    while let Some((key, value)) = list.pop() {
        if let Cow::Owned(key) = key {
            drop(key);
        }
        match value {
            Value::Str(Text::Constant(_)) | Value::Int(_) | Value::Double(_) | Value::Bool(_) => {}
            Value::Str(Text::Own(text)) => drop(text),
            Value::Str(Text::Shared(text)) => drop(text),
            Value::StrList(texts) => drop(texts),
        }
    }
}

// === impl Text ===

impl Deref for Text {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        match self {
            Self::Constant(text) => text,
            Self::Own(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

/// By what it says, not by who owns it.
impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl From<&'static str> for Text {
    fn from(text: &'static str) -> Self {
        Self::Constant(text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::Own(text)
    }
}

impl From<Box<str>> for Text {
    fn from(text: Box<str>) -> Self {
        Self::Own(text.into())
    }
}

impl From<Cow<'static, str>> for Text {
    fn from(text: Cow<'static, str>) -> Self {
        match text {
            Cow::Borrowed(text) => Self::Constant(text),
            Cow::Owned(text) => Self::Own(text),
        }
    }
}

impl From<Arc<str>> for Text {
    fn from(text: Arc<str>) -> Self {
        Self::Shared(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_what_they_say() {
        let texts = [
            Text::from("a"),
            Text::from(String::from("a")),
            Text::from(Box::<str>::from("a")),
            Text::from(Arc::<str>::from("a")),
            Text::from(Cow::Borrowed("a")),
            Text::from(Cow::Owned("a".into())),
        ];
        for text in &texts {
            assert_eq!(*text, texts[0]);
            assert_ne!(*text, Text::from("b"));
            assert_eq!((&**text, format!("{text:?} {text:>2}")), ("a", "\"a\"  a".into()));
        }
    }

    /// Some twenty are made, moved and dropped for every span.
    #[test]
    fn attributes_are_small() {
        assert_eq!((size_of::<Text>(), size_of::<Value>()), (24, 24));
    }
}
