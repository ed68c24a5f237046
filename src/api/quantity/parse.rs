//! Reading quantities: an optional sign, digits with an optional point, and a suffix.

use super::{Format, NANO, Quantity, divide_up, power_of_ten};

/// Why a text is not a quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// The text as a whole does not look like a quantity.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The suffix is none of the known ones.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// The parts of a quantity's text.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

/// What a suffix multiplies by: a power of ten, or of two.
enum Scale {
    Ten(i32),
    Two(u32),
}

pub(super) fn parse(text: &str) -> Result<Quantity, QuantityError> {
    let parts = split(text)?;
    let (scale, format) = suffix(parts.suffix).ok_or(QuantityError::Suffix)?;
    let (mantissa, exponent) = digits(parts.whole, parts.fraction);
    let signed = |mantissa: i128| if parts.negative { -mantissa } else { mantissa };
    let quantity = match scale {
        Scale::Ten(power) => rounded(mantissa, exponent.saturating_add(power.into()), format),
        Scale::Two(power) => binary(mantissa, exponent, power),
    };
    Ok(Quantity { mantissa: signed(quantity.mantissa), ..quantity })
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let negative = text.starts_with('-');
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, rest) = split_digits(rest);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    let letters = rest.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = letters.strip_prefix(['-', '+']).unwrap_or(letters);
    if !exponent.bytes().all(|b| b.is_ascii_digit()) {
        return Err(QuantityError::Format);
    }
    Ok(Parts { negative, whole, fraction, suffix: rest })
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn suffix(text: &str) -> Option<(Scale, Format)> {
    let decimal = |power| Some((Scale::Ten(power), Format::DecimalSi));
    let binary = |power| Some((Scale::Two(power), Format::BinarySi));
    match text {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let power = text.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
            Some((Scale::Ten(power), Format::DecimalExponent))
        }
    }
}

/// The digits as a number and its exponent; what exceeds the precision is rounded up.
fn digits(whole: &str, fraction: &str) -> (i128, i64) {
    let mut mantissa: i128 = 0;
    let mut exponent = 0i64;
    let mut rest = false;
    let all = whole.bytes().map(|b| (b, 0)).chain(fraction.bytes().map(|b| (b, 1)));
    for (digit, places) in all {
        let digit = i128::from(digit - b'0');
        match mantissa.checked_mul(10).and_then(|m| m.checked_add(digit)) {
            Some(next) if exponent <= 0 && !rest => {
                mantissa = next;
                exponent -= places;
            }
            _ => {
                rest |= digit != 0;
                exponent += 1 - places;
            }
        }
    }
    (if rest { mantissa.saturating_add(1) } else { mantissa }, exponent)
}

/// A decimal number, no finer than a nano.
fn rounded(mantissa: i128, exponent: i64, format: Format) -> Quantity {
    if mantissa == 0 {
        return Quantity { mantissa, exponent: 0, format };
    }
    let nano = i64::from(NANO);
    if exponent >= nano {
        return Quantity { mantissa, exponent: i32::try_from(exponent).unwrap_or(i32::MAX), format };
    }
    let mantissa = match power_of_ten(nano - exponent) {
        Some(divisor) => divide_up(mantissa, divisor).0,
        None => 1,
    };
    Quantity { mantissa, exponent: NANO, format }
}

/// A number times a power of two: at most the largest `i64`, and decimal when it is smaller than one.
fn binary(mantissa: i128, exponent: i64, power: u32) -> Quantity {
    let max = Quantity { mantissa: i64::MAX.into(), exponent: 0, format: Format::BinarySi };
    // Beyond 18 digits a factor of 2^60 may not fit; the digits that are cut are far below a nano of the result
    // only when the number is above the cap or has a long fraction, where rounding up is the rule anyway.
    let (mut mantissa, mut exponent) = (mantissa, exponent);
    let scaled = loop {
        match mantissa.checked_mul(1i128 << power) {
            Some(scaled) => break scaled,
            None => {
                mantissa = divide_up(mantissa, 10).0;
                exponent += 1;
            }
        }
    };
    let quantity = rounded(scaled, exponent, Format::BinarySi);
    if quantity > max {
        return max;
    }
    let below_one = !quantity.is_zero() && quantity < Quantity::new(1, Format::BinarySi);
    Quantity { format: if below_one { Format::DecimalSi } else { Format::BinarySi }, ..quantity }
}
