//! Thresholds: how they are written, when they are met, and for how long that counts. No I/O, no clock of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::Pressure;
use crate::api::quantity::Quantity;

/// Upstream's hard thresholds for memory and inodes, and those of k3s for space: disks are large.
const DEFAULT: &str = "memory.available<100Mi,nodefs.available<5%,nodefs.inodesFree<5%,imagefs.available<5%,imagefs.inodesFree<5%";

/// What may run out. The order is the one in which pods are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// Bytes of memory.
    Memory,
    /// Bytes where pods live.
    NodeSpace,
    /// Inodes where pods live.
    NodeInodes,
    /// Bytes where images live.
    ImageSpace,
    /// Inodes where images live.
    ImageInodes,
    /// Process ids.
    Pids,
}

const NAMES: [(&str, Signal); 6] = [
    ("memory.available", Signal::Memory),
    ("nodefs.available", Signal::NodeSpace),
    ("nodefs.inodesFree", Signal::NodeInodes),
    ("imagefs.available", Signal::ImageSpace),
    ("imagefs.inodesFree", Signal::ImageInodes),
    ("pid.available", Signal::Pids),
];

impl Signal {
    /// The resource as a pod's status names it.
    pub fn resource(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::NodeSpace | Self::ImageSpace => "ephemeral-storage",
            Self::NodeInodes | Self::ImageInodes => "inodes",
            Self::Pids => "pids",
        }
    }

    /// Giving up unused images may help.
    pub fn is_disk(self) -> bool {
        !matches!(self, Self::Memory | Self::Pids)
    }
}

/// How little is too little.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Least {
    /// Of the capacity, in percent.
    Percent(f64),
    /// Bytes or a number.
    Amount(u64),
}

/// One threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// What it is about.
    pub signal: Signal,
    /// Met below this.
    pub least: Least,
    /// Soft: how long it must be met before a pod is ended.
    pub grace: Option<Duration>,
    /// Once it has cost a pod, so much more must be free before it is no longer met.
    pub reclaim: Least,
}

/// What there is of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Supply {
    /// Still to be had.
    pub available: u64,
    /// Altogether.
    pub capacity: u64,
}

/// What there is of everything that could be read.
pub type Supplies = BTreeMap<Signal, Supply>;

/// The thresholds without any flag.
pub fn defaults() -> Vec<Threshold> {
    parse(DEFAULT, "").unwrap_or_default()
}

/// Reads `signal<amount,…`, and for soft thresholds `signal=duration,…`.
///
/// # Errors
/// A sentence about what cannot be understood.
pub fn parse(text: &str, graces: &str) -> Result<Vec<Threshold>, String> {
    let mut periods = BTreeMap::new();
    for part in graces.split(',').filter(|p| !p.trim().is_empty()) {
        let (name, period) =
            part.split_once('=').ok_or_else(|| format!("{part:?} is not SIGNAL=DURATION"))?;
        let period: jiff::Span =
            period.trim().parse().map_err(|_| format!("{period:?} is not a duration"))?;
        let period = Duration::try_from(period).map_err(|_| format!("{part:?} is not a length of time"))?;
        periods.insert(name.trim().to_owned(), period);
    }
    let mut out = Vec::new();
    for part in text.split(',').filter(|p| !p.trim().is_empty()) {
        let (name, least) = part.split_once('<').ok_or_else(|| format!("{part:?} is not SIGNAL<AMOUNT"))?;
        let (name, least) = (name.trim(), least.trim());
        let signal = NAMES.iter().find(|(n, _)| *n == name).map(|(_, signal)| *signal);
        let signal = signal.ok_or_else(|| format!("unknown eviction signal {name:?}"))?;
        let least = amount(least).ok_or_else(|| format!("{part:?} has no amount or percentage"))?;
        let grace = periods.get(name).copied();
        out.push(Threshold { signal, least, grace, reclaim: Least::Amount(0) });
    }
    Ok(out)
}

fn amount(text: &str) -> Option<Least> {
    match text.strip_suffix('%') {
        Some(percent) => {
            percent.parse::<f64>().ok().filter(|p| (0.0..=100.0).contains(p)).map(Least::Percent)
        }
        None => Quantity::parse(text).ok().and_then(|q| u64::try_from(q.value()).ok()).map(Least::Amount),
    }
}

