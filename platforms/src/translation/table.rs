//! The tree itself: map, unmap, protect, look up.
//!
//! A [`TranslationTable`] is a root address and a shape, nothing more; everything else is read back from the
//! tables, which are the only truth. No non-root table is ever empty: unmapping frees those that become so. Entries have bit 0
//! clear when invalid, and only [`protect`](TranslationTable::protect) leaves other bits in an invalid entry, for a moment: the address, to make it valid
//! again. Recursion is at most four deep (one per level).

use super::attributes::Attributes;
use super::geometry::{Geometry, level_shift};
use super::{Invalidate, TableMemory, TranslationError};
use coproc_core::address::{HostPhysical, PAGE_SIZE};
use core::ops::Range;

const VALID: u64 = 1;
/// At levels 0 to 2: a table and not a block. At level 3: a page (must be set).
const TABLE_OR_PAGE: u64 = 1 << 1;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
const LAST_LEVEL: u8 = 3;

/// What an input address is translated to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    /// The output address, offset in the block included.
    pub output: HostPhysical,
    /// Attributes of the leaf.
    pub attributes: Attributes,
    /// Bytes that the leaf covers: 4 KiB, 2 MiB or 1 GiB.
    pub block: u64,
}

/// One leaf of the tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// First input address.
    pub input: u64,
    /// First output address.
    pub output: HostPhysical,
    /// Bytes: 4 KiB, 2 MiB or 1 GiB.
    pub size: u64,
    /// Attributes.
    pub attributes: Attributes,
}

/// A tree of translation tables.
///
/// Dropping it leaks the tables: only [`destroy`](Self::destroy) has the memory to give them back to.
#[derive(Debug)]
#[must_use = "the tables are leaked unless destroyed"]
pub struct TranslationTable {
    root: HostPhysical,
    geometry: Geometry,
}

/// A table, or the place where one will be.
#[derive(Clone, Copy)]
struct Node {
    frame: HostPhysical,
    level: u8,
    /// Input address of entry 0.
    start: u64,
}

/// The part of a request that falls on one entry.
#[derive(Clone, Copy)]
struct Piece {
    /// Where the entry is.
    slot: HostPhysical,
    /// First input address that the entry covers.
    entry: u64,
    /// Bytes that the entry covers.
    size: u64,
    /// Part of it that the request covers.
    from: u64,
    to: u64,
}

impl Piece {
    /// Whether the request covers all of the entry.
    fn whole(&self) -> bool {
        self.from == self.entry && self.to == self.entry.wrapping_add(self.size)
    }
}

enum Entry {
    Invalid,
    Leaf(u64),
    Table(HostPhysical),
}

impl Node {
    /// The piece of `from..to` that falls on the entry of `from`. `from` is within the table, `from < to`.
    fn piece(&self, from: u64, to: u64) -> Piece {
        let shift = level_shift(self.level);
        let size = 1u64.wrapping_shl(shift);
        let index = from.wrapping_sub(self.start).wrapping_shr(shift);
        let entry = self.start.wrapping_add(index.wrapping_shl(shift));
        Piece {
            slot: self.frame.wrapping_add(index.wrapping_mul(8)),
            entry,
            size,
            from,
            to: to.min(entry.wrapping_add(size)),
        }
    }

    fn child(&self, frame: HostPhysical, piece: &Piece) -> Self {
        Self {
            frame,
            level: self.level.saturating_add(1),
            start: piece.entry,
        }
    }

    fn decode(&self, value: u64) -> Entry {
        if value & VALID == 0 {
            Entry::Invalid
        } else if self.level < LAST_LEVEL && value & TABLE_OR_PAGE != 0 {
            Entry::Table(HostPhysical::new(value & ADDRESS))
        } else {
            Entry::Leaf(value)
        }
    }

    fn leaf(&self, output: u64, attributes: Attributes) -> u64 {
        let kind = if self.level == LAST_LEVEL {
            TABLE_OR_PAGE
        } else {
            0
        };
        output & ADDRESS | attributes.bits() | kind | VALID
    }

    /// Whether the piece can be one leaf of this level. The 4 KiB granule has no blocks at level 0.
    fn fits(&self, piece: &Piece, output: u64) -> bool {
        self.level > 0 && piece.whole() && output & piece.size.wrapping_sub(1) == 0
    }
}

/// Frames chained through their first words. A link's bit 0 is 0, so that a walker that still sees such
/// a frame as a table finds an invalid entry.
struct Chain {
    head: u64,
}

