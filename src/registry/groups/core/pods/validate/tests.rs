//! Tables of pod specs and what is wrong with them.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;
use crate::registry::groups::core::pods::defaults;

fn pod(spec: Value) -> Pod {
    let mut pod = serde_json::from_value(json!({"spec": spec})).unwrap();
    defaults::pod(&mut pod);
    pod
}

fn problems(spec: Value) -> Vec<String> {
    let mut errors = FieldErrors::new();
    pod_spec(pod(spec).spec.as_ref().unwrap(), &Path::new("spec"), &mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn with_container(extra: Value) -> Value {
    let mut container = json!({"name": "a", "image": "i:1"});
    for (key, value) in extra.as_object().unwrap() {
        container[key] = value.clone();
    }
    json!({"containers": [container]})
}

#[test]
fn a_good_pod_has_no_problems() {
    let spec = json!({
        "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "m", "items": [{"key": "k", "path": "p"}]}}],
        "initContainers": [{"name": "init", "image": "i:1", "restartPolicy": "Always",
            "startupProbe": {"exec": {"command": ["true"]}}}],
        "containers": [{"name": "a", "image": "i:1", "ports": [{"name": "http", "containerPort": 80}],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['x']"}}}],
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
            "readinessProbe": {"httpGet": {"port": "http"}},
            "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "example.com/gpu": "1"}}}],
        "tolerations": [{"operator": "Exists"}], "nodeSelector": {"a": "b"},
    });
    assert_eq!(problems(spec), Vec::<String>::new());
}

#[test]
fn problems_are_named_as_upstream_names_them() {
    let cases = [
        (json!({"containers": []}), "spec.containers: Required value"),
        (with_container(json!({"image": ""})), "spec.containers[0].image: Required value"),
        (with_container(json!({"name": ""})), "spec.containers[0].name: Required value"),
        (
            with_container(json!({"name": "A"})),
            "spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]}),
            "spec.containers[1].name: Duplicate value: \"a\"",
        ),
        (
            with_container(json!({"imagePullPolicy": "Sometimes"})),
            "spec.containers[0].imagePullPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \
             \"IfNotPresent\", \"Never\"",
        ),
        (
            with_container(json!({"volumeMounts": [{"name": "x", "mountPath": "/x"}]})),
            "spec.containers[0].volumeMounts[0].name: Not found: \"x\"",
        ),
        (
            with_container(json!({"ports": [{"containerPort": 0}]})),
            "spec.containers[0].ports[0].containerPort: Required value",
        ),
        (
            with_container(json!({"ports": [{"containerPort": 70000}]})),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (with_container(json!({"env": [{"name": ""}]})), "spec.containers[0].env[0].name: Required value"),
        (
            with_container(
                json!({"env": [{"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
            ),
            "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
        ),
        (
            with_container(json!({"livenessProbe": {"successThreshold": 2, "tcpSocket": {"port": 1}}})),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            with_container(json!({"livenessProbe": {}})),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            with_container(json!({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}})),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            with_container(json!({"resources": {"limits": {"cpus": "1"}, "requests": {"cpus": "1"}}})),
            "spec.containers[0].resources.limits[cpus]: Invalid value: \"cpus\": must be a standard resource for containers",
        ),
        (
            json!({"restartPolicy": "Maybe", "containers": [{"name": "a", "image": "i"}]}),
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"Never\", \"OnFailure\"",
        ),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}], "containers": [{"name": "a", "image": "i"}]}),
            "spec.volumes[0]: Forbidden: may not specify more than 1 volume type",
        ),
        (
            json!({"tolerations": [{"key": "a", "effect": "Never"}], "containers": [{"name": "a", "image": "i"}]}),
            "spec.tolerations[0].effect: Unsupported value: \"Never\"",
        ),
        (
            json!({"terminationGracePeriodSeconds": -1, "containers": [{"name": "a", "image": "i"}]}),
            "spec.terminationGracePeriodSeconds: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i"}], "initContainers": [{"name": "b", "image": "i",
                "livenessProbe": {"tcpSocket": {"port": 1}}}]}),
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
    ];
    for (spec, expected) in cases {
        let found = problems(spec.clone());
        assert!(!found.is_empty() && found[0].starts_with(expected), "{spec}\n{found:?}\nwanted {expected}");
    }
}

#[test]
fn only_images_deadlines_and_new_tolerations_may_change() {
    let old = pod(with_container(json!({})));
    let check = |change: &dyn Fn(&mut Pod)| {
        let mut new = old.clone();
        change(&mut new);
        let mut errors = FieldErrors::new();
        update(&new, &old, &mut errors);
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(check(&|pod| pod.spec.as_mut().unwrap().containers[0].image = Some("j".into())).is_empty());
    assert!(check(&|pod| pod.spec.as_mut().unwrap().active_deadline_seconds = Some(5)).is_empty());
    assert!(
        check(&|pod| pod.spec.as_mut().unwrap().tolerations = Some(vec![Default::default()])).is_empty(),
        "a new toleration"
    );
    let refused = check(&|pod| pod.spec.as_mut().unwrap().hostname = Some("h".into()));
    assert!(
        refused[0].starts_with("spec: Forbidden: pod updates may not change fields other than"),
        "{refused:?}"
    );
    let refused = check(&|pod| pod.spec.as_mut().unwrap().containers.clear());
    assert_eq!(refused, ["spec.containers: Forbidden: pod updates may not add or remove containers"]);
}
