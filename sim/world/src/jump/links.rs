//! The links: which packet arrives when, and which must wait.
//!
//! A link runs from one host to another. A latency is drawn for each packet; of one connection one that would overtake its
//! predecessor waits, and arrives with it, because the network stack drops what comes out of order and nothing
//! retransmits. Packets of different connections overtake each other as they do in a network: what a connection was late
//! with may arrive when another, made since, has long been answered. Of several links with a packet due in the same
//! millisecond, the seed draws which goes first.
//!
//! Here is no socket and no host: packets go in by the numbers of their hosts and come out when they are due.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::IpAddr;

use context::{Rng, Seed};
use turmoil_net::{Packet, Transport};

use super::draw_below;
use crate::{LatencyRange, LinkStats};

/// All links of a world with a fixed number of hosts. Times are milliseconds since the Unix epoch.
pub(crate) struct Links {
    seed: Seed,
    names: Vec<String>,
    /// From host `f` to host `t` is number `f * hosts + t`.
    links: Vec<Link>,
    /// The links by the time at which their first packet is due. An entry counts only if its link is armed with it.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// The links whose first packet is due now, while they are drawn from.
    tied: Vec<usize>,
    ties: Rng,
    latency: (u64, u64),
}

#[derive(Default)]
struct Link {
    /// In the order in which they arrive.
    queue: VecDeque<Flight>,
    /// When the last packet of a connection arrives; those of which all has arrived are forgotten now and then.
    last: BTreeMap<Flow, u64>,
    /// When its first packet is due, as `due` has it.
    armed: Option<u64>,
    held: bool,
    /// `None`: the world's own.
    latency: Option<(u64, u64)>,
    /// Made with the first packet. Each link has its own, so that a fault on one does not move the others' draws.
    draws: Option<Box<Rng>>,
    /// What reached the machine while it had no power, and will be answered when it is back.
    unheard: Vec<Packet>,
    stats: LinkStats,
}

struct Flight {
    at: u64,
    packet: Packet,
}

/// One direction of a connection: addresses and ports of sender and receiver.
type Flow = (IpAddr, u16, IpAddr, u16);

fn flow(packet: &Packet) -> Flow {
    let (from, to) = match &packet.payload {
        Transport::Tcp(segment) => (segment.src_port, segment.dst_port),
        Transport::Udp(datagram) => (datagram.src_port, datagram.dst_port),
    };
    (packet.src, from, packet.dst, to)
}

/// Connections of a link that are remembered before the old ones are looked for.
const FLOWS_REMEMBERED: usize = 64;

impl Link {
    /// A packet that would arrive at `at`, were it alone: behind all that arrives then, and not before its predecessor.
    fn enqueue(&mut self, now: u64, at: u64, packet: Packet) {
        let flow = flow(&packet);
        let at = self.last.get(&flow).map_or(at, |&last| at.max(last));
        if self.last.len() >= FLOWS_REMEMBERED && !self.last.contains_key(&flow) {
            self.last.retain(|_, last| *last > now);
        }
        self.last.insert(flow, at);
        let behind = self.queue.iter().rposition(|other| other.at <= at).map_or(0, |place| place + 1);
        self.queue.insert(behind, Flight { at, packet });
    }
}

impl Links {
    pub(crate) fn new(seed: Seed, names: Vec<String>, latency: LatencyRange) -> Links {
        let count = names.len() * names.len();
        let mut links = Vec::new();
        links.resize_with(count, Link::default);
        Links {
            seed,
            names,
            links,
            due: BinaryHeap::new(),
            tied: Vec::new(),
            ties: seed.stream("world/ties of links"),
            latency: in_millis(latency),
        }
    }

    /// A packet enters the link.
    pub(crate) fn send(&mut self, now: u64, from: usize, to: usize, packet: Packet) {
        let number = self.number(from, to);
        let at = self.arrival(now, number);
        let link = &mut self.links[number];
        link.stats.slowed += u64::from(link.latency.is_some());
        link.enqueue(now, at, packet);
        self.arm(number);
    }

    /// When the next packet is due, if any is under way on a link that is not held.
    pub(crate) fn next_due(&mut self) -> Option<u64> {
        while let Some(&Reverse((at, number))) = self.due.peek() {
            if self.links[number].armed == Some(at) {
                return Some(at);
            }
            self.due.pop();
        }
        None
    }

