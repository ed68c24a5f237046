//! The cluster's certificate directory: made once, kept, repaired, renewed, or clearly refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::Duration;

use super::*;

fn sans() -> Vec<String> {
    vec!["node1".into(), "192.0.2.1".into(), "10.43.0.1".into()]
}

fn load(dir: &Path) -> Result<ClusterPki, PkiError> {
    ClusterPki::load_or_create(dir, &sans())
}

fn with_leaf<T>(pem: &str, read: impl FnOnce(&x509_parser::certificate::X509Certificate<'_>) -> T) -> T {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let (_, cert) = x509_parser::parse_x509_certificate(&der).unwrap();
    read(&cert)
}

#[test]
fn new_directory_is_complete_and_private() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("server/tls");
    load(&dir).unwrap();
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let mut names: Vec<_> =
        fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    for expected in
        ["server-ca.crt", "client-ca.key", "request-header-ca.crt", "service.key", "client-admin.crt"]
    {
        assert!(names.iter().any(|n| n == expected), "{expected} in {names:?}");
    }
    for name in names {
        assert_eq!(fs::metadata(dir.join(&name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn second_start_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (load(dir.path()).unwrap(), load(dir.path()).unwrap());
    assert_eq!(first.server_ca().cert_pem(), second.server_ca().cert_pem());
    assert_eq!(first.apiserver_serving(), second.apiserver_serving());
    assert_eq!(first.admin(), second.admin());
}

#[test]
fn serving_certificate_follows_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let first = load(dir.path()).unwrap();
    let mut more = sans();
    more.push("api.example.org".into());
    let second = ClusterPki::load_or_create(dir.path(), &more).unwrap();
    assert_ne!(first.apiserver_serving(), second.apiserver_serving());
    assert_eq!(first.admin(), second.admin(), "others stay");
    with_leaf(&second.apiserver_serving().cert_pem, |cert| {
        let names = format!("{:?}", cert.subject_alternative_name().unwrap().unwrap().value.general_names);
        assert!(names.contains("api.example.org") && names.contains("kubernetes.default.svc"), "{names}");
    });
}

#[test]
fn leaves_are_renewed_well_before_they_expire() {
    let dir = tempfile::tempdir().unwrap();
    let now = OffsetDateTime::now_utc();
    let first = load(dir.path()).unwrap();
    let at = |days| ClusterPki::load_or_create_at(dir.path(), &sans(), now + Duration::days(days)).unwrap();
    assert_eq!(first.admin(), at(244).admin());
    let renewed = at(246);
    assert_ne!(first.admin(), renewed.admin());
    assert_eq!(first.client_ca().cert_pem(), renewed.client_ca().cert_pem());
}

#[test]
fn certificates_allow_for_clocks_that_are_behind() {
    let dir = tempfile::tempdir().unwrap();
    let pki = load(dir.path()).unwrap();
    let skewed = OffsetDateTime::now_utc() - Duration::minutes(50);
    for pem in [pki.server_ca().cert_pem(), &pki.admin().cert_pem] {
        with_leaf(pem, |cert| assert!(cert.validity().not_before.to_datetime() <= skewed));
    }
}

#[test]
fn client_certificate_names_user_and_groups() {
    let dir = tempfile::tempdir().unwrap();
    let pki = load(dir.path()).unwrap();
    let identity = pki.issue_client("jane", &["devs", "ops"]).unwrap();
    with_leaf(&identity.cert_pem, |cert| {
        let orgs: Vec<_> = cert.subject().iter_organization().map(|a| a.as_str().unwrap()).collect();
        assert_eq!(orgs, ["devs", "ops"]);
        assert_eq!(cert.subject().iter_common_name().next().unwrap().as_str().unwrap(), "jane");
        assert!(pki.client_ca().signed(cert) && !pki.server_ca().signed(cert));
    });
    assert!(matches!(pki.issue_client("x", &["a", "b", "c"]), Err(PkiError::TooManyOrganizations { .. })));
}

#[test]
fn signing_request_cannot_choose_its_identity() {
    let dir = tempfile::tempdir().unwrap();
    let pki = load(dir.path()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "system:admin");
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let cert = pki.sign_csr(&csr, &LeafSpec::client("system:node:n1", &["system:nodes"])).unwrap();
    with_leaf(&cert, |cert| {
        let text = cert.subject().to_string();
        assert!(
            text.contains("system:node:n1") && text.contains("system:nodes") && !text.contains("masters"),
            "{text}"
        );
        assert!(cert.subject_alternative_name().unwrap().is_none());
    });
    for bad in ["", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"] {
        assert!(matches!(pki.sign_csr(bad, &LeafSpec::client("x", &[])), Err(PkiError::Csr(_))));
    }
}

#[test]
fn unusable_names_are_refused_before_anything_is_signed() {
    for name in ["", "a b", "a..b", "https://x", &"a".repeat(64)] {
        assert!(
            matches!(LeafSpec::server("x", [name.to_owned()]), Err(PkiError::BadName { .. })),
            "{name:?}"
        );
    }
    LeafSpec::server("x", ["*.example.org".to_owned(), "[::1]".to_owned(), "fe80::1".to_owned()]).unwrap();
}

#[test]
fn crash_between_key_and_certificate_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let first = load(dir.path()).unwrap();
    fs::remove_file(dir.path().join("client-ca.crt")).unwrap();
    fs::remove_file(dir.path().join("client-admin.crt")).unwrap();
    fs::write(dir.path().join("serving-kube-apiserver.key.kube-lite-tmp"), "half").unwrap();
    let second = load(dir.path()).unwrap();
    with_leaf(&second.admin().cert_pem, |cert| assert!(second.client_ca().signed(cert)));
    assert_eq!(first.server_ca().cert_pem(), second.server_ca().cert_pem());
    assert!(!dir.path().join("serving-kube-apiserver.key.kube-lite-tmp").exists());
}

#[test]
fn damaged_leaf_is_issued_anew() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path()).unwrap();
    fs::write(dir.path().join("client-admin.crt"), "garbage").unwrap();
    fs::copy(dir.path().join("client-scheduler.key"), dir.path().join("client-controller.key")).unwrap();
    let pki = load(dir.path()).unwrap();
    with_leaf(&pki.admin().cert_pem, |cert| assert!(pki.client_ca().signed(cert)));
    pki.controller().to_rustls().unwrap();
}

#[test]
fn authority_is_never_replaced_silently() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage, &str); 4] = [
        ("lost key", |d| fs::remove_file(d.join("server-ca.key")).unwrap(), "exists but"),
        ("garbage certificate", |d| fs::write(d.join("server-ca.crt"), "x").unwrap(), "does not hold"),
        ("garbage key", |d| fs::write(d.join("server-ca.key"), "x").unwrap(), "does not hold"),
        (
            "key of another",
            |d| {
                fs::copy(d.join("client-ca.key"), d.join("server-ca.key")).unwrap();
            },
            "do not belong together",
        ),
    ];
    for (what, damage, message) in cases {
        let dir = tempfile::tempdir().unwrap();
        load(dir.path()).unwrap();
        damage(dir.path());
        let error = load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(message), "{what}: {error}");
    }
}

#[test]
fn expired_authority_is_reported_with_the_dates() {
    let dir = tempfile::tempdir().unwrap();
    load(dir.path()).unwrap();
    let late = OffsetDateTime::now_utc() + Duration::days(4000);
    let error = ClusterPki::load_or_create_at(dir.path(), &sans(), late).unwrap_err();
    assert!(matches!(error, PkiError::OutsideValidity { .. }), "{error}");
}