impl Chain {
    /// No frame has this address, and as a descriptor it is invalid.
    const END: u64 = 0b10;

    fn new() -> Self {
        Self { head: Self::END }
    }

    fn push<M: TableMemory + ?Sized>(&mut self, memory: &mut M, frame: HostPhysical) {
        memory.write(frame, self.head);
        self.head = frame.get();
    }

    /// The latest one pushed; its first word is zero again.
    fn pop<M: TableMemory + ?Sized>(&mut self, memory: &mut M) -> Option<HostPhysical> {
        if self.head == Self::END {
            return None;
        }
        let frame = HostPhysical::new(self.head);
        self.head = memory.read(frame);
        memory.write(frame, 0);
        Some(frame)
    }

    fn reserve<M: TableMemory + ?Sized>(
        memory: &mut M,
        count: usize,
    ) -> Result<Self, TranslationError> {
        let mut chain = Self::new();
        for _ in 0..count {
            match memory.allocate() {
                Some(frame) => chain.push(memory, frame),
                None => {
                    chain.free(memory);
                    return Err(TranslationError::OutOfMemory);
                }
            }
        }
        Ok(chain)
    }

    fn free<M: TableMemory + ?Sized>(mut self, memory: &mut M) {
        while let Some(frame) = self.pop(memory) {
            memory.free(frame);
        }
    }
}

impl TranslationTable {
    /// An empty tree.
    ///
    /// # Errors
    /// [`TranslationError::OutOfMemory`].
    pub fn new<M: TableMemory + ?Sized>(
        memory: &mut M,
        geometry: Geometry,
    ) -> Result<Self, TranslationError> {
        let root = memory
            .allocate_contiguous(geometry.root_frames(), geometry.root_alignment())
            .ok_or(TranslationError::OutOfMemory)?;
        memory.publish(root, geometry.root_alignment());
        Ok(Self { root, geometry })
    }

    /// Address of the root table: for VTTBR_EL2, TTBR0_EL2 or STE.S2TTB.
    pub const fn root(&self) -> HostPhysical {
        self.root
    }

    /// The shape.
    pub const fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Maps `size` bytes from `input` to `output`, with the largest blocks that alignment allows. Nothing in the range may be
    /// mapped yet, so no invalidation is needed. Time: proportional to the leaves; a caller with a time limit maps in pieces.
    ///
    /// # Errors
    /// [`Misaligned`](TranslationError::Misaligned), [`OutOfRange`](TranslationError::OutOfRange), [`Overlap`](TranslationError::Overlap),
    /// [`OutOfMemory`](TranslationError::OutOfMemory); nothing is mapped then.
    pub fn map<M: TableMemory + ?Sized>(
        &mut self,
        memory: &mut M,
        input: u64,
        output: HostPhysical,
        size: u64,
        attributes: Attributes,
    ) -> Result<(), TranslationError> {
        let range = self.check(input, size)?;
        if !output.is_aligned(PAGE_SIZE) {
            return Err(TranslationError::Misaligned { input, size });
        }
        match output.checked_add(size) {
            Some(end) if end.get() <= self.geometry.output_end() => {}
            _ => return Err(TranslationError::OutOfRange { input, size }),
        }
        let offset = output.get().wrapping_sub(input);
        let root = self.root_node();
        let needed = needed(memory, root, true, &range, offset)?;
        let mut reserve = Chain::reserve(memory, needed)?;
        let result = fill(memory, root, true, &range, offset, attributes, &mut reserve);
        reserve.free(memory);
        result
    }

    /// Unmaps everything in the range; parts that aren't mapped stay so. Blocks that reach over an edge are split, which
    /// makes all of such a block invalid for a moment: a CPU or a device that touches it meanwhile
    /// faults, and the caller must have it stopped or let it retry.
    ///
    /// # Errors
    /// [`Misaligned`](TranslationError::Misaligned), [`OutOfRange`](TranslationError::OutOfRange), [`OutOfMemory`](TranslationError::OutOfMemory)
    /// (a split needs tables); the translation is unchanged then, though a block may have become equal smaller ones.
    pub fn unmap<M: TableMemory + ?Sized>(
        &mut self,
        memory: &mut M,
        input: u64,
        size: u64,
        invalidate: &mut Invalidate<'_>,
    ) -> Result<(), TranslationError> {
        let range = self.check(input, size)?;
        self.split(memory, range.start, invalidate)?;
        self.split(memory, range.end, invalidate)?;
        let mut removed = Removed {
            tables: Chain::new(),
            span: None,
        };
        clear(memory, self.root_node(), &range, &mut removed);
        if let Some(span) = removed.span {
            invalidate(span);
        }
        removed.tables.free(memory);
        Ok(())
    }

