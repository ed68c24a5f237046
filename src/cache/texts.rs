//! Many short texts in one allocation: what selectors need of an object would otherwise be a dozen of them.

/// Texts, each behind its length. Lengths are written in digits of six bits with a seventh for "more", so that the whole
/// is text itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Texts(Box<str>);

const DIGIT: usize = 6;
const MORE: u8 = 1 << DIGIT;

impl Texts {
    pub(super) fn new<'t>(texts: impl IntoIterator<Item = &'t str>) -> Self {
        let mut all = String::new();
        for text in texts {
            let mut length = text.len();
            loop {
                let digit = (length as u8) & (MORE - 1);
                length >>= DIGIT;
                all.push(char::from(if length > 0 { digit | MORE } else { digit }));
                if length == 0 {
                    break;
                }
            }
            all.push_str(text);
        }
        Self(all.into())
    }

    /// The texts in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (mut length, mut shift) = (0_usize, 0);
            loop {
                let digit = *rest.as_bytes().first()?;
                rest = &rest[1..];
                length |= usize::from(digit & (MORE - 1)) << shift;
                shift += DIGIT;
                if digit & MORE == 0 {
                    break;
                }
            }
            let (text, others) = rest.split_at_checked(length)?;
            rest = others;
            Some(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn texts_come_back(texts in proptest::collection::vec(".{0,200}", 0..8), long in 0..200_000_usize) {
            let long = "é".repeat(long / 2);
            let all: Vec<&str> = texts.iter().map(String::as_str).chain([&*long, ""]).collect();
            let packed = Texts::new(all.iter().copied());
            proptest::prop_assert_eq!(packed.iter().collect::<Vec<_>>(), all);
        }
    }
}
