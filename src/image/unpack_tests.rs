use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use super::*;
use crate::image::{PackOptions, pack_directory, sha256};

/// Builds a tar out of entries; paths and targets are written as they are, however wrong.
#[derive(Default)]
struct Layer {
    bytes: Vec<u8>,
}

impl Layer {
    fn entry(mut self, kind: u8, path: &str, target: &str, data: &[u8]) -> Self {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        if matches!(kind, b'3' | b'4') {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, data: &str) -> Self {
        self.entry(b'0', path, "", data.as_bytes())
    }

    fn directory(self, path: &str) -> Self {
        self.entry(b'5', path, "", b"")
    }

    fn link(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, target, b"")
    }

    fn hard(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path, target, b"")
    }

    /// An entry whose path and target are too long for its header.
    fn long(self, kind: u8, path: &str, target: &str) -> Self {
        let terminated = |text: &str| format!("{text}\0").into_bytes();
        self.entry(b'L', "././@LongLink", "", &terminated(path))
            .entry(b'K', "././@LongLink", "", &terminated(target))
            .entry(kind, "cut", "", b"")
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }
}

/// A layer's directory beside a file that no layer may reach.
struct Place {
    directory: tempfile::TempDir,
}

const LIMITS: Limits = Limits {
    entries: 1000,
    bytes: 1 << 20,
};

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("root")).unwrap();
        std::fs::write(directory.path().join("outside"), "untouched").unwrap();
        Self { directory }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    fn unpack(&self, layer: Layer) -> Result<Unpacked, UnpackError> {
        let result = unpack_layer(layer.finish().as_slice(), &self.root(), LIMITS);
        assert_eq!(
            std::fs::read_to_string(self.directory.path().join("outside")).unwrap(),
            "untouched"
        );
        let mut names: Vec<_> = std::fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["outside", "root"], "nothing is made outside the layer");
        result
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.root().join(path)).unwrap()
    }
}

#[test]
fn a_path_that_climbs_out_is_refused() {
    for path in ["../outside", "a/../../outside", ".."] {
        let place = Place::new();
        let error = place.unpack(Layer::default().file(path, "x")).unwrap_err();
        assert!(matches!(error, UnpackError::Outside { .. }), "{path}: {error}");
    }
}

#[test]
fn an_absolute_path_begins_at_the_layers_root() {
    let place = Place::new();
    place
        .unpack(Layer::default().file("/etc/x", "x").file("./a/../b", "y"))
        .unwrap();
    assert_eq!(place.read("etc/x"), "x");
    assert_eq!(place.read("b"), "y");
}

#[test]
fn writing_through_a_link_stays_inside() {
    let place = Place::new();
    let outside = place.directory.path().join("outside");
    let above = place.directory.path().to_str().unwrap().to_owned();
    // Absolute and relative links to the directory outside, then a file through them.
    let layer = Layer::default()
        .directory(above.trim_start_matches('/'))
        .link("up", "../../../../../../..")
        .link("absolute", &above)
        .file("up/outside", "a")
        .file("absolute/outside", "b");
    place.unpack(layer).unwrap();
    assert_eq!(place.read("outside"), "a");
    assert_eq!(place.read(outside.to_str().unwrap().trim_start_matches('/')), "b");
    // A file that has the link's own name takes its place.
    let place = Place::new();
    place
        .unpack(Layer::default().link("x", outside.to_str().unwrap()).file("x", "mine"))
        .unwrap();
    assert_eq!(place.read("x"), "mine");
}

#[test]
fn a_hard_link_cannot_reach_out() {
    for layer in [
        Layer::default().hard("x", "../outside"),
        Layer::default().hard("x", "/etc/passwd"),
        Layer::default().link("up", "..").hard("x", "up/outside"),
    ] {
        let place = Place::new();
        let error = place.unpack(layer).unwrap_err();
        assert!(
            matches!(error, UnpackError::Link { .. } | UnpackError::Outside { .. }),
            "{error}"
        );
    }
    // To a symbolic link: the link itself is linked, never what it points at.
    let place = Place::new();
    let outside = place.directory.path().join("outside");
    let layer = Layer::default().link("s", outside.to_str().unwrap()).hard("h", "s");
    place.unpack(layer).unwrap();
    assert!(place.root().join("h").symlink_metadata().unwrap().is_symlink());
    assert_eq!(
        outside.metadata().unwrap().nlink(),
        1,
        "nothing has the file by another name"
    );
    let place = Place::new();
    let outside = place.directory.path().join("outside");
    let layer = Layer::default()
        .link("s", outside.to_str().unwrap())
        .hard("h", "s")
        .file("h", "mine");
    place.unpack(layer).unwrap();
    assert_eq!(place.read("h"), "mine");
}

#[test]
fn a_hard_link_shares_its_file() {
    let place = Place::new();
    place.unpack(Layer::default().file("a", "x").hard("d/b", "a")).unwrap();
    let inode = |path: &str| place.root().join(path).metadata().unwrap().ino();
    assert_eq!(inode("a"), inode("d/b"));
}

