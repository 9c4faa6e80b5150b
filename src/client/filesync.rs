//! Files that a builder asks for: the client sends what a tree has, then the content of those files that are wanted.
//!
//! The packets are those of <https://github.com/tonistiigi/fsutil/blob/master/types/wire.proto>.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::protobuf::{self, put_bytes, put_number};
use crate::build::ignore::Ignore;

/// A tree of files that a builder may have.
pub enum Tree {
    /// What a directory has, without what it says stays behind.
    Directory(PathBuf, Box<Ignore>),
    /// Texts by their names.
    Texts(BTreeMap<String, Vec<u8>>),
}

/// What one file of a tree is.
struct Entry {
    path: String,
    stat: Vec<u8>,
    is_link: bool,
    content: Option<Content>,
}

enum Content {
    File(PathBuf),
    Text(Bytes),
}

/// How much of a file goes into a packet.
const PIECE: usize = 32 * 1024;

/// The types of packets.
const REQUEST: u64 = 1;
const DATA: u64 = 2;
const FINISHED: u64 = 3;
const ERROR: u64 = 4;

/// Go's bits for what a file is and how it may be run.
const GO_DIRECTORY: u32 = 1 << 31;
const GO_LINK: u32 = 1 << 27;
const GO_BITS: [(u32, u32); 3] = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];

/// A tree being sent.
pub struct Sending {
    entries: Vec<Entry>,
}

impl Sending {
    /// Looks at a tree. Only what lies at these paths, below them or on the way to them is wanted; of all, if there are none.
    pub fn of(tree: &Tree, wanted: &[String]) -> io::Result<Self> {
        let mut entries = match tree {
            Tree::Directory(directory, ignore) => walk(directory, ignore)?,
            Tree::Texts(texts) => texts.iter().map(|(name, text)| Entry::of_text(name, text)).collect(),
        };
        // What a pattern or a link means is for who asked to find out; then everything goes.
        let is_plain = |path: &String| !path.contains(['*', '?', '[', '\\', '!']);
        if !wanted.is_empty() && wanted.iter().all(is_plain) {
            let wanted: Vec<&str> = wanted.iter().map(|path| path.trim_matches('/')).collect();
            let is_wanted = |entry: &Entry| wanted.iter().any(|path| lies_on(path, &entry.path));
            if !entries.iter().any(|entry| entry.is_link && is_wanted(entry)) {
                entries.retain(is_wanted);
            }
        }
        Ok(Self { entries })
    }

    /// Returns the packets that say what there is.
    pub fn stats(&self) -> impl Iterator<Item = Vec<u8>> {
        let stats = self.entries.iter().map(|entry| {
            let mut packet = Vec::new();
            put_bytes(&mut packet, 2, &entry.stat);
            packet
        });
        // One without a file says that these are all.
        stats.chain(std::iter::once(Vec::new()))
    }

    /// Returns what answers a packet, and whether that ends it.
    pub fn answer(&self, packet: &[u8]) -> Result<Answer, String> {
        let fields: BTreeMap<u64, protobuf::Value<'_>> = protobuf::fields(packet).collect();
        let number = |field: u64| fields.get(&field).map_or(0, |value| value.number());
        match number(1) {
            REQUEST => {
                let id = number(3);
                let entry = usize::try_from(id).ok().and_then(|id| self.entries.get(id));
                let content = entry.and_then(|entry| entry.content.as_ref());
                let reader: Box<dyn io::Read + Send> = match content {
                    Some(Content::File(path)) => match File::open(path) {
                        Ok(file) => Box::new(file),
                        // It has gone; who asked sees a file of another size than it was promised.
                        Err(_) => Box::new(io::empty()),
                    },
                    Some(Content::Text(text)) => Box::new(io::Cursor::new(text.clone())),
                    None => return Err(format!("there is no file number {id}")),
                };
                Ok(Answer::Content(Pieces {
                    id,
                    reader: Some(reader),
                }))
            }
            FINISHED => Ok(Answer::Finished(packet_of(FINISHED, 0, &[]))),
            ERROR => Err(fields.get(&4).map(|data| data.text()).unwrap_or_default()),
            _ => Ok(Answer::Nothing),
        }
    }
}

