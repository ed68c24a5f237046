//! Addresses of Services.
//!
//! As upstream, the lower part of the range is left to addresses that people choose: automatic ones come from the upper
//! part first.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::Rng;

/// The largest number of addresses that are used of a range.
const MAX_SIZE: u128 = 1 << 20;
/// Random probes before the range is searched in order.
const PROBES: usize = 16;

/// Why an address cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IpError {
    /// Somebody else has it.
    #[error("provided IP is already allocated")]
    Taken,
    /// It is not in the range.
    #[error("the provided IP ({ip}) is not in the valid range. The range of valid IPs is {range}")]
    OutOfRange {
        /// The address.
        ip: IpAddr,
        /// The range.
        range: String,
    },
    /// Every address is taken.
    #[error("range is full")]
    Full,
    /// The range is not written as `address/prefix`.
    #[error("{0:?} is not a CIDR")]
    BadRange(String),
}

/// Addresses that Services may have.
#[derive(Clone, Debug)]
struct Range {
    text: String,
    base: u128,
    v4: bool,
    /// Offsets 1 ..= last may be used.
    last: u128,
    /// Offsets below this are left to chosen addresses.
    band: u128,
}

impl Range {
    fn parse(range: &str) -> Result<Self, IpError> {
        let bad = || IpError::BadRange(range.to_owned());
        let (address, prefix) = range.split_once('/').ok_or_else(bad)?;
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let prefix: u32 = prefix.parse().map_err(|_| bad())?;
        let (bits, base, v4) = match address {
            IpAddr::V4(ip) => (32, u128::from(ip.to_bits()), true),
            IpAddr::V6(ip) => (128, ip.to_bits(), false),
        };
        if prefix > bits {
            return Err(bad());
        }
        let host_bits = bits - prefix;
        let size = if host_bits >= 20 { MAX_SIZE } else { 1u128 << host_bits };
        let mask = if host_bits == 128 { 0 } else { u128::MAX << host_bits };
        // Neither the network's own address nor, with IPv4, its broadcast address.
        let last = if v4 { size.saturating_sub(2) } else { size - 1 };
        let band = if size < 16 { 0 } else { (size / 16).clamp(16, 256) };
        Ok(Self { text: range.to_owned(), base: base & mask, v4, last, band })
    }

    fn ip(&self, offset: u128) -> IpAddr {
        let bits = self.base + offset;
        if self.v4 {
            IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)))
        } else {
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
    }

    fn holds(&self, ip: IpAddr) -> bool {
        let bits = match ip {
            IpAddr::V4(ip) if self.v4 => u128::from(ip.to_bits()),
            IpAddr::V6(ip) if !self.v4 => ip.to_bits(),
            _ => return false,
        };
        bits.checked_sub(self.base).is_some_and(|offset| (1..=self.last).contains(&offset))
    }

    /// A free address, if there is one, which is then taken.
    fn take_any(&self, taken: &mut BTreeSet<IpAddr>) -> Option<IpAddr> {
        let mut rng = rand::rng();
        let upper = self.band.max(1)..=self.last;
        if !upper.is_empty() {
            for _ in 0..PROBES {
                let ip = self.ip(rng.random_range(upper.clone()));
                if taken.insert(ip) {
                    return Some(ip);
                }
            }
        }
        let mut all = upper.chain(1..self.band.min(self.last + 1)).map(|offset| self.ip(offset));
        all.find(|ip| taken.insert(*ip))
    }
}

/// The pool: the range that the server was started with, and those that ServiceCIDRs add.
#[derive(Debug)]
pub struct ClusterIps {
    own: Range,
    more: Vec<Range>,
    taken: BTreeSet<IpAddr>,
}

impl ClusterIps {
    /// An empty pool.
    pub fn new(range: &str) -> Result<Self, IpError> {
        Ok(Self { own: Range::parse(range)?, more: Vec::new(), taken: BTreeSet::new() })
    }

