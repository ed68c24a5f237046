//! `proxy` of nodes, pods and services: the request goes on to the kubelet, or to a port of a pod.

mod links;

use std::io::Read as _;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::kubelet::{KubeletAddress, send_to_pod};
use super::{ApiServer, Call, Target, host, tunnel, upgrade};
use crate::api::error::ApiError;
use crate::api::json;
use links::Place;

/// A page that is larger than this is passed on as it is.
const LARGEST_PAGE: usize = 16 << 20;

/// `[scheme:]name[:port]`, as the object is named in the path of a proxy request.
#[derive(Debug, PartialEq, Eq)]
struct ProxyName<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

fn parse_name(text: &str) -> Option<ProxyName<'_>> {
    let parts: Vec<&str> = text.split(':').collect();
    let (scheme, name, port) = match parts.as_slice() {
        [name] => ("", *name, ""),
        [name, port] => ("", *name, *port),
        [scheme, name, port] => (*scheme, *name, *port),
        _ => return None,
    };
    (matches!(scheme, "" | "http" | "https") && !name.is_empty()).then_some(ProxyName { scheme, name, port })
}

impl ApiServer {
    pub(super) async fn node_proxy(
        self: &Arc<Self>,
        call: Call,
        target: &Target,
    ) -> Result<Response<Body>, ApiError> {
        let name = parse_name(&target.name).ok_or_else(|| bad_name("node", &target.name))?;
        let address = self.kubelet_of(name.name).await?;
        if !name.port.is_empty() && name.port.parse() != Ok(address.port) {
            // Another port of the node would be reached with the API server's certificate: not offered.
            return Err(ApiError::bad_request(format!("port {} is not the kubelet's", name.port)));
        }
        let (request, client) = backend(call, target, &address)?;
        let response = self.kubelets.send(&address, request, &self.tunnels).await?;
        Ok(tunnel::join(client, response, &self.tunnels, self.stop.clone()))
    }

    pub(super) async fn pod_proxy(
        self: &Arc<Self>,
        call: Call,
        target: &Target,
    ) -> Result<Response<Body>, ApiError> {
        let name = parse_name(&target.name).ok_or_else(|| bad_name("pod", &target.name))?;
        let pod: Pod = self.latest("pods", &target.namespace, name.name).await?;
        let ports = pod.spec.iter().flat_map(|spec| &spec.containers).flat_map(|c| c.ports.iter().flatten());
        let port = match name.port {
            "" => ports.map(|port| port.container_port).next().unwrap_or(match name.scheme {
                "https" => 443,
                _ => 80,
            }),
            text => text.parse().map_err(|_| bad_name("pod", &target.name))?,
        };
        let ip =
            pod.status.and_then(|status| status.pod_ip).filter(|ip| !ip.is_empty()).ok_or_else(|| {
                ApiError::bad_request(format!("address not allowed: pod {} has no IP address", name.name))
            })?;
        let address = KubeletAddress {
            host: ip,
            port: u16::try_from(port).map_err(|_| bad_name("pod", &target.name))?,
        };
        self.plain_proxy(call, target, name.scheme, &address).await
    }

    pub(super) async fn service_proxy(
        self: &Arc<Self>,
        call: Call,
        target: &Target,
    ) -> Result<Response<Body>, ApiError> {
        let name = parse_name(&target.name).ok_or_else(|| bad_name("service", &target.name))?;
        let service: Service = self.latest("services", &target.namespace, name.name).await?;
        let port_name = service_port(&service, name.port).ok_or_else(|| {
            ApiError::service_unavailable(format!(
                "no service port {:?} found for service {:?}",
                name.port, name.name
            ))
        })?;
        let address = self.ready_endpoint(&target.namespace, name.name, &port_name).ok_or_else(|| {
            ApiError::service_unavailable(format!("no endpoints available for service {:?}", target.name))
        })?;
        self.plain_proxy(call, target, name.scheme, &address).await
    }

