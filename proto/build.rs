//! Compiles `v1/*.proto` with protox, so that no protoc is needed.

#![expect(clippy::disallowed_methods, reason = "a build, not a run")]

use std::error::Error;
use std::path::PathBuf;

use prost::Message as _;

const FILES: [&str; 5] =
    ["order.proto", "inventory.proto", "payment.proto", "shipping.proto", "notification.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=v1");
    let descriptors = protox::compile(FILES, ["v1"])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    prost_build::Config::new()
        // A map field that is added one day must encode in one order.
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
