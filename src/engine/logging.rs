//! Where a container's output goes: Docker's drivers, their options, and what the shim is told of them.

use std::net::ToSocketAddrs;
use std::path::{Path, PathBuf};

use super::config::{HostConfig, LogConfig, StringMap};
use super::container::Record;
use super::merge::invalid;
use super::{EngineError, Result};
use crate::runtime::{Forward, Log, SyslogAddress, SyslogFormat};

/// Options that every driver has.
const COMMON: [&str; 6] = [
    "mode",
    "max-buffer-size",
    "cache-disabled",
    "cache-max-size",
    "cache-max-file",
    "cache-compress",
];
const OF_FILES: [&str; 8] = [
    "max-size",
    "max-file",
    "labels",
    "labels-regex",
    "env",
    "env-regex",
    "compress",
    "tag",
];
const OF_SYSLOG: [&str; 7] = [
    "syslog-address",
    "syslog-facility",
    "syslog-format",
    "labels",
    "labels-regex",
    "env",
    "env-regex",
];
const OF_JOURNALD: [&str; 4] = ["labels", "labels-regex", "env", "env-regex"];

const FACILITIES: [(&str, u8); 20] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

/// Refuses drivers and options that there are not. The words are moby's.
pub fn check(host: &HostConfig) -> Result<()> {
    let config = &host.log_config;
    let kind = config.r#type.as_str();
    let known: &[&str] = match kind {
        "none" => return Ok(()),
        "json-file" | "local" => &OF_FILES,
        "syslog" => &OF_SYSLOG,
        "journald" => &OF_JOURNALD,
        // Output would otherwise vanish without a word.
        _ => {
            return Err(invalid(&format!(
                "error looking up logging plugin {kind}: plugin \"{kind}\" not found"
            )));
        }
    };
    let is_file = matches!(kind, "json-file" | "local");
    for (key, value) in &config.config {
        match key.as_str() {
            "max-size" | "cache-max-size" if is_file || key != "max-size" => {
                size(value).ok_or_else(|| invalid(&format!("invalid size: '{value}'")))?;
            }
            "max-file" | "cache-max-file" if is_file || key != "max-file" => {
                let files = value.parse::<u32>().ok().filter(|files| *files > 0);
                files.ok_or_else(|| invalid(&format!("{key} cannot be less than 1")))?;
            }
            "tag" => {}
            key if key.starts_with("syslog-tls-") && kind == "syslog" => {
                return Err(no_tls());
            }
            key if COMMON.contains(&key) || known.contains(&key) => {}
            _ => return Err(invalid(&format!("unknown log opt '{key}' for {kind} log driver"))),
        }
    }
    if kind == "syslog" {
        facility(&config.config)?;
        format(&config.config)?;
        let address = option(&config.config, "syslog-address");
        if !address.is_empty() {
            parse_address(address)?;
        }
    }
    Ok(())
}

/// Returns whether `logs` has something to read: the file, or the copy that Docker keeps of what goes elsewhere.
pub fn can_be_read(config: &LogConfig) -> bool {
    match config.r#type.as_str() {
        "none" => false,
        "syslog" | "journald" => !matches!(option(&config.config, "cache-disabled"), "true" | "1" | "t"),
        _ => true,
    }
}

/// Returns what is kept of a container's output.
pub fn kept(record: &Record, path: PathBuf) -> Log {
    let config = &record.host.log_config;
    if !can_be_read(config) {
        return Log::None;
    }
    // `local` and the copies of what goes elsewhere rotate by default, as Docker's do.
    let rotates = config.r#type != "json-file";
    let prefix = if forwards(config) { "cache-" } else { "" };
    let option = |name: &str| config.config.get(&format!("{prefix}{name}"));
    let files = option("max-file").and_then(|files| files.parse().ok());
    Log::JsonFile {
        path,
        max_size: option("max-size")
            .and_then(|text| size(text))
            .or(rotates.then_some(20_000_000)),
        max_files: files.unwrap_or(if rotates { 5 } else { 1 }),
    }
}

