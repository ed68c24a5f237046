//! Full disks, bounded files, and checkpoints that nobody waits for.

use super::*;

/// A file system of its own that has room for so many bytes; `None` where this test may not make one.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn new(bytes: u64) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={bytes},mode=0700");
        let (none, flags) = (None::<&str>, nix::mount::MsFlags::empty());
        nix::mount::mount(none, folder.path(), Some("tmpfs"), flags, Some(&*options)).ok()?;
        Some(Self { folder })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount2(self.folder.path(), nix::mount::MntFlags::MNT_DETACH).ok();
    }
}

#[tokio::test]
async fn a_disk_that_runs_full_loses_nothing_and_recovers_by_itself() {
    let Some(disk) = SmallDisk::new(4 << 20) else {
        eprintln!("skipped: only root may mount a small disk");
        return;
    };
    let ballast = disk.folder.path().join("ballast");
    std::fs::write(&ballast, vec![0; 1 << 20]).unwrap();
    let path = disk.folder.path().join("db/state.db");
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    let mut kept = Vec::new();
    let error = loop {
        let key = format!("/a/{:05}", kept.len());
        match store.create(&key, Bytes::from(vec![b'x'; 3000]), None).await {
            Ok(revision) => kept.push((key, revision)),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StoreError::Full { .. } | StoreError::Io { .. }), "{error:?}");
    assert!(store.health().await.is_err() && store.known_health().is_err());
    // Reads go on, and show exactly what was acknowledged.
    let page = store.list("/a/", &ListOptions::default()).await.unwrap();
    let found: Vec<_> = page.entries.iter().map(|e| (e.key.to_string(), e.mod_revision)).collect();
    assert_eq!(found, kept);
    // With room again the store becomes healthy, though nobody writes.
    std::fs::remove_file(&ballast).unwrap();
    let healthy = async {
        while store.known_health().is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), healthy).await.expect("the store tries again by itself");
    let next = store.create("/a/later", value(1), None).await.unwrap();
    assert_eq!(next.0, kept[kept.len() - 1].1.0 + 1, "a revision was lost or used twice");
    drop(store);
    let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
    assert_eq!(store.list("/a/", &ListOptions::default()).await.unwrap().entries.len(), kept.len() + 1);
}

#[tokio::test]
async fn a_file_at_its_cap_gives_up_history_before_it_refuses_writes() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { max_file_bytes: Some(1 << 20), ..SqliteOptions::default() };
    let store = open(&folder, options);
    let mut last = store.create("/a/x", Bytes::from(vec![b'x'; 3000]), None).await.unwrap();
    // What was replaced exceeds the cap many times over; what is there does not.
    for _ in 0..2000 {
        last = store.update("/a/x", Bytes::from(vec![b'y'; 3000]), last, None).await.unwrap();
    }
    store.health().await.unwrap();
    let size = std::fs::metadata(folder.path().join("db/state.db")).unwrap().len();
    assert!(size <= 1 << 20, "{size}");
}

#[tokio::test]
async fn files_stay_bounded_under_churn() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { log_revisions: 500, log_bytes: 1 << 20, ..SqliteOptions::default() };
    let store = open(&folder, options);
    let writers = (0..8).map(|task| {
        let store = store.clone();
        tokio::spawn(async move {
            let key = format!("/a/{task}");
            let mut last = store.create(&key, Bytes::from(vec![b'x'; 2000]), None).await.unwrap();
            for _ in 0..3000 {
                last = store.update(&key, Bytes::from(vec![b'y'; 2000]), last, None).await.unwrap();
            }
        })
    });
    futures::future::join_all(writers).await.into_iter().for_each(Result::unwrap);
    let size = |name: &str| std::fs::metadata(folder.path().join("db").join(name)).unwrap().len();
    // 48 MB went through: 1 MB of log, 16 kB of entries.
    assert!(size("state.db") < 6 << 20, "{}", size("state.db"));
    assert!(size("state.db-wal") < 96 << 20, "{}", size("state.db-wal"));
}

#[tokio::test]
async fn space_that_was_freed_goes_back_to_the_file_system() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { log_revisions: 100, log_bytes: 100_000, ..SqliteOptions::default() };
    let store = open(&folder, options);
    let mut revisions = Vec::new();
    for i in 0..1000 {
        let key = format!("/a/{i}");
        let revision = store.create(&key, Bytes::from(vec![b'x'; 20_000]), None).await.unwrap();
        revisions.push((key, revision));
    }
    let (used, all) = store.pages();
    assert!(used > 16_000 && used <= all, "{used} of {all}");
    for (key, revision) in revisions {
        store.delete(&key, revision).await.unwrap();
    }
    // Giving back happens along with later writes.
    let mut last = store.create("/b/x", value(1), None).await.unwrap();
    for i in 0..20_000 {
        last = store.update("/b/x", value(i), last, None).await.unwrap();
        if store.pages().1 < 15_200 {
            return;
        }
    }
    panic!("{:?} pages are left", store.pages());
}
