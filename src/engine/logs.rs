//! Reads what a container wrote: json-file logs, rotated or not, from the end or a moment on, and as they grow.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::Stream;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};

use super::container::Progress;

/// Which part of a log is asked for.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    pub timestamps: bool,
    /// Docker's extra attributes (`details=1`): none are recorded, so only the blank before the line shows.
    pub details: bool,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    /// `None`: from the beginning.
    pub tail: Option<usize>,
    /// A terminal's output has no frames.
    pub tty: bool,
}

/// One line of a json-file log.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    log: String,
    #[serde(default)]
    stream: String,
    time: String,
}

/// How much is read and sent in one go.
const CHUNK: usize = 32 * 1024;

/// Returns the log as the API sends it: frames of an eight-byte header and a line, or lines alone for a terminal.
pub fn stream(
    path: PathBuf,
    options: LogOptions,
    progress: watch::Receiver<Progress>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let (sender, mut receiver) = mpsc::channel(4);
    let task = tokio::spawn(async move {
        if let Err(cause) = send(&path, &options, progress, &sender).await {
            let _ = sender.send(Err(cause)).await;
        }
    });
    async_stream::stream! {
        // The reader ends with whoever reads it.
        let _reader = AbortOnDrop(task);
        while let Some(chunk) = receiver.recv().await {
            yield chunk;
        }
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

type Sender = mpsc::Sender<io::Result<Bytes>>;

async fn send(
    path: &Path,
    options: &LogOptions,
    mut progress: watch::Receiver<Progress>,
    sender: &Sender,
) -> io::Result<()> {
    // Watching begins before reading, so that what is written in between is not overlooked.
    let mut changes = if options.follow { Some(Changes::of(path)?) } else { None };
    let mut reader = match open_from(path, options)? {
        Some(reader) => reader,
        None if options.follow => Reader::at(path, None, 0),
        None => return Ok(()),
    };
    loop {
        // Asked before reading: what was written before the end is then read for certain.
        let ended = {
            let progress = progress.borrow_and_update();
            !progress.running
        };
        loop {
            let mut chunk = BytesMut::new();
            let finished = reader.fill(&mut chunk, options)?;
            if !chunk.is_empty() && sender.send(Ok(chunk.freeze())).await.is_err() {
                return Ok(());
            }
            match finished {
                Filled::More => {}
                Filled::Everything => break,
                Filled::PastUntil => return Ok(()),
            }
        }
        let Some(changes) = &mut changes else { return Ok(()) };
        if ended || progress.borrow().removed {
            return Ok(());
        }
        tokio::select! {
            changed = changes.wait() => changed?,
            gone = progress.changed() => if gone.is_err() { return Ok(()) },
            () = sender.closed() => return Ok(()),
        }
    }
}

/// Tells when the log's directory changes: lines are added, the file is rotated.
struct Changes {
    inotify: tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>,
}

impl Changes {
    fn of(path: &Path) -> io::Result<Self> {
        use rustix::fs::inotify;
        let watcher = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        // The record changes in the same directory, but rarely; a woken reader finds nothing new and waits again.
        inotify::add_watch(
            &watcher,
            directory,
            inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO,
        )?;
        Ok(Self {
            inotify: crate::os::socket::watch(watcher)?,
        })
    }

    async fn wait(&mut self) -> io::Result<()> {
        let mut ready = self.inotify.readable().await?;
        let mut buffer = [0u8; 2048];
        loop {
            match rustix::io::read(self.inotify.get_ref(), &mut buffer) {
                Ok(_) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}

/// Where reading is: a file of the log and, when that is a rotated one, those that follow it.
struct Reader {
    path: PathBuf,
    file: Option<BufReader<File>>,
    inode: u64,
    /// Rotated files still to be read, the next one last.
    later: Vec<File>,
    partial: Vec<u8>,
}

enum Filled {
    More,
    Everything,
    PastUntil,
}

impl Reader {
    fn at(path: &Path, file: Option<File>, inode: u64) -> Self {
        Self {
            path: path.to_path_buf(),
            file: file.map(|file| BufReader::with_capacity(CHUNK, file)),
            inode,
            later: Vec::new(),
            partial: Vec::new(),
        }
    }

    fn fill(&mut self, chunk: &mut BytesMut, options: &LogOptions) -> io::Result<Filled> {
        while chunk.len() < CHUNK {
            let Some(file) = &mut self.file else {
                if self.next_file()? {
                    continue;
                }
                return Ok(Filled::Everything);
            };
            let read = file.read_until(b'\n', &mut self.partial)?;
            if read == 0 || self.partial.last() != Some(&b'\n') {
                // A torn line stays in `partial` until its end is written, or its file turns out to be finished.
                if self.next_file()? {
                    self.partial.clear();
                    continue;
                }
                return Ok(Filled::Everything);
            }
            let line = serde_json::from_slice::<Line>(&self.partial);
            self.partial.clear();
            // A line that cannot be understood was torn by a crash; the ones after it are whole again.
            let Ok(line) = line else { continue };
            if options.until.is_some() || options.since.is_some() {
                let Ok(time) = line.time.parse::<Timestamp>() else {
                    continue;
                };
                if options.until.is_some_and(|until| time > until) {
                    return Ok(Filled::PastUntil);
                }
                if options.since.is_some_and(|since| time < since) {
                    continue;
                }
            }
            put(chunk, &line, options);
        }
        Ok(Filled::More)
    }

    /// Goes on to the next rotated file, or to the present one if it is another than the one just read.
    fn next_file(&mut self) -> io::Result<bool> {
        if let Some(file) = self.later.pop() {
            self.inode = file.metadata()?.ino();
            self.file = Some(BufReader::with_capacity(CHUNK, file));
            return Ok(true);
        }
        match File::open(&self.path) {
            Ok(file) => {
                let inode = file.metadata()?.ino();
                if inode == self.inode && self.file.is_some() {
                    return Ok(false);
                }
                self.inode = inode;
                self.file = Some(BufReader::with_capacity(CHUNK, file));
                Ok(true)
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(cause),
        }
    }
}

fn put(chunk: &mut BytesMut, line: &Line, options: &LogOptions) {
    let number = match line.stream.as_str() {
        "stderr" if options.stderr => 2,
        "stdout" if options.stdout => 1,
        _ => return,
    };
    let time = if options.timestamps {
        padded(&line.time)
    } else {
        String::new()
    };
    let details = if options.details { " " } else { "" };
    let length = time.len() + details.len() + line.log.len();
    chunk.reserve(length + 8);
    if !options.tty {
        chunk.put_slice(&[number, 0, 0, 0]);
        chunk.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    }
    chunk.put_slice(time.as_bytes());
    chunk.put_slice(details.as_bytes());
    chunk.put_slice(line.log.as_bytes());
}

/// Writes a time with all nine digits, so that lines stay aligned.
fn padded(time: &str) -> String {
    let body = time.strip_suffix('Z').unwrap_or(time);
    let (seconds, fraction) = body.split_once('.').unwrap_or((body, ""));
    format!("{seconds}.{fraction:0<9}Z ")
}

/// Opens the log where the request wants to begin; `None` if there is no log at all.
fn open_from(path: &Path, options: &LogOptions) -> io::Result<Option<Reader>> {
    // Oldest last: `log.2`, `log.1`, `log`.
    let mut files: Vec<File> = Vec::new();
    if let Ok(file) = File::open(path) {
        files.push(file);
    }
    for number in 1.. {
        let rotated = PathBuf::from(format!("{}.{number}", path.display()));
        match File::open(&rotated) {
            Ok(file) => files.push(file),
            Err(_) => break,
        }
    }
    if files.is_empty() {
        return Ok(None);
    }
    let mut wanted = options.tail.unwrap_or(usize::MAX);
    let mut chosen = Vec::new();
    for mut file in files {
        if options.tail.is_none() {
            chosen.push(file);
            continue;
        }
        let found = seek_to_last(&mut file, wanted, options)?;
        wanted -= found.min(wanted);
        chosen.push(file);
        if wanted == 0 {
            break;
        }
    }
    // `chosen` runs from the newest to the oldest; reading begins with the oldest.
    let first = chosen.pop().expect("there is at least one file");
    let inode = first.metadata()?.ino();
    let mut reader = Reader::at(path, Some(first), inode);
    reader.later = chosen;
    Ok(Some(reader))
}

/// Moves to the beginning of the last `wanted` lines and returns how many there are.
fn seek_to_last(file: &mut File, wanted: usize, options: &LogOptions) -> io::Result<usize> {
    let mut end = file.seek(SeekFrom::End(0))?;
    if wanted == 0 {
        return Ok(0);
    }
    let both = options.stdout && options.stderr;
    let mut lines = 0;
    let mut start = end;
    let mut tail: Vec<u8> = Vec::new();
    while end > 0 {
        let size = end.min(CHUNK as u64);
        let begin = end - size;
        let mut block = vec![0; usize::try_from(size).unwrap_or(CHUNK)];
        file.seek(SeekFrom::Start(begin))?;
        file.read_exact(&mut block)?;
        block.extend_from_slice(&tail);
        // Every newline but the last one of all is followed by a line.
        let mut line_end = block.len();
        for position in (0..block.len()).rev() {
            let boundary = block[position] == b'\n' && position + 1 < line_end;
            if boundary {
                if both || is_wanted(&block[position + 1..line_end], options) {
                    lines += 1;
                }
                start = begin + position as u64 + 1;
                line_end = position + 1;
                if lines == wanted {
                    file.seek(SeekFrom::Start(start))?;
                    return Ok(lines);
                }
            }
        }
        tail = block[..line_end].to_vec();
        end = begin;
    }
    if !tail.is_empty() {
        if both || is_wanted(&tail, options) {
            lines += 1;
        }
        start = 0;
    }
    file.seek(SeekFrom::Start(start))?;
    Ok(lines)
}

fn is_wanted(line: &[u8], options: &LogOptions) -> bool {
    serde_json::from_slice::<Line>(line).is_ok_and(|line| match line.stream.as_str() {
        "stderr" => options.stderr,
        _ => options.stdout,
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use futures_util::StreamExt;

    use super::*;

    fn log(directory: &Path, name: &str, range: std::ops::Range<u32>) -> PathBuf {
        let mut text = String::new();
        for number in range {
            let stream = if number % 2 == 0 { "stdout" } else { "stderr" };
            let _ = writeln!(
                text,
                r#"{{"log":"line {number}\n","stream":"{stream}","time":"2026-01-01T00:00:{number:02}.5Z"}}"#
            );
        }
        let path = directory.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn both() -> LogOptions {
        LogOptions {
            stdout: true,
            stderr: true,
            tty: true,
            ..LogOptions::default()
        }
    }

    async fn read(path: &Path, options: LogOptions) -> String {
        let (_sender, progress) = watch::channel(Progress::default());
        let chunks: Vec<_> = stream(path.to_path_buf(), options, progress).collect().await;
        let bytes: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.unwrap()).collect();
        String::from_utf8(bytes).unwrap()
    }

    #[tokio::test]
    async fn the_tail_reaches_back_into_rotated_files() {
        let directory = tempfile::tempdir().unwrap();
        log(directory.path(), "log.2", 0..2);
        log(directory.path(), "log.1", 2..4);
        let path = log(directory.path(), "log", 4..6);
        assert_eq!(read(&path, both()).await.lines().count(), 6);
        let tail = LogOptions {
            tail: Some(3),
            ..both()
        };
        assert_eq!(read(&path, tail).await, "line 3\nline 4\nline 5\n");
        let tail = LogOptions {
            tail: Some(0),
            ..both()
        };
        assert_eq!(read(&path, tail).await, "");
        let tail = LogOptions {
            tail: Some(99),
            ..both()
        };
        assert!(read(&path, tail).await.starts_with("line 0\n"));
    }

    #[tokio::test]
    async fn the_tail_counts_only_the_streams_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = log(directory.path(), "log", 0..10);
        let options = LogOptions {
            stderr: false,
            tail: Some(2),
            ..both()
        };
        assert_eq!(read(&path, options).await, "line 6\nline 8\n");
    }

    #[tokio::test]
    async fn a_part_in_time_is_cut_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = log(directory.path(), "log", 0..10);
        let options = LogOptions {
            since: "2026-01-01T00:00:03Z".parse().ok(),
            until: "2026-01-01T00:00:05Z".parse().ok(),
            timestamps: true,
            ..both()
        };
        assert_eq!(
            read(&path, options).await,
            "2026-01-01T00:00:03.500000000Z line 3\n2026-01-01T00:00:04.500000000Z line 4\n"
        );
    }

    #[tokio::test]
    async fn without_a_terminal_each_line_has_a_frame() {
        let directory = tempfile::tempdir().unwrap();
        let path = log(directory.path(), "log", 1..2);
        let options = LogOptions { tty: false, ..both() };
        assert_eq!(read(&path, options).await, "\u{2}\0\0\0\0\0\0\u{7}line 1\n");
    }

    #[tokio::test]
    async fn following_sees_new_lines_rotation_and_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = log(directory.path(), "log", 0..1);
        let running = Progress {
            running: true,
            ..Progress::default()
        };
        let (sender, progress) = watch::channel(running);
        let options = LogOptions { follow: true, ..both() };
        let mut stream = Box::pin(stream(path.clone(), options, progress));
        assert_eq!(stream.next().await.unwrap().unwrap(), "line 0\n");
        let more = log(directory.path(), "more", 1..2);
        let text = std::fs::read(&more).unwrap();
        let mut file = File::options().append(true).open(&path).unwrap();
        io::Write::write_all(&mut file, &text).unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "line 1\n");
        std::fs::rename(&path, directory.path().join("log.1")).unwrap();
        log(directory.path(), "log", 2..3);
        assert_eq!(stream.next().await.unwrap().unwrap(), "line 2\n");
        sender.send_modify(|progress| progress.running = false);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_torn_line_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = log(directory.path(), "log", 0..1);
        let mut file = File::options().append(true).open(&path).unwrap();
        io::Write::write_all(&mut file, b"{\"log\":\"to").unwrap();
        assert_eq!(read(&path, both()).await, "line 0\n");
    }
}
