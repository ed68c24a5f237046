//! Settings of the kubelet beside the flags of the node: `--kubelet-arg NAME=VALUE` with the names of upstream's flags,
//! and files of kind KubeletConfiguration (`--kubelet-arg config=FILE`, drop-ins by `config-dir=DIR`).
//!
//! As upstream, a drop-in wins over the file and an argument over both; maps are merged, lists replaced.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tracing::warn;

use super::ConfigError;

/// Where upstream's kubelet keeps pods and plugins, and where CSI drivers look for it.
pub const ROOT_DIR: &str = "/var/lib/kubelet";

/// What of a KubeletConfiguration has an effect here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KubeletSettings {
    /// Directory of pods and plugins; [`ROOT_DIR`] when absent.
    pub root_dir: Option<PathBuf>,
    /// Labels to register with.
    pub node_labels: BTreeMap<String, String>,
    /// Taints to register with, as `KEY=VALUE:EFFECT`.
    pub node_taints: Vec<String>,
    /// `spec.providerID`.
    #[serde(alias = "providerID")]
    pub provider_id: Option<String>,
    /// Most pods.
    pub max_pods: Option<u32>,
    /// Most processes of one pod; no limit when absent or not above zero.
    pub pod_pids_limit: Option<i64>,
    /// Signal to amount, for pods that are ended at once.
    pub eviction_hard: Option<BTreeMap<String, String>>,
    /// Signal to amount, for pods that are ended after a while.
    pub eviction_soft: Option<BTreeMap<String, String>>,
    /// Signal to that while.
    pub eviction_soft_grace_period: Option<BTreeMap<String, String>>,
    /// Size at which a container's log is rotated.
    pub container_log_max_size: Option<String>,
    /// Files that a container's log may have.
    pub container_log_max_files: Option<u32>,
    /// Percentage of the disk at which images are collected.
    #[serde(rename = "imageGCHighThresholdPercent")]
    pub image_gc_high_threshold_percent: Option<u8>,
    /// Percentage down to which they are.
    #[serde(rename = "imageGCLowThresholdPercent")]
    pub image_gc_low_threshold_percent: Option<u8>,
    /// Resources that Kubernetes itself needs.
    pub kube_reserved: BTreeMap<String, String>,
    /// Resources that the rest of the host needs.
    pub system_reserved: BTreeMap<String, String>,
    /// The host's resolver file for pods.
    pub resolv_conf: Option<PathBuf>,
    /// Directory of static pods.
    pub static_pod_path: Option<PathBuf>,
    /// Kernel settings beyond the safe ones that pods may change; a name, or a prefix with `*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// Pulls at the same time.
    pub max_parallel_image_pulls: Option<usize>,
    /// One pull at a time.
    pub serialize_image_pulls: Option<bool>,
    /// Port of the HTTPS server.
    pub port: Option<u16>,
}

/// What an argument's text becomes.
#[derive(Clone, Copy)]
enum Shape {
    Text,
    Number,
    Flag,
    /// `a,b`.
    List,
    /// `a=b,c=d`.
    Map,
    /// `a<b,c<d`.
    Limits,
}

/// Upstream's flags that have an effect, with the field of the configuration that they set.
const ARGUMENTS: &[(&str, &str, Shape)] = &[
    ("root-dir", "rootDir", Shape::Text),
    ("node-labels", "nodeLabels", Shape::Map),
    ("register-with-taints", "nodeTaints", Shape::List),
    ("provider-id", "providerId", Shape::Text),
    ("max-pods", "maxPods", Shape::Number),
    ("pod-max-pids", "podPidsLimit", Shape::Number),
    ("eviction-hard", "evictionHard", Shape::Limits),
    ("eviction-soft", "evictionSoft", Shape::Limits),
    ("eviction-soft-grace-period", "evictionSoftGracePeriod", Shape::Map),
    ("container-log-max-size", "containerLogMaxSize", Shape::Text),
    ("container-log-max-files", "containerLogMaxFiles", Shape::Number),
    ("image-gc-high-threshold", "imageGCHighThresholdPercent", Shape::Number),
    ("image-gc-low-threshold", "imageGCLowThresholdPercent", Shape::Number),
    ("kube-reserved", "kubeReserved", Shape::Map),
    ("system-reserved", "systemReserved", Shape::Map),
    ("resolv-conf", "resolvConf", Shape::Text),
    ("pod-manifest-path", "staticPodPath", Shape::Text),
    ("allowed-unsafe-sysctls", "allowedUnsafeSysctls", Shape::List),
    ("max-parallel-image-pulls", "maxParallelImagePulls", Shape::Number),
    ("serialize-image-pulls", "serializeImagePulls", Shape::Flag),
    ("port", "port", Shape::Number),
];

