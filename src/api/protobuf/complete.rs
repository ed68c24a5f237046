//! What upstream's encoder of JSON always writes, though it says nothing: structs that are no pointers, as `{}`, and
//! times that are none, as `null`. The table knows them, because protobuf always has them too.

use serde_json::{Map, Value};

use super::table::{Field, MessageId, Shape, Table, Type};

/// The time that Go has where none is given, for types of Rust that cannot be without one.
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// Adds to an object of a built-in kind what upstream's encoder always writes. Other objects stay as they are.
pub fn complete(object: &mut Value, api_version: &str, kind: &str) {
    let table = Table::builtin();
    if let (Some(id), Value::Object(map)) = (table.kind(api_version, kind), object) {
        fill(table, id, map);
    }
}

fn fill(table: &Table, id: MessageId, map: &mut Map<String, Value>) {
    let message = table.message(id);
    if !message.completes {
        return;
    }
    for field in &message.fields {
        match (field.shape, field.kind) {
            (Shape::Inline, Type::Message(inner)) => fill(table, inner, map),
            (Shape::One, Type::Message(inner)) => {
                if !field.pointer {
                    present(map, field.name, || Value::Object(Map::new()));
                }
                if let Some(Value::Object(own)) = map.get_mut(field.name) {
                    fill(table, inner, own);
                }
            }
            (Shape::One, Type::Time | Type::MicroTime) if is_always_written(field) => {
                let time = map.entry(field.name).or_insert(Value::Null);
                if time == ZERO_TIME {
                    *time = Value::Null;
                }
            }
            (Shape::One, _) if is_always_written(field) => present(map, field.name, || zero(field.kind)),
            (Shape::List, kind) => {
                if field.required {
                    present(map, field.name, || Value::Array(Vec::new()));
                }
                let items = map.get_mut(field.name).and_then(Value::as_array_mut);
                below(table, kind, items.into_iter().flatten());
            }
            (Shape::Map, kind) => {
                let items = map.get_mut(field.name).and_then(Value::as_object_mut);
                below(table, kind, items.into_iter().flat_map(|items| items.values_mut()));
            }
            _ => {}
        }
    }
}

fn below<'a>(table: &Table, kind: Type, items: impl Iterator<Item = &'a mut Value>) {
    let Type::Message(inner) = kind else { return };
    if table.message(inner).completes {
        items.filter_map(Value::as_object_mut).for_each(|item| fill(table, inner, item));
    }
}

fn present(map: &mut Map<String, Value>, name: &str, value: impl FnOnce() -> Value) {
    match map.get_mut(name) {
        Some(there) if there.is_null() => *there = value(),
        Some(_) => {}
        None => drop(map.insert(name.to_owned(), value())),
    }
}

/// Whether a single value is in the JSON though there is none. Of the times, that of the creation is left out.
pub(super) fn is_always_written(field: &Field) -> bool {
    let plain = field.shape == Shape::One && !field.pointer;
    plain
        && match field.kind {
            Type::Time | Type::MicroTime => field.name != "creationTimestamp",
            Type::Message(_) | Type::Quantity | Type::IntOrString => true,
            Type::String | Type::Bool | Type::Int32 | Type::Int64 => field.required,
            _ => false,
        }
}

