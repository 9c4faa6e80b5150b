//! The short form of `volumes`: `[SOURCE:]TARGET[:MODE]`.

use super::{BindOptions, Mount, VolumeOptions};

/// The attribute of a bind mount that has its files belong to the owner of the directory outside, and to the container's
/// user inside.
pub const IDMAP: &str = "x-idmap";

/// Why a text mounts nothing; the texts are docker compose's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    #[error("invalid empty volume spec")]
    Empty,
    #[error("invalid spec: {0}: empty section between colons")]
    EmptySection(String),
    #[error("invalid spec: {0}: too many colons")]
    TooManyColons(String),
}

/// Returns the mount a short form stands for; paths are left as they are written.
///
/// # Errors
///
/// Refuses an empty text, an empty part and too many parts.
pub fn parse_mount(text: &str) -> Result<Mount, MountError> {
    let mut mount = Mount::default();
    if text.is_empty() {
        return Err(MountError::Empty);
    }
    if text.len() <= 2 {
        mount.target = text.to_owned();
        mount.r#type = "volume".to_owned();
        return Ok(mount);
    }
    let sections = split(text);
    let last = sections.len() - 1;
    for (index, section) in sections.into_iter().enumerate() {
        if section.is_empty() {
            return Err(MountError::EmptySection(text.to_owned()));
        } else if mount.source.is_empty() && index == last {
            mount.target = section.to_owned();
        } else if mount.source.is_empty() {
            mount.source = section.to_owned();
        } else if mount.target.is_empty() {
            mount.target = section.to_owned();
        } else if index < last {
            return Err(MountError::TooManyColons(text.to_owned()));
        } else {
            apply_mode(&mut mount, section);
        }
    }
    if is_path(&mount.source) {
        mount.r#type = "bind".to_owned();
        mount.bind.get_or_insert_default().create_host_path = true;
    } else {
        mount.r#type = "volume".to_owned();
        mount.volume.get_or_insert_default();
    }
    Ok(mount)
}

/// Splits at colons, but not behind a drive letter or inside `${…}`.
fn split(text: &str) -> Vec<&str> {
    let mut sections = Vec::new();
    let mut start = 0;
    let mut open_variables = 0_usize;
    for (at, character) in text.char_indices() {
        let section = &text[start..at];
        match character {
            '$' if text[at + 1..].starts_with('{') => open_variables += 1,
            '}' if open_variables > 0 => open_variables -= 1,
            ':' if open_variables == 0 && !is_drive_letter(section) => {
                sections.push(section);
                start = at + 1;
            }
            _ => {}
        }
    }
    sections.push(&text[start..]);
    sections
}

fn is_drive_letter(section: &str) -> bool {
    let mut characters = section.chars();
    characters.next().is_some_and(char::is_alphabetic) && characters.next().is_none()
}

/// Says whether a source is a path of the host rather than the name of a volume.
pub fn is_path(source: &str) -> bool {
    if source.starts_with(['.', '/', '~']) || source.starts_with(r"\\") {
        return true;
    }
    let mut characters = source.chars();
    characters.next().is_some_and(char::is_alphabetic) && characters.next() == Some(':')
}

fn apply_mode(mount: &mut Mount, mode: &str) {
    for option in mode.split(',') {
        match option {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            "nocopy" => {
                mount.volume = Some(VolumeOptions {
                    nocopy: true,
                    ..VolumeOptions::default()
                });
            }
            "rprivate" | "private" | "rshared" | "shared" | "rslave" | "slave" => {
                let bind: &mut BindOptions = mount.bind.get_or_insert_default();
                bind.propagation = option.to_owned();
            }
            "z" | "Z" => mount.bind.get_or_insert_default().selinux = option.to_owned(),
            // Podman's word for it; docker compose ignores it.
            "idmap" => {
                let bind = mount.bind.get_or_insert_default();
                bind.extensions.insert(IDMAP.to_owned(), super::Value::Bool(true));
            }
            // docker compose ignores words it does not know, `cached` and `delegated` among them.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match parse_mount(text) {
            Ok(mount) => {
                let mut shown = format!("{} {}>{}", mount.r#type, mount.source, mount.target);
                if mount.read_only {
                    shown.push_str(" ro");
                }
                if let Some(bind) = &mount.bind {
                    shown.push_str(&format!(" {}{}", bind.propagation, bind.selinux));
                }
                if mount.volume.is_some_and(|volume| volume.nocopy) {
                    shown.push_str(" nocopy");
                }
                shown
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn short_forms_mean_what_docker_compose_says() {
        for (text, expected) in [
            ("/a", "volume >/a"),
            ("name:/t", "volume name>/t"),
            ("./a:/t:ro", "bind ./a>/t ro "),
            ("~/a:/t", "bind ~/a>/t "),
            ("C:\\a:D:\\b:ro,rprivate", "bind C:\\a>D:\\b ro rprivate"),
            ("v:/v", "volume >v:/v"),
            ("name:D::rW", "volume name>D:"),
            ("/a:/b:nocopy", "bind /a>/b  nocopy"),
            ("/a:/b:cached,Z", "bind /a>/b Z"),
            ("a:b:c:d", "bind a:b>c:d "),
            ("/a:${B:-x}:ro", "bind /a>${B:-x} ro "),
            ("", "invalid empty volume spec"),
            (":foo", "invalid spec: :foo: empty section between colons"),
            ("/a:/b:", "invalid spec: /a:/b:: empty section between colons"),
            ("/foo:/foo:ro:foo", "invalid spec: /foo:/foo:ro:foo: too many colons"),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-zA-Z:/\\\\.$,{}é]{0,24}|\\PC*") {
            let _ = read(&text);
        }
    }
}