#[test]
fn a_whiteout_hides_one_name_and_nothing_else() {
    for bad in [".wh.", ".wh..", ".wh...", "a/.wh..."] {
        let place = Place::new();
        let error = place.unpack(Layer::default().file(bad, "")).unwrap_err();
        assert!(matches!(error, UnpackError::Whiteout { .. }), "{bad}: {error}");
    }
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let layer = Layer::default()
        .file("d/.wh.gone", "")
        .file("o/.wh..wh..opq", "")
        .file(".wh..wh.plnk", "")
        .file("kept", "x")
        .file(".wh.kept", "")
        .directory("both")
        .file(".wh.both", "")
        .file(".wh.again", "")
        .directory("again");
    place.unpack(layer).unwrap();
    let gone = place.root().join("d/gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device());
    assert_eq!(gone.rdev(), 0);
    // A whiteout is about the layers below, not about its own.
    assert_eq!(place.read("kept"), "x");
    assert!(!place.root().join(".wh..wh.plnk").exists());
    for (directory, opaque) in [("o", true), ("both", true), ("again", true), ("d", false)] {
        let directory = open_directory(&place.root().join(directory)).unwrap();
        assert_eq!(tree::is_opaque(directory.as_fd()), opaque);
    }
}

#[test]
fn the_last_of_several_entries_with_one_name_counts() {
    let place = Place::new();
    let layer = Layer::default()
        .file("a", "first")
        .file("a", "second")
        .file("d/inner", "x")
        .file("d", "now a file")
        .link("l", "d")
        .directory("l")
        .file("l/inner", "y")
        .directory("m")
        .file("m/kept", "z")
        .directory("m");
    place.unpack(layer).unwrap();
    assert_eq!(place.read("a"), "second");
    assert_eq!(place.read("d"), "now a file");
    assert_eq!(place.read("l/inner"), "y");
    assert_eq!(place.read("m/kept"), "z");
}

#[test]
fn attributes_that_steer_overlayfs_are_dropped() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let mut builder = tar::Builder::new(Vec::new());
    let attributes: [(&str, &[u8]); 4] = [
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.kept", b"value"),
        ("mtime", b"1234567890.5"),
    ];
    builder.append_pax_extensions(attributes).unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(0o2750);
    header.set_uid(12);
    header.set_gid(34);
    header.set_mtime(1);
    header.set_size(0);
    builder.append_data(&mut header, "d/", io::empty()).unwrap();
    let tar = builder.into_inner().unwrap();
    unpack_layer(tar.as_slice(), &place.root(), LIMITS).unwrap();
    let path = place.root().join("d");
    let found = path.metadata().unwrap();
    assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (12, 34, 0o2750));
    assert_eq!((found.mtime(), found.mtime_nsec()), (1_234_567_890, 500_000_000));
    let directory = open_directory(&path).unwrap();
    let kept = tree::xattrs(directory.as_fd()).unwrap();
    assert!(!tree::is_opaque(directory.as_fd()));
    // Not every file system has user attributes.
    assert!(kept.is_empty() || kept == [(b"user.kept".to_vec(), b"value".to_vec())]);
}

#[test]
fn device_nodes_are_made_and_never_opened() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let layer = Layer::default()
        .entry(b'3', "null", "", b"")
        .entry(b'6', "etc/passwd", "", b"")
        .file("etc/passwd", "root:x:0:0")
        .file("null", "a file now");
    place.unpack(layer).unwrap();
    assert_eq!(place.read("etc/passwd"), "root:x:0:0");
    assert_eq!(place.read("null"), "a file now");
}

#[test]
fn too_much_is_refused_before_it_is_written() {
    let mut layer = Layer::default();
    for number in 0..=LIMITS.entries {
        layer = layer.directory(&number.to_string());
    }
    assert!(matches!(
        Place::new().unpack(layer).unwrap_err(),
        UnpackError::TooManyEntries(_)
    ));
    // A sparse file of eight exbibytes, in a few bytes.
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_path("huge").unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.realsize = *b"777777777777";
    gnu.sparse[0].offset = *b"777777777777";
    gnu.sparse[0].numbytes = *b"00000000000\0";
    header.set_cksum();
    let mut tar = header.as_bytes().to_vec();
    tar.resize(1536, 0);
    let place = Place::new();
    let error = unpack_layer(tar.as_slice(), &place.root(), LIMITS).unwrap_err();
    assert!(
        matches!(error, UnpackError::TooLarge(_) | UnpackError::Read(_)),
        "{error}"
    );
}

