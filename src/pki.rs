//! Certificates, kubeconfigs and join tokens.
//!
//! [`ClusterPki`] owns `<data>/server/tls`: three certificate authorities (server, client, request header), the
//! service-account signing key and the server's own leaf certificates, under the file names of k3s. A directory that a
//! crash left half-written is completed when that is safe, and reported with what to do when it is not: a certificate
//! authority is never replaced silently, because nodes and kubeconfigs trust it.
//! This room knows nothing of HTTP; the join endpoints and the TLS listener are in `apiserver`.

mod authority;
pub mod files;
mod grant;
pub mod kubeconfig;
mod leaf;
mod request;
mod roots;
mod service_key;
pub mod token;
mod unverified;

use std::path::{Path, PathBuf};

use time::OffsetDateTime;

pub use authority::{Authority, CsrError, Identity, Usage};
pub use files::FileError;
pub use grant::Grant;
pub use leaf::LeafSpec;
pub use request::SigningRequest;
pub use roots::{RootsError, roots};
pub use service_key::{ServiceKey, SigningAlgorithm};
pub use unverified::unverified_client;

/// Names that every API server certificate answers to, whatever the configuration says.
const APISERVER_NAMES: [&str; 6] =
    ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1", "::1"];

/// Why the cluster's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file could not be read or written.
    #[error("certificates of the cluster")]
    File(#[from] FileError),
    /// A file is there but does not hold what its name promises.
    #[error(
        "{path} does not hold {expected}: restore it from a backup, or remove {dir} to begin with new certificate \
         authorities (every node then joins again)"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Its directory.
        dir: PathBuf,
        /// What should be in it.
        expected: &'static str,
    },
    /// A certificate authority has lost its private key.
    #[error(
        "{cert} exists but {key} does not: restore the key from a backup, or remove {dir} to begin with new \
         certificate authorities (every node then joins again)"
    )]
    MissingKey {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
        /// Their directory.
        dir: PathBuf,
    },
    /// Certificate and key of an authority belong to different pairs.
    #[error("{cert} and {key} do not belong together: restore both from one backup")]
    Mismatch {
        /// The certificate file.
        cert: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// A certificate authority is outside its validity.
    #[error(
        "{cert} is valid from {not_before} to {not_after} and now is {now}: set the clock or replace the authority"
    )]
    OutsideValidity {
        /// The certificate file.
        cert: PathBuf,
        /// Start of validity.
        not_before: OffsetDateTime,
        /// End of validity.
        not_after: OffsetDateTime,
        /// The present time.
        now: OffsetDateTime,
    },
    /// A name is neither a DNS name nor an IP address.
    #[error("{name:?} cannot be put into a certificate: use a DNS name or an IP address (see --tls-san)")]
    BadName {
        /// The name.
        name: String,
    },
    /// More organizations than a certificate can carry here.
    #[error("a client certificate of {common_name} cannot carry {count} organizations: at most two")]
    TooManyOrganizations {
        /// Subject of the certificate.
        common_name: String,
        /// How many were asked for.
        count: usize,
    },
    /// Making or signing a certificate failed.
    #[error("make certificate {subject}")]
    Issue {
        /// Subject of the certificate.
        subject: String,
        /// The cause.
        #[source]
        source: rcgen::Error,
    },
    /// A certificate signing request was refused.
    #[error("certificate signing request")]
    Csr(#[from] CsrError),
}

/// Everything under `<data>/server/tls`, loaded.
#[derive(Debug)]
pub struct ClusterPki {
    dir: PathBuf,
    server_ca: Authority,
    client_ca: Authority,
    request_header_ca: Authority,
    service_key: ServiceKey,
    apiserver_serving: Identity,
    admin: Identity,
    apiserver_kubelet_client: Identity,
    controller: Identity,
    scheduler: Identity,
    proxy_client: Identity,
}

impl ClusterPki {
    /// Loads the directory, making whatever is missing and renewing leaf certificates that are about to expire.
    ///
    /// `server_sans` are the DNS names and IP addresses, beyond the built-in ones, under which clients reach the server:
    /// the host's name and addresses, the first service address, `kubernetes.default.svc.<domain>`, every `--tls-san`.
    pub fn load_or_create(dir: &Path, server_sans: &[String]) -> Result<Self, PkiError> {
        Self::load_or_create_at(dir, server_sans, OffsetDateTime::now_utc())
    }

