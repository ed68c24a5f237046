//! Where snapshots of the datastore are kept, and how many.

use std::path::{Path, PathBuf};

use clap::Args;

/// The flags about snapshots that the server and `kube-lite snapshot` share.
#[derive(Args, Debug, Clone)]
pub struct SnapshotConfig {
    /// Directory of the snapshots [default: server/db/snapshots in the data directory]
    #[arg(long, env = "KUBE_LITE_SNAPSHOT_DIR", value_name = "DIR")]
    pub snapshot_dir: Option<PathBuf>,

    /// What the names of snapshots begin with
    #[arg(long, env = "KUBE_LITE_SNAPSHOT_NAME", default_value = "snapshot", value_name = "NAME")]
    pub snapshot_name: String,

    /// How many snapshots of that name are kept; 0 keeps all
    #[arg(long, env = "KUBE_LITE_SNAPSHOT_RETENTION", default_value_t = 5, value_name = "COUNT")]
    pub snapshot_retention: usize,
}

impl SnapshotConfig {
    /// The directory of the snapshots.
    pub fn directory(&self, server_dir: &Path) -> PathBuf {
        self.snapshot_dir.clone().unwrap_or_else(|| server_dir.join("db/snapshots"))
    }
}
