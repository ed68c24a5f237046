//! Writes a set of files so that a reader sees either all old or all new ones.
//!
//! The files live in a directory named after the time; `..data` is a link to it that is replaced by a rename, and the
//! names users see are links through `..data`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use jiff::Timestamp;

/// One file to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projected {
    /// Its bytes.
    pub data: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
    /// Its owner, when it is not root.
    pub uid: Option<u32>,
}

/// Files by their relative path.
pub type Payload = BTreeMap<PathBuf, Projected>;

const DATA: &str = "..data";
const DATA_TMP: &str = "..data_tmp";

/// Makes `directory` show exactly `payload`; false when it already does. `group` owns the files when given.
pub fn write(directory: &Path, payload: &Payload, group: Option<u32>, now: Timestamp) -> io::Result<bool> {
    if let Some(bad) = payload.keys().find(|path| !relative(path)) {
        let message = format!("{} is not a path inside the volume", bad.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    std::fs::create_dir_all(directory)?;
    let former = std::fs::read_link(directory.join(DATA)).ok().map(|target| directory.join(target));
    if let Some(former) = &former
        && same(former, payload, group)?
    {
        link_names(directory, payload)?;
        return Ok(false);
    }
    let fresh = fresh_directory(directory, now)?;
    for (path, file) in payload {
        write_file(&fresh.join(path), file, group)?;
    }
    own_directories(&fresh, group)?;
    let temporary = directory.join(DATA_TMP);
    remove_if_there(&temporary)?;
    symlink(fresh.file_name().unwrap_or_default(), &temporary)?;
    std::fs::rename(&temporary, directory.join(DATA))?;
    link_names(directory, payload)?;
    unlink_stale(directory, payload)?;
    if let Some(former) = former {
        std::fs::remove_dir_all(former)?;
    }
    Ok(true)
}

fn relative(path: &Path) -> bool {
    let mut parts = path.components();
    let first_ok = match parts.next() {
        Some(Component::Normal(name)) => !name.to_string_lossy().starts_with(".."),
        _ => false,
    };
    first_ok && parts.all(|c| matches!(c, Component::Normal(_)))
}

fn same(former: &Path, payload: &Payload, group: Option<u32>) -> io::Result<bool> {
    if files_below(former, Path::new(""))? != payload.keys().cloned().collect::<BTreeSet<_>>() {
        return Ok(false);
    }
    for (path, file) in payload {
        let path = former.join(path);
        if std::fs::metadata(&path)?.permissions().mode() & 0o777 != effective(file, group)
            || std::fs::read(&path)? != file.data
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn files_below(root: &Path, relative: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut out = BTreeSet::new();
    let entries = match std::fs::read_dir(root.join(relative)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(out),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let path = relative.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            out.extend(files_below(root, &path)?);
        } else {
            out.insert(path);
        }
    }
    Ok(out)
}

fn fresh_directory(directory: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let stamp = now.strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    for attempt in 0..1000 {
        let path = directory.join(format!("{stamp}.{}{attempt}", now.subsec_nanosecond()));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "no free name for the volume's data"))
}

fn write_file(path: &Path, file: &Projected, group: Option<u32>) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, &file.data)?;
    if file.uid.is_some() || group.is_some() {
        std::os::unix::fs::chown(path, file.uid, group)?;
    }
    // The mode comes last: a change of owner clears set-id bits.
    set_mode(path, effective(file, group))
}

/// A group that owns the files may read them.
fn effective(file: &Projected, group: Option<u32>) -> u32 {
    let readable = if group.is_some() { 0o440 } else { 0 };
    (file.mode | readable) & 0o777
}

/// Directories are open to all; the pod's group owns them and what appears in them.
fn own_directories(directory: &Path, group: Option<u32>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            own_directories(&entry.path(), group)?;
        }
    }
    if group.is_some() {
        std::os::unix::fs::chown(directory, None, group)?;
    }
    set_mode(directory, if group.is_some() { 0o2755 } else { 0o755 })
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// First path components are links into `..data`; deeper ones need none of their own.
fn link_names(directory: &Path, payload: &Payload) -> io::Result<()> {
    for name in top_names(payload) {
        let link = directory.join(&name);
        if std::fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(&name), link)?;
        }
    }
    Ok(())
}

fn unlink_stale(directory: &Path, payload: &Payload) -> io::Result<()> {
    let names = top_names(payload);
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = PathBuf::from(entry.file_name());
        let ours = entry.file_type()?.is_symlink() && !name.to_string_lossy().starts_with("..");
        if ours && !names.contains(&name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn top_names(payload: &Payload) -> BTreeSet<PathBuf> {
    payload.keys().filter_map(|p| p.components().next()).map(|c| PathBuf::from(c.as_os_str())).collect()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(path, data)| {
                (PathBuf::from(path), Projected { data: data.as_bytes().to_vec(), mode: 0o640, uid: None })
            })
            .collect()
    }

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    fn shown(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| !n.starts_with(".."))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_appear_change_and_go_together() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert!(write(root, &payload(&[("a", "1"), ("d/b", "2")]), None, at(1)).unwrap());
        assert_eq!(shown(root), ["a", "d"]);
        assert_eq!(std::fs::read_to_string(root.join("d/b")).unwrap(), "2");
        let mode = std::fs::metadata(root.join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);

        let before = std::fs::read_link(root.join(DATA)).unwrap();
        assert!(write(root, &payload(&[("a", "3"), ("c", "4")]), None, at(1)).unwrap());
        assert_eq!(shown(root), ["a", "c"]);
        assert_eq!(std::fs::read_to_string(root.join("a")).unwrap(), "3");
        assert_ne!(std::fs::read_link(root.join(DATA)).unwrap(), before);
        assert!(!root.join(before).exists());
    }

    #[test]
    fn nothing_is_written_when_nothing_changed() {
        let dir = tempfile::tempdir().unwrap();
        let files = payload(&[("a", "1")]);
        assert!(write(dir.path(), &files, None, at(1)).unwrap());
        assert!(!write(dir.path(), &files, None, at(2)).unwrap());
        let mut changed = files.clone();
        changed.get_mut(Path::new("a")).unwrap().mode = 0o600;
        assert!(write(dir.path(), &changed, None, at(3)).unwrap());
    }

    #[test]
    fn the_group_that_owns_the_files_may_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = payload(&[("d/a", "1")]);
        files.values_mut().for_each(|f| f.mode = 0o400);
        // The own group is the one that every user may set.
        let group = Some(nix::unistd::getgid().as_raw());
        assert!(write(dir.path(), &files, group, at(1)).unwrap());
        let mode = |p: &str| std::fs::metadata(dir.path().join(p)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("d/a"), mode("d")), (0o440, 0o2755));
        assert!(!write(dir.path(), &files, group, at(2)).unwrap());
    }

    #[test]
    fn an_empty_payload_is_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("v");
        assert!(write(&root, &Payload::new(), None, at(1)).unwrap());
        assert!(root.is_dir());
    }

    #[test]
    fn paths_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["../x", "/x", "..x", "a/../../x", ""] {
            assert!(write(dir.path(), &payload(&[(bad, "1")]), None, at(1)).is_err(), "{bad}");
        }
    }
}
