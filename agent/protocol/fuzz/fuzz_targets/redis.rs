//! Feeds any sequence of inputs to the Redis parser and checks what holds for all of them.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run redis -- -max_total_time=60`
#![no_main]

mod common;

use libfuzzer_sys::fuzz_target;
use spanwise_protocol::redis::Connection;

fuzz_target!(|data: &[u8]| common::run::<Connection>(data));
