//! Tests of windows: tables with the clock's odd days, and a scan of every minute that must agree.

use proptest::prelude::*;

use super::*;

const AMSTERDAM: &str = "Europe/Amsterdam";
const NEW_YORK: &str = "America/New_York";
/// Turns its clock by half an hour.
const LORD_HOWE: &str = "Australia/Lord_Howe";

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn days(names: &str) -> Days {
    match names {
        "" => Days::ALL,
        names => Days::of(names.split(' ').map(|name| weekday(name).unwrap())).unwrap(),
    }
}

fn window(names: &str, hours: &str, zone: &str) -> When {
    let hours = (!hours.is_empty()).then(|| Hours::parse(hours).unwrap());
    When::new(days(names), hours, TimeZone::get(zone).unwrap(), None, None)
}

#[test]
fn hours_are_read_strictly() {
    for (text, expected) in [
        ("09:00-18:00", Ok("09:00-18:00")),
        ("22:00-06:00", Ok("22:00-06:00")),
        ("00:00-24:00", Ok("00:00-24:00")),
        ("18:00-24:00", Ok("18:00-24:00")),
        ("18:00-00:00", Ok("18:00-00:00")),
        ("23:59-00:00", Ok("23:59-00:00")),
        ("09:00-09:00", Err(HoursError::Empty)),
        ("00:00-00:00", Err(HoursError::Empty)),
        ("24:00-09:00", Err(HoursError::Form)),
        ("24:00-24:00", Err(HoursError::Form)),
        ("9:00-18:00", Err(HoursError::Form)),
        ("09:00-24:01", Err(HoursError::Form)),
        ("09:60-18:00", Err(HoursError::Form)),
        ("25:00-18:00", Err(HoursError::Form)),
        ("09:00 - 18:00", Err(HoursError::Form)),
        ("+9:00-18:00", Err(HoursError::Form)),
        ("09:00:00-18:00", Err(HoursError::Form)),
        ("09:00", Err(HoursError::Form)),
        ("", Err(HoursError::Form)),
    ] {
        let got = Hours::parse(text).map(|hours| hours.to_string());
        assert_eq!(got, expected.map(str::to_owned), "{text:?}");
    }
}

#[test]
fn days_are_named_and_shown() {
    assert_eq!(Days::of([]), None);
    assert_eq!(
        (weekday("mon"), weekday("Mon"), weekday("monday"), weekday("")),
        (Some(Weekday::Monday), None, None, None)
    );
    for (names, expected) in [
        ("mon tue wed thu fri", "Mon-Fri"),
        ("mon wed", "Mon,Wed"),
        ("sat sun", "Sat,Sun"),
        ("sun mon", "Mon,Sun"),
        ("mon tue thu fri sat", "Mon,Tue,Thu-Sat"),
        ("", "Mon-Sun"),
    ] {
        assert_eq!(days(names).to_string(), expected, "{names}");
    }
}

