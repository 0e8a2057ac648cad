//! An SMMU that does everything the architecture allows against its driver.
//!
//! Where IHI 0070 leaves freedom, the model takes all of it at once: for each word of a stream table entry it keeps every value that
//! memory had since the last completed CMD_CFGI_STE, and takes any combination as what the SMMU may have cached; whatever such a
//! combination could translate by is in the TLB until a CMD_TLBI_S12_VMALL completed that began when it no
//! longer could. Nothing completes before a CMD_SYNC is consumed. Broken rules panic.

use super::bus::SmmuBus;
use super::registers::*;
use coproc_core::address::{HostPhysical, PAGE_SIZE};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::vec::Vec;

/// How lost events are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// OVFLG toggles: the architecture.
    Flag,
    /// GERROR.EVENTQ_ABT_ERR: QEMU 10.0.
    Abort,
}

type Words = [BTreeSet<u64>; 4];
/// VMID and root table.
type Regime = (u16, u64);

#[derive(Debug)]
pub struct Model {
    pub registers: BTreeMap<u64, u64>,
    /// As the CPU sees it.
    cpu: BTreeMap<u64, u64>,
    /// As the SMMU sees it.
    smmu: BTreeMap<u64, u64>,
    allocated: BTreeSet<u64>,
    pub frames_left: usize,
    next: u64,
    /// Words that a cached entry may have.
    cached: BTreeMap<u32, Words>,
    /// Regimes that were written into an entry as one.
    regimes: BTreeSet<Regime>,
    tlb: BTreeSet<Regime>,
    invalidating_streams: BTreeSet<u32>,
    invalidating_vmids: BTreeSet<u16>,
    /// Opcodes consumed, for tests that look at the order.
    pub log: Vec<(u8, u32)>,
    /// Commands are consumed as soon as they are produced.
    pub prompt: bool,
    /// CR0 and IRQ_CTRL writes are never acknowledged.
    pub stuck: bool,
    /// This opcode is illegal.
    pub refuse: Option<u8>,
    pub loss: Loss,
}

/// The model behind a lock, so that a test can look at it while the driver has it.
#[derive(Clone, Debug)]
pub struct Shared(pub Arc<Mutex<Model>>);

impl Shared {
    /// As QEMU 10.0.2's ID registers say.
    pub fn new() -> Self {
        let registers = [
            (IDR0, 0x0d44_101b),
            (IDR1, 0x0273_0010),
            (IDR5, 0x74),
            // Left on by firmware.
            (CR0, 0x1),
            (CR0ACK, 0x1),
        ];
        Self(Arc::new(Mutex::new(Model {
            registers: registers.into(),
            cpu: BTreeMap::new(),
            smmu: BTreeMap::new(),
            allocated: BTreeSet::new(),
            frames_left: 10_000,
            next: 0x8_0000_0000,
            cached: BTreeMap::new(),
            regimes: BTreeSet::new(),
            tlb: BTreeSet::new(),
            invalidating_streams: BTreeSet::new(),
            invalidating_vmids: BTreeSet::new(),
            log: Vec::new(),
            prompt: true,
            stuck: false,
            refuse: None,
            loss: Loss::Flag,
        })))
    }

