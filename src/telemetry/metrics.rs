//! Counters, gauges and histograms in Prometheus' text form.
//!
//! One process-wide registry, because the metrics of one process are one document. A metric is declared where it is
//! counted, as a `static`; it shows up once it has been touched. Counting takes no lock beyond one short one for a
//! label set that is seen for the first time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// Upper bounds, in seconds, of histograms of requests.
pub const REQUEST_BUCKETS: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// What a family of metrics looks like.
#[derive(Debug)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    kind: Kind,
    series: RwLock<BTreeMap<Vec<String>, Arc<Series>>>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

/// One label set of a family.
#[derive(Debug)]
pub struct Series {
    /// Counter, or the bits of a gauge.
    value: AtomicU64,
    /// Observations per bucket, and the ones above the last.
    buckets: Vec<AtomicU64>,
    bounds: &'static [f64],
    /// Sum of the observations in microseconds.
    sum_micros: AtomicU64,
}

static REGISTRY: Mutex<Vec<&'static Family>> = Mutex::new(Vec::new());

type Collector = Box<dyn Fn() -> bool + Send>;
static COLLECTORS: Mutex<Vec<Collector>> = Mutex::new(Vec::new());

/// Has `collector` called whenever the metrics are asked for, to set gauges whose values are known elsewhere; until it
/// returns false.
pub fn before_render(collector: impl Fn() -> bool + Send + 'static) {
    COLLECTORS.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(collector));
}

impl Family {
    /// A family that only grows.
    pub const fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, help, labels, kind: Kind::Counter, series: RwLock::new(BTreeMap::new()) }
    }

    /// A family of values that rise and fall.
    pub const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, help, labels, kind: Kind::Gauge, series: RwLock::new(BTreeMap::new()) }
    }

    /// A family of durations, counted per bucket.
    pub const fn histogram(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        bounds: &'static [f64],
    ) -> Self {
        Self { name, help, labels, kind: Kind::Histogram(bounds), series: RwLock::new(BTreeMap::new()) }
    }

    /// The series with these label values, in the order of the label names.
    ///
    /// Callers bound the number of different values: never a name that a client chooses.
    pub fn with(&'static self, values: &[&str]) -> Arc<Series> {
        debug_assert_eq!(values.len(), self.labels.len(), "{}: one value for each label", self.name);
        let key: Vec<String> = values.iter().map(|&value| value.to_owned()).collect();
        if let Some(series) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return series.clone();
        }
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        if all.is_empty() {
            REGISTRY.lock().unwrap_or_else(PoisonError::into_inner).push(self);
        }
        let bounds = if let Kind::Histogram(bounds) = self.kind { bounds } else { &[] };
        let new = || Series {
            value: AtomicU64::new(0),
            buckets: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            bounds,
            sum_micros: AtomicU64::new(0),
        };
        all.entry(key).or_insert_with(|| Arc::new(new())).clone()
    }

    fn render(&self, out: &mut String) {
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {kind}", self.name, self.help, self.name);
        for (values, series) in self.series.read().unwrap_or_else(PoisonError::into_inner).iter() {
            let labels: Vec<String> = self
                .labels
                .iter()
                .zip(values)
                .map(|(name, value)| format!("{name}=\"{}\"", escape(value)))
                .collect();
            series.render(self, &labels.join(","), out);
        }
    }
}

impl Series {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds to a counter.
    pub fn add(&self, n: u64) {
        self.value.fetch_add(n, Ordering::Relaxed);
    }

