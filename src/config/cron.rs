//! Schedules in the five fields of cron: minute, hour, day of the month, month, day of the week; in UTC.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Of two restricted kinds of day, one that matches is enough.
    either_day: bool,
}

impl Schedule {
    /// Reads `30 4 * * 1-5`, `*/15 * * * *`, `0 0 1,15 * *`, or one of `@hourly`, `@daily`, `@weekly`, `@monthly`.
    ///
    /// # Errors
    /// The rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = match text {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            other => other,
        };
        let fields: Vec<_> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err("a schedule has five fields: minute, hour, day, month, day of the week".to_owned());
        };
        let mut week = field(weekdays, 0, 7)?;
        // Sunday is 0 and 7.
        week |= week >> 7 & 1;
        Ok(Self {
            minutes: field(minutes, 0, 59)?,
            hours: field(hours, 0, 23)?,
            days: field(days, 1, 31)?,
            months: field(months, 1, 12)?,
            weekdays: week,
            either_day: !days.starts_with('*') && !weekdays.starts_with('*'),
        })
    }

    /// The first time after `now`; `None` when there is none within five years (the 30th of February).
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        let start = now.to_zoned(TimeZone::UTC).datetime();
        let mut at =
            start.with().second(0).subsec_nanosecond(0).build().ok()?.checked_add(1.minute()).ok()?;
        let end = start.checked_add(5.years()).ok()?;
        while at < end {
            at = if !self.day_matches(at) {
                at.with().hour(0).minute(0).build().ok()?.checked_add(1.day()).ok()?
            } else if !has(self.hours, at.hour()) {
                at.with().minute(0).build().ok()?.checked_add(1.hour()).ok()?
            } else if !has(self.minutes, at.minute()) {
                at.checked_add(1.minute()).ok()?
            } else {
                return TimeZone::UTC.to_timestamp(at).ok();
            };
        }
        None
    }

    fn day_matches(&self, at: DateTime) -> bool {
        let day = has(self.days, at.day());
        let weekday = has(self.weekdays, at.weekday().to_sunday_zero_offset());
        has(self.months, at.month()) && if self.either_day { day || weekday } else { day && weekday }
    }
}

fn has(set: u64, value: i8) -> bool {
    set >> value & 1 == 1
}

/// The values of one field, as bits.
fn field(text: &str, least: u32, most: u32) -> Result<u64, String> {
    let wrong =
        || format!("{text:?} is not made of numbers from {least} to {most}, such as *, */5, 1-5 or 1,3");
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse::<u32>().ok().filter(|s| *s > 0).ok_or_else(wrong)?),
            None => (part, 1),
        };
        let number = |text: &str| text.parse().ok().filter(|n| (least..=most).contains(n)).ok_or_else(wrong);
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (least, most),
            Some((from, to)) => (number(from)?, number(to)?),
            None if part.contains('/') => (number(range)?, most),
            None => (number(range)?, number(range)?),
        };
        if from > to {
            return Err(wrong());
        }
        (from..=to).step_by(step as usize).for_each(|value| set |= 1 << value);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_time_follows_from_the_fields() {
        let cases = [
            ("0 */12 * * *", "2026-08-01T11:59:30Z", "2026-08-01T12:00:00Z"),
            ("0 */12 * * *", "2026-08-01T12:00:00Z", "2026-08-02T00:00:00Z"),
            ("*/15 * * * *", "2026-08-01T12:46:00Z", "2026-08-01T13:00:00Z"),
            ("30 4 * * 1-5", "2026-08-01T12:00:00Z", "2026-08-03T04:30:00Z"),
            ("0 0 1,15 * *", "2026-08-02T00:00:00Z", "2026-08-15T00:00:00Z"),
            ("0 0 13 * 5", "2026-08-08T00:00:00Z", "2026-08-13T00:00:00Z"),
            ("5 0 29 2 *", "2026-08-08T00:00:00Z", "2028-02-29T00:05:00Z"),
            ("@weekly", "2026-08-01T12:00:00Z", "2026-08-02T00:00:00Z"),
            ("0 0 * * 7", "2026-08-01T12:00:00Z", "2026-08-02T00:00:00Z"),
        ];
        for (schedule, now, expected) in cases {
            let next = Schedule::parse(schedule).unwrap().next(now.parse().unwrap());
            assert_eq!(next, Some(expected.parse().unwrap()), "{schedule} after {now}");
        }
        assert_eq!(Schedule::parse("0 0 30 2 *").unwrap().next(Timestamp::UNIX_EPOCH), None);
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in
            ["", "* * * *", "60 * * * *", "* * 0 * *", "*/0 * * * *", "5-1 * * * *", "a * * * *", "@often"]
        {
            assert!(Schedule::parse(text).is_err(), "{text}");
        }
    }
}
