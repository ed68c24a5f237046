//! Local storage of pods: what they use on the node's disk, and whether that is more than their own limits.

use k8s_openapi::api::core::v1::Pod;

use super::rank::bytes;
use crate::host::filesystems::tree_usage;
use crate::kubelet::config::KubeletConfig;
use crate::kubelet::containers::resources::{milli, units};
use crate::kubelet::spec;
use crate::kubelet::stats::ContainerUse;

/// What one pod has on disk, in bytes and inodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnDisk {
    /// emptyDir volumes by name.
    pub volumes: Vec<(String, u64)>,
    /// Logs and writable layer of each container.
    pub containers: Vec<(String, u64)>,
    /// Inodes of all of it.
    pub inodes: u64,
}

/// Looks at the disk; slow for large volumes.
pub fn measure(config: &KubeletConfig, pod: &Pod, containers: &[ContainerUse]) -> OnDisk {
    let mut out = OnDisk::default();
    let volumes = config.pod_dir(spec::uid(pod)).join("volumes/kubernetes.io~empty-dir");
    for volume in spec::pod_spec(pod).volumes.iter().flatten() {
        if volume.empty_dir.is_some() {
            let (size, inodes) = tree_usage(&volumes.join(&volume.name));
            out.volumes.push((volume.name.clone(), size));
            out.inodes += inodes;
        }
    }
    let logs = config.pod_log_dir(spec::namespace(pod), spec::name(pod), spec::uid(pod));
    for (_, c) in spec::all_containers(pod) {
        let (size, inodes) = tree_usage(&logs.join(&c.name));
        let own = containers.iter().filter(|u| u.uid == spec::uid(pod) && u.name == c.name);
        let (layer, layer_inodes) =
            own.fold((0, 0), |(b, i), u| (b + u.writable_bytes, i + u.writable_inodes));
        out.containers.push((c.name.clone(), size + layer));
        out.inodes += inodes + layer_inodes;
    }
    out
}

/// Whether the pod has limits that its files could pass.
pub fn limited(pod: &Pod) -> bool {
    let sized =
        |v: &k8s_openapi::api::core::v1::Volume| v.empty_dir.as_ref().is_some_and(|e| e.size_limit.is_some());
    spec::pod_spec(pod).volumes.iter().flatten().any(sized)
        || spec::main_containers(pod).iter().any(|c| storage_limit(c).is_some())
}

fn storage_limit(c: &k8s_openapi::api::core::v1::Container) -> Option<u64> {
    let limit = c.resources.as_ref()?.limits.as_ref()?.get("ephemeral-storage")?;
    u64::try_from(milli(limit) / 1000).ok()
}

/// What the status of a pod says that has more on disk than it may.
pub fn excess(pod: &Pod, on_disk: &OnDisk) -> Option<String> {
    for volume in spec::pod_spec(pod).volumes.iter().flatten() {
        let limit = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref());
        let Some(limit) = limit.filter(|l| units(l) > 0) else { continue };
        let used = on_disk.volumes.iter().find(|(n, _)| *n == volume.name).map_or(0, |(_, used)| *used);
        if i64::try_from(used).unwrap_or(i64::MAX) > units(limit) {
            let name = &volume.name;
            return Some(format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{}\". ", limit.0));
        }
    }
    let limits: Vec<Option<u64>> = spec::main_containers(pod).iter().map(storage_limit).collect();
    if let Some(total) = limits.iter().copied().sum::<Option<u64>>().filter(|_| !limits.is_empty()) {
        let all = on_disk.volumes.iter().chain(&on_disk.containers).map(|(_, used)| used);
        if all.sum::<u64>() > total {
            return Some(format!(
                "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
                bytes(total)
            ));
        }
    }
    for (c, limit) in spec::main_containers(pod).iter().zip(limits) {
        let used = on_disk.containers.iter().find(|(n, _)| *n == c.name).map_or(0, |(_, used)| *used);
        if let Some(limit) = limit.filter(|l| used > *l) {
            return Some(format!(
                "Container {} exceeded its local ephemeral storage limit \"{}\". ",
                c.name,
                bytes(limit)
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture;
    use serde_json::json;

    #[test]
    fn volumes_containers_and_pods_have_limits() {
        let pod = fixture::pod(json!({
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Ki"}}, {"name": "w", "emptyDir": {}}],
            "containers": [{"name": "a", "resources": {"limits": {"ephemeral-storage": "1Mi"}}},
                {"name": "b", "resources": {"limits": {"ephemeral-storage": "1Mi"}}}]}));
        assert!(limited(&pod));
        let disk = |v: u64, w: u64, a: u64| OnDisk {
            volumes: vec![("v".into(), v), ("w".into(), w)],
            containers: vec![("a".into(), a), ("b".into(), 0)],
            inodes: 0,
        };
        for (on_disk, want) in [
            (disk(1024, 0, 0), None),
            (disk(1025, 0, 0), Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Ki\". ")),
            (
                disk(0, 0, (1 << 20) + 1),
                Some("Container a exceeded its local ephemeral storage limit \"1Mi\". "),
            ),
            (
                disk(0, 3 << 20, 0),
                Some("Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
            ),
        ] {
            assert_eq!(excess(&pod, &on_disk).as_deref(), want);
        }
        assert!(!limited(&fixture::pod(json!({"containers": [{"name": "a"}]}))));
    }

    #[test]
    fn files_are_counted_where_the_pod_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = fixture::config();
        config.root_dir = dir.path().to_owned();
        config.log_dir = dir.path().join("logs");
        let pod =
            fixture::pod(json!({"volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "a"}]}));
        let volume = config.pod_dir("u1").join("volumes/kubernetes.io~empty-dir/v");
        std::fs::create_dir_all(&volume).unwrap();
        std::fs::write(volume.join("f"), vec![1; 100_000]).unwrap();
        let layer =
            ContainerUse { uid: "u1".into(), name: "a".into(), writable_bytes: 7, ..Default::default() };
        let got = measure(&config, &pod, &[layer]);
        assert!(got.volumes[0].1 >= 100_000 && got.inodes >= 1, "{got:?}");
        assert_eq!(got.containers, [("a".to_owned(), 7)]);
    }
}
