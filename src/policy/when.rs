//! When a rule holds: days, hours and absolute ends, in a time zone, as a clock on the wall there shows them.
//!
//! Hours that daylight saving skips never come, so a window that lies in them does not open that day; hours that it
//! repeats hold twice. Nothing here asks what time it is.

use std::fmt;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// How many days ahead a change is looked for: first where it mostly is, then as far as one can be. Every week is like
/// the next one but for daylight saving, which may leave out the only window of a week, and not of two in a row.
const AHEAD: [i64; 2] = [2, 15];

/// `[policy.when]`. Empty: always.
#[derive(Clone, Debug, PartialEq)]
pub struct When {
    days: Days,
    hours: Option<Hours>,
    zone: TimeZone,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
}

/// Days of the week; never none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Days(u8);

/// From a minute of the day, to a minute that is no longer part of it. Where the end is not later than the beginning the
/// window goes over midnight, and belongs to the day on which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    from: u16,
    to: u16,
}

/// These are no hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HoursError {
    /// Not `HH:MM-HH:MM`.
    #[error("this is no range of hours")]
    Form,
    /// It begins where it ends.
    #[error("this range of hours is empty")]
    Empty,
}

impl Default for When {
    fn default() -> Self {
        Self { days: Days::ALL, hours: None, zone: TimeZone::UTC, after: None, before: None }
    }
}

impl When {
    /// The window of these days and hours in `zone`, between the two ends.
    pub fn new(
        days: Days,
        hours: Option<Hours>,
        zone: TimeZone,
        after: Option<Timestamp>,
        before: Option<Timestamp>,
    ) -> Self {
        Self { days, hours, zone, after, before }
    }

    /// Whether it holds at this time.
    pub fn holds(&self, now: Timestamp) -> bool {
        self.after.is_none_or(|after| now >= after)
            && self.before.is_none_or(|before| now < before)
            && (self.is_every_minute() || self.clock_holds(now))
    }

    /// The next time after `now` at which the answer of [`When::holds`] is another one; `None`: never.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        match self.after.filter(|after| now < *after) {
            _ if self.has_ended(now) => None,
            Some(after) if self.holds(after) => Some(after),
            Some(after) => self.next_change(after),
            None if self.is_every_minute() => self.before,
            None => {
                let found = AHEAD.iter().find_map(|days| self.change_within(*days, now));
                found.or_else(|| self.before.filter(|_| self.holds(now)))
            }
        }
    }

    /// As [`When::next_change`] between the absolute ends, if it comes at least a day before the end of those days; for
    /// nothing is overlooked there.
    fn change_within(&self, days: i64, now: Timestamp) -> Option<Timestamp> {
        let mut times = self.before.into_iter().collect();
        self.add_turns(now, days, &mut times);
        times.sort();
        let holds = self.holds(now);
        let found = times.into_iter().find(|time| *time > now && self.holds(*time) != holds);
        found.filter(|time| *time <= hours_after(now, (days - 1) * 24))
    }

    /// Whether it never holds again.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.before.is_some_and(|before| now >= before)
    }

    /// Whether `now` is outside of the absolute ends, not of the days and hours.
    fn is_outside_ends(&self, now: Timestamp) -> bool {
        self.after.is_some_and(|after| now < after) || self.before.is_some_and(|before| now >= before)
    }

    fn is_every_minute(&self) -> bool {
        self.days == Days::ALL && self.hours.is_none()
    }

    fn clock_holds(&self, now: Timestamp) -> bool {
        let local = self.zone.to_datetime(now);
        let today = self.days.has(local.weekday());
        let Some(Hours { from, to }) = self.hours else { return today };
        let minute = minute_of(local.hour(), local.minute());
        if from < to {
            return today && (from..to).contains(&minute);
        }
        today && minute >= from || self.days.has(local.weekday().previous()) && minute < to
    }

    /// Every time in the coming days at which the clock may go in or out: the edges of days and windows, both times they
    /// come where the clock is turned back, and the turns of the clock themselves.
    fn add_turns(&self, now: Timestamp, days: i64, times: &mut Vec<Timestamp>) {
        let today = self.zone.to_datetime(now).date();
        let edges = [0].into_iter().chain(self.hours.into_iter().flat_map(|hours| [hours.from, hours.to]));
        for edge in edges {
            for day in -1..=days {
                times.extend(self.instants(today, day + i64::from(edge / DAY), edge % DAY));
            }
        }
        let until = hours_after(now, days * 24);
        let turns = self.zone.following(now).map(|turn| turn.timestamp());
        times.extend(turns.take_while(|time| *time <= until));
    }

    fn instants(&self, today: Date, days: i64, minute: u16) -> impl Iterator<Item = Timestamp> {
        let at = today.checked_add(days.days()).ok();
        let at = at.map(|date| date.at((minute / 60) as i8, (minute % 60) as i8, 0, 0));
        let at = at.map(|local| self.zone.to_ambiguous_timestamp(local));
        let both = at.map(|at| [at.earlier(), at.later()]);
        both.into_iter().flatten().filter_map(Result::ok)
    }

    /// What this window is and what the clock shows there, for a denial: `Mon-Fri 09:00-18:00 Europe/Amsterdam, now 18:04`.
    pub fn told(&self, now: Timestamp) -> String {
        let (window, clock) = self.window_and_clock(now);
        window + &clock
    }

    /// The same in two parts: what the window is, and what the clock shows.
    pub(super) fn window_and_clock(&self, now: Timestamp) -> (String, String) {
        if self.is_outside_ends(now) {
            let end = match (self.after, self.before) {
                (Some(after), _) if now < after => format!("nothing before {}", to_the_minute(after)),
                (_, before) => format!("nothing after {}", to_the_minute(before.unwrap_or(now))),
            };
            return (end, String::new());
        }
        let local = self.zone.to_datetime(now);
        let day = match self.days.has(local.weekday()) {
            true => String::new(),
            false => format!("{} ", short(local.weekday())),
        };
        (self.to_string(), format!(", now {day}{:02}:{:02}", local.hour(), local.minute()))
    }
}

