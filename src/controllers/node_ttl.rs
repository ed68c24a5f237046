//! Tells kubelets, by an annotation on their nodes, how long they may use Secrets and ConfigMaps without asking again:
//! the more nodes, the longer.

use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Context;
use crate::client::{Change, Controller, Key, Next, error};

/// The annotation, in seconds.
const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";
/// Fewest and most nodes of each step, and its seconds. Steps overlap so that a cluster at an edge does not swing.
const STEPS: [(usize, usize, u32); 6] = [
    (0, 100, 0),
    (90, 500, 15),
    (450, 1000, 30),
    (900, 2000, 60),
    (1800, 10_000, 300),
    (9000, usize::MAX, 600),
];

/// Why a node could not be annotated.
#[derive(Debug, thiserror::Error)]
#[error("annotate node")]
pub struct Error(#[source] kube::Error);

/// The step for this number of nodes, after `step`.
fn next_step(mut step: usize, nodes: usize) -> usize {
    while nodes > STEPS[step].1 && step + 1 < STEPS.len() {
        step += 1;
    }
    while nodes < STEPS[step].0 && step > 0 {
        step -= 1;
    }
    step
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let nodes = context.informers.get::<Node>();
    let client = context.client;
    let (step, all) = (std::sync::Arc::new(Mutex::new(0)), nodes.clone());
    let of_count = step.clone();
    let controller = Controller::new("ttlcontroller").watch(&nodes, move |change: &Change<Node>| {
        let own = Key::of(change.object().as_ref());
        let mut step = of_count.lock().unwrap_or_else(PoisonError::into_inner);
        let next = next_step(*step, all.len());
        if std::mem::replace(&mut *step, next) != next {
            return all.keys();
        }
        vec![own]
    });
    let reconcile = move |key: Key| {
        let seconds = STEPS[*step.lock().unwrap_or_else(PoisonError::into_inner)].2.to_string();
        let (node, client) = (nodes.get(&key), client.clone());
        async move {
            let known = node.as_ref().and_then(|node| node.metadata.annotations.as_ref()?.get(ANNOTATION));
            if node.is_none() || known == Some(&seconds) {
                return Ok(Next::Done);
            }
            let patch = Patch::Strategic(json!({"metadata": {"annotations": {ANNOTATION: seconds}}}));
            let api: Api<Node> = Api::all(client);
            match api.patch_metadata(key.name(), &PatchParams::default(), &patch).await {
                Err(failure) if !error::is_not_found(&failure) => Err(Error(failure)),
                _ => Ok(Next::Done),
            }
        }
    };
    controller.run(reconcile, stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_overlap() {
        for (step, nodes, expected) in
            [(0, 100, 0), (0, 101, 1), (1, 90, 1), (1, 89, 0), (0, 5000, 4), (5, 3, 0), (4, 10_001, 5)]
        {
            assert_eq!(next_step(step, nodes), expected, "{step} {nodes}");
        }
    }
}
