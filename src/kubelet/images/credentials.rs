//! Registry credentials from image pull secrets.

use std::collections::BTreeMap;

use base64::Engine as _;
use k8s_openapi::api::core::v1::Secret;
use serde::Deserialize;

use crate::cri::v1;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

/// What one registry is told.
#[derive(Deserialize, Clone)]
pub struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

/// The credentials that fit an image, best match first.
pub fn for_image(image: &str, secrets: &[Secret]) -> Vec<v1::AuthConfig> {
    best(image, secrets.iter().flat_map(entries).collect())
}

/// Those of the entries, by registry, that fit an image, best match first.
pub fn best(image: &str, entries: Vec<(String, Entry)>) -> Vec<v1::AuthConfig> {
    let target = normalized(image);
    let mut found: Vec<(usize, v1::AuthConfig)> = entries
        .into_iter()
        .filter_map(|(server, entry)| {
            let prefix = server_prefix(&server);
            matches(&prefix, &target).then(|| (prefix.len(), auth(&server, &entry)))
        })
        .collect();
    found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    found.into_iter().map(|(_, auth)| auth).collect()
}

/// Whether a pattern such as `*.example.com/team` is for an image.
pub fn fits(pattern: &str, image: &str) -> bool {
    matches(&server_prefix(pattern), &normalized(image))
}

/// The entries of a `config.json`; one that cannot be read has none.
pub fn of_config(text: &[u8]) -> Vec<(String, Entry)> {
    serde_json::from_slice::<DockerConfig>(text).map(|c| c.auths.into_iter().collect()).unwrap_or_default()
}

fn entries(secret: &Secret) -> Vec<(String, Entry)> {
    let Some(data) = &secret.data else { return Vec::new() };
    if let Some(bytes) = data.get(".dockerconfigjson") {
        return of_config(&bytes.0);
    }
    if let Some(bytes) = data.get(".dockercfg") {
        return serde_json::from_slice::<BTreeMap<String, Entry>>(&bytes.0)
            .map(|c| c.into_iter().collect())
            .unwrap_or_default();
    }
    Vec::new()
}

fn auth(server: &str, entry: &Entry) -> v1::AuthConfig {
    let decoded = base64::engine::general_purpose::STANDARD.decode(&entry.auth).unwrap_or_default();
    let decoded = String::from_utf8(decoded).unwrap_or_default();
    let (user, password) = match decoded.split_once(':') {
        Some((u, p)) if entry.username.is_empty() => (u.to_owned(), p.trim_end_matches('\0').to_owned()),
        _ => (entry.username.clone(), entry.password.clone()),
    };
    v1::AuthConfig {
        username: user,
        password,
        server_address: server.to_owned(),
        identity_token: entry.identity_token.clone(),
        ..v1::AuthConfig::default()
    }
}

/// `docker.io/library/nginx` for `nginx:1`; tag and digest do not matter here.
pub fn normalized(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let name = match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    };
    match name.split_once('/') {
        Some((host, _)) if host.contains('.') || host.contains(':') || host == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

fn server_prefix(server: &str) -> String {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let bare = bare.trim_end_matches("/v1").trim_end_matches("/v2");
    match bare {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        other => other.to_owned(),
    }
}

fn matches(prefix: &str, target: &str) -> bool {
    let (host, path) = prefix.split_once('/').map_or((prefix, ""), |(h, p)| (h, p));
    let (target_host, target_path) = target.split_once('/').unwrap_or((target, ""));
    // A port is told apart from the last label by its colon.
    let labels = |host: &str| host.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (patterns, parts) = (labels(host), labels(target_host));
    let host_fits =
        patterns.len() == parts.len() && patterns.iter().zip(&parts).all(|(p, part)| label_fits(p, part));
    let path_fits = path.is_empty()
        || target_path == path
        || target_path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
    host_fits && path_fits
}

/// Whether a label of a host's name is what a pattern with `*` says.
fn label_fits(pattern: &str, label: &str) -> bool {
    let Some((before, rest)) = pattern.split_once('*') else { return pattern == label };
    let Some(after) = label.strip_prefix(before) else { return false };
    // The star takes as little as it can, then more.
    after.char_indices().map(|(at, _)| at).chain([after.len()]).any(|at| label_fits(rest, &after[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use serde_json::json;

    fn secret(auths: serde_json::Value) -> Secret {
        let bytes = ByteString(json!({"auths": auths}).to_string().into_bytes());
        Secret { data: Some([(".dockerconfigjson".to_owned(), bytes)].into()), ..Secret::default() }
    }

    #[test]
    fn the_longest_matching_server_comes_first() {
        let all = [secret(json!({
            "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
            "reg.example": {"auth": base64::engine::general_purpose::STANDARD.encode("u:p:q")},
            "reg.example/team": {"username": "team", "password": "t"},
            "*.wild.example": {"username": "wild", "password": "w"}}))];
        let users = |image: &str| -> Vec<String> {
            for_image(image, &all).into_iter().map(|a| format!("{}:{}", a.username, a.password)).collect()
        };
        assert_eq!(users("nginx:1"), ["hub:p"]);
        assert_eq!(users("reg.example/team/x@sha256:00"), ["team:t", "u:p:q"]);
        assert_eq!(users("reg.example/teamwork/x"), ["u:p:q"]);
        assert_eq!(users("a.wild.example/x"), ["wild:w"]);
        assert!(users("other.example/x").is_empty());
    }

    #[test]
    fn stars_stand_for_parts_of_one_label() {
        for (pattern, image, want) in [
            ("*.k8s.io", "app.k8s.io/x", true),
            ("k8s.*.io", "k8s.app.io/x", true),
            ("app*.k8s.io", "app5.k8s.io/x", true),
            ("*-reg-*.io", "a-reg-b.io/x", true),
            ("*.io", "app.k8s.io/x", false),
            ("*.k8s.io", "k8s.io/x", false),
            ("reg.io:8080/path", "reg.io:8080/path/x:1", true),
            ("reg.io:8080", "reg.io:9090/x", false),
        ] {
            assert_eq!(fits(pattern, image), want, "{pattern} {image}");
        }
    }

    #[test]
    fn the_old_format_works_and_garbage_is_ignored() {
        let old = ByteString(br#"{"reg.example": {"username": "a", "password": "b"}}"#.to_vec());
        let secret = Secret { data: Some([(".dockercfg".to_owned(), old)].into()), ..Secret::default() };
        assert_eq!(for_image("reg.example/x", &[secret]).len(), 1);
        let bad = Secret {
            data: Some([(".dockerconfigjson".to_owned(), ByteString(b"{".to_vec()))].into()),
            ..Secret::default()
        };
        assert!(for_image("x", &[bad]).is_empty());
    }
}
