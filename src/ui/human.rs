//! Sizes and spans of time for people, in the words of docker's `go-units`.

/// Returns a size in decimal units with four significant digits at most: `1.5MB`.
pub fn size(bytes: f64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"], 4)
}

/// Returns a size in decimal units with three significant digits at most.
pub fn short_size(bytes: f64) -> String {
    scaled(bytes, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"], 3)
}

/// Returns a size in binary units: `512MiB`.
pub fn binary_size(bytes: f64) -> String {
    scaled(
        bytes,
        1024.0,
        &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"],
        4,
    )
}

fn scaled(mut value: f64, base: f64, units: &[&str], digits: usize) -> String {
    let mut at = 0;
    while value >= base && at < units.len() - 1 {
        value /= base;
        at += 1;
    }
    format!("{}{}", significant(value, digits), units[at])
}

/// Prints a number as Go's `%.Ng`, for the range that sizes are in.
fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i64;
    let decimals = usize::try_from(digits as i64 - 1 - magnitude).unwrap_or(0);
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Returns a span of time in one unit: `About a minute`, `3 weeks`.
pub fn duration(seconds: i64) -> String {
    let minutes = seconds / 60;
    // As Go rounds hours: to the nearest, so that 90 minutes are 2 hours.
    let hours = (seconds as f64 / 3600.0).round() as i64;
    match () {
        () if seconds < 1 => "Less than a second".to_owned(),
        () if seconds == 1 => "1 second".to_owned(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_owned(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_owned(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_at_most_their_digits() {
        for (bytes, expected) in [
            (0.0, "0B"),
            (1.0, "1B"),
            (999.0, "999B"),
            (1000.0, "1kB"),
            (4_261_550.0, "4.262MB"),
            (117_000_000.0, "117MB"),
            (1_234_567_890.0, "1.235GB"),
        ] {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
        assert_eq!(short_size(4_261_550.0), "4.26MB");
        assert_eq!(binary_size(1024.0 * 1024.0 * 1.5), "1.5MiB");
    }

    #[test]
    fn spans_of_time_have_one_unit() {
        for (seconds, expected) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3600, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (15 * 86_400, "2 weeks"),
            (61 * 86_400, "2 months"),
            (731 * 86_400, "2 years"),
        ] {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
    }
}
