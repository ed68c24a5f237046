//! What a PersistentVolume may say, and what of it may change.

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, NodeSelector, PersistentVolumeSpec, SecretReference,
};
use serde_json::{Map, Value};

use crate::api::field::{FieldError, FieldErrors, Path};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::registry::groups::core::persistent_volume_claims::{access_modes, volume_mode};
use crate::registry::groups::core::pods::validate::node_selector;
use crate::registry::groups::core::volume_sources as sources;
use crate::registry::validation::{IMMUTABLE, each, known, required, text};

const POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
const ONE_TYPE: &str = "may not specify more than 1 volume type";

/// Fields of the spec that are no volume source.
const COMMON: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// Labels of nodes that have got other names: a volume's affinity may follow.
const RENAMED: [(&str, &str); 5] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

/// Checks a volume's spec.
pub(super) fn spec(spec: &PersistentVolumeSpec, name: &str, at: &Path, errors: &mut FieldErrors) {
    access_modes(spec.access_modes.as_ref(), "", at, errors);
    capacity(spec, &at.child("capacity"), errors);
    let policy = text(&spec.persistent_volume_reclaim_policy);
    let at_policy = at.child("persistentVolumeReclaimPolicy");
    if !policy.is_empty() {
        known(Some(policy), &POLICIES, &at_policy, errors);
    }
    if let Some(affinity) = &spec.node_affinity {
        let at = at.child("nodeAffinity").child("required");
        match &affinity.required {
            Some(selector) => node_selector(selector, &at, errors),
            None => errors.push(FieldError::required(&at, "must specify required node constraints")),
        }
    }
    source(spec, name, at, errors);
    let root = spec.host_path.as_ref().is_some_and(|host| is_root(&host.path));
    if root && policy == "Recycle" {
        errors.push(FieldError::forbidden(&at_policy, "may not be 'recycle' for a hostPath mount of '/'"));
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|class| !class.is_empty()) {
        each(names::is_dns1123_subdomain(class), class, &at.child("storageClassName"), errors);
    }
    volume_mode(spec.volume_mode.as_deref(), at, errors);
    if let Some(class) = spec.volume_attributes_class_name.as_deref() {
        let at_class = at.child("volumeAttributesClassName");
        if class.is_empty() {
            errors.push(FieldError::required(&at_class, "an empty string is disallowed"));
        } else {
            each(names::is_dns1123_subdomain(class), class, &at_class, errors);
        }
        if spec.csi.is_none() {
            let message = "has to be specified when using volumeAttributesClassName";
            errors.push(FieldError::required(&at.child("csi"), message));
        }
    }
}

/// Whether a path means `/` once it is cleaned.
fn is_root(path: &str) -> bool {
    path.starts_with('/')
        && path.split('/').filter(|part| !part.is_empty() && *part != ".").all(|part| part == "..")
}

fn capacity(spec: &PersistentVolumeSpec, at: &Path, errors: &mut FieldErrors) {
    let capacity = spec.capacity.clone().unwrap_or_default();
    if capacity.is_empty() {
        errors.push(FieldError::required(at, ""));
    }
    if !capacity.contains_key("storage") || capacity.len() > 1 {
        errors.push(FieldError::not_supported(at, &capacity, &["storage"]));
    }
    for (name, raw) in &capacity {
        let Ok(amount) = Quantity::parse(&raw.0) else { continue };
        let at = at.key(name.clone());
        if amount.value() < 0 {
            errors.push(FieldError::invalid(&at, amount.value(), "must be a valid resource quantity"));
        }
        if amount.sign().is_le() {
            errors.push(FieldError::invalid(&at, amount, "must be greater than zero"));
        }
    }
}

/// The volume sources that a spec names.
fn named(spec: &PersistentVolumeSpec) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(spec) else { return Map::new() };
    fields.retain(|name, _| !COMMON.contains(&name.as_str()));
    fields
}

