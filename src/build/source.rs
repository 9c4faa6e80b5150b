//! Where COPY and ADD take files from: the context or another stage, both seen as a tree that nothing leads out of.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::copy::CAPABILITY;
use super::error::Problem;
use super::ignore::Ignore;
use crate::image::{FileKind, Found, Hasher, HashingReader, View};

/// A tree to copy from.
pub(super) struct Source {
    pub view: View,
    /// What of it does not exist for the build.
    pub ignore: Ignore,
    /// What this one instruction leaves out.
    pub exclude: Ignore,
    /// Files of the context belong to root, whoever has them on this machine.
    pub is_context: bool,
}

/// A file or directory that one word of a COPY stands for.
pub(super) struct Selected {
    pub found: Found,
    /// What it is called where it was found, which is not its own name if that is a link.
    pub path: PathBuf,
    /// Where it goes below the destination, with the directories it lies in.
    pub inside: PathBuf,
    /// Those directories, the outermost first, with their paths below the destination.
    pub parents: Vec<(PathBuf, Found)>,
    /// Where excluding patterns begin.
    base: Option<PathBuf>,
}

impl Selected {
    fn new(found: Found, path: PathBuf) -> Self {
        Self {
            found,
            path,
            inside: PathBuf::new(),
            parents: Vec::new(),
            base: None,
        }
    }

    /// Returns the name it goes under.
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// Returns the directory from which patterns that leave files out are taken.
    pub fn base(&self) -> PathBuf {
        match (&self.base, self.found.is_directory()) {
            (Some(base), _) => base.clone(),
            (None, true) => self.found.path.clone(),
            (None, false) => self.found.path.parent().unwrap_or(Path::new("/")).to_owned(),
        }
    }
}

impl Source {
    /// Opens the tree that layers (top first) make together.
    pub fn of(layers: &[PathBuf]) -> Result<Self, Problem> {
        let view = View::open(layers).map_err(|source| Problem::ReadSource {
            path: "/".to_owned(),
            source,
        })?;
        Ok(Self {
            view,
            ignore: Ignore::default(),
            exclude: Ignore::default(),
            is_context: false,
        })
    }

