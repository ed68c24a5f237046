//! Leader election on a coordination `Lease`: at most one of several candidates does the work.
//!
//! A candidate trusts only its own clock: a lease counts as expired when it has not changed for its duration *as seen
//! by the candidate*. The holder renews it; when that fails for the renew deadline, which is shorter than the
//! duration, the work is stopped before anybody else can take over. A clean stop gives the lease up at once.

use super::{Clock, error};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use std::{future::Future, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How fast leadership moves. The defaults are those of upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderTimings {
    /// Others wait this long after the last renewal before they take over.
    pub lease: Duration,
    /// The holder gives up when it could not renew for this long.
    pub renew_deadline: Duration,
    /// Pause between attempts to get or renew the lease.
    pub retry: Duration,
}

impl Default for LeaderTimings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// One candidate for one lease.
#[derive(Clone)]
pub struct LeaderElection {
    leases: Api<Lease>,
    name: String,
    identity: String,
    timings: LeaderTimings,
    clock: Clock,
}

impl std::fmt::Debug for LeaderElection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaderElection").field("name", &self.name).field("identity", &self.identity).finish()
    }
}

/// The lease as last seen, and since when it has looked like that.
struct Observed {
    lease: Lease,
    since: Instant,
}

/// What a candidate does about the lease it sees.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// There is no lease: make one.
    Create,
    /// It is free or expired: take it over.
    Take,
    /// It is ours: renew it.
    Renew,
    /// Somebody else holds it.
    Wait,
}