/// Checks the first source, in upstream's order, and refuses all others.
fn source(spec: &PersistentVolumeSpec, name: &str, at: &Path, errors: &mut FieldErrors) {
    type Check<'a> = Box<dyn Fn(&Path, &mut FieldErrors) + 'a>;
    fn check<'a, T>(
        source: &'a Option<T>,
        fields: (&'static str, &'static str),
        check: impl Fn(&'a T, &Path, &mut FieldErrors) + 'a,
    ) -> Option<(&'static str, &'static str, Check<'a>)> {
        let source = source.as_ref()?;
        Some((fields.0, fields.1, Box::new(move |at, errors| check(source, at, errors))))
    }
    let same = |field: &'static str| (field, field);
    let checks = [
        check(&spec.host_path, same("hostPath"), sources::host_path),
        check(&spec.gce_persistent_disk, ("gcePersistentDisk", "persistentDisk"), |s, at, errors| {
            sources::partitioned("pdName", &s.pd_name, s.partition, at, errors);
        }),
        check(&spec.aws_elastic_block_store, same("awsElasticBlockStore"), |s, at, errors| {
            sources::partitioned("volumeID", &s.volume_id, s.partition, at, errors);
        }),
        check(&spec.glusterfs, same("glusterfs"), |s, at, errors| {
            sources::all_required(&[("endpoints", &s.endpoints), ("path", &s.path)], at, errors);
            glusterfs_namespace(s.endpoints_namespace.as_deref(), &at.child("endpointsNamespace"), errors);
        }),
        check(&spec.flocker, same("flocker"), sources::flocker),
        check(&spec.nfs, same("nfs"), sources::nfs),
        check(&spec.rbd, same("rbd"), |s, at, errors| {
            sources::ceph(&s.monitors, Some(&s.image), at, errors);
        }),
        check(&spec.quobyte, same("quobyte"), sources::quobyte),
        check(&spec.cephfs, ("cephFS", "cephfs"), |s, at, errors| {
            sources::ceph(&s.monitors, None, at, errors);
        }),
        check(&spec.iscsi, same("iscsi"), |s, at, errors| {
            let source = sources::Iscsi {
                portal: &s.target_portal,
                iqn: &s.iqn,
                lun: s.lun,
                login: s.chap_auth_discovery == Some(true) || s.chap_auth_session == Some(true),
                secret: s.secret_ref.as_ref().map(|secret| text(&secret.name)),
                initiator: s.initiator_name.as_deref(),
                volume: name,
                persistent: true,
            };
            sources::iscsi(&source, at, errors);
        }),
        check(&spec.cinder, same("cinder"), |s, at, errors| {
            sources::all_required(&[("volumeID", &s.volume_id)], at, errors);
            let secret = s.secret_ref.as_ref().map(|secret| parts(&secret.name, &secret.namespace));
            sources::all_required(&secret.unwrap_or_default(), &at.child("secretRef"), errors);
        }),
        check(&spec.fc, same("fc"), sources::fibre_channel),
        check(&spec.flex_volume, same("flexVolume"), |s, at, errors| {
            sources::flex(&s.driver, s.options.as_ref(), at, errors);
        }),
        check(&spec.azure_file, same("azureFile"), |s, at, errors| {
            sources::azure_file(&s.secret_name, &s.share_name, s.secret_namespace.as_deref(), at, errors);
        }),
        check(&spec.vsphere_volume, same("vsphereVolume"), |s, at, errors| {
            sources::all_required(&[("volumePath", &s.volume_path)], at, errors);
        }),
        check(&spec.photon_persistent_disk, same("photonPersistentDisk"), |s, at, errors| {
            sources::all_required(&[("pdID", &s.pd_id)], at, errors);
        }),
        check(&spec.portworx_volume, same("portworxVolume"), |s, at, errors| {
            sources::all_required(&[("volumeID", &s.volume_id)], at, errors);
        }),
        check(&spec.azure_disk, same("azureDisk"), sources::azure_disk),
        check(&spec.scale_io, same("scaleIO"), |s, at, errors| {
            sources::scale_io(&s.gateway, &s.system, text(&s.volume_name), at, errors);
        }),
        check(&spec.local, same("local"), |s, at, errors| {
            if s.path.is_empty() {
                errors.push(FieldError::required(&at.child("path"), ""));
            } else {
                sources::no_backsteps(&s.path, &at.child("path"), errors);
            }
        }),
        check(&spec.storageos, same("storageos"), |s, at, errors| {
            let secret = s.secret_ref.as_ref().map(|secret| parts(&secret.name, &secret.namespace));
            let (name, namespace) = (text(&s.volume_name), text(&s.volume_namespace));
            sources::storage_os(name, namespace, &secret.unwrap_or_default(), at, errors);
        }),
        check(&spec.csi, same("csi"), csi),
    ];
    let mut given = checks.into_iter().flatten();
    match given.next() {
        None => errors.push(FieldError::required(at, "must specify a volume type")),
        Some((_, field, check)) => check(&at.child(field), errors),
    }
    for (field, ..) in given {
        errors.push(FieldError::forbidden(&at.child(field), ONE_TYPE));
    }
    if spec.local.is_some() && spec.node_affinity.is_none() {
        let message = "Local volume requires node affinity";
        errors.push(FieldError::required(&at.child("nodeAffinity"), message));
    }
}

