//! The libraries that Kubernetes adds: lists, sets, quantities, URLs, addresses, versions, formats, the authorizer.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::EvalError;
use super::eval::Budget;
use super::functions::failed;
use super::value::{Foreign, Key, Question, Url, Value};
use crate::api::names;
use crate::api::quantity::Quantity;
use crate::api::structural::format_holds;

pub(super) fn call(
    of: Option<&Value>,
    name: &str,
    args: &[Value],
    budget: &mut Budget,
) -> Result<Option<Value>, EvalError> {
    match of {
        Some(Value::List(list)) => {
            budget.spend(list.len() as u64 / 10)?;
            on_list(list, name, args)
        }
        Some(Value::Foreign(foreign)) => on_foreign(foreign, name, args),
        Some(_) => Ok(None),
        None => made(name, args),
    }
}

fn made(name: &str, args: &[Value]) -> Result<Option<Value>, EvalError> {
    let one = match args {
        [Value::String(text)] => Some(&**text),
        _ => None,
    };
    Ok(Some(match (name, one) {
        ("quantity", Some(text)) => match Quantity::parse(text) {
            Ok(quantity) => Value::foreign(Foreign::Quantity(quantity)),
            Err(error) => return failed(error.to_string()),
        },
        ("isQuantity", Some(text)) => Value::Bool(Quantity::parse(text).is_ok()),
        ("url", Some(text)) => match parse_url(text) {
            Some(url) => Value::foreign(Foreign::Url(url)),
            None => {
                return failed(format!(
                    "URL parse error during conversion from string: parse {text:?}: invalid URI for request"
                ));
            }
        },
        ("isURL", Some(text)) => Value::Bool(parse_url(text).is_some()),
        ("ip", Some(text)) => match parse_ip(text) {
            Some(ip) => Value::foreign(Foreign::Ip(ip)),
            None => {
                return failed(format!(
                    "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
                ));
            }
        },
        ("isIP", Some(text)) => Value::Bool(parse_ip(text).is_some()),
        ("ip.isCanonical", Some(text)) => match parse_ip(text) {
            Some(ip) => Value::Bool(ip.to_string() == text),
            None => return failed(format!("IP Address {text:?} parse error during conversion from string")),
        },
        ("cidr", Some(text)) => match parse_cidr(text) {
            Some((ip, length)) => Value::foreign(Foreign::Cidr(ip, length)),
            None => {
                return failed(format!(
                    "network address parse error during conversion from string: netip.ParsePrefix({text:?})"
                ));
            }
        },
        ("isCIDR", Some(text)) => Value::Bool(parse_cidr(text).is_some()),
        ("semver", Some(text)) => match parse_semver(text) {
            Some(version) => Value::foreign(version),
            None => return failed("No Major.Minor.Patch elements found"),
        },
        ("isSemver", Some(text)) => Value::Bool(parse_semver(text).is_some()),
        ("format.named", Some(text)) => {
            let known = FORMATS.iter().any(|(own, _)| *own == text);
            if known {
                Value::some(Value::foreign(Foreign::Format(text.into())))
            } else {
                Value::Optional(None)
            }
        }
        ("sets.contains" | "sets.equivalent" | "sets.intersects", _) => return sets(name, args),
        ("math.greatest" | "math.least", _) => return extreme(name == "math.greatest", args),
        (name, None) => match (name.strip_prefix("format."), args) {
            (Some(named), []) if FORMATS.iter().any(|(own, _)| *own == named) => {
                Value::foreign(Foreign::Format(named.into()))
            }
            _ => return Ok(None),
        },
        _ => return Ok(None),
    }))
}

fn extreme(greatest: bool, args: &[Value]) -> Result<Option<Value>, EvalError> {
    let list = match args {
        [Value::List(list)] => list.as_slice(),
        args => args,
    };
    pick(list, greatest).map(Some)
}