    /// Returns a file's path as patterns see it.
    fn relative<'p>(path: &'p Path, base: &Path) -> &'p str {
        path.strip_prefix(base).unwrap_or(path).to_str().unwrap_or_default()
    }

    /// Returns whether the build does not see a path.
    pub fn hides(&self, path: &Path, base: &Path) -> bool {
        self.ignore.excludes(Self::relative(path, Path::new("/"))) || self.exclude.excludes(Self::relative(path, base))
    }

    fn hides_all_in(&self, path: &Path, base: &Path) -> bool {
        self.ignore.excludes_all_below(Self::relative(path, Path::new("/")))
            || self.exclude.excludes_all_below(Self::relative(path, base))
    }

    /// Returns what `--parents` selects: a path, or all that match its pattern, below what stands before `/./`.
    pub fn select_with_parents(&self, word: &str) -> Result<Vec<Selected>, Problem> {
        let (base, pattern) = word.split_once("/./").unwrap_or(("", word));
        let missing = || Problem::MissingSource(format!("/{}", word.trim_start_matches('/')));
        let reading = |source| Problem::ReadSource {
            path: word.to_owned(),
            source,
        };
        let base = self.view.find(&Path::new("/").join(base)).map_err(reading)?;
        let base = base.filter(Found::is_directory).ok_or_else(missing)?;
        let pattern = pattern
            .trim_start_matches('/')
            .trim_start_matches("./")
            .trim_end_matches('/');
        let mut reached = Vec::new();
        if pattern.is_empty() || pattern == "." {
            reached.push((base.clone(), Vec::new()));
        } else if !pattern.contains(['*', '?', '[', '\\']) {
            let mut here = base.clone();
            let mut parents = Vec::new();
            for part in Path::new(pattern).components() {
                let next = self.view.find_link(&here.path.join(part)).map_err(reading)?;
                let next = next
                    .filter(|next| !self.hides(&next.path, &base.path))
                    .ok_or_else(missing)?;
                parents.push(here);
                here = next;
            }
            parents.remove(0);
            reached.push((here, parents));
        } else {
            let pattern = Ignore::from_patterns([pattern]).map_err(|error| Problem::Pattern(error.0))?;
            self.matching(&base, &base.path, &pattern, &mut Vec::new(), &mut reached)
                .map_err(reading)?;
        }
        let inside = |path: &Path| path.strip_prefix(&base.path).unwrap_or(path).to_owned();
        let selected = reached.into_iter().map(|(found, parents)| Selected {
            inside: inside(&found.path),
            parents: parents
                .into_iter()
                .map(|parent| (inside(&parent.path), parent))
                .collect(),
            base: Some(base.path.clone()),
            ..Selected::new(found.clone(), found.path)
        });
        Ok(selected.collect())
    }

    /// Finds everything below a directory that a pattern matches, with the directories on the way.
    fn matching(
        &self,
        directory: &Found,
        base: &Path,
        pattern: &Ignore,
        parents: &mut Vec<Found>,
        reached: &mut Vec<(Found, Vec<Found>)>,
    ) -> io::Result<()> {
        for child in self.children(directory, base)? {
            if pattern.excludes(Self::relative(&child.path, base)) {
                reached.push((child, parents.clone()));
            } else if child.is_directory() {
                parents.push(child.clone());
                self.matching(&child, base, pattern, parents, reached)?;
                parents.pop();
            }
        }
        Ok(())
    }

    /// Returns what a word stands for: one file or directory, or all that match its wildcards.
    pub fn select(&self, word: &str) -> Result<Vec<Selected>, Problem> {
        let reading = |source| Problem::ReadSource {
            path: word.to_owned(),
            source,
        };
        let missing = || Problem::MissingSource(format!("/{}", word.trim_start_matches('/')));
        let select = |found: Found| Selected::new(found, Path::new("/").join(word.trim_start_matches('/')));
        if !word.contains(['*', '?', '[', '\\']) {
            let found = self.view.find(Path::new(word)).map_err(reading)?;
            return match found {
                Some(found) if found.path == Path::new("/") => Ok(vec![select(found)]),
                Some(found) => {
                    let path = found.path.clone();
                    let path = Self::relative(&path, Path::new("/"));
                    // A directory may be excluded itself, and have something in it that is not.
                    let is_open = found.is_directory() && !self.ignore.excludes_all_below(path);
                    if self.ignore.excludes(path) && !is_open {
                        return Err(missing());
                    }
                    // What `--exclude` says is about what directories hold.
                    Ok(vec![select(found)])
                }
                None => Err(missing()),
            };
        }
        let top = self.view.find(Path::new("/")).map_err(reading)?.ok_or_else(missing)?;
        let mut reached = vec![Selected::new(top.clone(), top.path)];
        let parts: Vec<&str> = word
            .split('/')
            .filter(|part| !part.is_empty() && *part != ".")
            .collect();
        for (number, part) in parts.iter().enumerate() {
            let last = number + 1 == parts.len();
            // A name has no slash in it, so an ignore pattern is one of Go's `filepath.Match`.
            let pattern = if part.starts_with('!') {
                format!("\\{part}")
            } else {
                (*part).to_owned()
            };
            let pattern = Ignore::from_patterns([pattern.as_str()]).map_err(|error| Problem::Pattern(error.0))?;
            let mut next = Vec::new();
            for directory in reached {
                for name in self.view.names(&directory.found).map_err(reading)? {
                    if !pattern.excludes(&name.to_string_lossy()) {
                        continue;
                    }
                    let path = directory.path.join(&name);
                    // What is copied may be a link; on the way to it links are followed.
                    let found = self.view.find(&path).map_err(reading)?;
                    let Some(found) = found else { continue };
                    if last {
                        if !self.ignore.excludes(Self::relative(&path, Path::new("/"))) {
                            next.push(Selected::new(found, path));
                        }
                    } else if found.is_directory() {
                        next.push(Selected::new(found, path));
                    }
                }
            }
            reached = next;
        }
        // Nothing may match: then nothing is copied.
        Ok(reached)
    }

    /// Returns the entries of a directory that the build sees.
    pub fn children(&self, directory: &Found, base: &Path) -> io::Result<Vec<Found>> {
        let mut children = Vec::new();
        for name in self.view.names(directory)? {
            let path = directory.path.join(&name);
            if self.hides(&path, base) && self.hides_all_in(&path, base) {
                continue;
            }
            let Some(child) = self.view.child(directory, &name)? else {
                continue;
            };
            // An excluded directory is seen only for what in it is not.
            if self.hides(&path, base) && !child.is_directory() {
                continue;
            }
            children.push(child);
        }
        Ok(children)
    }

    /// Adds everything that copying a tree would copy to a digest: names, kinds, modes, owners, contents, not times.
    pub fn digest(&self, hasher: &mut Hasher, found: &Found, name: &str, base: &Path) -> io::Result<()> {
        hasher.field(name.as_bytes());
        hasher.field(&(found.stat.st_mode).to_le_bytes());
        if !self.is_context {
            hasher.field(&found.stat.st_uid.to_le_bytes());
            hasher.field(&found.stat.st_gid.to_le_bytes());
            for (name, value) in found.xattrs()?.iter().filter(|(name, _)| name == CAPABILITY) {
                hasher.field(name);
                hasher.field(value);
            }
        }
        match found.kind() {
            FileKind::Directory => {
                let children = self.children(found, base)?;
                hasher.field(&children.len().to_le_bytes());
                for child in children {
                    let name = child
                        .path
                        .file_name()
                        .map(OsStr::as_bytes)
                        .unwrap_or_default()
                        .to_owned();
                    self.digest(hasher, &child, &String::from_utf8_lossy(&name), base)?;
                }
            }
            FileKind::RegularFile => hasher.field(content(found)?.as_bytes()),
            FileKind::Symlink => hasher.field(found.read_link()?.as_os_str().as_bytes()),
            _ => hasher.field(&found.stat.st_rdev.to_le_bytes()),
        }
        Ok(())
    }
}

