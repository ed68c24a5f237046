//! Tables of pod specs and what is wrong with them.

use k8s_openapi::api::core::v1::{Pod, Toleration};
use serde_json::{Value, json};

use super::*;
use crate::registry::groups::core::pods::defaults;

fn pod(spec: Value) -> Pod {
    let mut pod = serde_json::from_value(json!({"spec": spec})).unwrap();
    defaults::pod(&mut pod);
    pod
}

fn messages(check: impl FnOnce(&mut FieldErrors)) -> Vec<String> {
    let mut errors = FieldErrors::new();
    check(&mut errors);
    errors.iter().map(ToString::to_string).collect()
}

fn problems(spec: Value) -> Vec<String> {
    let pod = pod(spec);
    messages(|errors| super::pod(&pod, errors))
}

/// A pod that has fields besides one good container.
fn with(extra: Value) -> Value {
    let mut spec = json!({"serviceAccountName": "default", "containers": [{"name": "a", "image": "i"}]});
    for (key, value) in extra.as_object().unwrap() {
        spec[key] = value.clone();
    }
    spec
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
            "spec.containers[0].resources.limits[cpus]: Invalid value: \"cpus\": must be a standard resource type or fully qualified",
        ),
        (
            json!({"restartPolicy": "Maybe", "containers": [{"name": "a", "image": "i"}]}),
            "spec.restartPolicy: Unsupported value: \"Maybe\": supported values: \"Always\", \"OnFailure\", \"Never\"",
        ),
        (
            json!({"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/x"}}], "containers": [{"name": "a", "image": "i"}]}),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            json!({"tolerations": [{"key": "a", "effect": "Never"}], "containers": [{"name": "a", "image": "i"}]}),
            "spec.tolerations[0].effect: Unsupported value: \"Never\"",
        ),
        (
            json!({"containers": [{"name": "a", "image": "i"}], "initContainers": [{"name": "b", "image": "i",
                "livenessProbe": {"tcpSocket": {"port": 1}}}]}),
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
    ];
    assert_first(cases);
}

