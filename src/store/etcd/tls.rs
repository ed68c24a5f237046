//! TLS towards etcd: which authorities are trusted and which certificate is shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::EtcdOptions;
use crate::store::StoreError;

/// Where Debian, Alpine and others keep the authorities that the host trusts, and where Fedora does.
const HOST_AUTHORITIES: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Setting(String);

pub(super) fn setting(text: String) -> StoreError {
    StoreError::Unavailable { source: Arc::new(Setting(text)) }
}

/// What TLS connections are made with; none when no endpoint asks for TLS.
pub(super) fn connector(options: &EtcdOptions) -> Result<Option<TlsConnector>, StoreError> {
    if !options.endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
        return Ok(None);
    }
    let authorities = authorities(options.ca_file.as_deref())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| setting(error.to_string()))?
        .with_root_certificates(authorities);
    let mut config = match (&options.cert_file, &options.key_file) {
        (Some(cert), Some(key)) => builder
            .with_client_auth_cert(certificates(cert)?, private_key(key)?)
            .map_err(|error| setting(format!("{} and {}: {error}", cert.display(), key.display())))?,
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

fn authorities(file: Option<&Path>) -> Result<RootCertStore, StoreError> {
    let host = || HOST_AUTHORITIES.iter().map(PathBuf::from).find(|path| path.exists());
    let file = file.map(Path::to_owned).or_else(host).ok_or_else(|| {
        setting("this host has no certificate authorities: give --datastore-cafile".to_owned())
    })?;
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(certificates(&file)?);
    if added == 0 {
        return Err(setting(format!("{} holds no certificate", file.display())));
    }
    Ok(store)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|error| setting(format!("{}: {error}", file.display())))
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, StoreError> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| setting(format!("{}: {error}", file.display())))
}
