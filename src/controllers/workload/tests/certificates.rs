//! Certificates, tokens, addresses of load balancers and annotations of nodes against a real API server.

use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use super::cluster::Cluster;

fn request(name: &str, organization: &str, signer: &str) -> CertificateSigningRequest {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, organization);
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    let mut csr: CertificateSigningRequest =
        serde_json::from_value(json!({"metadata": {"name": "r"}, "spec": {
        "request": "", "signerName": signer, "expirationSeconds": 3600,
        "usages": ["digital signature", "client auth"]}}))
        .unwrap();
    csr.spec.request = ByteString(pem.into_bytes());
    csr
}

/// The common name in the certificate of the request `r`, once it is issued.
async fn issued(cluster: &Cluster) -> String {
    let is_issued = |csr: &CertificateSigningRequest| {
        csr.status.as_ref().is_some_and(|status| status.certificate.is_some())
    };
    cluster
        .eventually_anywhere::<CertificateSigningRequest>("a certificate", |all| {
            all.first().is_some_and(|csr| is_issued(csr))
        })
        .await;
    let api: Api<CertificateSigningRequest> = Api::all(cluster.admin());
    let certificate = api.get("r").await.unwrap().status.unwrap().certificate.unwrap();
    let pem = x509_parser::pem::Pem::iter_from_buffer(&certificate.0).next().unwrap().unwrap();
    let parsed = pem.parse_x509().unwrap();
    parsed.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn should_sign_a_client_certificate_once_its_request_is_approved() {
    let cluster = Cluster::start(0).await;
    let api: Api<CertificateSigningRequest> = Api::all(cluster.admin());
    let request = request("e2e-user", "e2e-group", "kubernetes.io/kube-apiserver-client");
    let mut made = api.create(&PostParams::default(), &request).await.unwrap();
    made.status.get_or_insert_default().conditions = serde_json::from_value(json!([
        {"type": "Approved", "status": "True", "reason": "E2E", "message": "Set from an e2e test"}]))
    .unwrap();
    api.replace_subresource("approval", "r", &PostParams::default(), &made).await.unwrap();
    assert_eq!(issued(&cluster).await, "e2e-user");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_kubelets_with_the_right_to_them_are_approved_and_signed() {
    let cluster = Cluster::start(0).await;
    let bindings: Api<ClusterRoleBinding> = Api::all(cluster.admin());
    let binding = json!({"metadata": {"name": "nodes"}, "subjects": [
            {"kind": "Group", "name": "system:nodes", "apiGroup": "rbac.authorization.k8s.io"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                    "name": "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient"}});
    let binding = serde_json::from_value(binding).unwrap();
    bindings.create(&PostParams::default(), &binding).await.unwrap();
    let kubelet: Client = cluster.client_as("system:node:a", &["system:nodes"]);
    let request = request("system:node:a", "system:nodes", "kubernetes.io/kube-apiserver-client-kubelet");
    let api: Api<CertificateSigningRequest> = Api::all(kubelet);
    api.create(&PostParams::default(), &request).await.unwrap();
    assert_eq!(issued(&cluster).await, "system:node:a");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_for_tokens_are_filled_and_go_with_their_account() {
    let cluster = Cluster::start(0).await;
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "a"}})).unwrap();
    cluster.api::<ServiceAccount>().create(&PostParams::default(), &account).await.unwrap();
    let secret: Secret = serde_json::from_value(json!({"type": "kubernetes.io/service-account-token",
        "metadata": {"name": "s", "annotations": {"kubernetes.io/service-account.name": "a"}}}))
    .unwrap();
    cluster.api::<Secret>().create(&PostParams::default(), &secret).await.unwrap();
    let token = |all: &[std::sync::Arc<Secret>]| all.first()?.data.as_ref()?.get("token").cloned();
    cluster.eventually::<Secret>("a token", |all| token(all).is_some()).await;
    let token = String::from_utf8(token(&cluster.list::<Secret>()).unwrap().0).unwrap();
    assert_eq!(token.split('.').count(), 3, "{token}");
    // Its use is noted, and since when uses are.
    let review: TokenReview = serde_json::from_value(json!({"spec": {"token": token}})).unwrap();
    let reviews: Api<TokenReview> = Api::all(cluster.admin());
    let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
    assert_eq!(answer.status.unwrap().authenticated, Some(true));
    let today = k8s_openapi::jiff::Timestamp::now().to_string()[..10].to_owned();
    let label = |all: &[std::sync::Arc<Secret>]| {
        all.first()?.metadata.labels.as_ref()?.get("kubernetes.io/legacy-token-last-used").cloned()
    };
    cluster.eventually::<Secret>("the day of use", |all| label(all).is_some_and(|day| day >= today)).await;
    cluster
        .eventually_anywhere::<ConfigMap>("the day since when uses are noted", |all| {
            let tracking = all.iter().find(|map| {
                map.metadata.name.as_deref() == Some("kube-apiserver-legacy-service-account-token-tracking")
            });
            tracking.and_then(|map| map.data.as_ref()?.get("since")).is_some_and(|day| *day >= today)
        })
        .await;
    let mark =
        Patch::Merge(json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": today}}}));
    cluster.api::<Secret>().patch("s", &PatchParams::default(), &mark).await.unwrap();
    let is_marked =
        |all: &[std::sync::Arc<Secret>]| all[0].metadata.labels.as_ref().is_some_and(|l| l.len() == 2);
    cluster.eventually::<Secret>("the mark", is_marked).await;
    let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
    assert_eq!(answer.status.unwrap().authenticated, None, "a marked token is refused");
    cluster.api::<ServiceAccount>().delete("a", &DeleteParams::default()).await.unwrap();
    cluster.eventually::<Secret>("no secret", <[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_balancers_have_the_addresses_of_nodes_and_nodes_say_how_long_secrets_keep() {
    let cluster = Cluster::start(1).await;
    let nodes: Api<Node> = Api::all(cluster.admin());
    let merge = |patch: Value| Patch::Merge(patch);
    let address = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.77"}]}});
    nodes.patch_status("n0", &PatchParams::default(), &merge(address)).await.unwrap();
    let service: Service = serde_json::from_value(json!({"metadata": {"name": "lb"}, "spec": {
        "type": "LoadBalancer", "selector": {"app": "x"}, "ports": [{"port": 80}]}}))
    .unwrap();
    cluster.api::<Service>().create(&PostParams::default(), &service).await.unwrap();
    let addresses = |all: &[std::sync::Arc<Service>]| -> Vec<String> {
        let service = all.iter().find(|service| service.metadata.name.as_deref() == Some("lb"));
        let status = service.and_then(|service| service.status.clone()).unwrap_or_default();
        let ingress = status.load_balancer.and_then(|balancer| balancer.ingress).unwrap_or_default();
        ingress.into_iter().filter_map(|one| one.ip).collect()
    };
    cluster.eventually::<Service>("an address", |all| addresses(all) == ["127.0.0.77"]).await;
    let plain = json!({"spec": {"type": "ClusterIP"}});
    cluster.api::<Service>().patch("lb", &PatchParams::default(), &merge(plain)).await.unwrap();
    cluster.eventually::<Service>("no address", |all| addresses(all).is_empty()).await;
    cluster
        .eventually_anywhere::<Node>("the annotation", |all| {
            let node = all.first().map(|node| node.metadata.clone()).unwrap_or_default();
            let annotations = node.annotations.unwrap_or_default();
            annotations.get("node.alpha.kubernetes.io/ttl").is_some_and(|seconds| seconds == "0")
        })
        .await;
}
