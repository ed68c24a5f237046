//! Tables of what is approved, signed and deleted, with requests made on the spot.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rcgen::{CertificateParams, DnType, KeyPair};
use serde_json::{Value, json};

use super::approve::grounds;
use super::request::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, Requested};
use super::sign::{Answer, answer, lifetime};
use super::{Order, Refusal, Signer, clean};
use crate::controllers::workload::pods::tests::at;

/// A PEM request with this subject and these names.
fn pem(common_name: &str, organization: Option<&str>, names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, common_name);
    organization.inspect(|name| params.distinguished_name.push(DnType::OrganizationName, *name));
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn csr(pem: &str, patch: Value) -> CertificateSigningRequest {
    let mut body = json!({"metadata": {"name": "r", "creationTimestamp": Time(at(0))},
        "spec": {"request": "", "signerName": KUBELET_CLIENT, "username": "system:node:a",
                 "usages": ["digital signature", "client auth"]}});
    json_patch::merge(&mut body, &patch);
    let mut csr: CertificateSigningRequest = serde_json::from_value(body).unwrap();
    csr.spec.request = ByteString(pem.as_bytes().to_vec());
    csr
}

#[derive(Debug)]
struct Echo;

impl Signer for Echo {
    fn sign(&self, order: &Order<'_>) -> Result<String, Refusal> {
        if order.signer == LEGACY {
            return Err(Refusal("no".to_owned()));
        }
        Ok(format!("{} {:?} {}s", order.signer, order.organizations, order.lifetime.as_secs()))
    }
}

#[test]
fn requests_are_read() {
    let read = Requested::parse(pem("me", Some("us"), &["a.example", "10.0.0.1"]).as_bytes()).unwrap();
    assert_eq!((read.common_name.as_str(), read.organizations), ("me", vec!["us".to_owned()]));
    assert_eq!((read.dns, read.ips, read.emails, read.uris), (1, 1, 0, 0));
    assert_eq!(Requested::parse(b"nonsense"), None);
}

#[test]
fn only_client_requests_of_kubelets_are_approved() {
    let kubelet = pem("system:node:a", Some("system:nodes"), &[]);
    let approved = json!({"status": {"conditions": [{"type": "Approved", "status": "True"}]}});
    for (why, pem, patch, expected) in [
        ("its own", kubelet.clone(), json!({}), vec!["selfnodeclient", "nodeclient"]),
        ("another's", kubelet.clone(), json!({"spec": {"username": "bootstrap"}}), vec!["nodeclient"]),
        ("no node", pem("eve", Some("system:nodes"), &[]), json!({}), vec![]),
        ("another group", pem("system:node:a", Some("system:masters"), &[]), json!({}), vec![]),
        ("names", pem("system:node:a", Some("system:nodes"), &["a.example"]), json!({}), vec![]),
        ("usage", kubelet.clone(), json!({"spec": {"usages": ["digital signature", "server auth"]}}), vec![]),
        ("another signer", kubelet.clone(), json!({"spec": {"signerName": CLIENT}}), vec![]),
        ("approved already", kubelet, approved, vec![]),
    ] {
        let found: Vec<_> = grounds(&csr(&pem, patch)).iter().map(|ground| ground.subresource).collect();
        assert_eq!(found, expected, "{why}");
    }
}

#[test]
fn each_signer_signs_what_it_grants() {
    let signed = |pem: &str, signer: &str, usages: Value, conditions: Value| {
        let patch = json!({"spec": {"signerName": signer, "usages": usages, "expirationSeconds": 3600},
                           "status": {"conditions": conditions}});
        answer(&csr(pem, patch), &Echo)
    };
    let approved = || json!([{"type": "Approved", "status": "True"}]);
    let failed = |message: &str| Answer::Failed("SignerValidationFailure", message.to_owned());
    let client = || json!(["client auth", "digital signature"]);
    let user = pem("eve", Some("devs"), &[]);
    let text =
        |signer: &str, organization: &str| Answer::Certificate(format!("{signer} [{organization:?}] 3600s"));
    assert_eq!(signed(&user, CLIENT, client(), approved()), text(CLIENT, "devs"));
    assert_eq!(signed(&user, CLIENT, client(), json!([])), Answer::None, "not approved");
    assert_eq!(signed(&user, "example.com/own", client(), approved()), Answer::None);
    assert_eq!(
        signed(&user, CLIENT, json!(["server auth"]), approved()),
        failed("invalid usage for client certificate: server auth")
    );
    assert_eq!(
        signed(&user, KUBELET_CLIENT, client(), approved()),
        failed("subject organization is not system:nodes")
    );
    let node = pem("system:node:a", Some("system:nodes"), &["10.0.0.1"]);
    assert_eq!(
        signed(&node, KUBELET_CLIENT, client(), approved()),
        failed("IP subjectAltNames are not allowed")
    );
    let serving = || json!(["digital signature", "key encipherment", "server auth"]);
    assert_eq!(signed(&node, KUBELET_SERVING, serving(), approved()), text(KUBELET_SERVING, "system:nodes"));
    assert_eq!(
        signed(&node, KUBELET_SERVING, client(), approved()),
        failed("usages did not match [digital signature key encipherment server auth]")
    );
    let bare = pem("system:node:a", Some("system:nodes"), &[]);
    assert_eq!(
        signed(&bare, KUBELET_SERVING, serving(), approved()),
        failed("DNS or IP subjectAltName is required")
    );
    assert_eq!(
        signed(&user, LEGACY, json!(["any"]), approved()),
        Answer::Failed("SigningError", "no".into())
    );
}

#[test]
fn lifetimes_have_bounds() {
    for (asked, seconds) in
        [(None, 31_536_000), (Some(3600), 3600), (Some(1), 600), (Some(i32::MAX), 31_536_000)]
    {
        assert_eq!(lifetime(asked).as_secs(), seconds, "{asked:?}");
    }
}

#[test]
fn requests_go_an_hour_after_their_answer_or_a_day_without_one() {
    let condition = |type_: &str| json!([{"type": type_, "status": "True", "lastUpdateTime": Time(at(100))}]);
    let ends = |status: Value| clean::expires_at(&csr("", json!({"status": status})));
    assert_eq!(ends(json!({})), Some(at(24 * 3600)));
    assert_eq!(ends(json!({"conditions": condition("Approved")})), None, "it waits for its signer");
    let issued = json!({"conditions": condition("Approved"), "certificate": "eA=="});
    assert_eq!(ends(issued), Some(at(3700)));
    for type_ in ["Denied", "Failed"] {
        assert_eq!(ends(json!({"conditions": condition(type_)})), Some(at(3700)), "{type_}");
    }
}
