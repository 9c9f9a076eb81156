//! One order's reservation: the core of the service, without store or broker.
//!
//! An order has at most one reservation, from its first command to the end of time. [`handle`] takes what is known of
//! it, the shelf with the stock of its SKUs, and an input; it moves the units and says what to tell.
//!
//! Release commutes: a release that overtakes its reservation leaves [`Status::Released`] behind, and the reservation
//! that comes after it is refused. A reservation that expires gives its units back; a commit that comes after that is
//! refused, since the units may be another order's by now, and the order must undo the rest. The expiry is the
//! transaction that moves the units, not the moment: a commit that comes before it still holds, however late.

use std::collections::BTreeMap;

use context::Timestamp;
use proto::ReservationId;
use proto::inventory::{
    Command, CommitRefused, Event, Line, ReservationRefused, ReserveStock, StockCommitted, StockReleased,
    StockReserved,
};
use serde::{Deserialize, Serialize};

use crate::Stock;

/// The stock of some SKUs, by SKU. One that is missing is not carried by this house.
pub type Shelf = BTreeMap<String, Stock>;

/// What is known of one order's reservation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The order.
    pub order_id: String,
    /// Units by SKU: what is or was set aside; empty if nothing ever was.
    pub lines: BTreeMap<String, u64>,
    /// From when on inventory may release it by itself: Unix time in milliseconds.
    pub expires_at_ms: u64,
    /// Where it stands.
    pub status: Status,
}

/// Where a reservation stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// The units are set aside.
    Reserved,
    /// Nothing was set aside, for this reason. Final.
    Refused(String),
    /// The units have left the house.
    Committed,
    /// The units were given back on request, or there never were any. Final.
    Released,
    /// The units were given back because their time was over. Final.
    Expired,
}

/// What can happen to a reservation.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A command about it came.
    Command(Command),
    /// Its time is over.
    Expire,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Handled {
    /// The reservation from now on.
    pub reservation: Reservation,
    /// What to tell. An expiry that finds nothing to release tells nothing.
    pub event: Option<Event>,
}

impl Reservation {
    fn without_units(order_id: &str, status: Status) -> Reservation {
        Reservation { order_id: order_id.into(), lines: BTreeMap::new(), expires_at_ms: 0, status }
    }

    fn id(&self) -> String {
        // An order has one reservation, so the order names it.
        proto::OrderId::new(&self.order_id).map_or_else(
            |invalid| panic!("a reservation was made for no order: {invalid}"),
            |order| ReservationId::of(&order).into(),
        )
    }

    fn lines(&self) -> Vec<Line> {
        // The sum of a reservation's lines of one SKU fits: `sum_lines` refuses what does not.
        let line = |(sku, quantity): (&String, &u64)| Line {
            sku: sku.clone(),
            quantity: u32::try_from(*quantity).expect("a line was accepted that is too long"),
        };
        self.lines.iter().map(line).collect()
    }
}

/// The SKUs whose stock [`handle`] needs on the shelf.
pub fn skus_touched(reservation: Option<&Reservation>, input: &Input) -> Vec<String> {
    match (reservation, input) {
        (Some(reservation), _) => reservation.lines.keys().cloned().collect(),
        (None, Input::Command(Command::ReserveStock(reserve))) => {
            let mut skus: Vec<_> = reserve.lines.iter().map(|line| line.sku.clone()).collect();
            skus.sort();
            skus.dedup();
            skus
        }
        (None, _) => Vec::new(),
    }
}

/// Applies one input to an order's reservation and the stock on the shelf.
///
/// # Panics
/// If the shelf lacks a SKU of the reservation, or stock is not conserved: a bug of this service.
pub fn handle(now: Timestamp, known: Option<Reservation>, input: &Input, shelf: &mut Shelf) -> Handled {
    match input {
        Input::Command(Command::ReserveStock(command)) => reserve(known, command, shelf),
        Input::Command(Command::CommitStock(command)) => commit(known, &command.order_id, shelf),
        Input::Command(Command::ReleaseStock(command)) => {
            release(known, &command.order_id, &command.reason, shelf)
        }
        Input::Expire => expire(now, known.expect("a reservation expired that nobody made"), shelf),
    }
}

