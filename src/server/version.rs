//! Versions of the API: which ones this engine speaks, and what to say to the others.

use std::fmt;

use super::error::ApiError;

/// A version of the Engine API, `1.24` to `1.51`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    pub major: u16,
    pub minor: u16,
}

/// The newest version this engine speaks.
pub const NEWEST: ApiVersion = ApiVersion { major: 1, minor: 51 };
/// The oldest version this engine speaks.
pub const OLDEST: ApiVersion = ApiVersion { major: 1, minor: 24 };

impl ApiVersion {
    /// Reads `v1.43` as it stands at the front of a path; `None` if the segment is no version.
    pub fn from_segment(segment: &str) -> Option<Self> {
        let (major, minor) = segment.strip_prefix('v')?.split_once('.')?;
        Some(Self {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        })
    }

    /// Refuses versions that this engine does not speak, in Docker's words.
    pub fn check(self) -> Result<Self, ApiError> {
        if self > NEWEST {
            return Err(ApiError::bad_request(format!(
                "client version {self} is too new. Maximum supported API version is {NEWEST}"
            )));
        }
        if self < OLDEST {
            return Err(ApiError::bad_request(format!(
                "client version {self} is too old. Minimum supported API version is {OLDEST}, \
                 please upgrade your client to a newer version"
            )));
        }
        Ok(self)
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_recognised_at_the_front_of_a_path() {
        assert_eq!(
            ApiVersion::from_segment("v1.43"),
            Some(ApiVersion { major: 1, minor: 43 })
        );
        for other in ["containers", "v1", "1.43", "v1.x", "volumes"] {
            assert_eq!(ApiVersion::from_segment(other), None, "{other}");
        }
    }

    #[test]
    fn versions_outside_the_range_are_refused() {
        assert!(ApiVersion { major: 1, minor: 52 }.check().is_err());
        assert!(ApiVersion { major: 1, minor: 23 }.check().is_err());
        assert!(ApiVersion { major: 1, minor: 9 }.check().is_err());
        assert!(NEWEST.check().is_ok() && OLDEST.check().is_ok());
    }
}
