//! Free ports of loopback.

use std::io;
use std::net::{Ipv4Addr, TcpListener};

use crate::unlike_others;

/// Below those that Linux hands out to whoever connects (32,768 and up). While a broker is down its port is free, and one
/// from there might be taken by somebody's connection, or by a client that tries the port and meets itself.
/// And above the fixed ones of tests.
const FIRST: u16 = 24_000;
const COUNT: u16 = 8_000;

/// So many ports of loopback that nobody listens on, all different, for servers that will be killed and started again: no
/// client is given one of them for a connection of its own.
///
/// # Errors
/// If so many are not to be had.
pub fn free(count: usize) -> io::Result<Vec<u16>> {
    // Held together, so that no port comes twice.
    let mut held: Vec<(u16, TcpListener)> = Vec::new();
    let start = (unlike_others() % u128::from(COUNT)) as u16;
    for step in 0..COUNT {
        if held.len() == count {
            break;
        }
        let port = FIRST + (start + step) % COUNT;
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, listener));
        }
    }
    if held.len() < count {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "hardly a port of loopback is free"));
    }
    Ok(held.into_iter().map(|(port, _)| port).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_different_and_not_the_systems_to_hand_out() {
        let mut ports = free(20).unwrap();
        assert!(ports.iter().all(|port| (FIRST..FIRST + COUNT).contains(port)), "{ports:?}");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 20);
    }
}
