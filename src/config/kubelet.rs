//! Settings of the kubelet beside the flags of the node: `--kubelet-arg NAME=VALUE` with the names of upstream's flags,
//! and files of kind KubeletConfiguration (`--kubelet-arg config=FILE`, drop-ins by `config-dir=DIR`).
//!
//! As upstream, a drop-in wins over the file and an argument over both; maps are merged, lists replaced. Every field of
//! upstream's kind is known: those that change nothing here say so in the log, values that cannot be had are errors, and
//! so is what upstream does not know.

mod fields;
mod settings;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tracing::warn;

use super::ConfigError;

pub use settings::{CrashLoopBackOff, KubeletSettings, MemorySwap, ShutdownGracePeriod, SwapBehavior};

/// Where upstream's kubelet keeps pods and plugins, and where CSI drivers look for it.
pub const ROOT_DIR: &str = "/var/lib/kubelet";

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
    ("eviction-minimum-reclaim", "evictionMinimumReclaim", Shape::Map),
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
    ("address", "address", Shape::Text),
    ("cgroup-root", "cgroupRoot", Shape::Text),
    ("cluster-dns", "clusterDNS", Shape::List),
    ("cluster-domain", "clusterDomain", Shape::Text),
    ("container-log-monitor-interval", "containerLogMonitorInterval", Shape::Text),
    ("cpu-cfs-quota", "cpuCFSQuota", Shape::Flag),
    ("cpu-cfs-quota-period", "cpuCFSQuotaPeriod", Shape::Text),
    ("cpu-manager-policy", "cpuManagerPolicy", Shape::Text),
    ("cpu-manager-policy-options", "cpuManagerPolicyOptions", Shape::Map),
    ("enable-debugging-handlers", "enableDebuggingHandlers", Shape::Flag),
    ("eviction-max-pod-grace-period", "evictionMaxPodGracePeriod", Shape::Number),
    ("eviction-pressure-transition-period", "evictionPressureTransitionPeriod", Shape::Text),
    ("fail-swap-on", "failSwapOn", Shape::Flag),
    ("image-credential-provider-bin-dir", "imageCredentialProviderBinDir", Shape::Text),
    ("image-credential-provider-config", "imageCredentialProviderConfig", Shape::Text),
    ("minimum-image-ttl-duration", "imageMinimumGCAge", Shape::Text),
    ("node-status-max-images", "nodeStatusMaxImages", Shape::Number),
    ("node-status-update-frequency", "nodeStatusUpdateFrequency", Shape::Text),
    ("pod-logs-dir", "podLogsDir", Shape::Text),
    ("pods-per-core", "podsPerCore", Shape::Number),
    ("reserved-cpus", "reservedSystemCPUs", Shape::Text),
    ("seccomp-default", "seccompDefault", Shape::Flag),
];

/// Names of ours for flags that upstream has no field for.
const NO_FIELDS: [&str; 5] =
    ["rootDir", "nodeLabels", "nodeTaints", "imageCredentialProviderConfig", "imageCredentialProviderBinDir"];

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
        let wrong = |why: String| ConfigError::value("kubelet-arg", "config", why);
        let settings: Self =
            serde_json::from_value(Value::Object(merged)).map_err(|e| wrong(e.to_string()))?;
        settings.check().map_err(wrong)?;
        Ok(settings)
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
    let version = fields.remove("apiVersion").unwrap_or_default();
    if !version.is_null() && version != "kubelet.config.k8s.io/v1beta1" {
        return Err(wrong(format!("its apiVersion is {version}, not kubelet.config.k8s.io/v1beta1")));
    }
    if let Some(own) = NO_FIELDS.iter().find(|own| fields.contains_key(**own)) {
        return Err(wrong(format!("unknown field \"{own}\"")));
    }
    fields::take_away(&mut fields).map_err(wrong)?;
    if let Some(Value::Array(taints)) = fields.remove("registerWithTaints") {
        fields.insert("nodeTaints".to_owned(), taints.iter().map(taint).collect());
    }
    fields.retain(|_, value| !value.is_null());
    match serde_json::from_value::<KubeletSettings>(Value::Object(fields.clone())) {
        Ok(_) => Ok(fields),
        // The list of all names that are known helps nobody.
        Err(error) => {
            Err(wrong(error.to_string().split(", expected").next().unwrap_or_default().replace('`', "\"")))
        }
    }
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
    use std::time::Duration;

    fn load(arguments: &[&str]) -> Result<KubeletSettings, ConfigError> {
        KubeletSettings::load(&arguments.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_have_upstreams_names() {
        let got = load(&[
            "--max-pods=200",
            "root-dir=/data/kubelet",
            "eviction-hard=memory.available<1Gi,nodefs.available<5%",
            "eviction-minimum-reclaim=nodefs.available=2Gi",
            "kube-reserved=cpu=100m,memory=1Gi",
            "allowed-unsafe-sysctls=kernel.msg*,net.core.somaxconn",
            "serialize-image-pulls",
            "v=4",
        ])
        .unwrap();
        assert_eq!((got.max_pods, got.root_dir), (Some(200), Some("/data/kubelet".into())));
        assert_eq!(got.eviction_hard.unwrap()["nodefs.available"], "5%");
        assert_eq!(got.eviction_minimum_reclaim["nodefs.available"], "2Gi");
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
             evictionHard: {memory.available: 1Mi, pid.available: 1%}\nsyncFrequency: 1m\nshutdownGracePeriod: 1m30s\n\
             clusterDNS: [10.1.2.3]\nmemorySwap: {swapBehavior: LimitedSwap}\ncrashLoopBackOff: {maxContainerRestartPeriod: 30s}\n\
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
        assert_eq!(got.shutdown_grace_period, Some(Duration::from_secs(90)));
        assert_eq!(got.cluster_dns.unwrap(), ["10.1.2.3".parse::<std::net::IpAddr>().unwrap()]);
        assert_eq!(got.memory_swap.swap_behavior, SwapBehavior::LimitedSwap);
        assert_eq!(got.crash_loop_back_off.max_container_restart_period, Some(Duration::from_secs(30)));
        let other = write("other.yaml", "kind: Pod\n");
        assert!(
            load(&[&format!("config={other}")]).unwrap_err().to_string().contains("not KubeletConfiguration")
        );
        assert!(load(&["config=/no/such/file"]).is_err());
    }

    #[test]
    fn what_a_file_must_not_say_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubelet.yaml");
        for (text, want) in [
            ("futureField: true", "unknown field \"futureField\""),
            ("rootDir: /x", "unknown field \"rootDir\""),
            ("memorySwap: {behavior: x}", "unknown field \"behavior\""),
            ("apiVersion: kubelet.config.k8s.io/v1", "not kubelet.config.k8s.io/v1beta1"),
            (
                "staticPodURL: http://x",
                "staticPodURL: \"http://x\" is not supported: static pods come from files",
            ),
            ("shutdownGracePeriod: 10", "invalid type"),
            ("shutdownGracePeriod: soon", "\"soon\" is not a length of time"),
            ("shutdownGracePeriodCriticalPods: 10s", "must not be longer than shutdownGracePeriod"),
            ("cpuCFSQuotaPeriod: 2s", "between 1ms and 1s"),
            ("cpuManagerPolicy: dynamic", "neither none nor static"),
        ] {
            std::fs::write(&path, format!("{text}\n")).unwrap();
            let error = load(&[&format!("config={}", path.display())]).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