impl KubeletSettings {
    /// Reads arguments of the form `NAME=VALUE`, and the files that they name.
    ///
    /// # Errors
    /// A file that cannot be read or is none of this kind, or a value that its name does not take.
    pub fn load(arguments: &[String]) -> Result<Self, ConfigError> {
        let mut merged = Map::new();
        let pairs: Vec<(&str, &str)> = arguments.iter().map(|argument| pair(argument)).collect();
        let named = |wanted: &str| -> Vec<&str> {
            pairs.iter().filter(|(name, _)| *name == wanted).map(|(_, value)| *value).collect()
        };
        for file in named("config") {
            merge(&mut merged, read(Path::new(file))?);
        }
        for directory in named("config-dir") {
            for file in drop_ins(Path::new(directory))? {
                merge(&mut merged, read(&file)?);
            }
        }
        for (name, value) in &pairs {
            match ARGUMENTS.iter().find(|(known, ..)| known == name) {
                Some((_, field, shape)) => {
                    let value = shaped(name, value, *shape)?;
                    merge(&mut merged, Map::from_iter([((*field).to_owned(), value)]));
                }
                None if matches!(*name, "config" | "config-dir") => {}
                None => warn!(argument = %name, "this argument of the kubelet changes nothing here"),
            }
        }
        serde_json::from_value(Value::Object(merged))
            .map_err(|error| ConfigError::value("kubelet-arg", "config", error.to_string()))
    }
}

/// Name and value; dashes in front are taken away, and a name alone is a switch.
fn pair(argument: &str) -> (&str, &str) {
    let (name, value) = argument.split_once('=').unwrap_or((argument, "true"));
    (name.trim_start_matches('-'), value)
}

fn shaped(name: &str, value: &str, shape: Shape) -> Result<Value, ConfigError> {
    let wrong = |rule: &str| ConfigError::value("kubelet-arg", &format!("{name}={value}"), rule.to_owned());
    let parts = || value.split(',').map(str::trim).filter(|part| !part.is_empty());
    let map = |sign: char| -> Result<Value, ConfigError> {
        let entries = parts().map(|part| match part.split_once(sign) {
            Some((key, value)) => Ok((key.trim().to_owned(), json!(value.trim()))),
            None => Err(wrong(&format!("a part has the form NAME{sign}VALUE"))),
        });
        Ok(Value::Object(entries.collect::<Result<_, _>>()?))
    };
    match shape {
        Shape::Text => Ok(json!(value)),
        Shape::Number => value.parse::<i64>().map(Value::from).map_err(|_| wrong("it is a number")),
        Shape::Flag => value.parse::<bool>().map(Value::from).map_err(|_| wrong("it is true or false")),
        Shape::List => Ok(parts().collect()),
        Shape::Map => map('='),
        Shape::Limits => map('<'),
    }
}

