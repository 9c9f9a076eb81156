//! Any bytes as the files of a log that a process finds as it starts: what is whole is recovered, the rest is dropped.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shakedown_fuzz::{seeds, segments};

fuzz_target!(init: seeds::write(env!("CARGO_BIN_NAME")), |data: &[u8]| segments::run(data));
