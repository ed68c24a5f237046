//! Which processors a container gets: whole sockets first, then whole cores, then threads of cores that are in use.

use std::collections::BTreeMap;

use crate::host::cpus::{CpuSet, Processor};

/// So many of the free processors, as close together as they can be had; `None` when there are too few.
pub fn take(topology: &[Processor], free: &CpuSet, wanted: usize) -> Option<CpuSet> {
    if free.len() < wanted {
        return None;
    }
    let mut left = free.clone();
    let mut taken = CpuSet::default();
    for groups in [sockets(topology), cores(topology)] {
        // A socket of which something is in use already is used up before another one is begun.
        let mut whole: Vec<&CpuSet> = groups.values().filter(|group| group.0.is_subset(&left.0)).collect();
        whole.sort_by_key(|group| rest_of_socket(topology, &left, group));
        for group in whole {
            if group.len() <= wanted - taken.len() {
                taken = taken.with(group);
                left = left.without(group);
            }
        }
    }
    let cores = cores(topology);
    let key = |id: &u32| {
        let one = CpuSet::from_iter([*id]);
        let core = cores.values().find(|core| core.0.contains(id));
        let free_of_core = core.map_or(0, |core| core.0.intersection(&left.0).count());
        (free_of_core, rest_of_socket(topology, &left, &one), *id)
    };
    let mut threads: Vec<u32> = left.0.iter().copied().collect();
    threads.sort_by_key(key);
    taken.0.extend(threads.into_iter().take(wanted - taken.len()));
    Some(taken)
}

/// Whether these are whole cores.
pub fn whole_cores(topology: &[Processor], set: &CpuSet) -> bool {
    cores(topology).values().all(|core| core.0.is_subset(&set.0) || core.0.is_disjoint(&set.0))
}

/// How many processors of the group's socket are free.
fn rest_of_socket(topology: &[Processor], left: &CpuSet, group: &CpuSet) -> usize {
    let of = |id: &u32| topology.iter().find(|p| p.id == *id).map(|p| p.socket);
    let own = group.0.first().and_then(of);
    left.0.iter().filter(|id| of(id) == own).count()
}

fn sockets(topology: &[Processor]) -> BTreeMap<(u32, u32), CpuSet> {
    grouped(topology, |p| (p.socket, 0))
}

fn cores(topology: &[Processor]) -> BTreeMap<(u32, u32), CpuSet> {
    grouped(topology, |p| (p.socket, p.core))
}

fn grouped(topology: &[Processor], key: impl Fn(&Processor) -> (u32, u32)) -> BTreeMap<(u32, u32), CpuSet> {
    let mut groups: BTreeMap<_, CpuSet> = BTreeMap::new();
    for processor in topology {
        groups.entry(key(processor)).or_default().0.insert(processor.id);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sockets of two cores with two threads each: threads of a core are `n` and `n + 4`.
    fn machine() -> Vec<Processor> {
        (0..8).map(|id| Processor { id, core: id % 2, socket: id % 4 / 2 }).collect()
    }

    #[test]
    fn what_is_close_together_is_taken_together() {
        for (free, wanted, want) in [
            ("0-7", 1, "0"),
            ("0-7", 2, "0,4"),
            ("0-7", 3, "0-1,4"),
            ("0-7", 4, "0-1,4-5"),
            ("0-7", 6, "0-2,4-6"),
            ("0-7", 8, "0-7"),
            // The half of a core before a new core is broken.
            ("1-3,5,7", 1, "2"),
            ("1,3,5,7", 2, "1,5"),
            // A socket that is in use before one that is not.
            ("1,2,3,5,6,7", 2, "1,5"),
            ("4,2", 2, "2,4"),
        ] {
            let free: CpuSet = free.parse().unwrap();
            let got = take(&machine(), &free, wanted).unwrap();
            assert_eq!(got.to_string(), want, "{wanted} of {free}");
        }
        assert_eq!(take(&machine(), &"0-2".parse().unwrap(), 4), None);
    }

    #[test]
    fn half_a_core_is_not_whole() {
        for (set, whole) in [("0,4", true), ("0,4,1", false), ("0-7", true), ("", true)] {
            assert_eq!(whole_cores(&machine(), &set.parse().unwrap()), whole, "{set}");
        }
    }
}
