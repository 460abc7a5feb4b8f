//! Feeds any sequence of inputs to the PostgreSQL parser and checks what holds for all of them.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run postgresql -- -max_total_time=60`
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use spanwise_protocol::postgresql::Connection;

fuzz_target!(|data: &[u8]| common::run::<Connection>(data));
