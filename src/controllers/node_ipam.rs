//! Gives every node its part of the pod address ranges, in `spec.podCIDR` and `spec.podCIDRs`.
//!
//! What is taken is read from the nodes themselves; what was given out but has not come back through the cache yet is
//! remembered, so that no range is given out twice. One worker, so decisions do not race with each other.

mod range;

use super::Context;
use crate::client::{Controller, EventType, Informer, Key, Next, Recorder, error};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use range::Range;
pub(super) use range::parse_cidr;
use serde_json::json;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::sync::CancellationToken;
use tracing::{error as log_error, info};

/// What went wrong with one node.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Every part of a range is taken.
    #[error("no free pod range is left")]
    Exhausted,
    /// The range could not be written into the node.
    #[error("set pod range of node")]
    Patch(#[source] kube::Error),
}

struct Ipam {
    client: Client,
    recorder: Recorder,
    nodes: Informer<Node>,
    ranges: Vec<Range>,
    /// Given out, by node.
    given: Mutex<HashMap<Key, Vec<String>>>,
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let config = &context.config;
    let parse = |cidr: &String| Range::parse(cidr, config.node_mask_v4, config.node_mask_v6);
    let ranges: Option<Vec<Range>> = config.cluster_cidrs.iter().map(parse).collect();
    let Some(ranges) = ranges else {
        log_error!(ranges = ?config.cluster_cidrs, "pod ranges cannot be divided among nodes");
        return stop.cancelled().await;
    };
    let nodes = context.informers.get::<Node>();
    let controller = Controller::new("node-ipam").for_each(&nodes);
    let (client, recorder) = (context.client, context.recorder);
    let this = Arc::new(Ipam { client, recorder, nodes, ranges, given: Mutex::default() });
    let reconcile = move |key: Key| {
        let this = this.clone();
        async move { this.reconcile(&key).await }
    };
    controller.run(reconcile, stop).await;
}

/// The ranges that a node has.
fn ranges_of(node: &Node) -> Vec<&str> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    all.map(String::as_str).filter(|cidr| !cidr.is_empty()).collect()
}

/// One free part of each range, if all have one.
fn choose<'a>(ranges: &[Range], taken: impl Iterator<Item = &'a str> + Clone) -> Option<Vec<String>> {
    let part = |range: &Range| {
        let taken: BTreeSet<u64> = taken.clone().flat_map(|cidr| range.parts_in(cidr)).collect();
        range.first_free(&taken).map(|index| range.part(index))
    };
    ranges.iter().map(part).collect()
}

impl Ipam {
    async fn reconcile(&self, key: &Key) -> Result<Next, Error> {
        let Some(node) = self.nodes.get(key) else {
            self.given().remove(key);
            return Ok(Next::Done);
        };
        if !ranges_of(&node).is_empty() {
            self.given().remove(key);
            return Ok(Next::Done);
        }
        let Some(chosen) = self.give(key) else {
            let message = format!("Node {key} status is now: CIDRNotAvailable");
            self.recorder.event(node.as_ref(), EventType::Normal, "CIDRNotAvailable", message);
            return Err(Error::Exhausted);
        };
        let patch = json!({
            "metadata": {"uid": node.metadata.uid},
            "spec": {"podCIDR": chosen.first(), "podCIDRs": chosen},
        });
        let api = Api::<Node>::all(self.client.clone());
        match api.patch(key.name(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => info!(node = %key, ranges = chosen.join(","), "gave node its pod range"),
            Err(failure) if error::is_not_found(&failure) => {
                self.given().remove(key);
            }
            // Whether it was written is not known; the same range is tried again.
            Err(failure) => return Err(Error::Patch(failure)),
        }
        Ok(Next::Done)
    }

    /// The ranges for a node: those given to it before, or new ones.
    fn give(&self, key: &Key) -> Option<Vec<String>> {
        let nodes = self.nodes.list();
        let mut given = self.given();
        given.retain(|key, _| self.nodes.get(key).is_some());
        if let Some(before) = given.get(key) {
            return Some(before.clone());
        }
        let written = nodes.iter().flat_map(|node| ranges_of(node));
        let taken = written.chain(given.values().flatten().map(String::as_str));
        let chosen = choose(&self.ranges, taken)?;
        given.insert(key.clone(), chosen.clone());
        Some(chosen)
    }

    fn given(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Vec<String>>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::fake::{FakeApi, Status, eventually},
        controllers::{
            ControllersConfig,
            testing::{self, node},
        },
    };

    #[test]
    fn the_first_free_part_of_each_family_is_chosen() {
        let ranges = [
            Range::parse("10.42.0.0/16", 24, 64).unwrap(),
            Range::parse("2001:cafe:42::/56", 24, 64).unwrap(),
        ];
        let taken = ["10.42.0.0/24", "2001:cafe:42::/64", "10.42.2.0/24", "192.168.0.0/24"];
        assert_eq!(choose(&ranges, taken.into_iter()).unwrap(), ["10.42.1.0/24", "2001:cafe:42:1::/64"]);
        let small = [Range::parse("10.0.0.0/24", 24, 64).unwrap()];
        assert!(choose(&small, ["10.0.0.0/24"].into_iter()).is_none());
    }

    fn cidr(api: &FakeApi, name: &str) -> Option<String> {
        api.get::<Node>("", name)?.spec?.pod_cidr
    }

    #[tokio::test(start_paused = true)]
    async fn every_node_gets_a_range_of_its_own() {
        let api = FakeApi::new();
        let mut old = node("old");
        old.spec.get_or_insert_default().pod_cidr = Some("10.42.1.0/24".into());
        api.create(&old);
        for i in 0..20 {
            api.create(&node(&format!("n{i}")));
        }
        api.lose_answer("PATCH", "/nodes/", 5, Status::new(500, "InternalError"));
        let _running = testing::start(&api, run);
        eventually("all have one", || api.list::<Node>().iter().all(|node| !ranges_of(node).is_empty()))
            .await;
        let ranges: BTreeSet<_> =
            api.list::<Node>().into_iter().filter_map(|node| node.spec?.pod_cidr).collect();
        assert_eq!(ranges.len(), 21, "{ranges:?}");
        assert_eq!(cidr(&api, "old").unwrap(), "10.42.1.0/24");
        assert_eq!(
            api.get::<Node>("", "n0").unwrap().spec.unwrap().pod_cidrs,
            cidr(&api, "n0").map(|c| vec![c])
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_range_is_given_again_when_its_node_is_gone() {
        let api = FakeApi::new();
        let config = ControllersConfig { cluster_cidrs: vec!["10.42.0.0/23".into()], ..Default::default() };
        for name in ["a", "b", "c"] {
            api.create(&node(name));
        }
        let _running = testing::start_with(&api, config, run);
        let with = || api.list::<Node>().iter().filter(|node| !ranges_of(node).is_empty()).count();
        eventually("two have one", || with() == 2).await;
        assert_eq!(with(), 2);
        api.delete::<Node>("", "a");
        eventually("the third gets one", || with() == 2 && cidr(&api, "c").is_some()).await;
        assert_ne!(cidr(&api, "c"), cidr(&api, "b"));
    }
}
