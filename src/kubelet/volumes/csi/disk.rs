//! Where CSI volumes are below the kubelet's root, and what is written down about them there.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::source::Wanted;
use super::{CsiError, make_directory};
use crate::kubelet::images::archive::sha256;

/// The file that says what a directory holds; the name and its fields are upstream's.
pub const FILE: &str = "vol_data.json";
const PLUGIN: &str = "kubernetes.io~csi";
const EPHEMERAL: &str = "Ephemeral";

/// What undoing a mount needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeData {
    /// Name of the driver.
    pub driver_name: String,
    /// The driver's name of the volume.
    pub volume_handle: String,
    /// Name of the PersistentVolume, or of the volume in the pod's spec.
    #[serde(rename = "specVolID")]
    pub name: String,
    /// `Persistent` or `Ephemeral`.
    pub volume_lifecycle_mode: String,
    /// Name of the VolumeAttachment, empty for a volume that needs none.
    #[serde(rename = "attachmentID", default)]
    pub attachment_id: String,
    /// Name of this node.
    pub node_name: String,
    /// It is a device.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub block: bool,
}

impl VolumeData {
    /// About a volume on this node.
    pub fn of(wanted: &Wanted, node: &str, attached: bool) -> Self {
        let id = || format!("csi-{}", sha256(format!("{}{}{node}", wanted.handle, wanted.driver).as_bytes()));
        Self {
            driver_name: wanted.driver.clone(),
            volume_handle: wanted.handle.clone(),
            name: wanted.name.clone(),
            volume_lifecycle_mode: wanted.lifecycle().to_owned(),
            attachment_id: if attached { id() } else { String::new() },
            node_name: node.to_owned(),
            block: wanted.block,
        }
    }

    /// It lives and dies with its pod.
    pub fn ephemeral(&self) -> bool {
        self.volume_lifecycle_mode == EPHEMERAL
    }

    /// Writes the file, so that either the old or the new one is there.
    pub fn write(&self, directory: &Path) -> Result<(), CsiError> {
        if Self::read(directory).as_ref() == Some(self) {
            return Ok(());
        }
        make_directory(directory)?;
        let (file, new) = (directory.join(FILE), directory.join(format!("{FILE}.new")));
        let written = serde_json::to_vec(self)
            .map_err(io::Error::other)
            .and_then(|text| std::fs::write(&new, text))
            .and_then(|()| std::fs::rename(&new, &file));
        written.map_err(|e| CsiError::File(format!("write {}", file.display()), e))
    }

    /// What the file says, when there is one.
    pub fn read(directory: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(directory.join(FILE)).ok()?).ok()
    }

    /// Upstream's name of an attached volume in a Node's status.
    pub fn unique_name(&self) -> String {
        format!("kubernetes.io/csi/{}^{}", self.driver_name, self.volume_handle)
    }

    fn same_volume(&self, other: &Self) -> bool {
        self.driver_name == other.driver_name && self.volume_handle == other.volume_handle
    }
}

/// The directories below one root.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    root: &'a Path,
}

impl<'a> Places<'a> {
    /// Below the kubelet's root.
    pub fn below(root: &'a Path) -> Self {
        Self { root }
    }

    fn plugins(&self) -> PathBuf {
        self.root.join("plugins/kubernetes.io/csi")
    }

