//! Every object, its owners and its dependents. Pure data: each change returns the uids that are worth a look.

use crate::client::Key;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// The finalizer of a deletion in the foreground.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of a deletion that orphans the dependents.
pub(super) const ORPHAN: &str = "orphan";

/// A uid; cloning costs a reference count.
pub(super) type Uid = Arc<str>;
/// A kind, by its number in [`super::feed::Kinds`].
pub(super) type KindId = u32;

/// How an object is being deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deletion {
    /// Not at all.
    None,
    /// It waits for its dependents.
    Foreground,
    /// Its dependents are to be freed first.
    Orphan,
    /// Something else keeps it.
    Other,
}

/// One owner reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) uid: Uid,
    pub(super) api_version: Arc<str>,
    pub(super) kind: Arc<str>,
    pub(super) name: Arc<str>,
    /// A deletion of the owner in the foreground waits for this object.
    pub(super) blocks: bool,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) uid: Uid,
    pub(super) kind: KindId,
    pub(super) key: Key,
    pub(super) owners: Box<[Owner]>,
    pub(super) deletion: Deletion,
}

impl Node {
    /// What the graph keeps of an object's metadata; `None` without a uid.
    pub(super) fn from_meta(kind: KindId, meta: &ObjectMeta) -> Option<Self> {
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        Some(Self {
            uid: meta.uid.as_deref()?.into(),
            kind,
            key: Key::new(namespace, meta.name.as_deref()?),
            owners: owners(meta.owner_references.as_deref().unwrap_or_default()),
            deletion: deletion(meta),
        })
    }
}

/// The owners of an object, in order.
pub(super) fn owners(references: &[OwnerReference]) -> Box<[Owner]> {
    let owner = |reference: &OwnerReference| Owner {
        uid: reference.uid.as_str().into(),
        api_version: reference.api_version.as_str().into(),
        kind: reference.kind.as_str().into(),
        name: reference.name.as_str().into(),
        blocks: reference.block_owner_deletion == Some(true),
    };
    references.iter().map(owner).collect()
}

fn deletion(meta: &ObjectMeta) -> Deletion {
    if meta.deletion_timestamp.is_none() {
        return Deletion::None;
    }
    let has = |wanted: &str| meta.finalizers.iter().flatten().any(|finalizer| finalizer == wanted);
    if has(FOREGROUND) {
        Deletion::Foreground
    } else if has(ORPHAN) {
        Deletion::Orphan
    } else {
        Deletion::Other
    }
}

/// All objects by uid, by key and by owner.
#[derive(Debug, Default)]
pub(super) struct Graph {
    nodes: HashMap<Uid, Node>,
    keys: HashMap<KindId, HashMap<Key, Uid>>,
    /// Uids of dependents by the uid of their owner, whether the owner is known or not.
    dependents: HashMap<Uid, BTreeSet<Uid>>,
}

impl Graph {
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn get(&self, uid: &str) -> Option<&Node> {
        self.nodes.get(uid)
    }

