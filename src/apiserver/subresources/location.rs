//! Paths and queries at the kubelet.

use crate::api::error::{ApiError, GroupKind};
use crate::api::field::{FieldError, FieldErrors, Path};
use crate::apiserver::streaming::translate::Streams;

type Query = [(String, String)];

/// Joins path segments and a query, both encoded.
pub(super) fn path(segments: &[&str], query: &[(String, String)]) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        path.push_str(&encode(segment));
    }
    for (at, (key, value)) in query.iter().enumerate() {
        path.push(if at == 0 { '?' } else { '&' });
        path.push_str(&format!("{}={}", encode(key), encode(value)));
    }
    path
}

/// Encodes everything that is not unreserved in URLs.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The options of a log request, checked.
pub(super) fn log_query(query: &Query) -> Result<Vec<(String, String)>, ApiError> {
    const FLAGS: [&str; 3] = ["follow", "previous", "timestamps"];
    let mut errors = FieldErrors::default();
    let mut kept = Vec::new();
    for (key, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
        let lowest = match key.as_str() {
            "tailLines" => 0,
            "limitBytes" | "sinceSeconds" => 1,
            key if FLAGS.contains(&key) || matches!(key, "sinceTime" | "stream") => {
                kept.push((key.to_owned(), value.clone()));
                continue;
            }
            _ => continue,
        };
        let number: i64 = value.parse().map_err(|_| {
            ApiError::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax"))
        })?;
        if number < lowest {
            let wanted =
                if lowest == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            errors.push(FieldError::invalid(&Path::new(key.clone()), number, wanted));
        }
        kept.push((key.clone(), value.clone()));
    }
    let given = |name: &str| kept.iter().any(|(key, _)| key == name);
    if given("sinceSeconds") && given("sinceTime") {
        let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        errors.push(FieldError::forbidden(&Path::new("sinceSeconds"), detail));
    }
    if errors.is_empty() {
        return Ok(kept);
    }
    Err(ApiError::invalid(&GroupKind::new("", "PodLogOptions"), "", errors))
}

/// The options of exec and attach, under the names that the kubelet knows.
pub(super) fn stream_query(action: &str, query: &Query) -> Result<Vec<(String, String)>, ApiError> {
    let flag = |name: &str| {
        query.iter().any(|(key, value)| {
            key == name && matches!(value.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True")
        })
    };
    let commands: Vec<&str> =
        query.iter().filter(|(key, _)| key == "command").map(|(_, v)| v.as_str()).collect();
    if action == "exec" && commands.is_empty() {
        return Err(ApiError::bad_request("you must specify at least 1 command for the container"));
    }
    // With a terminal there is no separate stderr.
    let streams = [("stdin", "input"), ("stdout", "output"), ("stderr", "error")];
    if !streams.iter().any(|(name, _)| flag(name)) {
        return Err(ApiError::bad_request("you must specify at least one of stdin, stdout, stderr"));
    }
    let yes = || "1".to_owned();
    let mut out: Vec<(String, String)> =
        streams.iter().filter(|(name, _)| flag(name)).map(|(_, own)| ((*own).to_owned(), yes())).collect();
    if flag("tty") {
        out.push(("tty".to_owned(), yes()));
    }
    if action == "exec" {
        out.extend(commands.into_iter().map(|command| ("command".to_owned(), command.to_owned())));
    }
    Ok(out)
}

/// The streams that [`stream_query`] asks the kubelet for.
pub(super) fn streams(query: &Query) -> Streams {
    let has = |name: &str| query.iter().any(|(key, _)| key == name);
    Streams { stdin: has("input"), stdout: has("output"), stderr: has("error"), tty: has("tty") }
}

/// The ports of a port forwarding; SPDY clients name them per stream, WebSocket clients here.
pub(super) fn port_query(query: &Query) -> Vec<(String, String)> {
    let ports = query.iter().filter(|(key, _)| key == "ports");
    ports
        .flat_map(|(_, value)| value.split(','))
        .map(|port| ("port".to_owned(), port.trim().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apiserver::request_info::parse_query;

    fn encoded(pairs: Vec<(String, String)>) -> String {
        path(&["x"], &pairs)
    }

    #[test]
    fn paths_cannot_be_broken_out_of() {
        assert_eq!(path(&["exec", "a/../b", "c?d"], &[]), "/exec/a%2F..%2Fb/c%3Fd");
    }

    #[test]
    fn log_options_are_passed_on_and_checked() {
        let query = parse_query("follow=true&tailLines=10&container=a&pretty=1&timestamps=");
        assert_eq!(encoded(log_query(&query).unwrap()), "/x?follow=true&tailLines=10");
        for (query, code) in [
            ("tailLines=x", 400),
            ("tailLines=-1", 422),
            ("limitBytes=0", 422),
            ("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z", 422),
        ] {
            assert_eq!(log_query(&parse_query(query)).unwrap_err().code(), code, "{query}");
        }
    }

    #[test]
    fn exec_options_take_the_kubelets_names() {
        let query = parse_query(
            "command=sh&command=-c&command=echo+%26&stdin=true&stdout=true&stderr=false&tty=true&container=a",
        );
        assert_eq!(
            encoded(stream_query("exec", &query).unwrap()),
            "/x?input=1&output=1&tty=1&command=sh&command=-c&command=echo%20%26"
        );
        assert_eq!(encoded(stream_query("attach", &query).unwrap()), "/x?input=1&output=1&tty=1");
        let streams = streams(&stream_query("exec", &query).unwrap());
        assert_eq!(streams, Streams { stdin: true, stdout: true, stderr: false, tty: true });
        assert_eq!(stream_query("exec", &parse_query("stdout=1")).unwrap_err().code(), 400);
        assert_eq!(stream_query("attach", &[]).unwrap_err().code(), 400);
    }

    #[test]
    fn ports_may_come_together_or_apart() {
        assert_eq!(
            encoded(port_query(&parse_query("ports=80,443&ports=8080"))),
            "/x?port=80&port=443&port=8080"
        );
    }
}
