//! What a registry asks for before it answers: `WWW-Authenticate`, and the scope of a token.
//!
//! Follows <https://distribution.github.io/distribution/spec/auth/token/>.

/// How to prove who one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer {
        /// Where tokens are given out.
        realm: String,
        service: Option<String>,
    },
}

/// Reads the challenges of an answer and returns the best one: a token reveals less than a password.
pub(super) fn best<'v>(values: impl IntoIterator<Item = &'v str>) -> Option<Challenge> {
    let mut basic = None;
    for challenge in values.into_iter().flat_map(parse) {
        match challenge {
            Challenge::Basic => basic = Some(Challenge::Basic),
            bearer => return Some(bearer),
        }
    }
    basic
}

/// Reads one header, which may hold several challenges: `Basic realm="x", Bearer realm="y",service="z"`.
fn parse(value: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = value.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',', '\t']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start_matches([' ', '\t']);
        if let Some(value) = after.strip_prefix('=')
            && let Some((_, parameters)) = found.last_mut()
        {
            let (value, after) = parameter(value.trim_start_matches([' ', '\t']));
            parameters.push((word.to_ascii_lowercase(), value));
            rest = after;
        } else {
            if !word.is_empty() {
                found.push((word.to_ascii_lowercase(), Vec::new()));
            }
            // A sign that belongs nowhere must not be looked at for ever.
            rest = after.strip_prefix('=').unwrap_or(after);
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    let known = |(scheme, parameters): (String, Vec<(String, String)>)| {
        let find = |name: &str| {
            let mut all = parameters.iter();
            all.find(|(key, _)| key == name).map(|(_, value)| value.clone())
        };
        match scheme.as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => Some(Challenge::Bearer {
                realm: find("realm")?,
                service: find("service"),
            }),
            _ => None,
        }
    };
    found.into_iter().filter_map(known).collect()
}

/// Reads a value, quoted or not, and returns it with what follows.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '"' => return (value, &quoted[position + 1..]),
            other => value.push(other),
        }
    }
    (value, "")
}

/// What a request is to be allowed: one line of it is `repository:library/busybox:pull`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Scope(Vec<String>);

impl Scope {
    pub(super) fn pull(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull")])
    }

    /// No right at all: only to be known.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    pub(super) fn push(repository: &str) -> Self {
        Self(vec![format!("repository:{repository}:pull,push")])
    }

    /// Adds the right to take blobs from another repository of the registry.
    pub(super) fn and_pull(mut self, repository: &str) -> Self {
        self.0.push(format!("repository:{repository}:pull"));
        self
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        }
    }

    #[test]
    fn challenges_are_read_as_servers_write_them() {
        for (header, expected) in [
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull""#,
                vec![bearer("https://auth.docker.io/token", Some("registry.docker.io"))],
            ),
            (
                r#"bearer realm = "https://a/t?x=1,2" , error="invalid_token""#,
                vec![bearer("https://a/t?x=1,2", None)],
            ),
            (
                r#"Basic realm="a \"b\", c", Bearer realm=https://a/t,service=s"#,
                vec![Challenge::Basic, bearer("https://a/t", Some("s"))],
            ),
            ("Negotiate", vec![]),
            ("Bearer", vec![]),
            ("", vec![]),
            ("=,=\"", vec![]),
            ("Bearer realm=\"unfinished", vec![bearer("unfinished", None)]),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
    }

    #[test]
    fn a_token_is_preferred_to_a_password() {
        let headers = [r#"Basic realm="x""#, r#"Bearer realm="y""#];
        assert_eq!(best(headers), Some(bearer("y", None)));
        assert_eq!(best([headers[0]]), Some(Challenge::Basic));
        assert_eq!(best([]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_header_is_read_for_ever(header in ".{0,80}") {
            parse(&header);
        }
    }
}
