//! Packets of the network stack: what they are, and the few that the driver forges.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use turmoil_net::{Packet, TcpFlags, TcpSegment, Transport};

/// Addresses of one host. A restarted process listens on another one while a connection of its predecessor lingers on
/// the port, as `SO_REUSEADDR` would let it; a dozen may linger at a time.
pub(crate) const ADDRESSES: u8 = 12;

/// The address number `of` of the host number `host`: 10.h.h.a.
pub(crate) fn address(host: usize, of: u8) -> IpAddr {
    let host = u16::try_from(host).expect("a world has fewer than 65,536 hosts");
    let [high, low] = host.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, high, low, of + 1))
}

/// The host to which an address of [`address`] belongs.
pub(crate) fn host_of(address: IpAddr) -> usize {
    let IpAddr::V4(address) = address else { panic!("the world has addresses of IPv4 only, not {address}") };
    let [_, high, low, _] = address.octets();
    usize::from(u16::from_be_bytes([high, low]))
}

/// A connection as one end sees it: its own address and its peer's.
pub(crate) type Ends = (SocketAddr, SocketAddr);

/// The TCP segment of a packet, with both ends' addresses.
pub(crate) struct Segment<'a> {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) tcp: &'a TcpSegment,
}

impl<'a> Segment<'a> {
    pub(crate) fn of(packet: &'a Packet) -> Segment<'a> {
        let Transport::Tcp(tcp) = &packet.payload else { panic!("the seam opens no socket but TCP's") };
        let from = SocketAddr::new(packet.src, tcp.src_port);
        let to = SocketAddr::new(packet.dst, tcp.dst_port);
        Segment { from, to, tcp }
    }

    /// The connection as the receiver sees it.
    pub(crate) fn receiver_ends(&self) -> Ends {
        (self.to, self.from)
    }

    /// The connection as the sender sees it.
    pub(crate) fn sender_ends(&self) -> Ends {
        (self.from, self.to)
    }

    pub(crate) fn kind(&self) -> Kind {
        let TcpFlags { syn, ack, fin, rst, .. } = self.tcp.flags;
        match (rst, syn, fin) {
            (true, _, _) => Kind::Reset,
            (_, true, _) if ack => Kind::SynAck,
            (_, true, _) => Kind::Syn,
            _ if !self.tcp.payload.is_empty() => Kind::Data(self.tcp.payload.len()),
            (_, _, true) => Kind::Fin,
            _ => Kind::Ack,
        }
    }

    /// The reset with which a machine answers a segment of a connection that it does not know (RFC 9293, 3.5.2).
    pub(crate) fn reset(&self) -> Packet {
        reset(self.to, self.from, self.tcp.ack)
    }
}

/// What a segment is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Syn,
    SynAck,
    /// With this many bytes.
    Data(usize),
    Fin,
    Reset,
    /// Nothing but an acknowledgement or a window.
    Ack,
}

impl Kind {
    /// A sender that hears no answer sends it again.
    pub(crate) fn is_retransmitted(self) -> bool {
        !matches!(self, Kind::Reset | Kind::Ack)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Syn => f.write_str("SYN"),
            Kind::SynAck => f.write_str("SYN-ACK"),
            Kind::Data(bytes) => write!(f, "{bytes} B"),
            Kind::Fin => f.write_str("FIN"),
            Kind::Reset => f.write_str("RST"),
            Kind::Ack => f.write_str("ACK"),
        }
    }
}

/// A reset from one end of a connection to the other.
pub(crate) fn reset(from: SocketAddr, to: SocketAddr, seq: u32) -> Packet {
    forge(from, to, seq, 0, TcpFlags { rst: true, ..TcpFlags::default() })
}

/// An acknowledgement that completes a handshake.
pub(crate) fn handshake_ack(from: SocketAddr, to: SocketAddr, ack: u32) -> Packet {
    forge(from, to, 0, ack, TcpFlags { ack: true, ..TcpFlags::default() })
}

fn forge(from: SocketAddr, to: SocketAddr, seq: u32, ack: u32, flags: TcpFlags) -> Packet {
    let segment = TcpSegment {
        src_port: from.port(),
        dst_port: to.port(),
        seq,
        ack,
        flags,
        window: 0,
        payload: Default::default(),
    };
    Packet { src: from.ip(), dst: to.ip(), ttl: 64, payload: Transport::Tcp(segment) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leads_back_to_its_host() {
        for host in [0, 1, 255, 256, 65_535] {
            for of in 0..ADDRESSES {
                assert_eq!(host_of(address(host, of)), host);
            }
        }
    }
}