/// What tells one state of a file from another without reading it.
type FileState = (u64, u64, i64, u64, i64, u64, i64);

/// Contents that were read once. A file that looks the same, to the nanosecond, is the same.
static CONTENTS: LazyLock<Mutex<HashMap<FileState, String>>> = LazyLock::new(Mutex::default);

/// Enough for the largest contexts; beyond it one starts over.
const CONTENTS_KEPT: usize = 400_000;

fn content(found: &Found) -> io::Result<String> {
    let stat = &found.stat;
    let state = (
        stat.st_dev,
        stat.st_ino,
        stat.st_mtime,
        stat.st_mtime_nsec,
        stat.st_ctime,
        stat.st_ctime_nsec,
        stat.st_size,
    );
    let contents = || CONTENTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = contents().get(&state) {
        return Ok(known.clone());
    }
    let (digest, _) = HashingReader::new(found.open()?).finish()?;
    // A file that changed just now may change again within the clock's grain.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    if stat.st_ctime + 2 < i64::try_from(now).unwrap_or(i64::MAX) {
        let mut contents = contents();
        if contents.len() >= CONTENTS_KEPT {
            contents.clear();
        }
        contents.insert(state, digest.clone());
    }
    Ok(digest)
}

/// Returns the ids of `user[:group]` as the tree's own `/etc/passwd` and `/etc/group` have them;
/// `None` if one of them is unknown there.
pub(super) fn owner(view: &View, text: &str) -> Option<(u32, u32)> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let look = |file: &str, name: &str| -> Option<(u32, u32)> {
        let found = view.find(&PathBuf::from(file)).ok()??;
        let text = io::read_to_string(found.open().ok()?).ok()?;
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            if fields.next()? != name {
                return None;
            }
            let id = fields.nth(1)?.parse().ok()?;
            Some((id, fields.next().and_then(|group| group.parse().ok()).unwrap_or(0)))
        })
    };
    let number = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse().ok())
            .flatten()
    };
    let (uid, own_group) = match number(user) {
        Some(uid) => (uid, uid),
        None => look("/etc/passwd", user)?,
    };
    let gid = match group {
        None => own_group,
        Some(group) => match number(group) {
            Some(gid) => gid,
            None => look("/etc/group", group)?.0,
        },
    };
    Some((uid, gid))
}
