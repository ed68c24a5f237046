//! Writing quantities in canonical form: no fraction, no lost digit, the largest suffix that allows both.

use std::fmt;

use super::{Format, Quantity};

const DECIMAL: [(i32, &str); 10] =
    [(-9, "n"), (-6, "u"), (-3, "m"), (0, ""), (3, "k"), (6, "M"), (9, "G"), (12, "T"), (15, "P"), (18, "E")];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        match self.format {
            Format::BinarySi => match self.whole_kibi() {
                Some(whole) => write_binary(f, whole),
                None => self.write_decimal(f),
            },
            Format::DecimalSi => self.write_decimal(f),
            Format::DecimalExponent => {
                let (mantissa, exponent) = self.thousands(i32::MAX);
                if exponent == 0 { write!(f, "{mantissa}") } else { write!(f, "{mantissa}e{exponent}") }
            }
        }
    }
}

impl Quantity {
    /// The whole number, if there is one and it is at least 1024 in size; binary suffixes make no sense below.
    fn whole_kibi(&self) -> Option<i128> {
        let (whole, exact) = self.at_exponent(0);
        (exact && whole.unsigned_abs() >= 1024).then_some(whole)
    }

    fn write_decimal(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mantissa, exponent) = self.thousands(18);
        let suffix = DECIMAL.iter().find(|(e, _)| *e == exponent).map(|(_, suffix)| *suffix);
        match suffix {
            Some(suffix) => write!(f, "{mantissa}{suffix}"),
            None => write!(f, "{mantissa}e{exponent}"),
        }
    }

    /// The smallest whole mantissa whose exponent is a multiple of three, and no greater than `max` if that fits.
    fn thousands(&self, max: i32) -> (i128, i32) {
        let (mut mantissa, mut exponent) = (self.mantissa, self.exponent);
        while mantissa % 10 == 0 && exponent < i32::MAX {
            mantissa /= 10;
            exponent += 1;
        }
        while exponent.rem_euclid(3) != 0 || exponent > max {
            let Some(scaled) = mantissa.checked_mul(10) else { break };
            mantissa = scaled;
            exponent -= 1;
        }
        (mantissa, exponent)
    }
}

fn write_binary(f: &mut fmt::Formatter<'_>, mut whole: i128) -> fmt::Result {
    let mut power = 0;
    while whole % 1024 == 0 && power + 1 < BINARY.len() {
        whole /= 1024;
        power += 1;
    }
    write!(f, "{whole}{}", BINARY[power])
}
