//! Pods with users of their own (`hostUsers: false`): each gets a range of the host's ids that no other pod has.
//!
//! The range is written down beside the pod's volumes, so that it is the same after a restart and free with the pod.

use std::io;
use std::path::Path;
use std::sync::Mutex;

use k8s_openapi::api::core::v1::Pod;

use crate::cri::v1;
use crate::kubelet::spec;

/// Ids of one pod. The first range of the host is its own.
const LENGTH: u32 = 65_536;
const FILE: &str = "userns";

/// Gives out ranges, one at a time.
#[derive(Debug, Default)]
pub struct Ranges(Mutex<()>);

/// Whether the pod wants users of its own.
pub fn wanted(pod: &Pod) -> bool {
    spec::pod_spec(pod).host_users == Some(false)
}

fn read(pod_dir: &Path) -> Option<u32> {
    std::fs::read_to_string(pod_dir.join(FILE)).ok()?.trim().parse().ok()
}

impl Ranges {
    /// The pod's first host id, chosen now when it has none.
    ///
    /// # Errors
    /// It cannot be written down, or there are no ids left.
    pub fn of(&self, pods: &Path, uid: &str) -> io::Result<u32> {
        let own = pods.join(uid);
        let _one_at_a_time = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(first) = read(&own) {
            return Ok(first);
        }
        let taken: Vec<u32> =
            std::fs::read_dir(pods)?.flatten().filter_map(|entry| read(&entry.path())).collect();
        let mut firsts = (1..u32::MAX / LENGTH).map(|n| n * LENGTH);
        let free = firsts.find(|first| !taken.contains(first));
        let free = free.ok_or_else(|| io::Error::other("no ids are left for the pod's users"))?;
        std::fs::create_dir_all(&own)?;
        std::fs::write(own.join(FILE), free.to_string())?;
        Ok(free)
    }
}

/// The range as the runtime wants it.
pub fn mapping(first: u32) -> v1::IdMapping {
    v1::IdMapping { host_id: first, container_id: 0, length: LENGTH }
}

/// The options of a pod's namespaces.
pub fn options(first: Option<u32>) -> Option<v1::UserNamespace> {
    let first = first?;
    Some(v1::UserNamespace {
        mode: v1::NamespaceMode::Pod.into(),
        uids: vec![mapping(first)],
        gids: vec![mapping(first)],
    })
}

/// Whether the runtime says that pods of this handler may have users of their own.
pub fn runtime_can(handlers: &[v1::RuntimeHandler], handler: &str) -> bool {
    let own = handlers.iter().find(|one| one.name == handler);
    own.and_then(|one| one.features.as_ref()).is_some_and(|can| can.user_namespaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pod_has_ids_of_its_own_and_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let ranges = Ranges::default();
        assert_eq!(ranges.of(dir.path(), "a").unwrap(), 65_536);
        assert_eq!(ranges.of(dir.path(), "b").unwrap(), 131_072);
        assert_eq!(Ranges::default().of(dir.path(), "a").unwrap(), 65_536);
        std::fs::remove_dir_all(dir.path().join("a")).unwrap();
        assert_eq!(ranges.of(dir.path(), "c").unwrap(), 65_536, "free again with its pod");
    }

    #[test]
    fn only_a_runtime_that_says_so_is_asked() {
        let handler = |name: &str, can| v1::RuntimeHandler {
            name: name.into(),
            features: Some(v1::RuntimeHandlerFeatures { user_namespaces: can, ..Default::default() }),
        };
        let handlers = [handler("", true), handler("kata", false)];
        assert!(runtime_can(&handlers, "") && !runtime_can(&handlers, "kata") && !runtime_can(&[], ""));
    }
}
