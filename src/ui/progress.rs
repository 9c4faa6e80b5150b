//! Progress of what a command does: a live picture on a terminal, lines elsewhere, JSON for programs, or nothing.
//!
//! The words are docker's, as scripts wait for them: ` Container p-web-1  Created`.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::stream;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Terminal,
    Plain,
    Json,
    Quiet,
}

/// How far an operation has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Working,
    Done,
    Warning,
    Error,
}

/// News about one thing.
#[derive(Debug, Clone)]
pub struct Event {
    /// What the news is about: `Container p-web-1`, or a service's name.
    pub id: String,
    /// The thing that this one is part of, as a layer is of an image.
    pub parent: Option<String>,
    pub status: Status,
    /// What happens, for things that are known by their name alone: `Pulling`.
    pub text: String,
    /// What happens, or more about it: `Creating`, an error's text.
    pub details: String,
    pub current: i64,
    pub total: i64,
}

impl Event {
    /// Returns news that stand alone and count nothing.
    pub fn new(id: impl Into<String>, status: Status, text: impl Into<String>, details: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            parent: None,
            status,
            text: text.into(),
            details: details.into(),
            current: 0,
            total: 0,
        }
    }
}

/// Where progress goes and how.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub mode: Mode,
    pub dry_run: bool,
    pub colours: bool,
    /// Standard output instead of standard error.
    pub to_stdout: bool,
}

/// Shows progress. Cheap to clone; all clones show in the same place.
#[derive(Clone)]
pub struct Progress {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    picture: Mutex<Picture>,
    /// Wakes the thread that keeps the picture moving.
    wake: Condvar,
}

/// What the terminal shows.
#[derive(Default)]
struct Picture {
    title: String,
    lines: Vec<Line>,
    by_id: HashMap<String, usize>,
    /// Lines drawn last time, which the next drawing replaces.
    drawn: usize,
    frame: usize,
    ticker: Option<JoinHandle<()>>,
    running: bool,
    /// Messages to show once the picture is complete.
    tail: Vec<String>,
}

struct Line {
    event: Event,
    started: Instant,
    ended: Option<Instant>,
}

const DRY_RUN: &str = " DRY-RUN MODE - ";
const SPINNER: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
/// Terminals with fewer columns show names alone.
const NARROW: usize = 40;
const TICK: Duration = Duration::from_millis(100);

