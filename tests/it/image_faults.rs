//! What a store is after its process was killed, its disk was full, or a byte of it changed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use compose::image::{Damage, Image, ImageError, Platform, PullOptions, Reference, Settings, Store, sha256, silent};
use rustix::mount::{MountFlags, UnmountFlags};

use crate::support::mock::{Mock, Reply};
use crate::support::served::{self, tar_of};
use crate::support::{self, available};

/// An image of several layers, by the digests of its parts.
pub fn image_of(layers: &[Vec<u8>]) -> BTreeMap<String, Vec<u8>> {
    let compressed: Vec<Vec<u8>> = layers
        .iter()
        .map(|layer| zstd::encode_all(&layer[..], 1).unwrap())
        .collect();
    let diff_ids: Vec<String> = layers.iter().map(|layer| sha256(layer)).collect();
    let config = serde_json::json!({
        "architecture": Platform::host().architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    })
    .to_string()
    .into_bytes();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": served::MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(&config), "size": config.len()},
        "layers": compressed.iter().map(|layer| serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd", "digest": sha256(layer), "size": layer.len(),
        })).collect::<Vec<_>>(),
    })
    .to_string()
    .into_bytes();
    let mut parts: BTreeMap<String, Vec<u8>> = compressed
        .into_iter()
        .chain([config])
        .map(|part| (sha256(&part), part))
        .collect();
    parts.insert("latest".to_owned(), manifest.clone());
    parts.insert(sha256(&manifest), manifest);
    parts
}

pub fn serve(parts: BTreeMap<String, Vec<u8>>) -> Mock {
    Mock::start(move |request| match request.path.rsplit('/').next() {
        Some("") => Reply::ok("{}"),
        Some(part) => parts
            .get(part)
            .map_or_else(|| Reply::status(404, ""), |part| Reply::ok(part.clone())),
        None => Reply::status(400, ""),
    })
}

/// Three layers of many files each; one has directories that it only implies, a whiteout, and a hard link.
fn large() -> Mock {
    let mut state = 1_u32;
    let mut noise = |length: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..length).map(|_| next()).collect()
    };
    let layers: Vec<Vec<u8>> = (0..3)
        .map(|layer| {
            let files: Vec<(String, Vec<u8>)> = (0..150)
                .map(|file| (format!("d{layer}/e{}/f{file}", file % 7), noise(6000)))
                .collect();
            let mut files: Vec<(&str, &[u8])> = files
                .iter()
                .map(|(path, data)| (path.as_str(), data.as_slice()))
                .collect();
            if layer == 2 {
                files.push(("d0/e1/.wh.f1", b""));
            }
            tar_of(&files)
        })
        .collect();
    serve(image_of(&layers))
}

pub fn name_at(registry: &Mock) -> Reference {
    Reference::parse(&format!("{}/served:latest", registry.address)).unwrap()
}

fn options() -> PullOptions {
    PullOptions {
        settings: Some(Settings::default()),
        ..PullOptions::default()
    }
}

pub fn pull_now(store: &Store, name: &Reference) -> Result<Image, ImageError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(store.pull(name, &options(), &silent()))
}

/// Opens a store, whatever happened to it, and checks that all it says is true.
#[track_caller]
pub fn sound(directory: &Path) -> Store {
    let store = Store::open(directory).expect("the store opens");
    let damages = store.verify().expect("the store can be read");
    assert!(damages.is_empty(), "{damages:?}");
    for image in store.list().expect("the images can be listed") {
        image.check().expect("what is an image is a whole one");
    }
    let left: Vec<_> = std::fs::read_dir(directory.join("tmp")).unwrap().flatten().collect();
    assert!(left.is_empty(), "nothing unfinished is left: {left:?}");
    let is_new = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(".new"))
    };
    assert!(!contents(directory).keys().any(is_new));
    store
}

#[test]
#[ignore = "a part of the test below, run in a process of its own"]
fn pull_in_a_process() {
    let (Ok(directory), Ok(name)) = (std::env::var("PULL_INTO"), std::env::var("PULL_NAME")) else {
        return;
    };
    let store = Store::open(directory).unwrap();
    pull_now(&store, &Reference::parse(&name).unwrap()).unwrap();
}

fn pull_elsewhere(directory: &Path, name: &Reference) -> std::process::Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "image_faults::pull_in_a_process", "--ignored"])
        .env("PULL_INTO", directory)
        .env("PULL_NAME", name.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("this program runs")
}