    pub fn lock(&self) -> MutexGuard<'_, Model> {
        self.0
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Model {
    pub fn get(&self, register: u64) -> u32 {
        self.registers.get(&register).copied().unwrap_or(0) as u32
    }

    fn base(&self, register: u64) -> (u64, u32) {
        let value = self.registers.get(&register).copied().unwrap_or(0);
        (value & 0x000f_ffff_ffff_ffe0, (value & 0x1f) as u32)
    }

    fn stream_table(&self) -> (u64, u64) {
        let base = self.registers.get(&STRTAB_BASE).copied().unwrap_or(0);
        let bits = self.get(STRTAB_BASE_CFG) & 0x3f;
        (base & 0x000f_ffff_ffff_ffc0, 64 << bits)
    }

    /// Stream and word number, if this is an entry's word 0 to 3.
    fn stream_word(&self, address: u64) -> Option<(u32, usize)> {
        let (base, bytes) = self.stream_table();
        let enabled = self.get(CR0) & CR0_SMMUEN != 0;
        if !enabled || address < base || address >= base + bytes {
            return None;
        }
        let word = (address - base) % 64 / 8;
        (word < 4).then_some((((address - base) / 64) as u32, word as usize))
    }

    fn words(&self, stream: u32) -> Words {
        let (base, _) = self.stream_table();
        let at = base + u64::from(stream) * 64;
        self.cached
            .get(&stream)
            .cloned()
            .unwrap_or_else(|| [0, 8, 16, 24].map(|word| [self.smmu[&(at + word)]].into()))
    }

    /// Every regime that the stream's entry, as it may be cached, translates by; `None` for an abort.
    pub fn regimes(&self, stream: u32) -> BTreeSet<Option<Regime>> {
        let words = self.words(stream);
        let mut found = BTreeSet::new();
        for head in &words[0] {
            match head & 0xf {
                STE_ABORT => {
                    found.insert(None);
                }
                STE_STAGE2 => {
                    for control in &words[2] {
                        for root in &words[3] {
                            let regime = (*control as u16, *root);
                            assert!(
                                self.regimes.contains(&regime),
                                "torn entry of stream {stream}: {regime:x?}"
                            );
                            assert!(self.allocated.contains(root), "stale root");
                            found.insert(Some(regime));
                        }
                    }
                }
                other => panic!("bad entry {other:#x}"),
            }
        }
        found
    }

    /// Puts into the TLB all that may be walked; checks that no VMID stands for two roots.
    fn prefetch(&mut self) {
        let streams: Vec<u32> = self.cached.keys().copied().collect();
        for stream in streams {
            let regimes = self.regimes(stream);
            self.tlb.extend(regimes.into_iter().flatten());
        }
        let vmids: BTreeSet<u16> = self.tlb.iter().map(|regime| regime.0).collect();
        assert_eq!(vmids.len(), self.tlb.len(), "one VMID, two sets of tables");
    }

    /// What may still be translated to, from any stream or by a TLB hit.
    pub fn tlb(&self) -> BTreeSet<Regime> {
        self.tlb.clone()
    }

    /// Translates by the tables of a root, as the SMMU sees them; 40 bits of input, level 1.
    pub fn walk(&self, root: u64, address: u64) -> Option<u64> {
        let mut table = root;
        for shift in [30, 21, 12] {
            let index = address >> shift & if shift == 30 { 0x3ff } else { 0x1ff };
            let entry = self.smmu[&(table + index * 8)];
            let next = entry & 0x0000_ffff_ffff_f000;
            match entry & 3 {
                1 if shift != 12 => return Some(next + (address & ((1 << shift) - 1))),
                3 if shift == 12 => return Some(next + (address & 0xfff)),
                3 => table = next,
                _ => return None,
            }
        }
        None
    }

    /// A transaction. If several outcomes are allowed, it may be any of them; an event is recorded if all of them fault.
    pub fn access(&mut self, stream: u32, address: u64, write: bool) -> BTreeSet<Option<u64>> {
        let (_, bytes) = self.stream_table();
        if u64::from(stream) * 64 >= bytes {
            self.record([0x02 | u64::from(stream) << 32, 0, 0, 0]);
            return [None].into();
        }
        let regimes = self.regimes(stream);
        let outcome: BTreeSet<Option<u64>> = regimes
            .iter()
            .map(|regime| self.walk((*regime)?.1, address))
            .collect();
        if outcome == [None].into() && !regimes.contains(&None) {
            let read = u64::from(!write) << 35;
            self.record([0x10 | u64::from(stream) << 32, 1 << 39 | read, address, 0]);
        }
        outcome
    }

    fn record(&mut self, event: [u64; 4]) {
        assert_ne!(self.get(CR0) & CR0_EVENTQEN, 0);
        let (base, bits) = self.base(EVENTQ_BASE);
        let mask = (2 << bits) - 1;
        let (produced, consumed) = (self.get(EVENTQ_PROD), self.get(EVENTQ_CONS));
        if (produced ^ consumed) & mask == 1 << bits {
            match self.loss {
                Loss::Flag if (produced ^ consumed) & OVERFLOW == 0 => {
                    self.registers
                        .insert(EVENTQ_PROD, u64::from(produced ^ OVERFLOW));
                }
                Loss::Flag => {}
                Loss::Abort => self.raise(GERROR_EVENTQ_ABORT),
            }
            return;
        }
        let at = base + u64::from(produced & ((1 << bits) - 1)) * 32;
        for (index, word) in event.into_iter().enumerate() {
            // The CPU sees it when it observes it.
            self.smmu.insert(at + index as u64 * 8, word);
        }
        let next = produced.wrapping_add(1) & mask | produced & OVERFLOW;
        self.registers.insert(EVENTQ_PROD, u64::from(next));
    }

    pub fn raise(&mut self, error: u32) {
        let (raised, acknowledged) = (self.get(GERROR), self.get(GERRORN));
        if (raised ^ acknowledged) & error == 0 {
            self.registers.insert(GERROR, u64::from(raised ^ error));
        }
    }

    /// Consumes up to `count` commands.
    pub fn consume(&mut self, count: usize) {
        let (base, bits) = self.base(CMDQ_BASE);
        let mask = (2u32 << bits) - 1;
        for _ in 0..count {
            let (produced, consumed) = (self.get(CMDQ_PROD), self.get(CMDQ_CONS) & mask);
            let halted = (self.get(GERROR) ^ self.get(GERRORN)) & GERROR_CMDQ != 0;
            if self.get(CR0) & CR0_CMDQEN == 0 || produced == consumed || halted {
                return;
            }
            let at = base + u64::from(consumed & ((1 << bits) - 1)) * 16;
            let (low, high) = (self.smmu[&at], self.smmu[&(at + 8)]);
            assert_eq!(low, self.cpu[&at], "unpublished command");
            assert_eq!(high, self.cpu[&(at + 8)], "unpublished command");
            let (opcode, argument) = (low as u8, (low >> 32) as u32);
            if self.refuse == Some(opcode) {
                self.registers
                    .insert(CMDQ_CONS, u64::from(consumed | 1 << 24));
                self.raise(GERROR_CMDQ);
                return;
            }
            self.log.push((opcode, argument));
            match opcode {
                0x03 => {
                    assert_eq!(high, 1);
                    self.invalidating_streams.insert(argument);
                }
                0x04 => {
                    assert_eq!((argument, high), (0, 31));
                    self.cached.clear();
                }
                0x28 => {
                    self.invalidating_vmids.insert(argument as u16);
                }
                0x30 => self.tlb.clear(),
                0x46 => self.synchronise(),
                _ => panic!("unknown command {opcode:#x}"),
            }
            let next = consumed.wrapping_add(1) & mask;
            self.registers.insert(CMDQ_CONS, u64::from(next));
        }
    }

    fn synchronise(&mut self) {
        let vmids = std::mem::take(&mut self.invalidating_vmids);
        self.tlb.retain(|regime| !vmids.contains(&regime.0));
        // By what was cached until now, the TLB may have been filled again meanwhile.
        self.prefetch();
        for stream in std::mem::take(&mut self.invalidating_streams) {
            let (base, _) = self.stream_table();
            let at = base + u64::from(stream) * 64;
            let words =
                [0, 8, 16, 24].map(|word| [self.smmu[&(at + word)], self.cpu[&(at + word)]].into());
            self.cached.insert(stream, words);
        }
    }

    /// Frames that a walk from anything cached may still read.
    fn in_use(&self) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let mut queue: Vec<(u64, u8)> = self
            .tlb
            .iter()
            .flat_map(|regime| [(regime.1, 1), (regime.1 + PAGE_SIZE, 1)])
            .collect();
        while let Some((table, level)) = queue.pop() {
            found.insert(table);
            for (_, entry) in self.smmu.range(table..table + PAGE_SIZE) {
                if level < 3 && entry & 3 == 3 {
                    queue.push((entry & 0x0000_ffff_ffff_f000, level + 1));
                }
            }
        }
        found
    }