impl Progress {
    /// Returns progress that shows itself as `settings` say.
    pub fn new(settings: Settings) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings,
                picture: Mutex::default(),
                wake: Condvar::new(),
            }),
        }
    }

    /// Returns progress that shows nothing.
    pub fn quiet() -> Self {
        Self::new(Settings {
            mode: Mode::Quiet,
            dry_run: false,
            colours: false,
            to_stdout: false,
        })
    }

    /// Returns how it is shown.
    pub fn mode(&self) -> Mode {
        self.inner.settings.mode
    }

    /// Begins a picture with the title that stands above it, such as `Running` or `Pulling`.
    pub fn begin(&self, title: &str) {
        if self.inner.settings.mode != Mode::Terminal {
            return;
        }
        self.end();
        let mut picture = self.inner.lock();
        *picture = Picture {
            title: title.to_owned(),
            running: true,
            ..Picture::default()
        };
        let inner = Arc::clone(&self.inner);
        picture.ticker = std::thread::Builder::new()
            .name("progress".to_owned())
            .spawn(move || inner.keep_moving())
            .ok();
    }

    /// Tells news.
    pub fn event(&self, id: impl Into<String>, status: Status, text: impl Into<String>, details: impl Into<String>) {
        self.send(Event::new(id, status, text, details));
    }

    /// Tells news with all that is known.
    pub fn send(&self, event: Event) {
        let settings = &self.inner.settings;
        match settings.mode {
            Mode::Quiet => {}
            Mode::Plain => {
                let prefix = if settings.dry_run { DRY_RUN } else { "" };
                self.inner
                    .write(&format!("{prefix} {} {} {}\n", event.id, event.text, event.details));
            }
            Mode::Json => self.inner.write(&format!("{}\n", json(&event, settings.dry_run))),
            Mode::Terminal => {
                let mut picture = self.inner.lock();
                picture.take(event);
                if !picture.running {
                    // Nobody began a picture, so there is none that could be replaced.
                    self.inner.draw(&mut picture);
                    picture.drawn = 0;
                }
            }
        }
    }

    /// Says something that is not news of one thing; on a terminal once the picture is complete.
    pub fn message(&self, message: &str) {
        let settings = &self.inner.settings;
        let prefix = if settings.dry_run { DRY_RUN } else { "" };
        match settings.mode {
            Mode::Quiet => {}
            Mode::Plain => self.inner.write(&format!("{prefix}{message}\n")),
            Mode::Json => {
                let mut line = serde_json::Map::new();
                if settings.dry_run {
                    line.insert("dry-run".to_owned(), true.into());
                }
                line.insert("tail".to_owned(), true.into());
                line.insert("text".to_owned(), message.into());
                self.inner.write(&format!("{}\n", serde_json::Value::Object(line)));
            }
            Mode::Terminal => {
                let mut picture = self.inner.lock();
                if picture.running {
                    picture.tail.push(format!("{prefix}{message}"));
                } else {
                    self.inner.write(&format!("{prefix}{message}\n"));
                }
            }
        }
    }

    /// Ends the picture: what was drawn last stays.
    pub fn end(&self) {
        if self.inner.settings.mode != Mode::Terminal {
            return;
        }
        let ticker = {
            let mut picture = self.inner.lock();
            if !picture.running {
                return;
            }
            picture.running = false;
            self.inner.draw(&mut picture);
            for message in std::mem::take(&mut picture.tail) {
                self.inner.write(&format!("{message}\n"));
            }
            picture.ticker.take()
        };
        self.inner.wake.notify_all();
        if let Some(ticker) = ticker {
            let _ = ticker.join();
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Picture> {
        // A picture is whole after every step, so one that a panic left behind is as good as any.
        self.picture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, text: &str) {
        // Progress that nobody reads is no reason to stop working.
        if self.settings.to_stdout {
            let _ = stream::out(text);
        } else {
            let mut stderr = std::io::stderr().lock();
            let _ = stderr.write_all(text.as_bytes());
            let _ = stderr.flush();
        }
    }

    fn keep_moving(&self) {
        let mut picture = self.lock();
        while picture.running {
            picture = self
                .wake
                .wait_timeout(picture, TICK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            if picture.running {
                picture.frame += 1;
                self.draw(&mut picture);
            }
        }
    }

    fn draw(&self, picture: &mut Picture) {
        let (width, height) = terminal_size(self.settings.to_stdout);
        let frame = picture.render(width, height, self.settings);
        if frame.is_empty() && picture.drawn == 0 {
            return;
        }
        let mut text = String::from("\u{1b}[?25l");
        if picture.drawn > 0 {
            text.push_str(&format!("\u{1b}[{}A", picture.drawn));
        }
        for line in &frame {
            text.push_str(&format!("\r{line}\u{1b}[K\n"));
        }
        // Lines of a longer picture before this one.
        text.push_str("\u{1b}[J\u{1b}[?25h");
        picture.drawn = frame.len();
        self.write(&text);
    }
}

impl Picture {
    fn take(&mut self, event: Event) {
        let now = Instant::now();
        let ended = (event.status != Status::Working).then_some(now);
        match self.by_id.get(&event.id) {
            Some(&at) => {
                let line = &mut self.lines[at];
                // Something that starts again (created, then starting) goes on counting its time.
                line.ended = ended;
                line.event = event;
            }
            None => {
                self.by_id.insert(event.id.clone(), self.lines.len());
                self.lines.push(Line {
                    event,
                    started: now,
                    ended,
                });
            }
        }
    }

    fn render(&self, width: usize, height: usize, settings: Settings) -> Vec<String> {
        if self.lines.is_empty() {
            return Vec::new();
        }
        let tops: Vec<&Line> = self.lines.iter().filter(|line| line.event.parent.is_none()).collect();
        let done = tops.iter().filter(|line| line.ended.is_some()).count();
        let all_done = done == tops.len();
        let paint = |code: &str, text: &str| {
            if settings.colours && !text.is_empty() {
                format!("\u{1b}[{code}m{text}\u{1b}[0m")
            } else {
                text.to_owned()
            }
        };
        let count = format!("[+] {} {done}/{}", self.title, tops.len());
        let mut frame = vec![if all_done { paint("34", &count) } else { count }];
        let texts: Vec<String> = tops.iter().map(|line| self.text(line)).collect();
        let column = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
        // The title and the cursor's line stay visible; running operations matter more than finished ones.
        let room = height.saturating_sub(2).max(1);
        let hidden = tops.len().saturating_sub(room);
        let mut skip = hidden;
        for (line, text) in tops.iter().zip(&texts) {
            if skip > 0 && line.ended.is_some() {
                skip -= 1;
                continue;
            }
            if frame.len() > room {
                break;
            }
            let (sign, colour) = match line.event.status {
                Status::Working => (SPINNER[self.frame % SPINNER.len()], "33"),
                Status::Done => ("✔", "32"),
                Status::Warning => ("!", "33"),
                Status::Error => ("✘", "31"),
            };
            let elapsed = line.ended.unwrap_or_else(Instant::now) - line.started;
            let timer = format!("{:.1}s ", elapsed.as_secs_f64());
            let prefix = if settings.dry_run { DRY_RUN } else { "" };
            let head = format!(" {sign}{prefix} ");
            if width < NARROW {
                let name = shortened(text, width.saturating_sub(head.chars().count()));
                frame.push(format!(" {}{} {name}", paint(colour, sign), paint("36", prefix)));
                continue;
            }
            let name = shortened(text, width.saturating_sub(head.chars().count() + timer.len() + 2));
            let padding = column.min(width / 2).saturating_sub(name.chars().count()) + 1;
            let used = head.chars().count() + name.chars().count() + padding + timer.len() + 1;
            let details = shortened(&first_line(&line.event.details), width.saturating_sub(used));
            let gap = width.saturating_sub(used + details.chars().count());
            frame.push(format!(
                " {}{} {name}{:padding$}{} {:gap$}{}",
                paint(colour, sign),
                paint("36", prefix),
                "",
                paint(colour, &details),
                "",
                paint("34", &timer),
            ));
        }
        frame
    }

    /// Returns the line's name and text, with how far its parts have come.
    fn text(&self, line: &Line) -> String {
        // docker compose's blank stands there even where nothing follows.
        let mut text = format!("{} {}", line.event.id, line.event.text);
        if line.ended.is_some() {
            return text;
        }
        let parts: Vec<&Event> = self
            .lines
            .iter()
            .map(|part| &part.event)
            .filter(|part| part.parent.as_deref() == Some(&line.event.id))
            .collect();
        if parts.is_empty() {
            return text;
        }
        let bar: String = parts.iter().map(|part| completion(part)).collect();
        text.push_str(&format!(" [{bar}]"));
        let total: i64 = parts.iter().map(|part| part.total).sum();
        if total > 0 {
            let current: i64 = parts.iter().map(|part| part.current.min(part.total)).sum();
            text.push_str(&format!(
                " {:>7} / {:<7}",
                super::human::size(current as f64),
                super::human::size(total as f64)
            ));
        }
        text
    }
}

/// Returns a character that is as full as the part is complete.
fn completion(part: &Event) -> char {
    const STEPS: [char; 9] = [' ', '⡀', '⣀', '⣄', '⣤', '⣦', '⣶', '⣷', '⣿'];
    match part.status {
        Status::Done => STEPS[8],
        _ if part.total > 0 => STEPS[usize::try_from(part.current * 8 / part.total).unwrap_or(0).min(8)],
        _ => STEPS[0],
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// Returns the text, cut with dots where there is no room for it.
fn shortened(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.to_owned();
    }
    match room {
        0..=3 => text.chars().take(room).collect(),
        _ => text.chars().take(room - 3).chain("...".chars()).collect(),
    }
}

fn terminal_size(to_stdout: bool) -> (usize, usize) {
    let size = if to_stdout {
        rustix::termios::tcgetwinsize(std::io::stdout())
    } else {
        rustix::termios::tcgetwinsize(std::io::stderr())
    };
    match size {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (usize::from(size.ws_col), usize::from(size.ws_row)),
        _ => (80, 24),
    }
}

/// Returns the news as docker's JSON line, what is empty left out.
fn json(event: &Event, dry_run: bool) -> serde_json::Value {
    let mut line = serde_json::Map::new();
    if dry_run {
        line.insert("dry-run".to_owned(), true.into());
    }
    for (key, text) in [
        ("id", Some(&event.id)),
        ("parent_id", event.parent.as_ref()),
        ("text", Some(&event.text)),
        ("status", Some(&event.details)),
    ] {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            line.insert(key.to_owned(), text.as_str().into());
        }
    }
    let percent = if event.total > 0 {
        event.current * 100 / event.total
    } else {
        0
    };
    for (key, number) in [("current", event.current), ("total", event.total), ("percent", percent)] {
        if number != 0 {
            line.insert(key.to_owned(), number.into());
        }
    }
    serde_json::Value::Object(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            mode: Mode::Terminal,
            dry_run: false,
            colours: false,
            to_stdout: false,
        }
    }

    #[test]
    fn the_picture_lines_up_and_fits_the_terminal() {
        let mut picture = Picture {
            title: "Running".to_owned(),
            ..Picture::default()
        };
        picture.take(Event::new("Network p_default", Status::Done, "", "Created"));
        picture.take(Event::new("Container p-web-1", Status::Working, "", "Creating"));
        picture.take(Event::new("Container p-web-1", Status::Done, "", "Created"));
        let frame = picture.render(60, 24, settings());
        assert_eq!(frame[0], "[+] Running 2/2");
        assert!(frame[1].starts_with(" ✔ Network p_default  Created "), "{frame:?}");
        assert!(frame[2].starts_with(" ✔ Container p-web-1  Created "), "{frame:?}");
        assert!(frame[1].ends_with("s "));
        for width in 1..80 {
            for line in picture.render(width, 24, settings()).iter().skip(1) {
                assert!(line.chars().count() <= width.max(3), "{width}: {line:?}");
            }
        }
    }

    #[test]
    fn a_low_terminal_shows_what_still_runs() {
        let mut picture = Picture::default();
        for number in 0..20 {
            let status = if number < 15 { Status::Done } else { Status::Working };
            picture.take(Event::new(format!("Container {number}"), status, "", "x"));
        }
        let frame = picture.render(60, 8, settings());
        assert_eq!(frame.len(), 7);
        assert!(frame[6].contains("Container 19"), "{frame:?}");
    }

    #[test]
    fn json_leaves_out_what_is_empty() {
        let event = Event::new("Container p-web-1", Status::Done, "", "Created");
        assert_eq!(
            json(&event, false).to_string(),
            r#"{"id":"Container p-web-1","status":"Created"}"#
        );
    }
}
