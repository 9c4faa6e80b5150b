//! Images built from Dockerfiles: files copied as Docker copies them, commands run in containers, steps found in the cache.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use compose::build::{BuildError, BuildEvent, BuildRequest, BuildSink, build};
use compose::image::{Image, Reference, Store, View};
use compose::runtime::{Runtime, RuntimeConfig};

use crate::support::{available, binary, has_busybox, is_root};

/// A context, a store, and what the last build said.
struct Bench {
    directory: tempfile::TempDir,
    store: Store,
    events: Arc<Mutex<Vec<BuildEvent>>>,
    runtime: Option<Runtime>,
}

pub fn runtime() -> Option<Runtime> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    RUNTIME
        .get_or_init(|| {
            let there = available("root", is_root()) && available("a static busybox at /bin/busybox", has_busybox());
            there.then(|| {
                let config = RuntimeConfig {
                    state_dir: "/tmp".into(),
                    run_dir: "/tmp".into(),
                    instance: format!("test-build-{}", std::process::id()),
                };
                Runtime::open_with_program(config, binary()).expect("a runtime")
            })
        })
        .clone()
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::Builder::new().prefix("cb").tempdir_in("/tmp").unwrap();
        std::fs::create_dir(directory.path().join("context")).unwrap();
        let store = Store::open(directory.path().join("images")).unwrap();
        let bench = Self {
            directory,
            store,
            events: Arc::default(),
            runtime: None,
        };
        for (path, text) in files {
            bench.write(path, text);
        }
        bench
    }

    /// The same with busybox in the context, and a runtime to run it in.
    fn with_busybox(files: &[(&str, &str)]) -> Option<Self> {
        let mut bench = Self::new(files);
        bench.runtime = Some(runtime()?);
        std::fs::copy("/bin/busybox", bench.context().join("busybox")).unwrap();
        Some(bench)
    }

    fn context(&self) -> PathBuf {
        self.directory.path().join("context")
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.context().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn request(&self) -> BuildRequest {
        BuildRequest::new(self.context(), self.store.clone(), self.runtime.clone())
    }

    async fn build_with(&self, change: impl FnOnce(&mut BuildRequest)) -> Result<Image, BuildError> {
        let mut request = self.request();
        change(&mut request);
        self.events.lock().unwrap().clear();
        let events = self.events.clone();
        let sink: BuildSink = Arc::new(move |event| events.lock().unwrap().push(event));
        build(request, sink).await
    }

    async fn build(&self) -> Image {
        match self.build_with(|_| {}).await {
            Ok(image) => image,
            Err(error) => panic!("{error}\n{:?}", self.events.lock().unwrap()),
        }
    }

    async fn fails(&self) -> String {
        self.build_with(|_| {}).await.unwrap_err().to_string()
    }

    fn cached(&self) -> usize {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .filter(|event| matches!(event, BuildEvent::Cached { .. }))
            .count()
    }

    fn output(&self) -> String {
        let events = self.events.lock().unwrap();
        events
            .iter()
            .filter_map(|event| match event {
                BuildEvent::Output { text, .. } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    fn view(&self, image: &Image) -> View {
        View::open(&self.store.layer_dirs(image)).unwrap()
    }

    fn read(&self, image: &Image, path: &str) -> String {
        let found = self.view(image).find(Path::new(path)).unwrap();
        let found = found.unwrap_or_else(|| panic!("{path} is not in the image"));
        std::io::read_to_string(found.open().unwrap()).unwrap()
    }

    fn exists(&self, image: &Image, path: &str) -> bool {
        self.view(image).find_link(Path::new(path)).unwrap().is_some()
    }
}

const BUSYBOX: &str =
    "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";

#[tokio::test]
async fn files_are_copied_as_docker_copies_them() {
    let bench = Bench::new(&[
        ("one.txt", "1"),
        ("two.txt", "2"),
        ("directory/inner/file", "inner"),
        ("directory/other", "other"),
        ("ignored/secret", "no"),
        (".dockerignore", "ignored\n*.log\n"),
        ("x.log", "no"),
        (
            "Dockerfile",
            "FROM scratch\n\
             ARG NAME=value\n\
             WORKDIR /work\n\
             COPY one.txt renamed\n\
             COPY one.txt ./\n\
             COPY link /linked/\n\
             COPY *.txt /many/\n\
             COPY directory /copied\n\
             COPY directory/ /copied/again/\n\
             COPY --chown=12:34 --chmod=640 two.txt /owned/\n\
             COPY . /all/\n\
             COPY <<text /etc/text\n\
             NAME is ${NAME}\n\
             text\n\
             COPY one.txt two.txt $NAME/\n",
        ),
    ]);
    symlink("one.txt", bench.context().join("link")).unwrap();
    symlink("/etc/passwd", bench.context().join("outside")).unwrap();
    std::fs::set_permissions(bench.context().join("one.txt"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let image = bench.build().await;
    assert_eq!(bench.read(&image, "/work/renamed"), "1");
    assert_eq!(bench.read(&image, "/work/one.txt"), "1");
    assert_eq!(bench.read(&image, "/linked/link"), "1");
    assert_eq!(bench.read(&image, "/many/two.txt"), "2");
    assert_eq!(bench.read(&image, "/copied/inner/file"), "inner");
    assert_eq!(bench.read(&image, "/copied/again/other"), "other");
    assert_eq!(bench.read(&image, "/etc/text"), "NAME is value\n");
    assert_eq!(bench.read(&image, "/work/value/two.txt"), "2");
    assert!(!bench.exists(&image, "/all/ignored"));
    assert!(!bench.exists(&image, "/all/x.log"));
    let view = bench.view(&image);
    let link = view.find_link(Path::new("/all/link")).unwrap().unwrap();
    assert_eq!(link.read_link().unwrap(), Path::new("one.txt"));
    let mode = |path: &str| view.find(Path::new(path)).unwrap().unwrap().stat.st_mode & 0o7777;
    assert_eq!(mode("/work/one.txt"), 0o755);
    assert_eq!(mode("/owned/two.txt"), 0o640);
    assert_eq!(image.config.config.working_dir, "/work");
    if is_root() {
        let owned = view.find(Path::new("/owned/two.txt")).unwrap().unwrap().stat;
        assert_eq!((owned.st_uid, owned.st_gid), (12, 34));
    }
    // A link that leads out of the context is a link, and a source behind it is not there.
    bench.write("Dockerfile", "FROM scratch\nCOPY outside /x\n");
    assert!(bench.fails().await.contains("\"/outside\": not found"));
}

#[tokio::test]
async fn a_config_is_what_the_instructions_say() {
    let bench = Bench::new(&[(
        "Dockerfile",
        "ARG BASE=scratch\n\
         FROM $BASE AS first\n\
         ENV A=1 B=\"two words\"\n\
         ENV C=${A}${MISSING:-3}\n\
         ARG PORT=80\n\
         EXPOSE $PORT 53/udp\n\
         LABEL com.example.a=\"b c\"\n\
         CMD [\"inherited\"]\n\
         FROM first\n\
         ENTRYPOINT [\"/run\"]\n\
         USER 5:6\n\
         VOLUME /data [\"/more\"]\n\
         STOPSIGNAL SIGINT\n\
         HEALTHCHECK --interval=1m30s --retries=2 CMD curl -f localhost\n\
         SHELL [\"/bin/ash\", \"-c\"]\n\
         ONBUILD ENV TRIGGERED=yes\n",
    )]);
    let image = bench
        .build_with(|request| {
            request.tags = vec![Reference::parse("made:1").unwrap()];
            request.labels.insert("given".to_owned(), "label".to_owned());
        })
        .await
        .unwrap();
    let config = &image.config.config;
    assert_eq!(config.env[1..], ["A=1", "B=two words", "C=13"]);
    assert!(config.env[0].starts_with("PATH="), "there is always one");
    assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
    assert_eq!(config.labels["com.example.a"], "b c");
    assert_eq!(config.labels["given"], "label");
    assert_eq!(config.entrypoint, Some(vec!["/run".to_owned()]));
    assert_eq!(config.cmd, None, "an ENTRYPOINT drops what CMD was inherited");
    assert_eq!(config.user, "5:6");
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(config.healthcheck.as_ref().unwrap().interval, 90_000_000_000);
    assert_eq!(bench.store.get("made:1").unwrap().id, image.id);
    // The image, built on, does what it was told to do then.
    bench.write("Dockerfile", "FROM made:1\nCMD a b\n");
    let next = bench.build().await;
    assert_eq!(next.config.config.env[4], "TRIGGERED=yes");
    assert!(next.config.config.on_build.is_empty());
    assert_eq!(
        next.config.config.cmd,
        Some(vec!["/bin/ash".to_owned(), "-c".to_owned(), "a b".to_owned()])
    );
    assert_eq!(next.parent.as_deref(), Some(image.id.as_str()));
}

#[tokio::test]
async fn a_step_is_found_again_by_content_not_by_time() {
    let bench = Bench::new(&[
        ("a", "a"),
        ("b", "b"),
        ("Dockerfile", "FROM scratch\nCOPY a /\nCOPY b /\nWORKDIR /w\n"),
    ]);
    let first = bench.build().await;
    assert_eq!(bench.cached(), 0);
    // Another time, the same bytes.
    std::fs::remove_file(bench.context().join("a")).unwrap();
    bench.write("a", "a");
    let again = bench.build().await;
    assert_eq!((bench.cached(), &again.id), (3, &first.id));
    bench.write("b", "changed");
    let changed = bench.build().await;
    assert_eq!(bench.cached(), 1, "what comes after a changed step is done again");
    assert_ne!(changed.id, first.id);
    std::fs::set_permissions(bench.context().join("a"), std::fs::Permissions::from_mode(0o600)).unwrap();
    bench.build().await;
    assert_eq!(bench.cached(), 0, "a mode counts");
    bench.build_with(|request| request.no_cache = true).await.unwrap();
    assert_eq!(bench.cached(), 0);
}

#[tokio::test]
async fn a_mistake_is_shown_with_its_line() {
    let bench = Bench::new(&[("Dockerfile", "FROM scratch\n\nCOPY missing /\n")]);
    assert_eq!(
        bench.fails().await,
        "failed to solve: failed to compute cache key: failed to calculate checksum of ref: \"/missing\": not found\n \
         --> Dockerfile:3:1\n  |\n2 | \n3 | COPY missing /\n  | ^^^^^^^^^^^^^^"
    );
    for (text, message) in [
        (
            "FROM scratch\nFOO\n",
            "dockerfile parse error on line 2: unknown instruction: FOO",
        ),
        (
            "FROM scratch AS me\nCOPY --from=me /a /\n",
            "circular dependency detected on stage: me",
        ),
        (
            "FROM scratch\nENV A=${B:?needed}\n",
            "failed to process \"${B:?needed}\": B: needed",
        ),
        ("FROM UPPER\n", "must be lowercase"),
        (
            "FROM scratch\nCOPY Dockerfile /x\nCOPY Dockerfile /x/y\n",
            "cannot copy to non-directory: /x",
        ),
    ] {
        bench.write("Dockerfile", text);
        let error = bench.fails().await;
        assert!(
            error.starts_with("failed to solve: ") && error.contains(message),
            "{text:?}: {error}"
        );
    }
    let error = bench
        .build_with(|request| request.target = Some("none".to_owned()))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("target stage \"none\" could not be found"),
        "{error}"
    );
}

#[tokio::test]
async fn an_archive_is_added_unpacked() {
    let bench = Bench::new(&[("Dockerfile", "FROM scratch\nADD a.tar.gz /in/\nADD plain.gz /in/\n")]);
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o600);
    header.set_uid(7);
    header.set_gid(8);
    header.set_mtime(5);
    header.set_size(3);
    builder.append_data(&mut header, "d/f", &b"abc"[..]).unwrap();
    let gzip = |data: &[u8]| {
        use std::io::Write as _;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(data).unwrap();
        gzip.finish().unwrap()
    };
    std::fs::write(bench.context().join("a.tar.gz"), gzip(&builder.into_inner().unwrap())).unwrap();
    std::fs::write(bench.context().join("plain.gz"), gzip(b"no tar")).unwrap();
    let image = bench.build().await;
    assert_eq!(bench.read(&image, "/in/d/f"), "abc");
    assert!(bench.exists(&image, "/in/plain.gz"));
    if is_root() {
        let found = bench.view(&image).find(Path::new("/in/d/f")).unwrap().unwrap();
        assert_eq!((found.stat.st_uid, found.stat.st_gid), (7, 8));
    }
}

#[tokio::test]
async fn commands_run_in_a_container_of_their_own() {
    let Some(bench) = Bench::with_busybox(&[]) else { return };
    bench.write(
        "Dockerfile",
        &format!(
            "{BUSYBOX}\
             ARG SECRET=s3cret\n\
             ENV SEEN=yes\n\
             RUN mkdir -p /etc /home && echo 'web:x:33:34::/home:/bin/sh' > /etc/passwd && echo 'web:x:34:' > /etc/group\n\
             WORKDIR /app\n\
             RUN echo \"$SEEN $SECRET $HOME $PWD\" > out; \\\n  # a comment\n  echo printed; env > env; mount > mounts; ip link > links; ls -A / > root\n\
             RUN <<EOF\n\
             set -e\n\
             echo one > heredoc\n\
             echo two >> heredoc\n\
             EOF\n\
             RUN <<script\n\
             #!/bin/sh -e\n\
             echo from $0 > script\n\
             script\n\
             RUN cat <<A >both && cat <<B >>both\n\
             first $SEEN\n\
             A\n\
             second\n\
             B\n\
             USER web\n\
             RUN id -u > /tmp/id; id -g >> /tmp/id || true\n\
             RUN --network=none ip -o link | wc -l > /tmp/links\n\
             FROM scratch\n\
             COPY --from=0 /app /app\n\
             COPY --from=0 /tmp /tmp\n"
        )
        .replace("WORKDIR /app", "RUN mkdir -m 1777 /tmp\nWORKDIR /app"),
    );
    let image = bench.build().await;
    assert_eq!(bench.read(&image, "/app/out"), "yes s3cret / /app\n");
    assert!(bench.output().contains("printed\n"));
    assert_eq!(bench.read(&image, "/app/heredoc"), "one\ntwo\n");
    assert_eq!(bench.read(&image, "/app/script"), "from /dev/pipes/script\n");
    assert_eq!(bench.read(&image, "/app/both"), "first yes\nsecond\n");
    assert_eq!(bench.read(&image, "/tmp/id"), "33\n34\n");
    assert_eq!(bench.read(&image, "/tmp/links").trim(), "1");
    let environment = bench.read(&image, "/app/env");
    assert!(
        !environment.contains("CARGO"),
        "nothing of the host's environment: {environment}"
    );
    // Nothing that was only mounted is part of any layer.
    let stage = bench
        .build_with(|request| request.target = Some("0".to_owned()))
        .await
        .unwrap();
    for path in ["/proc", "/sys", "/dev", "/etc/resolv.conf", "/etc/hosts"] {
        assert!(!bench.exists(&stage, path), "{path}");
    }
    assert!(bench.read(&image, "/app/root").contains("proc"));
    assert_eq!(bench.store.root().join("tmp").read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn a_failing_command_shows_its_line_its_output_and_its_code() {
    let Some(bench) = Bench::with_busybox(&[]) else { return };
    bench.write("Dockerfile", &format!("{BUSYBOX}RUN echo before >&2 && exit 7\n"));
    assert_eq!(
        bench.fails().await,
        "failed to solve: process \"/bin/sh -c echo before >&2 && exit 7\" did not complete successfully: exit code: 7\n \
         --> Dockerfile:4:1\n  |\n3 | RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n4 | RUN echo before >&2 && exit 7\n  | \
         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\nits last output:\n  before"
    );
    assert_eq!(bench.store.root().join("tmp").read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn the_hosts_own_root_is_built_on_and_never_written_to() {
    let Some(bench) = Bench::with_busybox(&[]) else { return };
    let marker = format!("compose-build-{}", std::process::id());
    let passwd = std::fs::metadata("/etc/passwd").unwrap();
    bench.write(
        "Dockerfile",
        &format!(
            "FROM rootfs:/ AS host\n\
             RUN echo first > /usr/{marker} && echo appended >> /etc/passwd && rm /etc/hostname\n\
             RUN cat /usr/{marker} > /usr/{marker}-2 && echo second >> /usr/{marker}-2 && test ! -e /etc/hostname\n\
             COPY Dockerfile /usr/{marker}-3\n\
             RUN test -s /usr/{marker}-3\n\
             FROM scratch\n\
             COPY --from=host /usr/{marker}-2 /etc/passwd /\n"
        ),
    );
    let image = bench.build().await;
    assert_eq!(bench.read(&image, &format!("/{marker}-2")), "first\nsecond\n");
    assert!(bench.read(&image, "/passwd").ends_with("appended\n"));
    assert!(!Path::new(&format!("/usr/{marker}")).exists());
    let after = std::fs::metadata("/etc/passwd").unwrap();
    assert_eq!(
        (after.ino(), after.mtime(), after.len()),
        (passwd.ino(), passwd.mtime(), passwd.len())
    );
    assert_eq!(image.directory, None, "the result stands on its own");
    bench.build().await;
    assert_eq!(bench.cached(), 6);
}

/// Returns the files below a directory that have a text in them.
fn holding(directory: &Path, text: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            left.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        } else if kind.is_file() {
            let content = std::fs::read(&path).unwrap();
            if content.windows(text.len()).any(|window| window == text) {
                found.push(path);
            }
        }
    }
    found
}

#[tokio::test]
async fn a_secret_is_in_no_layer_no_history_and_no_cache_and_makes_no_step_another_one() {
    let Some(bench) = Bench::with_busybox(&[]) else { return };
    let canary = format!("canary-{}", std::process::id());
    bench.write(
        "Dockerfile",
        &format!(
            "{BUSYBOX}\
             RUN --mount=type=secret,id=token,required test \"$(cat /run/secrets/token)\" != '' && echo read > /read\n\
             RUN --mount=type=secret,id=token,env=TOKEN test -n \"$TOKEN\" && env | grep -v TOKEN > /environment\n\
             RUN ls -A /run /dev/shm > /left 2>&1; env > /after\n"
        ),
    );
    let secret = |request: &mut BuildRequest, value: &str| {
        request
            .secrets
            .values
            .insert("token".to_owned(), value.as_bytes().to_vec());
    };
    let image = bench.build_with(|request| secret(request, &canary)).await.unwrap();
    assert_eq!(bench.read(&image, "/read"), "read\n");
    assert!(!bench.read(&image, "/after").contains("TOKEN"));
    assert!(!bench.exists(&image, "/run/secrets"));
    assert_eq!(holding(bench.store.root(), canary.as_bytes()), Vec::<PathBuf>::new());
    bench.build_with(|request| secret(request, "another")).await.unwrap();
    assert_eq!(bench.cached(), 5, "the value does not count");
    let error = bench.build_with(|request| request.no_cache = true).await.unwrap_err();
    assert!(error.to_string().contains("secret token: not found"), "{error}");
}

#[tokio::test]
async fn an_address_is_added_as_a_file_with_the_digest_it_must_have() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\
                          last-modified: Sat, 03 Feb 2001 04:05:06 GMT\r\n\r\nhello";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let bench = Bench::new(&[]);
    let digest = compose::image::sha256(b"hello");
    bench.write(
        "Dockerfile",
        &format!(
            "FROM scratch\nADD --checksum={digest} http://{address}/a/file.txt?x=1 /in/\nADD http://{address}/b /name\n"
        ),
    );
    let image = bench.build().await;
    let found = bench.view(&image).find(Path::new("/in/file.txt")).unwrap().unwrap();
    assert_eq!((found.stat.st_mode & 0o7777, found.stat.st_mtime), (0o600, 981_173_106));
    assert_eq!(bench.read(&image, "/name"), "hello");
    bench.build().await;
    assert_eq!(bench.cached(), 2);
    let wrong = digest
        .replace(|c: char| c.is_ascii_digit(), "0")
        .replace("sha000", "sha256");
    bench.write(
        "Dockerfile",
        &format!("FROM scratch\nADD --checksum={wrong} http://{address}/a /\n"),
    );
    let error = bench.fails().await;
    assert!(error.contains("digest mismatch"), "{error}");
    server.abort();
}

#[tokio::test]
async fn directories_that_files_lie_in_are_kept_on_request() {
    let bench = Bench::new(&[
        ("a/b/c.txt", "c"),
        ("a/b/d.md", "d"),
        ("a/e.txt", "e"),
        (
            "Dockerfile",
            "FROM scratch\nCOPY --parents a/b/c.txt a/e.txt /one/\nCOPY --parents **/*.txt /two/\n\
             COPY --parents a/./b /three/\nCOPY --parents --exclude=**/*.md a /four/\n",
        ),
    ]);
    let image = bench.build().await;
    for path in [
        "/one/a/b/c.txt",
        "/one/a/e.txt",
        "/two/a/b/c.txt",
        "/two/a/e.txt",
        "/three/b/d.md",
        "/four/a/b/c.txt",
    ] {
        assert!(bench.exists(&image, path), "{path}");
    }
    for path in ["/one/a/b/d.md", "/two/a/b/d.md", "/three/a", "/four/a/b/d.md"] {
        assert!(!bench.exists(&image, path), "{path}");
    }
}
