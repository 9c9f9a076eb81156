//! The folder of a cluster: what its nodes say and keep.

use std::path::{Path, PathBuf};

use crate::guardian::Guardian;
use crate::{ClusterError, io_error};

/// Removes the folder when the pipe closes, or only the disks in it if it was told `keep`. Nodes that are being killed may
/// still write: it tries for ten seconds.
const SCRIPT: &str = r#"echo ready; disks=; while read -r word; do [ "$word" = keep ] && disks=/*.data; done
for _ in $(seq 100); do
    if [ -n "$disks" ]; then rm -rf "$1"$disks && break; else rm -rf "$1" && break; fi
    sleep 0.1
done"#;

/// A folder that is gone when this process is, however it ends, unless its logs are wanted.
pub(crate) struct Folder {
    path: PathBuf,
    guardian: Guardian,
    kept: bool,
}

impl Folder {
    pub(crate) fn new() -> Result<Folder, ClusterError> {
        let folder = tempfile::Builder::new().prefix("shakedown-kafka-").tempdir();
        let path = folder.map_err(io_error("making a folder for the cluster"))?.keep();
        let (guardian, _ready) = Guardian::start(SCRIPT, [&path])?;
        Ok(Folder { path, guardian, kept: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder of a node.
    pub(crate) fn of(&self, node: u32, what: &str) -> PathBuf {
        self.path.join(format!("node-{node}.{what}"))
    }

    /// The logs outlive the cluster; the disks do not.
    pub(crate) fn keep_logs(&mut self) -> Result<(), ClusterError> {
        if !self.kept {
            self.guardian.tell("keep")?;
            self.kept = true;
        }
        Ok(())
    }
}
