//! Counters of work queues and reconciles, rendered with the metric names of upstream.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

static QUEUES: Mutex<BTreeMap<String, Arc<QueueMetrics>>> = Mutex::new(BTreeMap::new());

/// What one named queue and its controller have done.
#[derive(Debug, Default)]
pub struct QueueMetrics {
    /// Keys that wait for a worker.
    pub depth: AtomicI64,
    /// Keys added, after merging.
    pub adds: AtomicU64,
    /// Keys added again after a failure.
    pub retries: AtomicU64,
    /// Reconciles that ended well.
    pub successes: AtomicU64,
    /// Reconciles that returned an error.
    pub errors: AtomicU64,
    /// Reconciles that panicked.
    pub panics: AtomicU64,
    /// Time spent in reconciles, in microseconds.
    pub work_micros: AtomicU64,
}

/// The metrics of the queue called `name`, made on first use.
pub fn queue(name: &str) -> Arc<QueueMetrics> {
    let mut queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner);
    queues.entry(name.to_owned()).or_default().clone()
}

/// All queues in the text format of Prometheus.
pub fn render() -> String {
    let queues = QUEUES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, value: &dyn Fn(&QueueMetrics) -> String| {
        let _ = writeln!(text, "# TYPE {name} {kind}");
        for (queue, metrics) in &queues {
            let _ = writeln!(text, "{name}{{name=\"{queue}\"}} {}", value(metrics));
        }
    };
    family("workqueue_depth", "gauge", &|m| m.depth.load(Relaxed).to_string());
    family("workqueue_adds_total", "counter", &|m| m.adds.load(Relaxed).to_string());
    family("workqueue_retries_total", "counter", &|m| m.retries.load(Relaxed).to_string());
    family("reconcile_success_total", "counter", &|m| m.successes.load(Relaxed).to_string());
    family("reconcile_errors_total", "counter", &|m| m.errors.load(Relaxed).to_string());
    family("reconcile_panics_total", "counter", &|m| m.panics.load(Relaxed).to_string());
    family("reconcile_seconds_total", "counter", &|m| seconds(m.work_micros.load(Relaxed)));
    text
}

fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renders_every_queue_by_name() {
        let metrics = queue("metrics-test");
        metrics.adds.fetch_add(3, Relaxed);
        metrics.work_micros.fetch_add(1_500_000, Relaxed);
        let text = render();
        assert!(text.contains("workqueue_adds_total{name=\"metrics-test\"} 3"), "{text}");
        assert!(text.contains("reconcile_seconds_total{name=\"metrics-test\"} 1.500000"), "{text}");
    }
}
