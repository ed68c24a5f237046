//! Removing the directory of a volume on this node's disk, for the controller that deletes the volume.
//!
//! Only directories that the provisioner of local volumes names can be removed, and only from the place where it puts
//! them; who may ask is decided as for every other request.

use std::io;
use std::path::Path;

use axum::body::Body;
use http::{Method, Response, StatusCode};
use tracing::info;

use super::{refusal, text};

/// Where local volumes lie on every node.
const ROOT: &str = "/var/lib/kube-lite/storage";
/// How the provisioner's directories begin.
const PREFIX: &str = "pvc-";

/// Answers a request for the directory.
pub(super) async fn answer(method: &Method, directory: &str) -> Response<Body> {
    if *method != Method::DELETE {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "local volumes can only be deleted");
    }
    if !is_volume(directory) {
        return refusal(StatusCode::BAD_REQUEST, "this is not the directory of a local volume");
    }
    let path = Path::new(ROOT).join(directory);
    let removed = tokio::task::spawn_blocking(move || remove(&path)).await;
    match removed {
        Ok(Ok(())) => {
            info!(directory, "local volume removed");
            text("removed")
        }
        Ok(Err(error)) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        Err(ended) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &ended.to_string()),
    }
}

fn is_volume(directory: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    directory.starts_with(PREFIX) && directory.bytes().all(plain)
}

/// Removes a directory with all that is in it; one that is not there is fine. Links are removed, not followed.
fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_of_volumes_can_be_named() {
        for (directory, expected) in [
            ("pvc-1_default_data", true),
            ("pvc-1_default_data-web.0", true),
            ("etc", false),
            ("..", false),
            ("pvc-/../..", false),
            ("", false),
        ] {
            assert_eq!(is_volume(directory), expected, "{directory}");
        }
    }

    #[test]
    fn a_directory_goes_with_its_content_and_links_lead_nowhere() {
        let place = tempfile::tempdir().unwrap();
        let (volume, other) = (place.path().join("pvc-1"), place.path().join("other"));
        std::fs::create_dir_all(volume.join("deep")).unwrap();
        std::fs::create_dir(&other).unwrap();
        std::fs::write(other.join("kept"), "").unwrap();
        std::os::unix::fs::symlink(&other, volume.join("link")).unwrap();
        remove(&volume).unwrap();
        assert!(!volume.exists() && other.join("kept").exists());
        remove(&volume).unwrap();
    }

    #[tokio::test]
    async fn nothing_but_deletion_is_offered() {
        assert_eq!(answer(&Method::GET, "pvc-1").await.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer(&Method::DELETE, "etc").await.status(), StatusCode::BAD_REQUEST);
    }
}
