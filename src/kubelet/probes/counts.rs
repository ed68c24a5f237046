//! How often probes were tried and what came of it: `/metrics/probes`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::Pod;

use super::track::{Outcome, ProbeKind};
use crate::kubelet::spec;

/// Whose tries are counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Whose {
    uid: String,
    namespace: String,
    pod: String,
    container: String,
}

impl Whose {
    /// A container of a pod.
    pub fn new(pod: &Pod, container: &str) -> Self {
        Self {
            uid: spec::uid(pod).to_owned(),
            namespace: spec::namespace(pod).to_owned(),
            pod: spec::name(pod).to_owned(),
            container: container.to_owned(),
        }
    }
}

/// The counts of all pods of the node.
#[derive(Debug, Default)]
pub struct Counts(Mutex<BTreeMap<(Whose, &'static str, &'static str), u64>>);

impl Counts {
    /// Counts one try.
    pub fn note(&self, whose: &Whose, kind: ProbeKind, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Success | Outcome::Warning(_) => "successful",
            Outcome::Failure(_) => "failed",
            Outcome::Unknown(_) => "unknown",
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((whose.clone(), kind.word(), result)).or_default() += 1;
    }

    /// Forgets a pod that is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(whose, ..), _| whose.uid != uid);
    }

    /// The counts for Prometheus, with upstream's names.
    pub fn text(&self) -> String {
        const NAME: &str = "prober_probe_total";
        let mut out = format!(
            "# HELP {NAME} [BETA] Cumulative number of a liveness, readiness or startup probe for a container by result.\n\
             # TYPE {NAME} counter\n"
        );
        for ((whose, kind, result), count) in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let Whose { uid, namespace, pod, container } = whose;
            writeln!(
                out,
                "{NAME}{{container=\"{container}\",namespace=\"{namespace}\",pod=\"{pod}\",pod_uid=\"{uid}\",\
                 probe_type=\"{kind}\",result=\"{result}\"}} {count}"
            )
            .expect("a String takes every write");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;

    #[test]
    fn tries_are_counted_by_result_until_the_pod_is_gone() {
        let pod = fixture::pod(serde_json::json!({"containers": []}));
        let (counts, whose) = (Counts::default(), Whose::new(&pod, "a"));
        for outcome in [Outcome::Success, Outcome::Warning("w".into()), Outcome::Failure("f".into())] {
            counts.note(&whose, ProbeKind::Liveness, &outcome);
        }
        let line = |result: &str, count: u32| {
            format!(
                "prober_probe_total{{container=\"a\",namespace=\"default\",pod=\"web\",pod_uid=\"u1\",probe_type=\"Liveness\",result=\"{result}\"}} {count}\n"
            )
        };
        let text = counts.text();
        assert!(text.contains(&line("successful", 2)) && text.contains(&line("failed", 1)), "{text}");
        counts.forget("u1");
        assert!(!counts.text().contains("u1"));
    }
}
