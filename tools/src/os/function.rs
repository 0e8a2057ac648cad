//! A PCI function, as sysfs and `uio_pci_generic` show it.

use super::ready::readable;
use super::system::about;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const DEVICES: &str = "/sys/bus/pci/devices";
const DRIVER: &str = "/sys/bus/pci/drivers/uio_pci_generic";

/// Offset of the Command register in configuration space (PCI 3.0, 6.2.2), and its bits.
const COMMAND: u64 = 4;
const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const COMMAND_INTERRUPT_DISABLE: u16 = 1 << 10;

/// A function found on the bus.
pub struct Function {
    path: PathBuf,
    slot: String,
    vendor: u16,
    device: u16,
}

fn hex_file(path: &Path) -> Option<u16> {
    let text = fs::read_to_string(path).ok()?;
    u16::from_str_radix(text.trim().strip_prefix("0x")?, 16).ok()
}

impl Function {
    /// All functions with these ids, in order of their addresses.
    pub fn find(vendor: u16, device: u16) -> io::Result<Vec<Self>> {
        let entries = fs::read_dir(DEVICES).map_err(|error| about(DEVICES, error))?;
        let mut found: Vec<Self> = entries
            .flatten()
            .map(|entry| Self {
                path: entry.path(),
                slot: entry.file_name().to_string_lossy().into_owned(),
                vendor,
                device,
            })
            .filter(|function| {
                hex_file(&function.path.join("vendor")) == Some(vendor)
                    && hex_file(&function.path.join("device")) == Some(device)
            })
            .collect();
        found.sort_by(|one, other| one.slot.cmp(&other.slot));
        Ok(found)
    }

    /// Looks for functions that weren't there before.
    pub fn rescan() -> io::Result<()> {
        let rescan = "/sys/bus/pci/rescan";
        fs::write(rescan, "1").map_err(|error| about(rescan, error))
    }

    /// Lets the kernel forget the function, which was pulled. Nobody may have its device open.
    pub fn remove(&self) -> io::Result<()> {
        let remove = self.path.join("remove");
        fs::write(&remove, "1").map_err(|error| about(remove.display(), error))
    }

    /// Its address (domain:bus:device.function).
    pub fn slot(&self) -> &str {
        &self.slot
    }

    /// Binds `uio_pci_generic` and opens what it offers.
    pub fn bind(&self) -> io::Result<Uio> {
        let new_id = Path::new(DRIVER).join("new_id");
        let ids = format!("{:04x} {:04x}", self.vendor, self.device);
        match fs::write(&new_id, ids) {
            Err(error) if error.raw_os_error() != Some(Errno::EXIST.raw_os_error()) => {
                return Err(about(new_id.display(), error));
            }
            _ => {}
        }
        let directory = self.path.join("uio");
        let name = fs::read_dir(&directory)
            .ok()
            .and_then(|mut entries| entries.next()?.ok())
            .ok_or_else(|| {
                let slot = &self.slot;
                io::Error::other(format!("{slot}: uio_pci_generic didn't take the function"))
            })?
            .file_name()
            .to_string_lossy()
            .into_owned();
        let node = PathBuf::from("/dev").join(&name);
        if !node.exists() {
            make_node(&directory.join(&name).join("dev"), &node)?;
        }
        let events = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&node)
            .map_err(|error| about(node.display(), error))?;
        let config = self.path.join("config");
        let config = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&config)
            .map_err(|error| about(config.display(), error))?;
        let uio = Uio {
            name,
            events,
            config,
            seen: None,
        };
        // After opening the node, since its last close turns bus mastering off.
        uio.command(
            COMMAND_MEMORY | COMMAND_BUS_MASTER,
            COMMAND_INTERRUPT_DISABLE,
        )?;
        Ok(uio)
    }

    /// The file that maps a BAR.
    pub fn resource(&self, bar: usize) -> io::Result<File> {
        let path = self.path.join(format!("resource{bar}"));
        let file = OpenOptions::new().read(true).write(true).open(&path);
        file.map_err(|error| about(path.display(), error))
    }
}

fn make_node(numbers: &Path, node: &Path) -> io::Result<()> {
    let text = fs::read_to_string(numbers).map_err(|error| about(numbers.display(), error))?;
    let parsed = text
        .trim()
        .split_once(':')
        .and_then(|(major, minor)| Some(makedev(major.parse().ok()?, minor.parse().ok()?)));
    let device =
        parsed.ok_or_else(|| io::Error::other(format!("{}: {text}", numbers.display())))?;
    mknodat(
        CWD,
        node,
        FileType::CharacterDevice,
        Mode::RUSR | Mode::WUSR,
        device,
    )
    .map_err(|error| about(node.display(), error))
}

/// A function bound to `uio_pci_generic`.
pub struct Uio {
    name: String,
    events: File,
    config: File,
    seen: Option<u32>,
}

impl Uio {
    /// The kernel's name for it.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn command(&self, set: u16, clear: u16) -> io::Result<()> {
        let mut bytes = [0; 2];
        self.config.read_exact_at(&mut bytes, COMMAND)?;
        let value = u16::from_le_bytes(bytes) & !clear | set;
        self.config.write_all_at(&value.to_le_bytes(), COMMAND)
    }

    /// Lets the function assert INTx again; the kernel masks it at each interrupt.
    pub fn unmask(&self) -> io::Result<()> {
        self.command(0, COMMAND_INTERRUPT_DISABLE)
            .map_err(|error| about("configuration space", error))
    }

    /// Waits at most `limit`: how many interrupts came since the last call, 0 after a time-out.
    pub fn wait(&mut self, limit: Duration) -> io::Result<u32> {
        if !readable(&self.events, limit).map_err(|error| about(&self.name, error))? {
            return Ok(0);
        }
        let mut bytes = [0; 4];
        self.events
            .read_exact(&mut bytes)
            .map_err(|error| about(format_args!("{} (has it no interrupt?)", self.name), error))?;
        let count = u32::from_ne_bytes(bytes);
        // The kernel counts from the binding on: an interrupt before our first operation shows in its count.
        let new = count.wrapping_sub(self.seen.unwrap_or(0));
        self.seen = Some(count);
        Ok(new)
    }
}
