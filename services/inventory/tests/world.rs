//! Two replicas on a simulated Kafka: orders race for the last units, replicas crash, reservations expire, and no unit
//! is lost.

#[path = "../../payment/tests/town/mod.rs"]
mod town;

use std::collections::BTreeMap;
use std::sync::Arc;

use inventory::reservation::Status;
use inventory::{Config, RESERVATIONS, STOCK, Stock};
use kit::{MemStore, Message, Outgoing, StoreError, StoreExt, outbox};
use proto::inventory::{CommitStock, Event, Line, ReleaseStock, ReserveStock};
use shakedown_inventory as inventory;
use town::Town;

const ORDERS: u32 = 120;
/// Enough for half of the orders.
const UNITS: u64 = 60;

/// What comes after the reservation of an order, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Commit,
    Release,
    /// Nobody comes back for it.
    Nothing,
}

fn then(order: u32) -> Then {
    [Then::Commit, Then::Release, Then::Nothing][order as usize % 3]
}

fn commands() -> Vec<Outgoing> {
    let mut commands = Vec::new();
    for order in 0..ORDERS {
        let order_id = format!("o-{order}");
        let lines = vec![Line { sku: "tea".into(), quantity: 1 }];
        commands.push(Outgoing::of(&ReserveStock { order_id: order_id.clone(), lines, expires_at_ms: 0 }));
        match then(order) {
            Then::Commit => commands.push(Outgoing::of(&CommitStock { order_id })),
            Then::Release => {
                commands.push(Outgoing::of(&ReleaseStock { order_id, reason: "a change of mind".into() }));
            }
            Then::Nothing => {}
        }
    }
    commands
}

/// A run, and its store, which outlives the hosts.
fn town(seed: u64) -> (Town, MemStore) {
    let store = MemStore::new("inventory");
    let (shared, initial_stock) = (store.clone(), BTreeMap::from([("tea".to_owned(), UNITS)]));
    let config = Config { initial_stock, ..Config::default() };
    let replica: town::Replica = Arc::new(move |context, broker| {
        Box::pin(inventory::run(context, broker, Arc::new(shared.clone()), config.clone()))
    });
    (Town::new(seed, "inventory", replica, None, commands()), store)
}

fn tea(store: &MemStore) -> Stock {
    let stock = store.read_with::<_, StoreError>(|tables| STOCK.get(tables, &"tea".to_owned()));
    stock.unwrap().expect("the house carries tea")
}

/// How many reservations stand so.
fn count(store: &MemStore, standing: impl Fn(&Status) -> bool) -> u64 {
    let all = store.read_with::<_, StoreError>(|tables| RESERVATIONS.all(tables)).unwrap();
    all.iter().filter(|(_, reservation)| standing(&reservation.status)).count() as u64
}

fn events(town: &Town) -> Vec<Event> {
    let event = |message: &Message| Event::decode(&message.kind, &message.payload).expect("an event");
    town.told.lock().unwrap().values().map(event).collect()
}

#[test]
fn no_unit_is_lost_though_replicas_crash_and_reservations_expire() {
    for seed in 0..3 {
        let (mut town, store) = town(seed);
        town.with_faults();

        let stock = tea(&store);
        let (reserved, shipped) = (Status::Reserved, Status::Committed);
        assert_eq!(stock.initial, UNITS);
        assert_eq!(stock.reserved, count(&store, |status| *status == reserved), "seed {seed}");
        assert_eq!(stock.shipped, count(&store, |status| *status == shipped), "seed {seed}");
        assert!(stock.reserved > 0 && stock.shipped > 0, "seed {seed}: {stock:?}");
        let refused = count(&store, |status| matches!(status, Status::Refused(_)));
        assert!(refused > 0, "seed {seed}: orders raced for the last units");
        assert_eq!(events(&town).len(), commands().len(), "seed {seed}: every command is answered, once");

        // Ten minutes after the last reservation nobody's units are set aside, and each expiry was told once.
        town.until(15 * 60);
        let after = tea(&store);
        assert_eq!((after.reserved, after.shipped), (0, stock.shipped), "seed {seed}");
        assert_eq!(after.available, UNITS - stock.shipped, "seed {seed}");
        let expired = |event: &&Event| matches!(event, Event::StockReleased(released) if released.expired);
        assert_eq!(events(&town).iter().filter(expired).count() as u64, stock.reserved, "seed {seed}");
        assert_eq!(outbox::depth(&store), Ok(0), "seed {seed}: all is said");
    }
}
