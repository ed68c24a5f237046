//! The fields of upstream's KubeletConfiguration that have no equivalent here: those that change nothing that anybody
//! would miss, and those of which only one value can be had.

use serde_json::{Map, Value};
use tracing::warn;

/// What may stand in a field.
enum Takes {
    /// Anything, without effect.
    Anything,
    /// One of these values, as JSON; they are what is done anyway.
    Only(&'static [&'static str]),
}
use Takes::{Anything, Only};

const EMPTY: Takes = Only(&["\"\"", "[]", "{}"]);

/// Name of the field, what it takes, and why.
const FIELDS: &[(&str, Takes, &str)] = &[
    ("authentication", Only(&["{}"]), "certificates of the cluster and tokens by webhook are what there is"),
    ("authorization", Only(&["{}"]), "mode Webhook is what there is"),
    ("cgroupDriver", Anything, "the driver is the one that fits the host and its runtime"),
    ("cgroupsPerQOS", Only(&["true"]), "pods are always grouped by class"),
    ("configMapAndSecretChangeDetectionStrategy", Anything, "objects are watched"),
    ("containerLogMaxWorkers", Anything, "logs are rotated one after the other"),
    ("containerRuntimeEndpoint", Anything, "use --container-runtime-endpoint"),
    ("contentType", Anything, "the API is asked for JSON"),
    ("cpuManagerReconcilePeriod", Anything, "processors are set when they change"),
    ("draManagerReconcilePeriod", Anything, "there is no dynamic resource allocation"),
    ("enableContentionProfiling", Anything, "there are no profiles"),
    ("enableControllerAttachDetach", Only(&["true"]), "only the controller attaches"),
    ("enableDebugFlagsHandler", Anything, "there are no such flags"),
    ("enableProfilingHandler", Anything, "there are no profiles"),
    ("enableServer", Only(&["true"]), "the API server needs it"),
    ("enableSystemLogHandler", Anything, "logs of the host are not served"),
    ("enableSystemLogQuery", Only(&["false"]), "logs of the host are not served"),
    ("enforceNodeAllocatable", Only(&["[\"pods\"]"]), "what is enforced is the room of all pods together"),
    ("eventBurst", Anything, "events are not limited by rate"),
    ("eventRecordQPS", Anything, "events are not limited by rate"),
    ("failCgroupV1", Anything, "hosts with version 1 are supported"),
    ("featureGates", Anything, "there are no gates"),
    ("fileCheckFrequency", Anything, "files are watched"),
    (
        "hairpinMode",
        Only(&["\"hairpin-veth\"", "\"promiscuous-bridge\"", "\"\""]),
        "the pod network's bridge does that",
    ),
    ("healthzBindAddress", Anything, "ask for /healthz of the HTTPS port"),
    ("healthzPort", Anything, "ask for /healthz of the HTTPS port"),
    ("httpCheckFrequency", Anything, "static pods come from files"),
    (
        "imagePullCredentialsVerificationPolicy",
        Only(&["\"\"", "\"NeverVerify\""]),
        "images on the node are every pod's",
    ),
    ("imageServiceEndpoint", EMPTY, "the runtime has the images"),
    ("iptablesDropBit", Anything, "it has no effect upstream either"),
    ("iptablesMasqueradeBit", Anything, "it has no effect upstream either"),
    ("kernelMemcgNotification", Anything, "memory is looked at every ten seconds"),
    ("kubeAPIBurst", Anything, "requests are not limited by rate"),
    ("kubeAPIQPS", Anything, "requests are not limited by rate"),
    ("kubeletCgroups", EMPTY, "the kubelet stays in the group that it was started in"),
    ("kubeReservedCgroup", EMPTY, "what is enforced is the room of all pods together"),
    ("localStorageCapacityIsolation", Only(&["true"]), "limits of local storage are always enforced"),
    ("logging", Anything, "use --log-level and --log-format"),
    ("makeIPTablesUtilChains", Anything, "there is no such chain"),
    ("maxOpenFiles", Anything, "the limit of the process is what the host gives it"),
    ("memoryManagerPolicy", Only(&["\"None\"", "\"none\"", "\"\""]), "there is no memory manager"),
    ("memoryReservationPolicy", Only(&["\"None\"", "\"\""]), "memory is not protected"),
    ("memoryThrottlingFactor", Anything, "memory is not throttled"),
    ("oomScoreAdj", Anything, "the score of the process is what the host gives it"),
    ("podCIDR", Anything, "the cluster gives it"),
    ("preloadedImagesVerificationAllowlist", EMPTY, "images on the node are every pod's"),
    ("protectKernelDefaults", Only(&["false"]), "the node sets what it needs"),
    ("qosReserved", EMPTY, "memory is not reserved by class"),
    ("readOnlyPort", Only(&["0"]), "there is no port without authentication"),
    ("registerNode", Only(&["true"]), "a node registers"),
    ("registryBurst", Anything, "pulls are limited by their number at a time"),
    ("registryPullQPS", Anything, "pulls are limited by their number at a time"),
    ("reservedMemory", EMPTY, "there is no memory manager"),
    ("rotateCertificates", Anything, "certificates are renewed by the server"),
    ("runOnce", Only(&["false"]), "the kubelet goes on running"),
    ("runtimeRequestTimeout", Anything, "the runtime is waited for as long as upstream does"),
    ("serverTLSBootstrap", Anything, "the server issues the certificate"),
    ("showHiddenMetricsForVersion", Anything, "no metrics are hidden"),
    ("staticPodURL", EMPTY, "static pods come from files"),
    ("staticPodURLHeader", EMPTY, "static pods come from files"),
    ("streamingConnectionIdleTimeout", Anything, "it has no effect upstream either"),
    ("syncFrequency", Anything, "changes are acted on as they come"),
    ("systemCgroups", EMPTY, "the host's processes stay where they are"),
    ("systemReservedCgroup", EMPTY, "what is enforced is the room of all pods together"),
    ("tlsCertFile", EMPTY, "the server issues the certificate"),
    ("tlsCipherSuites", EMPTY, "what is offered cannot be chosen"),
    ("tlsCurvePreferences", EMPTY, "what is offered cannot be chosen"),
    ("tlsMinVersion", Only(&["\"\"", "\"VersionTLS12\""]), "what is offered cannot be chosen"),
    ("tlsPrivateKeyFile", EMPTY, "the server issues the certificate"),
    ("topologyManagerPolicy", Only(&["\"none\"", "\"\""]), "there is no topology manager"),
    ("topologyManagerPolicyOptions", EMPTY, "there is no topology manager"),
    ("topologyManagerScope", Anything, "there is no topology manager"),
    ("tracing", Anything, "the kubelet has no traces of its own"),
    ("userNamespaces", Only(&["{\"idsPerPod\":65536}", "{}"]), "a pod has 65536 ids"),
    ("volumePluginDir", Anything, "drivers are CSI drivers"),
    ("volumeStatsAggPeriod", Anything, "volumes are counted when somebody asks"),
];

