//! The small languages inside the strings of a scenario: `250ms`, `20/s`, `1%`, `2s..20s`, `>= 95%`.
//!
//! Each function takes the text and gives the value, or says in a few words what was expected. Nothing rounds: what
//! cannot be kept exactly is refused, so that a file means what it says.

use std::ops::RangeInclusive;
use std::time::Duration;

use world::LatencyRange;

use super::{Bound, Comparison, Rate};

/// What is wrong with a text, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) says: String,
    pub(super) help: String,
}

type Parsed<T> = Result<T, Unfit>;

fn unfit<T>(says: impl Into<String>, help: impl Into<String>) -> Parsed<T> {
    Err(Unfit { says: says.into(), help: help.into() })
}

const DURATION: &str = "write a whole number and a unit: `250ms`, `5s`, `2min`, `1h`";

/// `250ms`, `5s`, `2min`, `1h`. Simulated time moves in whole milliseconds.
pub(super) fn duration(text: &str) -> Parsed<Duration> {
    if text.starts_with('-') {
        return unfit("a duration cannot be negative", DURATION);
    }
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return unfit("a duration begins with a number", DURATION);
    }
    if unit.starts_with('.') {
        return unfit(
            "a duration is a whole number of its unit",
            "use the smaller unit: `1500ms` instead of `1.5s`",
        );
    }
    let millis_each: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "" => return unfit("a duration needs a unit", DURATION),
        _ => return unfit(format!("`{unit}` is not a unit of time"), DURATION),
    };
    // A day is far beyond any run, and keeps all sums of durations far from overflow.
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis_each)) {
        Some(millis) if millis <= 24 * 3_600_000 => Ok(Duration::from_millis(millis)),
        _ => unfit("a duration is at most 24h", DURATION),
    }
}

/// `2s..20s`, both ends meant.
pub(super) fn span(text: &str) -> Parsed<RangeInclusive<Duration>> {
    let Some((from, to)) = text.split_once("..") else {
        return unfit("a range has two ends", "write both ends with their units: `2s..20s`");
    };
    let (from, to) = (duration(from.trim())?, duration(to.trim())?);
    if from > to {
        return unfit("the range ends before it begins", "write the smaller end first: `2s..20s`");
    }
    Ok(from..=to)
}

/// `1ms..5ms`, or `3ms` for one that does not vary.
pub(super) fn latency(text: &str) -> Parsed<LatencyRange> {
    if text.contains("..") {
        let range = span(text)?;
        return Ok(LatencyRange { min: *range.start(), max: *range.end() });
    }
    let one = duration(text)?;
    Ok(LatencyRange { min: one, max: one })
}

/// `20/s`, `90/min`, `500/h`.
pub(super) fn rate(text: &str) -> Parsed<Rate> {
    const RATE: &str = "write how many in which time: `20/s`, `90/min`, `500/h`";
    let Some((count, unit)) = text.split_once('/') else {
        return unfit("a rate is a number of things in a time", RATE);
    };
    let per = match unit.trim() {
        "s" => Duration::from_secs(1),
        "min" => Duration::from_secs(60),
        "h" => Duration::from_secs(3_600),
        other => return unfit(format!("`{other}` is not a unit for a rate"), RATE),
    };
    match count.trim().parse::<u32>() {
        // Arrivals are moments in whole milliseconds; more than a thousand a second would fall together.
        Ok(count) if count >= 1 && per / count >= Duration::from_millis(1) => Ok(Rate { count, per }),
        Ok(0) => unfit("a rate of nothing never ends", RATE),
        Ok(_) => unfit("a rate is at most 1000/s", RATE),
        Err(_) => unfit(format!("`{}` is not a whole number", count.trim()), RATE),
    }
}

const PERCENT: &str = "write a number from 0 to 100 and `%`, with at most four decimals: `1%`, `0.05%`";