    async fn plain_proxy(
        &self,
        call: Call,
        target: &Target,
        scheme: &str,
        address: &KubeletAddress,
    ) -> Result<Response<Body>, ApiError> {
        let upgrading = upgrade::requested(&call.head.headers) && call.upgrade.is_some();
        if let Some(redirect) = redirect_to_root(&call.head, upgrading) {
            return Ok(redirect);
        }
        let place = place(&call.head, target, address);
        let (mut request, client) = backend(call, target, address)?;
        if let Ok(asked) = HeaderValue::from_str(&place.asked) {
            // Pods are told the name that the client used, as upstream does.
            request.headers_mut().insert(HOST, asked);
        }
        if let Ok(uri) = HeaderValue::from_str(&format!("{}{}", place.prefix, request.uri().path())) {
            request.headers_mut().insert("x-forwarded-uri", uri);
        }
        let response = send_to_pod(address, scheme == "https", request, &self.tunnels).await?;
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let response = tunnel::join(client, response, &self.tunnels, self.stop.clone());
        if switched { Ok(response) } else { through_proxy(response, &place).await }
    }

    /// Where a port of a service is reached: one of its ready endpoints.
    pub(in crate::apiserver) fn service_address(
        &self,
        namespace: &str,
        name: &str,
        port: u16,
    ) -> Result<(String, u16), String> {
        let row = self.registry.catalog().of::<Service>().ok_or("services are not served")?;
        let cached = self.registry.cached(row).and_then(|cache| cache.get(namespace, name));
        let object = cached.ok_or_else(|| format!("service {name:?} not found"))?;
        let service: Service = json::typed(object.json()).map_err(|error| error.to_string())?;
        let spec = service.spec.as_ref();
        if let Some(external) = spec.filter(|spec| spec.type_.as_deref() == Some("ExternalName")) {
            return Ok((external.external_name.clone().unwrap_or_default(), port));
        }
        let port_name = service_port(&service, &port.to_string())
            .ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
        let endpoint = self
            .ready_endpoint(namespace, name, &port_name)
            .ok_or_else(|| format!("no endpoints available for service {name:?}"))?;
        Ok((endpoint.host, endpoint.port))
    }

    /// One of the ready endpoints of a service's port, chosen at random.
    fn ready_endpoint(&self, namespace: &str, service: &str, port_name: &str) -> Option<KubeletAddress> {
        let row = self.registry.catalog().of::<EndpointSlice>()?;
        let slices = self.registry.cached(row)?.current();
        let mut ready = Vec::new();
        let own = slices
            .iter(Some(namespace), None)
            .filter(|object| object.label("kubernetes.io/service-name") == Some(service));
        for slice in own.filter_map(|object| json::typed::<EndpointSlice>(object.json()).ok()) {
            let port =
                slice.ports.iter().flatten().find(|p| p.name.as_deref().unwrap_or_default() == port_name);
            let Some(port) = port.and_then(|p| u16::try_from(p.port?).ok()) else { continue };
            let endpoints = slice.endpoints.into_iter().flatten();
            let serving = endpoints.filter(|e| e.conditions.as_ref().is_none_or(|c| c.ready != Some(false)));
            ready.extend(serving.flat_map(|e| e.addresses).map(|host| KubeletAddress { host, port }));
        }
        if ready.is_empty() { None } else { Some(ready.swap_remove(rand::random_range(0..ready.len()))) }
    }
}

fn bad_name(kind: &str, name: &str) -> ApiError {
    ApiError::bad_request(format!("invalid {kind} request {name:?}"))
}

/// The name of the service port that a proxy request means: by name, by number, or the only one.
fn service_port(service: &Service, wanted: &str) -> Option<String> {
    let ports = service.spec.as_ref()?.ports.as_deref().unwrap_or_default();
    let port = match (wanted, ports) {
        ("", [only]) => only,
        ("", _) => return None,
        _ => ports.iter().find(|port| {
            port.name.as_deref() == Some(wanted)
                || port.port.to_string() == wanted
                || matches!(&port.target_port, Some(IntOrString::String(name)) if name == wanted)
        })?,
    };
    Some(port.name.clone().unwrap_or_default())
}