/// Sets how much more must be free, by signal (`evictionMinimumReclaim`).
///
/// # Errors
/// A sentence about what cannot be understood.
pub fn set_reclaims(all: &mut [Threshold], wanted: &BTreeMap<String, String>) -> Result<(), String> {
    for (name, text) in wanted {
        let signal = NAMES.iter().find(|(n, _)| n == name).map(|(_, signal)| *signal);
        let signal = signal.ok_or_else(|| format!("unknown eviction signal {name:?}"))?;
        let reclaim = amount(text).ok_or_else(|| format!("{text:?} is no amount or percentage"))?;
        all.iter_mut().filter(|t| t.signal == signal).for_each(|t| t.reclaim = reclaim);
    }
    Ok(())
}

impl Least {
    fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Amount(amount) => amount,
            Self::Percent(percent) => (capacity as f64 * percent / 100.0) as u64,
        }
    }
}

impl Threshold {
    /// The amount below which it is met.
    pub fn amount(&self, supply: Supply) -> u64 {
        self.least.of(supply.capacity)
    }

    fn met(&self, supplies: &Supplies, has_acted: bool) -> bool {
        let more = |s: &Supply| if has_acted { self.reclaim.of(s.capacity) } else { 0 };
        let wanted = |s: &Supply| self.amount(*s).saturating_add(more(s));
        // A file system without inodes of its own has none to run out of.
        supplies.get(&self.signal).is_some_and(|s| s.capacity > 0 && s.available < wanted(s))
    }
}

/// What has been seen so far.
#[derive(Debug)]
pub struct Watch {
    /// A condition holds this long after it was last seen.
    transition: Duration,
    /// When each threshold that is met now was met first.
    first: BTreeMap<usize, Timestamp>,
    /// When each signal was last below a threshold.
    last: BTreeMap<Signal, Timestamp>,
    /// Thresholds that were acted on when they were last looked at.
    acted: BTreeSet<usize>,
}

impl Watch {
    /// Nothing was seen yet; a condition holds for `transition` after it was last seen.
    pub fn new(transition: Duration) -> Self {
        Self { transition, first: BTreeMap::new(), last: BTreeMap::new(), acted: BTreeSet::new() }
    }

    /// Takes the figures of a moment; returns the thresholds to act on, the most pressing first, and the pressure.
    pub fn observe(
        &mut self,
        thresholds: &[Threshold],
        supplies: &Supplies,
        now: Timestamp,
    ) -> (Vec<Threshold>, Pressure) {
        let mut act = Vec::new();
        // A clock that was set back must not make anything last longer.
        for at in self.first.values_mut().chain(self.last.values_mut()) {
            *at = (*at).min(now);
        }
        for (i, threshold) in thresholds.iter().enumerate() {
            if !threshold.met(supplies, self.acted.contains(&i)) {
                self.first.remove(&i);
                self.acted.remove(&i);
                continue;
            }
            let since = *self.first.entry(i).or_insert(now);
            self.last.insert(threshold.signal, now);
            if passed(since, now) >= threshold.grace.unwrap_or_default() {
                act.push(*threshold);
                self.acted.insert(i);
            }
        }
        // A hard threshold comes before a soft one of the same signal.
        act.sort_by_key(|t| (t.signal, t.grace));
        self.last.retain(|_, at| passed(*at, now) < self.transition);
        let seen = |wanted: &[Signal]| wanted.iter().any(|s| self.last.contains_key(s));
        let pressure = Pressure {
            memory: seen(&[Signal::Memory]),
            disk: seen(&[Signal::NodeSpace, Signal::NodeInodes, Signal::ImageSpace, Signal::ImageInodes]),
            pid: seen(&[Signal::Pids]),
        };
        (act, pressure)
    }
}

