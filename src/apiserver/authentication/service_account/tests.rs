//! Tokens: what is signed is accepted, and nothing else; not for long, and not without the objects behind it.

use super::*;

/// Every object has the uid `<kind>-<name>`, but those that are gone.
#[derive(Default)]
struct World {
    gone: Mutex<Vec<Bound>>,
    marked: std::sync::atomic::AtomicBool,
}

impl BoundObjects for World {
    fn uid(&self, kind: Bound, namespace: &str, name: &str) -> Option<String> {
        let gone = self.gone.lock().unwrap().contains(&kind);
        (!gone && namespace == "ns").then(|| format!("{kind:?}-{name}"))
    }

    fn uses_secret(&self, _: &str, _: &str) -> bool {
        !self.marked.load(std::sync::atomic::Ordering::Relaxed)
    }
}

struct Fixture {
    tokens: ServiceAccountTokens,
    world: Arc<World>,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let pki = Arc::new(ClusterPki::load_or_create(dir.path(), &[]).unwrap());
    let world = Arc::new(World::default());
    Fixture { tokens: ServiceAccountTokens::new(pki, "cluster.local", world.clone()), world, _dir: dir }
}

fn binding(kind: &str) -> TokenBinding {
    TokenBinding { kind: kind.to_owned(), name: "x".to_owned(), uid: format!("{kind}-x") }
}

fn order(bound: Option<&str>) -> TokenOrder {
    TokenOrder {
        namespace: "ns".to_owned(),
        service_account: "sa".to_owned(),
        uid: "ServiceAccount-sa".to_owned(),
        audiences: Vec::new(),
        expiration_seconds: 3600,
        bound_to: bound.map(binding),
        node: None,
    }
}

#[test]
fn token_names_the_service_account_and_what_it_is_bound_to() {
    let f = fixture();
    let order = TokenOrder { node: Some(binding("Node")), ..order(Some("Pod")) };
    let issued = f.tokens.sign(&order, unix_now()).unwrap();
    assert_eq!(issued.audiences, ["https://kubernetes.default.svc.cluster.local"]);
    let user = f.tokens.authenticate(&issued.token).unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:ns:sa", "ServiceAccount-sa"));
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated"]);
    let extra: Vec<_> = user.extra.iter().map(|(k, v)| format!("{k}={}", v[0])).collect();
    assert!(extra[0].starts_with("authentication.kubernetes.io/credential-id=JTI="), "{extra:?}");
    assert_eq!(
        extra[1..],
        [
            "authentication.kubernetes.io/node-name=x",
            "authentication.kubernetes.io/node-uid=Node-x",
            "authentication.kubernetes.io/pod-name=x",
            "authentication.kubernetes.io/pod-uid=Pod-x",
        ]
    );
}

#[test]
fn only_a_token_in_a_secret_is_refused_when_that_is_marked() {
    let f = fixture();
    f.world.marked.store(true, std::sync::atomic::Ordering::Relaxed);
    for (bound, accepted) in [(Some("Secret"), false), (Some("Pod"), true), (None, true)] {
        let token = f.tokens.sign(&order(bound), unix_now()).unwrap().token;
        assert_eq!(f.tokens.authenticate(&token).is_some(), accepted, "{bound:?}");
    }
}

#[test]
fn token_dies_with_the_objects_behind_it() {
    for (bound, kind) in [
        (None, Bound::ServiceAccount),
        (Some("Pod"), Bound::Pod),
        (Some("Secret"), Bound::Secret),
        (Some("Node"), Bound::Node),
        (Some("Pod"), Bound::ServiceAccount),
    ] {
        let f = fixture();
        let token = f.tokens.sign(&order(bound), unix_now()).unwrap().token;
        assert!(f.tokens.authenticate(&token).is_some(), "{bound:?}");
        f.world.gone.lock().unwrap().push(kind);
        assert!(f.tokens.authenticate(&token).is_none(), "{bound:?} without {kind:?}");
    }
}

