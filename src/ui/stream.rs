//! The two streams. Results go to standard output, everything said about them to standard error.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub(crate) use crate::yaml::go_quote as quoted;

/// Writes a result to standard output.
pub fn out(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_ref())?;
    stdout.flush()
}

/// Writes a line to standard error. Where nobody listens, nothing is lost.
pub fn err(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Returns whether a person sees standard output.
pub fn out_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Returns whether a person sees standard error.
pub fn err_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Returns the width of the terminal behind standard output or standard error.
pub fn width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout())
        .or_else(|_| rustix::termios::tcgetwinsize(io::stderr()))
        .ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

/// Whether warnings may be coloured; `--ansi` and `NO_COLOR` decide.
static COLOURS: AtomicBool = AtomicBool::new(true);

/// Settles whether warnings may be coloured.
pub fn set_colours(on: bool) {
    COLOURS.store(on, Ordering::Relaxed);
}

/// Writes a warning to standard error in the form that docker's tools use: a line for programs, a short one on a
/// terminal.
pub fn warn(message: impl Display) {
    write_warning(&message.to_string(), None);
}

/// Writes a remark to standard error in the form that docker's tools use.
pub fn info(message: impl Display) {
    let message = message.to_string();
    if err_is_terminal() {
        err(format_args!("INFO[0000] {message}"));
    } else {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        err(format_args!("time=\"{now}\" level=info msg={}", quoted(&message)));
    }
}

/// Writes a warning about something in a file, and where that stands.
pub fn warn_at(message: &str, place: impl Display) {
    write_warning(message, Some(&place.to_string()));
}

fn write_warning(message: &str, place: Option<&str>) {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    if err_is_terminal() {
        let (colour, reset) = if COLOURS.load(Ordering::Relaxed) {
            ("\u{1b}[33m", "\u{1b}[0m")
        } else {
            ("", "")
        };
        err(format_args!(
            "{colour}WARN{reset}[{:04}] {}{message} ",
            START.elapsed().as_secs(),
            place.map_or_else(String::new, |place| format!("{place}: ")),
        ));
    } else {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        // One more field, as docker's logger writes them: who looks for the message finds it unchanged.
        let place = place.map_or_else(String::new, |place| format!(" place={}", quoted(place)));
        err(format_args!(
            "time=\"{now}\" level=warning msg={}{place}",
            quoted(message)
        ));
    }
}
