//! Feeds any bytes to the analysis of Go programs, as a whole file and as changes of a small program.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run golang -- -max_total_time=60`
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanwise_golang::{Binary, Found, Runtime, wanted};

fn ask(bytes: &[u8]) {
    let Ok(binary) = Binary::read(Box::new(bytes)) else { return };
    for found in binary.find(&["main.main", "main.other", "main.inside"]).into_values() {
        if let Found::Function(function) = found {
            assert!(function.offset < bytes.len() as u64);
            binary.code(function);
            binary.name_of(function.address);
        }
    }
    for address in [0, 0x10400, 0x10440, u64::MAX] {
        binary.name_of(address);
    }
    for (module, strukt, member) in wanted().take(3) {
        let _ = binary.module_offset(module, strukt, member);
    }
    let _ = Runtime::of(&binary);
}

fuzz_target!(|data: &[u8]| {
    ask(data);
    // Three bytes each: where, and what; in the small program, whose structure no fuzzer would come by soon.
    let mut small = include_bytes!("../seeds/golang/small").to_vec();
    for change in data.chunks_exact(3) {
        let at = usize::from(change[0]) << 8 | usize::from(change[1]);
        let len = small.len();
        small[at % len] = change[2];
    }
    ask(&small);
});
