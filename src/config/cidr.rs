//! A range of addresses in CIDR notation (RFC 4632, RFC 4291).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network such as `10.42.0.0/16`, with no host bits set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The lowest address.
    pub network: IpAddr,
    /// How many leading bits all addresses share.
    pub prefix: u8,
}

impl Cidr {
    /// The `n`-th address after the network's own, saturating at the end of the address space.
    pub fn nth(&self, n: u32) -> IpAddr {
        match self.network {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from(u32::from(v4).saturating_add(n))),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6).saturating_add(n.into()))),
        }
    }

    /// Whether the address lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                mask(u128::from(u32::from(net)), self.prefix, 32)
                    == mask(u128::from(u32::from(ip)), self.prefix, 32)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                mask(u128::from(net), self.prefix, 128) == mask(u128::from(ip), self.prefix, 128)
            }
            _ => false,
        }
    }

    /// Whether the two ranges share an address.
    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.contains(other.network) || other.contains(self.network)
    }
}

fn mask(bits: u128, prefix: u8, width: u8) -> u128 {
    let host = u32::from(width - prefix);
    bits.checked_shr(host).unwrap_or(0)
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shape = || "a range is ADDRESS/BITS, such as 10.42.0.0/16".to_owned();
        let (address, prefix) = text.split_once('/').ok_or_else(shape)?;
        let network: IpAddr = address.parse().map_err(|_| shape())?;
        let prefix: u8 = prefix.parse().map_err(|_| shape())?;
        let width = if network.is_ipv4() { 32 } else { 128 };
        if prefix > width {
            return Err(format!("it has more than {width} bits"));
        }
        let bits = match network {
            IpAddr::V4(v4) => u128::from(u32::from(v4)),
            IpAddr::V6(v6) => u128::from(v6),
        };
        let host = u32::from(width - prefix);
        if host > 0 && bits & (u128::MAX >> (128 - host)) != 0 {
            return Err(format!("{network} is not the first address of a /{prefix}"));
        }
        Ok(Cidr { network, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn parses_what_it_prints() {
        for text in ["10.42.0.0/16", "10.0.0.0/8", "0.0.0.0/0", "fd00:42::/56", "10.43.0.10/32"] {
            assert_eq!(cidr(text).to_string(), text);
        }
    }

    #[test]
    fn refuses_what_is_not_a_network() {
        for (text, why) in [
            ("10.42.0.0", "ADDRESS/BITS"),
            ("10.42.0.0/33", "32 bits"),
            ("10.42.0.1/16", "not the first address"),
            ("x/16", "ADDRESS/BITS"),
            ("10.42.0.0/", "ADDRESS/BITS"),
            ("fd00::1/64", "not the first address"),
        ] {
            let error = text.parse::<Cidr>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn knows_its_addresses() {
        let range = cidr("10.43.0.0/16");
        assert_eq!(range.nth(10).to_string(), "10.43.0.10");
        assert!(range.contains("10.43.255.255".parse().unwrap()));
        assert!(!range.contains("10.44.0.0".parse().unwrap()));
        assert!(!range.contains("fd00::1".parse().unwrap()));
        assert!(range.overlaps(&cidr("10.0.0.0/8")));
        assert!(!range.overlaps(&cidr("10.42.0.0/16")));
        assert!(cidr("0.0.0.0/0").contains("1.2.3.4".parse().unwrap()));
    }
}
