//! Resource quantities such as `100m`, `1.5Gi` or `1e3`: exact decimal numbers with a preferred way to write them.
//!
//! A quantity is `mantissa * 10^exponent` with an exponent of at least -9: what is finer than a nano is rounded
//! away from zero when it is parsed. 38 significant digits are exact, which is far more than any resource has;
//! beyond that the number is rounded away from zero too, and never wraps.

mod format;
mod parse;

use std::cmp::Ordering;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use parse::QuantityError;

/// How a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Format {
    /// With `n`, `u`, `m`, `k`, `M`, `G`, `T`, `P`, `E`.
    #[default]
    DecimalSi,
    /// With `Ki`, `Mi`, `Gi`, `Ti`, `Pi`, `Ei`.
    BinarySi,
    /// With `e3`, `e-6` and so on.
    DecimalExponent,
}

/// The finest exponent.
const NANO: i32 = -9;

/// An exact amount of a resource.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    mantissa: i128,
    exponent: i32,
    format: Format,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Self = Self { mantissa: 0, exponent: 0, format: Format::DecimalSi };

    /// A whole number.
    pub fn new(value: i64, format: Format) -> Self {
        Self { mantissa: value.into(), exponent: 0, format }
    }

    /// Thousandths, as CPU is counted.
    pub fn from_milli(value: i64, format: Format) -> Self {
        Self { mantissa: value.into(), exponent: -3, format }
    }

    /// Parses what upstream's `ParseQuantity` accepts.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        parse::parse(text)
    }

    /// How the quantity is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whether it is nothing.
    pub fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// Less than, equal to, or greater than zero.
    pub fn sign(&self) -> Ordering {
        self.mantissa.cmp(&0)
    }

    /// The whole number, rounded away from zero and limited to what fits.
    pub fn value(&self) -> i64 {
        self.scaled(0)
    }

    /// Thousandths, rounded away from zero and limited to what fits.
    pub fn milli_value(&self) -> i64 {
        self.scaled(-3)
    }

    /// The whole number, if the quantity is one that fits.
    pub fn as_i64(&self) -> Option<i64> {
        let (mantissa, exact) = self.at_exponent(0);
        i64::try_from(mantissa).ok().filter(|_| exact)
    }

    /// The nearest floating-point number.
    pub fn as_f64(&self) -> f64 {
        self.mantissa as f64 * 10f64.powi(self.exponent)
    }

    /// The quantity in units of `10^exponent`, rounded away from zero and limited to what fits.
    pub fn scaled(&self, exponent: i32) -> i64 {
        let (mantissa, _) = self.at_exponent(exponent);
        i64::try_from(mantissa).unwrap_or(if mantissa > 0 { i64::MAX } else { i64::MIN })
    }

    /// The same quantity rounded away from zero to multiples of `10^exponent`.
    #[must_use]
    pub fn round_up(&self, exponent: i32) -> Self {
        if self.exponent >= exponent {
            return *self;
        }
        Self { mantissa: self.at_exponent(exponent).0, exponent, format: self.format }
    }

    /// The sum; written as this one, or as the other if this one is zero.
    #[must_use]
    pub fn add(&self, other: &Self) -> Self {
        let (left, right, exponent) = aligned(self, other);
        let format = if self.is_zero() { other.format } else { self.format };
        Self { mantissa: left.saturating_add(right), exponent, format }
    }

    /// The difference; written as this one, or as the other if this one is zero.
    #[must_use]
    pub fn sub(&self, other: &Self) -> Self {
        self.add(&other.neg())
    }

    /// The same amount on the other side of zero.
    #[must_use]
    pub fn neg(&self) -> Self {
        Self { mantissa: self.mantissa.saturating_neg(), ..*self }
    }

    /// The product with a whole number.
    #[must_use]
    pub fn mul(&self, factor: i64) -> Self {
        Self { mantissa: self.mantissa.saturating_mul(factor.into()), ..*self }
    }

    /// The mantissa for another exponent, and whether nothing was rounded.
    fn at_exponent(&self, exponent: i32) -> (i128, bool) {
        let difference = i64::from(self.exponent) - i64::from(exponent);
        if difference >= 0 {
            let limit = if self.mantissa > 0 { i128::MAX } else { i128::MIN };
            let scaled = power_of_ten(difference).and_then(|factor| self.mantissa.checked_mul(factor));
            return match scaled {
                Some(scaled) => (scaled, true),
                None if self.mantissa == 0 => (0, true),
                None => (limit, false),
            };
        }
        match power_of_ten(-difference) {
            Some(divisor) => divide_up(self.mantissa, divisor),
            None => (self.mantissa.signum(), self.mantissa == 0),
        }
    }
}

fn power_of_ten(exponent: i64) -> Option<i128> {
    10i128.checked_pow(u32::try_from(exponent).ok()?)
}

/// Divides and rounds away from zero; also says whether nothing was rounded.
fn divide_up(value: i128, divisor: i128) -> (i128, bool) {
    let rest = value % divisor;
    (value / divisor + rest.signum(), rest == 0)
}

/// Both mantissas at one exponent: the finer one if it fits, else the finest that does.
fn aligned(left: &Quantity, right: &Quantity) -> (i128, i128, i32) {
    if left.is_zero() {
        return (0, right.mantissa, right.exponent);
    }
    if right.is_zero() {
        return (left.mantissa, 0, left.exponent);
    }
    let (coarse, fine, swapped) =
        if left.exponent >= right.exponent { (left, right, false) } else { (right, left, true) };
    let mut exponent = coarse.exponent;
    let mut mantissa = coarse.mantissa;
    while exponent > fine.exponent {
        let Some(scaled) = mantissa.checked_mul(10) else { break };
        mantissa = scaled;
        exponent -= 1;
    }
    let other = fine.at_exponent(exponent).0;
    if swapped { (other, mantissa, exponent) } else { (mantissa, other, exponent) }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By amount; the way to write it does not count.
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        let (left, right, exponent) = aligned(self, other);
        let rounded = exponent > self.exponent.min(other.exponent) && left == right;
        if !rounded {
            return left.cmp(&right);
        }
        // Equal only because the finer one was rounded away from zero: its true amount is nearer to zero.
        match self.mantissa.signum() * i128::from((self.exponent < other.exponent) as i8 * 2 - 1) {
            1 => Ordering::Less,
            _ => Ordering::Greater,
        }
    }
}

impl std::str::FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::parse(text)
    }
}

impl TryFrom<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> for Quantity {
    type Error = QuantityError;

    fn try_from(
        quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity,
    ) -> Result<Self, QuantityError> {
        Self::parse(&quantity.0)
    }
}

impl From<Quantity> for k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_string())
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            serde_json::Value::Null => return Ok(Self::ZERO),
            _ => return Err(serde::de::Error::custom(QuantityError::Format)),
        };
        Self::parse(text.trim()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
