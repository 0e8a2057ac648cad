//! The checksum engine: CRC-32 and Adler-32 of data in the shared memory or in granted RAM.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
fn run(_: u64) -> ! {
    let service = fw_logic::engine::Checksums::default();
    firmware::serve(fw_logic::protocol::kind::CHECKSUM, service)
}

firmware::firmware!(run);
