//! Numbers that name things, each a type of its own so that one can't be taken for another.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

id!(
    /// A domain (a virtual machine). 0 is never used: Xen's dom0 doesn't exist here.
    DomainId, u16, "d"
);
id!(
    /// A physical coprocessor: the `reg` value of its node in `chosen`.
    CoprocId, u32, "coproc"
);
id!(
    /// One domain's virtual instance of a coprocessor; unique in the whole system while it lives.
    VcoprocId, u32, "v"
);
id!(
    /// What an IOMMU knows a master's transactions by (SMMU StreamID, IPMMU micro-TLB).
    StreamId, u32, "stream"
);
id!(
    /// An address space that an IOMMU translates for.
    SpaceId, u32, "space"
);
id!(
    /// One residence of a context on a coprocessor; grows by one each time a vcoproc starts running.
    Epoch, u64, "epoch"
);
