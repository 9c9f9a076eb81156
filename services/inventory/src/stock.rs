//! The units of one SKU, and where they are.

use serde::{Deserialize, Serialize};

/// Every unit is in one of three places, and all of them are counted: a unit is never made or lost, only moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    /// How many there were at first.
    pub initial: u64,
    /// In the house, free to be reserved.
    pub available: u64,
    /// In the house, set aside for orders.
    pub reserved: u64,
    /// Gone to customers.
    pub shipped: u64,
}

impl Stock {
    /// All units in the house and free.
    pub fn new(initial: u64) -> Stock {
        Stock { initial, available: initial, reserved: 0, shipped: 0 }
    }

    /// Sets units aside. False, and nothing is changed, if there are too few.
    pub(crate) fn reserve(&mut self, quantity: u64) -> bool {
        let Some(left) = self.available.checked_sub(quantity) else { return false };
        self.available = left;
        self.reserved += quantity;
        self.assert_conserved();
        true
    }

    /// Puts reserved units back.
    pub(crate) fn unreserve(&mut self, quantity: u64) {
        self.reserved = take(self.reserved, quantity, "more units were unreserved than reserved");
        self.available += quantity;
        self.assert_conserved();
    }

    /// Sends reserved units out of the house.
    pub(crate) fn ship(&mut self, quantity: u64) {
        self.reserved = take(self.reserved, quantity, "more units were shipped than reserved");
        self.shipped += quantity;
        self.assert_conserved();
    }

    /// Takes back units that had gone out.
    pub(crate) fn take_back(&mut self, quantity: u64) {
        self.shipped = take(self.shipped, quantity, "more units came back than were shipped");
        self.available += quantity;
        self.assert_conserved();
    }

    fn assert_conserved(&self) {
        assert_eq!(
            self.initial,
            self.available + self.reserved + self.shipped,
            "stock is not conserved: {self:?}"
        );
    }
}

fn take(from: u64, quantity: u64, broken: &str) -> u64 {
    from.checked_sub(quantity).unwrap_or_else(|| panic!("{broken}: {quantity} of {from}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_beyond_the_stock_changes_nothing() {
        let mut stock = Stock::new(3);
        assert!(!stock.reserve(4));
        assert_eq!(stock, Stock::new(3));
        assert!(stock.reserve(3));
        assert!(!stock.reserve(1));
    }

    #[test]
    fn units_move_and_come_back() {
        let mut stock = Stock::new(5);
        stock.reserve(3);
        stock.ship(2);
        assert_eq!((stock.available, stock.reserved, stock.shipped), (2, 1, 2));
        stock.unreserve(1);
        stock.take_back(2);
        assert_eq!(stock, Stock::new(5));
    }

    #[test]
    #[should_panic(expected = "more units were shipped than reserved")]
    fn a_unit_that_is_not_reserved_cannot_leave() {
        Stock::new(5).ship(1);
    }

    #[test]
    #[should_panic(expected = "stock is not conserved")]
    fn a_lost_unit_ends_the_run() {
        let mut stock = Stock::new(5);
        stock.available -= 1;
        stock.reserve(1);
    }
}
