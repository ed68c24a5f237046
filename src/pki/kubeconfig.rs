//! Kubeconfig files for the cluster's own identities.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::authority::Identity;
use super::files::{self, FileError};

/// Name of the cluster, user and context in every file written here, as k3s names them.
const NAME: &str = "default";

/// Text of a kubeconfig with embedded certificates.
pub fn render(server_url: &str, ca_pem: &str, identity: &Identity) -> String {
    let (ca, cert, key) =
        (STANDARD.encode(ca_pem), STANDARD.encode(&identity.cert_pem), STANDARD.encode(&identity.key_pem));
    format!(
        "apiVersion: v1\n\
         kind: Config\n\
         clusters:\n\
         - name: {NAME}\n\
         \x20 cluster:\n\
         \x20   server: {server_url}\n\
         \x20   certificate-authority-data: {ca}\n\
         contexts:\n\
         - name: {NAME}\n\
         \x20 context:\n\
         \x20   cluster: {NAME}\n\
         \x20   user: {NAME}\n\
         current-context: {NAME}\n\
         preferences: {{}}\n\
         users:\n\
         - name: {NAME}\n\
         \x20 user:\n\
         \x20   client-certificate-data: {cert}\n\
         \x20   client-key-data: {key}\n"
    )
}

/// Writes a kubeconfig; `mode` is 0600 unless the operator asked for another.
///
/// An unchanged file with the right mode is left alone, so that a restart does not disturb watchers of the file.
pub fn write(
    path: &Path,
    mode: u32,
    server_url: &str,
    ca_pem: &str,
    identity: &Identity,
) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt;
    let text = render(server_url, ca_pem, identity);
    let unchanged = std::fs::read(path).is_ok_and(|present| present == text.as_bytes())
        && std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o7777 == mode);
    if unchanged {
        return Ok(());
    }
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(|source| FileError {
            operation: "create directory",
            path: dir.to_owned(),
            source,
        })?;
    }
    files::write_atomic(path, text.as_bytes(), mode)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn written_kubeconfig_is_private_and_readable_by_clients() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etc/kube-lite.yaml");
        let identity = Identity { cert_pem: "cert\n".into(), key_pem: "key\n".into() };
        write(&path, 0o600, "https://127.0.0.1:6443", "ca\n", &identity).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let config = kube::config::Kubeconfig::read_from(&path).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("default"));
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:6443"));
        assert_eq!(cluster.certificate_authority_data.as_deref(), Some(STANDARD.encode("ca\n").as_str()));
    }

    #[test]
    fn unchanged_kubeconfig_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kube-lite.yaml");
        let identity = Identity { cert_pem: "cert\n".into(), key_pem: "key\n".into() };
        write(&path, 0o640, "https://a:1", "ca\n", &identity).unwrap();
        let before = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
        write(&path, 0o640, "https://a:1", "ca\n", &identity).unwrap();
        assert_eq!(before, std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap()));
        write(&path, 0o600, "https://a:1", "ca\n", &identity).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