#[test]
fn headers_larger_than_memory_are_refused_while_they_are_read() {
    // A long name, a long link and an attribute of a tebibyte each, and a sparse map without end; the reader counts.
    struct Endless {
        header: io::Cursor<Vec<u8>>,
        fill: u8,
        read: u64,
    }
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = match self.header.read(buffer)? {
                0 => {
                    buffer.fill(self.fill);
                    buffer.len()
                }
                count => count,
            };
            self.read += count as u64;
            assert!(self.read < 32 << 20, "it goes on and on");
            Ok(count)
        }
    }
    for kind in [b'L', b'K', b'x', b'S'] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(if kind == b'S' { 0 } else { 1 << 40 });
        if kind == b'S' {
            header.as_gnu_mut().unwrap().isextended[0] = 1;
        }
        header.set_cksum();
        let endless = Endless {
            header: io::Cursor::new(header.as_bytes().to_vec()),
            fill: if kind == b'S' { 1 } else { b'a' },
            read: 0,
        };
        let place = Place::new();
        let error = unpack_layer(endless, &place.root(), LIMITS).unwrap_err();
        assert!(matches!(error, UnpackError::Read(_)), "{}: {error}", char::from(kind));
    }
}

#[test]
fn directories_nested_deeper_than_paths_reach_are_counted_and_go_again() {
    let place = Place::new();
    let deep = "d/".repeat(150);
    let mut layer = Layer::default().long(b'5', &deep, "");
    // Every link leads as far down again.
    for level in 0..20 {
        let target = match level {
            0 => deep.clone(),
            _ => format!("l{}/{deep}", level - 1),
        };
        layer = layer.long(b'2', &format!("l{level}"), &target);
        layer = layer.long(b'5', &format!("l{level}/{deep}"), "");
    }
    let limits = Limits {
        entries: 10_000,
        ..LIMITS
    };
    unpack_layer(layer.finish().as_slice(), &place.root(), limits).unwrap();
    tree::remove_path(&place.root()).unwrap();
    // Directories that are only implied count as well.
    let place = Place::new();
    let error = place
        .unpack(Layer::default().long(b'0', &"d/".repeat(1500), ""))
        .unwrap_err();
    assert!(matches!(error, UnpackError::TooManyEntries(_)), "{error}");
}

#[test]
fn a_truncated_tar_is_an_error() {
    let whole = Layer::default().file("a", &"x".repeat(2000)).finish();
    for length in [100, 700, 1500] {
        let place = Place::new();
        let error = unpack_layer(&whole[..length], &place.root(), LIMITS).unwrap_err();
        assert!(matches!(error, UnpackError::Read(_)), "{length}: {error}");
    }
}

#[test]
fn the_digest_covers_what_follows_the_end_marker() {
    let mut tar = Layer::default().file("a", "x").finish();
    tar.extend_from_slice(b"trailing");
    let place = Place::new();
    let unpacked = unpack_layer(tar.as_slice(), &place.root(), LIMITS).unwrap();
    assert_eq!(unpacked.diff_id, sha256(&tar));
    assert_eq!(unpacked.size, 1);
}

#[test]
fn what_is_packed_unpacks_to_the_same_and_packs_to_the_same_bytes() {
    let place = Place::new();
    let long = "long/".repeat(40) + "name";
    let layer = Layer::default()
        .file("b", "b")
        .directory("a")
        .file("a/x", "x")
        .hard("a/y", "b")
        .link("z", "a/x");
    place.unpack(layer).unwrap();
    let deep = place.root().join(&long);
    std::fs::create_dir_all(deep.parent().unwrap()).unwrap();
    std::fs::write(&deep, "deep").unwrap();
    std::os::unix::fs::symlink(&long, place.root().join("to-long")).unwrap();
    let pack = |directory: &Path| pack_directory(directory, Vec::new(), PackOptions::default()).unwrap().0;
    let first = pack(&place.root());
    let copy = Place::new();
    unpack_layer(first.as_slice(), &copy.root(), LIMITS).unwrap();
    assert_eq!(copy.read(&long), "deep");
    assert_eq!(
        std::fs::read_link(copy.root().join("to-long")).unwrap(),
        PathBuf::from(&long)
    );
    assert_eq!(sha256(&pack(&copy.root())), sha256(&first));
}

proptest::proptest! {
    #[test]
    fn no_bytes_at_all_make_it_panic_or_leave_the_directory(
        entries in proptest::collection::vec(
            (
                proptest::sample::select(b"0123456 7gSx\0".to_vec()),
                "(\\.\\./|a/|b/|\\.wh\\.|/|\\./){0,4}(a|b|\\.wh\\.a|\\.wh\\.\\.wh\\.\\.opq|\\.\\.)?",
                "(\\.\\./|a/|b/|/){0,4}(a|b|outside)?",
            ),
            0..12,
        )
    ) {
        let place = Place::new();
        let mut layer = Layer::default();
        for (kind, path, target) in &entries {
            layer = layer.entry(*kind, path, target, if matches!(kind, b'0' | b'7') { b"data" } else { b"" });
        }
        let _ = place.unpack(layer);
    }
}
