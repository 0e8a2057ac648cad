//! One kind of error for everything read from a device tree.
//!
//! A user who made a mistake in a device tree has only this line to find it by, so the line always
//! has the same parts: the node, the property, what was found, what was expected, and what to do.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt;

/// Longest text quoted from a device tree inside an error, in bytes.
const QUOTE_LIMIT: usize = 80;

/// A mistake in a device tree. Its `Display` is one line without a line break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    path: Cow<'static, str>,
    property: Option<Cow<'static, str>>,
    found: Cow<'static, str>,
    expected: Cow<'static, str>,
    remedy: Option<Cow<'static, str>>,
}

impl Error {
    /// A mistake at the node with this path: what was found there and what was expected instead.
    pub fn new(
        path: impl Into<Cow<'static, str>>,
        found: impl Into<Cow<'static, str>>,
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            path: path.into(),
            property: None,
            found: found.into(),
            expected: expected.into(),
            remedy: None,
        }
    }

    /// The same, in this property of the node.
    #[must_use]
    pub fn property(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.property = Some(name.into());
        self
    }

    /// The same, with what the user can do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// Path of the node, or the part of the blob when the mistake is in its encoding.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Name of the property, if the mistake is in one.
    pub fn property_name(&self) -> Option<&str> {
        self.property.as_deref()
    }

    /// What was found.
    pub fn found(&self) -> &str {
        &self.found
    }

    /// What was expected.
    pub fn expected(&self) -> &str {
        &self.expected
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path)?;
        if let Some(property) = &self.property {
            write!(f, "{property}: ")?;
        }
        write!(f, "{}; expected {}", self.found, self.expected)?;
        if let Some(remedy) = &self.remedy {
            write!(f, "; {remedy}")?;
        }
        Ok(())
    }
}

impl core::error::Error for Error {}

/// `text` in quotes for an error line: printable and of bounded length, whatever it was.
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars().flat_map(char::escape_default) {
        if out.len() >= QUOTE_LIMIT {
            out.push_str("...");
            break;
        }
        out.push(character);
    }
    out.push('"');
    out
}
