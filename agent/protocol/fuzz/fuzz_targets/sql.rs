//! Sanitises any bytes as SQL of either dialect and checks what holds for all of them.
//!
//! `RUSTC_BOOTSTRAP=1 cargo fuzz run sql -- -max_total_time=60`
#![no_main]

use libfuzzer_sys::fuzz_target;
use spanwise_protocol::sql::{Dialect, sanitise_bytes_as};

fuzz_target!(|data: &[u8]| {
    let Some((&limit, sql)) = data.split_first() else { return };
    for dialect in [Dialect::PostgreSql, Dialect::MySql] {
        let found = sanitise_bytes_as(dialect, sql, usize::from(limit) * 8);
        assert!(found.text.len() <= usize::from(limit) * 8);
        assert!(found.summary.len() <= 255 && found.operation.len() <= 32);
        // No quote of a string is left, so nothing of a string is.
        assert!(!found.text.contains('\'') || found.text.contains(['"', '`']));
    }
});