    fn kind(block: bool) -> &'static str {
        if block { "volumeDevices" } else { "volumes" }
    }

    /// Where what a pod has is written down.
    pub fn data_dir(&self, uid: &str, wanted: &Wanted) -> PathBuf {
        self.root.join("pods").join(uid).join(Self::kind(wanted.block)).join(PLUGIN).join(&wanted.name)
    }

    fn target_in(&self, directory: &Path, uid: &str, name: &str, block: bool) -> PathBuf {
        match block {
            true => self.plugins().join("volumeDevices/publish").join(name).join(uid),
            false => directory.join("mount"),
        }
    }

    /// Where the driver makes the volume appear for a pod.
    pub fn target(&self, uid: &str, wanted: &Wanted) -> PathBuf {
        self.target_in(&self.data_dir(uid, wanted), uid, &wanted.name, wanted.block)
    }

    /// The same for what was written down.
    pub fn target_of(&self, directory: &Path, uid: &str, data: &VolumeData) -> PathBuf {
        self.target_in(directory, uid, &data.name, data.block)
    }

    fn staging_in(&self, driver: &str, handle: &str, name: &str, block: bool) -> (PathBuf, PathBuf) {
        if block {
            let devices = self.plugins().join("volumeDevices");
            return (devices.join("staging").join(name), devices.join(name).join("data"));
        }
        let directory = self.plugins().join(driver).join(sha256(handle.as_bytes()));
        (directory.join("globalmount"), directory)
    }

    /// Where the driver prepares the volume for the node.
    pub fn staging(&self, wanted: &Wanted) -> PathBuf {
        self.staging_in(&wanted.driver, &wanted.handle, &wanted.name, wanted.block).0
    }

    /// Where what is staged is written down.
    pub fn staged_data_dir(&self, wanted: &Wanted) -> PathBuf {
        self.staging_in(&wanted.driver, &wanted.handle, &wanted.name, wanted.block).1
    }

    /// Both for what was written down.
    pub fn staging_of(&self, data: &VolumeData) -> (PathBuf, PathBuf) {
        self.staging_in(&data.driver_name, &data.volume_handle, &data.name, data.block)
    }

    /// What a pod has, with the directories that say so.
    pub fn of_pod(&self, uid: &str) -> Vec<(PathBuf, VolumeData)> {
        let pod = self.root.join("pods").join(uid);
        let kinds = [false, true].map(|block| pod.join(Self::kind(block)).join(PLUGIN));
        let directories = kinds.iter().flat_map(|kind| entries(kind));
        directories.filter_map(|dir| VolumeData::read(&dir).map(|data| (dir, data))).collect()
    }

    fn of_all_pods(&self) -> impl Iterator<Item = (PathBuf, VolumeData)> {
        let uids = entries(&self.root.join("pods"));
        uids.into_iter()
            .filter_map(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
            .flat_map(|uid| self.of_pod(&uid))
    }

    /// Whether the volume is also somewhere else than in this directory.
    pub fn used_by_others(&self, data: &VolumeData, directory: &Path) -> bool {
        self.of_all_pods().any(|(other, its)| other != directory && its.same_volume(data))
    }

    /// The volumes of all pods, each once.
    pub fn published(&self) -> Vec<(PathBuf, VolumeData)> {
        let mut found: Vec<(PathBuf, VolumeData)> = Vec::new();
        for (directory, data) in self.of_all_pods() {
            if !found.iter().any(|(_, known)| known.same_volume(&data)) {
                found.push((directory, data));
            }
        }
        found
    }

    /// Upstream's names of the attached volumes that pods have or that are staged.
    pub fn in_use(&self) -> BTreeSet<String> {
        let drivers = entries(&self.plugins()).into_iter().filter(|dir| !dir.ends_with("volumeDevices"));
        let staged = drivers.flat_map(|driver| entries(&driver));
        let devices = entries(&self.plugins().join("volumeDevices")).into_iter().map(|dir| dir.join("data"));
        let on_node = staged.chain(devices).filter_map(|dir| VolumeData::read(&dir));
        let all = on_node.chain(self.of_all_pods().map(|(_, data)| data));
        all.filter(|data| !data.attachment_id.is_empty()).map(|data| data.unique_name()).collect()
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Removes the directory of a volume that the driver has taken back. What the driver left mounted is not touched.
pub fn forget(directory: &Path) -> Result<(), CsiError> {
    let absent = |result: io::Result<()>, path: &Path| match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(CsiError::File(format!("remove {}", path.display()), e))
        }
        _ => Ok(()),
    };
    for name in ["mount", "globalmount"] {
        let path = directory.join(name);
        absent(std::fs::remove_dir(&path), &path)?;
    }
    let file = directory.join(FILE);
    absent(std::fs::remove_file(&file), &file)?;
    absent(std::fs::remove_dir(directory), directory)
}