fn zero(kind: Type) -> Value {
    match kind {
        Type::String => "".into(),
        Type::Quantity => "0".into(),
        Type::Bool => false.into(),
        _ => 0.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn completed(api_version: &str, kind: &str, mut object: Value) -> Value {
        complete(&mut object, api_version, kind);
        object
    }

    #[test]
    fn structs_that_are_no_pointers_and_absent_times_are_there() {
        let pod = json!({"spec": {"containers": [{"name": "c", "env": [{"name": "e", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}]}]},
            "status": {"conditions": [{"type": "Ready", "lastTransitionTime": ZERO_TIME}],
                       "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 1}}}]}});
        let pod = completed("v1", "Pod", pod);
        assert_eq!(pod["metadata"], json!({}));
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["resources"], json!({}));
        assert_eq!(container["env"][0]["valueFrom"]["resourceFieldRef"]["divisor"], "0");
        assert_eq!(container.get("securityContext"), None, "a pointer");
        assert_eq!(pod["status"].get("startTime"), None, "a pointer");
        let condition = json!({"type": "Ready", "lastProbeTime": null, "lastTransitionTime": null});
        assert_eq!(pod["status"]["conditions"][0]["lastTransitionTime"], condition["lastTransitionTime"]);
        assert_eq!(pod["status"]["conditions"][0].get("lastProbeTime"), Some(&Value::Null));
        let status = &pod["status"]["containerStatuses"][0];
        assert_eq!(
            status["state"]["terminated"],
            json!({"exitCode": 1, "startedAt": null, "finishedAt": null})
        );
        assert_eq!(status["lastState"], json!({}));
    }

    #[test]
    fn every_time_of_every_kind_that_is_no_pointer_is_null_where_it_is_none() {
        for (kind, pointer, times) in [
            ("v1/Event", "", vec!["eventTime", "firstTimestamp", "lastTimestamp"]),
            (
                "events.k8s.io/v1/Event",
                "",
                vec!["deprecatedFirstTimestamp", "deprecatedLastTimestamp", "eventTime"],
            ),
            ("v1/Node", "/status/conditions/0", vec!["lastHeartbeatTime", "lastTransitionTime"]),
            ("v1/Service", "/status/conditions/0", vec!["lastTransitionTime"]),
            ("v1/Namespace", "/status/conditions/0", vec!["lastTransitionTime"]),
            ("v1/PersistentVolumeClaim", "/status/conditions/0", vec!["lastProbeTime", "lastTransitionTime"]),
            ("v1/ReplicationController", "/status/conditions/0", vec!["lastTransitionTime"]),
            ("apps/v1/Deployment", "/status/conditions/0", vec!["lastTransitionTime", "lastUpdateTime"]),
            ("apps/v1/ReplicaSet", "/status/conditions/0", vec!["lastTransitionTime"]),
            ("apps/v1/StatefulSet", "/status/conditions/0", vec!["lastTransitionTime"]),
            ("apps/v1/DaemonSet", "/status/conditions/0", vec!["lastTransitionTime"]),
            ("batch/v1/Job", "/status/conditions/0", vec!["lastProbeTime", "lastTransitionTime"]),
            ("autoscaling/v2/HorizontalPodAutoscaler", "/status/conditions/0", vec!["lastTransitionTime"]),
            ("policy/v1/PodDisruptionBudget", "/status/conditions/0", vec!["lastTransitionTime"]),
            (
                "certificates.k8s.io/v1/CertificateSigningRequest",
                "/status/conditions/0",
                vec!["lastTransitionTime", "lastUpdateTime"],
            ),
            (
                "flowcontrol.apiserver.k8s.io/v1/FlowSchema",
                "/status/conditions/0",
                vec!["lastTransitionTime"],
            ),
            (
                "apiextensions.k8s.io/v1/CustomResourceDefinition",
                "/status/conditions/0",
                vec!["lastTransitionTime"],
            ),
            ("apiregistration.k8s.io/v1/APIService", "/status/conditions/0", vec!["lastTransitionTime"]),
            ("storage.k8s.io/v1/VolumeAttachment", "/status/attachError", vec!["time"]),
        ] {
            let mut object = json!({});
            if let Some((_, last)) = pointer.rsplit_once("/status/") {
                let list = last.strip_suffix("/0");
                object["status"][list.unwrap_or(last)] = if list.is_some() { json!([{}]) } else { json!({}) };
            }
            let (api_version, kind) = kind.rsplit_once('/').unwrap();
            complete(&mut object, api_version, kind);
            let at = object.pointer(pointer).unwrap().as_object().unwrap();
            let nulls: Vec<_> =
                at.iter().filter(|(_, value)| value.is_null()).map(|(name, _)| name).collect();
            assert_eq!(nulls, times, "{api_version} {kind}");
        }
    }

    #[test]
    fn what_is_empty_has_its_whole_shape() {
        assert_eq!(
            completed("apps/v1", "Deployment", json!({})),
            json!({"metadata": {}, "spec": {"strategy": {}, "template": {"metadata": {}, "spec": {"containers": []}}},
                "status": {}})
        );
        let node = completed("v1", "Node", json!({"status": {"nodeInfo": {"osImage": "x"}}}));
        assert_eq!(node["status"]["daemonEndpoints"], json!({"kubeletEndpoint": {"Port": 0}}));
        assert_eq!(node["status"]["nodeInfo"]["osImage"], "x");
        assert_eq!(node["status"]["nodeInfo"]["machineID"], "");
        assert_eq!(completed("example.com/v1", "Own", json!({"a": 1})), json!({"a": 1}));
    }
}
