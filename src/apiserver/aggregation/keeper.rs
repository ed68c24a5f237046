//! The loop behind aggregation: registers custom groups, looks whether other servers answer, learns what they serve.
//!
//! Level-triggered: a round reads everything and does what is due. Rounds come with every change of an APIService or a
//! definition of custom resources, and every second while there is a server to look after (its Service and endpoints
//! are seen in the cache then, which costs next to nothing); a cluster without any pays for the changes alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use serde_json::Value;
use tokio::time::Instant;

use super::availability::{self, Finding};
use super::delegates::Delegate;
use super::learned::RemoteVersion;
use super::registered;
use crate::api::error::ApiError;
use crate::api::json;
use crate::api::meta;
use crate::apiserver::ApiServer;
use crate::registry::{Body, Resource};

/// The pause between two rounds while there is something to look after, or something changed just now.
const STEP: Duration = Duration::from_secs(1);
/// The pause while what others read cannot be written: at the start its namespace may be missing.
const RETRY: Duration = Duration::from_millis(50);
/// A round without cause, should an event have been missed.
const RESYNC: Duration = Duration::from_secs(300);
/// A server that answers is asked again after this long, and one that does not after at most this long.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// What a server serves is asked again after this long.
const LEARN_AGAIN: Duration = Duration::from_secs(60);

/// What is remembered of a delegate between rounds.
struct Seen {
    /// As it was; anything else than its availability makes it another one.
    delegate: Delegate,
    /// What was wrong with its Service.
    of_service: Option<Finding>,
    /// Where it was.
    slices: Vec<EndpointSlice>,
    finding: Finding,
    look_at: Instant,
    pause: Duration,
    learned: Arc<RemoteVersion>,
    learn_at: Instant,
}

type Memory = HashMap<String, Seen>;

