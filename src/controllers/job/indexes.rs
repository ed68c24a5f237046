//! Sets of completion indexes and their text form, such as `0,2-5,7,8`.

use std::collections::BTreeSet;

/// A set of indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexes(pub BTreeSet<i32>);

impl Indexes {
    /// Reads the text form; parts that cannot be read and indexes from `limit` on are left out.
    pub fn parse(text: &str, limit: i32) -> Self {
        let mut all = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
                all.extend(first.max(0)..=last.min(limit - 1));
            }
        }
        Self(all)
    }

    /// How many there are.
    pub fn total(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }

    /// Whether `index` is one of them.
    pub fn has(&self, index: i32) -> bool {
        self.0.contains(&index)
    }
}

impl std::fmt::Display for Indexes {
    /// Three and more neighbours become a range.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut ranges: Vec<(i32, i32)> = Vec::new();
        for &index in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == index => *last = index,
                _ => ranges.push((index, index)),
            }
        }
        for (at, (first, last)) in ranges.into_iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_set_are_the_same() {
        for text in ["", "0", "0,1", "0-2", "1,3-5,7,8,10-100"] {
            assert_eq!(Indexes::parse(text, 1000).to_string(), text);
        }
        assert_eq!(Indexes::parse("0-9", 4).to_string(), "0-3", "indexes that do not exist any more");
        assert_eq!(Indexes::parse("x,2,-,3", 9).to_string(), "2,3");
    }
}
