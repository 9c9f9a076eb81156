//! What a run leaves beside its events: what its hosts printed, and the logs of the brokers.
//!
//! A run on real Kafka happens once. Whoever sees that its claim broke, or that it gave no result, takes from here what would
//! go with the run's folder and with the cluster.

#![expect(clippy::disallowed_methods, reason = "reads logs")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use cluster::RealKafka;

/// What the last run of a backend left; shared with the backend.
#[derive(Clone, Debug, Default)]
pub struct Leavings(Arc<Mutex<Left>>);

#[derive(Debug, Default)]
struct Left {
    printed: BTreeMap<String, Vec<u8>>,
    kafka: Weak<RealKafka>,
}

impl Leavings {
    fn left(&self) -> MutexGuard<'_, Left> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the hosts of the last run printed on standard output and error, by host; those that printed nothing are not in it.
    /// It is gone from here then.
    pub fn take_printed(&self) -> BTreeMap<String, Vec<u8>> {
        std::mem::take(&mut self.left().printed)
    }

    /// Lets the brokers' logs outlive the cluster, and says in which folder they are: `node-1.log`. `None` if the cluster is
    /// not ours, or there is none any more.
    ///
    /// # Errors
    /// Why they cannot be kept, in words.
    pub fn keep_broker_logs(&self) -> Result<Option<PathBuf>, String> {
        let kafka = self.left().kafka.upgrade();
        kafka.map_or(Ok(None), |kafka| kafka.keep_logs().map_err(|error| error.to_string()))
    }

    /// A run begins: nothing of the last one is left.
    pub(crate) fn begin(&self, kafka: &Arc<RealKafka>) {
        *self.left() = Left { printed: BTreeMap::new(), kafka: Arc::downgrade(kafka) };
    }

    /// A run is over: takes what its hosts printed, each into `<host>.log` of this folder.
    pub(crate) fn collect(&self, folder: &Path) {
        let printed = match fs::read_dir(folder) {
            Ok(entries) => entries.flatten().filter_map(|entry| log(&entry.path())).collect(),
            Err(error) => BTreeMap::from([("hosts".to_owned(), unread(&error))]),
        };
        self.left().printed = printed;
    }
}

/// A host and what it printed, if this is its log and holds anything.
fn log(path: &Path) -> Option<(String, Vec<u8>)> {
    let host = path.file_name()?.to_str()?.strip_suffix(".log")?;
    let said = fs::read(path).unwrap_or_else(|error| unread(&error));
    (!said.is_empty()).then(|| (host.to_owned(), said))
}

/// Stands in the place of what cannot be read: who looks for it shall know.
fn unread(error: &std::io::Error) -> Vec<u8> {
    format!("what was printed cannot be read: {error}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hosts_printed_is_taken_once_and_silent_hosts_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("payment-1.log"), "thread 'x' panicked").unwrap();
        fs::write(folder.path().join("order-1.log"), "").unwrap();
        fs::create_dir(folder.path().join("payment-1")).unwrap();
        let leavings = Leavings::default();
        leavings.collect(folder.path());
        let printed = BTreeMap::from([("payment-1".to_owned(), b"thread 'x' panicked".to_vec())]);
        assert_eq!(leavings.take_printed(), printed);
        assert!(leavings.take_printed().is_empty());
        assert_eq!(leavings.keep_broker_logs(), Ok(None), "there was no cluster");
    }
}
