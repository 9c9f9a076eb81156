//! Any bytes on a client's connection: whatever comes, the broker answers or closes, and serves the next client.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shakedown_fuzz::{Listener, frames, seeds};

fuzz_target!(init: seeds::write(env!("CARGO_BIN_NAME")), |data: &[u8]| frames(Listener::Broker, data));