fn pick(list: &[Value], greatest: bool) -> Result<Value, EvalError> {
    let mut items = list.iter();
    let Some(mut best) = items.next() else {
        return failed(format!("{} called on empty list", if greatest { "max" } else { "min" }));
    };
    for item in items {
        let wanted = if greatest { Ordering::Greater } else { Ordering::Less };
        match item.compare(best) {
            Some(order) if order == wanted => best = item,
            Some(_) => {}
            None => return failed("no such overload"),
        }
    }
    Ok(best.clone())
}

fn sets(name: &str, args: &[Value]) -> Result<Option<Value>, EvalError> {
    let [Value::List(a), Value::List(b)] = args else { return failed("no such overload") };
    let all =
        |of: &[Value], within: &[Value]| of.iter().all(|item| within.iter().any(|known| known.equals(item)));
    Ok(Some(Value::Bool(match name {
        "sets.contains" => all(b, a),
        "sets.equivalent" => all(a, b) && all(b, a),
        _ => a.iter().any(|item| b.iter().any(|known| known.equals(item))),
    })))
}

fn on_list(list: &Arc<Vec<Value>>, name: &str, args: &[Value]) -> Result<Option<Value>, EvalError> {
    let position = |at: Option<usize>| Value::Int(at.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1));
    Ok(Some(match (name, args) {
        ("isSorted", []) => Value::Bool(
            list.windows(2)
                .all(|pair| matches!(pair[0].compare(&pair[1]), Some(Ordering::Less | Ordering::Equal))),
        ),
        ("sum", []) => {
            let mut items = list.iter();
            let Some(mut total) = items.next().cloned() else { return Ok(Some(Value::Int(0))) };
            for item in items {
                total = super::operators::binary("+", &total, item, &mut Budget::new(u64::MAX))?;
            }
            total
        }
        ("min", []) => pick(list, false)?,
        ("max", []) => pick(list, true)?,
        ("indexOf", [wanted]) => position(list.iter().position(|item| item.equals(wanted))),
        ("lastIndexOf", [wanted]) => position(list.iter().rposition(|item| item.equals(wanted))),
        ("slice", [Value::Int(from), Value::Int(to)]) => {
            let range = usize::try_from(*from).ok().zip(usize::try_from(*to).ok());
            match range.and_then(|(from, to)| list.get(from..to)) {
                Some(part) => Value::list(part.to_vec()),
                None => return failed(format!("cannot slice({from}, {to}), list is length {}", list.len())),
            }
        }
        ("flatten", []) => Value::list(
            list.iter()
                .flat_map(|item| match item {
                    Value::List(inner) => inner.to_vec(),
                    other => vec![other.clone()],
                })
                .collect(),
        ),
        ("distinct", []) => {
            let mut kept: Vec<Value> = Vec::new();
            for item in list.iter() {
                if !kept.iter().any(|known| known.equals(item)) {
                    kept.push(item.clone());
                }
            }
            Value::list(kept)
        }
        ("reverse", []) => Value::list(list.iter().rev().cloned().collect()),
        ("sort", []) => {
            let mut sorted = list.to_vec();
            sorted.sort_by(|a, b| a.compare(b).unwrap_or(Ordering::Equal));
            Value::list(sorted)
        }
        ("first", []) => list.first().map_or(Value::Optional(None), |item| Value::some(item.clone())),
        ("last", []) => list.last().map_or(Value::Optional(None), |item| Value::some(item.clone())),
        _ => return Ok(None),
    }))
}