#[test]
fn a_window_holds_as_a_clock_on_the_wall_shows() {
    let week = "mon tue wed thu fri";
    for (names, hours, zone, times) in [
        // 2026-01-05 is a Monday. Amsterdam is one hour ahead in winter, two in summer.
        (
            week,
            "09:00-18:00",
            AMSTERDAM,
            &[
                ("2026-01-05T07:59:59Z", false),
                ("2026-01-05T08:00:00Z", true),
                ("2026-01-05T16:59:59.999Z", true),
                ("2026-01-05T17:00:00Z", false),
                ("2026-07-06T07:00:00Z", true),
                ("2026-07-06T16:00:00Z", false),
                ("2026-01-04T12:00:00Z", false),
            ][..],
        ),
        // A day alone, in its zone.
        (
            "mon",
            "",
            NEW_YORK,
            &[
                ("2026-01-05T04:59:59Z", false),
                ("2026-01-05T05:00:00Z", true),
                ("2026-01-06T04:59:59Z", true),
                ("2026-01-06T05:00:00Z", false),
            ],
        ),
        // Over midnight: it belongs to the day on which it begins.
        (
            "fri",
            "22:00-06:00",
            AMSTERDAM,
            &[
                ("2026-01-09T20:59:59Z", false),
                ("2026-01-09T21:00:00Z", true),
                ("2026-01-10T04:59:59Z", true),
                ("2026-01-10T05:00:00Z", false),
                ("2026-01-10T21:00:00Z", false),
                ("2026-01-09T04:00:00Z", false),
            ],
        ),
        // Until the end of the day, written both ways.
        ("mon", "18:00-24:00", "UTC", &[("2026-01-05T23:59:59Z", true), ("2026-01-06T00:00:00Z", false)]),
        ("mon", "18:00-00:00", "UTC", &[("2026-01-05T23:59:59Z", true), ("2026-01-06T00:00:00Z", false)]),
        ("mon", "00:00-24:00", "UTC", &[("2026-01-05T00:00:00Z", true), ("2026-01-06T00:00:00Z", false)]),
        // The clock goes from 02:00 to 03:00 at 01:00 UTC on 29 March: half of 01:30-02:30 does not come.
        (
            "",
            "01:30-02:30",
            AMSTERDAM,
            &[
                ("2026-03-29T00:29:59Z", false),
                ("2026-03-29T00:30:00Z", true),
                ("2026-03-29T00:59:59Z", true),
                ("2026-03-29T01:00:00Z", false),
            ],
        ),
        ("", "02:00-03:00", AMSTERDAM, &[("2026-03-29T00:59:59Z", false), ("2026-03-29T01:00:00Z", false)]),
        // From 03:00 back to 02:00 at 01:00 UTC on 25 October: hours that come twice hold twice.
        (
            "",
            "02:15-02:45",
            AMSTERDAM,
            &[
                ("2026-10-25T00:14:59Z", false),
                ("2026-10-25T00:15:00Z", true),
                ("2026-10-25T00:45:00Z", false),
                ("2026-10-25T01:15:00Z", true),
                ("2026-10-25T01:45:00Z", false),
            ],
        ),
        // New York's clock goes forward on 8 March at 07:00 UTC and back on 1 November at 06:00 UTC.
        (
            "sun",
            "01:30-03:30",
            NEW_YORK,
            &[
                ("2026-03-08T06:30:00Z", true),
                ("2026-03-08T07:29:59Z", true),
                ("2026-03-08T07:30:00Z", false),
                ("2026-11-01T05:30:00Z", true),
                ("2026-11-01T06:00:00Z", false),
                ("2026-11-01T06:30:00Z", true),
                ("2026-11-01T08:29:59Z", true),
                ("2026-11-01T08:30:00Z", false),
            ],
        ),
        // Lord Howe's goes back from 02:00 to 01:30 on 5 April at 15:00 UTC of the day before.
        (
            "sun",
            "01:30-02:00",
            LORD_HOWE,
            &[
                ("2026-04-04T14:29:59Z", false),
                ("2026-04-04T14:30:00Z", true),
                ("2026-04-04T15:00:00Z", true),
                ("2026-04-04T15:29:59Z", true),
                ("2026-04-04T15:30:00Z", false),
            ],
        ),
    ] {
        let window = window(names, hours, zone);
        for (time, expected) in times {
            assert_eq!(window.holds(at(time)), *expected, "{window} at {time}");
        }
    }
}

#[test]
fn absolute_ends_hold_beside_the_clock() {
    let (after, before) = (at("2026-01-05T12:00:00Z"), at("2026-01-06T10:00:00Z"));
    let hours = Some(Hours::parse("09:00-18:00").unwrap());
    let ends = When::new(Days::ALL, None, TimeZone::UTC, Some(after), Some(before));
    let both = When::new(Days::ALL, hours, TimeZone::UTC, Some(after), Some(before));
    for (time, in_ends, in_both, next) in [
        ("2026-01-05T11:59:59Z", false, false, Some("2026-01-05T12:00:00Z")),
        ("2026-01-05T12:00:00Z", true, true, Some("2026-01-05T18:00:00Z")),
        ("2026-01-05T18:00:00Z", true, false, Some("2026-01-06T09:00:00Z")),
        ("2026-01-06T09:59:59Z", true, true, Some("2026-01-06T10:00:00Z")),
        ("2026-01-06T10:00:00Z", false, false, None),
        ("2026-01-07T12:00:00Z", false, false, None),
    ] {
        assert_eq!((ends.holds(at(time)), both.holds(at(time))), (in_ends, in_both), "{time}");
        assert_eq!(both.next_change(at(time)), next.map(at), "{time}");
        assert_eq!(both.has_ended(at(time)), at(time) >= before, "{time}");
    }
    assert_eq!(ends.next_change(at("1990-01-01T00:00:00Z")), Some(after));
    assert_eq!(ends.next_change(after), Some(before));
    assert_eq!(ends.next_change(before), None);
}

#[test]
fn the_next_change_may_be_more_than_a_week_away() {
    // The hour that Amsterdam's clock leaves out on 29 March is the only one in which this could hold.
    let window = window("sun", "02:00-03:00", AMSTERDAM);
    let (last, next) = (at("2026-03-22T02:00:00Z"), at("2026-04-05T00:00:00Z"));
    assert_eq!(window.next_change(at("2026-03-22T01:00:00Z")), Some(last));
    assert_eq!(window.next_change(last), Some(next));
    assert_eq!(When::default().next_change(last), None);
    assert_eq!(self::window("", "00:00-24:00", AMSTERDAM).next_change(last), None);
}

