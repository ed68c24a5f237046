//! Values.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::quantity::Quantity;

/// A value; cheap to clone.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// A boolean.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// A floating point number.
    Double(f64),
    /// Text.
    String(Arc<str>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A list.
    List(Arc<Vec<Value>>),
    /// A map, or an object with fields.
    Map(Arc<BTreeMap<Key, Value>>),
    /// `google.protobuf.Duration`.
    Duration(SignedDuration),
    /// `google.protobuf.Timestamp`.
    Timestamp(Timestamp),
    /// The type of a value.
    Type(Arc<str>),
    /// A value or none.
    Optional(Option<Arc<Value>>),
    /// A value of one of Kubernetes' types.
    Foreign(Arc<Foreign>),
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A boolean.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number beyond the signed ones.
    Uint(u64),
    /// Text.
    String(Arc<str>),
}

/// What answers questions about the rights of the requesting user.
pub trait Rights: Send + Sync {
    /// Whether the user may do it, and why (not).
    fn check(&self, question: &Question) -> (bool, String);
}

/// A question to the authorizer, as far as it is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// A path, for what is no resource.
    pub path: String,
    /// API group.
    pub group: String,
    /// Resource.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Verb.
    pub verb: String,
    /// Another user than the requesting one: namespace and name of a service account.
    pub account: Option<(String, String)>,
}

/// A value of one of Kubernetes' types.
#[derive(Clone)]
pub enum Foreign {
    /// `quantity("1Gi")`.
    Quantity(Quantity),
    /// `url("https://…")`: scheme, host with port, path and query.
    Url(Url),
    /// `ip("10.0.0.1")`.
    Ip(IpAddr),
    /// `cidr("10.0.0.0/8")`: address and length.
    Cidr(IpAddr, u8),
    /// `semver("1.2.3")`: numbers, prerelease.
    Semver(u64, u64, u64, String),
    /// `format.named("dns1123Label")`.
    Format(Arc<str>),
    /// `authorizer`, with what was asked so far.
    Authorizer(Arc<dyn Rights>, Question),
    /// The authorizer's answer.
    Decision(bool, String),
}

/// The parts of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Scheme.
    pub scheme: String,
    /// Host and port.
    pub host: String,
    /// Escaped path.
    pub path: String,
    /// Query, unparsed.
    pub query: String,
}

impl PartialEq for Foreign {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Quantity(a), Self::Quantity(b)) => a == b,
            (Self::Url(a), Self::Url(b)) => a == b,
            (Self::Ip(a), Self::Ip(b)) => a == b,
            (Self::Cidr(a, n), Self::Cidr(b, m)) => a == b && n == m,
            (Self::Semver(a, b, c, d), Self::Semver(e, f, g, h)) => (a, b, c, d) == (e, f, g, h),
            (Self::Format(a), Self::Format(b)) => a == b,
            (Self::Decision(a, _), Self::Decision(b, _)) => a == b,
            _ => false,
        }
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.type_name())
    }
}

impl Foreign {
    /// The name of the type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Url(_) => "kubernetes.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(..) => "net.CIDR",
            Self::Semver(..) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Authorizer(..) => "kubernetes.authorization.Authorizer",
            Self::Decision(..) => "kubernetes.authorization.Decision",
        }
    }
}

impl Value {
    /// Text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::String(text.into())
    }

    /// A list.
    pub fn list(items: Vec<Value>) -> Self {
        Self::List(Arc::new(items))
    }

    /// A value of one of Kubernetes' types.
    pub fn foreign(value: Foreign) -> Self {
        Self::Foreign(Arc::new(value))
    }

    /// An optional value.
    pub fn some(value: Value) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// The name of the value's type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::Type(_) => "type",
            Self::Optional(_) => "optional_type",
            Self::Foreign(foreign) => foreign.type_name(),
        }
    }

    /// Whether two values are equal; numbers of different types are when they are the same number.
    pub fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(a), Self::List(b)) => {
                a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| a.equals(b))
            }
            (Self::Map(a), Self::Map(b)) => {
                a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| a.equals(b)))
            }
            (Self::Optional(Some(a)), Self::Optional(Some(b))) => a.equals(b),
            _ if self.is_number() && other.is_number() => self.compare(other) == Some(Ordering::Equal),
            _ => self == other,
        }
    }

    /// Whether the value is a number.
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Int(_) | Self::Uint(_) | Self::Double(_))
    }

    /// The order of two values of comparable types.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        #[allow(
            clippy::cast_precision_loss,
            reason = "numbers of different types compare as doubles, as in Go"
        )]
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Int(a), Self::Int(b)) => Some(a.cmp(b)),
            (Self::Uint(a), Self::Uint(b)) => Some(a.cmp(b)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Int(a), Self::Uint(b)) => Some(u64::try_from(*a).map_or(Ordering::Less, |a| a.cmp(b))),
            (Self::Uint(_), Self::Int(_)) => other.compare(self).map(Ordering::reverse),
            (Self::Int(a), Self::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Uint(a), Self::Double(b)) => (*a as f64).partial_cmp(b),
            (Self::Double(_), Self::Int(_) | Self::Uint(_)) => other.compare(self).map(Ordering::reverse),
            (Self::String(a), Self::String(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Duration(a), Self::Duration(b)) => Some(a.cmp(b)),
            (Self::Timestamp(a), Self::Timestamp(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }

    /// The value as a key of a map.
    pub fn key(&self) -> Option<Key> {
        #[allow(clippy::cast_possible_truncation, reason = "only whole doubles of small size become keys")]
        match self {
            Self::Bool(b) => Some(Key::Bool(*b)),
            Self::Int(n) => Some(Key::Int(*n)),
            Self::Uint(n) => Some(i64::try_from(*n).map_or(Key::Uint(*n), Key::Int)),
            Self::Double(n) if n.fract() == 0.0 && n.abs() < 9e15 => Some(Key::Int(*n as i64)),
            Self::String(text) => Some(Key::String(text.clone())),
            _ => None,
        }
    }
}

impl From<&Key> for Value {
    fn from(key: &Key) -> Self {
        match key {
            Key::Bool(b) => Self::Bool(*b),
            Key::Int(n) => Self::Int(*n),
            Key::Uint(n) => Self::Uint(*n),
            Key::String(text) => Self::String(text.clone()),
        }
    }
}
