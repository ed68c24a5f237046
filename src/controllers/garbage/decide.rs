//! What an object needs, by the graph alone.

use super::graph::{Deletion, Graph, Node, Owner, Uid};

/// What the graph says about one owner of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is there.
    Solid,
    /// It is there, but deletes itself after its dependents.
    Waiting,
    /// It is not there.
    Dangling,
    /// The graph does not know it, or knows it elsewhere: only the API can tell.
    Unknown,
}

/// What to do about an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing.
    Nothing,
    /// Some owner is not solid: look closer and then delete it or drop references.
    CheckOwners,
    /// It is deleted in the foreground and nothing blocks that any more.
    Finish,
    /// It is deleted in the foreground and waits for these dependents; they must be looked at.
    WaitFor(Vec<Uid>),
    /// It is deleted, and its dependents (these) must be freed first.
    Orphan(Vec<Uid>),
}

/// Decides about the object `uid`.
pub(super) fn need(graph: &Graph, uid: &str) -> Need {
    let Some(node) = graph.get(uid) else { return Need::Nothing };
    match node.deletion {
        Deletion::Other => Need::Nothing,
        Deletion::Orphan => {
            Need::Orphan(graph.dependents(uid).map(|dependent| dependent.uid.clone()).collect())
        }
        Deletion::Foreground => {
            let blocks = |node: &&Node| node.owners.iter().any(|owner| *owner.uid == *uid && owner.blocks);
            let blocking: Vec<_> =
                graph.dependents(uid).filter(blocks).map(|dependent| dependent.uid.clone()).collect();
            if blocking.is_empty() { Need::Finish } else { Need::WaitFor(blocking) }
        }
        Deletion::None => {
            let all_solid = node.owners.iter().all(|owner| standing(graph, node, owner) == Standing::Solid);
            if all_solid { Need::Nothing } else { Need::CheckOwners }
        }
    }
}

/// What the graph says about `owner` of `node`. A namespaced owner counts only in the namespace of its dependent.
pub(super) fn standing(graph: &Graph, node: &Node, owner: &Owner) -> Standing {
    let Some(found) = graph.get(&owner.uid) else { return Standing::Unknown };
    let namespace = found.key.namespace();
    if found.key.name() != &*owner.name || (!namespace.is_empty() && namespace != node.key.namespace()) {
        return Standing::Unknown;
    }
    if found.deletion == Deletion::Foreground { Standing::Waiting } else { Standing::Solid }
}

/// What to do with an object whose owners have been looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It stays as it is.
    Keep,
    /// It stays, without the references to owners that are not solid.
    DropReferences,
    /// An owner waits for it and nothing else holds it: delete it in the foreground, since it has dependents itself.
    DeleteForeground,
    /// Nothing holds it: delete it by the policy that its own finalizers ask for.
    Delete,
}

/// Judges an object by the standing of its owners (none of them `Unknown`).
pub(super) fn judge(standings: &[Standing], has_dependents: bool) -> Verdict {
    let any = |wanted| standings.contains(&wanted);
    match (any(Standing::Solid), any(Standing::Waiting), any(Standing::Dangling)) {
        (_, false, false) => Verdict::Keep,
        (true, _, _) => Verdict::DropReferences,
        (false, true, _) if has_dependents => Verdict::DeleteForeground,
        (false, _, _) => Verdict::Delete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Key;

    fn node(key: Key, owners: &[(&str, bool)], deletion: Deletion) -> Node {
        let owner = |(uid, blocks): &(&str, bool)| Owner {
            uid: (*uid).into(),
            api_version: "v1".into(),
            kind: "K".into(),
            name: (*uid).into(),
            blocks: *blocks,
        };
        let uid = key.name().into();
        Node { uid, kind: 0, key, owners: owners.iter().map(owner).collect(), deletion }
    }

    #[test]
    fn owners_are_judged_together() {
        use Standing::{Dangling, Solid, Waiting};
        for (standings, has_dependents, want) in [
            (&[][..], false, Verdict::Keep),
            (&[Solid], true, Verdict::Keep),
            (&[Solid, Dangling], false, Verdict::DropReferences),
            (&[Solid, Waiting], true, Verdict::DropReferences),
            (&[Dangling], true, Verdict::Delete),
            (&[Waiting], false, Verdict::Delete),
            (&[Waiting], true, Verdict::DeleteForeground),
            (&[Waiting, Dangling], true, Verdict::DeleteForeground),
        ] {
            assert_eq!(judge(standings, has_dependents), want, "{standings:?} {has_dependents}");
        }
    }

    #[test]
    fn needs_follow_from_deletion_and_owners() {
        let mut graph = Graph::default();
        let none = Deletion::None;
        graph.apply(node(Key::new("ns", "solid"), &[], none));
        graph.apply(node(Key::new("ns", "waiting"), &[], Deletion::Foreground));
        graph.apply(node(Key::new("ns", "done"), &[], Deletion::Foreground));
        graph.apply(node(Key::new("ns", "freeing"), &[], Deletion::Orphan));
        graph.apply(node(Key::new("ns", "kept"), &[("solid", true)], none));
        graph.apply(node(Key::new("ns", "lost"), &[("solid", true), ("nobody", false)], none));
        graph.apply(node(Key::new("ns", "blocking"), &[("waiting", true)], none));
        graph.apply(node(Key::new("ns", "lenient"), &[("waiting", false), ("done", false)], none));
        graph.apply(node(Key::new("ns", "child"), &[("freeing", false)], none));
        graph.apply(node(Key::new("ns", "going"), &[("nobody", false)], Deletion::Other));
        for (uid, want) in [
            ("unknown", Need::Nothing),
            ("solid", Need::Nothing),
            ("kept", Need::Nothing),
            ("going", Need::Nothing),
            ("lost", Need::CheckOwners),
            ("blocking", Need::CheckOwners),
            ("lenient", Need::CheckOwners),
            ("waiting", Need::WaitFor(vec!["blocking".into()])),
            ("done", Need::Finish),
            ("freeing", Need::Orphan(vec!["child".into()])),
            ("child", Need::Nothing),
        ] {
            assert_eq!(need(&graph, uid), want, "{uid}");
        }
    }

    #[test]
    fn an_owner_counts_only_under_its_name_and_in_reach() {
        let mut graph = Graph::default();
        graph.apply(node(Key::new("ns", "here"), &[], Deletion::None));
        graph.apply(node(Key::new("other", "there"), &[], Deletion::None));
        graph.apply(node(Key::cluster("cluster"), &[], Deletion::Foreground));
        let dependent =
            |key: Key| node(key, &[("here", true), ("there", true), ("cluster", true)], Deletion::None);
        let standings = |node: &Node| -> Vec<Standing> {
            node.owners.iter().map(|owner| standing(&graph, node, owner)).collect()
        };
        use Standing::{Solid, Unknown, Waiting};
        assert_eq!(standings(&dependent(Key::new("ns", "d"))), [Solid, Unknown, Waiting]);
        assert_eq!(standings(&dependent(Key::cluster("d"))), [Unknown, Unknown, Waiting]);
        let mut renamed = dependent(Key::new("ns", "d"));
        renamed.owners[0].name = "somebody".into();
        assert_eq!(standings(&renamed)[0], Unknown);
    }
}