    pub fn frames_used(&self) -> usize {
        self.allocated.len()
    }
}

impl SmmuBus for Shared {
    fn read32(&mut self, offset: u64) -> u32 {
        self.lock().get(offset)
    }

    fn write32(&mut self, offset: u64, value: u32) {
        let mut model = self.lock();
        let off = |model: &Model, bit| model.get(CR0) & bit == 0;
        match offset {
            CR0 => {
                if value & CR0_SMMUEN != 0 {
                    assert_ne!(model.get(GBPA) & GBPA_ABORT, 0);
                }
                if !model.stuck {
                    model.registers.insert(CR0ACK, u64::from(value));
                }
            }
            IRQ_CTRL if !model.stuck => {
                model.registers.insert(IRQ_CTRLACK, u64::from(value));
            }
            GBPA => {
                if value & GBPA_UPDATE != 0 {
                    let value = u64::from(value & !GBPA_UPDATE);
                    model.registers.insert(GBPA, value);
                }
                return;
            }
            CR1 | CR2 | STRTAB_BASE_CFG => assert!(off(&model, CR0_SMMUEN)),
            CMDQ_CONS => assert!(off(&model, CR0_CMDQEN)),
            EVENTQ_PROD => assert!(off(&model, CR0_EVENTQEN)),
            EVENTQ_CONS if !off(&model, CR0_EVENTQEN) => {
                let mask = (2 << model.base(EVENTQ_BASE).1) - 1;
                let ahead = value.wrapping_sub(model.get(EVENTQ_CONS)) & mask;
                let filled = model.get(EVENTQ_PROD).wrapping_sub(model.get(EVENTQ_CONS)) & mask;
                assert!(ahead <= filled, "consumed more than was produced");
            }
            _ => {}
        }
        model.registers.insert(offset, u64::from(value));
        if matches!(offset, CR0 | CMDQ_PROD | GERRORN) && model.prompt {
            model.consume(usize::MAX);
        }
    }

