//! The text of containerd's configuration, in the version that the containerd at hand wants.

use std::path::{Path, PathBuf};

use super::registries::Registries;
use crate::host::cgroups::Driver;

/// Version of containerd: what it prints, without a leading `v` and anything after the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuntimeVersion {
    /// First number.
    pub major: u32,
    /// Second number.
    pub minor: u32,
}

impl RuntimeVersion {
    /// Reads what `containerd --version` prints: name, repository, version, revision.
    pub fn parse(output: &str) -> Option<Self> {
        let version = output.split_whitespace().nth(2)?.trim_start_matches('v');
        let mut numbers = version.split(['.', '~', '-', '+']);
        Some(Self { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
    }
}

/// Everything that the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Version of the containerd that reads it.
    pub version: RuntimeVersion,
    /// Directory that a reboot must not take.
    pub root: PathBuf,
    /// Directory that a reboot may take.
    pub state: PathBuf,
    /// Where it serves.
    pub socket: PathBuf,
    /// The image that holds a pod's namespaces.
    pub pause_image: String,
    /// How layers are stacked.
    pub snapshotter: String,
    /// Who owns the cgroups.
    pub cgroup_driver: Driver,
    /// Do not lower a container's OOM score below our own: the kernel would refuse.
    pub restrict_oom_score_adj: bool,
    /// Where network plugins are.
    pub cni_bin_dir: PathBuf,
    /// Where the network configuration is.
    pub cni_conf_dir: PathBuf,
    /// Where registries are configured.
    pub registries_dir: PathBuf,
    /// Credentials for registries.
    pub registries: Registries,
}

/// Plugins that a node has no use for; each one costs time at the start. Unknown names do no harm.
const DISABLED: &[&str] = &[
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp",
];

/// The configuration file.
pub fn render(settings: &Settings) -> String {
    let mut text = String::from("# Written by kube-lite at every start; changes are lost.\n");
    let new = settings.version.major >= 2;
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    line(format!("version = {}", if new { 3 } else { 2 }));
    line(format!("root = {}", path(&settings.root)));
    line(format!("state = {}", path(&settings.state)));
    let used = |plugin: &&&str| !plugin.ends_with(&format!(".{}", settings.snapshotter));
    let disabled: Vec<_> = DISABLED.iter().filter(used).map(|plugin| quote(plugin)).collect();
    line(format!("disabled_plugins = [{}]", disabled.join(", ")));
    line(format!("\n[grpc]\n  address = {}", path(&settings.socket)));
    let ttrpc = format!("{}.ttrpc", settings.socket.display());
    line(format!("\n[ttrpc]\n  address = {}", quote(&ttrpc)));
    text.push_str(&if new { version_3(settings) } else { version_2(settings) });
    text
}

/// For containerd 1.6 and 1.7: one plugin is all of CRI.
fn version_2(settings: &Settings) -> String {
    const CRI: &str = r#"plugins."io.containerd.grpc.v1.cri""#;
    let Settings { pause_image, snapshotter, .. } = settings;
    format!(
        r#"
[{CRI}]
  sandbox_image = {pause}
  restrict_oom_score_adj = {restrict}
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true{cdi}

[{CRI}.cni]
  bin_dir = {bin}
  conf_dir = {conf}

[{CRI}.registry]
  config_path = {registries}

[{CRI}.containerd]
  snapshotter = {snapshotter}

[{CRI}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[{CRI}.containerd.runtimes.runc.options]
  SystemdCgroup = {systemd}
{credentials}"#,
        credentials = settings.registries.credentials(CRI),
        // Version 1.6 knows no CDI.
        cdi = if settings.version.minor >= 7 { "\n  enable_cdi = true" } else { "" },
        pause = quote(pause_image),
        restrict = settings.restrict_oom_score_adj,
        bin = path(&settings.cni_bin_dir),
        conf = path(&settings.cni_conf_dir),
        registries = path(&settings.registries_dir),
        snapshotter = quote(snapshotter),
        systemd = settings.cgroup_driver == Driver::Systemd,
    )
}

/// For containerd 2: images, runtime and streaming are plugins of their own.
fn version_3(settings: &Settings) -> String {
    const IMAGES: &str = "plugins.'io.containerd.cri.v1.images'";
    const RUNTIME: &str = "plugins.'io.containerd.cri.v1.runtime'";
    const SERVICE: &str = "plugins.'io.containerd.grpc.v1.cri'";
    let bin = match settings.version.minor {
        0 => format!("bin_dir = {}", path(&settings.cni_bin_dir)),
        _ => format!("bin_dirs = [{}]", path(&settings.cni_bin_dir)),
    };
    format!(
        r#"
[{SERVICE}]
  disable_tcp_service = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"

[{IMAGES}]
  snapshotter = {snapshotter}

[{IMAGES}.pinned_images]
  sandbox = {pause}

[{IMAGES}.registry]
  config_path = {registries}

[{RUNTIME}]
  restrict_oom_score_adj = {restrict}
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true

[{RUNTIME}.cni]
  {bin}
  conf_dir = {conf}

[{RUNTIME}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[{RUNTIME}.containerd.runtimes.runc.options]
  SystemdCgroup = {systemd}

[plugins.'io.containerd.nri.v1.nri']
  disable = true
{credentials}"#,
        credentials = settings.registries.credentials(IMAGES),
        snapshotter = quote(&settings.snapshotter),
        pause = quote(&settings.pause_image),
        registries = path(&settings.registries_dir),
        restrict = settings.restrict_oom_score_adj,
        conf = path(&settings.cni_conf_dir),
        systemd = settings.cgroup_driver == Driver::Systemd,
    )
}

fn path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// A TOML string. JSON's escapes are a subset of TOML's.
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(major: u32, minor: u32) -> Settings {
        Settings {
            version: RuntimeVersion { major, minor },
            root: "/var/lib/kube-lite/agent/containerd".into(),
            state: "/run/kube-lite/containerd".into(),
            socket: "/run/kube-lite/containerd/containerd.sock".into(),
            pause_image: "kube-lite.io/pause:0.1.0".into(),
            snapshotter: "overlayfs".into(),
            cgroup_driver: Driver::Cgroupfs,
            restrict_oom_score_adj: true,
            cni_bin_dir: "/usr/lib/cni".into(),
            cni_conf_dir: "/var/lib/kube-lite/agent/etc/cni/net.d".into(),
            registries_dir: "/var/lib/kube-lite/agent/etc/containerd/certs.d".into(),
            registries: Registries::default(),
        }
    }

    #[test]
    fn versions_are_read_as_distributions_print_them() {
        for (output, major, minor) in [
            ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", 1, 6),
            (
                "containerd github.com/containerd/containerd/v2 v2.1.4 75cb2b7193e4e490e9fbdc236c0e811ccaba3376",
                2,
                1,
            ),
            ("containerd containerd.io 1.7.27 05044ec", 1, 7),
            ("containerd github.com/containerd/containerd/v2 2.0.0-rc.1 x", 2, 0),
        ] {
            assert_eq!(RuntimeVersion::parse(output), Some(RuntimeVersion { major, minor }), "{output}");
        }
        assert_eq!(RuntimeVersion::parse("containerd"), None);
    }

    #[test]
    fn version_1_gets_one_cri_plugin() {
        let text = render(&settings(1, 6));
        for expected in [
            "version = 2\n",
            "  address = \"/run/kube-lite/containerd/containerd.sock\"\n",
            "sandbox_image = \"kube-lite.io/pause:0.1.0\"\n",
            "restrict_oom_score_adj = true\n",
            "  snapshotter = \"overlayfs\"\n",
            "  SystemdCgroup = false\n",
            "  bin_dir = \"/usr/lib/cni\"\n",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        assert!(!text.contains("cri.v1"));
    }

    #[test]
    fn version_2_gets_separate_plugins_and_the_plugin_directories_in_its_words() {
        let systemd = Settings { cgroup_driver: Driver::Systemd, ..settings(2, 1) };
        let text = render(&systemd);
        for expected in [
            "version = 3\n",
            "  sandbox = \"kube-lite.io/pause:0.1.0\"\n",
            "  bin_dirs = [\"/usr/lib/cni\"]\n",
            "  SystemdCgroup = true\n",
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        assert!(render(&settings(2, 0)).contains("  bin_dir = \"/usr/lib/cni\"\n"));
    }

    #[test]
    fn the_snapshotter_in_use_is_not_disabled() {
        let text = render(&Settings { snapshotter: "zfs".into(), ..settings(1, 7) });
        assert!(!text.contains("v1.zfs") && text.contains("v1.btrfs"));
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(quote("a\"b\\c\n"), r#""a\"b\\c\n""#);
    }
}
