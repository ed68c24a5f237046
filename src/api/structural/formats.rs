//! The string formats that are checked; others are taken as they are.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use k8s_openapi::jiff::{SignedDuration, Timestamp, civil};
use regex::Regex;

use crate::api::names;

fn regex(pattern: &'static str) -> Regex {
    Regex::new(pattern).expect("the patterns of formats are constants that a test compiles")
}

static EMAIL: LazyLock<Regex> = LazyLock::new(|| regex(r"^[^@\s<>]+@[^@\s<>]+$"));
static HOSTNAME: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"^([a-zA-Z0-9]([a-zA-Z0-9-]{0,62}[a-zA-Z0-9])?)(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,62}[a-zA-Z0-9])?)*\.?$",
    )
});
static MAC: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"^([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}$|^([0-9a-fA-F]{2}[:-]){7}[0-9a-fA-F]{2}$|^([0-9a-fA-F]{4}\.){2}[0-9a-fA-F]{4}$",
    )
});
static UUID: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"));
static HEX_COLOR: LazyLock<Regex> = LazyLock::new(|| regex(r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"));
static RGB_COLOR: LazyLock<Regex> = LazyLock::new(|| {
    regex(
        r"^rgb\(\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*\)$",
    )
});
static BASE64: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})?$")
});
static OBJECT_ID: LazyLock<Regex> = LazyLock::new(|| regex(r"^[0-9a-fA-F]{24}$"));
static SSN: LazyLock<Regex> = LazyLock::new(|| regex(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"));
static CARD: LazyLock<Regex> = LazyLock::new(|| regex(r"^[0-9]{12,19}$"));
static DURATION: LazyLock<Regex> = LazyLock::new(|| regex(r"^((\d+)\s*([A-Za-zµ]+))$"));
static URI: LazyLock<Regex> = LazyLock::new(|| regex(r"^([A-Za-z][A-Za-z0-9+.-]*:[^\s]*|/[^\s]*)$"));

/// Whether `text` has the format; unknown formats have no rule.
pub fn holds(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "bsonobjectid" => OBJECT_ID.is_match(text),
        "uri" => URI.is_match(text),
        "email" => EMAIL.is_match(text),
        "hostname" => text.len() <= 255 && HOSTNAME.is_match(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => names::is_cidr(text).is_empty(),
        "mac" => MAC.is_match(text),
        "uuid" => UUID.is_match(text),
        "uuid3" => UUID.is_match(text) && version(text) == Some('3'),
        "uuid4" => UUID.is_match(text) && version(text) == Some('4'),
        "uuid5" => UUID.is_match(text) && version(text) == Some('5'),
        "hexcolor" => HEX_COLOR.is_match(text),
        "rgbcolor" => RGB_COLOR.is_match(text),
        "byte" => BASE64.is_match(text),
        "creditcard" => CARD.is_match(&text.replace(['-', ' '], "")),
        "ssn" => SSN.is_match(text),
        "date" => civil::Date::strptime("%Y-%m-%d", text).is_ok(),
        "datetime" => date_time(text).is_some(),
        "duration" => duration(text).is_some(),
        "k8sshortname" => names::is_dns1123_label(text).is_empty(),
        "k8slongname" => names::is_dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

fn version(uuid: &str) -> Option<char> {
    uuid.chars().filter(|c| *c != '-').nth(12)
}

/// An RFC 3339 time.
pub fn date_time(text: &str) -> Option<Timestamp> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() >= 20 && matches!(bytes[10], b'T' | b't' | b' ');
    shaped.then(|| text.parse().ok()).flatten()
}

/// A duration: Go's form (`1h30m`), or a number with a unit in words (`3 days`).
pub fn duration(text: &str) -> Option<SignedDuration> {
    if let Some(found) = go_duration(text) {
        return Some(found);
    }
    let parts = DURATION.captures(text.trim())?;
    let number: i64 = parts[2].parse().ok()?;
    let seconds = match parts[3].to_lowercase().as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3600,
        "d" | "day" | "days" => 86_400,
        "w" | "wk" | "wks" | "week" | "weeks" => 604_800,
        _ => return None,
    };
    Some(SignedDuration::from_secs(number.checked_mul(seconds)?))
}

/// Go's `time.ParseDuration`.
pub fn go_duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos: f64 = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let units = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let factor = match &rest[..units] {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        nanos += number * factor;
        rest = &rest[units..];
    }
    if nanos > 9.2e18 {
        return None;
    }
    #[allow(clippy::cast_possible_truncation, reason = "bounded just above")]
    let nanos = nanos as i64;
    Some(SignedDuration::from_nanos(if negative { -nanos } else { nanos }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_accept_what_they_name() {
        let cases = [
            ("date-time", "2026-01-02T03:04:05Z", true),
            ("date-time", "2026-01-02T03:04:05.123+01:00", true),
            ("date-time", "2026-01-02", false),
            ("date", "2026-01-02", true),
            ("date", "2026-13-02", false),
            ("ipv4", "10.0.0.1", true),
            ("ipv4", "::1", false),
            ("ipv6", "::1", true),
            ("cidr", "10.0.0.0/8", true),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", true),
            ("uuid4", "123e4567-e89b-12d3-a456-426614174000", false),
            ("byte", "aGVsbG8=", true),
            ("byte", "*", false),
            ("duration", "1h30m", true),
            ("duration", "3 days", true),
            ("duration", "x", false),
            ("hostname", "a.example", true),
            ("email", "a@b.c", true),
            ("uri", "http://a/b", true),
            ("mac", "00:11:22:33:44:55", true),
            ("hexcolor", "#fff", true),
            ("rgbcolor", "rgb(1,2,3)", true),
            ("ssn", "111-11-1111", true),
            ("creditcard", "4111111111111111", true),
            ("bsonobjectid", "507f1f77bcf86cd799439011", true),
            ("made-up", "anything", true),
        ];
        for (format, text, expected) in cases {
            assert_eq!(holds(format, text), expected, "{format} {text}");
        }
    }
}