#[test]
fn a_pull_killed_at_some_moments_leaves_a_sound_store_and_the_next_one_finishes_it() {
    kill_a_pull_at(support::extent(6, 50));
}

fn kill_a_pull_at(moments: u32) {
    let registry = large();
    let name = name_at(&registry);
    let base = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let directory = base.path().join("whole");
    assert!(pull_elsewhere(&directory, &name).wait().unwrap().success());
    let whole = begun.elapsed();
    let expected = sound(&directory).get(&name.familiar()).unwrap();
    let mut killed = 0;
    for moment in 0..moments {
        let directory = base.path().join(moment.to_string());
        let mut child = pull_elsewhere(&directory, &name);
        std::thread::sleep(whole * moment / moments);
        child.kill().unwrap();
        killed += u32::from(!child.wait().unwrap().success());
        let store = sound(&directory);
        assert_eq!(pull_now(&store, &name).unwrap().id, expected.id);
        let image = sound(&directory).get(&name.familiar()).unwrap();
        assert_eq!((image.size, image.layers.len()), (expected.size, 3));
        std::fs::remove_dir_all(&directory).unwrap();
    }
    // Which of them end first is the machine's doing; the first has no time to.
    assert!(killed > 0, "none was killed before its end");
}

/// A file system of its own, small; gone with the value.
struct Small(tempfile::TempDir);

impl Small {
    fn new(options: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount(
            "tmpfs",
            directory.path(),
            "tmpfs",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .expect("a file system in memory");
        Self(directory)
    }

    fn grow(&self) {
        let options = c"size=64m,nr_inodes=100k";
        rustix::mount::mount_remount(self.0.path(), MountFlags::empty(), options).expect("ours can grow");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // It is ours, and nothing else was mounted there.
        let _ = rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

/// Returns the paths of everything in a store, and what is in small files.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        for entry in std::fs::read_dir(&path).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                waiting.push(entry.path());
            }
            let data = std::fs::read(entry.path()).unwrap_or_default();
            found.insert(entry.path().strip_prefix(directory).unwrap().to_owned(), data);
        }
    }
    found
}

#[test]
fn a_full_disk_leaves_the_store_as_it_was() {
    fill_the_disk(support::extent(4, 1));
}

/// Pulls and loads onto disks of growing sizes, every `step`th of twenty.
fn fill_the_disk(step: usize) {
    if !available("root", support::is_root()) {
        return;
    }
    let small = serve(image_of(&[tar_of(&[("etc/small", b"small")])]));
    let registry = large();
    let mut archive = Vec::new();
    {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let image = pull_now(&store, &name_at(&registry)).unwrap();
        store.save(&[image.id], &mut archive).unwrap();
    }
    let mut refused = 0;
    // As pulled, it takes about 3 MB of blobs and 4 MB of files.
    let sizes = (1..=17).map(|step| format!("size={}k", step * 400));
    let inodes = [60, 200, 400].map(|inodes| format!("size=64m,nr_inodes={inodes}"));
    for limit in sizes.chain(inodes).step_by(step) {
        let disk = Small::new(&limit);
        let directory = disk.0.path().join("images");
        let store = Store::open(&directory).unwrap();
        pull_now(&store, &name_at(&small)).unwrap();
        for attempt in ["pull", "load"] {
            let before = contents(&directory);
            let result = match attempt {
                "pull" => pull_now(&store, &name_at(&registry)).map(drop),
                _ => store.load(&archive[..], &silent()).map(drop),
            };
            let Err(error) = result else { continue };
            refused += 1;
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                text.push_str(&format!(": {error}"));
                cause = error.source();
            }
            assert!(
                text.contains("No space left on device")
                    || text.contains("that are free for it")
                    || text.contains("entries"),
                "{limit}, {attempt}: {text}"
            );
            let after = contents(&directory);
            let names = |contents: &BTreeMap<PathBuf, Vec<u8>>| contents.keys().cloned().collect::<BTreeSet<_>>();
            assert_eq!(names(&after), names(&before), "{limit}, {attempt}");
            assert!(after == before, "{limit}, {attempt}: a file has changed");
        }
        drop(store);
        disk.grow();
        let store = sound(&directory);
        pull_now(&store, &name_at(&registry)).unwrap();
        assert_eq!(sound(&directory).list().unwrap().len(), 2, "{limit}");
    }
    assert!(refused >= 20 / step, "{refused} of {} were refused", 40 / step);
}

