//! The sample-rate converter: three samples become two.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
fn run(_: u64) -> ! {
    let service = fw_logic::engine::Converter::default();
    firmware::serve(fw_logic::protocol::kind::FILTER, service)
}

firmware::firmware!(run);
