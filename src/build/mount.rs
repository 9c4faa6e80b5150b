//! `RUN --mount=…`: what is mounted into a step's container and where.

use super::instruction::nearest;

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Mount {
    pub kind: Kind,
    /// The stage, image or context that it comes from.
    pub from: String,
    pub source: String,
    pub target: String,
    pub read_only: bool,
    pub id: String,
    pub sharing: Sharing,
    pub required: bool,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Bytes of a tmpfs.
    pub size: Option<u64>,
    /// The variable that has the secret, beside a file or in place of it.
    pub variable: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Kind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

/// Who may use a cache at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sharing {
    #[default]
    Shared,
    /// Each has its own.
    Private,
    /// One after the other.
    Locked,
}

const KEYS: [&str; 20] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
    "",
];

/// Expands the variables of a value.
pub(super) type Expand<'e> = &'e dyn Fn(&str) -> Result<String, String>;

impl Mount {
    /// Reads what follows `--mount=`. Without `expand` only where it comes from is looked at, which has no variables.
    pub fn parse(text: &str, expand: Option<Expand<'_>>) -> Result<Self, String> {
        let mut mount = Self::default();
        let mut read_only = None;
        let mut sharing = None;
        for field in fields(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(value.to_owned())),
                None => (field.to_ascii_lowercase(), None),
            };
            let value = match (value, expand) {
                (Some(value), Some(expand)) => Some(expand(&value)?),
                (Some(value), None) => {
                    if key == "from" && value.contains('$') {
                        return Err("'from' doesn't support variable expansion, define alias stage instead".to_owned());
                    }
                    // The rest is read when the variables are known.
                    if key != "from" {
                        continue;
                    }
                    Some(value)
                }
                (None, None) => continue,
                (None, Some(_)) => None,
            };
            let wrong = |value: &str| format!("invalid value for {key}: {value}");
            let truth = |value: &Option<String>| match value.as_deref() {
                None => Ok(true),
                Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
                Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
                Some(other) => Err(wrong(other)),
            };
            let only_for = |kinds: &[Kind]| match kinds.contains(&mount.kind) {
                true => Ok(()),
                false => Err(format!("unexpected key '{key}' for mount type '{}'", mount.kind.name())),
            };
            match (key.as_str(), &value) {
                ("readonly" | "ro", value) => read_only = Some(truth(value)?),
                ("readwrite" | "rw", value) => read_only = Some(!truth(value)?),
                ("required", value) => {
                    only_for(&[Kind::Secret, Kind::Ssh])?;
                    mount.required = truth(value)?;
                }
                (_, None) => return Err(format!("invalid field '{field}' must be a key=value pair")),
                ("type", Some(value)) => mount.kind = Kind::parse(value)?,
                ("from", Some(value)) => mount.from.clone_from(value),
                ("source" | "src", Some(value)) => mount.source.clone_from(value),
                ("target" | "dst" | "destination", Some(value)) => mount.target.clone_from(value),
                ("id", Some(value)) => mount.id.clone_from(value),
                ("env", Some(value)) => {
                    only_for(&[Kind::Secret])?;
                    mount.variable = Some(value.clone());
                }
                ("size", Some(value)) => {
                    only_for(&[Kind::Tmpfs])?;
                    let size: crate::model::Bytes = value.parse().map_err(|_| wrong(value))?;
                    mount.size = Some(u64::try_from(size.0).map_err(|_| wrong(value))?);
                }
                ("sharing", Some(value)) => sharing = Some(Sharing::parse(value)?),
                ("mode", Some(value)) => {
                    let mode = u32::from_str_radix(value, 8);
                    mount.mode = Some(mode.map_err(|_| format!("invalid value {value} for mode"))?);
                }
                ("uid", Some(value)) => {
                    mount.uid = Some(value.parse().map_err(|_| format!("invalid value {value} for uid"))?);
                }
                ("gid", Some(value)) => {
                    mount.gid = Some(value.parse().map_err(|_| format!("invalid value {value} for gid"))?);
                }
                _ => {
                    let unexpected = format!("unexpected key '{key}' in '{field}'");
                    return Err(match nearest(&key, &KEYS) {
                        Some(meant) => format!("{unexpected} (did you mean {meant}?)"),
                        None => unexpected,
                    });
                }
            }
        }
        mount.read_only = read_only.unwrap_or(!matches!(mount.kind, Kind::Cache | Kind::Tmpfs));
        mount.sharing = sharing.unwrap_or_default();
        if expand.is_some() {
            mount.check(sharing.is_some())?;
        }
        Ok(mount)
    }

    fn check(&self, has_sharing: bool) -> Result<(), String> {
        let name = self.kind.name();
        if matches!(self.kind, Kind::Bind | Kind::Tmpfs) {
            for (given, key) in [
                (self.mode.is_some(), "mode"),
                (self.uid.is_some(), "uid"),
                (self.gid.is_some(), "gid"),
            ] {
                if given {
                    return Err(format!("{key} not allowed for {name:?} type mounts"));
                }
            }
        }
        if self.kind == Kind::Secret {
            if !self.from.is_empty() {
                return Err("secret mount should not have a from".to_owned());
            }
            if has_sharing {
                return Err("secret mount should not define sharing".to_owned());
            }
            if self.source.is_empty() && self.target.is_empty() && self.id.is_empty() {
                return Err("invalid secret mount. one of source, target required".to_owned());
            }
            if !self.source.is_empty() && !self.id.is_empty() {
                return Err("both source and id can't be set".to_owned());
            }
        }
        if has_sharing && self.kind != Kind::Cache {
            return Err(format!("invalid cache sharing set for {name} mount"));
        }
        Ok(())
    }

    /// Returns the name by which a secret or key was offered, and the file it is to be in, if it is to be in one.
    pub fn secret(&self) -> (String, Option<String>) {
        let id = [&self.id, &self.source].into_iter().find(|id| !id.is_empty()).cloned();
        let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let id = id.unwrap_or_else(|| base(&self.target));
        let target = match (self.target.as_str(), &self.variable) {
            ("", Some(_)) => None,
            ("", None) => Some(format!("/run/secrets/{}", base(&id))),
            (target, _) => Some(target.to_owned()),
        };
        (id, target)
    }
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let all = [Self::Bind, Self::Cache, Self::Tmpfs, Self::Secret, Self::Ssh];
        let lower = text.to_ascii_lowercase();
        all.into_iter().find(|kind| kind.name() == lower).ok_or_else(|| {
            let names = all.map(Self::name);
            match nearest(text, &names) {
                Some(meant) => format!("unsupported mount type {text:?} (did you mean {meant}?)"),
                None => format!("unsupported mount type {text:?}"),
            }
        })
    }
}

