//! Publishes the cluster's CA bundle as the ConfigMap `kube-root-ca.crt` in every namespace.

use super::Context;
use crate::client::{Change, Controller, Informer, Key, Next, Selection, error};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio_util::sync::CancellationToken;

const NAME: &str = "kube-root-ca.crt";
const FILE: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
/// Tells readers of the ConfigMap what it may be used for.
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using \
    internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed \
    across distributions of Kubernetes clusters.";

/// What went wrong with one namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ConfigMap could not be made.
    #[error("create {NAME}")]
    Create(#[source] kube::Error),
    /// The ConfigMap could not be set right.
    #[error("update {NAME}")]
    Update(#[source] kube::Error),
}

/// What is to be done in one namespace.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Create(Box<ConfigMap>),
    Update(Box<ConfigMap>),
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let namespaces = context.informers.get::<Namespace>();
    // Only these, so that the data of all other ConfigMaps is not held in memory.
    let maps = context.informers.select::<ConfigMap>(Selection::fields(format!("metadata.name={NAME}")));
    let (client, config) = (context.client, context.config);
    Controller::new("root-ca-certificate-publisher")
        .for_each(&namespaces)
        .watch(&maps, |change: &Change<ConfigMap>| {
            change.object().metadata.namespace.iter().map(|namespace| Key::cluster(namespace)).collect()
        })
        .run(
            move |key| {
                let step = look(&namespaces, &maps, &key, &config.root_ca_pem);
                let maps = Api::<ConfigMap>::namespaced(client.clone(), key.name());
                async move { perform(&maps, step).await }
            },
            stop,
        )
        .await;
}

fn look(namespaces: &Informer<Namespace>, maps: &Informer<ConfigMap>, key: &Key, pem: &str) -> Step {
    let alive = namespaces.get(key).is_some_and(|found| found.metadata.deletion_timestamp.is_none());
    if alive { decide(maps.find(key.name(), NAME), pem) } else { Step::Nothing }
}

fn decide(found: Option<Arc<ConfigMap>>, pem: &str) -> Step {
    let data = Some(BTreeMap::from([(FILE.to_owned(), pem.to_owned())]));
    let description = (DESCRIPTION.to_owned(), DESCRIPTION_TEXT.to_owned());
    let Some(found) = found else {
        let metadata = ObjectMeta {
            name: Some(NAME.to_owned()),
            annotations: Some(BTreeMap::from([description])),
            ..ObjectMeta::default()
        };
        return Step::Create(Box::new(ConfigMap { metadata, data, ..ConfigMap::default() }));
    };
    let described = found.metadata.annotations.as_ref().and_then(|all| all.get(DESCRIPTION));
    if found.data == data && described == Some(&description.1) {
        return Step::Nothing;
    }
    let mut right = ConfigMap::clone(&found);
    right.data = data;
    right.metadata.annotations.get_or_insert_default().insert(description.0, description.1);
    Step::Update(Box::new(right))
}

async fn perform(maps: &Api<ConfigMap>, step: Step) -> Result<Next, Error> {
    match step {
        Step::Nothing => {}
        Step::Create(map) => match maps.create(&PostParams::default(), &map).await {
            Ok(_) => {}
            Err(failure)
                if error::is_already_exists(&failure)
                    || error::is_namespace_terminating(&failure)
                    || error::is_not_found(&failure) => {}
            Err(failure) => return Err(Error::Create(failure)),
        },
        Step::Update(map) => match maps.replace(NAME, &PostParams::default(), &map).await {
            Ok(_) => {}
            // Its disappearance will be seen.
            Err(failure) if error::is_not_found(&failure) => {}
            Err(failure) => return Err(Error::Update(failure)),
        },
    }
    Ok(Next::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::fake::{FakeApi, eventually},
        controllers::testing::{self, namespace},
    };

    #[test]
    fn only_a_wrong_or_missing_map_leads_to_a_write() {
        let Step::Create(right) = decide(None, "pem") else { panic!("expected a create") };
        let right = *right;
        assert_eq!(decide(Some(Arc::new(right.clone())), "pem"), Step::Nothing);
        let Step::Update(renewed) = decide(Some(Arc::new(right.clone())), "other") else {
            panic!("expected an update")
        };
        assert_eq!(renewed.data.unwrap()[FILE], "other");
        let mut more = right.clone();
        more.data.get_or_insert_default().insert("extra".into(), "x".into());
        assert_eq!(decide(Some(Arc::new(more)), "pem"), Step::Update(Box::new(right.clone())));
        let mut bare = right.clone();
        bare.metadata.annotations = None;
        assert_eq!(decide(Some(Arc::new(bare)), "pem"), Step::Update(Box::new(right)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_bundle_is_published_and_kept_right() {
        let api = FakeApi::new();
        api.create(&namespace("one"));
        let _running = testing::start(&api, run);
        let pem = || api.get::<ConfigMap>("one", NAME).and_then(|map| map.data?.get(FILE).cloned());
        eventually("published", || pem().as_deref() == Some(testing::ROOT_CA)).await;
        api.update::<ConfigMap>("one", NAME, |map| map.data = None);
        eventually("set right", || pem().as_deref() == Some(testing::ROOT_CA)).await;
        api.delete::<ConfigMap>("one", NAME);
        eventually("made again", || pem().as_deref() == Some(testing::ROOT_CA)).await;
    }
}