fn reserve(known: Option<Reservation>, command: &ReserveStock, shelf: &mut Shelf) -> Handled {
    let reservation = known.unwrap_or_else(|| match set_aside(command, shelf) {
        Ok(lines) => Reservation {
            order_id: command.order_id.clone(),
            lines,
            expires_at_ms: command.expires_at_ms,
            status: Status::Reserved,
        },
        Err(reason) => Reservation::without_units(&command.order_id, Status::Refused(reason)),
    });
    let refused =
        |reason: &str| ReservationRefused { order_id: command.order_id.clone(), reason: reason.into() };
    let event = match &reservation.status {
        Status::Reserved | Status::Committed => StockReserved {
            order_id: command.order_id.clone(),
            reservation_id: reservation.id(),
            lines: reservation.lines(),
            expires_at_ms: reservation.expires_at_ms,
        }
        .into(),
        Status::Refused(reason) => refused(reason).into(),
        Status::Released => refused("the reservation was released").into(),
        Status::Expired => refused("the reservation expired").into(),
    };
    Handled { reservation, event: Some(event) }
}

/// Sets aside all lines or none. What stands in the way is an answer for people.
fn set_aside(command: &ReserveStock, shelf: &mut Shelf) -> Result<BTreeMap<String, u64>, String> {
    let lines = sum_lines(&command.lines)?;
    for (sku, quantity) in &lines {
        let available = shelf.get(sku).map_or(0, |stock| stock.available);
        if available < *quantity {
            return Err(format!("`{sku}` is out of stock: {quantity} wanted, {available} available"));
        }
    }
    for (sku, quantity) in &lines {
        let stock = shelf.get_mut(sku).expect("a SKU with stock left the shelf");
        assert!(stock.reserve(*quantity), "stock vanished between the check and the reservation");
    }
    Ok(lines)
}

fn sum_lines(lines: &[Line]) -> Result<BTreeMap<String, u64>, String> {
    let mut sums = BTreeMap::new();
    for line in lines {
        if line.quantity == 0 {
            return Err(format!("a line of `{}` has quantity 0", line.sku));
        }
        *sums.entry(line.sku.clone()).or_insert(0) += u64::from(line.quantity);
    }
    match sums.iter().find(|(_, sum)| **sum > u64::from(u32::MAX)) {
        _ if sums.is_empty() => Err("there is nothing to reserve".into()),
        Some((sku, sum)) => Err(format!("{sum} of `{sku}` are more than one order may have")),
        None => Ok(sums),
    }
}

fn commit(known: Option<Reservation>, order_id: &str, shelf: &mut Shelf) -> Handled {
    // The refusal is kept: a reservation that came after it would be one that nobody waits for.
    let Some(mut reservation) = known else {
        let reservation =
            Reservation::without_units(order_id, Status::Refused("its commit came before it".into()));
        return refuse_commit(reservation, "there is no reservation");
    };
    match reservation.status {
        Status::Reserved => {
            move_units(&reservation, shelf, Stock::ship);
            reservation.status = Status::Committed;
        }
        Status::Committed => {}
        Status::Refused(_) => return refuse_commit(reservation, "the reservation was refused"),
        Status::Released => return refuse_commit(reservation, "the reservation was released"),
        Status::Expired => return refuse_commit(reservation, "the reservation expired"),
    }
    let event = StockCommitted {
        order_id: order_id.into(),
        reservation_id: reservation.id(),
        lines: reservation.lines(),
    };
    Handled { reservation, event: Some(event.into()) }
}

fn refuse_commit(reservation: Reservation, reason: &str) -> Handled {
    let event = CommitRefused { order_id: reservation.order_id.clone(), reason: reason.into() };
    Handled { reservation, event: Some(event.into()) }
}

fn release(known: Option<Reservation>, order_id: &str, reason: &str, shelf: &mut Shelf) -> Handled {
    let mut reservation = known.unwrap_or_else(|| Reservation::without_units(order_id, Status::Released));
    let before = std::mem::replace(&mut reservation.status, Status::Released);
    // What goes back is told once, so that whoever adds up the events counts each unit once.
    let lines = match before {
        Status::Reserved => {
            move_units(&reservation, shelf, Stock::unreserve);
            reservation.lines()
        }
        Status::Committed => {
            move_units(&reservation, shelf, Stock::take_back);
            reservation.lines()
        }
        Status::Refused(_) | Status::Expired => {
            reservation.status = before;
            Vec::new()
        }
        Status::Released => Vec::new(),
    };
    let event = StockReleased { order_id: order_id.into(), reason: reason.into(), lines, expired: false };
    Handled { reservation, event: Some(event.into()) }
}

fn expire(now: Timestamp, mut reservation: Reservation, shelf: &mut Shelf) -> Handled {
    if reservation.status != Status::Reserved || now.as_millis() < reservation.expires_at_ms {
        return Handled { reservation, event: None };
    }
    move_units(&reservation, shelf, Stock::unreserve);
    reservation.status = Status::Expired;
    let event = StockReleased {
        order_id: reservation.order_id.clone(),
        reason: "the reservation expired".into(),
        lines: reservation.lines(),
        expired: true,
    };
    Handled { reservation, event: Some(event.into()) }
}