    /// Sets a gauge.
    pub fn set(&self, value: f64) {
        self.value.store(value.to_bits(), Ordering::Relaxed);
    }

    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds.iter().position(|bound| seconds <= *bound).unwrap_or(self.bounds.len());
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_micros.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn render(&self, family: &Family, labels: &str, out: &mut String) {
        let braces = |more: &str| match (labels, more) {
            ("", "") => String::new(),
            ("", more) => format!("{{{more}}}"),
            (labels, "") => format!("{{{labels}}}"),
            (labels, more) => format!("{{{labels},{more}}}"),
        };
        let value = self.value.load(Ordering::Relaxed);
        let name = family.name;
        let _ = match family.kind {
            Kind::Counter => writeln!(out, "{name}{} {value}", braces("")),
            Kind::Gauge => writeln!(out, "{name}{} {}", braces(""), f64::from_bits(value)),
            Kind::Histogram(bounds) => {
                let mut count = 0;
                for (bucket, bound) in self.buckets.iter().zip(bounds.iter().map(Some).chain([None])) {
                    count += bucket.load(Ordering::Relaxed);
                    let bound = bound.map_or("+Inf".to_owned(), f64::to_string);
                    let _ = writeln!(out, "{name}_bucket{} {count}", braces(&format!("le=\"{bound}\"")));
                }
                let sum = Duration::from_micros(self.sum_micros.load(Ordering::Relaxed)).as_secs_f64();
                writeln!(out, "{name}_sum{} {sum}\n{name}_count{} {count}", braces(""), braces(""))
            }
        };
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Everything counted so far, and what the kernel tells of this process.
pub fn render() -> String {
    COLLECTORS.lock().unwrap_or_else(PoisonError::into_inner).retain(|collect| collect());
    let mut families = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner).clone();
    families.sort_by_key(|family| family.name);
    families.dedup_by_key(|family| family.name);
    let mut out = String::new();
    for family in families {
        family.render(&mut out);
    }
    render_process(&mut out);
    out
}

/// `process_*`, from `/proc/self`; what cannot be read is left out.
fn render_process(out: &mut String) {
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    let mut metric = |name: &str, kind: &str, help: &str, value: f64| {
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
    };
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name stands in parentheses and may hold anything; the fields after it are numbers.
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    if let (Some(user), Some(system)) = (fields.get(10), fields.get(11)) {
        let seconds = (user + system) / ticks as f64;
        metric(
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            seconds,
        );
    }
    if let (Some(virtual_size), Some(resident)) = (fields.get(19), fields.get(20)) {
        metric("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", *virtual_size);
        metric(
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory size in bytes.",
            resident * page as f64,
        );
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        metric("process_open_fds", "gauge", "Number of open file descriptors.", open.count() as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_and_histograms_are_rendered_as_prometheus_reads_them() {
        static REQUESTS: Family = Family::counter("test_requests_total", "Requests.", &["verb", "code"]);
        static LATENCY: Family =
            Family::histogram("test_latency_seconds", "Latency.", &["verb"], &[0.1, 1.0]);
        REQUESTS.with(&["GET", "200"]).inc();
        REQUESTS.with(&["GET", "200"]).inc();
        REQUESTS.with(&["a\"b", "500"]).inc();
        for millis in [50, 100, 500, 5000] {
            LATENCY.with(&["GET"]).observe(Duration::from_millis(millis));
        }
        let text = render();
        for line in [
            "# TYPE test_requests_total counter",
            "test_requests_total{verb=\"GET\",code=\"200\"} 2",
            "test_requests_total{verb=\"a\\\"b\",code=\"500\"} 1",
            "test_latency_seconds_bucket{verb=\"GET\",le=\"0.1\"} 2",
            "test_latency_seconds_bucket{verb=\"GET\",le=\"1\"} 3",
            "test_latency_seconds_bucket{verb=\"GET\",le=\"+Inf\"} 4",
            "test_latency_seconds_sum{verb=\"GET\"} 5.65",
            "test_latency_seconds_count{verb=\"GET\"} 4",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn process_metrics_are_there() {
        let text = render();
        let resident = text.lines().find_map(|l| l.strip_prefix("process_resident_memory_bytes ")).unwrap();
        assert!(resident.parse::<f64>().unwrap() > 1e6, "{resident}");
        let cpu = text.lines().find_map(|l| l.strip_prefix("process_cpu_seconds_total ")).unwrap();
        assert!((0.0..1e5).contains(&cpu.parse::<f64>().unwrap()), "{cpu}");
    }

    #[test]
    fn collectors_are_asked_until_they_have_nothing_more() {
        static COLLECTED: Family = Family::gauge("test_collected", "Collected.", &[]);
        let asked = AtomicU64::new(0);
        before_render(move || {
            COLLECTED.with(&[]).set(asked.fetch_add(1, Ordering::Relaxed) as f64);
            asked.load(Ordering::Relaxed) < 2
        });
        for expected in ["test_collected 0", "test_collected 1", "test_collected 1"] {
            assert!(render().lines().any(|l| l == expected), "{expected}");
        }
    }

    #[test]
    fn gauges_take_their_last_value() {
        static GAUGE: Family = Family::gauge("test_gauge", "Gauge.", &[]);
        GAUGE.with(&[]).set(2.5);
        GAUGE.with(&[]).set(-1.5);
        assert!(render().lines().any(|l| l == "test_gauge -1.5"));
    }
}