fn parts<'a>(name: &'a Option<String>, namespace: &'a Option<String>) -> [(&'static str, &'a str); 2] {
    [("name", text(name)), ("namespace", text(namespace))]
}

fn glusterfs_namespace(namespace: Option<&str>, at: &Path, errors: &mut FieldErrors) {
    match namespace {
        None => {}
        Some("") => {
            let message = "if the endpointnamespace is set, it must be a valid namespace name";
            errors.push(FieldError::invalid(at, "", message));
        }
        Some(namespace) => each(names::is_dns1123_label(namespace), namespace, at, errors),
    }
}

fn csi(source: &CSIPersistentVolumeSource, at: &Path, errors: &mut FieldErrors) {
    sources::csi_driver(&source.driver, &at.child("driver"), errors);
    required(&source.volume_handle, &at.child("volumeHandle"), errors);
    let secrets = [
        ("controllerPublishSecretRef", &source.controller_publish_secret_ref),
        ("controllerExpandSecretRef", &source.controller_expand_secret_ref),
        ("nodePublishSecretRef", &source.node_publish_secret_ref),
        ("nodeExpandSecretRef", &source.node_expand_secret_ref),
    ];
    for (field, secret) in secrets {
        if let Some(secret) = secret {
            self::secret(secret, &at.child(field), errors);
        }
    }
}

