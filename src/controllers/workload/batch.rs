//! Slow start: one call, then two, then four, as long as all of a batch succeed.
//!
//! A controller whose creates are refused (quota, admission) finds that out with one refused call, not with 500.

use std::future::Future;

use futures::StreamExt;

/// How many calls of one batch run at the same time.
pub const CONCURRENCY: usize = 16;

/// The sizes of the batches that `total` calls are made in.
pub fn batch_sizes(total: usize) -> impl Iterator<Item = usize> {
    let mut left = total;
    let mut next = 1;
    std::iter::from_fn(move || {
        let size = next.min(left);
        left -= size;
        next = size * 2;
        (size > 0).then_some(size)
    })
}

/// What came of a slow start.
#[derive(Debug)]
pub struct Outcome<E> {
    /// Calls that succeeded.
    pub succeeded: usize,
    /// The first error; no batch was started after the one it came from.
    pub error: Option<E>,
}

/// Makes up to `total` calls in growing batches and stops after the first batch with an error. Each call gets its number.
pub async fn slow_start<F, Fut, E>(total: usize, call: F) -> Outcome<E>
where
    F: Fn(usize) -> Fut,
    Fut: Future<Output = Result<(), E>>,
{
    let (mut outcome, mut first) = (Outcome { succeeded: 0, error: None }, 0);
    for size in batch_sizes(total) {
        let mut results =
            futures::stream::iter((first..first + size).map(&call)).buffer_unordered(CONCURRENCY);
        while let Some(result) = results.next().await {
            match result {
                Ok(()) => outcome.succeeded += 1,
                Err(error) => outcome.error = outcome.error.or(Some(error)),
            }
        }
        if outcome.error.is_some() {
            break;
        }
        first += size;
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn batches_double_until_all_calls_are_made() {
        for (total, sizes) in [(0, vec![]), (1, vec![1]), (7, vec![1, 2, 4]), (10, vec![1, 2, 4, 3])] {
            assert_eq!(batch_sizes(total).collect::<Vec<_>>(), sizes, "{total}");
        }
    }

    #[tokio::test]
    async fn a_failing_batch_ends_the_slow_start() {
        let calls = AtomicUsize::new(0);
        let outcome = slow_start(100, |_| async {
            if calls.fetch_add(1, Ordering::SeqCst) >= 2 { Err("quota") } else { Ok(()) }
        })
        .await;
        assert_eq!((outcome.succeeded, outcome.error), (2, Some("quota")));
        assert_eq!(calls.load(Ordering::SeqCst), 3, "the batch of four must not start");
    }
}
