//! Hands the linker script to the linker when the guest is built for the bare machine.

fn main() {
    println!("cargo:rerun-if-changed=../runtime/guest.ld");
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo:rustc-link-arg-bins=-T{root}/../runtime/guest.ld");
        println!("cargo:rustc-link-arg-bins=--no-pie");
    }
}
