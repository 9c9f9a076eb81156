//! The connections that a node has accepted: how many may be open, and how long one may be idle.
//!
//! `max.connections` and `connections.max.idle.ms` as Kafka keeps them: beyond the limit nobody is accepted until a
//! connection closes (`ConnectionQuotas`), and one without traffic for too long is closed (`Selector`), also when it waits
//! for a peer that does not read. One timer a node, for the connection that has been idle longest: traffic moves no timer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use context::{Context, Timestamp};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::core::ConnectionId;

/// What may be open.
pub(crate) struct Guests {
    places: Arc<Semaphore>,
    /// `None` lets a connection be idle for ever.
    idle_max: Option<Duration>,
    open: Mutex<BTreeMap<ConnectionId, Arc<Activity>>>,
    arrived: Notify,
}

struct Activity {
    /// When its last byte went or came, in microseconds.
    last: AtomicU64,
    expired: Notify,
}

/// An open connection. Its place is free again when this is dropped.
pub(crate) struct Guest {
    guests: Arc<Guests>,
    id: ConnectionId,
    activity: Arc<Activity>,
    _place: OwnedSemaphorePermit,
}

impl Guests {
    /// A negative number for the idle time has no limit, as in Kafka.
    pub(crate) fn new(connections_max: i32, idle_max_ms: i64) -> Guests {
        let places = usize::try_from(connections_max).unwrap_or(0);
        Guests {
            places: Arc::new(Semaphore::new(places)),
            idle_max: u64::try_from(idle_max_ms).ok().map(Duration::from_millis),
            open: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// Waits until one more may come.
    pub(crate) async fn place(&self) -> OwnedSemaphorePermit {
        self.places.clone().acquire_owned().await.expect("the places are never closed")
    }

    /// A connection is open.
    pub(crate) fn welcome(
        self: &Arc<Self>,
        id: ConnectionId,
        place: OwnedSemaphorePermit,
        now: Timestamp,
    ) -> Guest {
        let activity = Activity { last: AtomicU64::new(now.as_micros()), expired: Notify::new() };
        let activity = Arc::new(activity);
        self.open().insert(id, activity.clone());
        self.arrived.notify_one();
        Guest { guests: self.clone(), id, activity, _place: place }
    }

    /// Closes what is idle for too long.
    pub(crate) async fn watch(self: Arc<Self>, context: Context) {
        let Some(idle_max) = self.idle_max else { return };
        loop {
            let Some(longest) = self.longest_idle() else {
                self.arrived.notified().await;
                continue;
            };
            let due = longest + idle_max;
            if due > context.now() {
                context.sleep_until(due).await;
            }
            let now = context.now();
            self.open().retain(|_, activity| {
                let idle = activity.last() + idle_max <= now;
                if idle {
                    activity.expired.notify_one();
                }
                !idle
            });
        }
    }

    fn longest_idle(&self) -> Option<Timestamp> {
        self.open().values().map(|activity| activity.last()).min()
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<ConnectionId, Arc<Activity>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Activity {
    fn last(&self) -> Timestamp {
        Timestamp::from_micros(self.last.load(Ordering::Relaxed))
    }
}

impl Guest {
    /// Bytes went or came.
    pub(crate) fn active(&self, now: Timestamp) {
        self.activity.last.store(now.as_micros(), Ordering::Relaxed);
    }

    /// Waits until it has been idle for too long.
    pub(crate) async fn expired(&self) {
        self.activity.expired.notified().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.guests.open().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use context::Seed;
    use context::real::RealHost;

    use super::*;

    fn context() -> Context {
        RealHost::new("broker-1", Seed(1)).into_context()
    }

    #[tokio::test]
    async fn nobody_is_let_in_beyond_the_limit_until_one_leaves() {
        let context = context();
        let guests = Arc::new(Guests::new(1, -1));
        let first = guests.welcome(ConnectionId(0), guests.place().await, context.now());
        let soon = Duration::from_millis(20);
        assert!(context.timeout(soon, guests.place()).await.is_err(), "there is one place");
        drop(first);
        assert!(context.timeout(soon, guests.place()).await.is_ok(), "it is free again");
    }

    #[tokio::test]
    async fn who_is_idle_is_shown_out_and_who_is_not_stays() {
        let context = context();
        let guests = Arc::new(Guests::new(10, 3_000));
        context.spawn("watch", guests.clone().watch(context.clone()));
        let idle = guests.welcome(ConnectionId(0), guests.place().await, context.now());
        let busy = guests.welcome(ConnectionId(1), guests.place().await, context.now());
        let talking = async {
            loop {
                context.sleep(Duration::from_millis(20)).await;
                busy.active(context.now());
            }
        };
        tokio::select! {
            () = talking => {}
            () = idle.expired() => {}
            () = busy.expired() => panic!("it had traffic all the time"),
        }
    }
}