fn read(path: &Path) -> Result<Map<String, Value>, ConfigError> {
    let wrong = |why: String| ConfigError::File { path: path.to_owned(), why };
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let document: Value = serde_saphyr::from_str(&text)
        .map_err(|error| wrong(error.to_string().lines().next().unwrap_or("it is not YAML").to_owned()))?;
    let Value::Object(mut fields) = document else { return Err(wrong("it must be a map".to_owned())) };
    let kind = fields.remove("kind").unwrap_or_default();
    if !kind.is_null() && kind != "KubeletConfiguration" {
        return Err(wrong(format!("its kind is {kind}, not KubeletConfiguration")));
    }
    fields.remove("apiVersion");
    if let Some(Value::Array(taints)) = fields.remove("registerWithTaints") {
        fields.insert("nodeTaints".to_owned(), taints.iter().map(taint).collect());
    }
    // What upstream calls by a name of ours has no business in a file.
    for own in ["rootDir", "nodeLabels"] {
        fields.remove(own);
    }
    Ok(fields)
}

/// A taint of the API as a flag would have it.
fn taint(taint: &Value) -> String {
    let text = |name: &str| taint[name].as_str().unwrap_or_default();
    match text("value") {
        "" => format!("{}:{}", text("key"), text("effect")),
        value => format!("{}={value}:{}", text("key"), text("effect")),
    }
}

/// The files of a drop-in directory, in the order of their names.
fn drop_ins(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let failed = |source| ConfigError::Read { path: directory.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|ending| ending == "conf") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn merge(into: &mut Map<String, Value>, from: Map<String, Value>) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Object(known)), Value::Object(more)) => merge(known, more),
            (_, value) => drop(into.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(arguments: &[&str]) -> Result<KubeletSettings, ConfigError> {
        KubeletSettings::load(&arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_have_upstreams_names() {
        let got = load(&[
            "--max-pods=200",
            "root-dir=/data/kubelet",
            "eviction-hard=memory.available<1Gi,nodefs.available<5%",
            "kube-reserved=cpu=100m,memory=1Gi",
            "allowed-unsafe-sysctls=kernel.msg*,net.core.somaxconn",
            "serialize-image-pulls",
            "v=4",
        ])
        .unwrap();
        assert_eq!((got.max_pods, got.root_dir), (Some(200), Some("/data/kubelet".into())));
        assert_eq!(got.eviction_hard.unwrap()["nodefs.available"], "5%");
        assert_eq!(got.kube_reserved["memory"], "1Gi");
        assert_eq!(got.allowed_unsafe_sysctls, ["kernel.msg*", "net.core.somaxconn"]);
        assert_eq!(got.serialize_image_pulls, Some(true));
        let error = load(&["max-pods=many"]).unwrap_err().to_string();
        assert_eq!(error, "--kubelet-arg \"max-pods=many\": it is a number");
    }

    #[test]
    fn drop_ins_win_over_the_file_and_arguments_over_both() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let file = write(
            "kubelet.yaml",
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 1\npodPidsLimit: 1\n\
             evictionHard: {memory.available: 1Mi, pid.available: 1%}\nfutureField: true\n\
             registerWithTaints: [{key: a, effect: NoSchedule}, {key: b, value: c, effect: NoExecute}]\n",
        );
        write("conf.d/10-a.conf", "maxPods: 2\nevictionHard: {memory.available: 2Mi}\n");
        write("conf.d/20-b.conf", "podPidsLimit: 3\n");
        write("conf.d/ignored.yaml", "maxPods: 9\n");
        let drop_ins = format!("config-dir={}", dir.path().join("conf.d").display());
        let got = load(&[&format!("config={file}"), &drop_ins, "max-pods=4"]).unwrap();
        assert_eq!((got.max_pods, got.pod_pids_limit), (Some(4), Some(3)));
        let hard = got.eviction_hard.unwrap();
        assert_eq!((hard["memory.available"].as_str(), hard["pid.available"].as_str()), ("2Mi", "1%"));
        assert_eq!(got.node_taints, ["a:NoSchedule", "b=c:NoExecute"]);
        let other = write("other.yaml", "kind: Pod\n");
        assert!(
            load(&[&format!("config={other}")]).unwrap_err().to_string().contains("not KubeletConfiguration")
        );
        assert!(load(&["config=/no/such/file"]).is_err());
    }
}