fn assert_first<const N: usize>(cases: [(Value, &str); N]) {
    let wrong: Vec<String> = cases
        .into_iter()
        .map(|(spec, expected)| (problems(spec), expected))
        .filter(|(found, expected)| found.first().is_none_or(|first| !first.starts_with(expected)))
        .map(|(found, expected)| format!("wanted {expected}\nfound  {found:?}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
        check(&|pod| pod.spec.as_mut().unwrap().tolerations =
            Some(vec![Toleration { operator: Some("Exists".into()), ..Default::default() }]))
        .is_empty(),
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

#[test]
fn every_part_of_a_pod_has_its_rules() {
    let cases = [
        // Containers.
        (
            with_container(json!({"restartPolicy": "Maybe"})),
            r#"spec.containers[0].restartPolicy: Unsupported value: "Maybe": supported values: "Always", "Never", "OnFailure""#,
        ),
        (
            with_container(
                json!({"restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]}),
            ),
            "spec.containers[0].restartPolicy: Required value: must specify restartPolicy when restart rules are used",
        ),
        (
            with_container(json!({"restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart"}]})),
            "spec.containers[0].restartPolicyRules[0].exitCodes: Required value: must be specified",
        ),
        (
            with_container(json!({"image": " i"})),
            r#"spec.containers[0].image: Invalid value: " i": must not have leading or trailing whitespace"#,
        ),
        (
            with_container(
                json!({"ports": [{"containerPort": 1, "hostPort": 2}, {"containerPort": 3, "hostPort": 2}]}),
            ),
            r#"spec.containers[0].ports[1].hostPort: Duplicate value: "TCP//2""#,
        ),
        (
            with(
                json!({"hostNetwork": true, "containers": [{"name": "a", "image": "i", "ports": [{"containerPort": 1, "hostPort": 2}]}]}),
            ),
            "spec.containers[0].ports[0].hostPort: Invalid value: 2: must match `containerPort` when `hostNetwork` is true",
        ),
        (
            with_container(
                json!({"resizePolicy": [{"resourceName": "disk", "restartPolicy": "NotRequired"}]}),
            ),
            r#"spec.containers[0].resizePolicy: Unsupported value: "disk": supported values: "cpu", "memory""#,
        ),
        (
            with_container(json!({"terminationMessagePolicy": "Log"})),
            r#"spec.containers[0].terminationMessagePolicy: Unsupported value: "Log": supported values: "File", "FallbackToLogsOnError""#,
        ),
        // Environment.
        (
            with_container(json!({"envFrom": [{}]})),
            r#"spec.containers[0].envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`"#,
        ),
        (
            with_container(
                json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels"}}}]}),
            ),
            r#"spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "metadata.labels": supported values: "metadata.name","#,
        ),
        (
            with_container(
                json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nope"}}}]}),
            ),
            r#"spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.nope": error converting fieldPath: field label not supported: spec.nope"#,
        ),
        // Mounts.
        (
            with(
                json!({"volumes": [{"name": "v"}], "containers": [{"name": "a", "image": "i", "volumeMounts": [
                {"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/a"}]}]}),
            ),
            r#"spec.containers[0].volumeMounts[1].mountPath: Invalid value: "/a": must be unique"#,
        ),
        (
            with(
                json!({"volumes": [{"name": "v"}], "containers": [{"name": "a", "image": "i", "volumeMounts": [
                {"name": "v", "mountPath": "/a", "subPath": "../b"}]}]}),
            ),
            r#"spec.containers[0].volumeMounts.subPath: Invalid value: "../b": must not contain '..'"#,
        ),
        (
            with(
                json!({"volumes": [{"name": "v"}], "containers": [{"name": "a", "image": "i", "volumeMounts": [
                {"name": "v", "mountPath": "/a", "mountPropagation": "Bidirectional"}]}]}),
            ),
            "spec.containers[0].volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
        ),
        (
            with(
                json!({"volumes": [{"name": "v"}], "containers": [{"name": "a", "image": "i", "volumeDevices": [
                {"name": "v", "devicePath": "/a"}]}]}),
            ),
            r#"spec.containers[0].volumeDevices[0].name: Invalid value: "v": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"#,
        ),
        // Volumes.
        (
            with(json!({"volumes": [{"name": "v"}, {"name": "v"}]})),
            r#"spec.volumes[1].name: Duplicate value: "v""#,
        ),
        (
            with(json!({"volumes": [{"name": "v", "hostPath": {"path": "/x", "type": "Door"}}]})),
            r#"spec.volumes[0].hostPath.type: Unsupported value: "Door": supported values: "", "BlockDevice""#,
        ),
        (
            with(json!({"volumes": [{"name": "v", "secret": {"secretName": ""}}]})),
            "spec.volumes[0].secret.secretName: Required value",
        ),
        (
            with(json!({"serviceAccountName": "", "volumes": [{"name": "v", "projected": {"sources": [
                {"serviceAccountToken": {"path": "t"}}]}}]})),
            "spec.volumes[0].projected.sources[0].serviceAccountToken: Forbidden: must not be specified when serviceAccountName is not set",
        ),
        // Handlers.
        (
            with_container(json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}})),
            "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
        ),
        (
            with_container(
                json!({"readinessProbe": {"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 1}}),
            ),
            "spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
        ),
        // Security.
        (
            with_container(
                json!({"securityContext": {"privileged": true, "allowPrivilegeEscalation": false}}),
            ),
            "spec.containers[0].securityContext: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
        (
            with_container(json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}})),
            "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
        ),
        (
            with(json!({"securityContext": {"runAsUser": -1}})),
            "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            with(json!({"hostUsers": false, "hostPID": true})),
            "spec.HostPID: Forbidden: when `hostUsers` is false",
        ),
        (
            with(json!({"shareProcessNamespace": true, "hostPID": true})),
            "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
        ),
        // Scheduling.
        (
            with(json!({"tolerations": [{"key": "a", "operator": "Exists", "value": "x"}]})),
            r#"spec.tolerations[0].operator: Invalid value: "x": value must be empty when `operator` is 'Exists'"#,
        ),
        (
            with(json!({"tolerations": [{"key": "a", "operator": "Gt", "value": "1"}]})),
            r#"spec.tolerations[0].operator: Unsupported value: "Gt": supported values: "Equal", "Exists", "Lt", "Gt""#,
        ),
        (
            with(
                json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "t", "whenUnsatisfiable": "DoNotSchedule"}]}),
            ),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        ),
        (
            with(
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "a", "operator": "Near"}]}]}}}}),
            ),
            r#"spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator: Invalid value: "Near": not a valid selector operator"#,
        ),
        (
            with(json!({"affinity": {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 101, "podAffinityTerm": {"topologyKey": "t"}}]}}})),
            "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100",
        ),
        (
            with(json!({"schedulingGates": [{"name": "g"}, {"name": "g"}]})),
            r#"spec.schedulingGates[1]: Duplicate value: "g""#,
        ),
        // Names and addresses.
        (
            with(json!({"dnsPolicy": "None"})),
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        (
            with(json!({"dnsConfig": {"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]}})),
            "spec.dnsConfig.nameservers: Invalid value: [\"1.1.1.1\",\"1.1.1.2\",\"1.1.1.3\",\"1.1.1.4\"]: must not have more than 3 nameservers",
        ),
        (with(json!({"hostname": "A"})), "spec.hostname: Invalid value: \"A\": a lowercase RFC 1123 label"),
        (
            with(json!({"hostAliases": [{"ip": "x"}]})),
            "spec.hostAliases[0].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
        // Systems.
        (
            with(json!({"os": {"name": "plan9"}})),
            r#"spec.os: Unsupported value: "plan9": supported values: "linux", "windows""#,
        ),
        (
            with(json!({"os": {"name": "windows"}, "hostPID": true})),
            "spec.hostPID: Forbidden: cannot be set for a windows pod",
        ),
    ];
    assert_first(cases);
}

#[test]
fn containers_may_have_restart_policies_of_their_own() {
    for policy in ["Always", "OnFailure", "Never"] {
        let rules =
            json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "NotIn", "values": [0]}}]);
        let own = json!({"name": "b", "image": "i", "restartPolicy": policy, "restartPolicyRules": rules});
        let spec =
            with(json!({"initContainers": [own.clone()], "containers": [{"name": "a", "image": "i"}]}));
        assert_eq!(problems(spec), Vec::<String>::new(), "{policy} of an init container");
        assert_eq!(problems(with(json!({"containers": [own]}))), Vec::<String>::new(), "{policy}");
    }
}

