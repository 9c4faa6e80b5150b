use super::*;
use crate::image::progress::silent;

fn config(diff_ids: &[String]) -> Vec<u8> {
    serde_json::to_vec(&json!({
        "architecture": Platform::host().architecture,
        "os": "linux",
        "config": {"Cmd": ["/bin/true"], "Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }))
    .unwrap()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, name, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("images")).unwrap();
    (directory, store)
}

/// What `docker save` of old wrote: the layers under their own names, a second mention of one as a link.
fn old_archive(layer: &[u8]) -> Vec<u8> {
    let diff_id = sha256(layer);
    let config = config(&[diff_id.clone(), diff_id]);
    let manifest = serde_json::to_vec(&json!([
        {"Config": "c.json", "RepoTags": ["made/here:1"], "Layers": ["one/layer.tar", "two/layer.tar"]}
    ]))
    .unwrap();
    let mut builder = tar::Builder::new(tar(&[
        ("one/layer.tar", layer),
        ("c.json", &config),
        ("manifest.json", &manifest),
    ]));
    // Behind the end marker nothing would be read.
    let bytes = builder.get_mut();
    bytes.truncate(bytes.len() - 1024);
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder
        .append_link(&mut header, "two/layer.tar", "../one/layer.tar")
        .unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn an_image_survives_load_save_and_load() {
    let (_one, first) = store();
    let layer = tar(&[("etc/hello", b"hello")]);
    let loaded = first.load(old_archive(&layer).as_slice(), &silent()).unwrap();
    assert_eq!(loaded[0].names, ["made/here:1"]);
    let image = first.get("made/here:1").unwrap();
    assert_eq!(image.id, sha256(&config(&[sha256(&layer), sha256(&layer)])));
    assert_eq!(image.config.config.cmd, Some(vec!["/bin/true".to_owned()]));
    assert_eq!(image.size, 10);
    assert_eq!(
        fs::read_to_string(first.layer_dirs(&image)[0].join("etc/hello")).unwrap(),
        "hello"
    );

    let mut saved = Vec::new();
    first.save(&["made/here:1".to_owned()], &mut saved).unwrap();
    let (directory, second) = store();
    second.load(saved.as_slice(), &silent()).unwrap();
    let again = second.get(&image.id[7..19]).unwrap();
    assert_eq!(
        (again.id, again.repo_tags),
        (image.id.clone(), vec!["made/here:1".to_owned()])
    );

    // The same file as the name of an image, compressed.
    let path = directory.path().join("saved.tar.zst");
    fs::write(&path, zstd::stream::encode_all(saved.as_slice(), 1).unwrap()).unwrap();
    for scheme in ["docker-archive", "oci-archive"] {
        let (_third, third) = store();
        let name = format!("{scheme}:{}", path.display());
        let source = Source::parse(&name).unwrap();
        let read = third.read_source(&source, &Platform::host(), &silent()).unwrap();
        assert_eq!(read.id, image.id, "{name}");
        assert_eq!(third.get(&name).unwrap().id, image.id);
    }

    // And unpacked, as an OCI layout.
    let layout = directory.path().join("layout");
    fs::create_dir(&layout).unwrap();
    tar::Archive::new(saved.as_slice()).unpack(&layout).unwrap();
    let (_fourth, fourth) = store();
    let source = Source::parse(&format!("oci:{}:1", layout.display())).unwrap();
    assert_eq!(
        fourth.read_source(&source, &Platform::host(), &silent()).unwrap().id,
        image.id
    );
    let source = Source::parse(&format!("oci:{}:2", layout.display())).unwrap();
    assert_eq!(
        fourth
            .read_source(&source, &Platform::host(), &silent())
            .unwrap_err()
            .to_string(),
        format!("{}: no image in it is called \"2\"", layout.display())
    );
}

#[test]
fn a_layer_that_is_not_what_it_is_called_is_refused() {
    let (_directory, store) = store();
    let config = config(&[sha256(b"something else")]);
    let manifest = br#"[{"Config":"c.json","RepoTags":null,"Layers":["l.tar"]}]"#;
    let layer = tar(&[("a", b"b")]);
    let archive = tar(&[("c.json", &config), ("l.tar", &layer), ("manifest.json", manifest)]);
    let error = store.load(archive.as_slice(), &silent()).unwrap_err();
    assert!(matches!(error, ImageError::Digest { .. }), "{error}");
    // Nothing of it stays.
    assert_eq!(fs::read_dir(store.root().join("layers")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
    assert!(store.list().unwrap().is_empty());
}

#[test]
fn a_truncated_layer_is_refused_however_it_is_compressed() {
    use std::io::Write as _;
    let layer = tar(&[("a", &vec![7; 100_000])]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&layer).unwrap();
    let gzip = gzip.finish().unwrap();
    let zstd = zstd::stream::encode_all(layer.as_slice(), 1).unwrap();
    let config = config(&[sha256(&layer)]);
    let manifest = br#"[{"Config":"c.json","RepoTags":null,"Layers":["l.tar"]}]"#;
    for whole in [&gzip, &zstd] {
        let (_directory, store) = store();
        for (length, works) in [(whole.len() - 9, false), (whole.len(), true)] {
            let archive = tar(&[
                ("c.json", &config),
                ("l.tar", &whole[..length]),
                ("manifest.json", manifest),
            ]);
            assert_eq!(store.load(archive.as_slice(), &silent()).is_ok(), works);
        }
    }
}

#[test]
fn an_archive_without_images_says_what_it_lacks() {
    let (_directory, store) = store();
    let error = store.load(tar(&[("a", b"b")]).as_slice(), &silent()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "archive: neither manifest.json nor index.json is in it"
    );
    let manifest = br#"[{"Config":"../../etc/passwd","RepoTags":null,"Layers":[]}]"#;
    let error = store
        .load(tar(&[("manifest.json", manifest)]).as_slice(), &silent())
        .unwrap_err();
    assert_eq!(error.to_string(), "archive: ../../etc/passwd is missing in it");
}

#[test]
fn a_manifest_that_is_two_things_is_neither() {
    for (text, valid) in [
        (r#"{"config":{"digest":"a","size":1},"layers":[]}"#, true),
        (r#"{"manifests":[]}"#, true),
        (
            r#"{"config":{"digest":"a","size":1},"layers":[],"manifests":[]}"#,
            false,
        ),
        (
            r#"{"mediaType":"application/vnd.oci.image.index.v1+json","layers":[]}"#,
            false,
        ),
        (
            r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}"#,
            false,
        ),
    ] {
        assert_eq!(Manifest::parse(text.as_bytes(), "m").is_ok(), valid, "{text}");
    }
}

#[test]
fn a_directory_is_an_image_without_being_copied() {
    let (directory, store) = store();
    let root = directory.path().join("tree");
    fs::create_dir(&root).unwrap();
    let name = format!("rootfs:{}", root.display());
    let source = Source::parse(&name).unwrap();
    let image = store.read_source(&source, &Platform::host(), &silent()).unwrap();
    assert_eq!(store.layer_dirs(&image), [fs::canonicalize(&root).unwrap()]);
    assert_eq!(image.config.config.cmd, Some(vec!["/bin/sh".to_owned()]));
    assert_eq!(store.get(&name).unwrap().id, image.id);
    let error = store.save(&[name], io::sink()).unwrap_err();
    assert!(matches!(error, ImageError::DirectoryView { .. }), "{error}");
    // An image from elsewhere may not claim to be one.
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[],"directory":"/"}}"#;
    let manifest = br#"[{"Config":"c.json","RepoTags":null,"Layers":[]}]"#;
    let archive = tar(&[("c.json", config), ("manifest.json", manifest)]);
    assert!(store.load(archive.as_slice(), &silent()).is_err());
}

#[test]
fn names_tags_and_removal_are_dockers() {
    let (_directory, store) = store();
    let layer = tar(&[("a", b"b")]);
    store.load(old_archive(&layer).as_slice(), &silent()).unwrap();
    let other = Reference::parse("localhost:5000/other").unwrap();
    store.tag("made/here:1", &other).unwrap();
    let image = store.get("localhost:5000/other:latest").unwrap();
    assert_eq!(image.repo_tags, ["made/here:1", "localhost:5000/other:latest"]);
    assert_eq!(
        store.get("nothing").unwrap_err().to_string(),
        "No such image: nothing:latest"
    );
    use crate::image::Removed::{Deleted, Untagged};
    assert_eq!(
        store.remove("made/here:1", false, true, &[]).unwrap().0,
        [Untagged("made/here:1".to_owned())]
    );
    assert_eq!(
        store.remove(&image.id, false, true, &[]).unwrap().0,
        [
            Untagged("localhost:5000/other:latest".to_owned()),
            Deleted(image.id.clone())
        ]
    );
    assert!(store.list().unwrap().is_empty());
    for directory in ["layers", "blobs/sha256", "tmp"] {
        assert_eq!(
            fs::read_dir(store.root().join(directory)).unwrap().count(),
            0,
            "{directory}"
        );
    }
}

#[test]
fn a_second_store_on_the_same_directory_sees_the_same() {
    let (directory, one) = store();
    let two = Store::open(directory.path().join("images")).unwrap();
    one.load(old_archive(&tar(&[("a", b"b")])).as_slice(), &silent())
        .unwrap();
    assert_eq!(two.get("made/here:1").unwrap(), one.get("made/here:1").unwrap());
    two.remove("made/here:1", false, true, &[]).unwrap();
    assert!(one.get("made/here:1").is_err());
}

#[test]
fn a_config_that_changed_on_disk_is_found() {
    let (directory, one) = store();
    one.load(old_archive(&tar(&[("a", b"b")])).as_slice(), &silent())
        .unwrap();
    let id = one.get("made/here:1").unwrap().id;
    let path = one.root().join("blobs/sha256").join(&id[7..]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[10] ^= 1;
    fs::write(&path, bytes).unwrap();
    drop(one);
    let again = Store::open(directory.path().join("images")).unwrap();
    assert!(matches!(
        again.get("made/here:1").unwrap_err(),
        ImageError::Damaged { .. }
    ));
}
