//! The records of a producer that have no fate yet, by the numbers of their sends.
//!
//! Numbers rise, and fates come nearly in their order; so this is a window over the numbers, and costs a bit of room and no
//! search for each record.

use std::collections::VecDeque;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Open {
    /// The number of the first in the window: all before it have their fates.
    first: u64,
    /// Whether each is open. The first is, if there is any.
    window: VecDeque<bool>,
    count: usize,
}

impl Open {
    /// One more is open; its number.
    pub(crate) fn begin(&mut self) -> u64 {
        let id = self.next();
        self.window.push_back(true);
        self.count += 1;
        id
    }

    /// It has its fate.
    pub(crate) fn end(&mut self, id: u64) {
        let place = id.checked_sub(self.first).and_then(|place| usize::try_from(place).ok());
        let open = place.and_then(|place| self.window.get_mut(place));
        let was_open = open.is_some_and(|open| std::mem::replace(open, false));
        assert!(was_open, "record {id} got a second fate");
        self.count -= 1;
        while self.window.front() == Some(&false) {
            self.window.pop_front();
            self.first += 1;
        }
    }

    /// The number that the next one gets.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.window.len() as u64
    }

    /// The first that is open; [`Open::next`] if none is.
    pub(crate) fn first(&self) -> u64 {
        self.first
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many are open before `id`.
    pub(crate) fn before(&self, id: u64) -> usize {
        let before = (self.first..id).zip(&self.window);
        before.filter(|(_, open)| **open).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_in_any_order_leave_the_first_that_is_open() {
        let mut open = Open::default();
        let ids: Vec<u64> = (0..4).map(|_| open.begin()).collect();
        assert_eq!((ids, open.first(), open.next()), (vec![0, 1, 2, 3], 0, 4));
        open.end(1);
        open.end(2);
        assert_eq!((open.first(), open.len(), open.before(3), open.before(4)), (0, 2, 1, 2));
        open.end(0);
        assert_eq!((open.first(), open.len()), (3, 1));
        open.end(3);
        assert!(open.is_empty());
        assert_eq!((open.first(), open.begin()), (4, 4));
    }

    #[test]
    #[should_panic(expected = "record 0 got a second fate")]
    fn a_fate_is_told_once() {
        let mut open = Open::default();
        open.begin();
        open.begin();
        open.end(0);
        open.end(0);
    }
}
