//! What a worker may throw away: old dead containers and sandboxes, with their logs.

use std::path::Path;

use crate::kubelet::observed::{ObservedPod, RunState};

/// Ids of things that nobody needs any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Containers: id, name and attempt.
    pub containers: Vec<(String, String, u32)>,
    /// Sandboxes.
    pub sandboxes: Vec<String>,
}

/// Keeps per name the newest dead container (and whatever lives), and per pod the newest sandbox.
pub fn garbage(observed: &ObservedPod) -> Garbage {
    let mut out = Garbage::default();
    for (i, c) in observed.containers.iter().enumerate() {
        let newer_dead =
            observed.containers[..i].iter().any(|n| n.name == c.name && n.state == RunState::Exited);
        if c.state == RunState::Exited && newer_dead {
            out.containers.push((c.id.clone(), c.name.clone(), c.attempt));
        }
    }
    for s in observed.sandboxes.iter().skip(1).filter(|s| !s.ready) {
        let kept = observed
            .containers
            .iter()
            .any(|c| c.sandbox_id == s.id && !out.containers.iter().any(|(id, ..)| *id == c.id));
        if !kept {
            out.sandboxes.push(s.id.clone());
        }
    }
    out
}

/// Removes the log files of one run of a container.
pub fn remove_logs(pod_log_dir: &Path, container: &str, attempt: u32) {
    let dir = pod_log_dir.join(container);
    let Ok(entries) = std::fs::read_dir(&dir) else { return };
    let prefix = format!("{attempt}.log");
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let ours = name.strip_prefix(&prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if ours && let Err(error) = std::fs::remove_file(entry.path()) {
            tracing::debug!(path = %entry.path().display(), %error, "log file not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::pods::fixture::{exited, observed, running, sandbox};

    #[test]
    fn the_last_dead_container_of_each_name_stays() {
        let mut current = running("a");
        current.attempt = 3;
        let have = observed(vec![
            current,
            exited("a", 2, 1),
            exited("a", 1, 1),
            exited("a", 0, 1),
            exited("b", 0, 0),
        ]);
        let ids: Vec<String> = garbage(&have).containers.into_iter().map(|(id, ..)| id).collect();
        assert_eq!(ids, ["a-1", "a-0"]);
    }

    #[test]
    fn old_sandboxes_go_with_their_last_container() {
        let mut have = observed(vec![exited("a", 0, 1)]);
        have.sandboxes = vec![sandbox("s2", true), sandbox("s1", false)];
        assert!(garbage(&have).sandboxes.is_empty(), "its container is still kept");
        have.containers.clear();
        assert_eq!(garbage(&have).sandboxes, ["s1"]);
    }

    #[test]
    fn logs_of_one_run_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("a");
        std::fs::create_dir(&logs).unwrap();
        for name in ["1.log", "1.log.20260101", "11.log", "2.log"] {
            std::fs::write(logs.join(name), "").unwrap();
        }
        remove_logs(dir.path(), "a", 1);
        let mut left: Vec<_> = std::fs::read_dir(&logs).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["11.log", "2.log"]);
    }
}
