//! Calendar days as FHIR writes them: whole or partial dates, read without a clock and without time zones.

use minicbor::{Decode, Encode};
use std::fmt;
use thiserror::Error;

/// One calendar day, as the record itself writes it: the offset of a dateTime is not applied.
///
/// Bytes: CBOR unsigned integer `yyyymmdd`, so that the order of the numbers is the order of the days.
///
/// A day is never converted between time zones: two hospitals in different zones must take the same decision about
/// the same bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u32);

/// Why a text is not a date that FHIR allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DateError {
    /// The text is not of the form `YYYY`, `YYYY-MM`, `YYYY-MM-DD` or one of these followed by `T` and a time.
    #[error("a date is written YYYY, YYYY-MM or YYYY-MM-DD")]
    Form,
    /// The month is not 01 to 12.
    #[error("there is no such month")]
    Month,
    /// The day does not exist in its month.
    #[error("there is no such day in that month")]
    DayOfMonth,
}

/// A date of FHIR, which may leave out its day, or its day and month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialDate {
    year: u32,
    month: Option<u32>,
    day: Option<u32>,
}

impl PartialDate {
    /// Reads `YYYY`, `YYYY-MM` or `YYYY-MM-DD`; nothing may follow.
    ///
    /// Errors: [`DateError`] for any other text and for days that do not exist.
    pub fn parse(text: &str) -> Result<Self, DateError> {
        let bytes = text.as_bytes();
        let (month, day) = match bytes.len() {
            4 => (None, None),
            7 => (Some(two_digits(bytes, 5)?), None),
            10 => (Some(two_digits(bytes, 5)?), Some(two_digits(bytes, 8)?)),
            _ => return Err(DateError::Form),
        };
        if bytes.len() > 4 && bytes[4] != b'-' || bytes.len() > 7 && bytes[7] != b'-' {
            return Err(DateError::Form);
        }
        let year = two_digits(bytes, 0)? * 100 + two_digits(bytes, 2)?;
        if year == 0 {
            return Err(DateError::Form);
        }
        if let Some(month) = month {
            if !(1..=12).contains(&month) {
                return Err(DateError::Month);
            }
            if day.is_some_and(|day| day == 0 || day > days_in_month(year, month)) {
                return Err(DateError::DayOfMonth);
            }
        }
        Ok(Self { year, month, day })
    }

    /// Reads a date, dateTime or instant of FHIR; only the part before `T` is looked at.
    ///
    /// Errors: as [`PartialDate::parse`]; a time may only follow a whole date.
    pub fn parse_date_time(text: &str) -> Result<Self, DateError> {
        match text.split_once('T') {
            Some((date, _)) if date.len() != 10 => Err(DateError::Form),
            Some((date, _)) => Self::parse(date),
            None => Self::parse(text),
        }
    }

    /// The first day that this date may mean.
    pub fn earliest(self) -> Day {
        Day(self.year * 10_000 + self.month.unwrap_or(1) * 100 + self.day.unwrap_or(1))
    }

    /// The last day that this date may mean.
    pub fn latest(self) -> Day {
        let month = self.month.unwrap_or(12);
        let day = self.day.unwrap_or_else(|| days_in_month(self.year, month));
        Day(self.year * 10_000 + month * 100 + day)
    }
}

impl Day {
    /// The day `yyyymmdd`, if it exists.
    ///
    /// Errors: [`DateError`] naming the part that does not exist.
    pub fn from_number(number: u32) -> Result<Self, DateError> {
        let (year, month, day) = (number / 10_000, number / 100 % 100, number % 100);
        if year == 0 || year > 9_999 {
            return Err(DateError::Form);
        }
        if !(1..=12).contains(&month) {
            return Err(DateError::Month);
        }
        if day == 0 || day > days_in_month(year, month) {
            return Err(DateError::DayOfMonth);
        }
        Ok(Self(number))
    }