/// Takes these fields away.
///
/// # Errors
/// A value that cannot be had, in one sentence.
pub fn take_away(fields: &mut Map<String, Value>) -> Result<(), String> {
    for (name, takes, why) in FIELDS {
        // As upstream, null is what is not said.
        let Some(value) = fields.remove(*name).filter(|value| !value.is_null()) else { continue };
        match takes {
            Anything => {
                warn!(field = name, why, "this field of the KubeletConfiguration changes nothing here")
            }
            Only(values) if is_default(name, &value) || values.contains(&value.to_string().as_str()) => {}
            Only(_) => return Err(format!("{name}: {value} is not supported: {why}")),
        }
    }
    Ok(())
}

/// Whether a field of several parts says what is done anyway.
fn is_default(name: &str, value: &Value) -> bool {
    match name {
        "authorization" => matches!(value["mode"].as_str(), None | Some("" | "Webhook")),
        "authentication" => {
            value["anonymous"]["enabled"] != true
                && value["webhook"]["enabled"] != false
                && value["x509"]["clientCAFile"].as_str().is_none_or(str::is_empty)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_in_order_and_once() {
        assert!(FIELDS.is_sorted_by(|a, b| a.0.to_lowercase() < b.0.to_lowercase()));
    }

    #[test]
    fn what_cannot_be_had_is_refused_with_the_reason() {
        for (field, value, fits) in [
            ("readOnlyPort", json!(0), true),
            ("readOnlyPort", json!(10255), false),
            ("authorization", json!({"mode": "Webhook", "webhook": {"cacheAuthorizedTTL": "5m"}}), true),
            ("authorization", json!({"mode": "AlwaysAllow"}), false),
            ("authentication", json!({"anonymous": {"enabled": false}, "webhook": {"enabled": true}}), true),
            ("authentication", json!({"anonymous": {"enabled": true}}), false),
            ("topologyManagerPolicy", json!("restricted"), false),
            ("syncFrequency", json!("1m"), true),
        ] {
            let mut fields = Map::from_iter([(field.to_owned(), value.clone())]);
            let taken = take_away(&mut fields);
            assert_eq!(taken.is_ok(), fits, "{field}: {value}");
            assert!(fields.is_empty());
        }
        let refused = take_away(&mut Map::from_iter([("readOnlyPort".to_owned(), json!(1))])).unwrap_err();
        assert_eq!(refused, "readOnlyPort: 1 is not supported: there is no port without authentication");
    }
}