    fn write64(&mut self, offset: u64, value: u64) {
        let mut model = self.lock();
        assert_eq!(model.get(CR0) & CR0_SMMUEN, 0);
        model.registers.insert(offset, value);
    }

    fn allocate(&mut self, bytes: u64, alignment: u64) -> Option<HostPhysical> {
        let mut model = self.lock();
        assert!(bytes.is_multiple_of(PAGE_SIZE) && alignment.is_power_of_two());
        let frames = (bytes / PAGE_SIZE) as usize;
        model.frames_left = model.frames_left.checked_sub(frames)?;
        let start = model.next.next_multiple_of(alignment);
        model.next = start + bytes;
        for frame in (start..start + bytes).step_by(4096) {
            model.allocated.insert(frame);
        }
        for address in (start..start + bytes).step_by(8) {
            model.cpu.insert(address, 0);
            // Nothing that the driver may rely on.
            model.smmu.insert(address, 0xdead_beef_dead_beef);
        }
        Some(HostPhysical::new(start))
    }

    fn free(&mut self, start: HostPhysical, bytes: u64) {
        let mut model = self.lock();
        let in_use = model.in_use();
        for frame in (start.get()..start.get() + bytes).step_by(4096) {
            assert!(!in_use.contains(&frame), "freed while it may be walked");
            assert!(model.allocated.remove(&frame), "freed twice");
            model.frames_left += 1;
        }
        let allocated = model.allocated.clone();
        model.regimes.retain(|regime| allocated.contains(&regime.1));
    }

    fn read_memory(&self, address: HostPhysical) -> u64 {
        self.lock().cpu[&address.get()]
    }

    fn write_memory(&mut self, address: HostPhysical, value: u64) {
        let mut model = self.lock();
        let at = address.get();
        assert!(model.allocated.contains(&(at & !0xfff)), "write after free");
        model.cpu.insert(at, value);
        if let Some((stream, word)) = model.stream_word(at) {
            // Visible from now on, or only when published.
            let mut words = model.words(stream);
            words[word].insert(value);
            model.cached.insert(stream, words);
            if word == 3 {
                let vmid = model.cpu[&(at - 8)] as u16;
                model.regimes.insert((vmid, value));
            }
            model.prefetch();
        }
    }

    fn publish(&mut self, start: HostPhysical, bytes: u64, _: bool) {
        let mut model = self.lock();
        for address in (start.get()..start.get() + bytes).step_by(8) {
            let value = model.cpu[&address];
            model.smmu.insert(address, value);
        }
    }

    fn observe(&mut self, start: HostPhysical, bytes: u64, _: bool) {
        let mut model = self.lock();
        for address in (start.get()..start.get() + bytes).step_by(8) {
            let value = model.smmu[&address];
            model.cpu.insert(address, value);
        }
    }
}
