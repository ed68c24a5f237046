//! An address range divided into equal parts.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
};

/// More parts than any cluster has nodes; the rest of a larger range is not used.
const MOST_PARTS: u64 = 1 << 20;

/// A range such as `10.42.0.0/16` and the length of its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    first: u128,
    /// Bits of an address of this family.
    bits: u8,
    mask: u8,
    parts: u64,
}

impl Range {
    /// `None` if `cidr` is not a range, or shorter than one part.
    pub(super) fn parse(cidr: &str, mask_v4: u8, mask_v6: u8) -> Option<Self> {
        let (first, bits, length) = parse_cidr(cidr)?;
        let mask = if bits == 32 { mask_v4 } else { mask_v6 };
        if mask > bits || length > mask {
            return None;
        }
        let parts = 1_u64.checked_shl(u32::from(mask - length)).unwrap_or(MOST_PARTS).min(MOST_PARTS);
        Some(Self { first, bits, mask, parts })
    }

    /// The part with this number.
    pub(super) fn part(&self, index: u64) -> String {
        let address = self.first + (u128::from(index) << (self.bits - self.mask));
        let address = if self.bits == 32 {
            IpAddr::V4(Ipv4Addr::from(u32::try_from(address).unwrap_or_default()))
        } else {
            IpAddr::V6(Ipv6Addr::from(address))
        };
        format!("{address}/{}", self.mask)
    }

    /// The numbers of the parts that `cidr` overlaps; none if it is elsewhere.
    pub(super) fn parts_in(&self, cidr: &str) -> RangeInclusive<u64> {
        #[expect(clippy::reversed_empty_ranges, reason = "the empty range")]
        let none = 1..=0;
        let Some((first, bits, length)) = parse_cidr(cidr) else { return none };
        if bits != self.bits {
            return none;
        }
        let size = 1_u128.checked_shl(u32::from(self.bits - length)).unwrap_or(u128::MAX);
        let last = first.saturating_add(size - 1);
        let step = self.bits - self.mask;
        let end = self.first + (u128::from(self.parts) << step) - 1;
        if last < self.first || first > end {
            return none;
        }
        let index = |address: u128| u64::try_from((address - self.first) >> step).unwrap_or(u64::MAX);
        index(first.max(self.first))..=index(last.min(end))
    }

    /// The lowest number that is not taken.
    pub(super) fn first_free(&self, taken: &BTreeSet<u64>) -> Option<u64> {
        (0..self.parts).find(|index| !taken.contains(index))
    }
}

/// The first address, the bits of the family and the prefix length.
pub(in crate::controllers) fn parse_cidr(cidr: &str) -> Option<(u128, u8, u8)> {
    let (address, length) = cidr.trim().split_once('/')?;
    let length: u8 = length.parse().ok()?;
    let (value, bits) = match address.parse().ok()? {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    if length > bits {
        return None;
    }
    let host_bits = u32::from(bits - length);
    let first = if host_bits == 128 { 0 } else { value >> host_bits << host_bits };
    Some((first, bits, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_counted_and_named() {
        for (cidr, index, want) in [
            ("10.42.0.0/16", 0, "10.42.0.0/24"),
            ("10.42.7.9/16", 255, "10.42.255.0/24"),
            ("10.0.0.0/24", 0, "10.0.0.0/24"),
            ("fd00:42::/56", 0, "fd00:42::/64"),
            ("fd00:42::/56", 255, "fd00:42:0:ff::/64"),
        ] {
            assert_eq!(Range::parse(cidr, 24, 64).unwrap().part(index), want, "{cidr}");
        }
        for cidr in ["10.42.0.0/25", "10.42.0.0", "10.42.0.0/33", "x/16", "fd00::/65", ""] {
            assert_eq!(Range::parse(cidr, 24, 64), None, "{cidr}");
        }
    }

    #[test]
    fn overlaps_are_found_whatever_their_size() {
        let range = Range::parse("10.42.0.0/16", 24, 64).unwrap();
        for (cidr, want) in [
            ("10.42.3.0/24", vec![3]),
            ("10.42.3.128/25", vec![3]),
            ("10.42.2.0/23", vec![2, 3]),
            ("10.43.0.0/24", vec![]),
            ("fd00::/64", vec![]),
            ("nonsense", vec![]),
        ] {
            assert_eq!(range.parts_in(cidr).collect::<Vec<_>>(), want, "{cidr}");
        }
        assert_eq!(range.parts_in("10.0.0.0/8").count(), 256);
    }

    #[test]
    fn gaps_are_filled_first() {
        let range = Range::parse("10.42.0.0/22", 24, 64).unwrap();
        assert_eq!(range.first_free(&BTreeSet::from([0, 1, 3])), Some(2));
        assert_eq!(range.first_free(&BTreeSet::from([0, 1, 2, 3])), None);
    }
}
