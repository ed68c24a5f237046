//! Priority and fairness: requests are told apart by FlowSchemas, and each PriorityLevelConfiguration gets its share of
//! the server, so that one noisy client starves neither nodes nor controllers.
//!
//! A request takes seats of its level while it is handled. When none is free it waits in one of the level's queues,
//! which take turns, and after a while it is turned away with 429.

mod level;
mod rules;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use http::header::{CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};

use super::request_info::RequestInfo;
use crate::cache::{ResourceCache, Snapshot};
use crate::registry::{Registry, UserInfo};
use crate::telemetry::metrics::Family;
use level::{Level, Seats, Shape};
use rules::{Flow, Schemas};

static DISPATCHED: Family = Family::counter(
    "apiserver_flowcontrol_dispatched_requests_total",
    "Number of requests executed by API Priority and Fairness subsystem",
    &["priority_level", "flow_schema"],
);
static REJECTED: Family = Family::counter(
    "apiserver_flowcontrol_rejected_requests_total",
    "Number of requests rejected by API Priority and Fairness subsystem",
    &["priority_level", "flow_schema", "reason"],
);

/// After how many seconds a client that was turned away should come back.
const RETRY_AFTER_SECONDS: i32 = 1;
/// How long a request waits for a seat at most.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// A list takes one seat for so many objects, and no more seats than this.
const OBJECTS_PER_SEAT: usize = 100;
const MOST_SEATS: u32 = 10;

/// Where a request belongs: what the two `X-Kubernetes-PF-*` headers tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Uid of the FlowSchema.
    pub(super) schema: String,
    /// Uid of the PriorityLevelConfiguration.
    pub(super) level: String,
}

/// The levels and the rules, as the objects of the cluster describe them.
pub(super) struct FlowControl {
    registry: Arc<Registry>,
    /// Seats of the whole server.
    total: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    snapshots: Vec<Snapshot>,
    schemas: Schemas,
    levels: HashMap<String, Arc<Level>>,
}

/// A request that found no place in time.
#[derive(Debug)]
pub(super) struct Rejected;

impl Rejected {
    /// The answer, which upstream writes as plain text.
    pub(super) fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::from("Too many requests, please try again later.\n"));
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
        response
    }
}

impl FlowControl {
    /// A server that handles `total` requests at a time.
    pub(super) fn new(registry: Arc<Registry>, total: usize) -> Self {
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        Self { registry, total, state: Mutex::default() }
    }

    /// Finds out where a request belongs and waits for its seats, which it keeps until what is returned is dropped.
    /// Requests that run for as long as the client stays, but for watches, belong nowhere.
    pub(super) async fn enter(
        &self,
        user: &UserInfo,
        info: &RequestInfo,
    ) -> (Place, Result<Option<Seats>, Rejected>) {
        if info.is_long_running() && info.verb != "watch" {
            return (Place::default(), Ok(None));
        }
        let (flow, level) = self.classify(user, info);
        let place = Place { schema: flow.schema_uid.to_string(), level: level.uid().to_owned() };
        let labels = [level.name(), &*flow.schema];
        let seats = self.seats_for(info);
        match level.enter(seats, flow.hash, LONGEST_WAIT).await {
            Ok(seats) => {
                DISPATCHED.with(&labels).inc();
                (place, Ok(Some(seats)))
            }
            Err(reason) => {
                REJECTED.with(&[labels[0], labels[1], reason.as_str()]).inc();
                (place, Err(Rejected))
            }
        }
    }

    fn classify(&self, user: &UserInfo, info: &RequestInfo) -> (Flow, Arc<Level>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut state);
        let flow = state.schemas.classify(user, info);
        let level = state.levels.get(&*flow.level).or_else(|| state.levels.get(rules::CATCH_ALL)).cloned();
        // The catch-all level is always there: `levels_of` adds it.
        let level = level.unwrap_or_else(|| Arc::new(Level::exempt(rules::EXEMPT)));
        (flow, level)
    }

    /// Reads the objects again when they have changed.
    fn refresh(&self, state: &mut State) {
        let caches = [self.cache_of::<FlowSchema>(), self.cache_of::<PriorityLevelConfiguration>()];
        let now: Vec<Snapshot> = caches.iter().flatten().map(|cache| cache.current()).collect();
        let unchanged = !state.levels.is_empty()
            && state.snapshots.len() == now.len()
            && state.snapshots.iter().zip(&now).all(|(old, new)| old.holds_the_same_as(new));
        if unchanged {
            return;
        }
        let schemas = self.registry.read_all::<FlowSchema>("").unwrap_or_default();
        let levels = self.registry.read_all::<PriorityLevelConfiguration>("").unwrap_or_default();
        state.levels = levels_of(&levels, self.total, &state.levels);
        let known = |level: &str| state.levels.contains_key(level);
        state.schemas = Schemas::new(schemas, &known);
        state.snapshots = now;
    }

    fn cache_of<K: k8s_openapi::Resource>(&self) -> Option<Arc<ResourceCache>> {
        self.registry.cached(self.registry.catalog().of::<K>()?)
    }

    /// How many seats a request takes: long lists take more.
    fn seats_for(&self, info: &RequestInfo) -> u32 {
        let Some(target) = info.target.as_ref().filter(|t| info.verb == "list" && t.name.is_empty()) else {
            return 1;
        };
        let row = self.registry.catalog().by_plural(&target.group, &target.version, &target.resource);
        let Some(cache) = row.and_then(|row| self.registry.cached(row)) else { return 1 };
        let mut objects = cache.current().len();
        if let Ok(limit) = info.param("limit").parse::<usize>()
            && limit > 0
        {
            objects = objects.min(limit);
        }
        u32::try_from(objects.div_ceil(OBJECTS_PER_SEAT)).unwrap_or(MOST_SEATS).clamp(1, MOST_SEATS)
    }
}

/// The levels that objects describe. A level whose shape is the same goes on as it is, with what waits in it.
fn levels_of(
    objects: &[PriorityLevelConfiguration],
    total: u32,
    before: &HashMap<String, Arc<Level>>,
) -> HashMap<String, Arc<Level>> {
    let mut shapes: Vec<Shape> = objects.iter().map(Shape::of).collect();
    for mandatory in [Shape::exempt(rules::EXEMPT), Shape::catch_all(rules::CATCH_ALL)] {
        if shapes.iter().all(|shape| shape.name != mandatory.name) {
            shapes.push(mandatory);
        }
    }
    let shares: u32 = shapes.iter().map(|shape| shape.shares).sum();
    let server = before.values().next().map_or_else(|| level::Server::new(total), |level| level.server());
    shapes
        .into_iter()
        .map(|mut shape| {
            shape.nominal = (total * shape.shares).div_ceil(shares.max(1));
            let kept = before.get(&shape.name).filter(|level| *level.shape() == shape).cloned();
            (shape.name.clone(), kept.unwrap_or_else(|| Arc::new(Level::new(shape, server.clone()))))
        })
        .collect()
}

#[cfg(test)]
mod tests;
