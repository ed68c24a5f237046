//! How many requests run at a time: beyond the limit a request is turned away with 429 before it costs anything.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::authentication::MASTERS;
use super::request_info::RequestInfo;
use crate::api::error::ApiError;
use crate::registry::UserInfo;

/// After how many seconds a client that was turned away should come back.
const RETRY_AFTER_SECONDS: i32 = 1;

/// Places for reading and for writing requests; long-running ones take none.
pub(super) struct InFlight {
    reading: Arc<Semaphore>,
    writing: Arc<Semaphore>,
}

impl InFlight {
    pub(super) fn new(reading: usize, writing: usize) -> Self {
        Self { reading: Arc::new(Semaphore::new(reading)), writing: Arc::new(Semaphore::new(writing)) }
    }

    /// A place for a request, held until it is answered; `None` for a request that needs none.
    ///
    /// `system:masters` is never turned away, so that an overloaded cluster can be repaired.
    pub(super) fn enter(
        &self,
        user: &UserInfo,
        info: &RequestInfo,
    ) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        if info.is_long_running() || user.groups.iter().any(|group| group == MASTERS) {
            return Ok(None);
        }
        let reads = matches!(info.verb.as_str(), "get" | "list" | "watch" | "head");
        let places = if reads { &self.reading } else { &self.writing };
        places.clone().try_acquire_owned().map(Some).map_err(|_| {
            ApiError::too_many_requests("Too many requests, please try again later.", RETRY_AFTER_SECONDS)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &str, uri: &str) -> RequestInfo {
        RequestInfo::new(&method.parse().unwrap(), &uri.parse().unwrap())
    }

    #[test]
    fn requests_beyond_the_limit_are_turned_away_and_places_come_back() {
        let limits = InFlight::new(1, 1);
        let user = UserInfo::default();
        let read = info("GET", "/api/v1/pods");
        let place = limits.enter(&user, &read).unwrap();
        let error = limits.enter(&user, &read).unwrap_err();
        assert_eq!((error.code(), error.retry_after_seconds()), (429, Some(1)));
        limits.enter(&user, &info("POST", "/api/v1/namespaces")).unwrap();
        drop(place);
        limits.enter(&user, &read).unwrap();
    }

    #[test]
    fn watches_and_masters_are_never_turned_away() {
        let limits = InFlight::new(0, 0);
        let master = UserInfo { groups: vec![MASTERS.to_owned()], ..UserInfo::default() };
        assert!(limits.enter(&UserInfo::default(), &info("GET", "/api/v1/pods?watch=1")).unwrap().is_none());
        assert!(limits.enter(&master, &info("GET", "/api/v1/pods")).unwrap().is_none());
        assert!(limits.enter(&UserInfo::default(), &info("GET", "/api/v1/pods")).is_err());
    }
}
