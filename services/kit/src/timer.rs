//! Deadlines that survive restarts: they are rows in the store, and a task wakes for the next one.

use std::sync::Arc;
use std::time::Duration;

use context::{Context, Timestamp};

use crate::{HandlerError, ReadTables, Store, StoreError, StoreExt, Tables};

/// How long a timer rests after an error.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// Something with deadlines in the store: sagas, reservations that expire.
pub trait Timer: Send + Sync + 'static {
    /// What it is, for notes.
    fn name(&self) -> &'static str;

    /// The next deadline.
    ///
    /// # Errors
    /// As [`ReadTables::scan`].
    fn next(&self, tables: &dyn ReadTables) -> Result<Option<Timestamp>, StoreError>;

    /// Does what the earliest deadline at or before `now` asks for, and removes or moves that deadline; nothing if there
    /// is none any more. Open a [`crate::Unit::named`] on `tables` to publish.
    ///
    /// # Errors
    /// Whatever keeps it from being done: it is tried again a second later, and what is due after it waits meanwhile.
    fn fire(&self, context: &Context, tables: &mut dyn Tables, now: Timestamp) -> Result<(), HandlerError>;
}

/// Runs a timer until the host stops. Every replica may run it: a deadline fires in a transaction, so once.
pub async fn run(context: Context, store: Arc<dyn Store>, timer: Arc<dyn Timer>) {
    let changed = store.changed();
    loop {
        // Before the look into the store, so that no commit goes unseen between the look and the wait.
        let mut committed = std::pin::pin!(changed.notified());
        committed.as_mut().enable();
        let next = store.read_with(|tables| timer.next(tables));
        let now = context.now();
        match next {
            Ok(Some(due)) if due <= now => {
                let fired =
                    store.transact_with(&context, |tables| timer.fire(&context, tables, context.now()));
                if let Err(error) = fired {
                    context.trouble(format_args!("timer {}: {error}", timer.name()));
                    context.sleep(ERROR_PAUSE).await;
                }
            }
            Ok(Some(due)) => {
                tokio::select! {
                    biased;
                    () = committed => {}
                    () = context.sleep_until(due) => {}
                }
            }
            Ok(None) => committed.await,
            Err(error) => {
                context.trouble(format_args!("timer {}: {error}", timer.name()));
                context.sleep(ERROR_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use context::Seed;
    use context::real::RealHost;

    use super::*;
    use crate::store::Json;
    use crate::{MemStore, Table};

    const DUE: Table<Timestamp, String, Json> = Table::new("due");
    const FIRED: Table<String, Timestamp, JsonTime> = Table::new("fired");

    /// Times as their microseconds.
    struct JsonTime;

    impl crate::store::Codec<Timestamp> for JsonTime {
        fn encode(value: &Timestamp) -> Vec<u8> {
            <Json as crate::store::Codec<u64>>::encode(&value.as_micros())
        }

        fn decode(bytes: &[u8]) -> Result<Timestamp, String> {
            <Json as crate::store::Codec<u64>>::decode(bytes).map(Timestamp::from_micros)
        }
    }

    struct Alarm;

    impl Timer for Alarm {
        fn name(&self) -> &'static str {
            "alarm"
        }

        fn next(&self, tables: &dyn ReadTables) -> Result<Option<Timestamp>, StoreError> {
            Ok(DUE.first(tables)?.map(|(at, _)| at))
        }

        fn fire(&self, _: &Context, tables: &mut dyn Tables, now: Timestamp) -> Result<(), HandlerError> {
            if let Some((at, name)) = DUE.first(tables)?.filter(|(at, _)| *at <= now) {
                assert!(FIRED.get(tables, &name)?.is_none(), "a deadline fires once");
                DUE.delete(tables, &at)?;
                FIRED.put(tables, &name, &now)?;
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn deadlines_fire_once_in_order_though_two_replicas_wait_and_a_nearer_one_comes_late() {
        let context = RealHost::new("host", Seed(1)).into_context();
        let store: Arc<dyn Store> = Arc::new(MemStore::new("store"));
        for _ in 0..2 {
            context.spawn("timer", run(context.clone(), store.clone(), Arc::new(Alarm)));
        }
        let start = context.now();
        let set = |name: &str, after_ms| {
            store.transact_with::<_, StoreError>(&context, |tables| {
                DUE.put(tables, &(start + Duration::from_millis(after_ms)), &name.to_owned())
            })
        };
        set("late", 40).unwrap();
        context.sleep(Duration::from_millis(5)).await;
        set("early", 20).unwrap();
        let fired = || store.read_with::<_, StoreError>(|tables| FIRED.all(tables)).unwrap();
        while fired().len() < 2 {
            context.sleep(Duration::from_millis(1)).await;
        }
        let fired = fired();
        assert_eq!(fired.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["early", "late"]);
        assert!(fired[0].1 < fired[1].1 && fired[0].1 >= start + Duration::from_millis(20));
    }
}