fn passed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    fn supplies(memory: u64, disk: u64) -> Supplies {
        let of = |available| Supply { available, capacity: 1000 << 20 };
        [(Signal::Memory, of(memory << 20)), (Signal::NodeSpace, of(disk << 20))].into()
    }

    #[test]
    fn the_defaults_are_upstreams_with_less_free_space() {
        let got = defaults();
        assert_eq!(got.len(), 5);
        assert_eq!(
            got[0],
            Threshold {
                signal: Signal::Memory,
                least: Least::Amount(100 << 20),
                grace: None,
                reclaim: Least::Amount(0)
            }
        );
        assert_eq!(got[1].least, Least::Percent(5.0));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, graces, want) in [
            ("memory.free<1", "", "unknown eviction signal"),
            ("memory.available", "", "SIGNAL<AMOUNT"),
            ("memory.available<x", "", "no amount"),
            ("nodefs.available<101%", "", "no amount"),
            ("memory.available<1Gi", "memory.available=soon", "not a duration"),
        ] {
            assert!(parse(text, graces).unwrap_err().contains(want), "{text}");
        }
    }

    #[test]
    fn hard_thresholds_act_at_once_and_pressure_stays_a_while() {
        let mut watch = Watch::new(Duration::from_secs(300));
        let thresholds = defaults();
        assert_eq!(watch.observe(&thresholds, &supplies(500, 500), at(0)), (vec![], Pressure::default()));
        let (act, pressure) = watch.observe(&thresholds, &supplies(99, 49), at(10));
        assert_eq!(act.iter().map(|t| t.signal).collect::<Vec<_>>(), [Signal::Memory, Signal::NodeSpace]);
        assert_eq!(pressure, Pressure { memory: true, disk: true, pid: false });
        let (act, pressure) = watch.observe(&thresholds, &supplies(500, 500), at(300));
        assert!(act.is_empty() && pressure.memory);
        assert_eq!(watch.observe(&thresholds, &supplies(500, 500), at(310)).1, Pressure::default());
        watch.observe(&thresholds, &supplies(99, 500), at(10_000));
        assert!(watch.observe(&thresholds, &supplies(500, 500), at(0)).1.memory, "the clock was set back");
        assert_eq!(watch.observe(&thresholds, &supplies(500, 500), at(300)).1, Pressure::default());
    }

    #[test]
    fn what_has_cost_a_pod_costs_more_until_as_much_is_free_as_was_asked_for() {
        let mut watch = Watch::new(Duration::from_secs(300));
        let mut all = parse("memory.available<100Mi,nodefs.available<100Mi", "").unwrap();
        let reclaims = [("memory.available", "50Mi"), ("nodefs.available", "10%")];
        let reclaims = reclaims.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        set_reclaims(&mut all, &reclaims).unwrap();
        let steps = [
            ((140, 190), vec![]),
            ((99, 99), vec![Signal::Memory, Signal::NodeSpace]),
            ((149, 199), vec![Signal::Memory, Signal::NodeSpace]),
            ((150, 199), vec![Signal::NodeSpace]),
            ((149, 200), vec![]),
        ];
        for (i, ((memory, disk), want)) in steps.into_iter().enumerate() {
            let (act, _) = watch.observe(&all, &supplies(memory, disk), at(i64::try_from(i).unwrap()));
            assert_eq!(act.iter().map(|t| t.signal).collect::<Vec<_>>(), want, "step {i}");
        }
        for (name, text) in [("memory.free", "1"), ("memory.available", "much")] {
            assert!(set_reclaims(&mut all, &[(name.to_owned(), text.to_owned())].into()).is_err());
        }
    }

    #[test]
    fn soft_thresholds_wait_out_their_grace() {
        let mut watch = Watch::new(Duration::from_secs(300));
        let soft = parse("memory.available<200Mi", "memory.available=30s").unwrap();
        assert!(watch.observe(&soft, &supplies(150, 500), at(0)).0.is_empty());
        assert!(watch.observe(&soft, &supplies(150, 500), at(20)).0.is_empty());
        assert!(watch.observe(&soft, &supplies(500, 500), at(25)).0.is_empty(), "it starts again");
        assert!(watch.observe(&soft, &supplies(150, 500), at(40)).0.is_empty());
        assert_eq!(watch.observe(&soft, &supplies(150, 500), at(70)).0.len(), 1);
    }
}
