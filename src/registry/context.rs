//! Who asks, and how the request wants to be treated: what every verb carries besides its target.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// The authenticated identity of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// User name, such as `system:node:a` or `system:serviceaccount:ns:name`.
    pub name: String,
    /// Unique id of the user; empty when the authenticator has none.
    pub uid: String,
    /// Groups the user belongs to.
    pub groups: Vec<String>,
    /// Further facts of the authenticator.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What happens to unknown and duplicate fields of a request body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// They are dropped silently.
    Ignore,
    /// They are dropped, and each one is a warning to the client.
    #[default]
    Warn,
    /// They fail the request.
    Strict,
}

/// How much of each object a `Table` row carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing but the cells.
    None,
    /// The metadata, as `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

/// The shape in which objects leave: what `Accept: …;as=…` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Representation {
    /// The object itself.
    #[default]
    Object,
    /// `meta.k8s.io/v1` `Table`.
    Table(IncludeObject),
    /// `meta.k8s.io/v1` `PartialObjectMetadata` and its list.
    Metadata,
}

/// The syntax of a request body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyFormat {
    /// `application/json`.
    #[default]
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// A request body and its syntax.
#[derive(Clone, Debug, Default)]
pub struct Body {
    /// The bytes as received.
    pub bytes: Bytes,
    /// Their syntax.
    pub format: BodyFormat,
}

impl Body {
    /// A JSON body.
    pub fn json(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), format: BodyFormat::Json }
    }

    /// A YAML body.
    pub fn yaml(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), format: BodyFormat::Yaml }
    }
}

/// Everything about a request that is not its target or its body.
#[derive(Debug, Default)]
pub struct RequestContext {
    /// Who asks.
    pub user: Arc<UserInfo>,
    /// `User-Agent` header; names the field manager when `field_manager` is empty.
    pub user_agent: String,
    /// `dryRun=All`: do everything but persist.
    pub dry_run: bool,
    /// `fieldManager` parameter.
    pub field_manager: String,
    /// `fieldValidation` parameter.
    pub field_validation: FieldValidation,
    /// `force` parameter of a server-side apply.
    pub force: bool,
    /// Shape of the answer.
    pub representation: Representation,
    /// Whether events of a watch leave as frames of protobuf instead of lines of JSON.
    pub protobuf_events: bool,
    warnings: Mutex<Vec<String>>,
    applied: AtomicBool,
}

impl RequestContext {
    /// A context for `user` with every option at its default.
    pub fn for_user(user: Arc<UserInfo>) -> Self {
        Self { user, ..Self::default() }
    }

    /// The name under which this request owns fields: `fieldManager`, else the user agent up to its first slash.
    pub fn manager(&self) -> &str {
        let name = if self.field_manager.is_empty() {
            self.user_agent.split('/').next().unwrap_or_default()
        } else {
            &self.field_manager
        };
        if name.is_empty() { "unknown" } else { name }
    }

    /// Notes that the request is a server-side apply, which has settled who owns which field.
    pub(in crate::registry) fn note_applied(&self) {
        self.applied.store(true, Ordering::Relaxed);
    }

    /// Whether the request is a server-side apply.
    pub(in crate::registry) fn is_applied(&self) -> bool {
        self.applied.load(Ordering::Relaxed)
    }

    /// Adds a warning for the client; the same text is sent once.
    pub fn warn(&self, text: impl Into<String>) {
        let text = text.into();
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Takes the collected warnings; the HTTP layer sends them as `Warning` headers.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manager_is_the_parameter_or_the_first_part_of_the_user_agent() {
        let mut cx = RequestContext::default();
        assert_eq!(cx.manager(), "unknown");
        cx.user_agent = "kubectl/v1.32.0 (linux/amd64)".into();
        assert_eq!(cx.manager(), "kubectl");
        cx.field_manager = "helm".into();
        assert_eq!(cx.manager(), "helm");
    }

    #[test]
    fn a_warning_is_sent_once() {
        let cx = RequestContext::default();
        cx.warn("a");
        cx.warn("a");
        cx.warn("b");
        assert_eq!(cx.take_warnings(), ["a", "b"]);
        assert!(cx.take_warnings().is_empty());
    }
}
