//! Any bytes as the body of one API's request; the target's name is the API's. The first byte picks the version.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| shakedown_fuzz::request(env!("CARGO_BIN_NAME"), data));
