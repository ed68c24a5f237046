//! Which pod goes first, and what its status says. No I/O.

use std::cmp::Reverse;

use super::thresholds::{Signal, Supply, Threshold};

/// What one container uses of the resource at hand, and asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Use {
    /// Name of the container.
    pub name: String,
    /// In use.
    pub used: u64,
    /// Requested.
    pub requested: u64,
}

/// A pod that could be ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Candidate {
    /// UID.
    pub uid: String,
    /// Priority.
    pub priority: i32,
    /// Its containers' use of the resource at hand.
    pub containers: Vec<Use>,
    /// Use that belongs to no container: volumes and logs.
    pub shared: u64,
}

impl Candidate {
    fn used(&self) -> u64 {
        self.containers.iter().map(|c| c.used).sum::<u64>() + self.shared
    }

    fn requested(&self) -> u64 {
        self.containers.iter().map(|c| c.requested).sum()
    }
}

/// Puts the pod that goes first first: above its request, then of low priority, then furthest above its request.
pub fn rank(signal: Signal, candidates: &mut [Candidate]) {
    candidates.sort_by_key(|c| {
        let above = c.used() > c.requested();
        let by_request = !matches!(signal, Signal::Pids | Signal::NodeInodes | Signal::ImageInodes);
        let excess = i128::from(c.used()) - i128::from(if by_request { c.requested() } else { 0 });
        (by_request && !above, c.priority, Reverse(excess))
    });
}

/// The message of the pod that is ended.
pub fn message(threshold: &Threshold, supply: Supply, pod: &Candidate) -> String {
    let (resource, signal) = (threshold.signal.resource(), threshold.signal);
    let show = |n: u64| match signal {
        Signal::Memory | Signal::NodeSpace | Signal::ImageSpace => bytes(n),
        _ => n.to_string(),
    };
    let mut out = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        show(threshold.amount(supply)),
        kibibytes(signal, supply.available),
    );
    for c in pod.containers.iter().filter(|c| c.used > c.requested) {
        out.push_str(&format!(
            "Container {} was using {}, request is {}, has larger consumption of {resource}. ",
            c.name,
            kibibytes(signal, c.used),
            show(c.requested)
        ));
    }
    out
}

/// Measured bytes are told in whole Ki.
fn kibibytes(signal: Signal, n: u64) -> String {
    match signal {
        Signal::Memory | Signal::NodeSpace | Signal::ImageSpace => format!("{}Ki", n.div_ceil(1024)),
        _ => n.to_string(),
    }
}

/// Bytes as Kubernetes writes them: the largest unit that leaves no rest.
pub fn bytes(n: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let unit = UNITS.iter().find(|(_, shift)| n > 0 && n.is_multiple_of(1 << shift));
    unit.map_or_else(|| n.to_string(), |(name, shift)| format!("{}{name}", n >> shift))
}

#[cfg(test)]
mod tests {
    use super::super::thresholds::defaults;
    use super::*;

    fn pod(uid: &str, priority: i32, used: u64, requested: u64) -> Candidate {
        let containers = vec![Use { name: "a".into(), used, requested }];
        Candidate { uid: uid.into(), priority, containers, shared: 0 }
    }

    #[test]
    fn pods_above_their_request_go_first_then_by_priority_then_by_excess() {
        let mut all = [
            pod("modest", -10, 5, 10),
            pod("important", 1000, 900, 0),
            pod("little", 0, 20, 10),
            pod("lots", 0, 500, 10),
        ];
        rank(Signal::Memory, &mut all);
        assert_eq!(all.each_ref().map(|c| c.uid.as_str()), ["lots", "little", "important", "modest"]);
        rank(Signal::Pids, &mut all);
        assert_eq!(all.each_ref().map(|c| c.uid.as_str()), ["modest", "lots", "little", "important"]);
    }

    #[test]
    fn the_message_names_what_was_short_and_who_used_it() {
        let supply = Supply { available: 50 << 20, capacity: 1 << 30 };
        let got = message(&defaults()[0], supply, &pod("x", 0, 3 << 20, 1 << 20));
        assert_eq!(
            got,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51200Ki. \
             Container a was using 3072Ki, request is 1Mi, has larger consumption of memory. "
        );
        assert_eq!([bytes(0), bytes(1025), bytes(3 << 30)], ["0", "1025", "3Gi"]);
    }
}
