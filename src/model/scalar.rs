//! Attribute values that are more than a string or a number, and how they print.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;

use super::{Dialect, Emit, Value};

/// Key and value, both always there.
pub type Mapping = BTreeMap<String, String>;
/// Labels; a label without a value has an empty one.
pub type Labels = BTreeMap<String, String>;
/// Variables; one without a value is taken from the project's environment, or stays unset.
pub type Environment = BTreeMap<String, Option<String>>;

/// A span of time in nanoseconds, printed as Go prints it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub i64);

impl Duration {
    /// Returns whole and fractional seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// Returns the span for use with timers; a negative one is no time at all.
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_nanos(self.0.max(0).unsigned_abs())
    }
}

impl fmt::Display for Duration {
    // Go time.Duration.String: the largest unit first, seconds with a fraction, smaller spans in one small unit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        let fraction = |value: u64, unit: u64| -> String {
            let whole = value / unit;
            let rest = value % unit;
            if rest == 0 {
                return whole.to_string();
            }
            let width = unit.ilog10() as usize;
            let digits = format!("{rest:0width$}");
            format!("{whole}.{}", digits.trim_end_matches('0'))
        };
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{sign}{nanos}ns"),
            1_000..1_000_000 => write!(f, "{sign}{}µs", fraction(nanos, 1_000)),
            1_000_000..1_000_000_000 => write!(f, "{sign}{}ms", fraction(nanos, 1_000_000)),
            _ => {
                let minutes = nanos / 60_000_000_000;
                let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000);
                match (minutes / 60, minutes % 60) {
                    (0, 0) => write!(f, "{sign}{seconds}s"),
                    (0, minutes) => write!(f, "{sign}{minutes}m{seconds}s"),
                    (hours, minutes) => write!(f, "{sign}{hours}h{minutes}m{seconds}s"),
                }
            }
        }
    }
}

impl Emit for Duration {
    fn is_empty(&self) -> bool {
        self.0 == 0
    }
    fn emit(&self, _: Dialect) -> Value {
        Value::String(self.to_string())
    }
}

/// A number of bytes; printed as a decimal string.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub i64);

impl Emit for Bytes {
    fn is_empty(&self) -> bool {
        self.0 == 0
    }
    fn emit(&self, _: Dialect) -> Value {
        Value::String(self.0.to_string())
    }
}

/// Permission bits; printed in octal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileMode(pub i64);

impl Emit for FileMode {
    fn is_empty(&self) -> bool {
        self.0 == 0
    }
    fn emit(&self, _: Dialect) -> Value {
        let sign = if self.0 < 0 { "-" } else { "" };
        Value::String(format!("0{sign}{:o}", self.0.unsigned_abs()))
    }
}

/// A command line in words. Unset leaves the image's; an empty one clears it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command(pub Option<Vec<String>>);

impl Command {
    /// Tells whether the file says anything about the command.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the words; none if unset.
    pub fn words(&self) -> &[String] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl Deref for Command {
    type Target = Option<Vec<String>>;
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Emit for Command {
    // compose-go ShellCommand.IsZero: only an unset command is left out.
    fn is_empty(&self) -> bool {
        self.0.is_none()
    }
    fn emit(&self, dialect: Dialect) -> Value {
        self.0.emit(dialect)
    }
}

/// Names for `/etc/hosts`, each with its addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hosts(pub BTreeMap<String, Vec<String>>);

impl Hosts {
    /// Returns one `name<separator>address` entry for each address, sorted.
    pub fn to_list(&self, separator: &str) -> Vec<String> {
        let mut list: Vec<String> = self
            .0
            .iter()
            .flat_map(|(name, addresses)| {
                addresses
                    .iter()
                    .map(move |address| format!("{name}{separator}{address}"))
            })
            .collect();
        list.sort();
        list
    }
}

impl Emit for Hosts {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    fn emit(&self, dialect: Dialect) -> Value {
        self.to_list("=").emit(dialect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_print_as_in_go() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (500_000_000, "500ms"),
            (1_000_000_000, "1s"),
            (90_000_000_000, "1m30s"),
            (60_000_000_000, "1m0s"),
            (86_400_000_000_000, "24h0m0s"),
            (-1_500_000_000, "-1.5s"),
        ] {
            assert_eq!(Duration(nanos).to_string(), text);
        }
    }

    #[test]
    fn an_empty_command_is_something_else_than_none() {
        assert!(Command(None).is_empty());
        assert!(!Command(Some(Vec::new())).is_empty());
    }
}