impl Sharing {
    fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "shared" => Ok(Self::Shared),
            "private" => Ok(Self::Private),
            "locked" => Ok(Self::Locked),
            _ => Err(format!("unsupported sharing value {text:?}")),
        }
    }
}

/// Splits at commas as a line of CSV: a field in quotes may have some in it.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return Err(
                    "failed to parse csv mounts: parse error on line 1: bare \" in non-quoted-field".to_owned(),
                );
            }
            fields.push(rest[..end].to_owned());
            match rest[end..].strip_prefix(',') {
                Some(more) => rest = more,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut chars = quoted.char_indices().peekable();
        let end = loop {
            match chars.next() {
                None => {
                    return Err(
                        "failed to parse csv mounts: parse error on line 1: extraneous or missing \" in quoted-field"
                            .to_owned(),
                    );
                }
                Some((_, '"')) if chars.next_if(|(_, next)| *next == '"').is_some() => field.push('"'),
                Some((at, '"')) => break at + 1,
                Some((_, other)) => field.push(other),
            }
        };
        fields.push(field);
        match quoted[end..].strip_prefix(',') {
            Some(more) => rest = more,
            None if quoted[end..].is_empty() => return Ok(fields),
            None => {
                return Err(
                    "failed to parse csv mounts: parse error on line 1: extraneous or missing \" in quoted-field"
                        .to_owned(),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Mount, String> {
        Mount::parse(text, Some(&|value| Ok(value.to_owned())))
    }

    #[test]
    fn options_are_read() {
        let mount = parse("type=cache,id=a,dst=/c,sharing=locked,mode=0700,uid=5,\"gid=6\"").unwrap();
        assert_eq!((mount.kind, mount.sharing), (Kind::Cache, Sharing::Locked));
        assert_eq!((mount.mode, mount.uid, mount.gid), (Some(0o700), Some(5), Some(6)));
        assert!(!mount.read_only && parse("target=/x").unwrap().read_only);
        assert!(!parse("target=/x,rw").unwrap().read_only);
        assert_eq!(parse("type=tmpfs,target=/x,size=1m").unwrap().size, Some(1 << 20));
        let secret = parse("type=secret,id=x/token,required").unwrap();
        assert_eq!(
            secret.secret(),
            ("x/token".to_owned(), Some("/run/secrets/token".to_owned()))
        );
        assert_eq!(
            parse("type=secret,id=t,env=T").unwrap().secret(),
            ("t".to_owned(), None)
        );
    }

    #[test]
    fn mistakes_are_told() {
        for (text, message) in [
            ("type=what,target=/", "unsupported mount type \"what\""),
            ("type=bnd", "unsupported mount type \"bnd\" (did you mean bind?)"),
            ("target", "invalid field 'target' must be a key=value pair"),
            (
                "tagret=/x",
                "unexpected key 'tagret' in 'tagret=/x' (did you mean target?)",
            ),
            ("type=bind,mode=1", "mode not allowed for \"bind\" type mounts"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,id=a,source=b", "both source and id can't be set"),
            ("type=tmpfs,sharing=locked", "invalid cache sharing set for tmpfs mount"),
            ("required", "unexpected key 'required' for mount type 'bind'"),
            ("type=cache,ro=x", "invalid value for ro: x"),
            (
                "a\"b",
                "failed to parse csv mounts: parse error on line 1: bare \" in non-quoted-field",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), message, "{text}");
        }
        assert_eq!(
            Mount::parse("from=$x", None).unwrap_err(),
            "'from' doesn't support variable expansion, define alias stage instead"
        );
    }
}