fn move_units(reservation: &Reservation, shelf: &mut Shelf, how: fn(&mut Stock, u64)) {
    for (sku, quantity) in &reservation.lines {
        how(shelf.get_mut(sku).expect("a reserved SKU is not on the shelf"), *quantity);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::inventory::{CommitStock, ReleaseStock};

    use super::*;

    const EXPIRY: Timestamp = Timestamp::from_millis(1_000);

    /// A house with stock, and the reservations of its orders: what the store holds, in plain maps.
    struct House {
        shelf: Shelf,
        reservations: BTreeMap<String, Reservation>,
    }

    impl House {
        fn new() -> House {
            let shelf = [("tea", 10), ("cup", 3), ("sold-out", 0)];
            let shelf =
                shelf.into_iter().map(|(sku, initial)| (sku.to_owned(), Stock::new(initial))).collect();
            House { shelf, reservations: BTreeMap::new() }
        }

        /// Gives `handle` only the SKUs that it asked for, as the service does.
        fn handle(&mut self, now: Timestamp, order: &str, input: Input) -> Option<Event> {
            let known = self.reservations.get(order).cloned();
            let mut touched: Shelf = skus_touched(known.as_ref(), &input)
                .into_iter()
                .filter_map(|sku| self.shelf.get(&sku).map(|stock| (sku, *stock)))
                .collect();
            let handled = handle(now, known, &input, &mut touched);
            self.shelf.extend(touched);
            self.reservations.insert(order.into(), handled.reservation);
            self.assert_adds_up();
            handled.event
        }

        fn command(&mut self, order: &str, command: impl Into<Command>) -> Event {
            self.handle(Timestamp::ZERO, order, Input::Command(command.into()))
                .expect("every command is answered")
        }

        /// The stock agrees with the reservations, SKU by SKU.
        fn assert_adds_up(&self) {
            for (sku, stock) in &self.shelf {
                let sum = |status| {
                    let with = self.reservations.values().filter(|reservation| reservation.status == status);
                    with.filter_map(|reservation| reservation.lines.get(sku)).sum::<u64>()
                };
                assert_eq!(stock.reserved, sum(Status::Reserved), "{sku}");
                assert_eq!(stock.shipped, sum(Status::Committed), "{sku}");
                assert_eq!(stock.initial, stock.available + stock.reserved + stock.shipped, "{sku}");
            }
        }
    }

    fn reserve(order: &str, lines: &[(&str, u32)]) -> ReserveStock {
        let line = |&(sku, quantity): &(&str, u32)| Line { sku: sku.into(), quantity };
        ReserveStock {
            order_id: order.into(),
            lines: lines.iter().map(line).collect(),
            expires_at_ms: EXPIRY.as_millis(),
        }
    }

    fn commit(order: &str) -> CommitStock {
        CommitStock { order_id: order.into() }
    }

    fn release(order: &str) -> ReleaseStock {
        ReleaseStock { order_id: order.into(), reason: "compensation".into() }
    }

    #[test]
    fn an_order_gets_all_of_its_lines_or_none() {
        let mut house = House::new();
        let refused = house.command("o-1", reserve("o-1", &[("tea", 2), ("cup", 4)]));
        assert!(matches!(refused, Event::ReservationRefused(_)), "{refused:?}");
        assert_eq!(house.shelf["tea"].available, 10);
        let reserved = house.command("o-2", reserve("o-2", &[("tea", 2), ("cup", 3), ("tea", 1)]));
        let Event::StockReserved(reserved) = reserved else { panic!("{reserved:?}") };
        let lines: Vec<_> = reserved.lines.iter().map(|line| (line.sku.as_str(), line.quantity)).collect();
        assert_eq!(lines, [("cup", 3), ("tea", 3)]);
        assert_eq!(reserved.reservation_id, "res-o-2");
    }

    #[test]
    fn what_cannot_be_reserved_is_refused_with_a_reason() {
        let mut house = House::new();
        let cases: [(&[(&str, u32)], &str); 5] = [
            (&[("sold-out", 1)], "`sold-out` is out of stock: 1 wanted, 0 available"),
            (&[("unknown", 1)], "`unknown` is out of stock: 1 wanted, 0 available"),
            (&[("tea", 0)], "a line of `tea` has quantity 0"),
            (&[], "there is nothing to reserve"),
            (&[("tea", u32::MAX), ("tea", 1)], "4294967296 of `tea` are more than one order may have"),
        ];
        for (number, (lines, reason)) in cases.into_iter().enumerate() {
            let order = format!("o-{number}");
            let expected = ReservationRefused { order_id: order.clone(), reason: reason.into() };
            assert_eq!(house.command(&order, reserve(&order, lines)), expected.into());
        }
    }

    #[test]
    fn a_repeated_command_moves_no_unit_twice() {
        let mut house = House::new();
        for _ in 0..2 {
            let event = house.command("o-1", reserve("o-1", &[("tea", 4)]));
            assert!(matches!(event, Event::StockReserved(_)), "{event:?}");
            assert_eq!(house.shelf["tea"].reserved, 4);
        }
        for _ in 0..2 {
            let event = house.command("o-1", commit("o-1"));
            assert!(matches!(event, Event::StockCommitted(_)), "{event:?}");
            assert_eq!(house.shelf["tea"].shipped, 4);
        }
        let told: Vec<_> = (0..2).map(|_| house.command("o-1", release("o-1"))).collect();
        let lines = |event: &Event| match event {
            Event::StockReleased(released) => released.lines.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!((lines(&told[0]), lines(&told[1])), (1, 0), "what goes back is told once");
        assert_eq!(house.shelf["tea"], Stock::new(10));
    }

    #[test]
    fn a_release_that_overtakes_its_reservation_wins() {
        let mut house = House::new();
        house.command("o-1", release("o-1"));
        let late = house.command("o-1", reserve("o-1", &[("tea", 1)]));
        assert!(matches!(late, Event::ReservationRefused(_)), "{late:?}");
        let late = house.command("o-1", commit("o-1"));
        assert!(matches!(late, Event::CommitRefused(_)), "{late:?}");
        assert_eq!(house.shelf["tea"], Stock::new(10));
    }

    #[test]
    fn a_commit_after_the_expiry_is_refused_and_loses_nothing() {
        let mut house = House::new();
        house.command("o-1", reserve("o-1", &[("tea", 4)]));
        let early = house.handle(Timestamp::from_millis(999), "o-1", Input::Expire);
        assert_eq!(early, None);
        let expired = house.handle(EXPIRY, "o-1", Input::Expire);
        assert!(matches!(&expired, Some(Event::StockReleased(told)) if told.expired), "{expired:?}");
        assert_eq!(house.handle(EXPIRY, "o-1", Input::Expire), None, "it expires once");

        let refused = house.command("o-1", commit("o-1"));
        let expected = CommitRefused { order_id: "o-1".into(), reason: "the reservation expired".into() };
        assert_eq!(refused, expected.into());
        assert_eq!(house.shelf["tea"], Stock::new(10));
    }

    #[test]
    fn a_commit_before_the_expiry_was_carried_out_holds() {
        let mut house = House::new();
        house.command("o-1", reserve("o-1", &[("tea", 4)]));
        let late = house.handle(
            EXPIRY + std::time::Duration::from_secs(9),
            "o-1",
            Input::Command(commit("o-1").into()),
        );
        assert!(matches!(late, Some(Event::StockCommitted(_))), "{late:?}");
        assert_eq!(house.handle(Timestamp::FAR_FUTURE, "o-1", Input::Expire), None);
        assert_eq!(house.shelf["tea"].shipped, 4);
    }

    #[test]
    fn a_reservation_that_comes_after_its_commit_is_refused() {
        let mut house = House::new();
        let refused = house.command("o-1", commit("o-1"));
        assert!(matches!(refused, Event::CommitRefused(_)), "{refused:?}");
        let refused = house.command("o-1", reserve("o-1", &[("tea", 1)]));
        assert!(matches!(refused, Event::ReservationRefused(_)), "{refused:?}");
    }

    proptest! {
        /// Whatever comes, in whatever order and however often, for orders that want the same few units.
        #[test]
        fn stock_is_conserved_whatever_comes(steps in prop::collection::vec((0..4_usize, 0..4_u8, 0..5_u32), 0..60)) {
            let mut house = House::new();
            for (millis, (order, what, quantity)) in steps.into_iter().enumerate() {
                let order = format!("o-{order}");
                let now = Timestamp::from_millis(millis as u64 * 50);
                let input = match what {
                    0 => Input::Command(super::tests::reserve(&order, &[("tea", quantity), ("cup", 1)]).into()),
                    1 => Input::Command(commit(&order).into()),
                    2 => Input::Command(release(&order).into()),
                    _ if house.reservations.contains_key(&order) => Input::Expire,
                    _ => continue,
                };
                // `House::handle` checks that all adds up after each step.
                house.handle(now, &order, input);
            }
        }
    }
}
