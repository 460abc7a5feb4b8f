//! Feeds any sequence of inputs to the HTTP/1 parser and checks what holds for all of them; and that fields which were read once say
//! the same as those that are read each time.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run http1 -- -max_total_time=60`
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use spanwise_protocol::http1::Connection;

/// From the second head on fields are remembered.
const TIMES: usize = 4;

fuzz_target!(|data: &[u8]| {
    common::run::<Connection>(data);
    let said = common::all_said(Connection::default(), data, TIMES);
    assert_eq!(said, common::all_said(Connection::without_memory(), data, TIMES));
});
