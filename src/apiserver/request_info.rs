//! What a request is about, read from its method, path and query exactly as upstream's `RequestInfoFactory` does.
//!
//! Authorization, flow control, metrics and routing all use this one reading.

use http::{Method, Uri};

/// Verbs that stand in the path of the old API, `/api/v1/watch/pods`.
const PATH_VERBS: [&str; 2] = ["proxy", "watch"];
/// Subresources of a namespace; any other third part begins the resource inside the namespace.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// What a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    /// Decoded path.
    pub path: String,
    /// Decoded query parameters, in order.
    pub query: Vec<(String, String)>,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection` for a resource; else the
    /// method in lower case.
    pub verb: String,
    /// The resource, when the path names one.
    pub target: Option<Target>,
}

/// The resource part of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// API group; empty for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace; empty for a request across namespaces or about a cluster-wide resource.
    pub namespace: String,
    /// Plural name of the resource.
    pub resource: String,
    /// Object; empty for a collection.
    pub name: String,
    /// Subresource; empty for the object itself.
    pub subresource: String,
    /// What follows the subresource, without a leading slash: the path of a proxy request.
    pub rest: Option<String>,
}

impl RequestInfo {
    /// Reads a request line.
    pub fn new(method: &Method, uri: &Uri) -> Self {
        let query = parse_query(uri.query().unwrap_or_default());
        let path = percent_decode(uri.path(), false);
        let parts: Vec<String> =
            uri.path().trim_matches('/').split('/').map(|part| percent_decode(part, false)).collect();
        let mut info = Self { path, query, verb: method.as_str().to_ascii_lowercase(), target: None };
        if let Some((target, verb)) = read_target(&parts, method) {
            let rest = target.rest.is_some().then(|| raw_rest(uri.path(), &parts, target.parts_used));
            info.set_target(Target { rest, ..target.target }, verb);
            info.select_watched_name();
        }
        info
    }

    /// The first value of a query parameter; empty when it is not there.
    pub fn param(&self, name: &str) -> &str {
        self.query.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Whether a boolean query parameter is set; Go's spellings of true and false, and nonsense is false.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.param(name), "1" | "t" | "T" | "true" | "TRUE" | "True")
    }

    /// Whether the request may run for as long as the client stays: such requests have no deadline and take no
    /// in-flight place.
    pub fn is_long_running(&self) -> bool {
        let Some(target) = &self.target else { return false };
        matches!(self.verb.as_str(), "watch" | "proxy")
            || matches!(target.subresource.as_str(), "exec" | "attach" | "portforward" | "proxy")
            || (target.subresource == "log" && self.flag("follow"))
    }

    /// A watch of one object by the old path selects it by name, which is all that such a watch is.
    fn select_watched_name(&mut self) {
        let Some(name) = self.target.as_ref().map(|target| target.name.clone()) else { return };
        if self.verb != "watch" || name.is_empty() || exact_name(self.param("fieldSelector")).is_some() {
            return;
        }
        let present = self.param("fieldSelector");
        let comma = if present.is_empty() { "" } else { "," };
        let selector = format!("{present}{comma}metadata.name={name}");
        self.query.retain(|(key, _)| key != "fieldSelector");
        self.query.push(("fieldSelector".to_owned(), selector));
    }

    fn set_target(&mut self, mut target: Target, verb: String) {
        self.verb = verb;
        if target.name.is_empty() && self.verb == "get" {
            self.verb = if self.flag("watch") { "watch" } else { "list" }.to_owned();
        }
        if target.name.is_empty() && self.verb == "delete" {
            self.verb = "deletecollection".to_owned();
        }
        if target.name.is_empty()
            && matches!(self.verb.as_str(), "list" | "watch")
            && let Some(name) = exact_name(self.param("fieldSelector"))
        {
            // A list of one named object is authorized like that object; routing goes by `is_collection`.
            target.name = name;
            target.rest = None;
        }
        self.target = Some(target);
    }
}

struct ReadTarget {
    target: Target,
    /// Set when something follows the subresource.
    rest: Option<()>,
    parts_used: usize,
}

fn read_target(parts: &[String], method: &Method) -> Option<(ReadTarget, String)> {
    let mut at = match parts.first().map(String::as_str) {
        Some("api") if parts.len() >= 3 => 1,
        Some("apis") if parts.len() >= 4 => 1,
        _ => return None,
    };
    let mut target = Target::default();
    if parts[0] == "apis" {
        target.group.clone_from(&parts[at]);
        at += 1;
    }
    target.version.clone_from(&parts[at]);
    at += 1;
    let verb = if PATH_VERBS.contains(&parts[at].as_str()) {
        at += 1;
        parts.get(at)?;
        parts[at - 1].clone()
    } else {
        method_verb(method).to_owned()
    };
    if parts[at] == "namespaces"
        && let Some(namespace) = parts.get(at + 1)
    {
        target.namespace.clone_from(namespace);
        if parts.get(at + 2).is_some_and(|part| !NAMESPACE_SUBRESOURCES.contains(&part.as_str())) {
            at += 2;
        }
    }
    target.resource.clone_from(&parts[at]);
    target.name = parts.get(at + 1).cloned().unwrap_or_default();
    if verb != "proxy" {
        target.subresource = parts.get(at + 2).cloned().unwrap_or_default();
    }
    let parts_used = at + 3;
    let rest = (parts.len() > parts_used).then_some(());
    Some((ReadTarget { target, rest, parts_used }, verb))
}

/// The undecoded path behind the parts that name the subresource, with its trailing slash.
fn raw_rest(path: &str, parts: &[String], used: usize) -> String {
    debug_assert!(parts.len() > used, "called only when something follows");
    path.trim_start_matches('/').splitn(used + 1, '/').nth(used).unwrap_or_default().to_owned()
}

fn method_verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::GET | Method::HEAD => "get",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

/// The name that a field selector demands by `metadata.name=x`.
fn exact_name(selector: &str) -> Option<String> {
    selector.split(',').find_map(|term| {
        let value = term.strip_prefix("metadata.name=").map(|v| v.strip_prefix('=').unwrap_or(v))?;
        let usable = !value.is_empty() && !matches!(value, "." | "..") && !value.contains(['/', '%', '\\']);
        usable.then(|| value.to_owned())
    })
}

/// Splits and decodes `a=b&c=d`.
pub fn parse_query(query: &str) -> Vec<(String, String)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode(key, true), percent_decode(value, true))
        })
        .collect()
}

/// Decodes `%41`; what is no valid escape stays as it is, and bytes that are no UTF-8 are replaced.
pub(super) fn percent_decode(text: &str, plus_is_space: bool) -> String {
    let plain = !text.contains('%') && (!plus_is_space || !text.contains('+'));
    if plain {
        return text.to_owned();
    }
    let hex = |byte: u8| (byte as char).to_digit(16);
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while at < bytes.len() {
        let escaped = match bytes[at] {
            b'%' if at + 2 < bytes.len() => hex(bytes[at + 1]).zip(hex(bytes[at + 2])),
            _ => None,
        };
        match (escaped, bytes[at]) {
            (Some((high, low)), _) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                at += 3;
                continue;
            }
            (None, b'+') if plus_is_space => out.push(b' '),
            (None, byte) => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &str, uri: &str) -> RequestInfo {
        RequestInfo::new(&method.parse().unwrap(), &uri.parse().unwrap())
    }

    /// `verb group/version namespace resource name subresource rest`, `-` for what is empty.
    fn summary(info: &RequestInfo) -> String {
        let Some(t) = &info.target else { return format!("{} {}", info.verb, info.path) };
        let shown = |s: &str| if s.is_empty() { "-".to_owned() } else { s.to_owned() };
        let rest = t.rest.as_deref().map_or("-".to_owned(), |rest| format!("[{rest}]"));
        format!(
            "{} {}/{} {} {} {} {} {rest}",
            info.verb,
            shown(&t.group),
            t.version,
            shown(&t.namespace),
            t.resource,
            shown(&t.name),
            shown(&t.subresource)
        )
    }

    #[test]
    fn reads_requests_as_upstream_does() {
        let cases = [
            ("GET", "/", "get /"),
            ("GET", "/api", "get /api"),
            ("GET", "/api/v1", "get /api/v1"),
            ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
            ("GET", "/healthz/ping", "get /healthz/ping"),
            ("POST", "/version", "post /version"),
            ("GET", "/api/v1/pods", "list -/v1 - pods - - -"),
            ("GET", "/api/v1/pods?watch=true", "watch -/v1 - pods - - -"),
            ("GET", "/api/v1/pods?watch=false", "list -/v1 - pods - - -"),
            ("GET", "/api/v1/watch/pods", "watch -/v1 - pods - - -"),
            ("GET", "/api/v1/watch/namespaces/a/pods/b", "watch -/v1 a pods b - -"),
            ("GET", "/api/v1/namespaces", "list -/v1 - namespaces - - -"),
            ("GET", "/api/v1/namespaces/a", "get -/v1 a namespaces a - -"),
            ("PUT", "/api/v1/namespaces/a/finalize", "update -/v1 a namespaces a finalize -"),
            ("PATCH", "/api/v1/namespaces/a/status", "patch -/v1 a namespaces a status -"),
            ("GET", "/api/v1/namespaces/a/pods", "list -/v1 a pods - - -"),
            ("HEAD", "/api/v1/namespaces/a/pods/b", "get -/v1 a pods b - -"),
            ("GET", "/api/v1/namespaces/a/pods/b/log?follow=true", "get -/v1 a pods b log -"),
            ("POST", "/api/v1/namespaces/a/pods/b/exec", "create -/v1 a pods b exec -"),
            ("GET", "/api/v1/nodes/n/proxy/metrics/x%2Fy/", "get -/v1 - nodes n proxy [metrics/x%2Fy/]"),
            ("GET", "/api/v1/nodes/n/proxy/", "get -/v1 - nodes n proxy -"),
            ("GET", "/api/v1/nodes/n/proxy//a", "get -/v1 - nodes n proxy [/a]"),
            ("POST", "/apis/apps/v1/namespaces/a/deployments", "create apps/v1 a deployments - - -"),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                "deletecollection apps/v1 a deployments - - -",
            ),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments/b", "delete apps/v1 a deployments b - -"),
            (
                "PUT",
                "/apis/apps/v1/namespaces/a/deployments/b/scale",
                "update apps/v1 a deployments b scale -",
            ),
            ("OPTIONS", "/api/v1/pods", " -/v1 - pods - - -"),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dweb", "list -/v1 - pods web - -"),
            ("GET", "/api/v1/pods?fieldSelector=metadata.name!%3Dweb", "list -/v1 - pods - - -"),
            ("GET", "/api/v1/namespaces/a/pods/b%2Fc", "get -/v1 a pods b/c - -"),
            ("GET", "/api/v1/namespaces/a/pods/", "list -/v1 a pods - - -"),
        ];
        for (method, uri, expected) in cases {
            assert_eq!(summary(&read(method, uri)), expected, "{method} {uri}");
        }
    }

    #[test]
    fn long_running_requests_are_known() {
        for uri in [
            "/api/v1/pods?watch=1",
            "/api/v1/namespaces/a/pods/b/exec",
            "/api/v1/namespaces/a/pods/b/log?follow=true",
            "/api/v1/nodes/n/proxy/metrics",
        ] {
            assert!(read("GET", uri).is_long_running(), "{uri}");
        }
        for uri in ["/api/v1/pods", "/api/v1/namespaces/a/pods/b/log", "/healthz"] {
            assert!(!read("GET", uri).is_long_running(), "{uri}");
        }
    }

    #[test]
    fn watch_by_the_old_path_selects_the_name() {
        let info = read("GET", "/api/v1/watch/namespaces/a/pods/b?fieldSelector=x%3Dy");
        assert_eq!(info.param("fieldSelector"), "x=y,metadata.name=b");
        assert_eq!(read("GET", "/api/v1/watch/namespaces/a/pods").param("fieldSelector"), "");
    }

    #[test]
    fn query_is_decoded() {
        let info = read("GET", "/x?labelSelector=a%3Db%2Cc+in+(d)&pretty&bad=%zz&watch=True");
        assert_eq!(info.param("labelSelector"), "a=b,c in (d)");
        assert_eq!(info.param("bad"), "%zz");
        assert_eq!(info.param("missing"), "");
        assert!(info.flag("watch") && !info.flag("pretty"));
    }
}
