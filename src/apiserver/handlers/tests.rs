//! The parts of handlers that need no registry.

use super::*;

#[test]
fn warnings_are_quoted_for_their_header() {
    assert_eq!(warning_header("unknown field \"spec.x\""), "299 - \"unknown field \\\"spec.x\\\"\"");
    assert_eq!(warning_header("a\r\nb\u{e9}"), "299 - \"a  b?\"");
    assert!(HeaderValue::from_str(&warning_header("\\\u{7f}\u{0}")).is_ok());
}