/// `95%`, `0.05%`, in parts per million.
pub(super) fn percent(text: &str) -> Parsed<u32> {
    let Some(number) = text.strip_suffix('%') else {
        return unfit("a share needs its `%`", PERCENT);
    };
    let (whole, decimals) = number.trim_end().split_once('.').unwrap_or((number.trim_end(), "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(decimals) || decimals.len() > 4 || whole.len() > 3 {
        return unfit(format!("`{text}` is not a share"), PERCENT);
    }
    // At most three and four digits: neither can fail or overflow.
    let (Ok(whole), Ok(decimals)) = (whole.parse::<u32>(), format!("{decimals:0<4}").parse::<u32>()) else {
        return unfit(format!("`{text}` is not a share"), PERCENT);
    };
    let ppm = whole * 10_000 + decimals;
    if ppm > 1_000_000 { unfit("a share is at most 100%", PERCENT) } else { Ok(ppm) }
}

/// A comparison and what `limit` reads: `>= 95%`, `<= 15s`.
pub(super) fn bound<T>(text: &str, example: &str, limit: impl Fn(&str) -> Parsed<T>) -> Parsed<Bound<T>> {
    // The longer signs first: `<` begins `<=`.
    let signs = [
        ("<=", Comparison::AtMost),
        (">=", Comparison::AtLeast),
        ("<", Comparison::Below),
        (">", Comparison::Above),
        ("=", Comparison::Equal),
    ];
    for (sign, comparison) in signs {
        if let Some(rest) = text.strip_prefix(sign) {
            return Ok(Bound { comparison, limit: limit(rest.trim_start())? });
        }
    }
    unfit("an expectation begins with `<`, `<=`, `=`, `>=` or `>`", format!("write for example `{example}`"))
}

/// A whole number.
pub(super) fn count(text: &str) -> Parsed<u64> {
    match text.parse() {
        Ok(count) => Ok(count),
        Err(_) => unfit(format!("`{text}` is not a whole number"), "write digits only: `9`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says<T: std::fmt::Debug>(parsed: Parsed<T>) -> String {
        parsed.unwrap_err().says
    }

    #[test]
    fn durations_are_whole_numbers_of_a_named_unit() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2min"), Ok(Duration::from_secs(120)));
        assert_eq!(says(duration("-5s")), "a duration cannot be negative");
        assert_eq!(says(duration("5")), "a duration needs a unit");
        assert_eq!(says(duration("5m")), "`m` is not a unit of time");
        assert_eq!(says(duration("1.5s")), "a duration is a whole number of its unit");
        assert_eq!(says(duration("soon")), "a duration begins with a number");
        assert_eq!(says(duration("99999999999999999999h")), "a duration is at most 24h");
    }

    #[test]
    fn a_range_has_two_ends_in_order() {
        assert_eq!(span("2s..20s"), Ok(Duration::from_secs(2)..=Duration::from_secs(20)));
        assert_eq!(says(span("9s..3s")), "the range ends before it begins");
        assert_eq!(says(span("9s")), "a range has two ends");
        assert_eq!(latency("3ms"), Ok(LatencyRange::millis(3, 3)));
    }

    #[test]
    fn rates_name_what_they_are_per() {
        assert_eq!(rate("20/s"), Ok(Rate { count: 20, per: Duration::from_secs(1) }));
        assert_eq!(rate("90/min").map(Rate::gap), Ok(Duration::from_secs(60) / 90));
        assert_eq!(says(rate("20")), "a rate is a number of things in a time");
        assert_eq!(says(rate("20/ms")), "`ms` is not a unit for a rate");
        assert_eq!(says(rate("0/s")), "a rate of nothing never ends");
        assert_eq!(says(rate("5000/s")), "a rate is at most 1000/s");
    }

    #[test]
    fn shares_are_exact_to_a_part_per_million() {
        assert_eq!(percent("1%"), Ok(10_000));
        assert_eq!(percent("0.0001%"), Ok(1));
        assert_eq!(percent("94.5 %"), Ok(945_000));
        assert_eq!(says(percent("0.00001%")), "`0.00001%` is not a share");
        assert_eq!(says(percent("100.1%")), "a share is at most 100%");
        assert_eq!(says(percent("0.5")), "a share needs its `%`");
        assert_eq!(says(percent("-1%")), "`-1%` is not a share");
    }

    #[test]
    fn an_expectation_compares() {
        let at_least = |limit| Bound { comparison: Comparison::AtLeast, limit };
        assert_eq!(bound(">= 95%", "", percent), Ok(at_least(950_000)));
        assert_eq!(bound(">=95%", "", percent), Ok(at_least(950_000)));
        assert!(at_least(950_000).holds(&950_000));
        assert!(!bound("< 15s", "", duration).unwrap().holds(&Duration::from_secs(15)));
        assert_eq!(says(bound("95%", "", percent)), "an expectation begins with `<`, `<=`, `=`, `>=` or `>`");
    }
}
