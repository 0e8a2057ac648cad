//! A disk, written and read back through whatever driver the kernel has for it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::system::about;

/// How long the kernel may take to find it.
const PATIENCE: Duration = Duration::from_secs(60);
/// What one call reads or writes, in bytes.
const CHUNK: usize = 256 << 10;

/// What was found out about a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tried {
    /// Its size in bytes.
    pub size: u64,
    /// Words of 64 bits that had another value than the one written.
    pub wrong: u64,
}

/// The word at this place of a disk, which [`tried`] has written with this seed.
pub fn word(seed: u64, index: u64) -> u64 {
    (index ^ seed << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn chunk(seed: u64, at: u64) -> Vec<u8> {
    let words = at / 8..at / 8 + CHUNK as u64 / 8;
    words
        .flat_map(|index| word(seed, index).to_le_bytes())
        .collect()
}

/// Fills the first `bytes` bytes of `/dev/NAME`, a multiple of 256 KiB, and reads them back from the device.
pub fn tried(name: &str, seed: u64, bytes: u64) -> io::Result<Tried> {
    let path = format!("/dev/{name}");
    let limit = Instant::now() + PATIENCE;
    while !Path::new(&path).exists() {
        if Instant::now() >= limit {
            return Err(io::Error::other(format!("there is no {path}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let sectors = fs::read_to_string(format!("/sys/class/block/{name}/size"))?;
    let sectors: u64 = sectors.trim().parse().map_err(io::Error::other)?;
    let disk = OpenOptions::new().read(true).write(true).open(&path);
    let disk = disk.map_err(|error| about(&path, error))?;
    let places = || (0..bytes).step_by(CHUNK);
    for at in places() {
        disk.write_all_at(&chunk(seed, at), at)?;
    }
    disk.sync_all()?;
    // What is read now comes from the disk.
    fs::write("/proc/sys/vm/drop_caches", "1")?;
    let mut wrong = 0;
    let mut read = vec![0; CHUNK];
    for at in places() {
        disk.read_exact_at(&mut read, at)?;
        let expected = chunk(seed, at);
        let pairs = read.chunks_exact(8).zip(expected.chunks_exact(8));
        wrong += pairs.filter(|(read, written)| read != written).count() as u64;
    }
    let size = sectors * 512;
    Ok(Tried { size, wrong })
}
