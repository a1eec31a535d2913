//! Decimal numbers as text: equal or not, whatever their size, without a float.

/// How two number tokens compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NumberGrade {
    /// The same characters.
    SameToken,
    /// The same value in other characters.
    SameValue,
    /// Another value.
    Changed,
}

/// A number as `sign 0.digits x 10^exponent` without zeros at either end; zero has no digits and no sign.
#[derive(PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: Vec<u8>,
    exponent: i128,
}

/// Compares two JSON number tokens.
pub(super) fn compare_numbers(left: &str, right: &str) -> NumberGrade {
    if left == right {
        return NumberGrade::SameToken;
    }
    match (Decimal::parse(left), Decimal::parse(right)) {
        (Some(left), Some(right)) if left == right => NumberGrade::SameValue,
        _ => NumberGrade::Changed,
    }
}

impl Decimal {
    /// Reads a JSON number token; `None` for an exponent beyond any measurement (more than 30 digits).
    fn parse(token: &str) -> Option<Self> {
        let (mantissa, exponent) = match token.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, parse_exponent(exponent)?),
            None => (token, 0),
        };
        let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let leading = digits.iter().take_while(|digit| **digit == b'0').count();
        let trailing = digits.iter().rev().take_while(|digit| **digit == b'0').count();
        if leading == digits.len() {
            return Some(Self { negative: false, digits: Vec::new(), exponent: 0 });
        }
        let exponent = exponent + whole.len() as i128 - leading as i128;
        Some(Self { negative, digits: digits[leading..digits.len() - trailing].to_vec(), exponent })
    }
}

fn parse_exponent(text: &str) -> Option<i128> {
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    if digits.len() > 30 {
        return None;
    }
    digits.parse::<i128>().ok().map(|value| sign * value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn grades_are_exact() {
        use NumberGrade::{Changed, SameToken, SameValue};
        for (left, right, grade) in [
            ("1.10", "1.10", SameToken),
            ("1.10", "1.1", SameValue),
            ("1E-22", "0.0000000000000000000001", SameValue),
            ("1E-22", "1e-22", SameValue),
            ("100", "1E2", SameValue),
            ("0.0", "-0", SameValue),
            ("0E99999999999999999999999999999999999", "0", Changed),
            ("-1.000000000000000000E+245", "-1E245", SameValue),
            ("-1", "1", Changed),
            ("1.10", "1.11", Changed),
            ("12345678901234567", "12345678901234568", Changed),
            ("0.30000000000000004", "0.3", Changed),
            ("1E-22", "1E-23", Changed),
            ("1E400", "1E401", Changed),
            ("1E99999999999999999999", "10E99999999999999999998", SameValue),
            ("10", "1", Changed),
        ] {
            assert_eq!(compare_numbers(left, right), grade, "{left} {right}");
            assert_eq!(compare_numbers(right, left), grade, "{right} {left}");
        }
    }

    proptest! {
        #[test]
        fn integers_agree_with_arithmetic(left in -5000i64..5000, right in -5000i64..5000, zeros in 0usize..4) {
            let shifted = format!("{right}{}E-{zeros}", "0".repeat(zeros));
            let same = compare_numbers(&left.to_string(), &shifted) != NumberGrade::Changed;
            prop_assert_eq!(same, left == right);
        }

        #[test]
        fn arbitrary_tokens_never_panic(left in "[-+.eE0-9]{0,40}", right in "[-+.eE0-9]{0,40}") {
            let _ = compare_numbers(&left, &right);
        }
    }
}
