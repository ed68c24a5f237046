//! Which upgrade a request asks for.

use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderName};

/// Headers that concern one connection only and are not passed on.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Subprotocols of WebSocket that a kubelet's runtime (and a SPDY library behind it) understands.
const RUNTIME_PROTOCOLS: [&str; 7] = [
    "channel.k8s.io",
    "base64.channel.k8s.io",
    "v2.channel.k8s.io",
    "v3.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "portforward.k8s.io",
];

/// Whether the request wants to leave HTTP.
pub(crate) fn requested(headers: &HeaderMap) -> bool {
    let tokens = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    headers.contains_key(UPGRADE)
        && tokens.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// Whether it wants WebSocket.
pub(crate) fn is_websocket(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    requested(headers) && upgrade.eq_ignore_ascii_case("websocket")
}

/// The WebSocket subprotocols that a client offers, in its order.
pub(crate) fn websocket_protocols(headers: &HeaderMap) -> Vec<&str> {
    headers
        .get_all("sec-websocket-protocol")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|protocol| !protocol.is_empty())
        .collect()
}

/// Whether a WebSocket client can be connected to the runtime as it is.
pub(crate) fn runtime_understands(headers: &HeaderMap) -> bool {
    let offered = websocket_protocols(headers);
    offered.is_empty() || offered.iter().any(|protocol| RUNTIME_PROTOCOLS.contains(protocol))
}

/// The headers of a message to pass on: all but those of the connection, the credentials, and, unless `upgrade` is set,
/// what asks for an upgrade.
pub(crate) fn forwardable(headers: &HeaderMap, upgrade: bool) -> HeaderMap {
    let listed: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|token| token.trim().to_ascii_lowercase())
        .collect();
    let dropped = |name: &HeaderName| {
        let name = name.as_str();
        let kept_for_upgrade = upgrade && matches!(name, "connection" | "upgrade");
        let credentials = name == "authorization" || name.starts_with("impersonate-");
        credentials || (!kept_for_upgrade && (HOP_BY_HOP.contains(&name) || listed.iter().any(|l| l == name)))
    };
    headers
        .iter()
        .filter(|(name, _)| !dropped(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn upgrades_are_recognized() {
        let spdy = headers(&[("connection", "Upgrade"), ("upgrade", "SPDY/3.1")]);
        assert!(requested(&spdy) && !is_websocket(&spdy));
        let ws = headers(&[("connection", "keep-alive, upgrade"), ("upgrade", "websocket")]);
        assert!(requested(&ws) && is_websocket(&ws));
        assert!(!requested(&headers(&[("upgrade", "h2c")])));
    }

    #[test]
    fn clients_that_speak_only_newer_protocols_are_known() {
        let offers = |value: &str| headers(&[("sec-websocket-protocol", value)]);
        assert!(runtime_understands(&HeaderMap::new()));
        assert!(runtime_understands(&offers("v5.channel.k8s.io, v4.channel.k8s.io")));
        assert!(!runtime_understands(&offers("v5.channel.k8s.io")));
        assert!(!runtime_understands(&offers("SPDY/3.1+portforward.k8s.io")));
    }

    #[test]
    fn credentials_and_connection_headers_stay_behind() {
        let all = headers(&[
            ("authorization", "Bearer x"),
            ("impersonate-user", "y"),
            ("connection", "Upgrade, x-own"),
            ("x-own", "1"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("x-stream-protocol-version", "v3.channel.k8s.io"),
            ("te", "trailers"),
        ]);
        let names = |map: HeaderMap| {
            let mut names: Vec<_> = map.iter().map(|(name, _)| name.to_string()).collect();
            names.sort();
            names
        };
        let protocol = "x-stream-protocol-version";
        assert_eq!(names(forwardable(&all, false)), [protocol, protocol]);
        assert_eq!(names(forwardable(&all, true)), ["connection", "upgrade", protocol, protocol]);
    }
}
