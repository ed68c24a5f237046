//! What is counted of work queues and reconciles, under the names of upstream and of controller-runtime.

use std::sync::Arc;

use crate::telemetry::metrics::{Family, Series};

/// Upper bounds in seconds of the times that keys wait and are worked on: ten nanoseconds to a thousand seconds.
const BUCKETS: &[f64] = &[1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0];

static DEPTH: Family = Family::gauge("workqueue_depth", "Current depth of workqueue", &["name"]);
static ADDS: Family =
    Family::counter("workqueue_adds_total", "Total number of adds handled by workqueue", &["name"]);
static RETRIES: Family =
    Family::counter("workqueue_retries_total", "Total number of retries handled by workqueue", &["name"]);
static WAITED: Family = Family::histogram(
    "workqueue_queue_duration_seconds",
    "How long in seconds an item stays in workqueue before being requested.",
    &["name"],
    BUCKETS,
);
static WORKED: Family = Family::histogram(
    "workqueue_work_duration_seconds",
    "How long in seconds processing an item from workqueue takes.",
    &["name"],
    BUCKETS,
);
static UNFINISHED: Family = Family::gauge(
    "workqueue_unfinished_work_seconds",
    "How many seconds of work has been done that is in progress and hasn't been observed by work_duration. Large \
     values indicate stuck threads.",
    &["name"],
);
static LONGEST: Family = Family::gauge(
    "workqueue_longest_running_processor_seconds",
    "How many seconds has the longest running processor for workqueue been running.",
    &["name"],
);
static RECONCILES: Family = Family::counter(
    "controller_runtime_reconcile_total",
    "Total number of reconciliations per controller",
    &["controller", "result"],
);
static ERRORS: Family = Family::counter(
    "controller_runtime_reconcile_errors_total",
    "Total number of reconciliation errors per controller",
    &["controller"],
);
static PANICS: Family = Family::counter(
    "controller_runtime_reconcile_panics_total",
    "Total number of reconciliation panics per controller",
    &["controller"],
);

/// What one named queue and its controller have done. Queues of one name count together.
#[derive(Debug)]
pub struct QueueMetrics {
    /// Keys that wait for a worker.
    pub depth: Arc<Series>,
    /// Keys added, after merging.
    pub adds: Arc<Series>,
    /// Keys added again after a failure.
    pub retries: Arc<Series>,
    /// How long keys waited for a worker.
    pub waited: Arc<Series>,
    /// How long keys were worked on.
    pub worked: Arc<Series>,
    /// How long the work in progress has taken, all together.
    pub unfinished: Arc<Series>,
    /// How long the longest work in progress has taken.
    pub longest: Arc<Series>,
    /// Reconciles that ended well.
    pub successes: Arc<Series>,
    /// Reconciles that ended well and asked for another look later.
    pub requeues: Arc<Series>,
    /// Reconciles that did not end well.
    pub failures: Arc<Series>,
    /// Reconciles that returned an error.
    pub errors: Arc<Series>,
    /// Reconciles that panicked.
    pub panics: Arc<Series>,
}

/// The metrics of the queue called `name`.
pub fn queue(name: &str) -> QueueMetrics {
    QueueMetrics {
        depth: DEPTH.with(&[name]),
        adds: ADDS.with(&[name]),
        retries: RETRIES.with(&[name]),
        waited: WAITED.with(&[name]),
        worked: WORKED.with(&[name]),
        unfinished: UNFINISHED.with(&[name]),
        longest: LONGEST.with(&[name]),
        successes: RECONCILES.with(&[name, "success"]),
        requeues: RECONCILES.with(&[name, "requeue_after"]),
        failures: RECONCILES.with(&[name, "error"]),
        errors: ERRORS.with(&[name]),
        panics: PANICS.with(&[name]),
    }
}

#[cfg(test)]
mod tests {
    use crate::client::WorkQueue;
    use crate::telemetry::metrics::render;

    #[tokio::test]
    async fn queues_are_counted_under_upstreams_names() {
        let queue = WorkQueue::new("metrics-test");
        queue.add("a");
        queue.add("a");
        queue.add("b");
        let line = |name: &str, value: &str| {
            let line = format!("{name}{{name=\"metrics-test\"}} {value}\n");
            assert!(render().contains(&line), "no {line}");
        };
        line("workqueue_adds_total", "2");
        line("workqueue_depth", "2");
        let work = queue.next().await.unwrap();
        line("workqueue_depth", "1");
        line("workqueue_queue_duration_seconds_count", "1");
        line("workqueue_work_duration_seconds_count", "0");
        drop(work);
        line("workqueue_work_duration_seconds_count", "1");
        line("workqueue_unfinished_work_seconds", "0");
    }
}
