//! Where the devices are, from the device tree: domains of Baton have QEMU `virt`'s addresses, domains of Xen have others.
//!
//! Just enough of the format (Devicetree Specification 0.4, chapter 5) to find a node's `reg` by its `compatible`; properties come before
//! child nodes. All addresses are taken to be two cells wide, as both hypervisors write them.

use core::ops::Range;

const BEGIN_NODE: u32 = 1;
const PROPERTY: u32 = 3;
const END: u32 = 9;

/// A device tree blob.
#[derive(Clone, Copy)]
pub struct Tree<'a>(&'a [u8]);

impl Tree<'static> {
    /// The tree at this address, by the boot protocol.
    pub fn at(address: u64) -> Self {
        let at = core::ptr::with_exposed_provenance::<u8>(address as usize);
        // SAFETY: the boot protocol hands over a device tree here, in RAM, which has its size in bytes 4 to 7.
        unsafe {
            let size = u32::from_be(at.cast::<u32>().add(1).read());
            Self(core::slice::from_raw_parts(at, size.min(2 << 20) as usize))
        }
    }
}

impl<'a> Tree<'a> {
    fn bytes(&self, range: Range<usize>) -> Option<&'a [u8]> {
        self.0.get(range)
    }

    fn word(&self, at: usize) -> Option<u32> {
        let bytes = self.bytes(at..at.checked_add(4)?)?;
        bytes.try_into().ok().map(u32::from_be_bytes)
    }

    fn text(&self, at: usize) -> Option<&'a [u8]> {
        self.0.get(at..)?.split(|byte| *byte == 0).next()
    }

    /// The word behind `mark`, which is looked for as text.
    pub fn word_after(&self, mark: &[u8]) -> Option<&'a [u8]> {
        let start = self.0.windows(mark.len()).position(|word| word == mark)?;
        let word = self.0.get(start + mark.len()..)?;
        let end = word.iter().position(|byte| !byte.is_ascii_lowercase())?;
        word.get(..end)
    }

    /// Address number `index` of the first node with this `compatible`.
    pub fn address(&self, compatible: &[u8], index: usize) -> Option<u64> {
        let reg = self.property_of(compatible, b"reg")?;
        let address = reg.get(index * 16..index * 16 + 8)?;
        address.try_into().ok().map(u64::from_be_bytes)
    }

    /// This property of the first node with this `compatible` that has it.
    pub fn property_of(&self, compatible: &[u8], wanted: &[u8]) -> Option<&'a [u8]> {
        let (mut matches, mut found) = (false, None);
        self.walk(|part| {
            let Some((name, value)) = part else {
                (matches, found) = (false, None);
                return None;
            };
            if name == b"compatible" {
                matches = value.split(|byte| *byte == 0).any(|one| one == compatible);
            }
            if name == wanted {
                found = Some(value);
            }
            found.filter(|_| matches)
        })
    }

    /// The first property of this name.
    pub fn property(&self, wanted: &[u8]) -> Option<&'a [u8]> {
        self.walk(|part| part.and_then(|(name, value)| (name == wanted).then_some(value)))
    }

    /// Shows every property, and `None` where a node begins, until `look` gives something.
    fn walk<T>(
        &self,
        mut look: impl FnMut(Option<(&'a [u8], &'a [u8])>) -> Option<T>,
    ) -> Option<T> {
        let strings = self.word(12)? as usize;
        let mut at = self.word(8)? as usize;
        loop {
            let token = self.word(at)?;
            at += 4;
            let found = match token {
                BEGIN_NODE => {
                    at += self.text(at)?.len() + 1;
                    look(None)
                }
                PROPERTY => {
                    let size = self.word(at)? as usize;
                    let name = self.text(strings + self.word(at + 4)? as usize)?;
                    let value = self.bytes(at + 8..at + 8 + size)?;
                    at += 8 + size;
                    look(Some((name, value)))
                }
                END => return None,
                // Ends of nodes, and nothing at all.
                _ => None,
            };
            if found.is_some() {
                return found;
            }
            at = at.next_multiple_of(4);
        }
    }
}
