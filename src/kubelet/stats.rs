//! What containers use, as the runtime counts it, and how fast: the base of eviction and of the figures for monitors.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::cri::{CriError, Runtime, v1};
use crate::kubelet::labels;

/// A rate from samples closer together than this would be noise.
const CLOSEST: i64 = 1_000_000_000;
/// A rate over more than this says nothing about now.
const FURTHEST: i64 = 120_000_000_000;

/// What one container uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUse {
    /// UID of the pod.
    pub uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub name: String,
    /// The runtime's id.
    pub id: String,
    /// When it was counted, in nanoseconds since 1970.
    pub at: i64,
    /// Processor time so far, in nanoseconds.
    pub cpu: u64,
    /// Bytes of memory that cannot be reclaimed easily.
    pub working_set: u64,
    /// Bytes of memory with caches, where the runtime says so.
    pub usage: u64,
    /// Bytes of anonymous memory, where the runtime says so.
    pub rss: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Page faults that needed the disk.
    pub major_page_faults: u64,
    /// Bytes of the writable layer.
    pub writable_bytes: u64,
    /// Inodes of the writable layer.
    pub writable_inodes: u64,
}

/// Asks the runtime about all running containers of pods.
///
/// # Errors
/// The runtime does not answer.
pub async fn containers(runtime: &Arc<dyn Runtime>) -> Result<Vec<ContainerUse>, CriError> {
    let stats = runtime.list_container_stats(None).await?;
    Ok(stats.iter().filter_map(of_container).collect())
}

fn of_container(stats: &v1::ContainerStats) -> Option<ContainerUse> {
    let attributes = stats.attributes.as_ref()?;
    let label = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
    let value = |v: &Option<v1::UInt64Value>| v.as_ref().map_or(0, |v| v.value);
    let (cpu, memory) = (stats.cpu.unwrap_or_default(), stats.memory.unwrap_or_default());
    let layer = stats.writable_layer.clone().unwrap_or_default();
    let uid = label(labels::POD_UID);
    (!uid.is_empty()).then(|| ContainerUse {
        uid,
        namespace: label(labels::POD_NAMESPACE),
        pod: label(labels::POD_NAME),
        name: label(labels::CONTAINER_NAME),
        id: attributes.id.clone(),
        at: cpu.timestamp.max(memory.timestamp),
        cpu: value(&cpu.usage_core_nano_seconds),
        working_set: value(&memory.working_set_bytes),
        usage: value(&memory.usage_bytes),
        rss: value(&memory.rss_bytes),
        page_faults: value(&memory.page_faults),
        major_page_faults: value(&memory.major_page_faults),
        writable_bytes: value(&layer.used_bytes),
        writable_inodes: value(&layer.inodes_used),
    })
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: i64,
    cpu: u64,
    rate: Option<u64>,
}

/// Processor use per second, from the counts of successive questions. Nothing is counted while nobody asks.
#[derive(Debug, Default)]
pub struct Rates(Mutex<HashMap<String, Sample>>);

impl Rates {
    /// Takes a count; answers with billionths of a processor, when there is an earlier count to compare with.
    pub fn take(&self, key: &str, at: i64, cpu: u64) -> Option<u64> {
        let mut samples = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let former = samples.get(key).copied();
        let rate = match former {
            Some(former) if at - former.at < CLOSEST => return former.rate,
            Some(former) if at - former.at <= FURTHEST => {
                let spent = i128::from(cpu.saturating_sub(former.cpu)) * 1_000_000_000;
                u64::try_from(spent / i128::from(at - former.at)).ok()
            }
            _ => None,
        };
        samples.insert(key.to_owned(), Sample { at, cpu, rate });
        // What has not been counted for a while is gone.
        samples.retain(|_, sample| at - sample.at <= FURTHEST);
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_compare_with_the_count_before() {
        let rates = Rates::default();
        let second = 1_000_000_000;
        for (at, cpu, want) in [
            (0, 0, None),
            (second / 2, second as u64, None),
            (2 * second, second as u64, Some(500_000_000)),
            (2 * second + 1, 0, Some(500_000_000)),
            (300 * second, 0, None),
            (301 * second, 250_000_000, Some(250_000_000)),
        ] {
            assert_eq!(rates.take("a", at, cpu), want, "{at}");
        }
    }

    #[test]
    fn containers_without_a_pod_are_left_out() {
        assert_eq!(of_container(&v1::ContainerStats::default()), None);
        let labels = [(labels::POD_UID, "u"), (labels::CONTAINER_NAME, "a")];
        let stats = v1::ContainerStats {
            attributes: Some(v1::ContainerAttributes {
                labels: labels.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
                ..Default::default()
            }),
            cpu: Some(v1::CpuUsage {
                timestamp: 5,
                usage_core_nano_seconds: Some(v1::UInt64Value { value: 7 }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let got = of_container(&stats).unwrap();
        assert_eq!((got.uid.as_str(), got.name.as_str(), got.at, got.cpu), ("u", "a", 5, 7));
    }
}
