//! Kernel settings below `/proc/sys`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Reads and writes kernel settings, named by their path: `net/ipv4/ip_forward`.
pub trait Sysctls: Send + Sync {
    /// The current value without its newline; `NotFound` when the kernel has no such setting.
    fn get(&self, name: &str) -> io::Result<String>;
    /// Sets a value.
    fn set(&self, name: &str, value: &str) -> io::Result<()>;
}

/// The kernel's settings.
#[derive(Debug)]
pub struct RealSysctls {
    root: PathBuf,
}

impl Default for RealSysctls {
    fn default() -> Self {
        Self { root: PathBuf::from("/proc/sys") }
    }
}

impl RealSysctls {
    /// Settings as files below another directory.
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }
}

impl Sysctls for RealSysctls {
    fn get(&self, name: &str) -> io::Result<String> {
        Ok(std::fs::read_to_string(self.root.join(name))?.trim_end().to_owned())
    }

    fn set(&self, name: &str, value: &str) -> io::Result<()> {
        std::fs::write(self.root.join(name), value)
    }
}

/// Settings in memory; only those that were put there exist.
#[derive(Debug, Default)]
pub struct FakeSysctls(Mutex<BTreeMap<String, String>>);

impl FakeSysctls {
    /// Settings with these values.
    pub fn with(values: &[(&str, &str)]) -> Self {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self(Mutex::new(values.collect()))
    }
}

impl Sysctls for FakeSysctls {
    fn get(&self, name: &str) -> io::Result<String> {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.get(name).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn set(&self, name: &str, value: &str) -> io::Result<()> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(name) {
            Some(current) => *current = value.to_owned(),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ip_forward"), "0\n").unwrap();
        let real = RealSysctls::below(dir.path());
        let fake = FakeSysctls::with(&[("ip_forward", "0")]);
        for sysctls in [&real as &dyn Sysctls, &fake] {
            assert_eq!(sysctls.get("ip_forward").unwrap(), "0");
            sysctls.set("ip_forward", "1").unwrap();
            assert_eq!(sysctls.get("ip_forward").unwrap(), "1");
            assert_eq!(sysctls.get("none").unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }
}
