//! Any bytes as the body of one API's request; the target's name is the API's. The first byte picks the version.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shakedown_fuzz::{request, seeds};

fuzz_target!(init: seeds::write(env!("CARGO_BIN_NAME")), |data: &[u8]| request(env!("CARGO_BIN_NAME"), data));
