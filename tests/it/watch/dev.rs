//! A project that somebody works on: a watch runs, its words are read, files of its containers are looked at.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{self, Project};

/// A project and the watch of it. Both end with the value.
pub struct Dev {
    pub project: Project,
    engine: Option<String>,
    watch: Option<Child>,
    said: Arc<Mutex<String>>,
}

impl Dev {
    /// Returns the project, or nothing where this process may not make containers. Its engine is the embedded one, or
    /// the one at the address in `COMPOSE_TEST_WATCH_ENGINE`, which has the image `busybox:latest`.
    pub fn new(files: &[(&str, &str)]) -> Option<Self> {
        if !support::available("the right to make containers", support::is_root()) {
            return None;
        }
        let engine = std::env::var("COMPOSE_TEST_WATCH_ENGINE").ok();
        let mut project = Project::new(&[]);
        if let Some(engine) = &engine {
            project.set("COMPOSE_ENGINE", engine);
        }
        project.set("COMPOSE_ENGINE_IDLE", "2");
        project.set("COMPOSE_PROJECT_NAME", &project_name(&project));
        let dev = Self {
            project,
            engine,
            watch: None,
            said: Arc::default(),
        };
        for (path, text) in files {
            dev.write(path, text);
        }
        Some(dev)
    }

    /// Returns whether the engine is our own.
    pub fn is_embedded(&self) -> bool {
        self.engine.is_none()
    }

    /// Runs Docker's own client on the engine and returns its standard output.
    #[track_caller]
    pub fn docker(&self, arguments: &[&str]) -> String {
        match &self.engine {
            None => self.project.docker(arguments),
            Some(engine) => support::docker_at(engine, arguments),
        }
    }

    /// Returns the project's name.
    pub fn name(&self) -> String {
        project_name(&self.project)
    }

    /// Returns the image with Python that another engine has.
    pub fn python(&self) -> Option<String> {
        self.engine.as_ref()?;
        Some(std::env::var("COMPOSE_TEST_PYTHON").unwrap_or_else(|_| "python:3".to_owned()))
    }

    /// Runs a watching command until the value goes, and waits until it watches.
    pub fn watch(&mut self, arguments: &[&str]) {
        let command = self.project.compose(arguments);
        self.start(command);
        self.hears("Watch enabled");
    }

    /// Returns a command of ours as another program runs it.
    pub fn wrapped(&self, wrapper: &[&str], arguments: &[&str]) -> Command {
        let inner = self.project.compose(arguments);
        let mut command = Command::new(wrapper[0]);
        command
            .args(&wrapper[1..])
            .arg(inner.get_program())
            .args(inner.get_args())
            .current_dir(self.project.path());
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
    }

    /// Runs a watching command that is ready to run.
    pub fn start(&mut self, mut command: Command) {
        self.stop();
        let mut child = command
            .process_group(0)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the watch starts");
        self.said.lock().unwrap().clear();
        self.listen(child.stdout.take().expect("a pipe"));
        self.listen(child.stderr.take().expect("a pipe"));
        self.watch = Some(child);
    }

    fn listen(&self, from: impl Read + Send + 'static) {
        let said = Arc::clone(&self.said);
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                let mut said = said.lock().unwrap();
                said.push_str(&String::from_utf8_lossy(&line));
                said.push('\n');
            }
        });
    }

    /// Ends the watch as a user does, and returns its status.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.watch.take()?;
        let pid = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        child.wait().expect("the watch ends").code()
    }

    /// Ends the watch without a chance to clean up.
    pub fn kill(&mut self) {
        let mut child = self.watch.take().expect("a watch");
        child.kill().expect("it runs");
        child.wait().expect("the watch ends");
    }

    pub fn pid(&self) -> u32 {
        self.watch.as_ref().expect("a watch").id()
    }

    pub fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until the watch says something.
    #[track_caller]
    pub fn hears(&self, words: &str) {
        until(&format!("{words:?}"), || {
            let said = self.said();
            if said.contains(words) { Ok(()) } else { Err(said) }
        });
    }

    /// Returns what a shell in the service's container prints.
    pub fn inside(&self, service: &str, script: &str) -> String {
        let output = self.project.run(&["exec", "-T", service, "sh", "-c", script]);
        support::text(&output.stdout)
    }

    /// Waits until a shell in the service's container prints this.
    #[track_caller]
    pub fn sees(&self, service: &str, script: &str, expected: &str) {
        until(&format!("{script}: {expected:?}"), || {
            let seen = self.inside(service, script);
            if seen.trim_end() == expected {
                Ok(())
            } else {
                Err(format!("{seen}\n{}", self.said()))
            }
        });
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.project.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        match &self.engine {
            Some(_) => self.project.write(name, &text.replace("rootfs:/", "busybox:latest")),
            None => self.project.write(name, text),
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        self.stop();
        if self.engine.is_some() {
            // The embedded one goes with the project.
            self.project.run(&["down", "-v", "-t", "0"]);
        }
    }
}

fn project_name(project: &Project) -> String {
    let directory = project.path().file_name().unwrap_or_default().to_string_lossy();
    format!("watch{}", directory.to_lowercase().replace(['.', '_'], ""))
}

/// Waits until something is so; what was seen last is told where it never is.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match is_so() {
            Ok(()) => return,
            Err(seen) if Instant::now() > deadline => panic!("never {what}; last:\n{seen}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
