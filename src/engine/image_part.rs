//! Where a part of an image lies: the directories of its layers that make it up, or the one file that it is.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// A part of an image.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// A directory: what each layer has of it, top first.
    Directory(Vec<PathBuf>),
    File(PathBuf),
}

/// Finds a part in an image's layers, the top one first. A link on the way is not followed: it could lead anywhere.
pub fn find(layers: &[PathBuf], subpath: &str) -> io::Result<Part> {
    let components: Vec<&std::ffi::OsStr> = Path::new(subpath)
        .components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(Ok(name)),
            Component::RootDir | Component::CurDir => None,
            Component::ParentDir | Component::Prefix(_) => Some(Err(io::ErrorKind::InvalidInput.into())),
        })
        .collect::<io::Result<_>>()?;
    let mut found = Vec::new();
    'layers: for layer in layers {
        let mut path = layer.clone();
        let mut covers_all_below = false;
        for (index, name) in components.iter().enumerate() {
            path.push(name);
            let metadata = match path.symlink_metadata() {
                Ok(metadata) => metadata,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound && covers_all_below => break 'layers,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue 'layers,
                Err(cause) => return Err(cause),
            };
            let kind = metadata.file_type();
            if kind.is_char_device() && metadata.rdev() == 0 {
                // Deleted here: what lower layers have of it is not in the image.
                break 'layers;
            }
            if kind.is_symlink() {
                return Err(io::Error::other("a symbolic link is on the way"));
            }
            if !kind.is_dir() {
                let is_last = index + 1 == components.len();
                return match (is_last, found.is_empty()) {
                    (true, true) => Ok(Part::File(path)),
                    // A directory in the place of a file, or the other way round, ends what lies below.
                    _ if !found.is_empty() => break 'layers,
                    _ => Err(io::ErrorKind::NotADirectory.into()),
                };
            }
            covers_all_below |= is_opaque(&path);
        }
        found.push(path);
        if covers_all_below {
            break;
        }
    }
    if found.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok(Part::Directory(found))
}

fn is_opaque(directory: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"]
        .into_iter()
        .any(|name| {
            let mut value = [0_u8; 1];
            rustix::fs::getxattr(directory, name, &mut value).is_ok() && value == *b"y"
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_put_together_from_the_layers_that_have_it() {
        let place = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> = ["top", "middle", "bottom"].map(|name| place.path().join(name)).into();
        for (layer, directory) in [(0, "a/b"), (2, "a/b"), (1, "other")] {
            std::fs::create_dir_all(layers[layer].join(directory)).unwrap();
        }
        std::fs::write(layers[1].join("other/file"), "x").unwrap();
        std::os::unix::fs::symlink("/etc", layers[0].join("link")).unwrap();
        let directory = |paths: &[PathBuf]| Part::Directory(paths.to_vec());
        assert_eq!(
            find(&layers, "a/b").unwrap(),
            directory(&[layers[0].join("a/b"), layers[2].join("a/b")])
        );
        assert_eq!(
            find(&layers, "/other/./file").unwrap(),
            Part::File(layers[1].join("other/file"))
        );
        for (wrong, kind) in [
            ("a/../..", io::ErrorKind::InvalidInput),
            ("missing", io::ErrorKind::NotFound),
            ("link/passwd", io::ErrorKind::Other),
            ("other/file/below", io::ErrorKind::NotADirectory),
        ] {
            assert_eq!(find(&layers, wrong).unwrap_err().kind(), kind, "{wrong}");
        }
    }
}
