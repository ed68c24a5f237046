//! Warns before limits of the datastore hurt: looks at it now and then, and tells as Events on this host's Node what has
//! come near a limit, and when it has room again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cache::Cache;
use crate::client::events::{EventType, Recorder};
use crate::store::{Store, StoreError, Usage};

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(60);
/// What is still wrong is told again after so many looks.
const AGAIN: u32 = 60;
/// From this part of its quota on a datastore is nearly full.
const NEARLY_FULL: f64 = 0.8;
/// With less room than this the file system of the datastore is nearly full.
const DISK_LEAST: u64 = 512 << 20;
/// So many objects of one resource are more than lists and watch caches of this size are made for.
const OBJECTS_MANY: usize = 200_000;

/// What is wrong, by the reason of its Event, with what to tell about it.
type Findings = BTreeMap<&'static str, String>;

/// Looks at the datastore until `stop`.
pub(super) async fn run(
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
    recorder: Recorder,
    node: String,
    stop: CancellationToken,
) {
    let mut told = Told::default();
    loop {
        let findings = judge(&store.usage().await, &cache.counts());
        for (event_type, reason, message) in told.update(findings) {
            match event_type {
                EventType::Warning => warn!(reason, "{message}"),
                EventType::Normal => info!(reason, "{message}"),
            }
            recorder.event_for(reference(&node), event_type, reason, message);
        }
        if stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
            return;
        }
    }
}

fn reference(node: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(node.to_owned()),
        // As kubelets name Nodes in Events.
        uid: Some(node.to_owned()),
        ..ObjectReference::default()
    }
}

/// What is near a limit, or over it.
fn judge(usage: &Result<Usage, StoreError>, counts: &[(String, usize)]) -> Findings {
    let mut findings = Findings::new();
    let mib = |bytes: u64| bytes >> 20;
    match usage {
        Err(error) => {
            findings
                .insert("StorageUnavailable", format!("The datastore cannot be asked for its size: {error}"));
        }
        Ok(usage) => {
            if let Some(quota) = usage.quota.filter(|quota| usage.in_use as f64 > *quota as f64 * NEARLY_FULL)
            {
                let text = format!(
                    "The datastore uses {} of the {} MiB that it may have; at that size writes are refused. Remove \
                     objects, or raise --datastore-quota-backend-bytes (etcd: --quota-backend-bytes)",
                    mib(usage.in_use),
                    mib(quota)
                );
                findings.insert("StorageNearlyFull", text);
            }
            if let Some(left) = usage.disk_left.filter(|left| *left < DISK_LEAST) {
                let text = format!(
                    "The file system of the datastore has {} MiB left; without room writes are refused",
                    mib(left)
                );
                findings.insert("StorageDiskNearlyFull", text);
            }
            if !usage.alarms.is_empty() {
                findings.insert("StorageAlarm", format!("The datastore says: {}", usage.alarms.join("; ")));
            }
        }
    }
    let many: Vec<_> = counts.iter().filter(|(_, count)| *count > OBJECTS_MANY).collect();
    if !many.is_empty() {
        let list: Vec<_> = many.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let text =
            format!("There are {}: more than {OBJECTS_MANY} of one kind make lists slow", list.join(", "));
        findings.insert("StorageManyObjects", text);
    }
    findings
}

/// What has been told, and how many looks ago.
#[derive(Default)]
struct Told(BTreeMap<&'static str, u32>);

impl Told {
    /// What is to be told now.
    fn update(&mut self, findings: Findings) -> Vec<(EventType, &'static str, String)> {
        let mut events = Vec::new();
        let over: Vec<_> = self.0.keys().copied().filter(|reason| !findings.contains_key(reason)).collect();
        for reason in over {
            self.0.remove(reason);
            let text = format!("What was told as {reason} is over");
            events.push((EventType::Normal, "StorageRecovered", text));
        }
        for (reason, message) in findings {
            let looks = self.0.entry(reason).or_insert(AGAIN);
            if *looks >= AGAIN {
                *looks = 0;
                events.push((EventType::Warning, reason, message));
            }
            *looks += 1;
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(usage: Usage, counts: &[(String, usize)]) -> Vec<&'static str> {
        judge(&Ok(usage), counts).into_keys().collect()
    }

    #[test]
    fn each_limit_is_told_before_it_is_reached() {
        let gib = 1 << 30;
        let fine = Usage {
            in_use: 7 * gib / 10,
            bytes: gib,
            quota: Some(gib),
            disk_left: Some(gib),
            ..Usage::default()
        };
        assert!(reasons(fine.clone(), &[("pods".to_owned(), OBJECTS_MANY)]).is_empty());
        let full = Usage { in_use: 9 * gib / 10, ..fine.clone() };
        assert_eq!(reasons(full.clone(), &[]), ["StorageNearlyFull"]);
        assert!(reasons(Usage { quota: None, ..full }, &[]).is_empty(), "without a quota there is no limit");
        assert_eq!(
            reasons(Usage { disk_left: Some(100 << 20), ..fine.clone() }, &[]),
            ["StorageDiskNearlyFull"]
        );
        let alarmed = Usage { alarms: vec!["memberID:1 alarm:NOSPACE".to_owned()], ..fine.clone() };
        assert_eq!(reasons(alarmed, &[]), ["StorageAlarm"]);
        assert_eq!(reasons(fine, &[("pods".to_owned(), OBJECTS_MANY + 1)]), ["StorageManyObjects"]);
        assert_eq!(
            judge(&Err(StoreError::Closed), &[]).into_keys().collect::<Vec<_>>(),
            ["StorageUnavailable"]
        );
    }

    #[test]
    fn trouble_is_told_once_then_hourly_and_so_is_its_end() {
        let mut told = Told::default();
        let trouble = || Findings::from([("StorageAlarm", "x".to_owned())]);
        let reasons = |events: Vec<(EventType, &'static str, String)>| -> Vec<_> {
            events.into_iter().map(|(_, reason, _)| reason).collect()
        };
        assert_eq!(reasons(told.update(trouble())), ["StorageAlarm"]);
        for _ in 1..AGAIN {
            assert!(told.update(trouble()).is_empty());
        }
        assert_eq!(reasons(told.update(trouble())), ["StorageAlarm"]);
        assert_eq!(reasons(told.update(Findings::new())), ["StorageRecovered"]);
        assert!(told.update(Findings::new()).is_empty());
    }
}
