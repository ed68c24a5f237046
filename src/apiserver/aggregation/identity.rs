//! Who asks, in the headers that only this server may set.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::registry::UserInfo;

/// What the headers begin with that another server believes.
const PREFIX: &str = "x-remote-";

/// Replaces whatever the client claims by what is known of it.
pub(super) fn set(headers: &mut HeaderMap, user: &UserInfo) {
    let claimed: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(PREFIX)).cloned().collect();
    for name in claimed {
        headers.remove(name);
    }
    headers.remove(AUTHORIZATION);
    let mut add = |name: &str, value: &str| {
        let name = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    };
    add("x-remote-user", &user.name);
    if !user.uid.is_empty() {
        add("x-remote-uid", &user.uid);
    }
    for group in &user.groups {
        add("x-remote-group", group);
    }
    for (key, values) in &user.extra {
        let name = format!("x-remote-extra-{}", escaped(key));
        for value in values {
            add(&name, value);
        }
    }
}

/// A key as part of a header's name: what such a name cannot hold, and `%` itself, is percent-encoded.
fn escaped(key: &str) -> String {
    let mut out = String::with_capacity(key.len());
    for byte in key.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_this_servers_word_alone() {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("root"));
        headers.insert("x-remote-extra-scopes", HeaderValue::from_static("all"));
        headers.insert("authorization", HeaderValue::from_static("Bearer x"));
        let user = UserInfo {
            name: "jane".into(),
            groups: vec!["a".into(), "b".into()],
            extra: [("example.com/x%".to_owned(), vec!["1".to_owned()])].into(),
            ..UserInfo::default()
        };
        set(&mut headers, &user);
        let all = |name: &str| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((all("x-remote-user"), all("x-remote-group")), (vec!["jane"], vec!["a", "b"]));
        assert_eq!(all("x-remote-extra-example.com%2fx%25"), ["1"]);
        assert!(!headers.contains_key("authorization") && !headers.contains_key("x-remote-extra-scopes"));
        assert!(!headers.contains_key("x-remote-uid"));
    }
}
