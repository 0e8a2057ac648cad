//! What an init does: mounts, modules, the command line, the end.

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot, uname};
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::time::Duration;

/// An error with what it was about in front.
pub fn about(what: impl std::fmt::Display, error: impl Into<io::Error>) -> io::Error {
    let error = error.into();
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Mounts proc, sysfs and devtmpfs; those that are mounted already are fine.
pub fn mount_all() -> io::Result<()> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(target).map_err(|error| about(target, error))?;
        match mount(kind, target, kind, MountFlags::empty(), None::<&CStr>) {
            Ok(()) | Err(Errno::BUSY) => {}
            Err(error) => return Err(about(format_args!("mounting {target}"), error)),
        }
    }
    // Kernel messages below an error stay in the log, out of the lines that tests read.
    let _ = fs::write("/proc/sys/kernel/printk", "4");
    Ok(())
}

/// The kernel command line.
pub fn command_line() -> io::Result<String> {
    fs::read_to_string("/proc/cmdline").map_err(|error| about("/proc/cmdline", error))
}

/// The kernel's release.
pub fn kernel() -> String {
    uname().release().to_string_lossy().into_owned()
}

/// Loads `/lib/modules/NAME.ko`; a module that is there already, or built in, is fine.
pub fn load_module(name: &str) -> io::Result<()> {
    let path = format!("/lib/modules/{name}.ko");
    if fs::exists(format!("/sys/module/{name}")).unwrap_or(false) {
        return Ok(());
    }
    let file = File::open(&path).map_err(|error| about(&path, error))?;
    match finit_module(&file, c"", 0) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(about(format_args!("loading {path}"), error)),
    }
}

/// Sleeps for good: PID 1 can't end.
pub fn rest() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Switches the machine off, or says why not.
pub fn power_off() {
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        let error = about("power off", error).to_string();
        super::console::print(&crate::report::error(&error));
    }
}

/// Restarts the machine, or says why not.
pub fn restart() {
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::Restart) {
        let error = about("restart", error).to_string();
        super::console::print(&crate::report::error(&error));
    }
}