fn forwards(config: &LogConfig) -> bool {
    matches!(config.r#type.as_str(), "syslog" | "journald")
}

/// Returns who else hears a container's output.
pub fn forward(record: &Record) -> Result<Option<Forward>> {
    let config = &record.host.log_config;
    if !forwards(config) {
        return Ok(None);
    }
    let options = &config.config;
    let tag = tag(record)?;
    if config.r#type == "journald" {
        let mut fields: Vec<(String, String)> = [
            ("CONTAINER_ID", record.id[..12].to_owned()),
            ("CONTAINER_ID_FULL", record.id.clone()),
            ("CONTAINER_NAME", record.name.clone()),
            ("CONTAINER_TAG", tag.clone()),
            ("IMAGE_NAME", record.config.image.clone()),
            ("SYSLOG_IDENTIFIER", tag),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        fields.extend(extra(record));
        return Ok(Some(Forward::Journald { fields }));
    }
    let address = match option(options, "syslog-address") {
        "" => SyslogAddress::Local,
        text => resolve(text)?,
    };
    Ok(Some(Forward::Syslog {
        address,
        format: format(options)?,
        facility: facility(options)?,
        tag,
    }))
}

fn option<'o>(options: &'o StringMap, name: &str) -> &'o str {
    options.get(name).map_or("", String::as_str)
}

fn no_tls() -> EngineError {
    invalid(
        "the built-in engine's syslog driver does not encrypt: use udp://, tcp://, unix:// or unixgram:// in \
         syslog-address, and no syslog-tls-* options",
    )
}

fn format(options: &StringMap) -> Result<SyslogFormat> {
    match option(options, "syslog-format") {
        "" => Ok(SyslogFormat::Unix),
        "rfc3164" => Ok(SyslogFormat::Rfc3164),
        "rfc5424" => Ok(SyslogFormat::Rfc5424),
        "rfc5424micro" => Ok(SyslogFormat::Rfc5424Micro),
        _ => Err(invalid("Invalid syslog format")),
    }
}

fn facility(options: &StringMap) -> Result<u8> {
    let text = option(options, "syslog-facility");
    let named = FACILITIES
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, number)| *number);
    match (text, named, text.parse::<u8>()) {
        ("", ..) => Ok(3),
        (_, Some(number), _) => Ok(number),
        (_, None, Ok(number)) if number <= 23 => Ok(number),
        _ => Err(invalid("invalid syslog facility")),
    }
}

/// Returns the scheme of an address and what follows it.
// moby daemon/logger/syslog/syslog.go: parseAddress
fn parse_address(text: &str) -> Result<(&str, &str)> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(invalid(&format!(
            "syslog-address should be in form proto://address, got {text}"
        )));
    };
    match scheme {
        "unix" | "unixgram" => match std::fs::symlink_metadata(rest) {
            Ok(_) => Ok((scheme, rest)),
            Err(_) => Err(invalid(&format!("stat {rest}: no such file or directory"))),
        },
        "udp" | "tcp" => Ok((scheme, rest)),
        "tcp+tls" => Err(no_tls()),
        _ => Err(invalid(&format!("unsupported scheme: '{scheme}'"))),
    }
}

fn resolve(text: &str) -> Result<SyslogAddress> {
    let (scheme, rest) = parse_address(text)?;
    match scheme {
        "unix" => return Ok(SyslogAddress::Unix(Path::new(rest).to_owned())),
        "unixgram" => return Ok(SyslogAddress::Unixgram(Path::new(rest).to_owned())),
        _ => {}
    }
    let has_port = rest
        .rsplit_once(':')
        .is_some_and(|(host, port)| port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']')));
    let with_port = if has_port {
        rest.to_owned()
    } else {
        format!("{rest}:514")
    };
    let found = with_port.to_socket_addrs().ok().and_then(|mut found| found.next());
    let Some(address) = found else {
        return Err(EngineError::Start(format!(
            "failed to initialize logging driver: dial {scheme} {with_port}: no such host"
        )));
    };
    Ok(match scheme {
        "udp" => SyslogAddress::Udp(address),
        _ => SyslogAddress::Tcp(address),
    })
}

/// Returns what lines are known by: the option `tag` with the container's words in place of `{{.Name}}` and the like.
// moby daemon/logger/loginfo.go
fn tag(record: &Record) -> Result<String> {
    let text = match option(&record.host.log_config.config, "tag") {
        "" => return Ok(record.id[..12].to_owned()),
        text => text,
    };
    let image = record.image.trim_start_matches("sha256:");
    let mut tag = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((name, after)) = after.split_once("}}") else {
            break;
        };
        tag.push_str(before);
        tag.push_str(&match name.trim() {
            ".ID" => record.id[..12].to_owned(),
            ".FullID" => record.id.clone(),
            ".Name" => record.name.clone(),
            ".ImageID" => image.chars().take(12).collect(),
            ".ImageFullID" => image.to_owned(),
            ".ImageName" => record.config.image.clone(),
            ".DaemonName" => "docker".to_owned(),
            ".Hostname" => record.config.hostname.clone(),
            ".Command" => [std::slice::from_ref(&record.path), &record.args].concat().join(" "),
            name => {
                return Err(EngineError::Start(format!(
                    "failed to initialize logging driver: the log option tag has {{{{{name}}}}}, which is not known; use \
                     {{{{.ID}}}}, {{{{.FullID}}}}, {{{{.Name}}}}, {{{{.ImageName}}}} or {{{{.ImageID}}}}"
                )));
            }
        });
        rest = after;
    }
    tag.push_str(rest);
    Ok(tag)
}