    /// Takes the next packet that is due by `now`, with the hosts it comes from and goes to. Called until there is none
    /// before anything is changed.
    pub(crate) fn take_due(&mut self, now: u64) -> Option<(usize, usize, Packet)> {
        while self.next_due().is_some_and(|at| at <= now) {
            let Reverse((_, number)) = self.due.pop().expect("a packet is due");
            self.links[number].armed = None;
            self.tied.push(number);
        }
        let place = match self.tied.len() {
            0 => return None,
            1 => 0,
            several => draw_below(&mut self.ties, several as u64) as usize,
        };
        let number = self.tied[place];
        let link = &mut self.links[number];
        let flight = link.queue.pop_front().expect("a link with a packet due has one");
        if link.queue.front().is_none_or(|next| next.at > now) {
            self.tied.swap_remove(place);
            self.arm(number);
        }
        Some((number / self.names.len(), number % self.names.len(), flight.packet))
    }

    /// From now on nothing leaves the link; what is under way on it waits too.
    pub(crate) fn hold(&mut self, from: usize, to: usize) {
        let number = self.number(from, to);
        let link = &mut self.links[number];
        link.held = true;
        link.armed = None;
    }

    /// Lets the link go on. What should have arrived meanwhile arrives a latency from now, of each connection in order.
    pub(crate) fn release(&mut self, now: u64, from: usize, to: usize) {
        let number = self.number(from, to);
        self.links[number].held = false;
        self.links[number].last.clear();
        for Flight { at, packet } in std::mem::take(&mut self.links[number].queue) {
            let waited = at <= now;
            let at = if waited { self.arrival(now, number) } else { at };
            self.links[number].stats.held += u64::from(waited);
            self.links[number].enqueue(now, at, packet);
        }
        self.arm(number);
    }

    /// Draws later latencies from `range`, or from the world's own.
    pub(crate) fn set_latency(&mut self, from: usize, to: usize, range: Option<LatencyRange>) {
        let number = self.number(from, to);
        self.links[number].latency = range.map(in_millis);
    }

    /// A packet has arrived.
    pub(crate) fn heard(&mut self, from: usize, to: usize) {
        let number = self.number(from, to);
        self.links[number].stats.delivered += 1;
    }

    /// A packet has met a machine without power. What calls for an answer is kept until [`Links::deliver_unheard`].
    pub(crate) fn unheard(&mut self, from: usize, to: usize, kept: Option<Packet>) {
        let number = self.number(from, to);
        let link = &mut self.links[number];
        link.stats.unheard += 1;
        link.unheard.extend(kept);
    }

    /// The machine `to` is back: what was kept for it arrives a latency from now, of each connection before all else.
    pub(crate) fn deliver_unheard(&mut self, now: u64, to: usize) {
        for from in 0..self.names.len() {
            let number = self.number(from, to);
            let kept = std::mem::take(&mut self.links[number].unheard);
            let under_way = std::mem::take(&mut self.links[number].queue);
            self.links[number].last.clear();
            for packet in kept {
                let at = self.arrival(now, number);
                self.links[number].enqueue(now, at, packet);
            }
            for Flight { at, packet } in under_way {
                self.links[number].enqueue(now, at, packet);
            }
            self.links[number].armed = None;
            self.arm(number);
        }
    }

    pub(crate) fn stats(&self, now: u64, from: usize, to: usize) -> LinkStats {
        let link = &self.links[self.number(from, to)];
        let mut stats = link.stats;
        if link.held {
            stats.held += link.queue.iter().filter(|flight| flight.at <= now).count() as u64;
        }
        stats
    }

    /// When a packet that enters the link now arrives, if nothing is before it.
    fn arrival(&mut self, now: u64, number: usize) -> u64 {
        let (seed, names, default) = (self.seed, &self.names, self.latency);
        let link = &mut self.links[number];
        let draws = link.draws.get_or_insert_with(|| {
            let (from, to) = (&names[number / names.len()], &names[number % names.len()]);
            Box::new(seed.stream(&format!("world/latency {from} -> {to}")))
        });
        let (min, max) = link.latency.unwrap_or(default);
        now + min + draw_below(draws, max - min + 1)
    }

    fn arm(&mut self, number: usize) {
        let link = &mut self.links[number];
        if link.held || self.tied.contains(&number) {
            return;
        }
        if let Some(first) = link.queue.front()
            && link.armed.is_none_or(|armed| first.at < armed)
        {
            link.armed = Some(first.at);
            self.due.push(Reverse((first.at, number)));
        }
    }

    fn number(&self, from: usize, to: usize) -> usize {
        from * self.names.len() + to
    }
}