#[test]
fn new_pods_have_rules_of_their_own() {
    let check = |extra: Value| {
        let pod = pod(with(extra));
        messages(|errors| create(&pod, errors))
    };
    assert_eq!(check(json!({"nodeName": "n"})), Vec::<String>::new());
    assert_eq!(
        check(json!({"nodeName": "n", "schedulingGates": [{"name": "g"}]})),
        ["spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"]
    );
    assert_eq!(
        check(json!({"ephemeralContainers": [{"name": "e", "image": "i"}]})),
        ["spec.ephemeralContainers: Forbidden: cannot be set on create"]
    );
}

#[test]
fn annotations_that_mean_something_are_checked_and_stay() {
    let check = |annotations: Value| {
        let mut pod = pod(with(json!({})));
        pod.metadata.annotations = serde_json::from_value(annotations).unwrap();
        pod
    };
    let plain = check(json!({}));
    let mirror = check(json!({"kubernetes.io/config.mirror": "x"}));
    let at = "metadata.annotations[kubernetes.io/config.mirror]";
    assert_eq!(
        messages(|errors| super::pod(&mirror, errors)),
        [format!("{at}: Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set")]
    );
    assert_eq!(
        messages(|errors| update(&mirror, &plain, errors)),
        [format!("{at}: Forbidden: may not add mirror pod annotation")]
    );
    assert_eq!(
        messages(|errors| update(&plain, &mirror, errors)),
        [format!("{at}: Forbidden: may not remove or update mirror pod annotation")]
    );
    for (cost, good) in [("-5", true), ("0", true), ("+5", false), ("05", false), ("x", false)] {
        let pod = check(json!({"controller.kubernetes.io/pod-deletion-cost": cost}));
        assert_eq!(messages(|errors| super::pod(&pod, errors)).is_empty(), good, "{cost}");
    }
}