    /// The day of the Gregorian calendar that begins so many days after 1970-01-01T00:00:00Z; 9999-12-31 for all that are later, since
    /// moments also come from others.
    #[must_use]
    pub fn of_unix_days(days: u64) -> Self {
        // Counted in eras of 400 years that begin in March, so that the leap day is the last of its year.
        let shifted = u32::try_from(days).unwrap_or(LAST_UNIX_DAY).min(LAST_UNIX_DAY) + 719_468;
        let (era, of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        let year = year_of_era + era * 400 + u32::from(month <= 2);
        Self(year * 10_000 + month * 100 + day)
    }

    /// The day as the number `yyyymmdd`.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0 / 10_000, self.0 / 100 % 100, self.0 % 100)
    }
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<C> Encode<C> for Day {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u32(self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Day {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Day::from_number(d.u32()?).map_err(|_| minicbor::decode::Error::message("no such day"))
    }
}

/// Days from 1970-01-01 to 9999-12-31.
const LAST_UNIX_DAY: u32 = 2_932_896;

/// The number of days of a month of the Gregorian calendar.
fn days_in_month(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Two ASCII digits at a position; the caller has checked the length.
fn two_digits(bytes: &[u8], at: usize) -> Result<u32, DateError> {
    match (bytes[at], bytes[at + 1]) {
        (high @ b'0'..=b'9', low @ b'0'..=b'9') => Ok(u32::from(high - b'0') * 10 + u32::from(low - b'0')),
        _ => Err(DateError::Form),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn days_since_1970_are_those_of_the_calendar() {
        for (days, text) in [(0, "1970-01-01"), (11_016, "2000-02-29"), (47_540, "2100-02-28"), (47_541, "2100-03-01")]
        {
            assert_eq!(Day::of_unix_days(days).to_string(), text);
        }
        for days in [2_932_896, 2_932_897, u64::MAX] {
            assert_eq!(Day::of_unix_days(days).to_string(), "9999-12-31", "{days}");
        }
        let all: Vec<Day> = (0..60_000).map(Day::of_unix_days).collect();
        assert!(all.iter().all(|day| Day::from_number(day.number()).is_ok()), "every one exists");
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "one after the other");
        assert_eq!(all[59_999].to_string(), "2134-04-10");
    }

    #[test]
    fn partial_dates_span_from_their_first_to_their_last_day() {
        for (text, first, last) in [
            ("2015", "2015-01-01", "2015-12-31"),
            ("2016-02", "2016-02-01", "2016-02-29"),
            ("1900-02", "1900-02-01", "1900-02-28"),
            ("2015-04-05", "2015-04-05", "2015-04-05"),
        ] {
            let date = PartialDate::parse(text).unwrap();
            assert_eq!((date.earliest().to_string().as_str(), date.latest().to_string().as_str()), (first, last));
        }
    }

    #[test]
    fn times_and_offsets_do_not_move_the_day() {
        for text in ["2015-04-05T23:59:59-11:00", "2015-04-05T00:00:00.123Z", "2015-04-05"] {
            assert_eq!(PartialDate::parse_date_time(text).unwrap().earliest().number(), 20_150_405);
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for (text, error) in [
            ("", DateError::Form),
            ("15", DateError::Form),
            ("2015-4", DateError::Form),
            ("2015/04", DateError::Form),
            ("2015-04/05", DateError::Form),
            ("+015", DateError::Form),
            ("0000", DateError::Form),
            ("2015-13", DateError::Month),
            ("2015-00", DateError::Month),
            ("2015-02-29", DateError::DayOfMonth),
            ("2015-04-31", DateError::DayOfMonth),
            ("2015-04-00", DateError::DayOfMonth),
        ] {
            assert_eq!(PartialDate::parse(text), Err(error), "{text}");
        }
        assert_eq!(PartialDate::parse_date_time("2015T10:00"), Err(DateError::Form));
    }

    #[test]
    fn a_day_that_does_not_exist_does_not_decode() {
        for (number, exists) in
            [(20_240_229_u32, true), (20_230_229, false), (0, false), (20_231_301, false), (20_230_100, false)]
        {
            let bytes = minicbor::to_vec(number).unwrap();
            assert_eq!(minicbor::decode::<Day>(&bytes).is_ok(), exists, "{number}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,24}") {
            if let Ok(date) = PartialDate::parse_date_time(&text) {
                prop_assert!(date.earliest() <= date.latest());
                prop_assert_eq!(Day::from_number(date.latest().number()), Ok(date.latest()));
            }
        }
    }
}