    /// Gives everything in the range other attributes. All of it must be mapped. Break before make holds here,
    /// too: the range is invalid for a moment, as with [`unmap`](Self::unmap).
    ///
    /// # Errors
    /// As [`unmap`](Self::unmap), and [`NotMapped`](TranslationError::NotMapped).
    pub fn protect<M: TableMemory + ?Sized>(
        &mut self,
        memory: &mut M,
        input: u64,
        size: u64,
        attributes: Attributes,
        invalidate: &mut Invalidate<'_>,
    ) -> Result<(), TranslationError> {
        let range = self.check(input, size)?;
        let mut at = range.start;
        while at < range.end {
            let found = self
                .translate(memory, at)
                .ok_or(TranslationError::NotMapped { input: at })?;
            at = (at & !found.block.wrapping_sub(1)).wrapping_add(found.block);
        }
        self.split(memory, range.start, invalidate)?;
        self.split(memory, range.end, invalidate)?;
        let root = self.root_node();
        rewrite(memory, root, &range, &mut |_, old| old & !VALID);
        invalidate(range.clone());
        rewrite(memory, root, &range, &mut |node, old| {
            node.leaf(old & ADDRESS, attributes)
        });
        Ok(())
    }

    /// What `input` is translated to.
    pub fn translate<M: TableMemory + ?Sized>(
        &self,
        memory: &M,
        input: u64,
    ) -> Option<Translation> {
        let (node, piece, value) = self.find(memory, input)?;
        let offset = input.wrapping_sub(piece.entry);
        debug_assert!(node.level <= LAST_LEVEL);
        Some(Translation {
            output: HostPhysical::new((value & ADDRESS).wrapping_add(offset)),
            attributes: Attributes::of(value),
            block: piece.size,
        })
    }

    /// Calls `visit` for every leaf, in order of input addresses.
    pub fn walk<M: TableMemory + ?Sized>(&self, memory: &M, visit: &mut dyn FnMut(Leaf)) {
        walk(memory, self.root_node(), self.geometry.input_end(), visit);
    }

    /// Gives all tables back. No walker may use them any more: its registers point elsewhere and its TLBs
    /// were invalidated.
    pub fn destroy<M: TableMemory + ?Sized>(self, memory: &mut M) {
        let mut tables = Chain::new();
        let root = self.root_node();
        each_piece(root, 0..self.geometry.input_end(), |piece| {
            if let Entry::Table(frame) = root.decode(memory.read(piece.slot)) {
                collect(memory, root.child(frame, &piece), &mut tables);
            }
        });
        tables.free(memory);
        for index in 0..self.geometry.root_frames() {
            memory.free(
                self.root
                    .wrapping_add((index as u64).wrapping_mul(PAGE_SIZE)),
            );
        }
    }

    fn root_node(&self) -> Node {
        Node {
            frame: self.root,
            level: self.geometry.start_level(),
            start: 0,
        }
    }

    fn check(&self, input: u64, size: u64) -> Result<Range<u64>, TranslationError> {
        let low = PAGE_SIZE.wrapping_sub(1);
        if size == 0 || (input | size) & low != 0 {
            return Err(TranslationError::Misaligned { input, size });
        }
        match input.checked_add(size) {
            Some(end) if end <= self.geometry.input_end() => Ok(input..end),
            _ => Err(TranslationError::OutOfRange { input, size }),
        }
    }

    /// The leaf that translates `input`: its table, its place, its value.
    fn find<M: TableMemory + ?Sized>(&self, memory: &M, input: u64) -> Option<(Node, Piece, u64)> {
        if input >= self.geometry.input_end() {
            return None;
        }
        let mut node = self.root_node();
        loop {
            let piece = node.piece(input, input.wrapping_add(1));
            let value = memory.read(piece.slot);
            match node.decode(value) {
                Entry::Invalid => return None,
                Entry::Leaf(value) => return Some((node, piece, value)),
                Entry::Table(frame) => node = node.child(frame, &piece),
            }
        }
    }

