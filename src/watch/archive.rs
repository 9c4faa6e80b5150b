//! Files as a tar for engines that know no other way into a container: Docker's and Podman's.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::Mapping;

/// Writes the files, with owner and mode as they are here. One that vanished is left out; one that cannot be read is
/// named to `unreadable`, and the others come.
pub fn pack(files: &[Mapping], output: impl Write, mut unreadable: impl FnMut(&Path, &io::Error)) -> io::Result<()> {
    let mut archive = tar::Builder::new(output);
    for file in files {
        let opened = match open(&file.from) {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                unreadable(&file.from, &error);
                continue;
            }
        };
        append(&mut archive, file, opened)?;
    }
    archive.into_inner()?.flush()
}

fn open(path: &Path) -> io::Result<(std::fs::Metadata, Option<File>)> {
    let metadata = std::fs::symlink_metadata(path)?;
    if !metadata.is_file() {
        return Ok((metadata, None));
    }
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    Ok((file.metadata()?, Some(file)))
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    file: &Mapping,
    (metadata, content): (std::fs::Metadata, Option<File>),
) -> io::Result<()> {
    let mut name = file.to.trim_start_matches('/').to_owned();
    if name.ends_with('/') && !metadata.is_dir() {
        name.push_str(&file.from.file_name().unwrap_or_default().to_string_lossy());
    }
    let name = name.trim_end_matches('/');
    if name.is_empty() {
        return Ok(());
    }
    let mut header = tar::Header::new_gnu();
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(u64::from(metadata.uid()));
    header.set_gid(u64::from(metadata.gid()));
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or_default());
    header.set_size(0);
    if let Some(content) = content {
        let size = metadata.size();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(size);
        // A file that shrinks under our hands must not shift everything after it.
        let content = content.take(size).chain(io::repeat(0)).take(size);
        return archive.append_data(&mut header, name, content);
    }
    let kind = metadata.file_type();
    if kind.is_dir() {
        header.set_entry_type(tar::EntryType::Directory);
        archive.append_data(&mut header, name, io::empty())
    } else if kind.is_symlink() {
        header.set_entry_type(tar::EntryType::Symlink);
        match std::fs::read_link(&file.from) {
            Ok(target) => archive.append_link(&mut header, name, target),
            // Replaced meanwhile; there will be a change for it.
            Err(_) => Ok(()),
        }
    } else {
        // Sockets and pipes belong to the processes here, devices to this machine.
        debug_assert!(kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_left_out_and_a_target_may_name_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        std::fs::write(&path, "text").unwrap();
        std::os::unix::fs::symlink("a", directory.path().join("l")).unwrap();
        let mapping = |from: &str, to: &str| Mapping {
            from: directory.path().join(from),
            to: to.to_owned(),
            is_below: false,
        };
        let files = [
            mapping("a", "/app/"),
            mapping("missing", "/x"),
            mapping("l", "/app/l"),
            mapping(".", "/"),
        ];
        let mut packed = Vec::new();
        pack(&files, &mut packed, |path, _| panic!("{path:?}")).unwrap();
        let mut archive = tar::Archive::new(packed.as_slice());
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["app/a", "app/l"]);
    }
}
