//! Where orders' events are kept: appended at an expected version, with a snapshot every so many.
//!
//! An append that expects another version than it finds is refused, so two replicas that decided on the same state
//! cannot both be right. A snapshot only saves reading: [`replay`] gives the same order without it.

use kit::store::{Protobuf, ReadTables, StoreError, Table, Tables};
use kit::{HandlerError, Unit};
use proto::OrderId;
use proto::order::Event;

use crate::aggregate::{Order, Version};

/// The events of all orders, by order and number from 0.
pub const EVENTS: Table<(OrderId, Version), StoredEvent, Protobuf> = Table::new("order.history");
/// The newest snapshot of each order that has one.
pub const SNAPSHOTS: Table<OrderId, Order, Protobuf> = Table::new("order.snapshots");

/// An event as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StoredEvent {
    /// Its event type.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Its bytes, as they went to the topic.
    #[prost(bytes = "vec", tag = "2")]
    pub payload: Vec<u8>,
}

/// Why events were not appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Someone else appended first: load the order again and decide anew.
    #[error("order `{order}` is at version {found}, not at {expected}")]
    WrongVersion {
        /// The order.
        order: OrderId,
        /// What the writer had decided on.
        expected: Version,
        /// What there is.
        found: Version,
    },
    /// The store's own.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<AppendError> for HandlerError {
    fn from(error: AppendError) -> HandlerError {
        match error {
            AppendError::WrongVersion { .. } => HandlerError::Transient(error.to_string()),
            AppendError::Store(error) => error.into(),
        }
    }
}

impl StoredEvent {
    fn of(event: &Event) -> StoredEvent {
        StoredEvent { kind: event.kind().to_owned(), payload: event.encode() }
    }

    fn event(&self) -> Result<Event, StoreError> {
        Event::decode(&self.kind, &self.payload).map_err(|error| StoreError::Corrupt {
            table: EVENTS.name().to_owned(),
            cause: error.to_string(),
        })
    }
}

/// The order, from its newest snapshot and the events after it. An order that nobody placed is [`Order::default`].
///
/// # Errors
/// [`StoreError::Corrupt`] if an event cannot be read; else the store's own.
pub fn load<T: ReadTables + ?Sized>(tables: &T, order: &OrderId) -> Result<Order, StoreError> {
    let snapshot = SNAPSHOTS.get(tables, order)?.unwrap_or_default();
    apply_later(tables, order, snapshot)
}

/// The order from its first event on, snapshots left aside.
///
/// # Errors
/// As [`load`].
pub fn replay<T: ReadTables + ?Sized>(tables: &T, order: &OrderId) -> Result<Order, StoreError> {
    apply_later(tables, order, Order::default())
}

/// The events of an order, in order.
///
/// # Errors
/// As [`load`].
pub fn events<T: ReadTables + ?Sized>(tables: &T, order: &OrderId) -> Result<Vec<Event>, StoreError> {
    events_from(tables, order, 0)
}

/// Appends events that were decided on at version `expected`, and applies them to `state`, which must be that version.
/// Whenever a multiple of `snapshot_every` is reached or passed, a snapshot is kept; 0 keeps none.
///
/// # Errors
/// [`AppendError::WrongVersion`], and then nothing was written; else the store's own.
pub fn append<T: Tables + ?Sized>(
    tables: &mut T,
    order: &OrderId,
    expected: Version,
    state: &mut Order,
    events: &[Event],
    snapshot_every: u64,
) -> Result<(), AppendError> {
    assert_eq!(state.version, expected, "events are decided on the state that they are applied to");
    // Numbers have no gaps, so the version is `expected` if that number is free and the one before it is not.
    let has = |number: Version| Ok::<_, StoreError>(EVENTS.get(tables, &(order.clone(), number))?.is_some());
    if has(expected)? || expected.checked_sub(1).map(has).transpose()? == Some(false) {
        let found = version(tables, order)?;
        return Err(AppendError::WrongVersion { order: order.clone(), expected, found });
    }
    for event in events {
        EVENTS.put(tables, &(order.clone(), state.version), &StoredEvent::of(event))?;
        state.apply(event);
    }
    // Counted over the whole history: commits are small, and a count of their own events would never come this far.
    if snapshot_every > 0 && expected / snapshot_every != state.version / snapshot_every {
        SNAPSHOTS.put(tables, order, state)?;
    }
    Ok(())
}

