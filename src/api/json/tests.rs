//! Numbers, duplicates, depth and nonsense.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn numbers_are_whole_if_they_fit() {
    let decoded =
        decode(b"[1, -9223372036854775808, 9223372036854775807, 9223372036854775808, 1.0, 1e2]").unwrap();
    let list = decoded.value.as_array().unwrap().clone();
    assert_eq!(list.iter().filter(|v| v.is_i64()).count(), 3);
    assert_eq!(list[3].as_f64(), Some(9223372036854775808.0));
    assert!(!list[3].is_u64() && list[4].is_f64() && list[5].is_f64());
}

#[test]
fn the_last_of_duplicate_fields_wins_and_its_path_is_told() {
    let text =
        br#"{"spec": {"a": 1, "containers": [{}, {"name": "x", "name": "y"}], "a": 2, "a": 3}, "spec2": {}}"#;
    let decoded = decode(text).unwrap();
    assert_eq!(decoded.value, json!({"spec": {"a": 3, "containers": [{}, {"name": "y"}]}, "spec2": {}}));
    assert_eq!(decoded.duplicates, ["spec.containers[1].name", "spec.a"]);
    assert_eq!(decode(br#"[[{"a":1,"a":1}]]"#).unwrap().duplicates, ["[0][0].a"]);
    assert!(decode(br#"{"a":{"a":1},"b":{"a":1}}"#).unwrap().duplicates.is_empty());
}

#[test]
fn depth_is_limited() {
    let nested = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
    assert!(decode(nested(126).as_bytes()).is_ok());
    for n in [128, 1000, 1_000_000] {
        assert_eq!(decode(nested(n).as_bytes()).unwrap_err(), DecodeError::Depth);
    }
    assert_eq!(decode("[".repeat(1_000_000).as_bytes()).unwrap_err(), DecodeError::Depth);
}

#[test]
fn nonsense_is_refused() {
    for text in ["{", "{]", "nul", "\u{feff}{}", "{} {}", "1e999", "\"\\ud800\"", "[1,]", "{a:1}"] {
        assert!(matches!(decode(text.as_bytes()), Err(DecodeError::Json(_))), "{text:?}");
    }
    assert!(matches!(decode(b"\"\xff\""), Err(DecodeError::Json(_))));
    assert_eq!(decode(b" \n").unwrap_err(), DecodeError::Empty);
    let error = ApiError::from(decode(b"{").unwrap_err());
    assert_eq!(error.code(), 400);
    assert!(error.message().starts_with("couldn't get version/kind; json parse error: "), "{error}");
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _result = decode(&bytes);
    }

    #[test]
    fn whatever_is_almost_json_agrees_with_serde_json(text in "[\\[\\]{}:,\"a-c0-9.e -]{0,20}") {
        if let Ok(decoded) = decode(text.as_bytes()) {
            let expected: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(decoded.value, expected);
        }
    }
}
