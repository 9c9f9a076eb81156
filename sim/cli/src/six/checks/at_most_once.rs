//! What the checks of a ledger share: each key has at most one entry.

use std::collections::BTreeMap;

/// A ledger as far as it was read, by key. Ledgers only grow, so each entry is looked at once.
pub(crate) struct AtMostOnce<K, T> {
    seen: usize,
    entries: BTreeMap<K, Vec<T>>,
}

impl<K: Ord, T: Clone> AtMostOnce<K, T> {
    pub(crate) fn new() -> AtMostOnce<K, T> {
        AtMostOnce { seen: 0, entries: BTreeMap::new() }
    }

    /// Reads on to the end of the ledger. `twice` hears of each entry whose key has others: all of them, it last.
    pub(crate) fn read_on(&mut self, ledger: &[T], key: impl Fn(&T) -> K, mut twice: impl FnMut(&T, &[T])) {
        for entry in &ledger[self.seen..] {
            let entries = self.entries.entry(key(entry)).or_default();
            entries.push(entry.clone());
            if entries.len() > 1 {
                twice(entry, entries);
            }
        }
        self.seen = ledger.len();
    }

    /// All entries, by key.
    pub(crate) fn entries(&self) -> &BTreeMap<K, Vec<T>> {
        &self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_reported_once_with_those_before_it_however_often_the_ledger_is_read() {
        let mut ledger = AtMostOnce::new();
        let mut reported = Vec::new();
        for entries in [&["a1", "b1"][..], &["a1", "b1", "a2"], &["a1", "b1", "a2", "a3"]] {
            ledger.read_on(entries, |entry| entry.as_bytes()[0], |_, all| reported.push(all.to_vec()));
        }
        assert_eq!(reported, [vec!["a1", "a2"], vec!["a1", "a2", "a3"]]);
        assert_eq!(ledger.entries().len(), 2);
    }
}
