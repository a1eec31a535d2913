//! Times as people write and read them. All of them are UTC: a wallet does not know where its owner is.

use std::time::Duration;

use waybill_protocol::ids::Timestamp;
use waybill_record::dates::{Day, PartialDate};

const DAY_SECONDS: u64 = 86_400;

/// Reads a span such as `30s`, `10m`, `2h`, `7d`, `2w`.
#[must_use]
pub fn span(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => DAY_SECONDS,
        "w" => 7 * DAY_SECONDS,
        _ => return None,
    };
    // No sign, no spaces inside: `parse` alone would take `+7`.
    let number = number.bytes().all(|b| b.is_ascii_digit()).then(|| number.parse::<u64>().ok())??;
    number.checked_mul(seconds).map(Duration::from_secs)
}

/// Reads an end: a span from `now`, or a date, which lasts until its last second.
#[must_use]
pub fn until(text: &str, now: Timestamp) -> Option<Timestamp> {
    if let Some(span) = span(text) {
        return now.0.checked_add(span.as_secs()).map(Timestamp);
    }
    let day = PartialDate::parse(text.trim()).ok()?.latest().number();
    let days = days_since_1970(i64::from(day / 10_000), i64::from(day / 100 % 100), i64::from(day % 100));
    let begin = u64::try_from(days).ok()?.checked_mul(DAY_SECONDS)?;
    Some(Timestamp(begin + DAY_SECONDS - 1))
}

/// `2026-12-24 18:30 UTC`.
#[must_use]
pub fn moment(time: Timestamp) -> String {
    let (hours, minutes) = (time.0 / 3_600 % 24, time.0 / 60 % 60);
    format!("{} {hours:02}:{minutes:02} UTC", day(time))
}

/// `2026-12-24`.
#[must_use]
pub fn day(time: Timestamp) -> String {
    Day::of_unix_days(time.0 / DAY_SECONDS).to_string()
}

/// The inverse of [`day`], for a day that exists.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let year_of_era = year.rem_euclid(400);
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_unit_and_no_sign() {
        for (text, seconds) in [("30s", 30), ("10m", 600), ("2h", 7_200), ("7d", 604_800), (" 2w ", 1_209_600)] {
            assert_eq!(span(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "7", "d", "7y", "-7d", "+7d", "7 d", "1.5h", "99999999999999999999d", "é"] {
            assert_eq!(span(text), None, "{text}");
        }
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_800_000_000, "2027-01-15 08:00 UTC"),
            (4_107_542_399, "2100-02-28 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(moment(Timestamp(seconds)), text);
        }
    }

    #[test]
    fn an_end_is_a_span_or_the_last_second_of_a_date() {
        let now = Timestamp(1_800_000_000);
        assert_eq!(until("7d", now), Some(now.plus(604_800)));
        for (text, moment_text) in [("2027-02-28", "2027-02-28 23:59 UTC"), ("2028-02", "2028-02-29 23:59 UTC")] {
            let end = until(text, now).unwrap();
            assert_eq!(moment(end), moment_text);
            assert_eq!(end.0 % 60, 59);
        }
        for text in ["2027-02-30", "tomorrow", "27-02-01", ""] {
            assert_eq!(until(text, now), None, "{text}");
        }
        for year in 1970..2200 {
            let days = days_since_1970(year, 3, 1);
            assert_eq!(day(Timestamp(u64::try_from(days).unwrap() * 86_400)), format!("{year}-03-01"));
        }
    }
}
