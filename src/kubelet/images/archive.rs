//! Builds image archives in the OCI layout from a list of files: one layer, one image, always the same bytes.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

/// What goes into the file system of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file with these bytes.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Link(String),
}

/// One entry of the image's only layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where, from the root of the image, without a leading slash.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// What.
    pub content: Content,
}

/// An image to be written as an archive.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Image {
    /// Name, for example `hello:1`; see [`canonical_name`].
    pub name: String,
    /// Files, directories and links.
    pub entries: Vec<Entry>,
    /// The program and its fixed arguments.
    pub entrypoint: Vec<String>,
    /// Arguments that a pod may replace.
    pub command: Vec<String>,
    /// Environment, `NAME=value` each.
    pub environment: Vec<String>,
    /// `user`, `uid` or `uid:gid`; root when empty.
    pub user: String,
    /// Working directory; `/` when empty.
    pub working_directory: String,
}

impl Image {
    /// An image without files.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// With one more file; directories above it are made.
    pub fn file(mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        self.entries.push(Entry { path: path.to_owned(), mode, content: Content::File(bytes.into()) });
        self
    }

    /// With one more directory.
    pub fn directory(mut self, path: &str, mode: u32) -> Self {
        self.entries.push(Entry { path: path.to_owned(), mode, content: Content::Directory });
        self
    }

    /// With one more symbolic link.
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.entries.push(Entry {
            path: path.to_owned(),
            mode: 0o777,
            content: Content::Link(target.to_owned()),
        });
        self
    }

    /// With the program to run.
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// With default arguments.
    pub fn command(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// With one more environment variable, `NAME=value`.
    pub fn environment(mut self, variable: &str) -> Self {
        self.environment.push(variable.to_owned());
        self
    }

    /// The archive, for the processor that this program runs on.
    pub fn archive(&self) -> std::io::Result<Vec<u8>> {
        let layer = layer(&self.entries)?;
        let config = self.config(&sha256(&layer)).to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
        })
        .to_string()
        .into_bytes();
        let mut index = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
        index["annotations"] = json!({ "io.containerd.image.name": canonical_name(&self.name) });
        let index = json!({ "schemaVersion": 2, "manifests": [index] }).to_string();

        let mut archive = Builder::new(Vec::new());
        append(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        append(&mut archive, "index.json", 0o644, index.as_bytes())?;
        for blob in [&config, &manifest, &layer] {
            append(&mut archive, &format!("blobs/sha256/{}", sha256(blob)), 0o644, blob)?;
        }
        archive.into_inner()
    }

    fn config(&self, layer_digest: &str) -> Value {
        let mut config = json!({});
        let mut set = |key: &str, words: &[String]| {
            if !words.is_empty() {
                config[key] = json!(words);
            }
        };
        set("Entrypoint", &self.entrypoint);
        set("Cmd", &self.command);
        set("Env", &self.environment);
        for (key, value) in [("User", &self.user), ("WorkingDir", &self.working_directory)] {
            if !value.is_empty() {
                config[key] = json!(value);
            }
        }
        json!({
            "architecture": architecture(),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": config,
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
            "history": [{ "created": "1970-01-01T00:00:00Z", "created_by": "kube-lite" }],
        })
    }
}

/// The name by which runtimes know an image: with its registry, and with a tag unless it has a digest.
pub fn canonical_name(name: &str) -> String {
    let (path, digest) = match name.split_once('@') {
        Some((path, digest)) => (path, Some(digest)),
        None => (name, None),
    };
    let registry = path.split_once('/').map(|(first, _)| first);
    let named = registry.is_some_and(|r| r.contains(['.', ':']) || r == "localhost");
    let path = match (named, registry) {
        (true, _) => path.to_owned(),
        (false, Some(_)) => format!("docker.io/{path}"),
        (false, None) => format!("docker.io/library/{path}"),
    };
    let last = path.rsplit('/').next().unwrap_or_default();
    match digest {
        Some(digest) => format!("{path}@{digest}"),
        None if last.contains(':') => path,
        None => format!("{path}:latest"),
    }
}

/// The lower-case hexadecimal SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{}", sha256(blob)), "size": blob.len() })
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn header(mode: u32, kind: EntryType, size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn append(archive: &mut Builder<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) -> std::io::Result<()> {
    archive.append_data(&mut header(mode, EntryType::Regular, bytes.len()), path, bytes)
}

fn layer(entries: &[Entry]) -> std::io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    let mut made = std::collections::BTreeSet::new();
    for entry in entries {
        let path = entry.path.trim_matches('/');
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]);
        for parent in parents.filter(|parent| !entries.iter().any(|e| e.path.trim_matches('/') == *parent)) {
            if made.insert(parent.to_owned()) {
                let mut header = header(0o755, EntryType::Directory, 0);
                archive.append_data(&mut header, format!("{parent}/"), std::io::empty())?;
            }
        }
        match &entry.content {
            Content::File(bytes) => append(&mut archive, path, entry.mode, bytes)?,
            Content::Directory => {
                let mut header = header(entry.mode, EntryType::Directory, 0);
                archive.append_data(&mut header, format!("{path}/"), std::io::empty())?;
            }
            Content::Link(target) => {
                archive.append_link(&mut header(entry.mode, EntryType::Symlink, 0), path, target)?;
            }
        }
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;

    use super::*;

    fn read(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(path, bytes);
        }
        files
    }

    fn sample() -> Image {
        Image::new("hello:1")
            .file("bin/busybox", 0o755, "program")
            .link("bin/sh", "busybox")
            .directory("tmp", 0o1777)
            .entrypoint(&["/bin/sh", "-c"])
            .environment("A=b")
    }

    #[test]
    fn every_blob_is_named_by_its_digest_and_found_from_the_index() {
        let files = read(&sample().archive().unwrap());
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(
            index["manifests"][0]["annotations"]["io.containerd.image.name"],
            "docker.io/library/hello:1"
        );
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let bytes = &files[&format!("blobs/sha256/{digest}")];
            assert_eq!(sha256(bytes), digest);
            assert_eq!(descriptor["size"], bytes.len());
            bytes.clone()
        };
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!(config["config"], json!({ "Entrypoint": ["/bin/sh", "-c"], "Env": ["A=b"] }));
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", sha256(&layer)));
        let inside = read(&layer);
        assert_eq!(inside.keys().collect::<Vec<_>>(), ["bin/", "bin/busybox", "bin/sh", "tmp/"]);
        assert_eq!(inside["bin/busybox"], b"program");
    }

    #[test]
    fn the_same_image_is_always_the_same_bytes() {
        assert_eq!(sample().archive().unwrap(), sample().archive().unwrap());
    }

    #[test]
    fn names_are_completed_as_runtimes_do() {
        for (name, canonical) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1", "docker.io/library/busybox:1"),
            ("me/app:1", "docker.io/me/app:1"),
            ("kube-lite.io/pause:1", "kube-lite.io/pause:1"),
            ("localhost/app", "localhost/app:latest"),
            ("registry:5000/app", "registry:5000/app:latest"),
            ("a.b/c@sha256:0", "a.b/c@sha256:0"),
        ] {
            assert_eq!(canonical_name(name), canonical, "{name}");
        }
    }

    #[test]
    fn digests_are_hexadecimal() {
        assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
