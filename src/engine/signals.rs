//! Signals by the names and numbers that requests give them.

use super::{EngineError, Result};

const NAMES: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// SIGKILL, which nobody can ignore.
pub const KILL: i32 = 9;

/// Reads `SIGTERM`, `term`, `15` or `RTMIN+3`.
pub fn parse(text: &str) -> Result<i32> {
    let invalid = || EngineError::InvalidParameter(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) {
            Ok(number)
        } else {
            Err(invalid())
        };
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |base: i32, rest: &str| -> Option<i32> {
        let offset = if rest.is_empty() { 0 } else { rest.parse::<i32>().ok()? };
        Some(base + offset).filter(|number| (34..=64).contains(number))
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return real_time(34, rest.trim_start_matches('+')).ok_or_else(invalid);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return real_time(64, rest).ok_or_else(invalid);
    }
    match name {
        "POLL" => Ok(29),
        "IOT" => Ok(6),
        "CLD" => Ok(17),
        _ => NAMES
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, number)| *number)
            .ok_or_else(invalid),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("HUP", 1),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "65", "SIGNOTHING", "RTMIN+99"] {
            assert_eq!(parse(text).unwrap_err().to_string(), format!("invalid signal: {text}"));
        }
    }
}