/// The request to a backend: method, path behind `proxy`, query, headers and body as they came, without credentials.
fn backend(
    call: Call,
    target: &Target,
    address: &KubeletAddress,
) -> Result<(Request<Body>, Option<hyper::upgrade::OnUpgrade>), ApiError> {
    let upgrading = upgrade::requested(&call.head.headers) && call.upgrade.is_some();
    let query = call.head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("/{}{query}", target.rest.as_deref().unwrap_or_default());
    let mut request = Request::builder()
        .method(call.head.method)
        .uri(path)
        .body(call.body)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    *request.headers_mut() = upgrade::forwardable(&call.head.headers, upgrading);
    request.headers_mut().insert(HOST, host(address)?);
    Ok((request, call.upgrade))
}

/// Links on the first page are relative to it, so it must be asked for with a slash at its end.
fn redirect_to_root(head: &Parts, upgrading: bool) -> Option<Response<Body>> {
    let path = head.uri.path();
    if upgrading || !path.ends_with("/proxy") || !matches!(head.method, Method::GET | Method::HEAD) {
        return None;
    }
    let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = HeaderValue::from_str(&format!("{path}/{query}")).ok()?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

fn place(head: &Parts, target: &Target, address: &KubeletAddress) -> Place {
    let path = head.uri.path();
    let rest = target.rest.as_deref().unwrap_or_default();
    let prefix = path.strip_suffix(rest).unwrap_or(path).trim_end_matches('/').to_owned();
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    let asked = host.or_else(|| head.uri.authority().map(|authority| authority.as_str()));
    let backend = address.authority();
    Place { prefix, asked: asked.unwrap_or(&backend).to_owned(), backend }
}

/// Makes redirections and the links of pages lead through the proxy.
async fn through_proxy(response: Response<Body>, place: &Place) -> Result<Response<Body>, ApiError> {
    let (mut head, body) = response.into_parts();
    if let Some(location) = head.headers.get(LOCATION).and_then(|value| value.to_str().ok()) {
        if let Ok(rewritten) = HeaderValue::from_str(&place.rewrite(location)) {
            head.headers.insert(LOCATION, rewritten);
        }
        return Ok(Response::from_parts(head, body));
    }
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if !is_page(&head.headers) || length.is_some_and(|length: usize| length > LARGEST_PAGE) {
        return Ok(Response::from_parts(head, body));
    }
    let broken = |error: &dyn std::fmt::Display| {
        ApiError::service_unavailable(format!("error trying to reach service: {error}"))
    };
    let page = Limited::new(body, LARGEST_PAGE).collect().await.map_err(|error| broken(&error))?.to_bytes();
    if page.is_empty() {
        // The answer to HEAD keeps the length that a GET would have.
        return Ok(Response::from_parts(head, Body::empty()));
    }
    let page = match head.headers.remove(CONTENT_ENCODING) {
        Some(_) => {
            let mut plain = Vec::new();
            let packed = flate2::read::GzDecoder::new(page.as_ref());
            let unpacked = packed.take(LARGEST_PAGE as u64).read_to_end(&mut plain);
            unpacked.map_err(|error| broken(&error))?;
            Bytes::from(plain)
        }
        None => page,
    };
    head.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(head, Body::from(place.page(&page))))
}

