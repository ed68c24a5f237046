//! What this machine's containerd and kernel can do, found out by trying.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{debug, warn};

use super::ContainerdConfig;
use super::config::RuntimeVersion;
use crate::host::Host;
use crate::host::mounts::{MountKind, Mounts};
use crate::host::preflight::CNI_PLUGINS;
use crate::host::processes::{Command, ProcessError, run};

const LIMIT: Duration = Duration::from_secs(20);
/// What a containerd that says nothing sensible is taken for.
const OLDEST: RuntimeVersion = RuntimeVersion { major: 1, minor: 6 };

/// The version of the containerd that would be started. Asking costs a tenth of a second, so the answer is kept
/// beside the program's size and date.
pub(super) async fn version(host: &Host, config: &ContainerdConfig) -> Result<RuntimeVersion, ProcessError> {
    let program = host.processes.find("containerd");
    let program = program.ok_or_else(|| ProcessError::NotFound { program: "containerd".to_owned() })?;
    let kept = config.root().join("version");
    let stamp = stamp(&program);
    if let Some(output) = stamp.as_ref().and_then(|stamp| read_kept(&kept, stamp))
        && let Some(version) = RuntimeVersion::parse(&output)
    {
        return Ok(version);
    }
    let output = run(host.processes.as_ref(), Command::new(program, ["--version"]), LIMIT).await?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let Some(version) = RuntimeVersion::parse(&text) else {
        warn!(output = text, "containerd's version is not understood");
        return Ok(OLDEST);
    };
    if let Some(stamp) = stamp
        && let Err(error) = fs::write(&kept, format!("{stamp}\n{text}\n"))
    {
        debug!(%error, "containerd's version is not kept");
    }
    Ok(version)
}

fn stamp(program: &Path) -> Option<String> {
    let metadata = fs::metadata(program).ok()?;
    let modified = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(format!("{} {} {}", program.display(), metadata.len(), modified.as_nanos()))
}

fn read_kept(file: &Path, stamp: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let (first, rest) = text.split_once('\n')?;
    (first == stamp).then(|| rest.trim().to_owned())
}

/// Whether a process of ours may lower its OOM score, as a sandbox's does. A machine that is itself a container often
/// may not, though it is root.
pub(super) async fn oom_lowering(host: &Host) -> bool {
    let script = "echo -1000 > /proc/self/oom_score_adj";
    let output = host.processes.output(Command::new("sh", ["-c", script]), LIMIT).await;
    output.is_ok_and(|output| output.code == 0)
}

/// `overlayfs` if the kernel can stack directories of the file system that holds `root`, otherwise `native`, which
/// copies.
pub(super) fn snapshotter(host: &Host, root: &Path) -> String {
    let works = overlay_works(host.mounts.as_ref(), &root.join("overlay-probe"));
    if !works {
        warn!(directory = %root.display(), "overlay mounts do not work here; images are copied");
    }
    if works { "overlayfs" } else { "native" }.to_owned()
}

fn overlay_works(mounts: &dyn Mounts, scratch: &Path) -> bool {
    let directories = ["lower", "upper", "work", "merged"].map(|name| scratch.join(name));
    if directories.iter().any(|directory| fs::create_dir_all(directory).is_err()) {
        return false;
    }
    let [lower, upper, work, merged] = directories;
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let kind = MountKind::Device {
        fstype: "overlay".to_owned(),
        source: "overlay".to_owned(),
        options,
        read_only: false,
    };
    let works = match mounts.mount(&merged, &kind) {
        Ok(()) => mounts.unmount(&merged, true).is_ok(),
        Err(_) => false,
    };
    if let Err(error) = fs::remove_dir_all(scratch) {
        debug!(%error, "overlay probe not removed");
    }
    works
}

/// The directory that has all the network plugins, or the one that has most of them.
pub(super) fn cni_bin_dir(directories: &[PathBuf]) -> PathBuf {
    let has =
        |directory: &&PathBuf| CNI_PLUGINS.iter().filter(|plugin| directory.join(plugin).is_file()).count();
    // The first of the best: `max_by_key` takes the last.
    directories.iter().rev().max_by_key(has).cloned().unwrap_or_else(|| PathBuf::from("/opt/cni/bin"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::FakeHost;
    use crate::host::processes::Output;

    fn printing(text: &'static str) -> FakeHost {
        let fake = FakeHost::default();
        fake.processes.answer("containerd", move |_| Output { stdout: text.into(), ..Output::default() });
        fake
    }

    #[tokio::test]
    async fn the_version_is_asked_for_and_a_strange_answer_is_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let config = ContainerdConfig::new(dir.path(), dir.path());
        for (text, expected) in
            [("containerd x 2.1.0 y", RuntimeVersion { major: 2, minor: 1 }), ("?", OLDEST)]
        {
            assert_eq!(version(&printing(text).host(), &config).await.unwrap(), expected);
        }
        let missing = version(&FakeHost::default().host(), &config).await.unwrap_err();
        assert_eq!(missing.to_string(), "containerd: no such program");
    }

    #[test]
    fn a_kept_version_counts_for_the_same_program_only() {
        let dir = tempfile::tempdir().unwrap();
        let kept = dir.path().join("version");
        fs::write(&kept, "/usr/bin/containerd 1 2\ncontainerd x 1.7.1 y\n").unwrap();
        assert_eq!(read_kept(&kept, "/usr/bin/containerd 1 2").unwrap(), "containerd x 1.7.1 y");
        assert_eq!(read_kept(&kept, "/usr/bin/containerd 1 3"), None);
    }

    #[tokio::test]
    async fn lowering_the_oom_score_is_tried() {
        let fake = FakeHost::default();
        fake.processes.answer("sh", |_| Output { code: 1, ..Output::default() });
        assert!(!oom_lowering(&fake.host()).await);
        fake.processes.answer("sh", |_| Output::default());
        assert!(oom_lowering(&fake.host()).await);
    }

    #[test]
    fn the_directory_with_all_plugins_wins_and_the_first_of_equals() {
        let dir = tempfile::tempdir().unwrap();
        let [few, all, more] = ["few", "all", "more"].map(|name| dir.path().join(name));
        for directory in [&few, &all, &more] {
            fs::create_dir(directory).unwrap();
        }
        fs::write(few.join("bridge"), "").unwrap();
        for plugin in CNI_PLUGINS {
            fs::write(all.join(plugin), "").unwrap();
            fs::write(more.join(plugin), "").unwrap();
        }
        assert_eq!(cni_bin_dir(&[few.clone(), all.clone(), more]), all);
        assert_eq!(cni_bin_dir(&[dir.path().join("none"), few.clone()]), few);
    }

    #[test]
    fn the_overlay_probe_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let fake = FakeHost::default();
        assert_eq!(snapshotter(&fake.host(), dir.path()), "overlayfs");
        assert!(fake.mounts.targets().is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
