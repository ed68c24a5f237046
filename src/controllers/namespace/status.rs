//! The conditions of a namespace that is being deleted.

use super::content::Report;
use crate::client::conditions;
use k8s_openapi::{
    api::core::v1::{Namespace, NamespaceCondition},
    jiff::Timestamp,
};
use std::collections::BTreeMap;

/// A condition type with its reason and message while all is well and while it is not.
struct Text {
    kind: &'static str,
    good: (&'static str, &'static str),
    bad_reason: &'static str,
}

const DISCOVERY: Text = Text {
    kind: "NamespaceDeletionDiscoveryFailure",
    good: ("ResourcesDiscovered", "All resources successfully discovered"),
    bad_reason: "DiscoveryFailed",
};
const PARSING: Text = Text {
    kind: "NamespaceDeletionGroupVersionParsingFailure",
    good: ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    bad_reason: "GroupVersionParsingFailed",
};
const CONTENT: Text = Text {
    kind: "NamespaceDeletionContentFailure",
    good: ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
    bad_reason: "ContentDeletionFailed",
};
const REMAINING: Text = Text {
    kind: "NamespaceContentRemaining",
    good: ("ContentRemoved", "All content successfully removed"),
    bad_reason: "SomeResourcesRemain",
};
const FINALIZERS: Text = Text {
    kind: "NamespaceFinalizersRemaining",
    good: ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
    bad_reason: "SomeFinalizersRemain",
};

/// Sets the phase in which nothing new is admitted; tells whether that changed anything.
pub(super) fn terminating(namespace: &mut Namespace) -> bool {
    let status = namespace.status.get_or_insert_default();
    let changed = status.phase.as_deref() != Some("Terminating");
    status.phase = Some("Terminating".to_owned());
    changed
}

/// Puts what `report` says into the status of `namespace`; tells whether that changed anything.
pub(super) fn apply(namespace: &mut Namespace, report: &Report, now: Timestamp) -> bool {
    let mut changed = terminating(namespace);
    let list = namespace.status.get_or_insert_default().conditions.get_or_insert_default();
    for (text, trouble) in [
        (&DISCOVERY, undiscovered(&report.undiscovered)),
        (&PARSING, None),
        (&CONTENT, failures(&report.failures)),
        (&REMAINING, remaining(&report.left)),
        (&FINALIZERS, finalizers(&report.finalizers)),
    ] {
        changed |= conditions::set(list, condition(text, trouble), now);
    }
    changed
}

fn condition(text: &Text, trouble: Option<String>) -> NamespaceCondition {
    let (status, reason, message) = match trouble {
        Some(message) => ("True", text.bad_reason, message),
        None => ("False", text.good.0, text.good.1.to_owned()),
    };
    NamespaceCondition {
        type_: text.kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_transition_time: None,
    }
}

fn undiscovered(groups: &[String]) -> Option<String> {
    let some = !groups.is_empty();
    some.then(|| format!("Discovery failed for some groups, {} failing: {}", groups.len(), groups.join(", ")))
}

fn failures(failures: &[String]) -> Option<String> {
    let some = !failures.is_empty();
    some.then(|| {
        format!("Failed to delete all resource types, {} remaining: {}", failures.len(), failures.join(", "))
    })
}

fn remaining(left: &BTreeMap<String, usize>) -> Option<String> {
    let line = |(resource, count): (&String, &usize)| {
        // A core resource is followed by a bare dot: `pods.` stands for pods of the group without a name.
        let dot = if resource.contains('.') { "" } else { "." };
        format!("{resource}{dot} has {count} resource instances")
    };
    let lines: Vec<_> = left.iter().map(line).collect();
    (!lines.is_empty()).then(|| format!("Some resources are remaining: {}", lines.join(", ")))
}

fn finalizers(left: &BTreeMap<String, usize>) -> Option<String> {
    let lines: Vec<_> =
        left.iter().map(|(finalizer, count)| format!("{finalizer} in {count} resource instances")).collect();
    (!lines.is_empty())
        .then(|| format!("Some content in the namespace has finalizers remaining: {}", lines.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_say_what_is_stuck() {
        let mut namespace = Namespace::default();
        let report = Report {
            left: [("pods".to_owned(), 3), ("widgets.demo.io".to_owned(), 1)].into(),
            finalizers: [("demo.io/keep".to_owned(), 1)].into(),
            failures: vec!["secrets: boom".into()],
            undiscovered: vec!["metrics.k8s.io/v1beta1".into()],
            deleted: true,
        };
        let now = Timestamp::from_second(1).unwrap();
        assert!(apply(&mut namespace, &report, now));
        assert!(!apply(&mut namespace, &report, now), "the same report changes nothing");
        let status = namespace.status.clone().unwrap();
        assert_eq!(status.phase.as_deref(), Some("Terminating"));
        let text: Vec<_> = status
            .conditions
            .unwrap()
            .into_iter()
            .map(|c| format!("{}={} {}: {}", c.type_, c.status, c.reason.unwrap(), c.message.unwrap()))
            .collect();
        assert_eq!(
            text,
            [
                "NamespaceDeletionDiscoveryFailure=True DiscoveryFailed: Discovery failed for some groups, 1 failing: \
                 metrics.k8s.io/v1beta1",
                "NamespaceDeletionGroupVersionParsingFailure=False ParsedGroupVersions: All legacy kube types \
                 successfully parsed",
                "NamespaceDeletionContentFailure=True ContentDeletionFailed: Failed to delete all resource types, 1 \
                 remaining: secrets: boom",
                "NamespaceContentRemaining=True SomeResourcesRemain: Some resources are remaining: pods. has 3 \
                 resource instances, widgets.demo.io has 1 resource instances",
                "NamespaceFinalizersRemaining=True SomeFinalizersRemain: Some content in the namespace has \
                 finalizers remaining: demo.io/keep in 1 resource instances",
            ]
        );
        assert!(apply(&mut namespace, &Report::default(), now));
        let conditions = namespace.status.unwrap().conditions.unwrap();
        assert!(conditions.iter().all(|condition| condition.status == "False"));
    }
}
