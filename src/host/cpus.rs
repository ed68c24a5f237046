//! Sets of processors as the kernel writes them, and which of them share a core and a socket.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// Where the kernel describes its processors.
const DIRECTORY: &str = "/sys/devices/system/cpu";

/// A set of processors, written `0,2-3`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(pub BTreeSet<u32>);

impl CpuSet {
    /// No processor at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Those of this set that are not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        Self(self.0.difference(&other.0).copied().collect())
    }

    /// Those of either set.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        Self(self.0.union(&other.0).copied().collect())
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(processors: I) -> Self {
        Self(processors.into_iter().collect())
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for id in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *id => *last = *id,
                _ => ranges.push((*id, *id)),
            }
        }
        let text = |(first, last): &(u32, u32)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        f.write_str(&ranges.iter().map(text).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for CpuSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a list of processors such as 0,2-3");
        let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
        let mut all = BTreeSet::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last || last > 1 << 16 {
                return Err(wrong());
            }
            all.extend(first..=last);
        }
        Ok(Self(all))
    }
}

/// One processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Its number.
    pub id: u32,
    /// The core whose thread it is, unique within the socket.
    pub core: u32,
    /// The socket of the core.
    pub socket: u32,
}

/// The processors that are switched on.
pub fn online() -> Vec<Processor> {
    read(Path::new(DIRECTORY))
}

fn read(directory: &Path) -> Vec<Processor> {
    let text = |path: &str| std::fs::read_to_string(directory.join(path)).unwrap_or_default();
    let ids: CpuSet = text("online").trim().parse().unwrap_or_default();
    let number = |id: u32, name: &str| text(&format!("cpu{id}/topology/{name}")).trim().parse().ok();
    let one = |id: u32| Processor {
        id,
        core: number(id, "core_id").unwrap_or(id),
        socket: number(id, "physical_package_id").unwrap_or(0),
    };
    ids.0.iter().map(|id| one(*id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_as_they_are_read() {
        for (text, count, written) in
            [("", 0, ""), ("0", 1, "0"), ("0-3", 4, "0-3"), ("3, 1,0", 3, "0-1,3"), ("5,7,6,9-9", 4, "5-7,9")]
        {
            let set: CpuSet = text.parse().unwrap();
            assert_eq!((set.len(), set.to_string().as_str()), (count, written), "{text}");
        }
        for bad in ["a", "3-1", "1-", "-1", "99999999"] {
            assert!(bad.parse::<CpuSet>().is_err(), "{bad}");
        }
        let (a, b): (CpuSet, CpuSet) = ("0-3".parse().unwrap(), "2-5".parse().unwrap());
        assert_eq!((a.without(&b).to_string(), a.with(&b).to_string()), ("0-1".into(), "0-5".into()));
    }

    #[test]
    fn the_kernel_tells_cores_and_sockets() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("online"), "0-1,3\n").unwrap();
        for (id, core) in [(0, 0), (1, 0), (3, 1)] {
            let topology = dir.path().join(format!("cpu{id}/topology"));
            std::fs::create_dir_all(&topology).unwrap();
            std::fs::write(topology.join("core_id"), format!("{core}\n")).unwrap();
            std::fs::write(topology.join("physical_package_id"), "0\n").unwrap();
        }
        let got: Vec<_> = read(dir.path()).iter().map(|p| (p.id, p.core, p.socket)).collect();
        assert_eq!(got, [(0, 0, 0), (1, 0, 0), (3, 1, 0)]);
        assert!(!online().is_empty(), "this machine has some");
    }
}
