//! The customers: a host that places the planned orders, each at its time.
//!
//! An order is theirs to repeat until Kafka has acknowledged it, under the same order id and message id. What they have
//! sent is written on a desk that outlives the host, so that customers whose machine is started again go on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker::{Producer, Properties};
use context::{Context, Program, Timestamp};
use harness::system::Clients;
use kit::Outgoing;
use proto::{MessageId, OrderId};

use super::parts::Parts;
use super::plan::{Plan, Planned};

/// The customers' host.
pub const HOST: &str = "customers";

/// How long customers wait before they try again.
const PAUSE: Duration = Duration::from_secs(1);

/// What the customers have sent and heard.
#[derive(Default)]
pub struct Desk {
    placed: Mutex<BTreeMap<OrderId, Timestamp>>,
    accepted: Mutex<BTreeMap<OrderId, Timestamp>>,
}

impl Desk {
    /// Whether Kafka has acknowledged every order.
    pub fn all_sent(&self, plan: &Plan) -> bool {
        self.accepted().len() == plan.orders.len()
    }

    /// When each order was placed: when its customer first wanted to send it, whatever became of that.
    pub fn placed(&self) -> MutexGuard<'_, BTreeMap<OrderId, Timestamp>> {
        self.placed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When each order was acknowledged.
    pub fn accepted(&self) -> MutexGuard<'_, BTreeMap<OrderId, Timestamp>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Desk({} accepted)", self.accepted().len())
    }
}

/// The program of the customers' host.
pub fn program(parts: Arc<Parts>, clients: Clients) -> Program {
    context::program(move |context| place_all(context, parts.clone(), clients.clone()))
}

/// Places all orders that were not acknowledged before, and ends.
async fn place_all(context: Context, parts: Arc<Parts>, clients: Clients) {
    let producer = connect(&context, &clients).await;
    let before: BTreeSet<OrderId> = parts.desk.accepted().keys().cloned().collect();
    let mut under_way = Vec::new();
    for (number, planned) in parts.plan.orders.iter().enumerate() {
        if before.contains(&planned.id) {
            continue;
        }
        context.sleep(planned.gap).await;
        // Nobody waits in line: the next order is placed whether or not this one is acknowledged.
        let place = place(context.clone(), producer.clone(), parts.clone(), number);
        under_way.push(context.spawn("customer", place));
    }
    for placed in under_way {
        placed.await;
    }
    context.note(format_args!("all orders are placed"));
}

async fn connect(context: &Context, clients: &Clients) -> Arc<dyn Producer> {
    let properties = Properties::new().set("enable.idempotence", true).set("acks", "all");
    loop {
        match clients.broker(context).producer(&properties).await {
            Ok(producer) => return producer,
            Err(error) => {
                context.note(format_args!("no producer, again in {PAUSE:?}: {error}"));
                context.sleep(PAUSE).await;
            }
        }
    }
}

/// Places one order, again and again until it is acknowledged.
async fn place(context: Context, producer: Arc<dyn Producer>, parts: Arc<Parts>, number: usize) {
    let Planned { id: order, command, .. } = &parts.plan.orders[number];
    let id = MessageId::derived(&format!("{HOST}/{order}"));
    // The wait begins here: one that began with the acknowledgement would leave out what an outage costs.
    parts.desk.placed().entry(order.clone()).or_insert(context.now());
    loop {
        let record = Outgoing::of(command).into_record(id, id, None, context.now());
        match producer.send(record).await {
            Ok(_) => {
                parts.desk.accepted().insert(order.clone(), context.now());
                return;
            }
            Err(error) => {
                context.note(format_args!("order {order} is not placed, again in {PAUSE:?}: {error}"));
                context.sleep(PAUSE).await;
            }
        }
    }
}
