//! Moments as the Engine API writes them: RFC 3339 with nanoseconds, and a zero that means never.

use jiff::Timestamp;

/// What Go writes for a moment that never was.
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// Returns the present moment.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// Writes a moment as Go does: nanoseconds without trailing zeros.
pub fn rfc3339(moment: Timestamp) -> String {
    moment.to_string()
}

/// Writes a moment, or never.
pub fn rfc3339_or_never(moment: Option<Timestamp>) -> String {
    moment.map_or_else(|| NEVER.to_owned(), rfc3339)
}

/// Reads a moment of a query: seconds since the epoch with a fraction, or RFC 3339.
pub fn parse(text: &str) -> Option<Timestamp> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Some(moment);
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let mut digits = fraction.to_owned();
    if digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    while digits.len() < 9 {
        digits.push('0');
    }
    Timestamp::new(seconds, digits.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_rfc3339_name_the_same_moment() {
        let moment = parse("1795473260.5").unwrap();
        assert_eq!(rfc3339(moment), "2026-11-23T22:34:20.5Z");
        assert_eq!(parse("2026-11-23T22:34:20.500000000Z"), Some(moment));
        assert_eq!(parse("2026-11-23T23:34:20.5+01:00"), Some(moment));
        assert_eq!(parse("1795473260"), Timestamp::new(1_795_473_260, 0).ok());
        assert_eq!(parse("soon"), None);
        assert_eq!(parse("1.x"), None);
    }
}
