//! Spans of time, sizes and permissions as people write them in a Compose file.

use super::{Bytes, Duration, FileMode};
use crate::yaml::go_quote;

/// Why a text is no quantity; the texts are those of Go's and Docker's own parsers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("time: invalid duration {0}")]
    Duration(String),
    #[error("time: missing unit in duration {0}")]
    MissingUnit(String),
    #[error("time: unknown unit {unit} in duration {text}")]
    UnknownUnit { unit: String, text: String },
    #[error("invalid size: '{0}'")]
    Size(String),
    #[error("invalid suffix: '{0}'")]
    Suffix(String),
    #[error("strconv.ParseFloat: parsing {0}: invalid syntax")]
    Number(String),
    #[error("strconv.ParseInt: parsing {0}: invalid syntax")]
    Octal(String),
}

impl std::str::FromStr for Duration {
    type Err = UnitError;

    /// Reads Go's notation, with `d` and `w` besides: `1h30m`, `1.5s`, `1w2d`.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let invalid = || UnitError::Duration(go_quote(text));
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(invalid());
        }
        let mut total: i64 = 0;
        while !rest.is_empty() {
            let whole_digits = leading_digits(rest);
            let (whole, after) = rest.split_at(whole_digits);
            let (fraction, after) = match after.strip_prefix('.') {
                Some(after) => after.split_at(leading_digits(after)),
                None => ("", after),
            };
            if whole.is_empty() && fraction.is_empty() {
                return Err(invalid());
            }
            let unit_length = after
                .find(|character: char| character == '.' || character.is_ascii_digit())
                .unwrap_or(after.len());
            let (unit, after) = after.split_at(unit_length);
            if unit.is_empty() {
                return Err(UnitError::MissingUnit(go_quote(text)));
            }
            let Some(nanoseconds) = unit_nanoseconds(unit) else {
                return Err(UnitError::UnknownUnit {
                    unit: go_quote(unit),
                    text: go_quote(text),
                });
            };
            let whole: i64 = if whole.is_empty() {
                0
            } else {
                whole.parse().map_err(|_| invalid())?
            };
            let part = whole
                .checked_mul(nanoseconds)
                .and_then(|part| part.checked_add(fraction_of(fraction, nanoseconds)))
                .ok_or_else(invalid)?;
            total = total.checked_add(part).ok_or_else(invalid)?;
            rest = after;
        }
        Ok(Self(if negative { -total } else { total }))
    }
}

fn leading_digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

fn unit_nanoseconds(unit: &str) -> Option<i64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        "w" => 604_800_000_000_000,
        _ => return None,
    })
}

/// Returns the nanoseconds that `0.<digits>` of a unit makes, cut off as Go cuts it.
fn fraction_of(digits: &str, unit: i64) -> i64 {
    let mut value: u64 = 0;
    let mut scale = 1.0_f64;
    for digit in digits.bytes().map(|byte| u64::from(byte - b'0')) {
        // Digits beyond what fits carry nothing that a nanosecond could show.
        let Some(next) = value.checked_mul(10).and_then(|value| value.checked_add(digit)) else {
            break;
        };
        if next > i64::MAX as u64 {
            break;
        }
        value = next;
        scale *= 10.0;
    }
    (value as f64 * (unit as f64 / scale)) as i64
}

impl std::str::FromStr for Bytes {
    type Err = UnitError;

