//! The paths of the kubelet's server, and the permission that each needs.

/// What a path asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    Health,
    Pods,
    RunningPods,
    Metrics,
    Summary,
    ResourceMetrics,
    Cadvisor,
    Probes,
    Configz,
    Log {
        namespace: String,
        pod: String,
        container: String,
    },
    /// `container` is empty for port forwarding, which is the whole pod's.
    Stream {
        kind: Stream,
        namespace: String,
        pod: String,
        container: String,
    },
    /// Runs a command and answers with its output.
    Run {
        namespace: String,
        pod: String,
        container: String,
    },
    /// Writes a checkpoint of a container.
    Checkpoint {
        namespace: String,
        pod: String,
        container: String,
    },
    /// The directory of a volume on this node's disk: ours, not upstream's.
    LocalVolume {
        directory: String,
    },
}

/// Which streams a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Exec,
    Attach,
    PortForward,
}

impl Route {
    /// `None` for a path that does not exist.
    pub(super) fn of(path: &str) -> Option<Route> {
        let parts: Vec<String> = path.trim_matches('/').split('/').map(decoded).collect::<Option<_>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let stream = |kind, namespace: &str, pod: &str, container: &str| {
            let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
            Route::Stream { kind, namespace, pod, container: container.to_owned() }
        };
        let route = match *parts.as_slice() {
            ["healthz"] => Route::Health,
            ["pods"] => Route::Pods,
            ["runningpods"] => Route::RunningPods,
            ["metrics"] => Route::Metrics,
            ["stats", "summary"] | ["stats"] => Route::Summary,
            ["metrics", "resource"] => Route::ResourceMetrics,
            ["metrics", "cadvisor"] => Route::Cadvisor,
            ["metrics", "probes"] => Route::Probes,
            ["configz"] => Route::Configz,
            ["containerLogs", namespace, pod, container] => Route::Log {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                container: container.to_owned(),
            },
            // The form with a uid is an older client's; the name decides.
            ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] => {
                stream(Stream::Exec, namespace, pod, container)
            }
            ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] => {
                stream(Stream::Attach, namespace, pod, container)
            }
            ["portForward", namespace, pod] | ["portForward", namespace, pod, _] => {
                stream(Stream::PortForward, namespace, pod, "")
            }
            ["run", namespace, pod, container] | ["run", namespace, pod, _, container] => Route::Run {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                container: container.to_owned(),
            },
            ["checkpoint", namespace, pod, container] => Route::Checkpoint {
                namespace: namespace.to_owned(),
                pod: pod.to_owned(),
                container: container.to_owned(),
            },
            ["localVolumes", directory] => Route::LocalVolume { directory: directory.to_owned() },
            _ => return None,
        };
        Some(route)
    }

    /// The subresource of `nodes` that a caller must have rights to (upstream's kubelet authorization).
    pub(super) fn subresource(&self) -> &'static str {
        match self {
            Route::Metrics | Route::ResourceMetrics | Route::Cadvisor | Route::Probes => "metrics",
            Route::Configz => "configz",
            Route::Checkpoint { .. } => "checkpoint",
            Route::Summary => "stats",
            Route::Health => "healthz",
            Route::Pods | Route::RunningPods => "pods",
            Route::Log { .. } | Route::Stream { .. } | Route::Run { .. } | Route::LocalVolume { .. } => {
                "proxy"
            }
        }
    }
}

fn decoded(part: &str) -> Option<String> {
    let text = percent(part.as_bytes());
    // An encoded slash would name another place than it seems to.
    String::from_utf8(text).ok().filter(|text| !text.contains('/') && !text.is_empty())
}

/// Decodes `%XX`; anything that is not such an escape stays as it is.
pub(super) fn percent(text: &[u8]) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while at < text.len() {
        let escape =
            (text[at] == b'%').then(|| Some((digit(*text.get(at + 1)?)?, digit(*text.get(at + 2)?)?)));
        match escape.flatten() {
            Some((high, low)) => {
                out.push(high << 4 | low);
                at += 3;
            }
            None => {
                out.push(text[at]);
                at += 1;
            }
        }
    }
    out
}

/// The parameters of a query, in order, decoded.
pub(super) fn parameters(query: Option<&str>) -> Vec<(String, String)> {
    let plain =
        |text: &str| String::from_utf8_lossy(&percent(text.replace('+', " ").as_bytes())).into_owned();
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (plain(name), plain(value))
    };
    query.unwrap_or_default().split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_are_upstreams() {
        let log = Route::Log { namespace: "a".into(), pod: "b".into(), container: "c".into() };
        assert_eq!(Route::of("/containerLogs/a/b/c"), Some(log));
        let exec = |container: &str| Route::Stream {
            kind: Stream::Exec,
            namespace: "a".into(),
            pod: "b".into(),
            container: container.into(),
        };
        assert_eq!(Route::of("/exec/a/b/c"), Some(exec("c")));
        assert_eq!(Route::of("/exec/a/b/uid/c"), Some(exec("c")));
        assert_eq!(Route::of("/exec/a/b/c%2D1"), Some(exec("c-1")));
        assert_eq!(Route::of("/healthz"), Some(Route::Health));
        let checkpoint = Route::of("/checkpoint/a/b/c").unwrap();
        assert_eq!((checkpoint.subresource(), Route::of("/checkpoint/a/b")), ("checkpoint", None));
        let volume = Route::LocalVolume { directory: "pvc-1".into() };
        assert_eq!((volume.subresource(), Route::of("/localVolumes/pvc-1")), ("proxy", Some(volume)));
        assert_eq!(Route::of("/stats/summary/"), Some(Route::Summary));
        for unknown in
            ["/", "/exec", "/exec/a/b", "/containerLogs/a/b", "/exec/a/b/c%2F..", "/exec/a//c", "/x"]
        {
            assert_eq!(Route::of(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn queries_keep_order_and_repetition() {
        let pairs = parameters(Some("command=sh&command=-c&command=echo%20%26+1&tty=1"));
        let values: Vec<_> = pairs.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["sh", "-c", "echo & 1", "1"]);
        assert!(parameters(None).is_empty());
    }

    proptest! {
        #[test]
        fn any_path_and_query_is_survived(path in ".*", query in ".*") {
            let route = Route::of(&path);
            prop_assert!(route.is_none() || path.contains(|c: char| c.is_ascii_alphabetic() || c == '%'));
            parameters(Some(&query));
        }
    }
}
