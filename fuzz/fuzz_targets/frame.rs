//! Any bytes as a frame: whatever comes, the broker answers or closes the connection, and serves the next client.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| shakedown_fuzz::frame(data));
