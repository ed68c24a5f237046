//! Defaults of pods and of the pod templates of every kind that has one.

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, EnvVar, EphemeralContainer, HTTPGetAction, Lifecycle, LifecycleHandler, Pod,
    PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource, Volume,
};

const FILE_MODE: i32 = 0o644;
const TOKEN_SECONDS: i64 = 3600;

fn set<T>(field: &mut Option<T>, value: T) {
    if field.is_none() {
        *field = Some(value);
    }
}

fn set_text(field: &mut Option<String>, value: &str) {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = Some(value.to_owned());
    }
}

fn set_number(field: &mut Option<i32>, value: i32) {
    if field.unwrap_or(0) == 0 {
        *field = Some(value);
    }
}

/// Defaults of a pod.
pub fn pod(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    set(&mut spec.enable_service_links, true);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        requests_from_limits(container);
    }
    pod_spec(spec);
}

/// Defaults of a pod template.
pub fn template(template: &mut PodTemplateSpec) {
    template.metadata.get_or_insert_default();
    pod_spec(template.spec.get_or_insert_default());
}

/// What is limited is requested, unless the pod says otherwise.
fn requests_from_limits(container: &mut Container) {
    let Some(resources) = container.resources.as_mut() else { return };
    let Some(limits) = resources.limits.as_ref().filter(|limits| !limits.is_empty()) else { return };
    let requests = resources.requests.get_or_insert_default();
    for (name, amount) in limits {
        requests.entry(name.clone()).or_insert_with(|| amount.clone());
    }
}

/// Defaults of a pod spec.
pub fn pod_spec(spec: &mut PodSpec) {
    set_text(&mut spec.dns_policy, "ClusterFirst");
    set_text(&mut spec.restart_policy, "Always");
    set_text(&mut spec.scheduler_name, "default-scheduler");
    set(&mut spec.security_context, Default::default());
    set(&mut spec.termination_grace_period_seconds, 30);
    same_account(spec);
    let host_network = spec.host_network == Some(true);
    spec.volumes.iter_mut().flatten().for_each(volume);
    for one in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        container(one);
        if host_network {
            host_ports(one.ports.iter_mut().flatten());
        }
    }
    spec.ephemeral_containers.iter_mut().flatten().for_each(ephemeral);
}

/// The old and the new name of one field.
fn same_account(spec: &mut PodSpec) {
    let given = |name: &Option<String>| name.as_deref().is_some_and(|name| !name.is_empty());
    if given(&spec.service_account_name) {
        spec.service_account.clone_from(&spec.service_account_name);
    } else if given(&spec.service_account) {
        spec.service_account_name.clone_from(&spec.service_account);
    }
}

fn host_ports<'a>(ports: impl Iterator<Item = &'a mut ContainerPort>) {
    for port in ports {
        if port.host_port.unwrap_or(0) == 0 {
            port.host_port = Some(port.container_port);
        }
    }
}

/// `Always` for images that move, `IfNotPresent` for the rest.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or_default();
    if name.contains('@') {
        return "IfNotPresent";
    }
    match name.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

fn container(container: &mut Container) {
    set_text(&mut container.image_pull_policy, pull_policy(container.image.as_deref().unwrap_or_default()));
    set_text(&mut container.termination_message_path, "/dev/termination-log");
    set_text(&mut container.termination_message_policy, "File");
    set(&mut container.resources, Default::default());
    container.ports.iter_mut().flatten().for_each(|port| set_text(&mut port.protocol, "TCP"));
    container.env.iter_mut().flatten().for_each(env);
    let probes =
        [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe];
    probes.into_iter().flatten().for_each(probe);
    container.lifecycle.iter_mut().for_each(lifecycle);
}

fn ephemeral(container: &mut EphemeralContainer) {
    set_text(&mut container.image_pull_policy, pull_policy(container.image.as_deref().unwrap_or_default()));
    set_text(&mut container.termination_message_path, "/dev/termination-log");
    set_text(&mut container.termination_message_policy, "File");
    set(&mut container.resources, Default::default());
    container.ports.iter_mut().flatten().for_each(|port| set_text(&mut port.protocol, "TCP"));
    container.env.iter_mut().flatten().for_each(env);
}

fn env(env: &mut EnvVar) {
    if let Some(field) = env.value_from.as_mut().and_then(|from| from.field_ref.as_mut()) {
        set_text(&mut field.api_version, "v1");
    }
}

fn probe(probe: &mut Probe) {
    set_number(&mut probe.timeout_seconds, 1);
    set_number(&mut probe.period_seconds, 10);
    set_number(&mut probe.success_threshold, 1);
    set_number(&mut probe.failure_threshold, 3);
    probe.http_get.iter_mut().for_each(http_get);
    if let Some(grpc) = probe.grpc.as_mut() {
        set(&mut grpc.service, String::new());
    }
}

fn http_get(action: &mut HTTPGetAction) {
    set_text(&mut action.path, "/");
    set_text(&mut action.scheme, "HTTP");
}

fn lifecycle(lifecycle: &mut Lifecycle) {
    let handler = |handler: &mut LifecycleHandler| handler.http_get.iter_mut().for_each(http_get);
    lifecycle.post_start.iter_mut().for_each(handler);
    lifecycle.pre_stop.iter_mut().for_each(handler);
}

