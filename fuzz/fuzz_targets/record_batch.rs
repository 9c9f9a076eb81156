//! Any bytes as a record batch for a topic of any kind: refused, or stored and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shakedown_fuzz::{batches, seeds};

fuzz_target!(init: seeds::write(env!("CARGO_BIN_NAME")), |data: &[u8]| batches::run(data));
