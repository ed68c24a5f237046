//! Parsing, writing and arithmetic against a table and against plain integers.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn q(text: &str) -> Quantity {
    Quantity::parse(text).unwrap_or_else(|e| panic!("{text:?}: {e}"))
}

#[test]
fn quantities_are_written_canonically() {
    let cases = [
        ("0", "0"),
        ("0Ki", "0"),
        ("-0", "0"),
        ("+1", "1"),
        ("007", "7"),
        ("1.", "1"),
        (".5", "500m"),
        ("0.5", "500m"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1500", "1500"),
        ("1000", "1k"),
        ("100000", "100k"),
        ("1.5k", "1500"),
        ("12345M", "12345M"),
        ("1000E", "1000E"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("12e4", "120e3"),
        ("1e-3", "1e-3"),
        ("1e0", "1"),
        ("1.5e3", "1500"),
        ("1Ki", "1Ki"),
        ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("1023", "1023"),
        ("1025Ki", "1025Ki"),
        ("0.0005Ki", "512m"),
        ("0.1n", "1n"),
        ("1.1n", "2n"),
        ("-1.1n", "-2n"),
        ("1e-100", "1e-9"),
        ("0.0000000001", "1n"),
        ("9Ei", "9223372036854775807"),
        ("-100Ei", "-9223372036854775807"),
        ("7Ei", "7Ei"),
        ("0.1Ki", "102400m"),
        ("1100.1Ki", "1126502400m"),
        ("-500m", "-500m"),
        ("-2Gi", "-2Gi"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
    ];
    for (text, canonical) in cases {
        assert_eq!(q(text).to_string(), canonical, "{text:?}");
        assert_eq!(q(canonical).cmp(&q(text)), Ordering::Equal, "{text:?}");
    }
}

#[test]
fn what_is_no_quantity_is_refused() {
    for text in ["", "abc", "1.2.3", "1 ", " 1", "1,5", "1x", "1e3x", "é", "1é"] {
        assert_eq!(Quantity::parse(text).unwrap_err(), QuantityError::Format, "{text:?}");
    }
    for text in ["1ki", "1K", "1mm", "1KiKi", "1e", "1i", "1e3000000000"] {
        assert!(Quantity::parse(text).is_err(), "{text:?}");
    }
    assert_eq!(
        QuantityError::Format.to_string(),
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    );
    assert_eq!(Quantity::parse("1K").unwrap_err().to_string(), "unable to parse quantity's suffix");
}

#[test]
fn whole_and_milli_values_round_away_from_zero() {
    let cases = [
        ("1500m", 2, 1500),
        ("-1500m", -2, -1500),
        ("1u", 1, 1),
        ("2", 2, 2000),
        ("1Gi", 1 << 30, 1000 << 30),
        ("1e30", i64::MAX, i64::MAX),
        ("-1e30", i64::MIN, i64::MIN),
        ("1e2000000000", i64::MAX, i64::MAX),
    ];
    for (text, value, milli) in cases {
        assert_eq!((q(text).value(), q(text).milli_value()), (value, milli), "{text:?}");
    }
    assert_eq!((q("1500m").as_i64(), q("2k").as_i64(), q("1e40").as_i64()), (None, Some(2000), None));
    assert_eq!(q("1100u").round_up(-3).to_string(), "2m");
    assert_eq!(q("5k").round_up(-3).to_string(), "5k");
    assert!((q("1500m").as_f64() - 1.5).abs() < 1e-9);
}

#[test]
fn sums_and_differences_are_exact() {
    let cases = [
        ("1", "500m", "1500m", "500m"),
        ("1Gi", "1Mi", "1025Mi", "1023Mi"),
        ("0", "1Ki", "1Ki", "-1Ki"),
        ("1Gi", "0", "1Gi", "1Gi"),
        ("100m", "100m", "200m", "0"),
        ("1Gi", "500m", "1073741824500m", "1073741823500m"),
    ];
    for (left, right, sum, difference) in cases {
        assert_eq!(q(left).add(&q(right)).to_string(), sum, "{left} + {right}");
        assert_eq!(q(left).sub(&q(right)).to_string(), difference, "{left} - {right}");
    }
    assert_eq!(q("250m").mul(4).to_string(), "1");
}

#[test]
fn the_amount_alone_decides_the_order() {
    for (left, right) in
        [("1", "2"), ("999m", "1"), ("1k", "1Ki"), ("1", "1e40"), ("1e20", "100000000000000000001")]
    {
        assert!(q(left) < q(right) && q(right) > q(left), "{left} < {right}");
    }
    assert_eq!(q("1024"), q("1Ki"));
    assert_eq!(q("1000m"), q("1e0"));
    // One nano above a number that leaves no room for nanos beside it.
    assert!(q("1e36").add(&q("0")) > q("1n") && q("-1e36") < q("-1n"));
}

#[test]
fn json_strings_and_numbers_are_quantities() {
    let read = |value| serde_json::from_value::<Quantity>(value);
    assert_eq!(read(json!("0.5")).unwrap().to_string(), "500m");
    assert_eq!(read(json!(2)).unwrap().to_string(), "2");
    assert_eq!(read(json!(0.5)).unwrap().to_string(), "500m");
    assert_eq!(read(json!(null)).unwrap(), Quantity::ZERO);
    assert!(read(json!([])).is_err() && read(json!("x")).is_err());
    assert_eq!(serde_json::to_value(q("1024Ki")).unwrap(), json!("1Mi"));
    let typed = k8s_openapi::apimachinery::pkg::api::resource::Quantity("1024Ki".to_owned());
    let back: k8s_openapi::apimachinery::pkg::api::resource::Quantity =
        Quantity::try_from(&typed).unwrap().into();
    assert_eq!(back.0, "1Mi");
}

proptest! {
    #[test]
    fn writing_and_reading_again_keeps_the_amount(
        mantissa in any::<i64>(), exponent in -9..20i32, binary in any::<bool>(),
    ) {
        // Binary amounts are capped at the largest i64, so that only smaller ones come back.
        let (format, exponent) =
            if binary { (Format::BinarySi, exponent.min(0)) } else { (Format::DecimalSi, exponent) };
        let quantity = Quantity { mantissa: mantissa.into(), exponent, format };
        let again = q(&quantity.to_string());
        prop_assert_eq!(again, quantity);
        prop_assert_eq!(q(&again.to_string()), quantity);
    }

    #[test]
    fn arithmetic_agrees_with_integers(a in any::<i32>(), b in any::<i32>(), shift in 0..6i32) {
        let left = Quantity { mantissa: a.into(), exponent: -3, format: Format::DecimalSi };
        let right = Quantity { mantissa: b.into(), exponent: -3 + shift, format: Format::DecimalSi };
        let b = i64::from(b) * 10i64.pow(shift as u32);
        prop_assert_eq!(left.add(&right).milli_value(), i64::from(a) + b);
        prop_assert_eq!(left.sub(&right).milli_value(), i64::from(a) - b);
        prop_assert_eq!(left.cmp(&right), i64::from(a).cmp(&b));
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "[-+]?[0-9.]{0,60}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,11}x?") {
        if let Ok(quantity) = Quantity::parse(&text) {
            let _written = quantity.to_string();
            let _sum = quantity.add(&quantity.mul(i64::MAX)).sub(&Quantity::from_milli(1, Format::BinarySi));
            let _value = (quantity.value(), quantity.as_f64(), quantity.cmp(&Quantity::ZERO));
        }
    }
}
