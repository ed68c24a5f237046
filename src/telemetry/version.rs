//! Which build this is, and the Kubernetes version whose API it serves.

use k8s_openapi::apimachinery::pkg::version::Info;

/// The minor version of the Kubernetes API.
pub const KUBERNETES_MINOR: &str = "36";

/// The version as `/version`, node status and `kube-lite version` tell it; the shape is upstream's `version.Info`.
pub fn info() -> Info {
    let known = |value: Option<&str>| value.unwrap_or("unknown").to_owned();
    Info {
        major: "1".to_owned(),
        minor: KUBERNETES_MINOR.to_owned(),
        git_version: git_version(),
        git_commit: known(option_env!("KUBE_LITE_BUILD_COMMIT")),
        git_tree_state: "clean".to_owned(),
        build_date: known(option_env!("KUBE_LITE_BUILD_DATE")),
        go_version: "none".to_owned(),
        compiler: "rustc".to_owned(),
        platform: format!("linux/{}", architecture()),
        ..Info::default()
    }
}

/// `v1.36.0+kube-lite` and this program's own version, which semantic versioning allows behind a plus.
pub fn git_version() -> String {
    format!("v1.{KUBERNETES_MINOR}.0+kube-lite{}", env!("CARGO_PKG_VERSION"))
}

/// The machine's architecture in Go's words, which node labels and image platforms use.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "arm" => "arm",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_one_that_clients_parse() {
        let info = info();
        assert_eq!((info.major.as_str(), info.minor.as_str()), ("1", "36"));
        let (release, build) = info.git_version.split_once('+').unwrap();
        assert_eq!(release, "v1.36.0");
        assert!(build.starts_with("kube-lite"));
    }
}