#[test]
fn a_small_layer_that_becomes_large_is_refused_before_the_disk_is_full() {
    if !available("root", support::is_root()) {
        return;
    }
    let zeros = tar_of(&[("zeros", &vec![0; 256 << 20])]);
    let diff_id = sha256(&zeros);
    let gzip = {
        use std::io::Write as _;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&zeros).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&zeros[..], 3).unwrap();
    for bomb in [gzip, zstd] {
        assert!(bomb.len() < 1 << 20, "{} bytes", bomb.len());
        let served = served::Served::compressed(bomb, &diff_id);
        let registry = Mock::start(move |request| served.answer(request));
        let disk = Small::new("size=16m");
        let store = Store::open(disk.0.path().join("images")).unwrap();
        let name = Reference::parse(&format!("{}/served:latest", registry.address)).unwrap();
        let error = pull_now(&store, &name).unwrap_err();
        let cause = std::error::Error::source(&error).expect("a cause").to_string();
        assert!(cause.contains("that are free for it"), "{error}: {cause}");
        for directory in ["layers", "tmp"] {
            let left = std::fs::read_dir(store.root().join(directory)).unwrap().count();
            assert_eq!(left, 0, "{directory}");
        }
    }
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    // In place and with the same time, as a disk does it.
    let time = std::fs::metadata(path).unwrap().modified().unwrap();
    std::fs::write(path, bytes).unwrap();
    std::fs::File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

#[test]
fn a_changed_byte_is_found_named_and_mended_by_pulling_again() {
    let registry = large();
    let name = name_at(&registry);
    let directory = tempfile::tempdir().unwrap();
    let open = || Store::open(directory.path()).unwrap();
    let image = pull_now(&open(), &name).unwrap();
    let layer = image.layers[1].clone();
    let hex = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
    let blob = |digest: &str| directory.path().join("blobs/sha256").join(hex(digest));
    let home = directory.path().join("layers").join(hex(&layer.diff_id));
    let short = hex(&layer.diff_id)[..12].to_owned();
    let layers = format!("layer {short}");
    // What the damage is called, and whether the image cannot be used even before anybody looks for damage.
    for (path, what, is_seen_on_use) in [
        (blob(&image.id), "the config", true),
        (blob(image.manifest.as_deref().unwrap()), "the manifest", false),
        (home.join("layer.json"), layers.as_str(), true),
        (home.join("fs/d1/e3/f3"), layers.as_str(), false),
        (blob(&layer.blob.as_ref().unwrap().digest), layers.as_str(), false),
    ] {
        flip(&path);
        let store = open();
        let used = store.get(&name.familiar()).and_then(|image| image.check());
        assert_eq!(used.is_err(), is_seen_on_use, "{}", path.display());
        if let Err(error) = used {
            let text = error.to_string();
            assert!(
                text.starts_with(&format!("image {} is damaged: {what}", name.familiar())),
                "{text}"
            );
            assert!(text.ends_with("pull or build it again to mend it"), "{text}");
        }
        let damages = store.verify().unwrap();
        let [
            Damage {
                what: found, images, ..
            },
        ] = &damages[..]
        else {
            panic!("{}: {damages:?}", path.display())
        };
        assert_eq!(
            (found.as_str(), &images[0]),
            (what, &name.familiar()),
            "{}",
            path.display()
        );
        pull_now(&store, &name).unwrap();
        drop(store);
        assert_eq!(
            sound(directory.path()).get(&name.familiar()).unwrap().size,
            image.size,
            "{}",
            path.display()
        );
    }
    // The list of images itself: what it was before its last change is better than nothing, and the rest is pulled again.
    for _ in 0..2 {
        flip(&directory.path().join("index.json"));
        let store = open();
        let known = store.list().unwrap().len();
        assert!(known <= 1);
        assert!(directory.path().join("index.json.damaged").is_file());
        assert_eq!(pull_now(&store, &name).unwrap().id, image.id);
        drop(store);
        sound(directory.path());
    }
    // A layer that is wrong is not sent on.
    let store = open();
    let other = Store::open(directory.path().join("other")).unwrap();
    let mut archive = Vec::new();
    store.save(std::slice::from_ref(&image.id), &mut archive).unwrap();
    other.load(&archive[..], &silent()).unwrap();
    flip(&home.join("fs/d1/e4/f4"));
    flip(&blob(&store.layer(&layer.diff_id).unwrap().blob.unwrap().digest));
    let error = store
        .save(std::slice::from_ref(&image.id), std::io::sink())
        .unwrap_err();
    assert!(
        matches!(error, ImageError::Digest { .. } | ImageError::File { .. }),
        "{error}"
    );
}