    /// Sets which ranges there are besides the server's own; whether that changes anything. Ranges of the other family
    /// and what does not parse are passed over.
    pub fn set_more<'r>(&mut self, ranges: impl Iterator<Item = &'r str>) -> bool {
        let fresh = |text: &&str| *text != self.own.text;
        let more: Vec<Range> = ranges
            .filter(fresh)
            .filter_map(|text| Range::parse(text).ok())
            .filter(|r| r.v4 == self.own.v4)
            .collect();
        let changed = !more.iter().map(|range| &range.text).eq(self.more.iter().map(|range| &range.text));
        self.more = more;
        changed
    }

    fn ranges(&self) -> impl Iterator<Item = &Range> {
        std::iter::once(&self.own).chain(&self.more)
    }

    /// The first usable address: that of the API server's own Service.
    pub fn first(&self) -> IpAddr {
        self.own.ip(1)
    }

    /// Whether the pool hands out IPv4 addresses.
    pub fn is_v4(&self) -> bool {
        self.own.v4
    }

    /// Takes a chosen address.
    pub fn take(&mut self, ip: IpAddr) -> Result<(), IpError> {
        if !self.ranges().any(|range| range.holds(ip)) {
            return Err(IpError::OutOfRange { ip, range: self.own.text.clone() });
        }
        if self.taken.insert(ip) { Ok(()) } else { Err(IpError::Taken) }
    }

    /// Takes any free address.
    pub fn take_any(&mut self) -> Result<IpAddr, IpError> {
        let Self { own, more, taken } = self;
        let mut ranges = std::iter::once(&*own).chain(&*more);
        ranges.find_map(|range| range.take_any(taken)).ok_or(IpError::Full)
    }

    /// Notes that an address is taken, in whatever range: one may be a range again.
    pub fn adopt(&mut self, ip: IpAddr) {
        self.taken.insert(ip);
    }

    /// Whether an address is taken.
    pub fn has(&self, ip: IpAddr) -> bool {
        self.taken.contains(&ip)
    }

    /// Gives all addresses back.
    pub fn clear(&mut self) {
        self.taken.clear();
    }

    /// Gives an address back.
    pub fn release(&mut self, ip: IpAddr) {
        self.taken.remove(&ip);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_addresses_leave_the_lower_band_alone() {
        let mut pool = ClusterIps::new("10.43.0.0/16").unwrap();
        assert_eq!(pool.first().to_string(), "10.43.0.1");
        for _ in 0..500 {
            let IpAddr::V4(ip) = pool.take_any().unwrap() else { panic!("IPv6 from an IPv4 range") };
            assert!(ip.to_bits() - Ipv4Addr::new(10, 43, 0, 0).to_bits() >= 256, "{ip}");
        }
    }

    #[test]
    fn a_small_range_is_used_up_and_comes_back() {
        let mut pool = ClusterIps::new("10.0.0.0/28").unwrap();
        let all: BTreeSet<IpAddr> = (0..14).map(|_| pool.take_any().unwrap()).collect();
        assert_eq!(all.len(), 14);
        assert_eq!(pool.take_any(), Err(IpError::Full));
        pool.release("10.0.0.3".parse().unwrap());
        assert_eq!(pool.take_any().unwrap().to_string(), "10.0.0.3");
    }

    #[test]
    fn chosen_addresses_must_be_free_and_in_range() {
        let mut pool = ClusterIps::new("fd00::/112").unwrap();
        let ip: IpAddr = "fd00::a".parse().unwrap();
        assert_eq!(pool.take(ip), Ok(()));
        assert_eq!(pool.take(ip), Err(IpError::Taken));
        assert!(matches!(pool.take("10.0.0.1".parse().unwrap()), Err(IpError::OutOfRange { .. })));
        assert!(matches!(ClusterIps::new("10.0.0.0"), Err(IpError::BadRange(_))));
    }

    #[test]
    fn other_ranges_are_drawn_from_when_the_first_is_used_up() {
        let mut pool = ClusterIps::new("10.0.0.0/30").unwrap();
        let more = ["10.0.0.0/30", "fd00::/112", "nonsense", "10.9.0.0/30"];
        assert!(pool.set_more(more.into_iter()));
        assert!(!pool.set_more(["10.9.0.0/30"].into_iter()), "nothing has changed");
        let all: BTreeSet<String> = (0..4).map(|_| pool.take_any().unwrap().to_string()).collect();
        assert_eq!(all, ["10.0.0.1", "10.0.0.2", "10.9.0.1", "10.9.0.2"].map(str::to_owned).into());
        assert_eq!(pool.take_any(), Err(IpError::Full));
        let chosen: IpAddr = "10.9.0.2".parse().unwrap();
        assert_eq!(pool.take(chosen), Err(IpError::Taken));
        pool.release(chosen);
        assert!(pool.set_more(std::iter::empty()));
        assert!(matches!(pool.take(chosen), Err(IpError::OutOfRange { .. })));
        assert!(pool.has("10.9.0.1".parse().unwrap()), "who has an address keeps it when its range goes");
    }
}
