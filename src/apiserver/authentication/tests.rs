//! Who a request is from, by a table of credentials.

use super::*;
use crate::apiserver::tls::PeerCertificate;
use crate::pki::ClusterPki;
use crate::registry::{TokenIssuer as _, TokenOrder};
use service_account::{Bound, BoundObjects};

struct Everything;

impl BoundObjects for Everything {
    fn uid(&self, _: Bound, _: &str, _: &str) -> Option<String> {
        Some("u".to_owned())
    }

    fn uses_secret(&self, _: &str, _: &str) -> bool {
        true
    }
}

fn tokens() -> (ServiceAccountTokens, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let pki = Arc::new(ClusterPki::load_or_create(dir.path(), &[]).unwrap());
    (ServiceAccountTokens::new(pki, "cluster.local", Arc::new(Everything)), dir)
}

fn certificate(name: &str, not_after: i64) -> Peer {
    let user = Arc::new(UserInfo { name: name.to_owned(), ..UserInfo::default() });
    Peer::Certificate(Arc::new(PeerCertificate { user, not_after }))
}

#[tokio::test]
async fn callers_are_identified_by_certificate_then_token_then_not_at_all() {
    let (tokens, _dir) = tokens();
    let order = TokenOrder {
        namespace: "ns".to_owned(),
        service_account: "sa".to_owned(),
        uid: "u".to_owned(),
        audiences: Vec::new(),
        expiration_seconds: 600,
        bound_to: None,
        node: None,
    };
    let bearer = format!("Bearer {}", tokens.issue(order).await.unwrap().token);
    let (later, earlier) = (unix_now() + 60, unix_now() - 60);
    let account = Some("system:serviceaccount:ns:sa");
    let cases = [
        (certificate("jane", later), "", Some("jane")),
        (certificate("jane", later), "Bearer wrong", Some("jane")),
        (certificate("jane", earlier), "", None),
        (certificate("jane", earlier), bearer.as_str(), account),
        (Peer::Rejected, "", None),
        (Peer::Rejected, bearer.as_str(), account),
        (Peer::Anonymous, bearer.as_str(), account),
        (Peer::Anonymous, "Bearer wrong", None),
        (Peer::Anonymous, "Bearer ", Some(ANONYMOUS)),
        (Peer::Anonymous, "Basic YTpi", Some(ANONYMOUS)),
        (Peer::Anonymous, "", Some(ANONYMOUS)),
    ];
    for (peer, authorization, expected) in cases {
        let mut extensions = Extensions::new();
        extensions.insert(peer.clone());
        let mut headers = HeaderMap::new();
        if !authorization.is_empty() {
            headers.insert(AUTHORIZATION, authorization.parse().unwrap());
        }
        for anonymous in [true, false] {
            let user = authenticate(&tokens, &extensions, &headers, anonymous);
            match expected.filter(|name| anonymous || *name != ANONYMOUS) {
                Some(name) => assert_eq!(user.unwrap().name, name, "{peer:?} {authorization}"),
                None => assert_eq!(user.unwrap_err().code(), 401, "{peer:?} {authorization} {anonymous}"),
            }
        }
    }
}

#[test]
fn callers_in_process_are_taken_at_their_word() {
    let (tokens, _dir) = tokens();
    let mut extensions = Extensions::new();
    let user = Arc::new(UserInfo { name: "system:kube-scheduler".to_owned(), ..UserInfo::default() });
    extensions.insert(InProcessUser(user));
    let user = authenticate(&tokens, &extensions, &HeaderMap::new(), false).unwrap();
    assert_eq!(user.name, "system:kube-scheduler");
}