#[test]
fn a_window_is_told_with_what_the_clock_shows() {
    let week = window("mon tue wed thu fri", "09:00-18:00", AMSTERDAM);
    let ends = |after: Option<&str>, before: Option<&str>| {
        When::new(days("mon"), None, TimeZone::UTC, after.map(at), before.map(at))
    };
    let (after, before) = (Some("2026-01-01T00:00:00Z"), Some("2027-01-01T00:00:00Z"));
    for (when, now, shown, told) in [
        (
            &week,
            "2026-01-05T17:04:30Z",
            "Mon-Fri 09:00-18:00 Europe/Amsterdam",
            "Mon-Fri 09:00-18:00 Europe/Amsterdam, now 18:04",
        ),
        (
            &week,
            "2026-07-04T10:00:00Z",
            "Mon-Fri 09:00-18:00 Europe/Amsterdam",
            "Mon-Fri 09:00-18:00 Europe/Amsterdam, now Sat 12:00",
        ),
        (&window("", "22:00-06:00", "UTC"), "2026-01-05T07:00:00Z", "22:00-06:00 UTC", "22:00-06:00 UTC, now 07:00"),
        (
            &ends(after, before),
            "2025-12-31T23:59:59Z",
            "Mon UTC after 2026-01-01 00:00 UTC before 2027-01-01 00:00 UTC",
            "nothing before 2026-01-01 00:00 UTC",
        ),
        (
            &ends(after, before),
            "2027-01-01T00:00:00Z",
            "Mon UTC after 2026-01-01 00:00 UTC before 2027-01-01 00:00 UTC",
            "nothing after 2027-01-01 00:00 UTC",
        ),
        (
            &ends(None, before),
            "2026-01-06T01:02:03Z",
            "Mon UTC before 2027-01-01 00:00 UTC",
            "Mon UTC before 2027-01-01 00:00 UTC, now Tue 01:02",
        ),
        (&When::default(), "2026-01-06T01:02:03Z", "always", "always, now 01:02"),
    ] {
        assert_eq!((when.to_string(), when.told(at(now))), (shown.to_owned(), told.to_owned()));
    }
}

/// Near a turn of some clock, or anywhere in the year.
fn any_start() -> impl Strategy<Value = Timestamp> {
    let turns = [
        "2026-03-08T07:00:00Z",
        "2026-03-29T01:00:00Z",
        "2026-04-04T15:00:00Z",
        "2026-10-03T15:30:00Z",
        "2026-10-25T01:00:00Z",
        "2026-11-01T06:00:00Z",
        "2026-07-01T00:00:00Z",
    ];
    let turn = proptest::sample::select(turns.map(at).to_vec());
    // Up to eight days before, to the second.
    (turn, -700_000_i64..90_000).prop_map(|(turn, seconds)| turn + seconds.seconds())
}

fn any_window() -> impl Strategy<Value = When> {
    let minute = || prop_oneof![0..DAY, (0..48_u16).prop_map(|half| half * 30), (1..4_u16).prop_map(|hour| hour * 60)];
    let hours = (minute(), prop_oneof![9 => minute(), 1 => Just(DAY)])
        .prop_filter_map("an empty range", |(from, to)| (from != to).then_some(Hours { from, to }));
    let days = prop_oneof![3 => Just(Days::ALL), 5 => (1..128_u8).prop_map(Days), 2 => Just(Days(0b100_0000))];
    let zone = proptest::sample::select(vec![AMSTERDAM, NEW_YORK, LORD_HOWE, "UTC", "Asia/Kolkata"]);
    let end = || proptest::option::weighted(0.2, any_start());
    (days, proptest::option::weighted(0.8, hours), zone, end(), end()).prop_map(|(days, hours, zone, after, before)| {
        When::new(days, hours, TimeZone::get(zone).unwrap(), after, before)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn the_next_change_is_what_a_scan_finds(when in any_window(), start in any_start()) {
        // Windows change on whole minutes; absolute ends may lie between two, and then are candidates of their own.
        let first = Timestamp::from_second((start.as_second() / 60 + 1) * 60).unwrap();
        let mut times: Vec<Timestamp> = (0..8 * i64::from(DAY)).map(|minute| first + minute.minutes()).collect();
        let last = times.last().copied().unwrap();
        times.extend([when.after, when.before].into_iter().flatten().filter(|end| *end > start && *end < last));
        times.sort();
        let now = when.holds(start);
        let found = times.into_iter().find(|time| when.holds(*time) != now);
        match (when.next_change(start), found) {
            (got, Some(found)) => prop_assert_eq!(got, Some(found), "{} from {}", when, start),
            (Some(got), None) => prop_assert!(got > last && when.holds(got) != now, "{} from {}: {}", when, start, got),
            (None, None) => {}
        }
    }
}