/// Whether this is HTML in a form that can be read.
fn is_page(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = text(CONTENT_TYPE).split(';').next().unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("text/html") && matches!(text(CONTENT_ENCODING), "" | "gzip")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_names_have_scheme_and_port() {
        let cases = [
            ("web", Some(("", "web", ""))),
            ("web:8080", Some(("", "web", "8080"))),
            ("https:web:443", Some(("https", "web", "443"))),
            ("http:web:", Some(("http", "web", ""))),
            ("ftp:web:21", None),
            (":80", None),
            ("a:b:c:d", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_name(text).map(|n| (n.scheme, n.name, n.port)), expected, "{text}");
        }
    }

    #[test]
    fn service_ports_are_found_by_name_and_number() {
        let service = |ports: serde_json::Value| -> Service {
            serde_json::from_value(serde_json::json!({"spec": {"ports": ports}})).unwrap()
        };
        let two =
            service(serde_json::json!([{"name": "http", "port": 80}, {"name": "metrics", "port": 9090}]));
        assert_eq!(service_port(&two, "metrics").as_deref(), Some("metrics"));
        assert_eq!(service_port(&two, "80").as_deref(), Some("http"));
        assert_eq!((service_port(&two, ""), service_port(&two, "x")), (None, None));
        assert_eq!(service_port(&service(serde_json::json!([{"port": 80}])), "").as_deref(), Some(""));
    }

    #[test]
    fn the_first_page_is_asked_for_with_a_slash() {
        let asked = |method: &str, uri: &str| {
            let head = Request::builder().method(method).uri(uri).body(()).unwrap().into_parts().0;
            redirect_to_root(&head, false).map(|r| r.headers()[LOCATION].to_str().unwrap().to_owned())
        };
        assert_eq!(asked("GET", "/p/a/proxy?x=1").as_deref(), Some("/p/a/proxy/?x=1"));
        assert_eq!(asked("HEAD", "/p/a/proxy").as_deref(), Some("/p/a/proxy/"));
        assert_eq!((asked("POST", "/p/a/proxy"), asked("GET", "/p/a/proxy/")), (None, None));
        assert_eq!(asked("GET", "/p/a/proxy/x"), None);
    }

    #[tokio::test]
    async fn pages_and_redirections_lead_through_the_proxy() {
        let place = Place { prefix: "/p/proxy".into(), backend: "b:80".into(), asked: "api".into() };
        let answer = |header: (&str, &str), body: Vec<u8>| {
            let response = Response::builder().header(header.0, header.1);
            response.header(CONTENT_LENGTH, body.len()).body(Body::from(body)).unwrap()
        };
        let page = br#"<a href="/x">t</a>"#.to_vec();
        let got = through_proxy(answer(("content-type", "text/html; charset=utf-8"), page.clone()), &place);
        let (head, body) = got.await.unwrap().into_parts();
        assert_eq!(body.collect().await.unwrap().to_bytes(), r#"<a href="/p/proxy/x">t</a>"#);
        assert!(!head.headers.contains_key(CONTENT_LENGTH));
        let got = through_proxy(answer(("content-type", "text/plain"), page.clone()), &place).await.unwrap();
        assert_eq!(got.into_body().collect().await.unwrap().to_bytes(), page);
        let got = through_proxy(answer(("location", "http://b:80/x"), Vec::new()), &place).await.unwrap();
        assert_eq!(got.headers()[LOCATION], "/p/proxy/x");
    }

    #[test]
    fn the_place_of_a_proxy_ends_before_what_is_asked_behind_it() {
        let address = KubeletAddress { host: "10.42.0.9".into(), port: 80 };
        for (path, rest, prefix) in [
            ("/n/proxy/", None, "/n/proxy"),
            ("/n/proxy/a/b", Some("a/b"), "/n/proxy"),
            ("/n/proxy", None, "/n/proxy"),
        ] {
            let head = Request::builder().uri(path).header(HOST, "api:6443").body(()).unwrap().into_parts().0;
            let target = Target { rest: rest.map(str::to_owned), ..Target::default() };
            let place = place(&head, &target, &address);
            assert_eq!((place.prefix.as_str(), place.asked.as_str()), (prefix, "api:6443"), "{path}");
        }
    }
}
