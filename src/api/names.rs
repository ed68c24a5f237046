//! Rules for names, label keys and values, ports and the like: each function returns the broken rules as
//! messages in upstream's words, and nothing when the text is fine.

use std::net::IpAddr;

const LABEL_RE: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_RE: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED_RE: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// The longest label, label value and name part of a qualified name.
pub const LABEL_MAX: usize = 63;
/// The longest DNS subdomain.
pub const SUBDOMAIN_MAX: usize = 253;

/// The complaint about a text longer than `max`.
pub fn max_len_error(max: usize) -> String {
    format!("must be no more than {max} bytes")
}

/// The complaint about an empty text.
pub const EMPTY_ERROR: &str = "must be non-empty";

/// The complaint about a number outside `low..=high`.
pub fn inclusive_range_error(low: i64, high: i64) -> String {
    format!("must be between {low} and {high}, inclusive")
}

/// A rule that a regular expression states, with examples of what passes.
fn regex_error(rule: &str, regex: &str, examples: &[&str]) -> String {
    let mut text = format!("{rule} (e.g. ");
    for (i, example) in examples.iter().enumerate() {
        if i > 0 {
            text.push_str(" or ");
        }
        text.push_str(&format!("'{example}', "));
    }
    text.push_str(&format!("regex used for validation is '{regex}')"));
    text
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase()
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// `first` and `last` decide about the ends, `inner` about all between; the empty text does not match.
fn shaped(
    text: &str,
    first: impl Fn(u8) -> bool,
    inner: impl Fn(u8) -> bool,
    last: impl Fn(u8) -> bool,
) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(head), Some(tail)) => first(*head) && last(*tail) && bytes.iter().all(|b| inner(*b)),
        _ => false,
    }
}

fn is_label_shaped(text: &str) -> bool {
    shaped(text, lower_alnum, |b| lower_alnum(b) || b == b'-', lower_alnum)
}

fn is_qualified_shaped(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_alphanumeric();
    shaped(text, alnum, |b| alnum(b) || matches!(b, b'-' | b'_' | b'.'), alnum)
}

/// A lower-case RFC 1123 label, such as a namespace's name.
pub fn is_dns1123_label(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > LABEL_MAX {
        errors.push(max_len_error(LABEL_MAX));
    }
    if !is_label_shaped(text) {
        errors.push(regex_error(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
             and end with an alphanumeric character",
            LABEL_RE,
            &["my-name", "123-abc"],
        ));
    }
    errors
}

/// A lower-case RFC 1123 subdomain, such as a pod's name.
pub fn is_dns1123_subdomain(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        errors.push(max_len_error(SUBDOMAIN_MAX));
    }
    if !text.split('.').all(is_label_shaped) {
        errors.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
             must start and end with an alphanumeric character",
            SUBDOMAIN_RE,
            &["example.com"],
        ));
    }
    errors
}

/// A lower-case RFC 1123 subdomain whose labels may start with an underscore and have more of them.
pub fn is_dns1123_subdomain_with_underscore(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        errors.push(max_len_error(SUBDOMAIN_MAX));
    }
    let label = |label: &str| {
        let label = label.strip_prefix('_').unwrap_or(label);
        shaped(label, lower_alnum, |b| lower_alnum(b) || matches!(b, b'-' | b'_'), lower_alnum)
    };
    if !text.split('.').all(label) {
        errors.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-', '_' or '.', and \
             must start and end with an alphanumeric character",
            SUBDOMAIN_RE,
            &["example.com"],
        ));
    }
    errors
}

/// A lower-case RFC 1123 subdomain after `*.`.
pub fn is_wildcard_dns1123_subdomain(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        errors.push(max_len_error(SUBDOMAIN_MAX));
    }
    if !text.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(is_label_shaped)) {
        errors.push(regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
             consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            &format!(r"\*\.{SUBDOMAIN_RE}"),
            &["*.example.com"],
        ));
    }
    errors
}