    /// Reads a size as docker does: `512m`, `1.5 GiB`; kilo is 1024 however it is written.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let size_error = || UnitError::Size(text.to_owned());
        let last = text
            .rfind(|character: char| matches!(character, '0'..='9' | '.' | ' '))
            .ok_or_else(size_error)?;
        let (number, suffix) = match text.as_bytes()[last] {
            b' ' => (&text[..last], &text[last + 1..]),
            _ => text.split_at(last + 1),
        };
        let number = parse_go_float(number)?;
        if number < 0.0 {
            return Err(size_error());
        }
        let suffix = suffix.to_lowercase();
        let multiplier = match suffix.as_str() {
            "" | "b" => 1.0,
            "k" | "kb" | "kib" => 1024.0,
            "m" | "mb" | "mib" => 1_048_576.0,
            "g" | "gb" | "gib" => 1_073_741_824.0,
            "t" | "tb" | "tib" => 1_099_511_627_776.0,
            "p" | "pb" | "pib" => 1_125_899_906_842_624.0,
            _ => return Err(UnitError::Suffix(suffix)),
        };
        let size = number * multiplier;
        // Docker wraps around here and gets a negative limit; refuse it instead.
        if size.is_nan() || size >= i64::MAX as f64 {
            return Err(size_error());
        }
        Ok(Self(size as i64))
    }
}

fn parse_go_float(text: &str) -> Result<f64, UnitError> {
    let between_digits = text.split('_').count() == 1
        || text.split('_').all(|part| {
            let bytes = part.as_bytes();
            bytes.first().is_some_and(u8::is_ascii_digit) && bytes.last().is_some_and(u8::is_ascii_digit)
        });
    let number = text.replace('_', "").parse().ok();
    number
        .filter(|_| between_digits)
        .ok_or_else(|| UnitError::Number(go_quote(text)))
}

impl std::str::FromStr for FileMode {
    type Err = UnitError;

    /// Reads permission bits in octal, with or without a leading zero.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        i64::from_str_radix(text, 8)
            .map(Self)
            .map_err(|_| UnitError::Octal(go_quote(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duration(text: &str) -> String {
        match text.parse::<Duration>() {
            Ok(duration) => duration.to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn bytes(text: &str) -> String {
        match text.parse::<Bytes>() {
            Ok(Bytes(number)) => number.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn durations_are_read_as_go_reads_them_with_days_and_weeks() {
        for (text, expected) in [
            ("0", "0s"),
            ("1h30m", "1h30m0s"),
            ("1.5h", "1h30m0s"),
            (".5s", "500ms"),
            ("5.s", "5s"),
            ("-1s", "-1s"),
            ("1w2d", "216h0m0s"),
            ("1us", "1µs"),
            ("9223372036854775807ns", "2562047h47m16.854775807s"),
            ("10", "time: missing unit in duration \"10\""),
            ("", "time: invalid duration \"\""),
            ("abc", "time: invalid duration \"abc\""),
            ("1S", "time: unknown unit \"S\" in duration \"1S\""),
            ("1s 1m", "time: unknown unit \"s \" in duration \"1s 1m\""),
            ("106752d", "time: invalid duration \"106752d\""),
        ] {
            assert_eq!(duration(text), expected, "{text:?}");
        }
    }

    #[test]
    fn sizes_count_in_1024s() {
        for (text, expected) in [
            ("0", "0"),
            ("1b", "1"),
            ("1kb", "1024"),
            ("1KiB", "1024"),
            ("1.5g", "1610612736"),
            ("2.5 GiB", "2684354560"),
            ("0.1k", "102"),
            ("1_000", "1000"),
            ("-1", "invalid size: '-1'"),
            ("abc", "invalid size: 'abc'"),
            ("1Gi", "invalid suffix: 'gi'"),
            ("1g ", "strconv.ParseFloat: parsing \"1g\": invalid syntax"),
            ("9223372036854775808", "invalid size: '9223372036854775808'"),
        ] {
            assert_eq!(bytes(text), expected, "{text:?}");
        }
    }

    #[test]
    fn a_mode_in_quotes_is_octal() {
        assert_eq!("0440".parse(), Ok(FileMode(0o440)));
        assert!("288".parse::<FileMode>().is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_them_panic(text in "\\PC*") {
            let _ = (duration(&text), bytes(&text), text.parse::<FileMode>());
        }

        #[test]
        fn a_printed_duration_reads_back(nanoseconds in -i64::MAX..i64::MAX) {
            let printed = Duration(nanoseconds).to_string();
            proptest::prop_assert_eq!(printed.parse(), Ok(Duration(nanoseconds)));
        }
    }
}
