//! Points in time as `--since` and `--until` take them, in the form that the engine reads: seconds since 1970.

use super::CommandError;
use crate::model::Duration;
use crate::ui::stream;

/// Reads the value of the flag `name`, which an error names unless it is empty: seconds since 1970, a date with or without time and zone, or a span of time
/// before now.
pub fn parse(name: &str, text: Option<&str>) -> Result<String, CommandError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(String::new());
    };
    let now = jiff::Timestamp::now();
    to_engine(text, now).ok_or_else(|| {
        let reason = format!("failed to parse value as time or duration: {}", stream::quoted(text));
        CommandError::message(match name {
            "" => reason,
            name => format!("invalid value for {}: {reason}", stream::quoted(name)),
        })
    })
}

fn to_engine(text: &str, now: jiff::Timestamp) -> Option<String> {
    if let Ok(span) = text.parse::<Duration>() {
        let nanoseconds = now.as_nanosecond() - i128::from(span.0);
        return Some(seconds(nanoseconds));
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_number && text.matches('.').count() <= 1 && !text.starts_with('.') {
        return Some(text.to_owned());
    }
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Some(seconds(time.as_nanosecond()));
    }
    // Without a zone: docker takes the local one, which a static binary knows as UTC.
    let zoned = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        _ => format!("{text}Z"),
    };
    let time: jiff::Timestamp = zoned.parse().ok()?;
    Some(seconds(time.as_nanosecond()))
}

fn seconds(nanoseconds: i128) -> String {
    let nanoseconds = nanoseconds.max(0);
    format!("{}.{:09}", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_in_time_have_many_forms() {
        let now = jiff::Timestamp::from_second(1_000_000_000).unwrap();
        for (text, expected) in [
            ("10m", Some("999999400.000000000")),
            ("1.5s", Some("999999998.500000000")),
            ("1136073845", Some("1136073845")),
            ("1136073845.000000001", Some("1136073845.000000001")),
            ("2006-01-02T15:04:05Z", Some("1136214245.000000000")),
            ("2006-01-02T15:04:05.5+01:00", Some("1136210645.500000000")),
            ("2006-01-02T15:04:05", Some("1136214245.000000000")),
            ("2006-01-02T15:04", Some("1136214240.000000000")),
            ("2006-01-02", Some("1136160000.000000000")),
            ("zap", None),
            ("1.2.3", None),
        ] {
            assert_eq!(to_engine(text, now).as_deref(), expected, "{text}");
        }
    }
}
