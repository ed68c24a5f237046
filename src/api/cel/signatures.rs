//! Which functions there are, what they take, and what they give.

use super::types::Type;

/// What an argument must be.
#[derive(Clone, Copy)]
enum Arg {
    Any,
    Bool,
    Int,
    Text,
    Bytes,
    Number,
    List,
    Map,
    Time,
    Duration,
    Optional,
    Foreign(&'static str),
    /// A quantity, or a number that is added to one.
    QuantityOrInt,
    /// Text, or the parsed form of it.
    TextOr(&'static str),
}

/// What a function gives.
#[derive(Clone, Copy)]
enum Gives {
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Texts,
    Bytes,
    Time,
    Duration,
    Type,
    Dyn,
    /// What it is called on.
    Own,
    /// The items of what it is called on.
    Item,
    OptionalItem,
    /// The first argument.
    First,
    OptionalFirst,
    OptionalDyn,
    Foreign(&'static str),
    OptionalForeign(&'static str),
    OptionalTexts,
    TextsByText,
}

struct Signature(&'static str, Option<Arg>, &'static [Arg], Gives);

const QUANTITY: &str = "kubernetes.Quantity";
const URL: &str = "kubernetes.URL";
const IP: &str = "net.IP";
const CIDR: &str = "net.CIDR";
const SEMVER: &str = "kubernetes.Semver";
const FORMAT: &str = "kubernetes.NamedFormat";
const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
const DECISION: &str = "kubernetes.authorization.Decision";

const TEXT: Option<Arg> = Some(Arg::Text);
const LIST: Option<Arg> = Some(Arg::List);
const TIME: Option<Arg> = Some(Arg::Time);
const LENGTH: Option<Arg> = Some(Arg::Duration);
const OPTIONAL: Option<Arg> = Some(Arg::Optional);
const OF_QUANTITY: Option<Arg> = Some(Arg::Foreign(QUANTITY));
const OF_URL: Option<Arg> = Some(Arg::Foreign(URL));
const OF_IP: Option<Arg> = Some(Arg::Foreign(IP));
const OF_CIDR: Option<Arg> = Some(Arg::Foreign(CIDR));
const OF_SEMVER: Option<Arg> = Some(Arg::Foreign(SEMVER));
const OF_AUTHORIZER: Option<Arg> = Some(Arg::Foreign(AUTHORIZER));
const OF_DECISION: Option<Arg> = Some(Arg::Foreign(DECISION));

const SIGNATURES: &[Signature] = &[
    Signature("size", None, &[Arg::Text], Gives::Int),
    Signature("size", None, &[Arg::Bytes], Gives::Int),
    Signature("size", None, &[Arg::List], Gives::Int),
    Signature("size", None, &[Arg::Map], Gives::Int),
    Signature("size", TEXT, &[], Gives::Int),
    Signature("size", Some(Arg::Bytes), &[], Gives::Int),
    Signature("size", LIST, &[], Gives::Int),
    Signature("size", Some(Arg::Map), &[], Gives::Int),
    Signature("type", None, &[Arg::Any], Gives::Type),
    Signature("dyn", None, &[Arg::Any], Gives::Dyn),
    Signature("string", None, &[Arg::Any], Gives::Text),
    Signature("int", None, &[Arg::Number], Gives::Int),
    Signature("int", None, &[Arg::Text], Gives::Int),
    Signature("int", None, &[Arg::Time], Gives::Int),
    Signature("uint", None, &[Arg::Number], Gives::Uint),
    Signature("uint", None, &[Arg::Text], Gives::Uint),
    Signature("double", None, &[Arg::Number], Gives::Double),
    Signature("double", None, &[Arg::Text], Gives::Double),
    Signature("bool", None, &[Arg::Text], Gives::Bool),
    Signature("bool", None, &[Arg::Bool], Gives::Bool),
    Signature("bytes", None, &[Arg::Text], Gives::Bytes),
    Signature("bytes", None, &[Arg::Bytes], Gives::Bytes),
    Signature("duration", None, &[Arg::Text], Gives::Duration),
    Signature("duration", None, &[Arg::Duration], Gives::Duration),
    Signature("timestamp", None, &[Arg::Text], Gives::Time),
    Signature("timestamp", None, &[Arg::Int], Gives::Time),
    Signature("timestamp", None, &[Arg::Time], Gives::Time),
    Signature("matches", None, &[Arg::Text, Arg::Text], Gives::Bool),
    Signature("matches", TEXT, &[Arg::Text], Gives::Bool),
    Signature("contains", TEXT, &[Arg::Text], Gives::Bool),
    Signature("startsWith", TEXT, &[Arg::Text], Gives::Bool),
    Signature("endsWith", TEXT, &[Arg::Text], Gives::Bool),
    Signature("charAt", TEXT, &[Arg::Int], Gives::Text),
    Signature("indexOf", TEXT, &[Arg::Text], Gives::Int),
    Signature("indexOf", TEXT, &[Arg::Text, Arg::Int], Gives::Int),
    Signature("lastIndexOf", TEXT, &[Arg::Text], Gives::Int),
    Signature("lastIndexOf", TEXT, &[Arg::Text, Arg::Int], Gives::Int),
    Signature("lowerAscii", TEXT, &[], Gives::Text),
    Signature("upperAscii", TEXT, &[], Gives::Text),
    Signature("trim", TEXT, &[], Gives::Text),
    Signature("reverse", TEXT, &[], Gives::Text),
    Signature("replace", TEXT, &[Arg::Text, Arg::Text], Gives::Text),
    Signature("replace", TEXT, &[Arg::Text, Arg::Text, Arg::Int], Gives::Text),
    Signature("split", TEXT, &[Arg::Text], Gives::Texts),
    Signature("split", TEXT, &[Arg::Text, Arg::Int], Gives::Texts),
    Signature("substring", TEXT, &[Arg::Int], Gives::Text),
    Signature("substring", TEXT, &[Arg::Int, Arg::Int], Gives::Text),
    Signature("find", TEXT, &[Arg::Text], Gives::Text),
    Signature("findAll", TEXT, &[Arg::Text], Gives::Texts),
    Signature("findAll", TEXT, &[Arg::Text, Arg::Int], Gives::Texts),
    Signature("format", TEXT, &[Arg::List], Gives::Text),
    Signature("join", LIST, &[], Gives::Text),
    Signature("join", LIST, &[Arg::Text], Gives::Text),
    Signature("isSorted", LIST, &[], Gives::Bool),
    Signature("sum", LIST, &[], Gives::Item),
    Signature("min", LIST, &[], Gives::Item),
    Signature("max", LIST, &[], Gives::Item),
    Signature("indexOf", LIST, &[Arg::Any], Gives::Int),
    Signature("lastIndexOf", LIST, &[Arg::Any], Gives::Int),
    Signature("slice", LIST, &[Arg::Int, Arg::Int], Gives::Own),
    Signature("flatten", LIST, &[], Gives::Dyn),
    Signature("distinct", LIST, &[], Gives::Own),
    Signature("reverse", LIST, &[], Gives::Own),
    Signature("sort", LIST, &[], Gives::Own),
    Signature("first", LIST, &[], Gives::OptionalItem),
    Signature("last", LIST, &[], Gives::OptionalItem),
    Signature("getFullYear", TIME, &[], Gives::Int),
    Signature("getMonth", TIME, &[], Gives::Int),
    Signature("getDayOfMonth", TIME, &[], Gives::Int),
    Signature("getDate", TIME, &[], Gives::Int),
    Signature("getDayOfYear", TIME, &[], Gives::Int),
    Signature("getDayOfWeek", TIME, &[], Gives::Int),
    Signature("getHours", TIME, &[], Gives::Int),
    Signature("getMinutes", TIME, &[], Gives::Int),
    Signature("getSeconds", TIME, &[], Gives::Int),
    Signature("getMilliseconds", TIME, &[], Gives::Int),
    Signature("getFullYear", TIME, &[Arg::Text], Gives::Int),
    Signature("getMonth", TIME, &[Arg::Text], Gives::Int),
    Signature("getDayOfMonth", TIME, &[Arg::Text], Gives::Int),
    Signature("getDate", TIME, &[Arg::Text], Gives::Int),
    Signature("getDayOfYear", TIME, &[Arg::Text], Gives::Int),
    Signature("getDayOfWeek", TIME, &[Arg::Text], Gives::Int),
    Signature("getHours", TIME, &[Arg::Text], Gives::Int),
    Signature("getMinutes", TIME, &[Arg::Text], Gives::Int),
    Signature("getSeconds", TIME, &[Arg::Text], Gives::Int),
    Signature("getMilliseconds", TIME, &[Arg::Text], Gives::Int),
    Signature("getHours", LENGTH, &[], Gives::Int),
    Signature("getMinutes", LENGTH, &[], Gives::Int),
    Signature("getSeconds", LENGTH, &[], Gives::Int),
    Signature("getMilliseconds", LENGTH, &[], Gives::Int),
    Signature("optional.of", None, &[Arg::Any], Gives::OptionalFirst),
    Signature("optional.ofNonZeroValue", None, &[Arg::Any], Gives::OptionalFirst),
    Signature("optional.none", None, &[], Gives::OptionalDyn),
    Signature("hasValue", OPTIONAL, &[], Gives::Bool),
    Signature("value", OPTIONAL, &[], Gives::Item),
    Signature("orValue", OPTIONAL, &[Arg::Any], Gives::First),
    Signature("or", OPTIONAL, &[Arg::Optional], Gives::Own),
    Signature("sets.contains", None, &[Arg::List, Arg::List], Gives::Bool),
    Signature("sets.equivalent", None, &[Arg::List, Arg::List], Gives::Bool),
    Signature("sets.intersects", None, &[Arg::List, Arg::List], Gives::Bool),
    Signature("math.greatest", None, &[Arg::Any], Gives::Dyn),
    Signature("math.greatest", None, &[Arg::Number, Arg::Number], Gives::Dyn),
    Signature("math.greatest", None, &[Arg::Number, Arg::Number, Arg::Number], Gives::Dyn),
    Signature("math.least", None, &[Arg::Any], Gives::Dyn),
    Signature("math.least", None, &[Arg::Number, Arg::Number], Gives::Dyn),
    Signature("math.least", None, &[Arg::Number, Arg::Number, Arg::Number], Gives::Dyn),
    Signature("quantity", None, &[Arg::Text], Gives::Foreign(QUANTITY)),
    Signature("isQuantity", None, &[Arg::Text], Gives::Bool),
    Signature("isInteger", OF_QUANTITY, &[], Gives::Bool),
    Signature("asInteger", OF_QUANTITY, &[], Gives::Int),
    Signature("asApproximateFloat", OF_QUANTITY, &[], Gives::Double),
    Signature("sign", OF_QUANTITY, &[], Gives::Int),
    Signature("add", OF_QUANTITY, &[Arg::QuantityOrInt], Gives::Own),
    Signature("sub", OF_QUANTITY, &[Arg::QuantityOrInt], Gives::Own),
    Signature("isLessThan", OF_QUANTITY, &[Arg::Foreign(QUANTITY)], Gives::Bool),
    Signature("isGreaterThan", OF_QUANTITY, &[Arg::Foreign(QUANTITY)], Gives::Bool),
    Signature("compareTo", OF_QUANTITY, &[Arg::Foreign(QUANTITY)], Gives::Int),
    Signature("url", None, &[Arg::Text], Gives::Foreign(URL)),
    Signature("isURL", None, &[Arg::Text], Gives::Bool),
    Signature("getScheme", OF_URL, &[], Gives::Text),
    Signature("getHost", OF_URL, &[], Gives::Text),
    Signature("getHostname", OF_URL, &[], Gives::Text),
    Signature("getPort", OF_URL, &[], Gives::Text),
    Signature("getEscapedPath", OF_URL, &[], Gives::Text),
    Signature("getQuery", OF_URL, &[], Gives::TextsByText),
    Signature("ip", None, &[Arg::Text], Gives::Foreign(IP)),
    Signature("isIP", None, &[Arg::Text], Gives::Bool),
    Signature("ip.isCanonical", None, &[Arg::Text], Gives::Bool),
    Signature("family", OF_IP, &[], Gives::Int),
    Signature("isUnspecified", OF_IP, &[], Gives::Bool),
    Signature("isLoopback", OF_IP, &[], Gives::Bool),
    Signature("isLinkLocalMulticast", OF_IP, &[], Gives::Bool),
    Signature("isLinkLocalUnicast", OF_IP, &[], Gives::Bool),
    Signature("isGlobalUnicast", OF_IP, &[], Gives::Bool),
    Signature("cidr", None, &[Arg::Text], Gives::Foreign(CIDR)),
    Signature("isCIDR", None, &[Arg::Text], Gives::Bool),
    Signature("containsIP", OF_CIDR, &[Arg::TextOr(IP)], Gives::Bool),
    Signature("containsCIDR", OF_CIDR, &[Arg::TextOr(CIDR)], Gives::Bool),
    Signature("ip", OF_CIDR, &[], Gives::Foreign(IP)),
    Signature("masked", OF_CIDR, &[], Gives::Own),
    Signature("prefixLength", OF_CIDR, &[], Gives::Int),
    Signature("semver", None, &[Arg::Text], Gives::Foreign(SEMVER)),
    Signature("isSemver", None, &[Arg::Text], Gives::Bool),
    Signature("major", OF_SEMVER, &[], Gives::Int),
    Signature("minor", OF_SEMVER, &[], Gives::Int),
    Signature("patch", OF_SEMVER, &[], Gives::Int),
    Signature("isLessThan", OF_SEMVER, &[Arg::Foreign(SEMVER)], Gives::Bool),
    Signature("isGreaterThan", OF_SEMVER, &[Arg::Foreign(SEMVER)], Gives::Bool),
    Signature("compareTo", OF_SEMVER, &[Arg::Foreign(SEMVER)], Gives::Int),
    Signature("format.named", None, &[Arg::Text], Gives::OptionalForeign(FORMAT)),
    Signature("validate", Some(Arg::Foreign(FORMAT)), &[Arg::Text], Gives::OptionalTexts),
    Signature("path", OF_AUTHORIZER, &[Arg::Text], Gives::Own),
    Signature("group", OF_AUTHORIZER, &[Arg::Text], Gives::Own),
    Signature("resource", OF_AUTHORIZER, &[Arg::Text], Gives::Own),
    Signature("subresource", OF_AUTHORIZER, &[Arg::Text], Gives::Own),
    Signature("namespace", OF_AUTHORIZER, &[Arg::Text], Gives::Own),
    Signature("name", OF_AUTHORIZER, &[Arg::Text], Gives::Own),
    Signature("serviceAccount", OF_AUTHORIZER, &[Arg::Text, Arg::Text], Gives::Own),
    Signature("check", OF_AUTHORIZER, &[Arg::Text], Gives::Foreign(DECISION)),
    Signature("jsonpatch.escapeKey", None, &[Arg::Text], Gives::Text),
    Signature("allowed", OF_DECISION, &[], Gives::Bool),
    Signature("reason", OF_DECISION, &[], Gives::Text),
    Signature("errored", OF_DECISION, &[], Gives::Bool),
    Signature("error", OF_DECISION, &[], Gives::Text),
];

impl Arg {
    fn takes(self, kind: &Type) -> bool {
        if *kind == Type::Dyn {
            return true;
        }
        match self {
            Self::Any => true,
            Self::Bool => *kind == Type::Bool,
            Self::Int => *kind == Type::Int,
            Self::Text => *kind == Type::String,
            Self::Bytes => *kind == Type::Bytes,
            Self::Number => matches!(kind, Type::Int | Type::Uint | Type::Double),
            Self::List => matches!(kind, Type::List(_)),
            Self::Map => matches!(kind, Type::Map(..) | Type::Object(_)),
            Self::Time => *kind == Type::Timestamp,
            Self::Duration => *kind == Type::Duration,
            Self::Optional => matches!(kind, Type::Optional(_)),
            Self::Foreign(name) => *kind == Type::Foreign(name),
            Self::QuantityOrInt => matches!(kind, Type::Int | Type::Foreign(QUANTITY)),
            Self::TextOr(name) => *kind == Type::String || *kind == Type::Foreign(name),
        }
    }
}

fn item_of(kind: Option<&Type>) -> Type {
    match kind {
        Some(Type::List(item) | Type::Optional(item)) => (**item).clone(),
        _ => Type::Dyn,
    }
}

fn optional(kind: Type) -> Type {
    Type::Optional(Box::new(kind))
}

fn given(gives: Gives, of: Option<&Type>, args: &[Type]) -> Type {
    let first = || args.first().cloned().unwrap_or_default();
    match gives {
        Gives::Bool => Type::Bool,
        Gives::Int => Type::Int,
        Gives::Uint => Type::Uint,
        Gives::Double => Type::Double,
        Gives::Text => Type::String,
        Gives::Texts => Type::list(Type::String),
        Gives::Bytes => Type::Bytes,
        Gives::Time => Type::Timestamp,
        Gives::Duration => Type::Duration,
        Gives::Type => Type::Type,
        Gives::Dyn => Type::Dyn,
        Gives::Own => of.cloned().unwrap_or_default(),
        Gives::Item => item_of(of),
        Gives::OptionalItem => optional(item_of(of)),
        Gives::First => first(),
        Gives::OptionalFirst => optional(first()),
        Gives::OptionalDyn => optional(Type::Dyn),
        Gives::Foreign(name) => Type::Foreign(name),
        Gives::OptionalForeign(name) => optional(Type::Foreign(name)),
        Gives::OptionalTexts => optional(Type::list(Type::String)),
        Gives::TextsByText => Type::map(Type::list(Type::String)),
    }
}

/// Whether a function of that name exists at all.
pub(super) fn is_known(name: &str) -> bool {
    named_format(name) || SIGNATURES.iter().any(|signature| signature.0 == name)
}

fn named_format(name: &str) -> bool {
    name.starts_with("format.") && name != "format.named"
}

/// What a call gives; none when no overload takes these arguments.
pub(super) fn result(of: Option<&Type>, name: &str, args: &[Type]) -> Option<Type> {
    if of.is_none() && named_format(name) && args.is_empty() {
        return Some(Type::Foreign(FORMAT));
    }
    let fits = |signature: &&Signature| {
        signature.0 == name
            && signature.2.len() == args.len()
            && match (signature.1, of) {
                (None, None) => true,
                (Some(wanted), Some(of)) => wanted.takes(of),
                _ => false,
            }
            && signature.2.iter().zip(args).all(|(wanted, arg)| wanted.takes(arg))
    };
    let mut found = SIGNATURES.iter().filter(fits);
    let signature = found.next()?;
    // Called on what is not known, several may be meant.
    if of == Some(&Type::Dyn) && found.next().is_some() {
        return Some(Type::Dyn);
    }
    Some(given(signature.3, of, args))
}