    /// The objects that name `uid` as an owner.
    pub(super) fn dependents(&self, uid: &str) -> impl Iterator<Item = &Node> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|uid| self.nodes.get(uid))
    }

    /// Adds or changes an object.
    pub(super) fn apply(&mut self, node: Node) -> Vec<Uid> {
        let mut look = Vec::new();
        let known = self.keys.get(&node.kind).and_then(|keys| keys.get(&node.key)).cloned();
        if let Some(replaced) = known.filter(|known| *known != node.uid) {
            look.extend(self.remove(&replaced));
        }
        let old = self.nodes.remove(&node.uid);
        let before = old.as_ref().map_or(Deletion::None, |old| old.deletion);
        if old.as_ref().is_none_or(|old| old.owners != node.owners) {
            if let Some(old) = &old {
                self.unlink(old);
                // An owner that waits for its dependents may have one less to wait for.
                look.extend(old.owners.iter().filter(|owner| self.waits(&owner.uid)).map(|o| o.uid.clone()));
            }
            for owner in &node.owners {
                self.dependents.entry(owner.uid.clone()).or_default().insert(node.uid.clone());
            }
            if !node.owners.is_empty() {
                look.push(node.uid.clone());
            }
        }
        if node.deletion != before && matches!(node.deletion, Deletion::Foreground | Deletion::Orphan) {
            look.push(node.uid.clone());
            if node.deletion == Deletion::Foreground {
                look.extend(self.dependents.get(&node.uid).into_iter().flatten().cloned());
            }
        }
        self.keys.entry(node.kind).or_default().insert(node.key.clone(), node.uid.clone());
        self.nodes.insert(node.uid.clone(), node);
        look
    }

    /// Removes the object of a kind with this key.
    pub(super) fn delete(&mut self, kind: KindId, key: &Key) -> Vec<Uid> {
        let uid = self.keys.get(&kind).and_then(|keys| keys.get(key)).cloned();
        uid.map(|uid| self.remove(&uid)).unwrap_or_default()
    }

    /// Makes `nodes` all there is of a kind.
    pub(super) fn replace(&mut self, kind: KindId, nodes: Vec<Node>) -> Vec<Uid> {
        let listed: BTreeSet<&Uid> = nodes.iter().map(|node| &node.uid).collect();
        let known = self.keys.get(&kind).into_iter().flat_map(HashMap::values);
        let gone: Vec<Uid> = known.filter(|uid| !listed.contains(uid)).cloned().collect();
        let mut look: Vec<Uid> = gone.iter().flat_map(|uid| self.remove(uid)).collect();
        look.extend(nodes.into_iter().flat_map(|node| self.apply(node)));
        look
    }

    /// Removes an object: its dependents may be garbage now, and owners may have waited for it.
    pub(super) fn remove(&mut self, uid: &str) -> Vec<Uid> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        if let Some(keys) = self.keys.get_mut(&node.kind)
            && keys.get(&node.key) == Some(&node.uid)
        {
            keys.remove(&node.key);
        }
        self.unlink(&node);
        let mut look: Vec<Uid> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        look.extend(node.owners.iter().filter(|owner| self.waits(&owner.uid)).map(|owner| owner.uid.clone()));
        look
    }

    fn unlink(&mut self, node: &Node) {
        for owner in &node.owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(&node.uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    fn waits(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|node| node.deletion == Deletion::Foreground)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(uid: &str, owners: &[&str], deletion: Deletion) -> Node {
        let owner = |uid: &&str| Owner {
            uid: (*uid).into(),
            api_version: "v1".into(),
            kind: "K".into(),
            name: (*uid).into(),
            blocks: true,
        };
        let owners = owners.iter().map(owner).collect();
        Node { uid: uid.into(), kind: 0, key: Key::new("ns", uid), owners, deletion }
    }

    fn sorted(mut uids: Vec<Uid>) -> Vec<String> {
        uids.sort();
        uids.dedup();
        uids.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn changes_name_the_objects_worth_a_look() {
        let mut graph = Graph::default();
        let none = Deletion::None;
        assert!(graph.apply(node("owner", &[], none)).is_empty(), "an object without owners needs nothing");
        assert_eq!(sorted(graph.apply(node("a", &["owner"], none))), ["a"]);
        assert_eq!(sorted(graph.apply(node("b", &["owner"], none))), ["b"]);
        assert!(graph.apply(node("a", &["owner"], none)).is_empty(), "no change, no look");
        assert_eq!(sorted(graph.apply(node("owner", &[], Deletion::Foreground))), ["a", "b", "owner"]);
        assert_eq!(sorted(graph.remove("a")), ["owner"], "the owner waits for one less");
        assert_eq!(sorted(graph.apply(node("b", &[], none))), ["owner"], "b freed itself");
        assert_eq!(graph.dependents("owner").count(), 0);
    }

    #[test]
    fn a_removed_owner_leaves_its_dependents_to_look_at() {
        let mut graph = Graph::default();
        graph.apply(node("owner", &[], Deletion::None));
        graph.apply(node("a", &["owner"], Deletion::None));
        assert_eq!(sorted(graph.delete(0, &Key::new("ns", "owner"))), ["a"]);
        assert!(graph.delete(0, &Key::new("ns", "owner")).is_empty());
        assert_eq!(graph.dependents("owner").count(), 1, "the reference is still there");
    }

    #[test]
    fn an_object_replaced_under_its_name_counts_as_removed() {
        let mut graph = Graph::default();
        graph.apply(node("owner", &[], Deletion::None));
        graph.apply(node("a", &["owner"], Deletion::None));
        let mut again = node("owner-2", &[], Deletion::None);
        again.key = Key::new("ns", "owner");
        assert_eq!(sorted(graph.apply(again)), ["a"]);
        assert!(graph.get("owner").is_none() && graph.get("owner-2").is_some());
    }

    #[test]
    fn a_new_list_finds_what_went_unseen() {
        let mut graph = Graph::default();
        graph.apply(node("owner", &[], Deletion::None));
        graph.apply(node("a", &["owner"], Deletion::None));
        let look =
            graph.replace(0, vec![node("a", &["owner"], Deletion::None), node("c", &[], Deletion::None)]);
        assert_eq!(sorted(look), ["a"]);
        assert_eq!(graph.len(), 2);
        graph.replace(0, vec![]);
        assert!(graph.len() == 0 && graph.dependents.is_empty());
    }
}