/// An RFC 1035 label, such as a service's name.
pub fn is_dns1035_label(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > LABEL_MAX {
        errors.push(max_len_error(LABEL_MAX));
    }
    if !shaped(text, lower, |b| lower_alnum(b) || b == b'-', lower_alnum) {
        errors.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    errors
}

/// A label or annotation key: a name, optionally after a DNS subdomain and a slash.
pub fn is_qualified_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let mut parts = text.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => name,
        (Some(""), Some(name), None) => {
            errors.push(format!("prefix part {EMPTY_ERROR}"));
            name
        }
        (Some(prefix), Some(name), None) => {
            errors.extend(is_dns1123_subdomain(prefix).into_iter().map(|e| format!("prefix part {e}")));
            name
        }
        _ => {
            let rule = regex_error(QUALIFIED_RULE, QUALIFIED_RE, &["MyName", "my.name", "123-abc"]);
            return vec![format!(
                "a qualified name {rule} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push(format!("name part {EMPTY_ERROR}"));
    } else if name.len() > LABEL_MAX {
        errors.push(format!("name part {}", max_len_error(LABEL_MAX)));
    }
    if !is_qualified_shaped(name) {
        let rule = regex_error(QUALIFIED_RULE, QUALIFIED_RE, &["MyName", "my.name", "123-abc"]);
        errors.push(format!("name part {rule}"));
    }
    errors
}

/// A label's value; may be empty.
pub fn is_label_value(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > LABEL_MAX {
        errors.push(max_len_error(LABEL_MAX));
    }
    if !text.is_empty() && !is_qualified_shaped(text) {
        errors.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
             must start and end with an alphanumeric character",
            &format!("({QUALIFIED_RE})?"),
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// A port number.
pub fn is_port_number(port: i64) -> Vec<String> {
    if (1..=65535).contains(&port) { Vec::new() } else { vec![inclusive_range_error(1, 65535)] }
}

/// The IANA name of a port.
pub fn is_port_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 15 {
        errors.push(max_len_error(15));
    }
    if text.is_empty() || !text.bytes().all(|b| lower_alnum(b) || b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(lower) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// An address in which numbers may start with zeros, which is what clients of old could write; whether there are any.
fn sloppy_ip(text: &str) -> Option<(IpAddr, bool)> {
    if let Ok(address) = text.parse() {
        return Some((address, false));
    }
    // Only the dotted part of an address, which ends it, can have leading zeros that the parser minds.
    let (start, dotted) = text.rfind(':').map_or(("", text), |end| text.split_at(end + 1));
    let plain =
        |part: &str| part.parse::<u8>().ok().filter(|_| !part.starts_with('+')).map(|n| n.to_string());
    let numbers: Option<Vec<String>> = dotted.split('.').map(plain).collect();
    let address = format!("{start}{}", numbers.filter(|numbers| numbers.len() == 4)?.join("."));
    address.parse().ok().map(|address| (address, true))
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

/// An IPv4 or IPv6 address in a field that was there before such fields were checked strictly.
pub fn is_ip(text: &str) -> Vec<String> {
    let message = match sloppy_ip(text) {
        None => "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        Some((_, true)) => "must not have leading 0s",
        Some((address, _)) if is_mapped(address) => "must not be an IPv4-mapped IPv6 address",
        Some(_) => return Vec::new(),
    };
    vec![message.to_owned()]
}

/// A network in CIDR notation, in a field that was there before such fields were checked strictly.
pub fn is_cidr(text: &str) -> Vec<String> {
    let parsed = text.split_once('/').and_then(|(address, bits)| {
        let (address, zeros) = sloppy_ip(address)?;
        let length = bits.parse::<u8>().ok().filter(|_| !bits.starts_with('+'))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        (length <= most).then_some((address, length, zeros || (bits.len() > 1 && bits.starts_with('0'))))
    });
    let message = match parsed {
        None => "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
        Some((.., true)) => "must not have leading 0s in IP or prefix length",
        Some((address, ..)) if is_mapped(address) => "must not have an IPv4-mapped IPv6 address",
        Some((address, length, _)) if has_bits_beyond(address, length) => {
            "must not have bits set beyond the prefix length"
        }
        Some(_) => return Vec::new(),
    };
    vec![message.to_owned()]
}

/// An address with the length of its network, such as `192.168.1.5/24`, in canonical form.
pub fn is_interface_address(text: &str) -> Vec<String> {
    let parsed = text.split_once('/').and_then(|(address, bits)| {
        let (address, _) = sloppy_ip(address)?;
        let length = bits.parse::<u8>().ok().filter(|_| !bits.starts_with('+'))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        (length <= most).then_some((address, length))
    });
    let Some((address, length)) = parsed else {
        return vec!["must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)".to_owned()];
    };
    let beyond_mapping = if is_mapped(address) { length.saturating_sub(96) } else { length };
    let canonical = format!("{}/{beyond_mapping}", address.to_canonical());
    if canonical == text { Vec::new() } else { vec![format!("must be in canonical form ({canonical:?})")] }
}

fn has_bits_beyond(address: IpAddr, length: u8) -> bool {
    match address {
        IpAddr::V4(address) => address.to_bits().checked_shl(u32::from(length)).is_some_and(|rest| rest != 0),
        IpAddr::V6(address) => address.to_bits().checked_shl(u32::from(length)).is_some_and(|rest| rest != 0),
    }
}

/// The number of a user or a group.
pub fn is_id(id: i64) -> Vec<String> {
    let most = i64::from(i32::MAX);
    if (0..=most).contains(&id) { Vec::new() } else { vec![inclusive_range_error(0, most)] }
}

/// The reason of a condition, such as `MyName`.
pub fn is_condition_reason(text: &str) -> Vec<String> {
    const RULE: &str = "a condition reason must start with alphabetic character, optionally followed by a string of \
        alphanumeric characters or '_,:', and must end with an alphanumeric character or '_'";
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b',' | b':');
    let last = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if shaped(text, |b| b.is_ascii_alphabetic(), inner, last) {
        return Vec::new();
    }
    let examples = ["my_name", "MY_NAME", "MyName", "ReasonA,ReasonB", "ReasonA:ReasonB"];
    vec![regex_error(RULE, "[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", &examples)]
}

/// The name of an environment variable: printable ASCII without `=`.
pub fn is_env_var_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.is_empty() {
        errors.push(format!("environment variable name {EMPTY_ERROR}"));
    }
    if !text.bytes().all(|b| (b.is_ascii_graphic() || b == b' ') && b != b'=') {
        errors.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    errors
}

/// A key of a ConfigMap's or Secret's data.
pub fn is_config_map_key(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        errors.push(max_len_error(SUBDOMAIN_MAX));
    }
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(ok) {
        errors.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match text {
        "." => errors.push("must not be '.'".to_owned()),
        ".." => errors.push("must not be '..'".to_owned()),
        text if text.starts_with("..") => errors.push("must not start with '..'".to_owned()),
        _ => {}
    }
    errors
}

/// The name of an HTTP header.
pub fn is_http_header_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![regex_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// A percentage such as `25%`.
pub fn is_percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    vec![regex_error(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// A name that can stand as one segment of a URL path; RBAC objects have no other rule.
pub fn is_path_segment_name(text: &str) -> Vec<String> {
    match text {
        "." => return vec!["may not be '.'".to_owned()],
        ".." => return vec!["may not be '..'".to_owned()],
        _ => {}
    }
    ['/', '%'].iter().filter(|c| text.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
}

/// The text to check in the place of a `generateName`: a trailing dash stands for what the server will append.
pub fn mask_trailing_dash(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => prefix.to_owned(),
    }
}

#[cfg(test)]
mod tests;
