//! Continue tokens: where the next page of a list begins, at which version, and since when.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::api::error::ApiError;

const VERSION: &str = "meta.k8s.io/v1";
/// A list that is not finished after this long goes on with the latest state, however long versions are kept: upstream
/// forgets old versions as often, and clients are tested to cope with it.
const LIFETIME_SECONDS: i64 = 300;

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// Version of every page; `None` goes on with the latest state.
    pub revision: Option<u64>,
    /// The last key of the page before.
    pub after: String,
    /// When the first page was made, in seconds since the epoch.
    pub since: i64,
}

#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    #[serde(default)]
    rv: i64,
    start: String,
    #[serde(default)]
    t: i64,
}

impl Continuation {
    /// The token.
    pub fn encode(&self) -> String {
        let rv = self.revision.map_or(-1, |revision| i64::try_from(revision).unwrap_or(i64::MAX));
        let token = Token { v: VERSION.into(), rv, start: format!("{}\0", self.after), t: self.since };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
    }

    /// Reads a token that a client sent back.
    pub fn decode(text: &str) -> Result<Self, ApiError> {
        let invalid = |why: &str| ApiError::bad_request(format!("continue key is not valid: {why}"));
        let bare = text.trim_end_matches('=');
        let bytes = URL_SAFE_NO_PAD
            .decode(bare)
            .or_else(|_| STANDARD_NO_PAD.decode(bare))
            .map_err(|error| invalid(&error.to_string()))?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|error| invalid(&error.to_string()))?;
        if token.v != VERSION {
            return Err(invalid(&format!("server does not recognize this encoded version {:?}", token.v)));
        }
        if token.start.is_empty() {
            return Err(invalid("encoded start key empty (version meta.k8s.io/v1)"));
        }
        if token.rv == 0 {
            return Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        if token.start.split('/').any(|part| part == "..") {
            return Err(invalid(&token.start));
        }
        Ok(Self {
            revision: u64::try_from(token.rv).ok(),
            after: token.start.trim_end_matches('\0').to_owned(),
            since: token.t,
        })
    }

    /// Whether the version of the first page is not to be shown any more.
    pub fn is_overdue(&self, now: i64) -> bool {
        self.revision.is_some() && now.saturating_sub(self.since) > LIFETIME_SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_went() {
        for revision in [Some(7), None] {
            let token = Continuation { revision, after: "default/a".into(), since: 5 };
            assert_eq!(Continuation::decode(&token.encode()).unwrap(), token);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_key_comes_back(revision in proptest::option::of(1..i64::MAX as u64), after in "[a-z0-9./:-]{1,80}") {
            proptest::prop_assume!(after.split('/').all(|part| part != ".."));
            let token = Continuation { revision, after, since: 7 };
            proptest::prop_assert_eq!(Continuation::decode(&token.encode()).unwrap(), token);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,200}", inner in ".{0,200}", rv in proptest::num::i64::ANY) {
            Continuation::decode(&text).ok();
            Continuation::decode(&URL_SAFE_NO_PAD.encode(&inner)).ok();
            let token = serde_json::json!({ "v": VERSION, "rv": rv, "start": inner });
            if let Ok(read) = Continuation::decode(&URL_SAFE_NO_PAD.encode(token.to_string())) {
                proptest::prop_assert!(read.after.split('/').all(|part| part != ".."));
            }
        }
    }

    #[test]
    fn a_version_is_shown_for_some_minutes() {
        let token = |revision| Continuation { revision, after: "a".into(), since: 1000 };
        assert!(!token(Some(7)).is_overdue(1000 + LIFETIME_SECONDS));
        assert!(token(Some(7)).is_overdue(1001 + LIFETIME_SECONDS));
        assert!(!token(None).is_overdue(i64::MAX), "the latest state never grows old");
    }

    #[test]
    fn broken_tokens_are_bad_requests() {
        let encode = |json: &str| URL_SAFE_NO_PAD.encode(json);
        let cases = [
            "***".to_owned(),
            encode("{}"),
            encode(r#"{"v":"v9","rv":1,"start":"a"}"#),
            encode(r#"{"v":"meta.k8s.io/v1","rv":1,"start":""}"#),
            encode(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a"}"#),
            encode(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"../a"}"#),
        ];
        for token in cases {
            let error = Continuation::decode(&token).unwrap_err();
            assert_eq!(error.code(), 400);
            assert!(error.message().starts_with("continue key is not valid: "), "{error}");
        }
    }
}
