//! Functions of strings, times and durations.

use k8s_openapi::jiff::tz::TimeZone;
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::EvalError;
use super::eval::Budget;
use super::functions::failed;
use super::value::{Foreign, Value};
use crate::api::structural::go_float;

/// A duration as `google.protobuf.Duration` is written: seconds with a fraction.
pub(super) fn duration_text(duration: SignedDuration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos().unsigned_abs());
    if nanos == 0 {
        return format!("{seconds}s");
    }
    let fraction = format!("{nanos:09}");
    let sign = if duration.is_negative() && seconds == 0 { "-" } else { "" };
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// `string(value)`.
pub(super) fn to_text(value: &Value) -> Result<Value, EvalError> {
    Ok(Value::text(match value {
        Value::String(text) => text.to_string(),
        Value::Int(n) => n.to_string(),
        Value::Uint(n) => n.to_string(),
        Value::Double(n) => go_float(*n),
        Value::Bool(b) => b.to_string(),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => return failed("invalid UTF-8 in bytes, cannot convert to string"),
        },
        Value::Timestamp(time) => time.to_string(),
        Value::Duration(duration) => duration_text(*duration),
        Value::Foreign(foreign) => match &**foreign {
            Foreign::Quantity(quantity) => quantity.to_string(),
            Foreign::Ip(ip) => ip.to_string(),
            Foreign::Cidr(ip, length) => format!("{ip}/{length}"),
            _ => return failed("no such overload"),
        },
        _ => return failed("no such overload"),
    }))
}

fn position(of: &str, part: &str, from: usize) -> i64 {
    let chars: Vec<char> = of.chars().collect();
    let part: Vec<char> = part.chars().collect();
    if part.is_empty() {
        return i64::try_from(from.min(chars.len())).unwrap_or(-1);
    }
    let found = chars.windows(part.len()).enumerate().skip(from).find(|(_, window)| *window == part);
    found.and_then(|(at, _)| i64::try_from(at).ok()).unwrap_or(-1)
}

fn last_position(of: &str, part: &str) -> i64 {
    let chars: Vec<char> = of.chars().collect();
    let part: Vec<char> = part.chars().collect();
    if part.is_empty() {
        return i64::try_from(chars.len()).unwrap_or(-1);
    }
    let found = chars.windows(part.len()).rposition(|window| window == part);
    found.and_then(|at| i64::try_from(at).ok()).unwrap_or(-1)
}

/// Compiles a regular expression of an expression.
pub(super) fn regex(pattern: &str) -> Result<regex::Regex, EvalError> {
    regex::Regex::new(pattern).map_err(|error| EvalError::failed(format!("error parsing regexp: {error}")))
}

pub(super) fn call(
    of: Option<&Value>,
    name: &str,
    args: &[Value],
    budget: &mut Budget,
) -> Result<Option<Value>, EvalError> {
    match (of, name, args) {
        (None, "matches", [Value::String(text), Value::String(pattern)]) => {
            budget.spend(text.len() as u64 / 10 + pattern.len() as u64)?;
            Ok(Some(Value::Bool(regex(pattern)?.is_match(text))))
        }
        (Some(Value::String(text)), _, _) => {
            budget.spend(text.len() as u64 / 10)?;
            on_text(text, name, args)
        }
        (Some(Value::List(list)), "join", _) => join(list, args),
        (Some(Value::Timestamp(time)), _, _) => on_time(*time, name, args),
        (Some(Value::Duration(duration)), _, []) => Ok(Some(Value::Int(match name {
            "getHours" => duration.as_secs() / 3600,
            "getMinutes" => duration.as_secs() / 60,
            "getSeconds" => duration.as_secs(),
            "getMilliseconds" => i64::try_from(duration.as_millis() % 1000).unwrap_or_default(),
            _ => return Ok(None),
        }))),
        _ => Ok(None),
    }
}

fn join(list: &[Value], args: &[Value]) -> Result<Option<Value>, EvalError> {
    let separator = match args {
        [] => "",
        [Value::String(text)] => text,
        _ => return Ok(None),
    };
    let texts: Option<Vec<&str>> = list
        .iter()
        .map(|item| match item {
            Value::String(text) => Some(&**text),
            _ => None,
        })
        .collect();
    match texts {
        Some(texts) => Ok(Some(Value::text(texts.join(separator)))),
        None => failed("no such overload"),
    }
}

