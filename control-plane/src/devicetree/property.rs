//! Properties and their typed values (Devicetree Specification v0.4, 2.2.4).

use super::{Error, Node, quote};
use alloc::borrow::Cow;
use alloc::format;

/// A property of a [`Node`].
#[derive(Clone, Copy, Debug)]
pub struct Property<'t> {
    node: Node<'t>,
    name: &'t str,
    value: &'t [u8],
}

impl<'t> Property<'t> {
    pub(super) fn new(node: Node<'t>, name: &'t str, value: &'t [u8]) -> Self {
        Self { node, name, value }
    }

    /// The node that has it.
    pub fn node(&self) -> Node<'t> {
        self.node
    }

    /// Its name.
    pub fn name(&self) -> &'t str {
        self.name
    }

    /// Its value, unread.
    pub fn value(&self) -> &'t [u8] {
        self.value
    }

    /// An error about this property.
    pub fn error(
        &self,
        found: impl Into<Cow<'static, str>>,
        expected: impl Into<Cow<'static, str>>,
    ) -> Error {
        Error::new(self.node.path(), found, expected)
            .property(alloc::string::String::from(self.name))
    }

    /// The value as one cell.
    ///
    /// # Errors
    /// It isn't 4 bytes long.
    pub fn u32(&self) -> Result<u32, Error> {
        match self.value.try_into() {
            Ok(bytes) => Ok(u32::from_be_bytes(bytes)),
            Err(_) => Err(self.length_error("one cell (4 bytes)")),
        }
    }

    /// The value as a number of one or two cells.
    ///
    /// # Errors
    /// It is neither 4 nor 8 bytes long.
    pub fn u64(&self) -> Result<u64, Error> {
        match self.value.len() {
            4 => self.u32().map(u64::from),
            _ => match self.value.try_into() {
                Ok(bytes) => Ok(u64::from_be_bytes(bytes)),
                Err(_) => Err(self.length_error("one or two cells (4 or 8 bytes)")),
            },
        }
    }

    /// The value as one string.
    ///
    /// # Errors
    /// It isn't exactly one NUL-terminated UTF-8 string.
    pub fn string(&self) -> Result<&'t str, Error> {
        let text = self.terminated()?;
        if text.contains('\0') {
            return Err(self.error(quote(text), "one string, not a list"));
        }
        Ok(text)
    }

    /// The value as a list of strings.
    ///
    /// # Errors
    /// It isn't a sequence of NUL-terminated UTF-8 strings.
    pub fn strings(&self) -> Result<impl Iterator<Item = &'t str> + use<'t>, Error> {
        Ok(self.terminated()?.split('\0'))
    }

    /// The node that the value, a phandle, names.
    ///
    /// # Errors
    /// It isn't one cell, or no node has this phandle.
    pub fn phandle(&self) -> Result<Node<'t>, Error> {
        self.resolve(self.u32()?)
    }

    /// The node with a phandle that stands in this property.
    ///
    /// # Errors
    /// No node has it.
    pub fn resolve(&self, phandle: u32) -> Result<Node<'t>, Error> {
        self.node.tree().by_phandle(phandle).ok_or_else(|| {
            self.error(
                format!("phandle {phandle:#x}, which no node has"),
                "the phandle of a node",
            )
        })
    }

    /// The value as a sequence of cells.
    ///
    /// # Errors
    /// Its length isn't a multiple of 4.
    pub fn cells(&self) -> Result<Cells<'t>, Error> {
        Cells::new(self.value).ok_or_else(|| self.length_error("a multiple of 4 bytes"))
    }

    /// The cells in groups of `size`.
    ///
    /// # Errors
    /// `size` is zero, or the number of cells isn't a multiple of it.
    pub fn groups(&self, size: usize) -> Result<impl Iterator<Item = Cells<'t>> + use<'t>, Error> {
        let bytes = size
            .checked_mul(4)
            .filter(|bytes| *bytes != 0 && self.value.len().is_multiple_of(*bytes));
        let Some(bytes) = bytes else {
            return Err(self.error(
                format!("{} bytes", self.value.len()),
                format!("a multiple of {size} cells of 4 bytes"),
            ));
        };
        Ok(self.value.chunks_exact(bytes).map(|bytes| Cells { bytes }))
    }

    fn length_error(&self, expected: &'static str) -> Error {
        self.error(format!("{} bytes", self.value.len()), expected)
    }

    fn terminated(&self) -> Result<&'t str, Error> {
        self.value
            .strip_suffix(&[0])
            .and_then(|text| core::str::from_utf8(text).ok())
            .ok_or_else(|| {
                self.error(
                    format!("{} bytes that are no text ending in NUL", self.value.len()),
                    "a string",
                )
            })
    }
}

/// A sequence of big-endian 32-bit cells; also an iterator over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cells<'t> {
    bytes: &'t [u8],
}

impl<'t> Cells<'t> {
    fn new(bytes: &'t [u8]) -> Option<Self> {
        bytes.len().is_multiple_of(4).then_some(Self { bytes })
    }

    /// Number of cells left.
    pub fn count_left(&self) -> usize {
        self.bytes.len() / 4
    }

    /// Takes `count` cells off the front.
    pub fn take_cells(&mut self, count: usize) -> Option<Cells<'t>> {
        let (head, tail) = self.bytes.split_at_checked(count.checked_mul(4)?)?;
        self.bytes = tail;
        Some(Cells { bytes: head })
    }

    /// Takes a number of `count` cells off the front: at most 64 bits may be set in it.
    pub fn number(&mut self, count: usize) -> Option<u64> {
        let mut value = 0_u64;
        for cell in self.take_cells(count)? {
            if value >> 32 != 0 {
                return None;
            }
            value = (value << 32) | u64::from(cell);
        }
        Some(value)
    }
}

impl Iterator for Cells<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (head, tail) = self.bytes.split_first_chunk::<4>()?;
        self.bytes = tail;
        Some(u32::from_be_bytes(*head))
    }
}
