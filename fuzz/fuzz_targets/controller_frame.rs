//! Any bytes on a connection to the controller: whatever comes, it answers or closes, and the cluster goes on.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shakedown_fuzz::{Listener, frames, seeds};

fuzz_target!(init: seeds::write(env!("CARGO_BIN_NAME")), |data: &[u8]| frames(Listener::Controller, data));
