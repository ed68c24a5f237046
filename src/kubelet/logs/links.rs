//! `/var/log/containers`: one link per container to its log file, under the name that log collectors take apart.

use std::io;
use std::path::Path;

/// Most characters of a file name.
const LONGEST: usize = 255;

/// `<pod>_<namespace>_<container>-<id>.log`; the front is cut when it does not fit.
fn name(pod: &str, namespace: &str, container: &str, id: &str) -> String {
    let end = format!("-{id}.log");
    let front: String =
        format!("{pod}_{namespace}_{container}").chars().take(LONGEST.saturating_sub(end.len())).collect();
    front + &end
}

/// Makes the link; one that is there is kept.
pub fn make(
    directory: &Path,
    (pod, namespace, container): (&str, &str, &str),
    id: &str,
    log: &Path,
) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    match std::os::unix::fs::symlink(log, directory.join(name(pod, namespace, container, id))) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Removes the link of a container that is gone; the rest of its name is not known for orphans.
pub fn remove(directory: &Path, id: &str) {
    let end = format!("-{id}.log");
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|e| e.file_name().to_string_lossy().ends_with(&end)) {
        if let Err(error) = std::fs::remove_file(entry.path()) {
            tracing::debug!(path = %entry.path().display(), %error, "link to a log not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_find_the_log_by_its_name_until_the_container_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (links, log) = (dir.path().join("containers"), dir.path().join("0.log"));
        std::fs::write(&log, "words").unwrap();
        for _ in 0..2 {
            make(&links, ("web", "default", "a"), "abc", &log).unwrap();
        }
        make(&links, ("web", "default", "b"), "abd", &log).unwrap();
        assert_eq!(std::fs::read_to_string(links.join("web_default_a-abc.log")).unwrap(), "words");
        remove(&links, "abc");
        let left: Vec<_> = std::fs::read_dir(&links).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["web_default_b-abd.log"]);
        assert_eq!(name(&"p".repeat(253), "n", "c", "id").len(), LONGEST);
    }
}
