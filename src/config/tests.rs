//! Values that flags take and refuse.

use std::fs;

use super::*;

#[test]
fn port_ranges_are_ordered() {
    let range: PortRange = "30000-32767".parse().unwrap();
    assert_eq!((range.low, range.high), (30000, 32767));
    assert_eq!(range.to_string(), "30000-32767");
    for wrong in ["", "1", "5-4", "0-1", "a-b", "1-70000"] {
        assert!(wrong.parse::<PortRange>().is_err(), "{wrong}");
    }
}

#[test]
fn modes_are_octal() {
    assert_eq!(parse_mode("0644"), Ok(0o644));
    assert_eq!(parse_mode("600"), Ok(0o600));
    assert!(parse_mode("9").is_err());
    assert!(parse_mode("7777").is_err());
}

#[test]
fn secret_comes_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    fs::write(&path, "abc\n").unwrap();
    assert_eq!(secret("token-file", None, Some(&path)).unwrap().as_deref(), Some("abc"));
    assert_eq!(secret("token-file", Some("given".into()), Some(&path)).unwrap().as_deref(), Some("given"));
    fs::write(&path, "\n").unwrap();
    assert!(secret("token-file", None, Some(&path)).unwrap_err().to_string().contains("empty"));
    let missing = dir.path().join("missing");
    assert!(secret("token-file", None, Some(&missing)).unwrap_err().to_string().contains("missing"));
}