/// Returns the labels and variables that the options ask for, under names that the journal takes.
fn extra(record: &Record) -> Vec<(String, String)> {
    let options = &record.host.log_config.config;
    let wanted = |list: &str, name: &str| option(options, list).split(',').any(|wanted| wanted == name);
    let labels = record.config.labels.iter();
    let labels = labels.map(|(name, value)| ("labels", name.as_str(), value.as_str()));
    let variables = record.config.env.iter().flatten();
    let variables = variables.filter_map(|variable| variable.split_once('='));
    labels
        .chain(variables.map(|(name, value)| ("env", name, value)))
        .filter(|(list, name, _)| wanted(list, name))
        .map(|(_, name, value)| {
            let name = name.to_uppercase();
            let name = name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
            (name.trim_start_matches('_').to_owned(), value.to_owned())
        })
        .collect()
}

/// Reads `10m` or `1g` as go-units' `FromHumanSize` does: powers of a thousand.
fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_lowercase();
    let end = text
        .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match unit.trim() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        _ => return None,
    };
    let bytes = number * factor;
    // The cast is bounded: a log of more than 2^53 bytes has no limit in any practical sense.
    (bytes > 0.0 && bytes < 9e15).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_a_thousand() {
        assert_eq!(size("10m"), Some(10_000_000));
        assert_eq!(size("1.5kb"), Some(1500));
        assert_eq!(size("x"), None);
        assert_eq!(size("-1"), None);
    }

    fn said(kind: &str, options: &[(&str, &str)]) -> Option<String> {
        let mut host = HostConfig::default();
        kind.clone_into(&mut host.log_config.r#type);
        host.log_config.config = options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        check(&host).err().map(|error| error.to_string())
    }

    #[test]
    fn options_are_those_of_their_driver() {
        assert_eq!(said("syslog", &[("tag", "x"), ("syslog-facility", "local3")]), None);
        assert_eq!(said("journald", &[("labels", "x"), ("cache-disabled", "true")]), None);
        for (kind, name, value, expected) in [
            (
                "json-file",
                "syslog-facility",
                "mail",
                "unknown log opt 'syslog-facility' for json-file log driver",
            ),
            (
                "syslog",
                "max-size",
                "1m",
                "unknown log opt 'max-size' for syslog log driver",
            ),
            ("syslog", "syslog-facility", "post", "invalid syslog facility"),
            ("syslog", "syslog-format", "x", "Invalid syslog format"),
            (
                "syslog",
                "syslog-address",
                "/dev/log",
                "syslog-address should be in form proto://address, got /dev/log",
            ),
            (
                "syslog",
                "syslog-address",
                "unix:///no/such",
                "stat /no/such: no such file or directory",
            ),
            ("syslog", "syslog-address", "http://x", "unsupported scheme: 'http'"),
            ("local", "max-file", "0", "max-file cannot be less than 1"),
            (
                "gelf",
                "x",
                "y",
                "error looking up logging plugin gelf: plugin \"gelf\" not found",
            ),
        ] {
            assert_eq!(said(kind, &[(name, value)]).as_deref(), Some(expected));
        }
        assert!(said("syslog", &[("syslog-address", "tcp+tls://x:1")]).is_some_and(|text| text.contains("encrypt")));
    }

    #[test]
    fn an_address_has_a_port() {
        let address = |text: &str| resolve(text).unwrap();
        assert_eq!(
            address("udp://127.0.0.1"),
            SyslogAddress::Udp(([127, 0, 0, 1], 514).into())
        );
        assert_eq!(
            address("tcp://[::1]:99"),
            SyslogAddress::Tcp("[::1]:99".parse().unwrap())
        );
        assert_eq!(address("udp://[::1]"), SyslogAddress::Udp("[::1]:514".parse().unwrap()));
    }
}
