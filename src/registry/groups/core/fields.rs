//! The fields of core kinds that field selectors may name.

use super::field;
use crate::registry::resource::SelectableField;

pub(super) const POD: &[SelectableField] = &[
    field("spec.nodeName", &["spec", "nodeName"]),
    field("spec.restartPolicy", &["spec", "restartPolicy"]),
    field("spec.schedulerName", &["spec", "schedulerName"]),
    field("spec.serviceAccountName", &["spec", "serviceAccountName"]),
    SelectableField { label: "spec.hostNetwork", path: &["spec", "hostNetwork"], absent: "false" },
    field("status.phase", &["status", "phase"]),
    field("status.podIP", &["status", "podIP"]),
    field("status.nominatedNodeName", &["status", "nominatedNodeName"]),
];

pub(super) const NAMESPACE: &[SelectableField] = &[field("status.phase", &["status", "phase"])];

pub(super) const SERVICE: &[SelectableField] =
    &[field("spec.clusterIP", &["spec", "clusterIP"]), field("spec.type", &["spec", "type"])];

pub(super) const NODE: &[SelectableField] =
    &[SelectableField { label: "spec.unschedulable", path: &["spec", "unschedulable"], absent: "false" }];

pub(super) const SECRET: &[SelectableField] = &[field("type", &["type"])];

pub(super) const REPLICATION_CONTROLLER: &[SelectableField] =
    &[SelectableField { label: "status.replicas", path: &["status", "replicas"], absent: "0" }];

pub(super) const EVENT: &[SelectableField] = &[
    field("involvedObject.kind", &["involvedObject", "kind"]),
    field("involvedObject.namespace", &["involvedObject", "namespace"]),
    field("involvedObject.name", &["involvedObject", "name"]),
    field("involvedObject.uid", &["involvedObject", "uid"]),
    field("involvedObject.apiVersion", &["involvedObject", "apiVersion"]),
    field("involvedObject.resourceVersion", &["involvedObject", "resourceVersion"]),
    field("involvedObject.fieldPath", &["involvedObject", "fieldPath"]),
    field("reason", &["reason"]),
    field("reportingComponent", &["reportingComponent"]),
    field("source", &["source", "component"]),
    field("type", &["type"]),
];

pub(in crate::registry::groups) const NEW_EVENT: &[SelectableField] =
    &[field("reason", &["reason"]), field("type", &["type"])];
