//! Wall-clock time that follows tokio's clock, so that a paused clock also stops the time written into objects.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    jiff::Timestamp,
};
use std::time::Duration;
use tokio::time::Instant;

/// Where a component takes the time from.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The clock of the system.
    #[default]
    System,
    /// A wall clock that starts at a given time and advances with tokio's (pausable) clock.
    Anchored {
        /// The wall time at `instant`.
        wall: Timestamp,
        /// The moment at which the clock was anchored.
        instant: Instant,
    },
}

impl Clock {
    /// A clock which shows `wall` now and advances with tokio's clock.
    pub fn anchored(wall: Timestamp) -> Self {
        Self::Anchored { wall, instant: Instant::now() }
    }

    /// The present time.
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Anchored { wall, instant } => {
                let passed = i64::try_from(instant.elapsed().as_nanos()).unwrap_or(i64::MAX);
                wall.saturating_add(k8s_openapi::jiff::SignedDuration::from_nanos(passed)).unwrap_or(*wall)
            }
        }
    }

    /// The present time as objects carry it.
    pub fn time(&self) -> Time {
        Time(self.now())
    }

    /// The present time with microseconds, as leases carry it.
    pub fn micro_time(&self) -> MicroTime {
        MicroTime(self.now())
    }
}

/// How long ago `then` was at `now`; zero when it lies in the future.
pub fn age(now: Timestamp, then: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn anchored_clock_follows_tokio_time() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock = Clock::anchored(start);
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now().to_string(), "2026-01-01T00:01:30Z");
        assert_eq!(age(clock.now(), start), Duration::from_secs(90));
        assert_eq!(age(start, clock.now()), Duration::ZERO);
    }
}