/// Appends one event that was decided on `state`, and publishes it.
///
/// # Errors
/// As [`append`]; a wrong version is transient, since the order can be loaded again.
pub fn record(
    unit: &mut Unit<'_>,
    order: &OrderId,
    state: &mut Order,
    event: Event,
    snapshot_every: u64,
) -> Result<(), HandlerError> {
    let expected = state.version;
    append(unit.tables(), order, expected, state, std::slice::from_ref(&event), snapshot_every)?;
    match event {
        Event::OrderCreated(event) => unit.publish(&event)?,
        Event::OrderStatusChanged(event) => unit.publish(&event)?,
        Event::OrderConfirmed(event) => unit.publish(&event)?,
        Event::OrderCancelled(event) => unit.publish(&event)?,
        Event::OrderRejected(event) => unit.publish(&event)?,
        Event::OrderCancelRefused(event) => unit.publish(&event)?,
    };
    Ok(())
}

/// How many events the order has.
fn version<T: ReadTables + ?Sized>(tables: &T, order: &OrderId) -> Result<Version, StoreError> {
    let snapshot = SNAPSHOTS.get(tables, order)?.map_or(0, |snapshot| snapshot.version);
    let later = EVENTS.between(tables, &(order.clone(), snapshot), &(order.clone(), u64::MAX), usize::MAX)?;
    Ok(later.last().map_or(snapshot, |((_, number), _)| number + 1))
}

fn apply_later<T: ReadTables + ?Sized>(
    tables: &T,
    order: &OrderId,
    mut state: Order,
) -> Result<Order, StoreError> {
    for event in events_from(tables, order, state.version)? {
        state.apply(&event);
    }
    Ok(state)
}

fn events_from<T: ReadTables + ?Sized>(
    tables: &T,
    order: &OrderId,
    from: Version,
) -> Result<Vec<Event>, StoreError> {
    let stored = EVENTS.between(tables, &(order.clone(), from), &(order.clone(), u64::MAX), usize::MAX)?;
    stored.iter().map(|(_, stored)| stored.event()).collect()
}

#[cfg(test)]
mod tests {
    use context::{Context, Timestamp};
    use kit::store::{MemStore, StoreExt};
    use proto::order::OrderStatus;

    use super::*;
    use crate::testing::{StillHost, create};

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn in_a_store<T>(work: impl FnOnce(&mut dyn Tables) -> Result<T, AppendError>) -> Result<T, AppendError> {
        let context = Context::new(StillHost::new());
        MemStore::new("order").transact_with(&context, work)
    }

    /// An order of five events, written one at a time, with a snapshot every two.
    fn written(tables: &mut dyn Tables, order: &OrderId) -> Result<Order, AppendError> {
        let mut state = Order::default();
        let created = state.accept(at(1), create(order.as_str())).unwrap().unwrap();
        append(tables, order, 0, &mut state, &[created], 2)?;
        for (millis, status) in
            [(2, OrderStatus::Reserved), (3, OrderStatus::Paid), (4, OrderStatus::Shipping)]
        {
            let event = state.advance(at(millis), status);
            let version = state.version;
            append(tables, order, version, &mut state, &[event], 2)?;
        }
        let end = state.confirm(at(5));
        append(tables, order, 4, &mut state, &[end], 2)?;
        Ok(state)
    }

    #[test]
    fn a_snapshot_and_what_came_after_it_are_the_whole_history() {
        let order = OrderId::new("o-1").unwrap();
        in_a_store(|tables| {
            let state = written(tables, &order)?;
            assert_eq!(SNAPSHOTS.get(tables, &order)?.unwrap().version, 4);
            assert_eq!(load(tables, &order)?, state);
            assert_eq!(replay(tables, &order)?, state);
            assert_eq!(events(tables, &order)?.len(), 5, "each event is stored once, also after snapshots");
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn of_two_writers_who_saw_the_same_order_one_is_refused() {
        let order = OrderId::new("o-1").unwrap();
        let error = in_a_store(|tables| {
            let mut first = Order::default();
            let created = first.accept(at(1), create("o-1")).unwrap().unwrap();
            append(tables, &order, 0, &mut first, &[created], 10)?;
            let mut second = first.clone();
            let paid = first.advance(at(2), OrderStatus::Paid);
            append(tables, &order, 1, &mut first, &[paid], 10)?;
            let cancelling = second.advance(at(2), OrderStatus::Cancelling);
            append(tables, &order, 1, &mut second, &[cancelling], 10)
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "order `o-1` is at version 2, not at 1");
    }

    #[test]
    fn orders_whose_ids_begin_alike_keep_their_own_histories() {
        let (short, long) = (OrderId::new("o-1").unwrap(), OrderId::new("o-10").unwrap());
        in_a_store(|tables| {
            written(tables, &long)?;
            assert_eq!(load(tables, &short)?, Order::default());
            Ok(())
        })
        .unwrap();
    }
}