#[test]
fn a_gated_pod_may_narrow_its_nodes() {
    let term = |keys: &[&str]| {
        let expressions: Vec<Value> =
            keys.iter().map(|key| json!({"key": key, "operator": "Exists"})).collect();
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": expressions}]}}})
    };
    let gated = json!([{"name": "g"}]);
    let old =
        pod(with(json!({"schedulingGates": gated, "nodeSelector": {"a": "1"}, "affinity": term(&["x"])})));
    let cases = [
        (json!({"nodeSelector": {"a": "1", "b": "2"}, "affinity": term(&["x", "y"])}), None),
        (
            json!({"nodeSelector": {"b": "2"}, "affinity": term(&["x"])}),
            Some(
                "spec.nodeSelector: Invalid value: {\"b\":\"2\"}: only additions to spec.nodeSelector are allowed",
            ),
        ),
        (
            json!({"nodeSelector": {"a": "1"}, "affinity": term(&["y"])}),
            Some(
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]: Invalid value: ",
            ),
        ),
    ];
    for (mut extra, expected) in cases {
        extra["schedulingGates"] = gated.clone();
        let new = pod(with(extra));
        let found = messages(|errors| update(&new, &old, errors));
        match expected {
            None => assert_eq!(found, Vec::<String>::new()),
            Some(expected) => assert!(found[0].starts_with(expected), "{found:?}"),
        }
    }
}

#[test]
fn ephemeral_containers_are_added_and_stay() {
    let own = |names: &[&str]| {
        let list: Vec<Value> = names.iter().map(|name| json!({"name": name, "image": "i"})).collect();
        pod(with(json!({"ephemeralContainers": list})))
    };
    assert_eq!(
        messages(|errors| ephemeral_update(&own(&["x", "y"]), &own(&["x"]), errors)),
        Vec::<String>::new()
    );
    assert_eq!(
        messages(|errors| ephemeral_update(&own(&["y"]), &own(&["x"]), errors)),
        ["spec.ephemeralContainers: Forbidden: existing ephemeral containers \"x\" may not be removed\n"]
    );
    let spec = with(json!({"ephemeralContainers": [{"name": "e", "image": "i", "targetContainerName": "z",
        "ports": [{"containerPort": 1}]}]}));
    assert_eq!(
        problems(spec),
        [
            "spec.ephemeralContainers[0].targetContainerName: Not found: \"z\"",
            "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
        ]
    );
}

#[test]
fn the_status_of_a_pod_holds_to_its_past() {
    let with_status = |status: Value| {
        let mut pod = pod(with(json!({"restartPolicy": "Never"})));
        pod.status = serde_json::from_value(status).unwrap();
        pod
    };
    let over = json!({"containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 0}}}]});
    let again = json!({"containerStatuses": [{"name": "a", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"running": {}}}]});
    let cases = [
        (json!({}), json!({"podIPs": [{"ip": "10.0.0.1"}]}), None),
        (
            over,
            again,
            Some(
                "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
            ),
        ),
        (
            json!({"qosClass": "BestEffort"}),
            json!({"qosClass": "Burstable"}),
            Some("status.qosClass: Invalid value: \"Burstable\": field is immutable"),
        ),
        (
            json!({}),
            json!({"resourceClaimStatuses": [{"name": "c"}]}),
            Some(
                "status.resourceClaimStatuses[0].name: Invalid value: \"c\": must match the name of an entry in `spec.resourceClaims`",
            ),
        ),
        (
            json!({}),
            json!({"observedGeneration": -1}),
            Some("status.observedGeneration: Invalid value: -1: must be a non-negative integer"),
        ),
    ];
    for (old, new, expected) in cases {
        let found = messages(|errors| status_update(&with_status(new), &with_status(old), errors));
        assert_eq!(found, Vec::from_iter(expected.map(str::to_owned)));
    }
}
