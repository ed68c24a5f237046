//! [`Informers`]: the one place of a process where informers are made, so that no kind is watched twice.

use super::{ApiSource, Informer, MetadataSource, Sink, Source, Writer, reflect};
use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, PartialObjectMeta},
};
use serde::de::DeserializeOwned;
use std::{
    any::{Any, TypeId},
    collections::HashMap,
    fmt::{self, Debug},
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Which objects of a kind an informer holds. The default is all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// Only the objects of this namespace.
    pub namespace: Option<String>,
    /// A label selector in its text form.
    pub labels: Option<String>,
    /// A field selector in its text form, such as `spec.nodeName=n1`.
    pub fields: Option<String>,
}

impl Selection {
    /// The objects that match a field selector.
    pub fn fields(selector: impl Into<String>) -> Self {
        Self { fields: Some(selector.into()), ..Self::default() }
    }

    /// The objects of one namespace.
    pub fn namespace(namespace: impl Into<String>) -> Self {
        Self { namespace: Some(namespace.into()), ..Self::default() }
    }

    /// The objects that match a label selector.
    pub fn labels(selector: impl Into<String>) -> Self {
        Self { labels: Some(selector.into()), ..Self::default() }
    }
}

type Typed = (TypeId, Selection);
type Slot = (Box<dyn Any + Send + Sync>, Box<dyn Any + Send + Sync>);

/// The hub of a process: hands out one shared [`Informer`] per kind and selection. Cloning gives another handle.
#[derive(Clone)]
pub struct Informers {
    hub: Arc<Hub>,
}

struct Hub {
    client: Option<Client>,
    stop: CancellationToken,
    tasks: TaskTracker,
    typed: Mutex<HashMap<Typed, Slot>>,
}

impl Debug for Informers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Informers").field("watches", &self.hub.tasks.len()).finish()
    }
}

impl Informers {
    /// A hub whose informers watch through `client` until `stop`.
    pub fn new(client: Client, stop: CancellationToken) -> Self {
        Self::build(Some(client), stop)
    }

    /// A hub without a server, whose informers are filled by hand through [`writer`](Self::writer): for tests.
    pub fn detached() -> Self {
        Self::build(None, CancellationToken::new())
    }

    fn build(client: Option<Client>, stop: CancellationToken) -> Self {
        let typed = Mutex::new(HashMap::new());
        Self { hub: Arc::new(Hub { client, stop, tasks: TaskTracker::new(), typed }) }
    }

    /// The informer of all objects of a kind; its watch starts with the first call.
    pub fn get<K>(&self) -> Informer<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.select(Selection::default())
    }

    /// The informer of the selected objects of a kind.
    pub fn select<K>(&self, selection: Selection) -> Informer<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.slot(selection).0
    }

    /// The writer of the informer of a kind in a [`detached`](Self::detached) hub.
    pub fn writer<K>(&self) -> Writer<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        self.slot(Selection::default()).1
    }

    fn slot<K>(&self, selection: Selection) -> (Informer<K>, Writer<K>)
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let mut typed = self.hub.typed.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (TypeId::of::<K>(), selection);
        if let Some((informer, writer)) = typed.get(&key)
            && let (Some(informer), Some(writer)) = (informer.downcast_ref(), writer.downcast_ref())
        {
            return (Informer::clone(informer), Writer::clone(writer));
        }
        let (informer, writer) = Informer::detached();
        let selection = key.1.clone();
        typed.insert(key, (Box::new(informer.clone()), Box::new(writer.clone())));
        if let Some(client) = &self.hub.client {
            let source = ApiSource::<K>::new(client.clone(), selection);
            self.start(source, writer.clone(), K::plural(&()).into_owned(), self.hub.stop.clone());
        }
        (informer, writer)
    }

    /// Keeps `sink` equal to the metadata of all objects of a kind that is known only at run time, until `stop` (or
    /// the end of the hub). Nothing is shared or stored here.
    pub fn metadata<T>(&self, resource: &ApiResource, sink: T, stop: &CancellationToken)
    where
        T: Sink<PartialObjectMeta<DynamicObject>>,
    {
        if let Some(client) = &self.hub.client {
            let source = MetadataSource::new(Api::all_with(client.clone(), resource));
            self.start(source, sink, resource.plural.clone(), stop.clone());
        }
    }

    fn start<S: Source>(&self, source: S, sink: impl Sink<S::Object>, what: String, stop: CancellationToken) {
        let hub_stop = self.hub.stop.clone();
        self.hub.tasks.spawn(async move {
            hub_stop.run_until_cancelled(reflect(source, sink, what, stop)).await;
        });
    }

    /// Waits for the end of all watches; call it after the stop signal.
    pub async fn closed(&self) {
        self.hub.tasks.close();
        self.hub.tasks.wait().await;
    }
}
