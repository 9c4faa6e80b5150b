//! A thread that waits for changes and passes them on. It sleeps in the kernel; only where the kernel has no room for
//! our watches does it look by itself.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;

use super::Change;
use super::tree::{Prunes, Tree};

/// How often is looked where nothing is told; never more than a tenth of the time is spent on it.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the watcher has to say.
#[derive(Debug)]
pub enum News {
    Changes(Vec<Change>),
    /// Something is not as the user may think.
    Warning(String),
}

/// Watches paths until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    news: mpsc::UnboundedReceiver<News>,
    /// Closed to end the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Begins to watch. When this returns, no change goes unnoticed. Returns what is there, too.
    pub fn start(roots: Vec<PathBuf>, prunes: Prunes) -> std::io::Result<(Self, Vec<PathBuf>)> {
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let tree = Tree::open(roots, prunes);
        let paths = tree.paths().collect();
        let (sender, news) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("watcher".to_owned())
            .spawn(move || follow(tree, &sender, &stopped))?;
        let watcher = Self {
            news,
            stop: Some(stop),
            thread: Some(thread),
        };
        Ok((watcher, paths))
    }

    /// Waits for news; `None` if there will be none any more.
    pub async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }

    /// Returns the next of the news that have come already.
    pub fn next_of_old(&mut self) -> Option<News> {
        self.news.try_recv().ok()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // What it panicked of has been told.
            let _ = thread.join();
        }
    }
}

fn follow(mut tree: Tree, sender: &mpsc::UnboundedSender<News>, stopped: &OwnedFd) {
    let mut interval = LOOK_INTERVAL;
    loop {
        for warning in tree.take_warnings() {
            let _ = sender.send(News::Warning(warning));
        }
        let timeout = match tree.descriptor() {
            Some(_) => None,
            None => Timespec::try_from(interval).ok(),
        };
        let is_stopped = {
            let mut descriptors = vec![PollFd::new(stopped, PollFlags::IN)];
            if let Some(descriptor) = tree.descriptor() {
                descriptors.push(PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
            }
            // A signal that interrupts leads to an empty reading.
            let _ = poll(&mut descriptors, timeout.as_ref());
            !descriptors[0].revents().is_empty()
        };
        if is_stopped {
            return;
        }
        let changes = if tree.descriptor().is_some() {
            tree.read()
        } else {
            let begun = Instant::now();
            let changes = tree.compare();
            interval = LOOK_INTERVAL.max(begun.elapsed() * 10);
            changes
        };
        if !changes.is_empty() && sender.send(News::Changes(changes)).is_err() {
            return;
        }
    }
}