fn in_millis(range: LatencyRange) -> (u64, u64) {
    (range.min.as_millis() as u64, range.max.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use turmoil_net::UdpDatagram;

    use super::*;

    const A: usize = 0;
    const B: usize = 1;
    const C: usize = 2;

    fn links(min: u64, max: u64) -> Links {
        let names = ["a", "b", "c"].map(String::from).to_vec();
        Links::new(Seed(7), names, LatencyRange::millis(min, max))
    }

    /// A packet of the only connection.
    fn packet(number: u16) -> Packet {
        packet_of(0, number)
    }

    fn packet_of(connection: u16, number: u16) -> Packet {
        let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let payload = number.to_be_bytes().to_vec().into();
        let payload = Transport::Udp(UdpDatagram { src_port: connection, dst_port: 0, payload });
        Packet { src: nowhere, dst: nowhere, ttl: 64, payload }
    }

    fn number(packet: &Packet) -> u16 {
        match &packet.payload {
            Transport::Udp(datagram) => u16::from_be_bytes([datagram.payload[0], datagram.payload[1]]),
            Transport::Tcp(_) => unreachable!("these tests send datagrams"),
        }
    }

    /// What arrives until `until`: time and number of each packet.
    fn arrivals(links: &mut Links, until: u64) -> Vec<(u64, u16)> {
        let mut seen = Vec::new();
        while let Some(at) = links.next_due().filter(|&at| at <= until) {
            while let Some((_, _, packet)) = links.take_due(at) {
                seen.push((at, number(&packet)));
            }
        }
        seen
    }

    #[test]
    fn packets_of_a_link_arrive_in_order_within_their_latency() {
        let mut links = links(1, 5);
        for n in 0..100 {
            links.send(u64::from(n), A, B, packet(n));
        }
        let seen = arrivals(&mut links, 1_000);
        assert_eq!(seen.iter().map(|&(_, n)| n).collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
        assert!(seen.iter().all(|&(at, n)| (1..=5).contains(&(at - u64::from(n)))));
    }

    #[test]
    fn connections_overtake_each_other_and_themselves_never() {
        let mut links = links(1, 50);
        for n in 0..100 {
            links.send(0, A, B, packet_of(n % 2, n));
        }
        let seen: Vec<u16> = arrivals(&mut links, 1_000).into_iter().map(|(_, n)| n).collect();
        for connection in 0..2 {
            let own: Vec<u16> = seen.iter().copied().filter(|n| n % 2 == connection).collect();
            assert!(own.is_sorted() && own.len() == 50, "{own:?}");
        }
        assert!(!seen.is_sorted(), "one of them is late at times");
    }

    #[test]
    fn what_was_late_arrives_after_what_was_sent_since_on_another_connection() {
        let mut links = links(1, 5);
        links.set_latency(A, B, Some(LatencyRange::millis(100, 100)));
        links.send(0, A, B, packet_of(1, 1));
        links.set_latency(A, B, None);
        links.send(10, A, B, packet_of(2, 2));
        links.send(10, A, B, packet_of(1, 3));
        let seen: Vec<u16> = arrivals(&mut links, 1_000).into_iter().map(|(_, n)| n).collect();
        assert_eq!(seen, [2, 1, 3]);
    }

    #[test]
    fn a_released_link_delivers_what_waited_before_what_is_still_under_way() {
        let mut links = links(1, 9);
        for n in 0..50 {
            links.send(u64::from(n), A, B, packet(n));
            if n == 10 {
                links.hold(A, B);
            }
        }
        assert_eq!(links.next_due(), None, "a held link delivers nothing");
        let held = links.stats(49, A, B).held;
        assert!((30..=50).contains(&held), "{held}");
        links.release(49, A, B);
        assert_eq!(links.stats(49, A, B).held, held);
        let seen = arrivals(&mut links, 1_000);
        assert_eq!(seen.iter().map(|&(_, n)| n).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
        assert!(seen.windows(2).all(|pair| pair[0].0 <= pair[1].0) && seen[0].0 >= 50);
    }

    #[test]
    fn ties_between_links_are_drawn_and_keep_the_order_of_each() {
        let mut links = links(3, 3);
        for n in 0..20 {
            links.send(0, A, C, packet(n));
            links.send(0, B, C, packet(100 + n));
        }
        let seen: Vec<u16> = arrivals(&mut links, 3).into_iter().map(|(_, n)| n).collect();
        let from_a: Vec<u16> = seen.iter().copied().filter(|&n| n < 100).collect();
        assert_eq!(from_a, (0..20).collect::<Vec<_>>());
        let changes = seen.windows(2).filter(|pair| (pair[0] < 100) != (pair[1] < 100)).count();
        assert!(changes > 3, "the two links take turns by chance, not one after the other: {seen:?}");
    }

    #[test]
    fn what_a_dark_machine_did_not_hear_comes_before_what_follows() {
        let mut links = links(1, 5);
        links.unheard(A, B, Some(packet(1)));
        links.unheard(A, B, Some(packet(2)));
        links.unheard(A, B, None);
        links.send(0, A, B, packet(3));
        links.deliver_unheard(2, B);
        let seen: Vec<u16> = arrivals(&mut links, 100).into_iter().map(|(_, n)| n).collect();
        assert_eq!(seen, [1, 2, 3]);
        assert_eq!(links.stats(100, A, B).unheard, 3);
    }
}
