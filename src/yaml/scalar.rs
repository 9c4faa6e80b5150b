//! What a scalar means, by go-yaml v3's rules: the YAML 1.2 core schema with leftovers of 1.1.
//!
//! `yes` and `on` are text, `0777` is octal, `1_000` a number, `22:22` text, `2001-01-01` a timestamp.

use super::Value;

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScalarStyle {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    Literal,
    Folded,
}

/// An explicit tag on a scalar, as far as it changes what the scalar means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CoreTag {
    Null,
    Bool,
    Int,
    Float,
    String,
    Timestamp,
    Binary,
    /// Any other tag: the scalar is text.
    Other,
}

impl CoreTag {
    fn name(self) -> &'static str {
        match self {
            Self::Null => "!!null",
            Self::Bool => "!!bool",
            Self::Int => "!!int",
            Self::Float => "!!float",
            Self::String | Self::Other => "!!str",
            Self::Timestamp => "!!timestamp",
            Self::Binary => "!!binary",
        }
    }

    pub(super) fn from_core_suffix(suffix: &str) -> Self {
        match suffix {
            "null" => Self::Null,
            "bool" => Self::Bool,
            "int" => Self::Int,
            "float" => Self::Float,
            "str" => Self::String,
            "timestamp" => Self::Timestamp,
            "binary" => Self::Binary,
            _ => Self::Other,
        }
    }
}

/// Why a tagged scalar is not what its tag says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ScalarError {
    #[error("yaml: cannot decode {found} `{text}` as a {wanted}")]
    Mismatch {
        found: &'static str,
        text: String,
        wanted: &'static str,
    },
    #[error("yaml: !!binary value contains invalid base64 data")]
    Base64,
}

/// Returns the value of a scalar.
pub(super) fn resolve(text: &str, style: ScalarStyle, tag: Option<CoreTag>) -> Result<Value, ScalarError> {
    let text_value = || Value::String(text.to_owned());
    match tag {
        None if style == ScalarStyle::Plain => Ok(resolve_plain(text)),
        None | Some(CoreTag::String | CoreTag::Other) => Ok(text_value()),
        Some(CoreTag::Binary) => decode_binary(text).map(Value::String),
        Some(wanted) => {
            let value = resolve_plain(text);
            let found = match &value {
                Value::Null => CoreTag::Null,
                Value::Bool(_) => CoreTag::Bool,
                Value::Int(_) => CoreTag::Int,
                Value::Float(_) => CoreTag::Float,
                Value::Timestamp(_) => CoreTag::Timestamp,
                _ => CoreTag::String,
            };
            match value {
                Value::Int(number) if wanted == CoreTag::Float => Ok(Value::Float(number as f64)),
                value if found == wanted => Ok(value),
                _ => Err(ScalarError::Mismatch {
                    found: found.name(),
                    text: text.to_owned(),
                    wanted: wanted.name(),
                }),
            }
        }
    }
}

/// Returns the value of an unquoted, untagged scalar.
pub(super) fn resolve_plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Value::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Value::Float(f64::NEG_INFINITY),
        _ => {}
    }
    let number = match text.as_bytes()[0] {
        b'.' => parse_yaml_float(text).map(Value::Float),
        b'0'..=b'9' | b'+' | b'-' => {
            if is_timestamp(text) {
                return Value::Timestamp(text.to_owned());
            }
            let digits = text.replace('_', "");
            parse_go_integer(&digits)
                .map(Value::Int)
                .or_else(|| parse_yaml_float(&digits).map(Value::Float))
        }
        _ => None,
    };
    number.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Reads what Go's `ParseInt(text, 0, 64)` or `ParseUint` reads: a base prefix, `0` alone meaning octal.
fn parse_go_integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    // `from_str_radix` would take a second sign.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let number = if negative { -magnitude } else { magnitude };
    // An unsigned number above the signed range has no sign at all in Go.
    let signed = i128::from(i64::MIN)..=i128::from(i64::MAX);
    let fits = signed.contains(&number) || !text.starts_with(['+', '-']);
    fits.then_some(number)
}

/// Reads what go-yaml's float expression accepts: `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`.
fn parse_yaml_float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let mantissa_fits = all_digits(whole) && all_digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    let exponent_fits = exponent.is_none_or(|exponent| {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !digits.is_empty() && all_digits(digits)
    });
    if !mantissa_fits || !exponent_fits {
        return None;
    }
    // Go refuses what overflows; Rust gives infinity.
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Says whether go-yaml takes a plain scalar for a time: `2006-1-2`, with a time of day after `T`, `t` or a space.
fn is_timestamp(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() < 8 || bytes[4] != b'-' || !bytes[..4].iter().all(u8::is_ascii_digit) {
        return false;
    }
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some((bytes[at], &text[at + 1..]))),
        None => (text, None),
    };
    let mut fields = date.split('-');
    let (Some(year), Some(month), Some(day), None) = (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return false;
    };
    if month.len() > 2 || day.len() > 2 {
        return false;
    }
    let (Some(year), Some(month), Some(day)) = (number(year), number(month), number(day)) else {
        return false;
    };
    if !(1..=12).contains(&month) || day < 1 || day > days_in(month, year) {
        return false;
    }
    match time {
        None => true,
        Some((b' ', time)) => is_clock(time),
        Some((_, time)) => {
            if let Some(time) = time.strip_suffix('Z') {
                return is_clock(time);
            }
            let Some(at) = time.rfind(['+', '-']) else {
                return false;
            };
            let zone = &time.as_bytes()[at + 1..];
            let zone_fits = zone.len() == 5
                && zone[2] == b':'
                && number(&time[at + 1..at + 3]).is_some_and(|hours| hours <= 24)
                && number(&time[at + 4..]).is_some_and(|minutes| minutes < 60);
            zone_fits && is_clock(&time[..at])
        }
    }
}

/// Reads a date field: one or two digits, or the year's four.
fn number(text: &str) -> Option<u32> {
    let fits = matches!(text.len(), 1 | 2 | 4) && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok())?
}

fn days_in(month: u32, year: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Says whether a text is `15:4:5` with an optional fraction.
fn is_clock(text: &str) -> bool {
    let (clock, fraction) = match text.find(['.', ',']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let fraction_fits =
        fraction.is_none_or(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()));
    let mut fields = clock.split(':');
    let mut below = |limit| {
        fields
            .next()
            .filter(|field| field.len() <= 2)
            .and_then(number)
            .is_some_and(|value| value < limit)
    };
    fraction_fits && below(24) && below(60) && below(60) && fields.next().is_none()
}

fn decode_binary(text: &str) -> Result<String, ScalarError> {
    use base64::Engine as _;
    // Go's decoder skips line breaks inside the data, and nothing else.
    let data: String = text
        .chars()
        .filter(|&character| character != '\n' && character != '\r')
        .collect();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(data)
        .map_err(|_| ScalarError::Base64)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Returns a number as Go's `%v` prints a `float64`: the shortest digits, with an exponent
/// below 1e-04 and from 1e+06 on.
pub fn format_float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if number == 0.0 {
        return if number.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        return format!("{number}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

/// Returns a timestamp as Go's `%#v` prints a `time.Time`.
pub(super) fn go_time(text: &str) -> String {
    let mut numbers = text
        .split(|character: char| !character.is_ascii_digit())
        .map(|digits| digits.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    let (year, month, day, hour, minute, second) = (next(), next(), next(), next(), next(), next());
    let months = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let month = months[(month.clamp(1, 12) - 1) as usize];
    format!("time.Date({year}, time.{month}, {day}, {hour}, {minute}, {second}, 0, time.UTC)")
}