fn hours_after(now: Timestamp, hours: i64) -> Timestamp {
    now.saturating_add(hours.hours()).unwrap_or(Timestamp::MAX)
}

/// To the minute, in UTC.
pub(super) fn to_the_minute(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = (self.days != Days::ALL).then(|| self.days.to_string());
        let hours = self.hours.map(|hours| hours.to_string());
        let zone = (!self.is_every_minute()).then(|| self.zone.iana_name().unwrap_or("UTC").to_owned());
        let after = self.after.map(|after| format!("after {}", to_the_minute(after)));
        let before = self.before.map(|before| format!("before {}", to_the_minute(before)));
        let parts: Vec<String> = [days, hours, zone, after, before].into_iter().flatten().collect();
        match parts.is_empty() {
            true => f.write_str("always"),
            false => f.write_str(&parts.join(" ")),
        }
    }
}

const WEEK: [Weekday; 7] = [
    Weekday::Monday,
    Weekday::Tuesday,
    Weekday::Wednesday,
    Weekday::Thursday,
    Weekday::Friday,
    Weekday::Saturday,
    Weekday::Sunday,
];

impl Days {
    /// Every day.
    pub const ALL: Self = Self(0b111_1111);

    /// These days; `None` where there are none.
    pub fn of(days: impl IntoIterator<Item = Weekday>) -> Option<Self> {
        let bits = days.into_iter().fold(0, |bits, day| bits | bit(day));
        (bits != 0).then_some(Self(bits))
    }

    /// Whether this day is one of them.
    pub fn has(self, day: Weekday) -> bool {
        self.0 & bit(day) != 0
    }
}

impl fmt::Display for Days {
    /// `Mon-Fri`, `Mon,Wed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = &WEEK[..];
        let mut comma = "";
        while let Some(start) = rest.iter().position(|day| self.has(*day)) {
            let run = rest[start..].iter().take_while(|day| self.has(**day)).count();
            let (first, last) = (rest[start], rest[start + run - 1]);
            match run {
                1 => write!(f, "{comma}{}", short(first))?,
                2 => write!(f, "{comma}{},{}", short(first), short(last))?,
                _ => write!(f, "{comma}{}-{}", short(first), short(last))?,
            }
            comma = ",";
            rest = &rest[start + run..];
        }
        Ok(())
    }
}

fn bit(day: Weekday) -> u8 {
    1 << day.to_monday_zero_offset()
}

fn short(day: Weekday) -> &'static str {
    ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"][day.to_monday_zero_offset() as usize]
}

/// A day's short name as it is configured: `mon` to `sun`.
pub fn weekday(name: &str) -> Option<Weekday> {
    WEEK.into_iter().find(|day| short(*day).to_lowercase() == name)
}

fn minute_of(hour: i8, minute: i8) -> u16 {
    hour.unsigned_abs() as u16 * 60 + minute.unsigned_abs() as u16
}

impl Hours {
    /// `HH:MM-HH:MM`; the end may be `24:00`, or earlier than the beginning for a window over midnight.
    pub fn parse(text: &str) -> Result<Self, HoursError> {
        let (from, to) = text.split_once('-').ok_or(HoursError::Form)?;
        let (from, to) = (minutes(from)?, minutes(to)?);
        match (from, to) {
            (DAY, _) => Err(HoursError::Form),
            _ if from == to => Err(HoursError::Empty),
            _ => Ok(Self { from, to }),
        }
    }
}

fn minutes(text: &str) -> Result<u16, HoursError> {
    let (hour, minute) = text.split_once(':').ok_or(HoursError::Form)?;
    let two = |digits: &str| match digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_digit()) {
        true => digits.parse::<u16>().map_err(|_| HoursError::Form),
        false => Err(HoursError::Form),
    };
    match (two(hour)?, two(minute)?) {
        (24, 0) => Ok(DAY),
        (hour, minute) if hour < 24 && minute < 60 => Ok(hour * 60 + minute),
        _ => Err(HoursError::Form),
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, to / 60, to % 60)
    }
}

#[cfg(test)]
#[path = "when_tests.rs"]
mod tests;