impl ApiServer {
    /// Looks after other servers until this one stops. The caller spawns this once and owns the task.
    pub(in crate::apiserver) async fn keep_aggregation(self: Arc<Self>) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.aggregate()).await;
        self.aggregation.connections.close();
    }

    async fn aggregate(&self) {
        // What is not loaded yet is not gone.
        if self.registry.cache().ready().await.is_err() {
            return;
        }
        let mut memory = Memory::new();
        loop {
            let catalog = self.registry.catalog();
            let rows = [
                catalog.by_plural("apiregistration.k8s.io", "v1", "apiservices"),
                catalog.by_plural("apiextensions.k8s.io", "v1", "customresourcedefinitions"),
            ];
            let rows: Vec<&Resource> = rows.into_iter().flatten().map(|row| &**row).collect();
            let Some(events) = self.changes(&rows).await else {
                tokio::time::sleep(STEP).await;
                continue;
            };
            let mut events = events.ready_chunks(256);
            let (mut wait, mut registered) = (Duration::ZERO, false);
            loop {
                match tokio::time::timeout(wait, events.next()).await {
                    Ok(Some(events)) if events.iter().all(|&alive| alive) => registered = false,
                    Ok(_) => break,
                    Err(_) if wait == RESYNC => registered = false,
                    Err(_) => {}
                }
                registered = registered || self.register().await;
                let told = self.round(&mut memory).await;
                wait = match (registered, told && memory.is_empty()) {
                    (false, _) => RETRY,
                    (_, true) => RESYNC,
                    _ => STEP,
                };
            }
        }
    }

    /// Writes what others read; whether all of it is written.
    async fn register(&self) -> bool {
        let outcomes = [
            self.publish_authentication().await,
            self.register_custom_groups().await,
            self.mark_local().await,
        ];
        for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            tracing::debug!(%error, "aggregation is not registered yet");
        }
        outcomes.iter().all(Result::is_ok)
    }

    /// Looks after every delegate; whether all findings are written.
    async fn round(&self, memory: &mut Memory) -> bool {
        let delegates = self.delegates();
        memory.retain(|name, _| delegates.0.iter().any(|one| one.name == *name));
        let mut looks = Vec::with_capacity(delegates.0.len());
        for one in &delegates.0 {
            let (one, seen) = (one.clone(), memory.remove(&one.name));
            looks.push(async move {
                let seen = self.look(&one, seen).await;
                (one, seen)
            });
        }
        let looks = futures::future::join_all(looks).await;
        self.aggregation.learn(
            looks
                .iter()
                .map(|(one, seen)| ((one.group.clone(), one.version.clone()), seen.learned.clone()))
                .collect::<BTreeMap<_, _>>(),
        );
        let mut written = true;
        for (one, seen) in looks {
            if let Err(error) = self.tell(&one.name, &seen.finding).await {
                tracing::debug!(service = one.name, %error, "availability is not written yet");
                written = false;
            }
            memory.insert(one.name.clone(), seen);
        }
        written
    }

    /// Does what is due for one delegate.
    async fn look(&self, delegate: &Delegate, seen: Option<Seen>) -> Seen {
        let delegate = Delegate { available: false, ..delegate.clone() };
        let service =
            self.registry.read_one::<Service>(&delegate.namespace, &delegate.service).ok().flatten();
        let slices = self.slices_of(&delegate);
        let of_service = availability::of_service(&delegate, service.as_ref(), &slices);
        let now = Instant::now();
        let mut seen = match seen {
            Some(seen) if seen.delegate == delegate => seen,
            _ => Seen {
                learned: Arc::new(RemoteVersion::unknown(&delegate)),
                finding: Finding::passed(),
                of_service: None,
                slices: Vec::new(),
                look_at: now,
                learn_at: now,
                pause: STEP,
                delegate,
            },
        };
        let moved = seen.of_service != of_service || seen.slices != slices;
        (seen.of_service, seen.slices) = (of_service, slices);
        if moved || now >= seen.look_at {
            let before = seen.finding.status;
            seen.finding = match &seen.of_service {
                Some(wrong) => wrong.clone(),
                None => self.probe(&seen.delegate).await,
            };
            let passed = seen.finding.status == "True";
            if passed && (moved || before != "True") {
                seen.learn_at = now;
            }
            seen.pause = if passed || moved { STEP } else { (seen.pause * 2).min(LOOK_AGAIN) };
            seen.look_at = now + if passed { LOOK_AGAIN } else { seen.pause };
        }
        if seen.finding.status != "True" {
            seen.learned = Arc::new(seen.learned.stale());
        } else if now >= seen.learn_at {
            match self.learn_of(&seen.delegate).await {
                Ok(learned) => {
                    seen.learned = Arc::new(learned);
                    seen.learn_at = now + LEARN_AGAIN;
                }
                Err(why) => {
                    tracing::debug!(
                        service = seen.delegate.name,
                        why,
                        "another server does not say what it serves"
                    );
                    seen.learned = Arc::new(seen.learned.stale());
                    seen.learn_at = now + STEP * 5;
                }
            }
        }
        seen
    }

    fn slices_of(&self, delegate: &Delegate) -> Vec<EndpointSlice> {
        let row = self.registry.catalog().of::<EndpointSlice>();
        let Some(slices) = row.and_then(|row| self.registry.cached(row)).map(|cache| cache.current()) else {
            return Vec::new();
        };
        slices
            .iter(Some(&delegate.namespace), None)
            .filter(|slice| slice.label("kubernetes.io/service-name") == Some(&delegate.service))
            .filter_map(|slice| json::typed(slice.json()).ok())
            .collect()
    }

    /// Says of the groups that this server answers itself, and of which somebody said otherwise, that they are there.
    async fn mark_local(&self) -> Result<(), ApiError> {
        for service in self.registry.read_all::<APIService>("")? {
            if service.spec.as_ref().is_some_and(|spec| spec.service.is_some()) {
                continue;
            }
            let name = service.metadata.name.unwrap_or_default();
            self.tell(&name, &Finding::local()).await?;
        }
        Ok(())
    }

    /// Writes what was found into the status of an APIService, unless it says so already.
    async fn tell(&self, name: &str, finding: &Finding) -> Result<(), ApiError> {
        let row = self.registry.catalog().of::<APIService>();
        let row = row.ok_or_else(|| ApiError::internal("APIServices are not served"))?;
        let cached = self.registry.cached(row).and_then(|cache| cache.get("", name));
        let Some(cached) = cached else { return Ok(()) };
        let mut value: Value = serde_json::from_slice(cached.json()).map_err(ApiError::internal)?;
        let known =
            value.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        let Some(conditions) = finding.among(&known, &meta::now_rfc3339()) else { return Ok(()) };
        value["status"]["conditions"] = conditions.into();
        let body = Body::json(serde_json::to_vec(&value).map_err(ApiError::internal)?);
        let written = self.registry.update(&registered::context(), row, Some("status"), "", name, body).await;
        match written {
            Err(error) if error.code() != 404 => Err(error),
            _ => Ok(()),
        }
    }
}