/// What answers a packet.
pub enum Answer {
    Nothing,
    Content(Pieces),
    /// The last packet.
    Finished(Vec<u8>),
}

/// The packets of one file's content.
pub struct Pieces {
    id: u64,
    reader: Option<Box<dyn io::Read + Send>>,
}

impl Iterator for Pieces {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut piece = Vec::with_capacity(PIECE);
        let reader = self.reader.as_mut()?;
        // What cannot be read ends the file, as above.
        let read = reader.take(PIECE as u64).read_to_end(&mut piece);
        if read.is_err() || piece.is_empty() {
            self.reader = None;
            piece.clear();
        }
        Some(packet_of(DATA, self.id, &piece))
    }
}

fn packet_of(kind: u64, id: u64, data: &[u8]) -> Vec<u8> {
    let mut packet = Vec::with_capacity(data.len() + 16);
    put_number(&mut packet, 1, kind);
    put_number(&mut packet, 3, id);
    if !data.is_empty() {
        put_bytes(&mut packet, 4, data);
    }
    packet
}

/// Returns whether a path is another one, lies below it, or on the way to it.
fn lies_on(wanted: &str, path: &str) -> bool {
    let is_below = |above: &str, path: &str| {
        let rest = path.strip_prefix(above);
        above.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    is_below(wanted, path) || is_below(path, wanted)
}

impl Entry {
    fn of_text(name: &str, text: &[u8]) -> Self {
        Self {
            path: name.to_owned(),
            stat: stat(name, 0o644, text.len() as u64, 0, ""),
            is_link: false,
            content: Some(Content::Text(Bytes::copy_from_slice(text))),
        }
    }

    /// Returns what a file is to a builder; sockets and the like are nothing.
    fn of_file(relative: &str, path: &Path, found: &Metadata) -> io::Result<Option<Self>> {
        let mut mode = found.mode() & 0o777;
        for (bit, go) in GO_BITS {
            if found.mode() & bit != 0 {
                mode |= go;
            }
        }
        let (mut target, mut content, mut size) = (String::new(), None, 0);
        if found.is_dir() {
            mode |= GO_DIRECTORY;
        } else if found.is_symlink() {
            mode |= GO_LINK;
            target = std::fs::read_link(path)?.to_string_lossy().into_owned();
        } else if found.is_file() {
            content = Some(Content::File(path.to_owned()));
            size = found.len();
        } else {
            return Ok(None);
        }
        let modified = found
            .mtime()
            .saturating_mul(1_000_000_000)
            .saturating_add(found.mtime_nsec());
        Ok(Some(Self {
            path: relative.to_owned(),
            stat: stat(relative, mode, size, modified, &target),
            is_link: found.is_symlink(),
            content,
        }))
    }
}

/// stat.proto: `Stat`. All files are root's, as in every context.
fn stat(path: &str, mode: u32, size: u64, modified: i64, target: &str) -> Vec<u8> {
    let mut stat = Vec::new();
    put_bytes(&mut stat, 1, path.as_bytes());
    put_number(&mut stat, 2, u64::from(mode));
    put_number(&mut stat, 5, size);
    put_number(&mut stat, 6, modified.cast_unsigned());
    if !target.is_empty() {
        put_bytes(&mut stat, 7, target.as_bytes());
    }
    stat
}

/// Returns what is below a directory: each directory before what is in it, by name.
fn walk(top: &Path, ignore: &Ignore) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut above = Vec::new();
    walk_into(top, "", ignore, &mut above, &mut entries)?;
    Ok(entries)
}