fn place(at: i64, length: usize) -> Result<usize, EvalError> {
    usize::try_from(at)
        .ok()
        .filter(|at| *at <= length)
        .ok_or_else(|| EvalError::failed(format!("index out of range: {at}")))
}

fn on_text(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, EvalError> {
    let length = || text.chars().count();
    Ok(Some(match (name, args) {
        ("contains", [Value::String(part)]) => Value::Bool(text.contains(&**part)),
        ("startsWith", [Value::String(part)]) => Value::Bool(text.starts_with(&**part)),
        ("endsWith", [Value::String(part)]) => Value::Bool(text.ends_with(&**part)),
        ("matches", [Value::String(pattern)]) => Value::Bool(regex(pattern)?.is_match(text)),
        ("charAt", [Value::Int(at)]) => {
            let at = place(*at, length())?;
            Value::text(text.chars().nth(at).map(String::from).unwrap_or_default())
        }
        ("indexOf", [Value::String(part)]) => Value::Int(position(text, part, 0)),
        ("indexOf", [Value::String(part), Value::Int(from)]) => {
            Value::Int(position(text, part, place(*from, length())?))
        }
        ("lastIndexOf", [Value::String(part)]) => Value::Int(last_position(text, part)),
        ("lowerAscii", []) => Value::text(text.to_ascii_lowercase()),
        ("upperAscii", []) => Value::text(text.to_ascii_uppercase()),
        ("trim", []) => Value::text(text.trim()),
        ("reverse", []) => Value::text(text.chars().rev().collect::<String>()),
        ("replace", [Value::String(old), Value::String(new)]) => Value::text(text.replace(&**old, new)),
        ("replace", [Value::String(old), Value::String(new), Value::Int(most)]) => {
            let most = usize::try_from(*most).unwrap_or(usize::MAX);
            Value::text(text.replacen(&**old, new, most))
        }
        ("split", [Value::String(separator)]) => split(text, separator, -1),
        ("split", [Value::String(separator), Value::Int(most)]) => split(text, separator, *most),
        ("substring", [Value::Int(from)]) => {
            let from = place(*from, length())?;
            Value::text(text.chars().skip(from).collect::<String>())
        }
        ("substring", [Value::Int(from), Value::Int(to)]) => {
            let (from, to) = (place(*from, length())?, place(*to, length())?);
            if from > to {
                return failed(format!("invalid substring range. start: {from}, end: {to}"));
            }
            Value::text(text.chars().skip(from).take(to - from).collect::<String>())
        }
        ("find", [Value::String(pattern)]) => {
            Value::text(regex(pattern)?.find(text).map(|found| found.as_str()).unwrap_or_default())
        }
        ("findAll", [Value::String(pattern)]) => find_all(text, pattern, usize::MAX)?,
        ("findAll", [Value::String(pattern), Value::Int(most)]) => {
            find_all(text, pattern, usize::try_from(*most).unwrap_or(usize::MAX))?
        }
        ("format", [Value::List(args)]) => Value::text(format(text, args)?),
        _ => return Ok(None),
    }))
}

fn split(text: &str, separator: &str, most: i64) -> Value {
    let parts: Vec<Value> = match usize::try_from(most) {
        Ok(0) => Vec::new(),
        most if separator.is_empty() => {
            let most = most.unwrap_or(usize::MAX);
            let single = text.chars().count().min(most.saturating_sub(1));
            let mut parts: Vec<Value> =
                text.chars().take(single).map(|c| Value::text(c.to_string())).collect();
            let rest: String = text.chars().skip(single).collect();
            if !rest.is_empty() {
                parts.push(Value::text(rest));
            }
            parts
        }
        Ok(most) => text.splitn(most, separator).map(Value::text).collect(),
        Err(_) => text.split(separator).map(Value::text).collect(),
    };
    Value::list(parts)
}

fn find_all(text: &str, pattern: &str, most: usize) -> Result<Value, EvalError> {
    let found = regex(pattern)?.find_iter(text).take(most).map(|found| Value::text(found.as_str())).collect();
    Ok(Value::list(found))
}

/// `"%s has %d".format([…])`.
fn format(text: &str, args: &[Value]) -> Result<String, EvalError> {
    let mut out = String::new();
    let mut args = args.iter();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            precision = digits.parse::<usize>().ok();
        }
        let Some(verb) = chars.next() else { return failed("unexpected end of string") };
        let Some(value) = args.next() else { return failed("index out of range") };
        out.push_str(&shown(verb, value, precision)?);
    }
    Ok(out)
}

