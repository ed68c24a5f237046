//! How a cgroup is called: by us, in the file system, by systemd and towards the runtime.

use std::fmt;

use super::Driver;

/// A cgroup below the root, by the names of its ancestors and its own: `kubepods`, `burstable`, `pod1234`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct CgroupPath(Vec<String>);

impl CgroupPath {
    /// The root of the hierarchy.
    pub fn root() -> Self {
        Self::default()
    }

    /// Reads `/kubepods/burstable`; leading and double slashes do not matter.
    pub fn parse(path: &str) -> Self {
        Self(path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    /// The cgroup of this name directly below.
    pub fn child(&self, name: &str) -> Self {
        let mut names = self.0.clone();
        names.push(name.to_owned());
        Self(names)
    }

    /// Its own name; empty for the root.
    pub fn name(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// Whether it is the root of the hierarchy.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The slice that stands for it with the systemd driver: `kubepods-burstable-pod1234.slice`.
    pub fn slice(&self) -> String {
        match self.0.is_empty() {
            true => "-.slice".to_owned(),
            false => format!("{}.slice", self.escaped().join("-")),
        }
    }

    /// Its directory below a hierarchy's mount point, starting with a slash. This is also how the runtime is told the
    /// parent of a pod.
    pub fn directory(&self, driver: Driver) -> String {
        let names = match driver {
            Driver::Cgroupfs => self.0.clone(),
            Driver::Systemd => {
                let escaped = self.escaped();
                (1..=escaped.len()).map(|depth| format!("{}.slice", escaped[..depth].join("-"))).collect()
            }
        };
        format!("/{}", names.join("/"))
    }

    /// The cgroup whose directory below this one is called `entry`.
    pub(super) fn child_from_entry(&self, entry: &str, driver: Driver) -> Option<Self> {
        match driver {
            Driver::Cgroupfs => Some(self.child(entry)),
            Driver::Systemd => {
                let whole = entry.strip_suffix(".slice")?;
                let prefix = self.escaped().join("-");
                let own =
                    if prefix.is_empty() { whole } else { whole.strip_prefix(&prefix)?.strip_prefix('-')? };
                (!own.contains('-')).then(|| self.child(&own.replace('_', "-")))
            }
        }
    }

    /// A dash separates levels in a slice's name, so dashes of our own names become underscores.
    fn escaped(&self) -> Vec<String> {
        self.0.iter().map(|name| name.replace('-', "_")).collect()
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.directory(Driver::Cgroupfs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_a_name_for_everybody() {
        let path = CgroupPath::parse("/kubepods/burstable").child("pod12-34");
        assert_eq!(path.to_string(), "/kubepods/burstable/pod12-34");
        assert_eq!(path.slice(), "kubepods-burstable-pod12_34.slice");
        assert_eq!(
            path.directory(Driver::Systemd),
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_34.slice"
        );
        assert_eq!(path.name(), "pod12-34");
        assert_eq!(CgroupPath::root().directory(Driver::Systemd), "/");
    }

    #[test]
    fn children_are_recognized_by_their_directories() {
        let parent = CgroupPath::parse("kubepods/burstable");
        let child = parent.child("pod12-34");
        for driver in [Driver::Cgroupfs, Driver::Systemd] {
            let directory = child.directory(driver);
            let entry = directory.rsplit('/').next().unwrap();
            assert_eq!(parent.child_from_entry(entry, driver), Some(child.clone()), "{entry}");
        }
        assert_eq!(parent.child_from_entry("cri-containerd-1.scope", Driver::Systemd), None);
    }
}