/// `above` are the directories on the way that stay behind unless something in them does not.
fn walk_into(
    top: &Path,
    directory: &str,
    ignore: &Ignore,
    above: &mut Vec<Entry>,
    entries: &mut Vec<Entry>,
) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(top.join(directory))? {
        // Names that are no text cannot be named by a Dockerfile either.
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    for name in names {
        let relative = match directory {
            "" => name,
            directory => format!("{directory}/{name}"),
        };
        let path = top.join(&relative);
        let found = match std::fs::symlink_metadata(&path) {
            // It went while the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            found => found?,
        };
        let Some(entry) = Entry::of_file(&relative, &path, &found)? else {
            continue;
        };
        let waiting = above.len();
        if !ignore.excludes(&relative) {
            entries.append(above);
            entries.push(entry);
        } else if found.is_dir() {
            above.push(entry);
        }
        if found.is_dir() && !ignore.excludes_all_below(&relative) {
            walk_into(top, &relative, ignore, above, entries)?;
        }
        above.truncate(waiting);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(rules: &str) -> (tempfile::TempDir, Tree) {
        let directory = tempfile::tempdir().unwrap();
        for path in ["a/one", "a/two", "a-b", "b/c/deep", "b/other"] {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "text").unwrap();
        }
        let ignore = Box::new(Ignore::parse(rules).unwrap());
        let tree = Tree::Directory(directory.path().to_owned(), ignore);
        (directory, tree)
    }

    fn paths(tree: &Tree, wanted: &[&str]) -> Vec<String> {
        let wanted: Vec<String> = wanted.iter().map(|path| (*path).to_owned()).collect();
        let sending = Sending::of(tree, &wanted).unwrap();
        sending.entries.into_iter().map(|entry| entry.path).collect()
    }

    #[test]
    fn directories_come_before_what_is_in_them_and_only_where_something_is() {
        let (_directory, all) = tree("");
        assert_eq!(
            paths(&all, &[]),
            ["a", "a/one", "a/two", "a-b", "b", "b/c", "b/c/deep", "b/other"]
        );
        assert_eq!(paths(&all, &["b/c"]), ["b", "b/c", "b/c/deep"]);
        assert_eq!(
            paths(&all, &["a"]),
            ["a", "a/one", "a/two"],
            "not what only begins alike"
        );
        assert_eq!(paths(&all, &["*.txt"]).len(), 8, "patterns are the builder's");
        let (_directory, some) = tree("*\n!b/c/deep\n");
        assert_eq!(paths(&some, &[]), ["b", "b/c", "b/c/deep"]);
    }

    #[test]
    fn a_link_that_is_wanted_brings_everything_along() {
        let (directory, all) = tree("");
        std::os::unix::fs::symlink("b", directory.path().join("link")).unwrap();
        assert_eq!(paths(&all, &["link"]).len(), 9);
        assert_eq!(paths(&all, &["a"]).len(), 3);
    }

    #[test]
    fn contents_come_in_pieces_and_end_with_an_empty_one() {
        let text = vec![7; PIECE + 1];
        let tree = Tree::Texts([("Dockerfile".to_owned(), text)].into());
        let sending = Sending::of(&tree, &[]).unwrap();
        assert_eq!(sending.stats().count(), 2);
        let Ok(Answer::Content(pieces)) = sending.answer(&packet_of(REQUEST, 0, &[])) else {
            panic!("it has a content");
        };
        let lengths: Vec<usize> = pieces
            .map(|packet| {
                let mut fields = protobuf::fields(&packet);
                fields
                    .find(|(field, _)| *field == 4)
                    .map_or(0, |(_, data)| data.bytes().len())
            })
            .collect();
        assert_eq!(lengths, [PIECE, 1, 0]);
        assert!(sending.answer(&packet_of(REQUEST, 1, &[])).is_err());
        assert!(matches!(
            sending.answer(&packet_of(FINISHED, 0, &[])),
            Ok(Answer::Finished(_))
        ));
    }
}