fn shown(verb: char, value: &Value, precision: Option<usize>) -> Result<String, EvalError> {
    #[allow(clippy::cast_precision_loss, reason = "as in Go")]
    let float = |value: &Value| match value {
        Value::Double(n) => Some(*n),
        Value::Int(n) => Some(*n as f64),
        Value::Uint(n) => Some(*n as f64),
        _ => None,
    };
    let text = match (verb, value) {
        ('s', value) => plain(value),
        ('d', Value::Int(n)) => n.to_string(),
        ('d', Value::Uint(n)) => n.to_string(),
        ('x', Value::Int(n)) => format!("{n:x}"),
        ('X', Value::Int(n)) => format!("{n:X}"),
        ('x', Value::Uint(n)) => format!("{n:x}"),
        ('X', Value::Uint(n)) => format!("{n:X}"),
        ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('o', Value::Int(n)) => format!("{n:o}"),
        ('b', Value::Int(n)) => format!("{n:b}"),
        ('b', Value::Bool(b)) => u8::from(*b).to_string(),
        ('f', value) => match float(value) {
            Some(n) => format!("{n:.*}", precision.unwrap_or(6)),
            None => return failed("fixed-point clause can only be used on doubles"),
        },
        ('e', value) => match float(value) {
            Some(n) => format!("{n:.*e}", precision.unwrap_or(6)),
            None => return failed("scientific clause can only be used on doubles"),
        },
        _ => {
            return failed(format!(
                "could not parse formatting clause: unrecognized formatting clause \"{verb}\""
            ));
        }
    };
    Ok(text)
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::List(list) => format!("[{}]", list.iter().map(plain).collect::<Vec<_>>().join(", ")),
        Value::Map(map) => {
            let entries =
                map.iter().map(|(key, value)| format!("{}: {}", plain(&Value::from(key)), plain(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Type(name) => name.to_string(),
        other => match to_text(other) {
            Ok(Value::String(text)) => text.to_string(),
            _ => String::new(),
        },
    }
}

fn on_time(time: Timestamp, name: &str, args: &[Value]) -> Result<Option<Value>, EvalError> {
    let zone = match args {
        [] => TimeZone::UTC,
        [Value::String(name)] => match offset(name).or_else(|| TimeZone::get(name).ok()) {
            Some(zone) => zone,
            None => return failed(format!("unknown time zone {name}")),
        },
        _ => return Ok(None),
    };
    let local = time.to_zoned(zone);
    Ok(Some(match name {
        "getFullYear" => Value::Int(local.year().into()),
        "getMonth" => Value::Int(i64::from(local.month()) - 1),
        "getDayOfMonth" => Value::Int(i64::from(local.day()) - 1),
        "getDate" => Value::Int(local.day().into()),
        "getDayOfYear" => Value::Int(i64::from(local.day_of_year()) - 1),
        "getDayOfWeek" => Value::Int(local.weekday().to_sunday_zero_offset().into()),
        "getHours" => Value::Int(local.hour().into()),
        "getMinutes" => Value::Int(local.minute().into()),
        "getSeconds" => Value::Int(local.second().into()),
        "getMilliseconds" => Value::Int(local.millisecond().into()),
        _ => return Ok(None),
    }))
}

/// A time zone like `-07:00`.
fn offset(name: &str) -> Option<TimeZone> {
    let (sign, rest) = match name.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, name.strip_prefix('+').unwrap_or(name)),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let seconds = hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60;
    k8s_openapi::jiff::tz::Offset::from_seconds(sign * seconds).ok().map(TimeZone::fixed)
}
