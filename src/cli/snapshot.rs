//! `kube-lite snapshot save|list|prune|delete|restore` and `kube-lite migrate`: tools for the datastore.

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::config::datastore::parse;
use crate::config::{DatastoreConfig, SnapshotConfig};
use crate::server::snapshots::{self, Description, Snapshots, Source};
use crate::telemetry;

/// What all tools for the datastore can be told.
#[derive(Args, Debug, Clone)]
pub(super) struct Place {
    /// Directory for everything that is kept
    #[arg(
        long,
        short = 'd',
        env = "KUBE_LITE_DATA_DIR",
        default_value = "/var/lib/kube-lite",
        value_name = "DIR"
    )]
    data_dir: std::path::PathBuf,

    /// Name of this node [default: the host's name]
    #[arg(long, env = "KUBE_LITE_NODE_NAME", value_name = "NAME")]
    node_name: Option<String>,

    #[command(flatten)]
    datastore: DatastoreConfig,
}

impl Place {
    /// The flags that choose the datastore.
    pub(super) fn datastore(&self) -> &DatastoreConfig {
        &self.datastore
    }

    pub(super) fn server_dir(&self) -> std::path::PathBuf {
        self.data_dir.join("server")
    }

    fn node(&self) -> anyhow::Result<String> {
        match &self.node_name {
            Some(name) => Ok(name.clone()),
            None => {
                let name = nix::unistd::gethostname().context("read the host's name")?;
                Ok(name.to_string_lossy().to_lowercase())
            }
        }
    }
}

/// Snapshots of the datastore.
#[derive(Args, Debug)]
pub(super) struct SnapshotArgs {
    #[command(flatten)]
    place: Place,

    #[command(flatten)]
    snapshots: SnapshotConfig,

    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Make a snapshot; the server may be running
    Save,
    /// List the snapshots
    #[command(visible_alias = "ls")]
    List {
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove the oldest snapshots beyond --snapshot-retention
    Prune,
    /// Remove snapshots
    Delete {
        /// Names as `list` shows them
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Put a snapshot in the place of the datastore; the server must be stopped
    Restore {
        /// Name as `list` shows it, or a path
        name: String,
    },
}

pub(super) fn run(args: SnapshotArgs, log_filter: &str) -> anyhow::Result<()> {
    telemetry::start_logging(log_filter);
    let (place, server_dir) = (&args.place, args.place.server_dir());
    let all = Snapshots::new(&args.snapshots, &server_dir, &place.node()?);
    match args.action {
        Action::Save => {
            let made = super::runtime()?.block_on(async {
                let source = Source::open(&place.datastore, &server_dir).await?;
                all.save(&source).await
            })?;
            println!("{} saved ({} bytes, revision {})", made.name, made.size, made.revision);
        }
        Action::List { json } => print_list(&all.list()?, json)?,
        Action::Prune => all.prune()?.iter().for_each(|name| println!("{name} removed")),
        Action::Delete { names } => {
            for name in names {
                all.delete(&name)?;
                println!("{name} removed");
            }
        }
        Action::Restore { name } => {
            let path = all.verified(&name)?;
            let count =
                super::runtime()?.block_on(snapshots::restore(&place.datastore, &server_dir, &path))?;
            println!("{count} entries restored from {}; start kube-lite again", path.display());
        }
    }
    Ok(())
}

fn print_list(all: &[Description], json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(all)?);
        return Ok(());
    }
    let width = all.iter().map(|one| one.name.len()).max().unwrap_or(0).max(4);
    println!("{:width$}  {:>12}  {:>12}  CREATED", "NAME", "SIZE", "REVISION");
    for one in all {
        println!("{:width$}  {:>12}  {:>12}  {}", one.name, one.size, one.revision, one.created);
    }
    Ok(())
}

/// Moves the cluster's state from one datastore into another one.
#[derive(Args, Debug)]
pub(super) struct MigrateArgs {
    /// The datastore to read: sqlite, sqlite:///path/to/state.db, or etcd's URLs; its server must be stopped
    #[arg(long, value_name = "DSN")]
    from: String,

    /// The datastore to fill, which must be empty
    #[arg(long, value_name = "DSN")]
    to: String,

    #[command(flatten)]
    place: Place,
}

pub(super) fn migrate(args: &MigrateArgs, log_filter: &str) -> anyhow::Result<()> {
    telemetry::start_logging(log_filter);
    let server_dir = args.place.server_dir();
    let (from, to) = (parse("from", &args.from, &server_dir)?, parse("to", &args.to, &server_dir)?);
    let count = super::runtime()?.block_on(snapshots::migrate(&args.place.datastore, &from, &to))?;
    println!("{count} entries copied; start kube-lite with --datastore-endpoint={}", args.to);
    Ok(())
}
