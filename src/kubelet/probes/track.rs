//! Counts a probe's outcomes against its thresholds.

use k8s_openapi::api::core::v1::Probe;

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// Until it succeeds once, the others wait.
    Startup,
    /// A failure restarts the container.
    Liveness,
    /// A failure takes the pod out of its Services.
    Readiness,
}

impl ProbeKind {
    /// The word in events.
    pub fn word(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// Outcome of one try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Healthy.
    Success,
    /// Healthy, with something that people should know.
    Warning(String),
    /// Unhealthy, with what the probe said.
    Failure(String),
    /// The try itself went wrong; it counts for nothing.
    Unknown(String),
}

/// Streak of equal outcomes.
#[derive(Clone, Debug)]
pub struct Tracker {
    success_threshold: u32,
    failure_threshold: u32,
    last: Option<bool>,
    streak: u32,
}

impl Tracker {
    /// A tracker for this probe that has seen nothing.
    pub fn new(probe: &Probe) -> Self {
        let at_least_one = |n: Option<i32>, default| u32::try_from(n.unwrap_or(default)).unwrap_or(1).max(1);
        Self {
            success_threshold: at_least_one(probe.success_threshold, 1),
            failure_threshold: at_least_one(probe.failure_threshold, 3),
            last: None,
            streak: 0,
        }
    }

    /// Takes an outcome; answers when a threshold is reached or passed.
    pub fn take(&mut self, success: bool) -> Option<bool> {
        self.streak = if self.last == Some(success) { self.streak.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        (self.streak >= threshold).then_some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_count_streaks() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Probe::default() };
        let mut tracker = Tracker::new(&probe);
        let got: Vec<Option<bool>> = [true, true, true, false, false, true, false, false, false, false]
            .into_iter()
            .map(|outcome| tracker.take(outcome))
            .collect();
        let (yes, no) = (Some(true), Some(false));
        assert_eq!(got, [None, yes, yes, None, None, None, None, None, no, no]);
    }

    #[test]
    fn defaults_are_one_success_and_three_failures() {
        let mut tracker = Tracker::new(&Probe::default());
        assert_eq!(tracker.take(true), Some(true));
        assert_eq!(
            [tracker.take(false), tracker.take(false), tracker.take(false)],
            [None, None, Some(false)]
        );
    }
}
