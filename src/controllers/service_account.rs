//! Keeps a ServiceAccount called `default` in every namespace that is not being deleted.

use super::Context;
use crate::client::{Change, Controller, Informer, Key, Next, error};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use tokio_util::sync::CancellationToken;

const NAME: &str = "default";

/// What went wrong with one namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The account could not be made.
    #[error("create default service account")]
    Create(#[source] kube::Error),
}

/// Runs until `stop`.
pub async fn run(context: Context, stop: CancellationToken) {
    let namespaces = context.informers.get::<Namespace>();
    let accounts = context.informers.get::<ServiceAccount>();
    let client = context.client;
    Controller::new("serviceaccount")
        .for_each(&namespaces)
        .watch(&accounts, |change: &Change<ServiceAccount>| gone(change).into_iter().collect())
        .run(
            move |key| {
                let missing = is_missing(&namespaces, &accounts, &key);
                let accounts = Api::<ServiceAccount>::namespaced(client.clone(), key.name());
                async move {
                    if missing {
                        create(&accounts).await?;
                    }
                    Ok::<_, Error>(Next::Done)
                }
            },
            stop,
        )
        .await;
}

/// The namespace whose default account has just gone.
fn gone(change: &Change<ServiceAccount>) -> Option<Key> {
    let meta = &change.object().metadata;
    let ours = change.after().is_none() && meta.name.as_deref() == Some(NAME);
    ours.then(|| Key::cluster(meta.namespace.as_deref().unwrap_or_default()))
}

/// The namespace is there to stay and has no default account.
fn is_missing(
    namespaces: &Informer<Namespace>,
    accounts: &Informer<ServiceAccount>,
    namespace: &Key,
) -> bool {
    let alive = namespaces.get(namespace).is_some_and(|found| found.metadata.deletion_timestamp.is_none());
    alive && accounts.find(namespace.name(), NAME).is_none()
}

async fn create(accounts: &Api<ServiceAccount>) -> Result<(), Error> {
    let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
    let account = ServiceAccount { metadata, ..ServiceAccount::default() };
    match accounts.create(&PostParams::default(), &account).await {
        Ok(_) => Ok(()),
        // The cache was behind, or the namespace has gone or is going: all fine.
        Err(failure)
            if error::is_already_exists(&failure)
                || error::is_namespace_terminating(&failure)
                || error::is_not_found(&failure) =>
        {
            Ok(())
        }
        Err(failure) => Err(Error::Create(failure)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::fake::{FakeApi, Status, eventually},
        controllers::testing::{self, namespace},
    };

    #[tokio::test(start_paused = true)]
    async fn every_namespace_gets_its_account_and_gets_it_back() {
        let api = FakeApi::new();
        api.create(&namespace("one"));
        api.fail("POST", "/serviceaccounts", 2, Status::new(500, "InternalError"));
        let _running = testing::start(&api, run);
        eventually("one", || api.get::<ServiceAccount>("one", NAME).is_some()).await;
        api.create(&namespace("two"));
        eventually("two", || api.get::<ServiceAccount>("two", NAME).is_some()).await;
        api.delete::<ServiceAccount>("one", NAME);
        eventually("one again", || api.get::<ServiceAccount>("one", NAME).is_some()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_namespace_that_goes_gets_no_account() {
        let api = FakeApi::new();
        api.create(&namespace("one"));
        let _running = testing::start(&api, run);
        eventually("one", || api.get::<ServiceAccount>("one", NAME).is_some()).await;
        api.delete::<Namespace>("", "one");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        api.delete::<ServiceAccount>("one", NAME);
        let before = api.requests("POST").len();
        tokio::time::sleep(std::time::Duration::from_secs(600)).await;
        assert_eq!(api.requests("POST").len(), before, "nothing is tried");
    }
}
