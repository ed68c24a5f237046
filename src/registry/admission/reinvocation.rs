//! The second pass of the mutating half: when there is one, and which webhooks and policies are asked again in it.
//!
//! Upstream: `apiserver/pkg/admission/reinvocation.go` and the reinvocation contexts of its dispatchers.

use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError};

use serde_json::Value;

use super::Request;

/// What is remembered of a request.
#[derive(Debug, Default)]
pub(super) struct Passes {
    wanted: bool,
    second: bool,
    pub(super) webhooks: Asked,
    pub(super) policies: Asked,
}

/// Who was asked about a request and wants to be asked again when others have changed the object.
#[derive(Debug, Default)]
pub(super) struct Asked {
    before: BTreeSet<String>,
    again: BTreeSet<String>,
    output: Option<Value>,
}

impl Asked {
    /// A round begins with this object. In the second pass all who were asked are asked again if it has changed since.
    pub(super) fn begin(&mut self, object: &Value) {
        if self.output.as_ref().is_some_and(|output| output != object) {
            self.changed();
        }
    }

    /// The round ends with this object.
    pub(super) fn end(&mut self, object: Value) {
        self.output = Some(object);
    }

    /// Somebody has changed the object.
    pub(super) fn changed(&mut self) {
        self.again.append(&mut self.before);
    }

    /// Whether one who was asked before is to be asked again.
    pub(super) fn wants(&self, key: &str) -> bool {
        self.again.contains(key)
    }

    /// Notes that one was asked who wants to know of what others change after it.
    pub(super) fn note(&mut self, key: String) {
        self.before.insert(key);
    }
}

impl Request<'_> {
    pub(super) fn passes(&self) -> MutexGuard<'_, Passes> {
        self.passes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins the second pass if somebody asked for one.
    pub(super) fn second_pass(&self) -> bool {
        let mut passes = self.passes();
        passes.second = passes.wanted;
        passes.second
    }
}

impl Passes {
    /// Asks for a second pass.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether this is the second pass.
    pub(super) fn is_second(&self) -> bool {
        self.second
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_was_asked_before_a_change_is_asked_again_but_not_who_made_it() {
        let mut asked = Asked::default();
        asked.begin(&json!({}));
        asked.note("first".into());
        asked.changed();
        asked.note("second".into());
        asked.end(json!({"a": 1}));
        assert!(asked.wants("first") && !asked.wants("second"));
        asked.begin(&json!({"a": 1}));
        assert!(!asked.wants("second"), "nothing has changed since");
        asked.begin(&json!({"a": 2}));
        assert!(asked.wants("second"), "a plugin has changed the object since");
    }
}
