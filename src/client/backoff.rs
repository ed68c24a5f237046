//! Exponential backoff with jitter for connections that are made again.

use std::time::Duration;

/// Delays that double from `first` up to `longest`, each shortened by up to a half at random so that many clients of
/// one server do not come back at the same moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// A backoff that has seen no failure yet.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The delay after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let full = exponential(self.first, self.longest, self.failures);
        self.failures = self.failures.saturating_add(1);
        full.mul_f64(rand::random_range(0.5..=1.0))
    }

    /// Forgets all failures.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// `first` doubled `failures` times, at most `longest`.
pub fn exponential(first: Duration, longest: Duration, failures: u32) -> Duration {
    let factor = 1_u32.checked_shl(failures).unwrap_or(u32::MAX);
    first.checked_mul(factor).map_or(longest, |delay| delay.min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest() {
        let (first, longest) = (Duration::from_millis(5), Duration::from_secs(1000));
        for (failures, want) in [(0, 5), (1, 10), (2, 20), (10, 5120), (18, 1_000_000), (40, 1_000_000)] {
            assert_eq!(exponential(first, longest, failures), Duration::from_millis(want), "{failures}");
        }
    }

    #[test]
    fn jitter_stays_within_half_and_full() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(4));
        for full in [1.0, 2.0, 4.0, 4.0] {
            let delay = backoff.next_delay().as_secs_f64();
            assert!((full / 2.0..=full).contains(&delay), "{delay} for {full}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_secs(1));
    }
}