impl LeaderElection {
    /// A candidate called `identity` for the lease `namespace/name`. The identity must be unique among candidates that
    /// live at the same time; one that is kept over restarts lets a crashed holder take over from itself at once.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            timings: LeaderTimings::default(),
            clock: Clock::System,
        }
    }

    /// Uses other timings.
    pub fn timings(mut self, timings: LeaderTimings) -> Self {
        self.timings = timings;
        self
    }

    /// Uses another clock for the times written into the lease.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Runs `work` whenever this candidate leads, until `stop`. The token given to `work` is cancelled when the
    /// leadership ends; the lease is only given up after `work` has returned.
    pub async fn run<F, Fut>(self, stop: CancellationToken, work: F)
    where
        F: Fn(CancellationToken) -> Fut,
        Fut: Future<Output = ()>,
    {
        let mut observed = None;
        while !stop.is_cancelled() {
            if stop.run_until_cancelled(self.acquire(&mut observed)).await.is_none() {
                return;
            }
            info!(lease = self.name, identity = self.identity, "became leader");
            let leading = stop.child_token();
            let renewal = async {
                let kept = stop.run_until_cancelled(self.keep(&mut observed)).await;
                leading.cancel();
                kept.is_none()
            };
            let (clean, ()) = tokio::join!(renewal, work(leading.clone()));
            if clean {
                self.release(observed.take()).await;
                return;
            }
            warn!(lease = self.name, identity = self.identity, "lost the leadership");
        }
    }

    /// Returns when the lease is ours.
    async fn acquire(&self, observed: &mut Option<Observed>) {
        loop {
            match self.attempt(observed).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(failure) if error::is_conflict(&failure) || error::is_already_exists(&failure) => {
                    debug!(lease = self.name, "another candidate was faster");
                }
                Err(failure) => {
                    debug!(lease = self.name, error = error::chain(&failure), "cannot get the lease")
                }
            }
            tokio::time::sleep(self.timings.retry).await;
        }
    }

    /// Renews the lease until that has failed for the renew deadline, or somebody else has it.
    async fn keep(&self, observed: &mut Option<Observed>) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.timings.retry).await;
            let left = self.timings.renew_deadline.saturating_sub(renewed.elapsed());
            let started = Instant::now();
            match tokio::time::timeout(left, self.attempt(observed)).await {
                Ok(Ok(true)) => renewed = started,
                Ok(Ok(false)) => return,
                Ok(Err(failure)) => {
                    debug!(lease = self.name, error = error::chain(&failure), "cannot renew the lease")
                }
                Err(_elapsed) => {}
            }
            if renewed.elapsed() >= self.timings.renew_deadline {
                return;
            }
        }
    }

    /// Reads the lease if needed and makes one step; tells whether the lease is ours now.
    async fn attempt(&self, observed: &mut Option<Observed>) -> kube::Result<bool> {
        let holds = observed.as_ref().is_some_and(|seen| holder(&seen.lease) == Some(self.identity.as_str()));
        if !holds {
            self.observe(observed).await?;
        }
        let step = decide(observed.as_ref(), &self.identity, Instant::now());
        let written = match (step, observed.as_ref()) {
            (Step::Wait, _) => return Ok(false),
            (Step::Create, _) | (_, None) => self.leases.create(&PostParams::default(), &self.fresh()).await,
            (Step::Take, Some(seen)) => self.replace(self.taken(&seen.lease)).await,
            (Step::Renew, Some(seen)) => self.replace(self.renewed(&seen.lease)).await,
        };
        match written {
            Ok(lease) => {
                *observed = Some(Observed { lease, since: Instant::now() });
                Ok(true)
            }
            Err(failure) => {
                if error::is_conflict(&failure) || error::is_not_found(&failure) {
                    self.observe(observed).await?;
                }
                Err(failure)
            }
        }
    }

    /// Reads the lease; keeps the time of the last change when it looks as before.
    async fn observe(&self, observed: &mut Option<Observed>) -> kube::Result<()> {
        let Some(lease) = self.leases.get_opt(&self.name).await? else {
            *observed = None;
            return Ok(());
        };
        let since = match observed {
            Some(seen) if seen.lease.spec == lease.spec => seen.since,
            _ => Instant::now(),
        };
        *observed = Some(Observed { lease, since });
        Ok(())
    }

    async fn replace(&self, lease: Lease) -> kube::Result<Lease> {
        self.leases.replace(&self.name, &PostParams::default(), &lease).await
    }

    async fn release(&self, observed: Option<Observed>) {
        let Some(seen) = observed else { return };
        if holder(&seen.lease) != Some(self.identity.as_str()) {
            return;
        }
        let mut lease = seen.lease;
        let spec = lease.spec.get_or_insert_default();
        // Left out, not empty: the API refuses an empty holder.
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(self.clock.micro_time());
        spec.acquire_time = Some(self.clock.micro_time());
        match tokio::time::timeout(self.timings.retry, self.replace(lease)).await {
            Ok(Ok(_)) => debug!(lease = self.name, "gave the lease up"),
            Ok(Err(failure)) => {
                debug!(lease = self.name, error = error::chain(&failure), "cannot give the lease up")
            }
            Err(_elapsed) => debug!(lease = self.name, "cannot give the lease up in time"),
        }
    }

    fn fresh(&self) -> Lease {
        let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        Lease { metadata, spec: Some(self.spec(0, None)) }
    }

    fn taken(&self, old: &Lease) -> Lease {
        let transitions = old.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or_default();
        let mut lease = old.clone();
        lease.spec = Some(self.spec(transitions.saturating_add(1), None));
        lease
    }

    fn renewed(&self, old: &Lease) -> Lease {
        let spec = old.spec.clone().unwrap_or_default();
        let mut lease = old.clone();
        lease.spec = Some(self.spec(spec.lease_transitions.unwrap_or_default(), spec.acquire_time));
        lease
    }

    fn spec(
        &self,
        transitions: i32,
        acquired: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime>,
    ) -> LeaseSpec {
        let now = self.clock.micro_time();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.timings.lease.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: Some(acquired.unwrap_or_else(|| now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

fn holder(lease: &Lease) -> Option<&str> {
    lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
}

fn decide(observed: Option<&Observed>, me: &str, now: Instant) -> Step {
    let Some(Observed { lease, since }) = observed else { return Step::Create };
    match holder(lease) {
        None => Step::Take,
        Some(holder) if holder == me => Step::Renew,
        Some(_) => {
            let seconds =
                lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
            let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
            if now.duration_since(*since) >= duration { Step::Take } else { Step::Wait }
        }
    }
}

#[cfg(test)]
mod tests;