fn on_foreign(foreign: &Foreign, name: &str, args: &[Value]) -> Result<Option<Value>, EvalError> {
    match foreign {
        Foreign::Quantity(quantity) => on_quantity(quantity, name, args),
        Foreign::Url(url) => Ok(on_url(url, name)),
        Foreign::Ip(ip) => Ok(on_ip(*ip, name)),
        Foreign::Cidr(ip, length) => Ok(on_cidr(*ip, *length, name, args)),
        Foreign::Semver(..) => Ok(on_semver(foreign, name, args)),
        Foreign::Format(format) => Ok(match (name, args) {
            ("validate", [Value::String(text)]) => Some(validated(format, text)),
            _ => None,
        }),
        Foreign::Authorizer(rights, question) => Ok(asked(rights, question, name, args)),
        Foreign::Decision(allowed, reason) => Ok(match name {
            "allowed" => Some(Value::Bool(*allowed)),
            "reason" => Some(Value::text(reason.as_str())),
            "errored" => Some(Value::Bool(false)),
            "error" => Some(Value::text("")),
            _ => None,
        }),
    }
}

fn on_quantity(quantity: &Quantity, name: &str, args: &[Value]) -> Result<Option<Value>, EvalError> {
    let other = match args {
        [Value::Foreign(other)] => match &**other {
            Foreign::Quantity(other) => Some(*other),
            _ => None,
        },
        [Value::Int(number)] => Some(Quantity::new(*number, quantity.format())),
        _ => None,
    };
    Ok(Some(match (name, other) {
        ("isInteger", None) => Value::Bool(quantity.as_i64().is_some()),
        ("asInteger", None) => match quantity.as_i64() {
            Some(number) => Value::Int(number),
            None => return failed("cannot convert value to integer"),
        },
        ("asApproximateFloat", None) => Value::Double(quantity.as_f64()),
        ("sign", None) => Value::Int(match quantity.sign() {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }),
        ("add", Some(other)) => Value::foreign(Foreign::Quantity(quantity.add(&other))),
        ("sub", Some(other)) => Value::foreign(Foreign::Quantity(quantity.sub(&other))),
        ("isLessThan", Some(other)) => Value::Bool(*quantity < other),
        ("isGreaterThan", Some(other)) => Value::Bool(*quantity > other),
        ("compareTo", Some(other)) => Value::Int(match quantity.cmp(&other) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }),
        _ => return Ok(None),
    }))
}

/// A URL with a scheme and a host, or an absolute path.
fn parse_url(text: &str) -> Option<Url> {
    let text = text.split('#').next().unwrap_or_default();
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return None;
    }
    let (before, query) = text.split_once('?').unwrap_or((text, ""));
    let (scheme, host, path) = match before.split_once("://") {
        Some((scheme, rest)) => {
            let at = rest.find('/').unwrap_or(rest.len());
            let host = rest[..at].rsplit('@').next().unwrap_or_default();
            let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
            if !valid {
                return None;
            }
            (scheme, host, &rest[at..])
        }
        None if before.starts_with('/') => ("", "", before),
        None => return None,
    };
    Some(Url {
        scheme: scheme.to_lowercase(),
        host: host.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
    })
}

fn on_url(url: &Url, name: &str) -> Option<Value> {
    let bracket = url.host.rfind(']');
    let colon = url.host.rfind(':').filter(|at| bracket.is_none_or(|bracket| *at > bracket));
    let hostname = &url.host[..colon.unwrap_or(url.host.len())];
    Some(match name {
        "getScheme" => Value::text(url.scheme.as_str()),
        "getHost" => Value::text(url.host.as_str()),
        "getHostname" => Value::text(hostname.trim_start_matches('[').trim_end_matches(']')),
        "getPort" => Value::text(colon.map_or("", |at| &url.host[at + 1..])),
        "getEscapedPath" => Value::text(url.path.as_str()),
        "getQuery" => {
            let mut values: BTreeMap<Key, Vec<Value>> = BTreeMap::new();
            for pair in url.query.split('&').filter(|pair| !pair.is_empty()) {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                values.entry(Key::String(key.into())).or_default().push(Value::text(value));
            }
            Value::Map(Arc::new(values.into_iter().map(|(key, list)| (key, Value::list(list))).collect()))
        }
        _ => return None,
    })
}

fn parse_ip(text: &str) -> Option<IpAddr> {
    let ip: IpAddr = text.parse().ok()?;
    let mapped = matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    (!mapped).then_some(ip)
}

fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, length) = text.split_once('/')?;
    let ip = parse_ip(ip)?;
    let length: u8 = length.parse().ok()?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    (length <= most).then_some((ip, length))
}

fn on_ip(ip: IpAddr, name: &str) -> Option<Value> {
    Some(match name {
        "family" => Value::Int(if ip.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Value::Bool(ip.is_unspecified()),
        "isLoopback" => Value::Bool(ip.is_loopback()),
        "isLinkLocalMulticast" => Value::Bool(match ip {
            IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
            IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
        }),
        "isLinkLocalUnicast" => Value::Bool(match ip {
            IpAddr::V4(v4) => v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_unicast_link_local(),
        }),
        "isGlobalUnicast" => Value::Bool(match ip {
            IpAddr::V4(v4) => {
                !(v4.is_unspecified()
                    || v4.is_loopback()
                    || v4.is_multicast()
                    || v4.is_link_local()
                    || v4.is_broadcast())
            }
            IpAddr::V6(v6) => {
                !(v6.is_unspecified() || v6.is_loopback() || v6.is_multicast() || v6.is_unicast_link_local())
            }
        }),
        _ => return None,
    })
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn masked(ip: IpAddr, length: u8) -> u128 {
    if length == 0 { 0 } else { bits(ip) & (u128::MAX << (128 - u32::from(length))) }
}

fn on_cidr(ip: IpAddr, length: u8, name: &str, args: &[Value]) -> Option<Value> {
    let inside = |other: IpAddr, least: u8| {
        other.is_ipv4() == ip.is_ipv4() && least >= length && masked(other, length) == masked(ip, length)
    };
    Some(match (name, args) {
        ("containsIP", [Value::String(text)]) => Value::Bool(inside(parse_ip(text)?, u8::MAX)),
        ("containsCIDR", [Value::String(text)]) => {
            let (other, least) = parse_cidr(text)?;
            Value::Bool(inside(other, least))
        }
        ("containsIP" | "containsCIDR", [Value::Foreign(other)]) => match &**other {
            Foreign::Ip(other) => Value::Bool(inside(*other, u8::MAX)),
            Foreign::Cidr(other, least) => Value::Bool(inside(*other, *least)),
            _ => return None,
        },
        ("ip", []) => Value::foreign(Foreign::Ip(ip)),
        ("prefixLength", []) => Value::Int(length.into()),
        ("masked", []) => {
            let masked = masked(ip, length);
            let network = match ip {
                IpAddr::V4(_) => IpAddr::from(u32::try_from(masked >> 96).unwrap_or_default().to_be_bytes()),
                IpAddr::V6(_) => IpAddr::from(masked.to_be_bytes()),
            };
            Value::foreign(Foreign::Cidr(network, length))
        }
        _ => return None,
    })
}

fn parse_semver(text: &str) -> Option<Foreign> {
    let text = text.split('+').next().unwrap_or_default();
    let (numbers, prerelease) = text.split_once('-').unwrap_or((text, ""));
    let mut parts = numbers.split('.').map(|part| {
        let plain = part == "0" || !part.starts_with('0');
        part.parse::<u64>().ok().filter(|_| plain && part.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let (major, minor, patch) = (parts.next()??, parts.next()??, parts.next()??);
    (parts.next().is_none()).then(|| Foreign::Semver(major, minor, patch, prerelease.to_owned()))
}

fn on_semver(own: &Foreign, name: &str, args: &[Value]) -> Option<Value> {
    let Foreign::Semver(major, minor, patch, prerelease) = own else { return None };
    let number = |n: u64| Value::Int(i64::try_from(n).unwrap_or(i64::MAX));
    match name {
        "major" => return Some(number(*major)),
        "minor" => return Some(number(*minor)),
        "patch" => return Some(number(*patch)),
        _ => {}
    }
    let [Value::Foreign(other)] = args else { return None };
    let Foreign::Semver(a, b, c, other_prerelease) = &**other else { return None };
    let order = (major, minor, patch).cmp(&(a, b, c)).then_with(|| {
        match (prerelease.is_empty(), other_prerelease.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => prereleases(prerelease, other_prerelease),
        }
    });
    Some(match name {
        "isLessThan" => Value::Bool(order.is_lt()),
        "isGreaterThan" => Value::Bool(order.is_gt()),
        "compareTo" => Value::Int(order as i64),
        _ => return None,
    })
}

fn prereleases(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        let order = match (a.next(), b.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(a), Some(b)) => match (a.parse::<u64>(), b.parse::<u64>()) {
                (Ok(a), Ok(b)) => a.cmp(&b),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => a.cmp(b),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

type Check = fn(&str) -> Vec<String>;

fn prefixed(check: Check) -> impl Fn(&str) -> Vec<String> {
    move |text| check(&names::mask_trailing_dash(text))
}

fn of_format(format: &'static str, why: &'static str) -> impl Fn(&str) -> Vec<String> {
    move |text| if format_holds(format, text) { Vec::new() } else { vec![why.to_owned()] }
}

/// What is wrong with a text of a format; nothing if it holds.
type Judge = fn(&str) -> Vec<String>;

/// The formats that have names.
const FORMATS: [(&str, Judge); 13] = [
    ("dns1123Label", names::is_dns1123_label),
    ("dns1123Subdomain", names::is_dns1123_subdomain),
    ("dns1035Label", names::is_dns1035_label),
    ("qualifiedName", names::is_qualified_name),
    ("labelValue", names::is_label_value),
    ("dns1123LabelPrefix", |text| prefixed(names::is_dns1123_label)(text)),
    ("dns1123SubdomainPrefix", |text| prefixed(names::is_dns1123_subdomain)(text)),
    ("dns1035LabelPrefix", |text| prefixed(names::is_dns1035_label)(text)),
    ("uri", |text| of_format("uri", "invalid URI")(text)),
    ("uuid", |text| of_format("uuid", "does not match the UUID format")(text)),
    ("byte", |text| of_format("byte", "invalid base64")(text)),
    ("date", |text| of_format("date", "invalid date")(text)),
    ("datetime", |text| of_format("date-time", "invalid datetime")(text)),
];

fn validated(format: &str, text: &str) -> Value {
    let check = FORMATS.iter().find(|(own, _)| *own == format).map(|(_, check)| check);
    let messages = check.map_or_else(Vec::new, |check| check(text));
    if messages.is_empty() {
        return Value::Optional(None);
    }
    Value::some(Value::list(messages.into_iter().map(Value::text).collect()))
}

fn asked(
    rights: &Arc<dyn super::value::Rights>,
    question: &Question,
    name: &str,
    args: &[Value],
) -> Option<Value> {
    let mut next = question.clone();
    let texts: Option<Vec<String>> = args
        .iter()
        .map(|arg| match arg {
            Value::String(text) => Some(text.to_string()),
            _ => None,
        })
        .collect();
    match (name, texts?.as_slice()) {
        ("path", [path]) => next.path = path.clone(),
        ("group", [group]) => next.group = group.clone(),
        ("resource", [resource]) => next.resource = resource.clone(),
        ("subresource", [subresource]) => next.subresource = subresource.clone(),
        ("namespace", [namespace]) => next.namespace = namespace.clone(),
        ("name", [name]) => next.name = name.clone(),
        ("serviceAccount", [namespace, name]) => next.account = Some((namespace.clone(), name.clone())),
        ("check", [verb]) => {
            next.verb = verb.clone();
            let (allowed, reason) = rights.check(&next);
            return Some(Value::foreign(Foreign::Decision(allowed, reason)));
        }
        _ => return None,
    }
    Some(Value::foreign(Foreign::Authorizer(rights.clone(), next)))
}
