//! Environment variables that describe Services: `KUBERNETES_SERVICE_HOST` and its kin.

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// Variables for a pod in `namespace`: always for `default/kubernetes`, for its own namespace when links are wanted.
pub fn variables<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> Vec<(String, String)> {
    let mut chosen: Vec<&Service> = services.into_iter().filter(|s| wanted(s, namespace, links)).collect();
    // A namesake of the API service in the pod's own namespace wins, so it comes last.
    chosen.sort_by_key(|s| (s.metadata.namespace.as_deref() == Some(namespace), s.metadata.name.clone()));
    chosen.into_iter().flat_map(of_service).collect()
}

fn wanted(service: &Service, namespace: &str, links: bool) -> bool {
    let own = service.metadata.namespace.as_deref() == Some(namespace);
    let api = service.metadata.namespace.as_deref() == Some("default")
        && service.metadata.name.as_deref() == Some("kubernetes");
    let ip = service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()).unwrap_or_default();
    let has_ports = service.spec.as_ref().is_some_and(|s| s.ports.iter().flatten().next().is_some());
    !ip.is_empty() && ip != "None" && has_ports && (api || (own && links))
}

fn of_service(service: &Service) -> Vec<(String, String)> {
    let name = upper(service.metadata.name.as_deref().unwrap_or_default());
    let Some(spec) = &service.spec else { return Vec::new() };
    let ip = spec.cluster_ip.clone().unwrap_or_default();
    let ports: Vec<&ServicePort> = spec.ports.iter().flatten().collect();
    let Some(first) = ports.first() else { return Vec::new() };
    let mut out = vec![
        (format!("{name}_SERVICE_HOST"), ip.clone()),
        (format!("{name}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in &ports {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            out.push((format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string()));
        }
    }
    out.push((format!("{name}_PORT"), url(&ip, first)));
    for port in ports {
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol(port));
        out.push((prefix.clone(), url(&ip, port)));
        out.push((format!("{prefix}_PROTO"), protocol(port).to_lowercase()));
        out.push((format!("{prefix}_PORT"), port.port.to_string()));
        out.push((format!("{prefix}_ADDR"), ip.clone()));
    }
    out
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn url(ip: &str, port: &ServicePort) -> String {
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    format!("{}://{host}:{}", protocol(port).to_lowercase(), port.port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(namespace: &str, name: &str, ip: &str) -> Service {
        serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": ip, "ports": [{"name": "http-x", "port": 80}, {"port": 53, "protocol": "UDP"}]},
        }))
        .unwrap()
    }

    #[test]
    fn one_service_makes_host_port_and_link_variables() {
        let all = [service("default", "my-web", "10.43.0.9")];
        let got = variables(&all, "default", true);
        let text: Vec<String> = got.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            text,
            [
                "MY_WEB_SERVICE_HOST=10.43.0.9",
                "MY_WEB_SERVICE_PORT=80",
                "MY_WEB_SERVICE_PORT_HTTP_X=80",
                "MY_WEB_PORT=tcp://10.43.0.9:80",
                "MY_WEB_PORT_80_TCP=tcp://10.43.0.9:80",
                "MY_WEB_PORT_80_TCP_PROTO=tcp",
                "MY_WEB_PORT_80_TCP_PORT=80",
                "MY_WEB_PORT_80_TCP_ADDR=10.43.0.9",
                "MY_WEB_PORT_53_UDP=udp://10.43.0.9:53",
                "MY_WEB_PORT_53_UDP_PROTO=udp",
                "MY_WEB_PORT_53_UDP_PORT=53",
                "MY_WEB_PORT_53_UDP_ADDR=10.43.0.9",
            ]
        );
    }

    #[test]
    fn only_the_api_service_without_links_and_nothing_headless() {
        let all = [
            service("default", "kubernetes", "10.43.0.1"),
            service("x", "own", "10.43.0.2"),
            service("x", "headless", "None"),
            service("y", "other", "10.43.0.3"),
        ];
        let hosts = |links| {
            let all = variables(&all, "x", links);
            all.into_iter().map(|(k, _)| k).filter(|k| k.ends_with("_HOST")).collect::<Vec<_>>()
        };
        assert_eq!(hosts(false), ["KUBERNETES_SERVICE_HOST"]);
        assert_eq!(hosts(true), ["KUBERNETES_SERVICE_HOST", "OWN_SERVICE_HOST"]);
    }
}