fn volume(volume: &mut Volume) {
    if source_count(volume) == 0 {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(secret) = volume.secret.as_mut() {
        set(&mut secret.default_mode, FILE_MODE);
    }
    if let Some(map) = volume.config_map.as_mut() {
        set(&mut map.default_mode, FILE_MODE);
    }
    if let Some(host) = volume.host_path.as_mut() {
        set(&mut host.type_, String::new());
    }
    if let Some(downward) = volume.downward_api.as_mut() {
        set(&mut downward.default_mode, FILE_MODE);
        let fields = downward.items.iter_mut().flatten().filter_map(|item| item.field_ref.as_mut());
        fields.for_each(|field| set_text(&mut field.api_version, "v1"));
    }
    volume.projected.iter_mut().for_each(projected);
    if let Some(image) = volume.image.as_mut() {
        let policy = pull_policy(image.reference.as_deref().unwrap_or_default());
        set_text(&mut image.pull_policy, policy);
    }
    if let Some(claim) = volume.ephemeral.as_mut().and_then(|e| e.volume_claim_template.as_mut()) {
        set_text(&mut claim.spec.volume_mode, "Filesystem");
    }
}

fn projected(source: &mut ProjectedVolumeSource) {
    set(&mut source.default_mode, FILE_MODE);
    for projection in source.sources.iter_mut().flatten() {
        if let Some(token) = projection.service_account_token.as_mut() {
            set(&mut token.expiration_seconds, TOKEN_SECONDS);
        }
        let items = projection.downward_api.iter_mut().flat_map(|api| api.items.iter_mut().flatten());
        items
            .filter_map(|item| item.field_ref.as_mut())
            .for_each(|field| set_text(&mut field.api_version, "v1"));
    }
}

/// How many sources a volume names; exactly one is right.
pub fn source_count(v: &Volume) -> usize {
    let named = [
        v.aws_elastic_block_store.is_some(),
        v.azure_disk.is_some(),
        v.azure_file.is_some(),
        v.cephfs.is_some(),
        v.cinder.is_some(),
        v.config_map.is_some(),
        v.csi.is_some(),
        v.downward_api.is_some(),
        v.empty_dir.is_some(),
        v.ephemeral.is_some(),
        v.fc.is_some(),
        v.flex_volume.is_some(),
        v.flocker.is_some(),
        v.gce_persistent_disk.is_some(),
        v.git_repo.is_some(),
        v.glusterfs.is_some(),
        v.host_path.is_some(),
        v.image.is_some(),
        v.iscsi.is_some(),
        v.nfs.is_some(),
        v.persistent_volume_claim.is_some(),
        v.photon_persistent_disk.is_some(),
        v.portworx_volume.is_some(),
        v.projected.is_some(),
        v.quobyte.is_some(),
        v.rbd.is_some(),
        v.scale_io.is_some(),
        v.secret.is_some(),
        v.storageos.is_some(),
        v.vsphere_volume.is_some(),
    ];
    named.into_iter().filter(|named| *named).count()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn defaulted(spec: Value) -> Value {
        let mut object: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
        pod(&mut object);
        let once = object.clone();
        pod(&mut object);
        assert_eq!(object, once, "defaulting twice changes nothing");
        serde_json::to_value(object).unwrap()["spec"].take()
    }

    #[test]
    fn a_minimal_pod_is_filled_in() {
        assert_eq!(
            defaulted(json!({"containers": [{"name": "a", "image": "nginx"}]})),
            json!({
                "containers": [{"name": "a", "image": "nginx", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true, "restartPolicy": "Always",
                "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30,
            })
        );
    }

    #[test]
    fn pull_policy_follows_the_tag() {
        let cases = [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.2", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
        ];
        for (image, policy) in cases {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn probes_ports_env_and_requests_are_filled_in() {
        let spec = defaulted(json!({"hostNetwork": true, "serviceAccount": "x", "containers": [{
            "name": "a", "image": "i:1", "ports": [{"containerPort": 80}],
            "env": [{"name": "E", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            "readinessProbe": {"httpGet": {"port": 80}},
            "resources": {"limits": {"cpu": "1"}},
        }]}));
        let c = &spec["containers"][0];
        assert_eq!(c["ports"], json!([{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]));
        assert_eq!(c["env"][0]["valueFrom"]["fieldRef"]["apiVersion"], "v1");
        assert_eq!(
            c["readinessProbe"],
            json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
                "successThreshold": 1, "failureThreshold": 3})
        );
        assert_eq!(c["resources"]["requests"], json!({"cpu": "1"}));
        assert_eq!(spec["serviceAccountName"], "x");
    }

    #[test]
    fn volumes_get_modes_and_a_source() {
        let spec = defaulted(json!({"containers": [], "volumes": [
            {"name": "a"}, {"name": "b", "configMap": {"name": "m"}}, {"name": "c", "secret": {"secretName": "s"}},
            {"name": "d", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
            {"name": "e", "hostPath": {"path": "/x"}}, {"name": "f", "image": {"reference": "r/i:1"}},
        ]}));
        assert_eq!(
            spec["volumes"],
            json!([
                {"name": "a", "emptyDir": {}}, {"name": "b", "configMap": {"name": "m", "defaultMode": 420}},
                {"name": "c", "secret": {"secretName": "s", "defaultMode": 420}},
                {"name": "d", "projected": {"defaultMode": 420,
                    "sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}},
                {"name": "e", "hostPath": {"path": "/x", "type": ""}},
                {"name": "f", "image": {"reference": "r/i:1", "pullPolicy": "IfNotPresent"}},
            ])
        );
    }
}