    /// [`Self::load_or_create`] at a given time.
    pub fn load_or_create_at(
        dir: &Path,
        server_sans: &[String],
        now: OffsetDateTime,
    ) -> Result<Self, PkiError> {
        files::make_private_dir(dir)?;
        files::remove_leftovers(dir)?;
        let server_ca = Authority::load_or_create(dir, "server-ca", now)?;
        let client_ca = Authority::load_or_create(dir, "client-ca", now)?;
        let request_header_ca = Authority::load_or_create(dir, "request-header-ca", now)?;
        let service_key = ServiceKey::load_or_create(dir)?;
        let names = APISERVER_NAMES.into_iter().map(str::to_owned).chain(server_sans.iter().cloned());
        let serving = LeafSpec::server("kube-apiserver", names)?;
        let client = |file: &str, cn: &str, orgs: &[&str]| {
            leaf::load_or_issue(dir, file, &client_ca, &LeafSpec::client(cn, orgs), now)
        };
        Ok(Self {
            apiserver_serving: leaf::load_or_issue(dir, "serving-kube-apiserver", &server_ca, &serving, now)?,
            admin: client("client-admin", "system:admin", &["system:masters"])?,
            apiserver_kubelet_client: client(
                "client-kube-apiserver",
                "system:kube-apiserver",
                &["system:masters"],
            )?,
            controller: client("client-controller", "system:kube-controller-manager", &[])?,
            scheduler: client("client-scheduler", "system:kube-scheduler", &[])?,
            proxy_client: leaf::load_or_issue(
                dir,
                "client-auth-proxy",
                &request_header_ca,
                &LeafSpec::client("system:auth-proxy", &[]),
                now,
            )?,
            dir: dir.to_owned(),
            server_ca,
            client_ca,
            request_header_ca,
            service_key,
        })
    }

    /// The directory everything lives in.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The authority behind every serving certificate: what clients and nodes trust, and what a join token pins.
    pub fn server_ca(&self) -> &Authority {
        &self.server_ca
    }

    /// The authority behind every client certificate.
    pub fn client_ca(&self) -> &Authority {
        &self.client_ca
    }

    /// The authority behind the client certificate of the aggregation layer.
    pub fn request_header_ca(&self) -> &Authority {
        &self.request_header_ca
    }

    /// The key that signs service-account tokens.
    pub fn service_key(&self) -> &ServiceKey {
        &self.service_key
    }

    /// Serving certificate of the API server.
    pub fn apiserver_serving(&self) -> &Identity {
        &self.apiserver_serving
    }

    /// Certificate of the cluster's administrator (`system:masters`), as written to the kubeconfig.
    pub fn admin(&self) -> &Identity {
        &self.admin
    }

    /// Certificate with which the API server calls kubelets.
    pub fn apiserver_kubelet_client(&self) -> &Identity {
        &self.apiserver_kubelet_client
    }

    /// Certificate of `system:kube-controller-manager`.
    pub fn controller(&self) -> &Identity {
        &self.controller
    }

    /// Certificate of `system:kube-scheduler`.
    pub fn scheduler(&self) -> &Identity {
        &self.scheduler
    }

    /// Certificate with which the aggregation layer calls extension API servers.
    pub fn proxy_client(&self) -> &Identity {
        &self.proxy_client
    }

    /// Issues a client certificate with a new key.
    pub fn issue_client(&self, common_name: &str, organizations: &[&str]) -> Result<Identity, PkiError> {
        self.client_ca.issue(&LeafSpec::client(common_name, organizations), OffsetDateTime::now_utc())
    }

    /// Issues a serving certificate with a new key.
    pub fn issue_server(&self, common_name: &str, sans: &[String]) -> Result<Identity, PkiError> {
        self.server_ca.issue(&LeafSpec::server(common_name, sans.iter().cloned())?, OffsetDateTime::now_utc())
    }

    /// Signs the key of a certificate signing request; returns the certificate's PEM.
    ///
    /// Of the request only the public key (whose possession its signature proves) is used: subject, names and usages
    /// are what `spec` says, so that a requester cannot ask for another identity than the caller has checked.
    pub fn sign_csr(&self, csr_pem: &str, spec: &LeafSpec) -> Result<String, PkiError> {
        let authority = match spec.usage() {
            Usage::Client => &self.client_ca,
            Usage::Server => &self.server_ca,
        };
        authority.sign_csr(csr_pem, spec, OffsetDateTime::now_utc())
    }
}

#[cfg(test)]
mod tests;
