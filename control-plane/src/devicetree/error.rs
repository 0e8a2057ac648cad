//! One kind of error for everything read from a device tree.
//!
//! A user who made a mistake in a device tree has only this line to find it by, so the line always
//! has the same parts: the node, the property, what was found, what was expected, and what to do.

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

/// Longest text quoted from a device tree inside an error, in bytes.
const QUOTE_LIMIT: usize = 80;

/// A mistake in a device tree. Its `Display` is one line without a line break.
///
/// One word: it goes through many hands, and each would copy and test all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Parts>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Parts {
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
        Self::build(path.into(), found.into(), expected.into())
    }

    #[inline(never)]
    fn build(
        path: Cow<'static, str>,
        found: Cow<'static, str>,
        expected: Cow<'static, str>,
    ) -> Self {
        Self(Box::new(Parts {
            path,
            property: None,
            found,
            expected,
            remedy: None,
        }))
    }

    /// The same, in this property of the node.
    #[must_use]
    pub fn property(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.0.property = Some(name.into());
        self
    }

    /// The same, with what the user can do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// Path of the node, or the part of the blob when the mistake is in its encoding.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// Name of the property, if the mistake is in one.
    pub fn property_name(&self) -> Option<&str> {
        self.0.property.as_deref()
    }

    /// What was found.
    pub fn found(&self) -> &str {
        &self.0.found
    }

    /// What was expected.
    pub fn expected(&self) -> &str {
        &self.0.expected
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.0.path)?;
        if let Some(property) = &self.0.property {
            write!(f, "{property}: ")?;
        }
        write!(f, "{}; expected {}", self.0.found, self.0.expected)?;
        if let Some(remedy) = &self.0.remedy {
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
