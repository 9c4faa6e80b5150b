//! What becomes of an engine whose program is replaced by another build while it runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{self, Project, text};

const SLEEPER: &str = "services:
  sleeper:
    image: busybox:latest
    init: true
    command: [sleep, \"1000\"]
    stop_grace_period: 0s
    network_mode: none
";

/// Makes another build of the binary: the same program with another id.
fn another_build(from: &Path, to: &Path) {
    let mut program = std::fs::read(from).expect("the binary");
    // elf(5): an owner of four bytes, an id of twenty, of type 3.
    let note = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0";
    let at = program.windows(note.len()).position(|window| window == note);
    program[at.expect("a build id") + note.len()] ^= 0xff;
    let data = to.with_extension("data");
    std::fs::write(&data, program).expect("a copy of the binary");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&data, executable).expect("a copy of the binary");
    // As updates do it: written beside the old one, then renamed.
    let beside = to.with_extension("new");
    copy(&data, &beside);
    std::fs::rename(beside, to).expect("a copy of the binary");
}

/// Copies a program by another process: a child of a test beside this one could hold a file of ours open for writing,
/// and what is open so cannot be run.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args([from, to]).status().expect("cp runs");
    assert!(copied.success());
}

struct Stage {
    project: Project,
    program: PathBuf,
}

impl Stage {
    /// Has a container run under an engine of a program of the stage's own.
    fn new() -> Option<Self> {
        if !support::available("root and busybox-static", support::is_root() && support::has_busybox()) {
            return None;
        }
        let project = Project::new(&[("compose.yaml", SLEEPER)]);
        let program = project.path().join("program");
        copy(&support::binary(), &program);
        let stage = Self { project, program };
        stage.by(&stage.program, &["ps"]);
        support::busybox(&stage.project);
        stage.by(&stage.program, &["up", "-d"]);
        Some(stage)
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let own = self.project.compose(arguments);
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.project.path()).env_clear();
        command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::null());
        command
    }

    #[track_caller]
    fn by(&self, program: &Path, arguments: &[&str]) -> Output {
        let output = self.command(program, arguments).output().expect("the binary runs");
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        output
    }

    fn engine(&self) -> i32 {
        self.project.engine_pid().expect("an engine").as_raw_nonzero().get()
    }

    /// Returns the container's process.
    fn container(&self) -> String {
        let id = text(
            &self
                .by(&self.program, &["--progress", "plain", "--ansi", "never", "ps", "-q"])
                .stdout,
        );
        self.project.docker(&["inspect", "-f", "{{.State.Pid}}", id.trim()])
    }
}

#[test]
fn an_updated_program_s_engine_is_replaced_and_containers_run_on() {
    let Some(stage) = Stage::new() else { return };
    let (engine, container) = (stage.engine(), stage.container());
    another_build(&stage.program, &stage.program);
    let first = stage.by(&stage.program, &["ps", "--format", "{{.State}}"]);
    assert_eq!(text(&first.stdout), "running\n");
    assert!(!text(&first.stderr).contains("build"), "{}", text(&first.stderr));
    assert_ne!(stage.engine(), engine, "the new build's engine took over");
    assert_eq!(stage.container(), container);
    let second = stage.engine();
    stage.by(&stage.program, &["ps"]);
    assert_eq!(stage.engine(), second, "it is replaced once");
    stage.by(&stage.program, &["down"]);
}

#[test]
fn an_engine_of_another_program_or_in_use_goes_on_and_it_is_said() {
    let Some(stage) = Stage::new() else { return };
    let engine = stage.engine();
    let other = stage.project.path().join("other");
    another_build(&stage.program, &other);
    let said = text(&stage.by(&other, &["ps"]).stderr);
    let program = stage.program.display();
    assert!(said.contains(&format!("from {program}")), "{said}");
    assert!(
        said.contains(&format!("kill {engine}")) && said.contains("containers run on"),
        "{said}"
    );
    let terse = stage.by(&other, &["--progress", "plain", "--ansi", "never", "ps"]);
    assert_eq!(
        text(&terse.stderr),
        "",
        "whoever reads docker compose's lines gets no others"
    );
    assert_eq!(stage.engine(), engine);

    // Somebody listens to events while the program is updated.
    let mut listener = stage.command(&stage.program, &["events"]);
    let mut listener = listener
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let listeners = || stage.project.docker(&["info", "-f", "{{.NEventsListener}}"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while listeners().trim() == "0" {
        assert!(Instant::now() < deadline, "nobody listens");
        std::thread::sleep(Duration::from_millis(20));
    }
    another_build(&stage.program, &stage.program);
    let said = text(&stage.by(&stage.program, &["ps"]).stderr);
    assert!(said.contains(&format!("kill {engine}")), "{said}");
    assert_eq!(stage.engine(), engine, "nobody's connection is cut");
    listener.kill().and_then(|()| listener.wait()).expect("our own child");
    // That it has gone, the engine hears when it tells of the next event.
    stage.by(&stage.program, &["restart"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while stage.engine() == engine {
        assert!(Instant::now() < deadline, "it is in nobody's way now, and goes on");
        stage.by(&stage.program, &["ps"]);
    }
    stage.by(&stage.program, &["down"]);
}
