//! A smallest valid object of every kind that can be created.

use base64::Engine as _;
use serde_json::{Value, json};

/// The object, named `matrix` unless names of the kind have a form; `None` for a kind that is only read.
pub fn object(api_version: &str, kind: &str) -> Option<Value> {
    let mut object = rest(kind)?;
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    if object["metadata"]["name"].is_null() {
        object["metadata"]["name"] = "matrix".into();
    }
    object["metadata"]["labels"]["matrix"] = "yes".into();
    Some(object)
}

fn pod_template(restart: &str) -> Value {
    json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"restartPolicy": restart, "containers": [{"name": "c", "image": "i:1"}]}})
}

fn rest(kind: &str) -> Option<Value> {
    let selector = json!({"matchLabels": {"a": "b"}});
    Some(match kind {
        "ComponentStatus" | "Binding" => return None,
        // Its name says what it defines, and its objects go before it does: `custom.rs` has it.
        "CustomResourceDefinition" => return None,
        "Pod" => json!({"spec": {"containers": [{"name": "c", "image": "i:1"}]}}),
        "PodTemplate" => json!({"template": pod_template("Always")}),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" => {
            json!({"spec": {"selector": selector, "template": pod_template("Always")}})
        }
        "ReplicationController" => json!({"spec": {"template": pod_template("Always")}}),
        "ControllerRevision" => json!({"revision": 1, "data": {"a": [1, null]}}),
        "Job" => json!({"spec": {"template": pod_template("Never")}}),
        "CronJob" => {
            json!({"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": pod_template("Never")}}}})
        }
        "Service" => json!({"spec": {"ports": [{"port": 80}]}}),
        "Event" => json!({"involvedObject": {"namespace": "default"}, "reportingController": "a/b",
            "reportingInstance": "c", "action": "d", "reason": "e", "type": "Normal",
            "regarding": {"namespace": "default"}, "eventTime": "2024-01-02T03:04:05.000000Z"}),
        "PersistentVolumeClaim" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
        }
        "PersistentVolume" => {
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "hostPath": {"path": "/a"}}})
        }
        "LimitRange" => json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "1"}}]}}),
        "ResourceQuota" => json!({"spec": {"hard": {"pods": "1"}}}),
        "HorizontalPodAutoscaler" => {
            json!({"spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}})
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}})
        }
        "EndpointSlice" => json!({"addressType": "IPv4", "endpoints": []}),
        "Lease" => json!({"spec": {}}),
        "APIService" => {
            json!({"metadata": {"name": "v9.matrix.example.com"}, "spec": {"group": "matrix.example.com",
            "version": "v9", "groupPriorityMinimum": 1, "versionPriority": 1}})
        }
        "RuntimeClass" => json!({"handler": "h"}),
        "PriorityClass" => json!({"value": 5}),
        "PodDisruptionBudget" => json!({"spec": {"minAvailable": 1, "selector": selector}}),
        "CertificateSigningRequest" => json!({"spec": {"request": certificate_request(),
            "signerName": "example.com/a", "usages": ["client auth"]}}),
        "FlowSchema" => {
            json!({"spec": {"matchingPrecedence": 9000, "priorityLevelConfiguration": {"name": "l"}}})
        }
        "PriorityLevelConfiguration" => {
            json!({"spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 5,
            "limitResponse": {"type": "Reject"}}}})
        }
        "IPAddress" => json!({"metadata": {"name": "10.9.8.7",
            "labels": {"ipaddress.kubernetes.io/ip-family": "IPv4"}}, "spec": {"parentRef":
            {"resource": "services", "namespace": "a", "name": "b"}}}),
        "ServiceCIDR" => json!({"spec": {"cidrs": ["10.9.0.0/16"]}}),
        "IngressClass" => json!({"spec": {"controller": "example.com/a"}}),
        "Ingress" => json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}}),
        "NetworkPolicy" => json!({"spec": {"podSelector": {}}}),
        "StorageClass" => json!({"provisioner": "example.com/a"}),
        "VolumeAttributesClass" => json!({"driverName": "example.com", "parameters": {"a": "b"}}),
        "CSIDriver" => json!({"metadata": {"name": "driver.example.com"}, "spec": {}}),
        "CSINode" => json!({"spec": {"drivers": []}}),
        "CSIStorageCapacity" => json!({"storageClassName": "c"}),
        "VolumeAttachment" => json!({"spec": {"attacher": "a.example.com", "nodeName": "n",
            "source": {"persistentVolumeName": "p"}}}),
        "DeviceClass" => json!({"spec": {}}),
        "ResourceClaim" => json!({"spec": {}}),
        "ResourceClaimTemplate" => json!({"spec": {"spec": {}}}),
        "ResourceSlice" => json!({"spec": {"driver": "d.example.com", "nodeName": "n",
            "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}}),
        "ValidatingAdmissionPolicy" => json!({"spec": {"matchConstraints": {"resourceRules": [rule()]},
            "validations": [{"expression": "true"}]}}),
        "ValidatingAdmissionPolicyBinding" => {
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}})
        }
        "MutatingAdmissionPolicy" => json!({"spec": {"matchConstraints": {"resourceRules": [rule()]},
            "reinvocationPolicy": "Never", "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}]}}),
        "MutatingAdmissionPolicyBinding" => json!({"spec": {"policyName": "p"}}),
        kind if kind.ends_with("Review") => return None,
        _ => json!({}),
    })
}

fn rule() -> Value {
    json!({"apiGroups": ["example.com"], "apiVersions": ["v1"], "resources": ["things"], "operations": ["CREATE"]})
}

/// A request for a certificate as such objects carry it: PEM in base64.
fn certificate_request() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap();
    base64::engine::general_purpose::STANDARD.encode(request.pem().unwrap())
}