#[test]
fn what_had_not_reached_the_disk_is_no_layer_after_the_power_failed() {
    let registry = large();
    let name = name_at(&registry);
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let image = pull_now(&store, &name).unwrap();
    drop(store);
    // As if the machine had stopped before the files were written back: the description is of a boot that is over.
    let (_, lost) = image.layers.split_first().unwrap();
    for layer in lost {
        let home = directory
            .path()
            .join("layers")
            .join(layer.diff_id.trim_start_matches("sha256:"));
        std::fs::rename(home.join("layer.json"), home.join("unsynced-another-boot.json")).unwrap();
        std::fs::write(home.join("fs/d1/e3/f3"), "").ok();
    }
    std::fs::remove_file(directory.path().join("index.json")).unwrap();
    let store = Store::open(directory.path()).unwrap();
    assert!(store.list().unwrap().is_empty());
    let before = registry.requests().len();
    assert_eq!(pull_now(&store, &name).unwrap().id, image.id);
    // The manifest and the two layers, and not the one that had reached the disk.
    let asked = registry.requests().len() - before;
    assert_eq!(asked, 4, "with the first word to the registry");
    drop(store);
    sound(directory.path());
}

#[test]
fn what_is_used_is_never_collected() {
    let base = tar_of(&[("base", b"base")]);
    let one = serve(image_of(&[base.clone(), tar_of(&[("one", b"one")])]));
    let other = serve(image_of(&[base, tar_of(&[("other", b"other")])]));
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let first = pull_now(&store, &name_at(&one)).unwrap();
    let second = pull_now(&store, &name_at(&other)).unwrap();
    assert_eq!(first.layers[0], second.layers[0]);
    let unused = first.layers[1].diff_id.clone();
    let before = compose::image::Blocks::default().of(directory.path());
    let (_, freed) = store.remove(&name_at(&one).familiar(), false, true, &[]).unwrap();
    assert!(store.layer(&unused).is_err());
    let after = compose::image::Blocks::default().of(directory.path());
    // To the block, but for the list of images, which is a file as well.
    assert!(
        freed > 0 && (before - after).abs_diff(freed) <= 8192,
        "{before} - {after} != {freed}"
    );
    sound(directory.path()).get(&name_at(&other).familiar()).unwrap();

    // What is being made belongs to nobody yet; a removal meanwhile leaves it, and the next one finds what became of nothing.
    let working = store.working().unwrap();
    let scratch = store.scratch().unwrap();
    std::fs::write(scratch.upper().join("file"), "built").unwrap();
    let built = store.seal(scratch, Default::default()).unwrap();
    store.prune_cache(|_, _| false).unwrap();
    store.layer(&built.diff_id).unwrap();
    drop(working);
    store.prune_cache(|_, _| false).unwrap();
    assert!(store.layer(&built.diff_id).is_err());

    // A cap on the build cache takes the steps that were not used for the longest time, and no layer of an image.
    let mut layers = Vec::new();
    for used in 1..=4_i64 {
        let scratch = store.scratch().unwrap();
        std::fs::write(scratch.upper().join("file"), vec![u8::try_from(used).unwrap(); 100_000]).unwrap();
        let layer = store.seal(scratch, Default::default()).unwrap().diff_id;
        let record = compose::image::CacheRecord {
            layer: Some(layer.clone()),
            made: used,
            used,
        };
        store.remember([(format!("step {used}"), record)]).unwrap();
        layers.push(layer);
    }
    let record = compose::image::CacheRecord {
        layer: Some(second.layers[0].diff_id.clone()),
        ..Default::default()
    };
    store.remember([("of an image".to_owned(), record)]).unwrap();
    assert!(store.trim_cache(250_000).unwrap() >= 200_000);
    let left: Vec<bool> = layers.iter().map(|layer| store.layer(layer).is_ok()).collect();
    assert_eq!(left, [false, false, true, true]);
    assert!(store.cache().unwrap().contains_key("of an image"));
    sound(directory.path());
}

#[test]
fn a_store_that_two_have_open_is_one() {
    let registry = Arc::new(large());
    let directory = tempfile::tempdir().unwrap();
    let name = name_at(&registry);
    let mut children: Vec<_> = (0..3).map(|_| pull_elsewhere(directory.path(), &name)).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    sound(directory.path()).get(&name.familiar()).unwrap();
    let layers = registry
        .requests()
        .iter()
        .filter(|request| request.path.contains("/blobs/"))
        .count();
    // Each layer once; the small config, which nobody waits for, up to three times.
    assert!((4..=6).contains(&layers), "{layers}");
}