    /// Splits blocks until none reaches over `edge`, break before make.
    fn split<M: TableMemory + ?Sized>(
        &mut self,
        memory: &mut M,
        edge: u64,
        invalidate: &mut Invalidate<'_>,
    ) -> Result<(), TranslationError> {
        while let Some((node, piece, value)) = self.find(memory, edge) {
            if piece.entry == edge {
                break;
            }
            let frame = memory.allocate().ok_or(TranslationError::OutOfMemory)?;
            let child = node.child(frame, &piece);
            let attributes = Attributes::of(value);
            let offset = (value & ADDRESS).wrapping_sub(piece.entry);
            let end = piece.entry.wrapping_add(piece.size);
            each_piece(child, piece.entry..end, |part| {
                let leaf = child.leaf(part.entry.wrapping_add(offset), attributes);
                memory.write(part.slot, leaf);
            });
            memory.publish(frame, PAGE_SIZE);
            store(memory, piece.slot, 0);
            invalidate(piece.entry..end);
            store(memory, piece.slot, frame.get() | TABLE_OR_PAGE | VALID);
        }
        Ok(())
    }
}

/// Writes one entry that the walker can see.
fn store<M: TableMemory + ?Sized>(memory: &mut M, slot: HostPhysical, value: u64) {
    memory.write(slot, value);
    memory.publish(slot, 8);
}

/// Goes over the entries of a table that a range falls on.
fn each_piece(node: Node, range: Range<u64>, mut each: impl FnMut(Piece)) {
    let mut at = range.start;
    while at < range.end {
        let piece = node.piece(at, range.end);
        at = piece.to;
        each(piece);
    }
}

/// Number of tables that must be added before `range` can be mapped; `exists` is false for a table that is to be added itself.
fn needed<M: TableMemory + ?Sized>(
    memory: &M,
    node: Node,
    exists: bool,
    range: &Range<u64>,
    offset: u64,
) -> Result<usize, TranslationError> {
    if node.level == LAST_LEVEL && !exists {
        return Ok(0);
    }
    let mut count = 0usize;
    let mut at = range.start;
    while at < range.end {
        let piece = node.piece(at, range.end);
        at = piece.to;
        let entry = if exists {
            node.decode(memory.read(piece.slot))
        } else {
            Entry::Invalid
        };
        let part = piece.from..piece.to;
        let added = match entry {
            Entry::Leaf(_) => return Err(TranslationError::Overlap { input: piece.from }),
            Entry::Table(frame) => needed(memory, node.child(frame, &piece), true, &part, offset)?,
            Entry::Invalid if node.fits(&piece, piece.from.wrapping_add(offset)) => 0,
            Entry::Invalid => needed(memory, node.child(node.frame, &piece), false, &part, offset)?
                .saturating_add(1),
        };
        count = count.saturating_add(added);
    }
    Ok(count)
}

/// Writes the leaves of `range`, taking tables out of `reserve`. What is written into a table that is `linked` is published at once.
fn fill<M: TableMemory + ?Sized>(
    memory: &mut M,
    node: Node,
    linked: bool,
    range: &Range<u64>,
    offset: u64,
    attributes: Attributes,
    reserve: &mut Chain,
) -> Result<(), TranslationError> {
    let mut at = range.start;
    let mut written: Option<(HostPhysical, HostPhysical)> = None;
    while at < range.end {
        let piece = node.piece(at, range.end);
        at = piece.to;
        let part = piece.from..piece.to;
        let output = piece.from.wrapping_add(offset);
        let value = match node.decode(memory.read(piece.slot)) {
            Entry::Table(frame) => {
                let child = node.child(frame, &piece);
                fill(memory, child, linked, &part, offset, attributes, reserve)?;
                continue;
            }
            // Excluded by `needed`, which looked at the same tables.
            Entry::Leaf(_) => return Err(TranslationError::Overlap { input: piece.from }),
            Entry::Invalid if node.fits(&piece, output) => node.leaf(output, attributes),
            Entry::Invalid => {
                let frame = reserve.pop(memory).ok_or(TranslationError::OutOfMemory)?;
                let child = node.child(frame, &piece);
                fill(memory, child, false, &part, offset, attributes, reserve)?;
                memory.publish(frame, PAGE_SIZE);
                frame.get() | TABLE_OR_PAGE | VALID
            }
        };
        memory.write(piece.slot, value);
        written = Some((written.map_or(piece.slot, |(first, _)| first), piece.slot));
    }
    if let (true, Some((first, last))) = (linked, written) {
        let bytes = last.get().wrapping_sub(first.get()).wrapping_add(8);
        memory.publish(first, bytes);
    }
    Ok(())
}

