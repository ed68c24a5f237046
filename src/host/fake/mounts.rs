//! Mounts in memory.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::host::mounts::{MountError, MountInfo, MountKind, Mounts};

/// A mount table in memory. Targets need not exist as files.
#[derive(Debug, Default)]
pub struct FakeMounts(Mutex<Vec<(MountInfo, Option<MountKind>)>>);

impl FakeMounts {
    fn lock(&self) -> MutexGuard<'_, Vec<(MountInfo, Option<MountKind>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is mounted topmost at `target`.
    pub fn at(&self, target: &Path) -> Option<MountKind> {
        self.lock().iter().rev().find(|(info, _)| info.target == target)?.1.clone()
    }

    /// Where something is mounted, in mount order.
    pub fn targets(&self) -> Vec<PathBuf> {
        self.lock().iter().map(|(info, _)| info.target.clone()).collect()
    }
}

impl Mounts for FakeMounts {
    fn list(&self) -> Result<Vec<MountInfo>, MountError> {
        Ok(self.lock().iter().map(|(info, _)| info.clone()).collect())
    }

    fn mount(&self, target: &Path, kind: &MountKind) -> Result<(), MountError> {
        let (fstype, source) = match kind {
            MountKind::Bind { source, .. } => ("ext4".to_owned(), source.display().to_string()),
            MountKind::Tmpfs { .. } => ("tmpfs".to_owned(), "tmpfs".to_owned()),
            MountKind::Device { fstype, source, .. } => (fstype.clone(), source.clone()),
        };
        let info = MountInfo { target: target.to_owned(), fstype, source, ..MountInfo::default() };
        self.lock().push((info, Some(kind.clone())));
        Ok(())
    }

    fn make_shared(&self, target: &Path) -> Result<(), MountError> {
        for (info, _) in self.lock().iter_mut().filter(|(info, _)| info.target.starts_with(target)) {
            info.shared = true;
        }
        Ok(())
    }

    fn unmount(&self, target: &Path, _detach: bool) -> Result<(), MountError> {
        let mut mounts = self.lock();
        if let Some(at) = mounts.iter().rposition(|(info, _)| info.target == target) {
            mounts.remove(at);
        }
        Ok(())
    }
}