#[test]
fn object_made_anew_under_the_same_name_is_another() {
    let f = fixture();
    let order = TokenOrder { uid: "an-older-one".to_owned(), ..order(None) };
    assert!(f.tokens.authenticate(&f.tokens.sign(&order, unix_now()).unwrap().token).is_none());
}

#[test]
fn token_is_good_for_its_time_only_even_when_remembered() {
    let f = fixture();
    let now = unix_now();
    let expired = f.tokens.sign(&order(None), now - 3600).unwrap().token;
    assert!(f.tokens.authenticate(&expired).is_none());
    let future = f.tokens.sign(&order(None), now + 120).unwrap().token;
    assert!(f.tokens.authenticate(&future).is_none());
    let slightly_ahead = f.tokens.sign(&order(None), now + 30).unwrap().token;
    assert!(f.tokens.authenticate(&slightly_ahead).is_some(), "clocks of servers differ");
    let claims = f.tokens.verify(&slightly_ahead).unwrap();
    assert!(!in_time(&claims, claims.exp) && in_time(&claims, claims.exp - 1));
}

#[test]
fn audience_must_be_one_that_is_asked_for() {
    let f = fixture();
    let audiences = vec!["vault".to_owned(), "other".to_owned()];
    let token = f.tokens.sign(&TokenOrder { audiences, ..order(None) }, unix_now()).unwrap().token;
    assert!(f.tokens.authenticate(&token).is_none(), "not for the API server");
    let asked = ["vault".to_owned(), "x".to_owned()];
    assert_eq!(f.tokens.authenticate_for(&token, &asked).unwrap().1, ["vault"]);
    assert!(f.tokens.authenticate_for(&token, &["x".to_owned()]).is_none());
}

#[test]
fn tokens_of_others_and_tampered_ones_are_refused() {
    let (f, stranger) = (fixture(), fixture());
    let token = f.tokens.sign(&order(None), unix_now()).unwrap().token;
    assert!(stranger.tokens.authenticate(&token).is_none());
    let parts: Vec<&str> = token.split('.').collect();
    let other =
        f.tokens.sign(&TokenOrder { service_account: "root".to_owned(), ..order(None) }, unix_now()).unwrap();
    let payload = other.token.split('.').nth(1).unwrap().to_owned();
    for bad in [
        String::new(),
        "a.b.c".to_owned(),
        format!("{}.{}.{}", parts[0], payload, parts[2]),
        format!("{}.{}.", parts[0], parts[1]),
        // {"alg":"none"}
        format!("eyJhbGciOiJub25lIn0.{}.", parts[1]),
        format!("{token}x"),
    ] {
        assert!(f.tokens.authenticate(&bad).is_none(), "{bad}");
    }
    let elsewhere = ServiceAccountTokens::new(f.tokens.pki.clone(), "other.domain", f.world.clone());
    assert!(elsewhere.authenticate(&token).is_none(), "another issuer");
}

#[test]
fn pod_tokens_outlive_the_time_asked_for_and_say_so() {
    let f = fixture();
    let now = unix_now();
    let order = TokenOrder { expiration_seconds: POD_TOKEN_SECONDS, ..order(Some("Pod")) };
    let issued = f.tokens.sign(&order, now).unwrap();
    assert_eq!(issued.expires.as_second(), now + POD_TOKEN_SECONDS);
    let claims = f.tokens.verify(&issued.token).unwrap();
    assert_eq!(
        (claims.exp, claims.kubernetes.warnafter),
        (now + EXTENDED_SECONDS, Some(now + POD_TOKEN_SECONDS))
    );
    let short = TokenOrder { expiration_seconds: 1, ..order };
    assert_eq!(f.tokens.sign(&short, now).unwrap().expires.as_second(), now + SHORTEST_SECONDS);
}

#[test]
fn user_names_of_service_accounts_are_read_back() {
    assert_eq!(parse_user_name("system:serviceaccount:a:b"), Some(("a", "b")));
    for name in ["a:b", "system:serviceaccount:a", "system:serviceaccount::b", "system:serviceaccount:a:b:c"]
    {
        assert_eq!(parse_user_name(name), None, "{name}");
    }
}
