//! The scheduler's loop: changes in, decisions out, effects in the background.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass};
use kube::{Client, Resource};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error as log_error};

use super::SchedulerConfig;
use super::core::{Core, Effect};
use super::effects::Effector;
use super::plugins::Plugins;
use super::pod_info::PodInfo;
use super::volumes::VolumeBinder;
use crate::client::informer::HandlerGuard;
use crate::client::{Clock, Informer, Informers, Key, LeaderElection, Recorder};

/// Most bindings and reports under way at once; with more, decisions wait.
const IN_FLIGHT: usize = 128;
/// Decisions between two looks at what has changed.
const BATCH: usize = 32;

/// Schedules pods until `stop`, while this process holds the lease `kube-system/kube-scheduler`.
pub async fn run(client: Client, informers: Informers, config: SchedulerConfig, stop: CancellationToken) {
    let election = LeaderElection::new(client.clone(), "kube-system", "kube-scheduler", &config.identity);
    let tasks = TaskTracker::new();
    let recorder = Recorder::start(client.clone(), &config.scheduler_name, "", &tasks, stop.clone());
    let binder = VolumeBinder::new(client.clone(), &informers);
    let effector = Effector::new(client, recorder, Clock::System, &config.scheduler_name, binder);
    let work = |leading: CancellationToken| schedule(&informers, &config, effector.clone(), leading);
    election.run(stop, work).await;
    tasks.close();
    tasks.wait().await;
}

/// Schedules pods until `stop`, without asking whether another process does too.
pub async fn schedule(
    informers: &Informers,
    config: &SchedulerConfig,
    effector: Effector,
    stop: CancellationToken,
) {
    let sources = Sources::new(informers);
    let inbox = Arc::new(Inbox::default());
    let _guards = sources.watch(&inbox);
    if stop.run_until_cancelled(sources.synced()).await.is_none() {
        return;
    }
    let core = Core::new(&config.scheduler_name, Plugins::default(), config.seed);
    let (effects, waiting) = (JoinSet::new(), JoinSet::new());
    let mut this = Loop { core, sources, inbox, effector, effects, waiting };
    stop.run_until_cancelled(this.run()).await;
    this.effects.shutdown().await;
    this.waiting.shutdown().await;
}

/// The kinds that decisions depend on: the fields of [`Sources`] and [`Changed`], and how a change reaches the core.
macro_rules! sources {
    ($($field:ident: $kind:ty, $tell:expr;)*) => {
        struct Sources {
            $($field: Informer<$kind>,)*
        }

        /// Keys of what has changed, by kind, in the order in which the core is told.
        #[derive(Debug, Default)]
        struct Changed {
            $($field: Keys,)*
        }

        impl Sources {
            fn new(informers: &Informers) -> Self {
                Self { $($field: informers.get::<$kind>(),)* }
            }

            fn watch(&self, inbox: &Arc<Inbox>) -> Vec<HandlerGuard> {
                vec![$(watch(&self.$field, inbox, |changed| &mut changed.$field),)*]
            }

            async fn synced(&self) {
                tokio::join!($(self.$field.synced(),)*);
            }

            fn tell(&self, changed: &Changed, core: &mut Core, now: Instant) {
                $(let tell: fn(&mut Core, &Key, Option<Arc<$kind>>, Instant) = $tell;
                for key in &changed.$field.order {
                    tell(core, key, self.$field.get(key), now);
                })*
            }
        }
    };
}

sources! {
    namespaces: Namespace, |core, key, object, _| core.namespace(key.name(), object.as_deref());
    nodes: Node, |core, key, object, now| core.node(key.name(), object, now);
    classes: StorageClass, |core, key, object, now| core.storage_class(key.name(), object, now);
    drivers: CSIDriver, |core, key, object, now| core.driver(key.name(), object, now);
    csi_nodes: CSINode, |core, key, object, now| core.csi_node(key.name(), object, now);
    capacities: CSIStorageCapacity, |core, key, object, now| core.capacity(key, object, now);
    volumes: PersistentVolume, |core, key, object, now| core.volume(key.name(), object, now);
    claims: PersistentVolumeClaim, |core, key, object, now| core.claim(key, object, now);
    budgets: PodDisruptionBudget, |core, key, object, _| core.budget(key, object);
    pods: Pod, |core, key, object, now| core.pod(key, object, now);
}

