//! On a terminal: tmux is one, and says what stands on its screen.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{Project, available, binary, is_root, text};

/// A terminal of a size, in which a shell runs.
struct Terminal {
    project: Project,
    socket: String,
}

impl Terminal {
    fn open(file: &str, width: u32, height: u32) -> Option<Self> {
        let has_tmux = Command::new("tmux").arg("-V").output().is_ok();
        if !available("tmux, and root for the embedded engine", has_tmux && is_root()) {
            return None;
        }
        let project = Project::new(&[("compose.yaml", file)]);
        let socket = project.state_dir().join("tmux.sock").display().to_string();
        let terminal = Self { project, socket };
        terminal.tmux(&[
            "new-session",
            "-d",
            "-x",
            &width.to_string(),
            "-y",
            &height.to_string(),
            "-c",
            &terminal.project.path().to_string_lossy(),
            "env",
            "PS1=$ ",
            "COMPOSE_PROJECT_NAME=p",
            &format!("COMPOSE_STATE_DIR={}", terminal.project.state_dir().display()),
            &format!("HOME={}", terminal.project.path().display()),
            "/bin/sh",
            "-i",
        ]);
        terminal.until("a prompt", |screen| screen.contains('$'));
        Some(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-S", &self.socket, "-f", "/dev/null"])
            .args(arguments)
            .output()
            .expect("tmux is installed");
        assert!(output.status.success(), "tmux {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Types a command line.
    fn types(&self, line: &str) {
        let line = line.replace("compose ", &format!("{} ", binary().display()));
        self.tmux(&["send-keys", "-l", &line]);
        self.key("Enter");
    }

    fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-S", "-200"])
    }

    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let screen = self.screen();
            if is_so(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}:\n{screen}");
            std::thread::sleep(Duration::from_millis(30));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").args(["-S", &self.socket, "kill-server"]).output();
    }
}

const TALKER: &str = "\
services:
  web:
    image: rootfs:/
    command: [sh, -c, \"echo hello-$$WAIT; trap 'echo bye-$$WAIT; sleep $$WAIT; exit' TERM; while :; do sleep 0.05; done\"]
    environment: {WAIT: \"0\"}
    network_mode: none
";

#[test]
fn progress_is_redrawn_in_place_and_fits_the_window() {
    let Some(terminal) = Terminal::open(TALKER, 60, 30) else {
        return;
    };
    terminal.types("compose up -d; echo status $?");
    let screen = terminal.until("the end", |screen| screen.contains("status 0"));
    assert!(screen.contains("[+] Running 1/1"), "{screen}");
    // One line per container, whatever states it went through.
    assert_eq!(screen.matches("p-web-1").count(), 1, "{screen}");
    assert!(screen.contains(" ✔ Container p-web-1  Started"), "{screen}");
    terminal.tmux(&["resize-window", "-x", "30", "-y", "20"]);
    terminal.tmux(&["clear-history"]);
    terminal.types("clear");
    terminal.types("compose down -t 0; echo status $?");
    let screen = terminal.until("the end", |screen| screen.contains("status 0"));
    assert_eq!(screen.matches("p-web-1").count(), 1, "{screen}");
}

#[test]
fn ctrl_c_stops_what_is_attached_and_twice_kills_it() {
    let Some(terminal) = Terminal::open(TALKER, 100, 40) else {
        return;
    };
    terminal.types("compose up --menu=false; echo status $?");
    terminal.until("output", |screen| screen.contains("web-1  | hello-0"));
    terminal.key("C-c");
    let screen = terminal.until("the end", |screen| screen.contains("status 130"));
    assert!(
        screen.contains("Gracefully Stopping... press Ctrl+C again to force"),
        "{screen}"
    );
    assert!(screen.contains("web-1  | bye-0"), "{screen}");

    terminal.project.write(
        "compose.yaml",
        &TALKER
            .replace("WAIT: \"0\"", "WAIT: \"60\"")
            .replace("network_mode", "stop_grace_period: 60s\n    network_mode"),
    );
    terminal.types("clear");
    terminal.types("compose up --menu=false; echo second $?");
    terminal.until("output", |screen| screen.contains("web-1  | hello-60"));
    terminal.key("C-c");
    terminal.until("stopping", |screen| screen.contains("web-1  | bye-60"));
    terminal.key("C-c");
    terminal.until("the end", |screen| screen.contains("second 130"));
}

#[test]
fn a_shell_in_a_container_has_job_control_and_the_window_s_size() {
    let Some(terminal) = Terminal::open("services: {box: {image: \"rootfs:/\", network_mode: none}}", 90, 30) else {
        return;
    };
    terminal.types("compose run --rm -it box sh -i");
    terminal.until("a prompt", |screen| {
        screen
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .is_some_and(|line| line.trim_end().ends_with('#') || line.trim_end().ends_with('$'))
    });
    terminal.types("stty size");
    terminal.until("the size", |screen| screen.contains("30 90"));
    terminal.types("sleep 400");
    std::thread::sleep(Duration::from_millis(300));
    terminal.key("C-z");
    terminal.until("a stopped job", |screen| screen.contains("Stopped"));
    terminal.types("jobs; kill %1; echo go$((1+1))");
    terminal.until("the next command", |screen| screen.contains("go2"));
    terminal.tmux(&["resize-window", "-x", "70", "-y", "25"]);
    terminal.types("sleep 0.3; stty size");
    terminal.until("the new size", |screen| screen.contains("25 70"));
    // The first is warned of the stopped job.
    terminal.types("exit 7");
    terminal.types("exit 7");
    std::thread::sleep(Duration::from_millis(500));
    terminal.types("echo status $?");
    terminal.until("the status", |screen| screen.contains("status 7"));
}

#[test]
fn a_program_that_takes_the_whole_screen_gives_it_back() {
    let Some(terminal) = Terminal::open(TALKER, 80, 24) else {
        return;
    };
    let has_vi = Command::new("vi").arg("--version").output().is_ok() || std::path::Path::new("/bin/busybox").exists();
    if !available("vi", has_vi) {
        return;
    }
    terminal.types("compose --progress quiet up -d; compose exec web busybox vi /var/tmp/text; echo status $?");
    terminal.until("an empty file", |screen| {
        screen.lines().filter(|line| line.starts_with('~')).count() > 10
    });
    terminal.tmux(&["send-keys", "-l", "iwritten"]);
    terminal.key("Escape");
    // Whatever follows too soon belongs to the key.
    std::thread::sleep(Duration::from_millis(500));
    terminal.types(":wq");
    terminal.until("the end", |screen| screen.contains("status 0"));
    terminal.types("compose exec -T web cat /var/tmp/text");
    terminal.until("the text", |screen| screen.lines().any(|line| line == "written"));
    // The terminal echoes and breaks lines as before.
    terminal.types("stty -a | grep -c -e ' echo ' -e ' onlcr'");
    terminal.until("a sane terminal", |screen| screen.lines().any(|line| line == "2"));
}