/// What was taken out of the tree and may still be in a TLB.
struct Removed {
    tables: Chain,
    /// Input addresses that the removed leaves and tables covered.
    span: Option<Range<u64>>,
}

impl Removed {
    fn cover(&mut self, from: u64, to: u64) {
        self.span = Some(match &self.span {
            None => from..to,
            Some(span) => span.start.min(from)..span.end.max(to),
        });
    }
}

/// Makes all leaves in `range` invalid (none reaches over its edges) and takes out tables that become empty.
fn clear<M: TableMemory + ?Sized>(
    memory: &mut M,
    node: Node,
    range: &Range<u64>,
    removed: &mut Removed,
) {
    let mut written: Option<(HostPhysical, HostPhysical)> = None;
    each_piece(node, range.clone(), |piece| {
        match node.decode(memory.read(piece.slot)) {
            Entry::Invalid => return,
            Entry::Leaf(_) => {
                memory.write(piece.slot, 0);
                removed.cover(piece.from, piece.to);
            }
            Entry::Table(frame) => {
                let child = node.child(frame, &piece);
                if !piece.whole() {
                    clear(memory, child, &(piece.from..piece.to), removed);
                    if !empty(memory, child) {
                        return;
                    }
                }
                // The chain's links come after this in program order, and a walker that sees one before it
                // sees an invalid entry.
                memory.write(piece.slot, 0);
                collect(memory, child, &mut removed.tables);
                removed.cover(piece.entry, piece.entry.wrapping_add(piece.size));
            }
        }
        written = Some((written.map_or(piece.slot, |(first, _)| first), piece.slot));
    });
    if let Some((first, last)) = written {
        let bytes = last.get().wrapping_sub(first.get()).wrapping_add(8);
        memory.publish(first, bytes);
    }
}

fn empty<M: TableMemory + ?Sized>(memory: &M, node: Node) -> bool {
    let mut slot = node.frame;
    let end = node.frame.wrapping_add(PAGE_SIZE);
    while slot < end {
        if memory.read(slot) & VALID != 0 {
            return false;
        }
        slot = slot.wrapping_add(8);
    }
    true
}

/// Chains a table and all below it, children first: a table's first word is overwritten only after its children are known.
fn collect<M: TableMemory + ?Sized>(memory: &mut M, node: Node, tables: &mut Chain) {
    if node.level < LAST_LEVEL {
        let span = 1u64.wrapping_shl(level_shift(node.level.saturating_sub(1)));
        each_piece(node, node.start..node.start.wrapping_add(span), |piece| {
            if let Entry::Table(frame) = node.decode(memory.read(piece.slot)) {
                collect(memory, node.child(frame, &piece), tables);
            }
        });
    }
    tables.push(memory, node.frame);
}

/// Replaces every leaf in `range` (none reaches over its edges), or what [`TranslationTable::protect`] left of one.
fn rewrite<M: TableMemory + ?Sized>(
    memory: &mut M,
    node: Node,
    range: &Range<u64>,
    change: &mut dyn FnMut(&Node, u64) -> u64,
) {
    let mut written: Option<(HostPhysical, HostPhysical)> = None;
    each_piece(node, range.clone(), |piece| {
        let old = memory.read(piece.slot);
        if let Entry::Table(frame) = node.decode(old) {
            let part = piece.from..piece.to;
            rewrite(memory, node.child(frame, &piece), &part, change);
            return;
        }
        memory.write(piece.slot, change(&node, old));
        written = Some((written.map_or(piece.slot, |(first, _)| first), piece.slot));
    });
    if let Some((first, last)) = written {
        let bytes = last.get().wrapping_sub(first.get()).wrapping_add(8);
        memory.publish(first, bytes);
    }
}

fn walk<M: TableMemory + ?Sized>(memory: &M, node: Node, end: u64, visit: &mut dyn FnMut(Leaf)) {
    each_piece(node, node.start..end, |piece| {
        let value = memory.read(piece.slot);
        match node.decode(value) {
            Entry::Invalid => {}
            Entry::Leaf(value) => visit(Leaf {
                input: piece.entry,
                output: HostPhysical::new(value & ADDRESS),
                size: piece.size,
                attributes: Attributes::of(value),
            }),
            Entry::Table(frame) => {
                let child = node.child(frame, &piece);
                walk(memory, child, piece.entry.wrapping_add(piece.size), visit);
            }
        }
    });
}
