//! Carrying out the plan of a ReplicaSet or a ReplicationController: claims, creates, deletes, status.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio_util::sync::CancellationToken;

use super::plan::{self, Failure};
use super::replicates::Replicates;
use super::victims;
use crate::client::{Clock, Controller, Informer, Key, Next};
use crate::controllers::Context;
use crate::controllers::workload::control::PodControl;
use crate::controllers::workload::{self, batch, ownership, pods, selects, template};

/// How many sets are reconciled at once.
const WORKERS: usize = 5;

/// Why a set could not be reconciled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its pods cannot be told.
    #[error("claim pods")]
    Claim(#[source] selects::Error),
    /// A pod could not be created.
    #[error("create pod")]
    Create(#[source] kube::Error),
    /// A pod could not be deleted.
    #[error("delete pod")]
    Delete(#[source] kube::Error),
    /// The status could not be written.
    #[error("update status")]
    Status(#[source] kube::Error),
}

/// Runs the controller of the kind `S` until `stop`.
pub async fn run<S: Replicates>(context: Context, stop: CancellationToken) {
    let Context { client, informers, recorder, clock, .. } = context;
    let (sets, pods) = (informers.get::<S>(), informers.get::<Pod>());
    let control = PodControl::new(client.clone(), pods.clone(), recorder);
    let possible_owners = sets.clone();
    let controller = Controller::new(S::NAME)
        .workers(WORKERS)
        .for_each(&sets)
        .owned_by::<S, _>(&pods)
        .watch(&pods, move |change| selects::possible_owners(&possible_owners, change));
    let this = Arc::new(Sets { client, sets, control, clock });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

struct Sets<S> {
    client: Client,
    sets: Informer<S>,
    control: PodControl,
    clock: Clock,
}

impl<S: Replicates> Sets<S> {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(set) = self.sets.get(key) else {
            self.control.forget(key);
            return Ok(Next::Done);
        };
        let settled = self.control.is_settled(key, set.meta().uid.as_deref());
        let claimed = selects::claim(&self.client, set.as_ref(), self.control.pods(), pods::is_active).await;
        let owned = claimed.map_err(Error::Claim)?;
        let now = self.clock.now();
        let outcome = if settled { self.manage(key, &set, &owned, now).await } else { Ok(()) };
        let failure = outcome.as_ref().err().map(failure_of);
        let common = set.as_set();
        let status = plan::status(&common, &owned, failure.as_ref(), now);
        let wanted = set.with_status(status);
        // Compared after the conversion, which drops what the kind cannot say.
        if let (Some(before), Some(after)) = (&common.status, &wanted.as_set().status)
            && plan::same_status(before, after)
        {
            // Nothing to write.
        } else {
            selects::write_status(&self.client, &wanted).await.map_err(Error::Status)?;
        }
        outcome?;
        Ok(plan::recheck(&common, &owned, now).map_or(Next::Done, Next::After))
    }

    async fn manage(&self, key: &Key, set: &S, owned: &[Arc<Pod>], now: Timestamp) -> Result<(), Error> {
        let common = set.as_set();
        let active = owned.iter().filter(|pod| pods::is_active(pod)).count();
        let crowding = if active > plan::desired(&common) { self.crowding(set) } else { HashMap::new() };
        let plan = plan::plan(&common, owned, &crowding, now);
        if plan.create > 0 {
            let owner = ownership::controller_reference(&S::api_version(&()), &S::kind(&()), set.meta());
            let template = common.spec.and_then(|spec| spec.template).unwrap_or_default();
            let pod = template::pod_from_template(&template, key.namespace(), key.name(), owner);
            let created = batch::slow_start(plan.create, |_| self.control.create(set, key, &pod)).await;
            if let Some(failure) = created.error {
                return Err(Error::Create(failure));
            }
        }
        self.control.delete_all(set, key, &plan.delete).await.map_err(Error::Delete)
    }

    /// How many pods of this set and of its siblings under the same owner run on each node.
    fn crowding(&self, set: &S) -> HashMap<String, usize> {
        let meta = set.meta();
        let mut family = vec![meta.uid.clone().unwrap_or_default()];
        if let Some(parent) = ownership::controller_uid(meta) {
            family.extend(self.sets.owned_by(parent).iter().filter_map(|sibling| sibling.meta().uid.clone()));
        }
        family.sort();
        family.dedup();
        let related: Vec<_> = family.iter().flat_map(|uid| self.control.pods().owned_by(uid)).collect();
        victims::crowding(related.iter().map(AsRef::as_ref))
    }
}

fn failure_of(error: &Error) -> Failure {
    let (reason, source) = match error {
        Error::Delete(source) => ("FailedDelete", source),
        Error::Create(source) | Error::Status(source) => ("FailedCreate", source),
        Error::Claim(source) => return Failure { reason: "FailedCreate", message: source.to_string() },
    };
    Failure { reason, message: workload::failure_text(source) }
}
