//! The node authorizer by a table: what a kubelet may do because of its pods, and what it may do anyway.

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use super::*;

/// One pod, `a/web`, on node `n1`.
struct OnePod(References);

impl NodeSource for OnePod {
    fn any_pod(&self, node: &str, namespace: &str, wanted: &dyn Fn(&References) -> bool) -> bool {
        node == "n1" && namespace == "a" && wanted(&self.0)
    }

    fn claim_of_volume(&self, volume: &str) -> Option<(String, String)> {
        (volume == "pv1").then(|| ("a".to_owned(), "claim1".to_owned()))
    }

    fn claims_with_secret(&self, namespace: &str, secret: &str) -> Vec<(String, String)> {
        let own = (namespace, secret) == ("drivers", "stage");
        own.then(|| ("a".to_owned(), "claim1".to_owned())).into_iter().collect()
    }

    fn node_of_attachment(&self, attachment: &str) -> Option<String> {
        (attachment == "va1").then(|| "n1".to_owned())
    }

    fn node_of_pod(&self, namespace: &str, name: &str) -> Option<String> {
        ((namespace, name) == ("a", "web")).then(|| "n1".to_owned())
    }
}

fn references() -> References {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "a"},
        "spec": {
            "nodeName": "n1",
            "serviceAccountName": "sa1",
            "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "env-from"}}]}],
            "containers": [{"name": "c", "env": [
                {"name": "A", "valueFrom": {"secretKeyRef": {"name": "env", "key": "k"}}},
                {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "cm-env", "key": "k"}}},
            ]}],
            "ephemeralContainers": [{"name": "e", "envFrom": [{"configMapRef": {"name": "cm-debug"}}]}],
            "volumes": [
                {"name": "v1", "secret": {"secretName": "vol"}},
                {"name": "v2", "configMap": {"name": "cm-vol"}},
                {"name": "v3", "projected": {"sources": [{"secret": {"name": "proj"}}, {"configMap": {"name": "kube-root-ca.crt"}}]}},
                {"name": "v4", "persistentVolumeClaim": {"claimName": "claim1"}},
                {"name": "v5", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}},
            ],
        },
    }))
    .unwrap();
    References::of(&pod)
}

#[test]
fn references_of_a_pod_are_complete() {
    let refs = references();
    let sorted = |set: &std::collections::HashSet<String>| {
        let mut names: Vec<_> = set.iter().cloned().collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(sorted(&refs.secrets), "env env-from proj pull vol");
    assert_eq!(sorted(&refs.config_maps), "cm-debug cm-env cm-vol kube-root-ca.crt");
    assert_eq!(sorted(&refs.claims), "claim1 web-v5");
    assert_eq!(refs.service_account, "sa1");
}

/// `verb group/resource[/sub] namespace/name [fieldSelector]`
fn decide(node: &str, line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    let (group, rest) = words[1].split_once(':').unwrap_or(("", words[1]));
    let (resource, subresource) = rest.split_once('/').unwrap_or((rest, ""));
    let (namespace, name) = words[2].split_once('/').unwrap();
    let user = UserInfo {
        name: format!("{USER_PREFIX}{node}"),
        groups: vec![GROUP.to_owned()],
        ..UserInfo::default()
    };
    let resource = ResourceAttributes { group, version: "v1", namespace, resource, subresource, name };
    let attributes = Attributes {
        verb: words[0],
        resource: Some(resource),
        path: "",
        field_selector: words.get(3).copied().unwrap_or_default(),
    };
    NodeAuthorizer::new(Arc::new(OnePod(references()))).authorize(&user, &attributes).allowed()
}

#[test]
fn kubelet_reads_what_its_pods_refer_to() {
    for line in [
        "get secrets a/vol",
        "watch secrets a/env",
        "list secrets a/pull",
        "get configmaps a/kube-root-ca.crt",
        "get persistentvolumeclaims a/claim1",
        "get persistentvolumes /pv1",
        "get storage.k8s.io:volumeattachments /va1",
        "get secrets drivers/stage",
        "create serviceaccounts/token a/sa1",
        "get pods a/web",
    ] {
        assert!(decide("n1", line), "{line}");
        assert!(!decide("n2", line), "another node: {line}");
    }
    for line in [
        "get secrets a/other",
        "get secrets b/vol",
        "list secrets a/",
        "update secrets a/vol",
        "get configmaps kube-system/kube-root-ca.crt",
        "list persistentvolumeclaims a/claim1",
        "create serviceaccounts/token a/other",
        "create serviceaccounts a/sa1",
        "get persistentvolumes /pv2",
    ] {
        assert!(!decide("n1", line), "{line}");
    }
}

#[test]
fn kubelet_acts_on_its_own_objects() {
    for line in [
        "create nodes /",
        "get nodes /n1",
        "list nodes /n1",
        "watch nodes /n1",
        "patch nodes/status /n1",
        "update nodes /n1",
        "create coordination.k8s.io:leases kube-node-lease/",
        "update coordination.k8s.io:leases kube-node-lease/n1",
        "patch storage.k8s.io:csinodes /n1",
        "list pods / spec.nodeName=n1",
        "watch pods / spec.nodeName==n1,metadata.namespace=a",
        "get pods a/gone",
        "create pods a/",
        "delete pods a/web",
        "patch pods/status a/web",
        "create pods/eviction a/web",
        "list services /",
        "create events a/",
        "create events.k8s.io:events a/",
        "create authentication.k8s.io:tokenreviews /",
        "create authorization.k8s.io:subjectaccessreviews /",
        "patch persistentvolumeclaims/status a/claim1",
    ] {
        assert!(decide("n1", line), "{line}");
    }
    for line in [
        "get nodes /n2",
        "list nodes /",
        "delete nodes /n1",
        "patch nodes/status /n2",
        "update coordination.k8s.io:leases kube-node-lease/n2",
        "get coordination.k8s.io:leases kube-system/n1",
        "list coordination.k8s.io:leases kube-node-lease/",
        "list pods /",
        "list pods / spec.nodeName=n2",
        "list pods / spec.nodeName!=n1",
        "update pods a/web",
        "create pods/exec a/web",
        "list secrets /",
        "get rbac.authorization.k8s.io:roles a/r",
        "create pods/binding a/web",
    ] {
        assert!(!decide("n1", line), "{line}");
    }
}

#[test]
fn only_members_of_the_nodes_group_are_nodes() {
    let mut user = UserInfo { name: "system:node:n1".to_owned(), ..UserInfo::default() };
    assert_eq!(node_name(&user), None);
    user.groups.push(GROUP.to_owned());
    assert_eq!(node_name(&user), Some("n1"));
    user.name = "system:node:".to_owned();
    assert_eq!(node_name(&user), None);
    user.name = "n1".to_owned();
    assert_eq!(node_name(&user), None);
}
