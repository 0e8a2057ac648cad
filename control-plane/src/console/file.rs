//! A file that comes in lines: each brings a part of it, in base64, and says where that belongs, so that one which was lost or came twice is noticed.
//!
//! There is one at a time, of whoever began last: files are short, and two people who define domains at once should know of each other.

use super::shell::LINE_LENGTH;
use crate::config::domains::file::FILE_LIMIT;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use base64ct::{Base64, Encoding as _};
use coproc_core::id::DomainId;

/// Most bytes that a line brings.
pub const PART_LIMIT: usize = LINE_LENGTH / 4 * 3;

/// What a line brings.
pub type Part = ArrayVec<u8, PART_LIMIT>;

/// Why a part wasn't taken; reads "what, remedy".
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FileError {
    /// It belongs elsewhere.
    #[error("the file has {0} bytes so far, go on there or begin anew with `file put 0 BASE64`")]
    Gap(usize),
    /// It doesn't fit.
    #[error("a file has {FILE_LIMIT} bytes at most, leave out what isn't about the domain")]
    TooLong,
    /// There is none, or it's another one's.
    #[error("no file of yours is here, begin with `file put 0 BASE64`")]
    None,
    /// EL2 has no room.
    #[error("no memory for the file, free some")]
    NoMemory,
}

/// The bytes that base64 with padding stands for (RFC 4648, section 4).
#[inline(never)]
pub fn decode(text: &str) -> Option<Part> {
    let mut buffer = [0; PART_LIMIT];
    let bytes = Base64::decode(text, &mut buffer).ok()?;
    bytes.try_into().ok()
}

/// The file, as far as it has come.
#[derive(Debug, Default)]
pub struct File {
    /// Who gives it: a domain, or else somebody at the console.
    owner: Option<DomainId>,
    bytes: Vec<u8>,
}

impl File {
    /// Nothing yet.
    pub const fn new() -> Self {
        Self {
            owner: None,
            bytes: Vec::new(),
        }
    }

    /// Takes a part, which begins at byte `offset`; at 0 a new file begins. Returns how much there is now.
    ///
    /// # Errors
    /// [`FileError`]; what was there is there still.
    #[inline(never)]
    pub fn put(
        &mut self,
        owner: Option<DomainId>,
        offset: usize,
        part: &[u8],
    ) -> Result<usize, FileError> {
        if offset != 0 {
            let so_far = self.get(owner)?.len();
            if so_far != offset {
                return Err(FileError::Gap(so_far));
            }
        }
        let end = offset.saturating_add(part.len());
        if end > FILE_LIMIT {
            return Err(FileError::TooLong);
        }
        let room = FILE_LIMIT.saturating_sub(self.bytes.len());
        // At once: it doesn't grow by doubling, and whoever began can go on.
        if self.bytes.try_reserve_exact(room).is_err() {
            return Err(FileError::NoMemory);
        }
        if offset == 0 {
            self.bytes.clear();
            self.owner = owner;
        }
        self.bytes.extend_from_slice(part);
        Ok(end)
    }

    /// The file that this one has given.
    ///
    /// # Errors
    /// [`FileError::None`].
    pub fn get(&self, owner: Option<DomainId>) -> Result<&[u8], FileError> {
        if self.bytes.is_empty() || self.owner != owner {
            return Err(FileError::None);
        }
        Ok(&self.bytes)
    }

    /// It's over: its memory is free.
    pub fn end(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ME: Option<DomainId> = Some(DomainId(1));

    #[test]
    fn parts_follow_each_other() {
        let mut file = File::new();
        assert_eq!(file.put(ME, 3, b"x"), Err(FileError::None));
        assert_eq!(file.put(ME, 0, b"abc"), Ok(3));
        for wrong in [2, 4] {
            assert_eq!(file.put(ME, wrong, b"x"), Err(FileError::Gap(3)));
        }
        assert_eq!(file.put(ME, 3, b"de"), Ok(5));
        assert_eq!(file.get(ME), Ok(&b"abcde"[..]));
        // Another one's: not to be gone on with, and not to be used, until that one begins.
        assert_eq!(file.put(None, 5, b"x"), Err(FileError::None));
        assert_eq!(file.get(None), Err(FileError::None));
        assert_eq!(file.put(None, 0, b"z"), Ok(1));
        assert_eq!(file.get(ME), Err(FileError::None));
        assert_eq!(file.get(None), Ok(&b"z"[..]));
        file.end();
        assert_eq!(file.get(None), Err(FileError::None));
        assert_eq!(file.bytes.capacity(), 0);
    }

    #[test]
    fn a_file_has_an_end() {
        let mut file = File::new();
        let part = [7; PART_LIMIT];
        let mut at = 0;
        while at + part.len() <= FILE_LIMIT {
            at = file.put(ME, at, &part).unwrap();
        }
        assert_eq!(file.put(ME, at, &part), Err(FileError::TooLong));
        assert_eq!(file.put(ME, at, &part[..FILE_LIMIT - at]), Ok(FILE_LIMIT));
        assert_eq!(file.put(ME, FILE_LIMIT, b"x"), Err(FileError::TooLong));
        assert_eq!(file.get(ME).unwrap().len(), FILE_LIMIT);
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        // RFC 4648, section 10.
        for (text, bytes) in [("Zg==", "f"), ("Zm8=", "fo"), ("Zm9vYmFy", "foobar")] {
            assert_eq!(decode(text).unwrap().as_slice(), bytes.as_bytes());
        }
        for wrong in ["Zg", "Zm9v!mFy", "Zg==Zg==", "Zm9vYmF", "-_-_"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
        assert_eq!(decode(&"A".repeat(LINE_LENGTH)).unwrap().len(), PART_LIMIT);
    }

    proptest! {
        #[test]
        fn any_text_is_bytes_or_none(text in "[ -~]{0,220}") {
            if let Some(bytes) = decode(&text) {
                let mut again = [0; LINE_LENGTH];
                prop_assert_eq!(Base64::encode(&bytes, &mut again), Ok(text.as_str()));
            }
        }
    }
}