/// Keys of what has changed, each once, in the order of the first change. Bounded by the number of objects.
#[derive(Debug, Default)]
struct Keys {
    order: Vec<Key>,
    known: HashSet<Key>,
}

impl Keys {
    fn add(&mut self, key: Key) {
        if self.known.insert(key.clone()) {
            self.order.push(key);
        }
    }
}

#[derive(Debug, Default)]
struct Inbox {
    changed: Mutex<Changed>,
    arrived: Notify,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn watch<K: Resource + Send + Sync + 'static>(
    informer: &Informer<K>,
    inbox: &Arc<Inbox>,
    keys: fn(&mut Changed) -> &mut Keys,
) -> HandlerGuard {
    let inbox = inbox.clone();
    informer.add_handler(move |change| {
        keys(&mut inbox.lock()).add(Key::of(change.object().as_ref()));
        inbox.arrived.notify_one();
    })
}

/// A binding that has ended; `None` for a report.
type Ended = Option<(Arc<PodInfo>, bool)>;

struct Loop {
    core: Core,
    sources: Sources,
    inbox: Arc<Inbox>,
    effector: Effector,
    effects: JoinSet<Ended>,
    /// Bindings that wait for volumes: as many as there are such pods, for minutes.
    waiting: JoinSet<Ended>,
}

impl Loop {
    async fn run(&mut self) {
        loop {
            self.apply_changes();
            self.core.tick(Instant::now());
            while let Some(ended) = self.effects.try_join_next().or_else(|| self.waiting.try_join_next()) {
                self.ended(ended);
            }
            if self.decide_some() {
                tokio::task::yield_now().await;
            } else {
                self.wait().await;
            }
        }
    }

    fn apply_changes(&mut self) {
        let changed = std::mem::take(&mut *self.inbox.lock());
        self.sources.tell(&changed, &mut self.core, Instant::now());
    }

    /// Makes some decisions; true if there may be more to make.
    fn decide_some(&mut self) -> bool {
        for _ in 0..BATCH {
            if self.effects.len() >= IN_FLIGHT {
                return false;
            }
            let Some(effect) = self.core.next(Instant::now()) else { return false };
            self.perform(effect);
        }
        true
    }

    fn perform(&mut self, effect: Effect) {
        let effector = self.effector.clone();
        match effect {
            Effect::Bind { pod, node, volumes } => {
                debug!(pod = %pod.key, %node, "node chosen");
                let tasks = if volumes.is_empty() { &mut self.effects } else { &mut self.waiting };
                tasks.spawn(async move {
                    let bound = effector.bind(&pod, &node, &volumes).await;
                    Some((pod, bound))
                });
            }
            Effect::Report { pod, message, room } => {
                debug!(pod = %pod.key, message, "no node fits");
                self.effects.spawn(async move {
                    effector.report(&pod, &message, &room).await;
                    None
                });
            }
        }
    }

    fn ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        match ended {
            Ok(Some((pod, bound))) => self.core.bound(&pod, bound, Instant::now()),
            Ok(None) => {}
            Err(failure) => log_error!(error = %failure, "a binding ended abnormally"),
        }
    }

    /// Waits for a change, the end of an effect, or the time at which a pod is due.
    async fn wait(&mut self) {
        let due = self.core.next_due();
        let at_due = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.inbox.arrived.notified() => {}
            Some(ended) = self.effects.join_next() => self.ended(ended),
            Some(ended) = self.waiting.join_next() => self.ended(ended),
            () = at_due => {}
        }
    }
}