fn secret(secret: &SecretReference, at: &Path, errors: &mut FieldErrors) {
    type Rule = fn(&str) -> Vec<String>;
    let fields: [(&'static str, &Option<String>, Rule); 2] = [
        ("name", &secret.name, names::is_dns1123_subdomain),
        ("namespace", &secret.namespace, names::is_dns1123_label),
    ];
    for (field, value, rule) in fields {
        match text(value) {
            "" => errors.push(FieldError::required(&at.child(field), "")),
            value => each(rule(value), value, &at.child(field), errors),
        }
    }
}

/// Checks a change of a volume's spec.
pub(super) fn update(new: &PersistentVolumeSpec, old: &PersistentVolumeSpec, errors: &mut FieldErrors) {
    let mut now = new.clone();
    if let (Some(csi), Some(was)) = (now.csi.as_mut(), old.csi.as_ref())
        && was.controller_expand_secret_ref.is_none()
    {
        csi.controller_expand_secret_ref = None;
    }
    let at = Path::new("spec");
    if named(&now) != named(old) {
        let message = "spec.persistentvolumesource is immutable after creation\n";
        errors.push(FieldError::forbidden(&at.child("persistentvolumesource"), message));
    }
    if new.volume_mode != old.volume_mode {
        errors.push(FieldError::invalid(&Path::new("volumeMode"), &new.volume_mode, IMMUTABLE));
    }
    let required = |spec: &PersistentVolumeSpec| {
        spec.node_affinity.as_ref().and_then(|affinity| affinity.required.clone())
    };
    if old.node_affinity.is_some()
        && (new.node_affinity.is_none() || !same_nodes(required(new), required(old)))
    {
        let message = format!("{IMMUTABLE}, except for updating from beta label to GA");
        errors.push(FieldError::invalid(&Path::new("nodeAffinity"), &new.node_affinity, message));
    }
    if old.volume_attributes_class_name.is_some() && new.volume_attributes_class_name.is_none() {
        let at = at.child("volumeAttributesClassName");
        errors.push(FieldError::forbidden(&at, "update from non-nil value to nil is forbidden"));
    }
}

/// Whether two selectors are the same but for labels that got other names.
fn same_nodes(new: Option<NodeSelector>, mut old: Option<NodeSelector>) -> bool {
    let terms = old.iter_mut().flat_map(|selector| selector.node_selector_terms.iter_mut());
    for (i, term) in terms.enumerate() {
        let now = new.as_ref().and_then(|selector| selector.node_selector_terms.get(i));
        let now = now.and_then(|term| term.match_expressions.as_deref()).unwrap_or_default();
        for (was, now) in term.match_expressions.iter_mut().flatten().zip(now) {
            if RENAMED.contains(&(was.key.as_str(), now.key.as_str())) {
                was.key.clone_from(&now.key);
            }
        }
    }
    new == old
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn problems(extra: Value) -> Vec<String> {
        let mut object = json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}});
        for (field, value) in extra.as_object().unwrap() {
            object[field] = value.clone();
        }
        let mut errors = FieldErrors::new();
        spec(&from_value(object).unwrap(), "pv", &Path::new("spec"), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn volumes_say_what_is_wrong_in_upstreams_words() {
        let cases = [
            (json!({"hostPath": {"path": "/a"}}), vec![]),
            (json!({}), vec!["spec: Required value: must specify a volume type"]),
            (
                json!({"hostPath": {"path": "/a"}, "nfs": {"server": "s", "path": "/"}, "cephfs": {"monitors": []}}),
                vec![
                    "spec.nfs: Forbidden: may not specify more than 1 volume type",
                    "spec.cephFS: Forbidden: may not specify more than 1 volume type",
                ],
            ),
            (
                json!({"gcePersistentDisk": {"pdName": "", "partition": 256}}),
                vec![
                    "spec.persistentDisk.pdName: Required value",
                    "spec.persistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive",
                ],
            ),
            (
                json!({"local": {"path": "/a/.."}}),
                vec![
                    "spec.local.path: Invalid value: \"/a/..\": must not contain '..'",
                    "spec.nodeAffinity: Required value: Local volume requires node affinity",
                ],
            ),
            (
                json!({"hostPath": {"path": "//."}, "persistentVolumeReclaimPolicy": "Recycle"}),
                vec![
                    "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
                ],
            ),
            (
                json!({"csi": {"driver": "", "volumeHandle": "h", "nodePublishSecretRef": {"name": "n"}}}),
                vec![
                    "spec.csi.driver: Required value",
                    "spec.csi.driver: Invalid value: \"\": a lowercase RFC 1123 subdomain must consist",
                    "spec.csi.nodePublishSecretRef.namespace: Required value",
                ],
            ),
            (
                json!({"hostPath": {"path": "/a"}, "volumeAttributesClassName": "", "nodeAffinity": {}}),
                vec![
                    "spec.nodeAffinity.required: Required value: must specify required node constraints",
                    "spec.volumeAttributesClassName: Required value: an empty string is disallowed",
                    "spec.csi: Required value: has to be specified when using volumeAttributesClassName",
                ],
            ),
            (
                json!({"hostPath": {"path": "/a"}, "capacity": {"storage": "0", "cpu": "1"}}),
                vec![
                    "spec.capacity: Unsupported value: {\"cpu\":\"1\",\"storage\":\"0\"}: supported values: \"storage\"",
                    "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
                ],
            ),
            (
                json!({"cinder": {"volumeID": "v", "secretRef": {}}, "accessModes": ["ReadWriteOncePod", "ReadOnlyMany"]}),
                vec![
                    "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                    "spec.cinder.secretRef.name: Required value",
                    "spec.cinder.secretRef.namespace: Required value",
                ],
            ),
        ];
        for (extra, expected) in cases {
            let found = problems(extra.clone());
            assert_eq!(found.len(), expected.len(), "{extra}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!(found.starts_with(expected), "{extra}\n{found}\n{expected}");
            }
        }
    }

    #[test]
    fn labels_of_nodes_may_get_their_new_names() {
        let affinity = |key: &str| {
            from_value::<PersistentVolumeSpec>(json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": key, "operator": "In", "values": ["a"]}]}]}}}))
            .unwrap()
        };
        let found = |new: &PersistentVolumeSpec, old: &PersistentVolumeSpec| {
            let mut errors = FieldErrors::new();
            update(new, old, &mut errors);
            errors.iter().map(|error| error.field.clone()).collect::<Vec<_>>()
        };
        let old = affinity("beta.kubernetes.io/os");
        assert!(found(&affinity("kubernetes.io/os"), &old).is_empty());
        assert_eq!(found(&affinity("kubernetes.io/arch"), &old), ["nodeAffinity"]);
        assert_eq!(found(&PersistentVolumeSpec::default(), &old), ["nodeAffinity"]);
        assert!(found(&old, &PersistentVolumeSpec::default()).is_empty(), "an affinity may be added");
    }
}
