//! Which container has which devices, in memory and in a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

const FILE: &str = "allocations.json";
const RESOURCES: &str = "resources.json";

/// What one container has of one resource.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Entry {
    devices: Vec<String>,
    /// An init container: what it has is free for the pod's later containers.
    #[serde(default)]
    init: bool,
}

/// Writes a file, so that either the old or the new one is there.
fn replace(directory: &Path, name: &str, content: &impl Serialize) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let new = directory.join(format!("{name}.new"));
    std::fs::write(&new, serde_json::to_vec(content)?)?;
    std::fs::rename(new, directory.join(name))
}

/// Resources that plugins have offered at some time: there is none of them until their plugin is back.
pub fn load_resources(directory: &Path) -> BTreeSet<String> {
    let text = std::fs::read(directory.join(RESOURCES)).ok();
    text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Keeps the names of resources that plugins have offered.
pub fn save_resources(directory: &Path, names: &BTreeSet<String>) -> std::io::Result<()> {
    replace(directory, RESOURCES, names)
}

/// Pod, container and resource to what was given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Book(BTreeMap<String, BTreeMap<String, BTreeMap<String, Entry>>>);

impl Book {
    /// What the file says; one that cannot be read says nothing.
    pub fn load(directory: &Path) -> Self {
        let text = std::fs::read(directory.join(FILE)).ok();
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Writes the file.
    pub fn save(&self, directory: &Path) -> std::io::Result<()> {
        replace(directory, FILE, self)
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &str, &str, &Entry)> {
        self.0.iter().flat_map(|(uid, containers)| {
            containers.iter().flat_map(move |(container, resources)| {
                resources.iter().map(move |(resource, entry)| (&**uid, &**container, &**resource, entry))
            })
        })
    }

    /// What a container has.
    pub fn of(&self, uid: &str, container: &str, resource: &str) -> Vec<String> {
        let entry = self.0.get(uid).and_then(|pod| pod.get(container)?.get(resource));
        entry.map(|entry| entry.devices.clone()).unwrap_or_default()
    }

    /// Whether devices of the resource were given to anybody.
    pub fn knows(&self, resource: &str) -> bool {
        self.entries().any(|(_, _, of, _)| of == resource)
    }

    /// What a container has, by resource.
    pub fn all_of(&self, uid: &str, container: &str) -> Vec<(String, Vec<String>)> {
        let resources = self.0.get(uid).and_then(|pod| pod.get(container)).into_iter().flatten();
        resources.map(|(resource, entry)| (resource.clone(), entry.devices.clone())).collect()
    }

    /// What others have than this container and those of its pod that have ended by now.
    pub fn taken(&self, resource: &str, (uid, container): (&str, &str)) -> BTreeSet<String> {
        let others = self.entries().filter(|(owner, name, of, entry)| {
            *of == resource && (*owner != uid || (*name != container && !entry.init))
        });
        others.flat_map(|(.., entry)| entry.devices.iter().cloned()).collect()
    }

    /// Whether an init container of the pod had the device.
    pub fn left_behind(&self, uid: &str, resource: &str, device: &str) -> bool {
        self.entries().any(|(owner, _, of, entry)| {
            owner == uid && of == resource && entry.init && entry.devices.iter().any(|own| own == device)
        })
    }

    /// Notes what a container was given.
    pub fn note(&mut self, uid: &str, container: &str, init: bool, resource: &str, devices: &[String]) {
        let pod = self.0.entry(uid.to_owned()).or_default();
        let entry = Entry { devices: devices.to_vec(), init };
        pod.entry(container.to_owned()).or_default().insert(resource.to_owned(), entry);
    }

    /// Forgets a pod; false when it had nothing.
    pub fn forget(&mut self, uid: &str) -> bool {
        self.0.remove(uid).is_some()
    }
}
