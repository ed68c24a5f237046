//! Node ports of Services.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use rand::Rng;

const PROBES: usize = 16;

/// Why a port cannot be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Somebody else has it.
    #[error("provided port is already allocated")]
    Taken,
    /// It is not in the range.
    #[error("provided port is not in the valid range. The range of valid ports is {first}-{last}")]
    OutOfRange {
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// Every port is taken.
    #[error("range is full")]
    Full,
}

/// The pool.
#[derive(Debug)]
pub struct NodePorts {
    range: RangeInclusive<u16>,
    taken: BTreeSet<u16>,
}

impl NodePorts {
    /// An empty pool.
    pub fn new(first: u16, last: u16) -> Self {
        Self { range: first..=last, taken: BTreeSet::new() }
    }

    /// Takes a chosen port.
    pub fn take(&mut self, port: u16) -> Result<(), PortError> {
        if !self.range.contains(&port) {
            return Err(PortError::OutOfRange { first: *self.range.start(), last: *self.range.end() });
        }
        if self.taken.contains(&port) {
            return Err(PortError::Taken);
        }
        self.taken.insert(port);
        Ok(())
    }

    /// Takes a stored port, which may be outside of a range that has changed since.
    pub fn adopt(&mut self, port: u16) {
        self.taken.insert(port);
    }

    /// Takes any free port.
    pub fn take_any(&mut self) -> Result<u16, PortError> {
        let mut rng = rand::rng();
        for _ in 0..PROBES {
            if self.range.is_empty() {
                break;
            }
            let port = rng.random_range(self.range.clone());
            if self.take(port).is_ok() {
                return Ok(port);
            }
        }
        let port = self.range.clone().find(|port| !self.taken.contains(port)).ok_or(PortError::Full)?;
        self.taken.insert(port);
        Ok(port)
    }

    /// Whether a port is taken.
    pub fn has(&self, port: u16) -> bool {
        self.taken.contains(&port)
    }

    /// Gives all ports back.
    pub fn clear(&mut self) {
        self.taken.clear();
    }

    /// Gives a port back.
    pub fn release(&mut self, port: u16) {
        self.taken.remove(&port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_used_up_and_come_back() {
        let mut pool = NodePorts::new(30000, 30003);
        let mut all: Vec<u16> = (0..4).map(|_| pool.take_any().unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, [30000, 30001, 30002, 30003]);
        assert_eq!(pool.take_any(), Err(PortError::Full));
        assert_eq!(pool.take(30001), Err(PortError::Taken));
        pool.release(30001);
        assert_eq!(pool.take(30001), Ok(()));
        assert_eq!(pool.take(80), Err(PortError::OutOfRange { first: 30000, last: 30003 }));
    }
}
