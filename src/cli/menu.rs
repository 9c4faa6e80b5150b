//! The keys an attached `up` listens to, and the line that tells of them.

use tokio::io::{AsyncReadExt, Stdin};

use super::{CommandError, Context};
use crate::ui::logs::Logs;
use crate::ui::stream;
use crate::ui::terminal::{self, RawTerminal};

/// A terminal narrower than this has no room for the line.
const NARROWEST: usize = 40;

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Leave everything running, and end.
    Detach,
    /// Begin or end to watch files.
    Watch,
}

/// The menu while it is shown.
pub struct Menu {
    /// Gives the terminal back when the menu goes.
    _terminal: RawTerminal,
    keys: Stdin,
}

/// Returns whether flag, environment and terminal allow for a menu.
pub fn is_wanted(flag: Option<bool>, context: &Context) -> bool {
    let asked = match (flag, context.variable("COMPOSE_MENU")) {
        (Some(flag), _) => flag,
        (None, Some(_)) => context.flag_variable("COMPOSE_MENU"),
        (None, None) => true,
    };
    let is_terminal = stream::out_is_terminal() && terminal::in_is_terminal();
    asked && is_terminal && context.ansi.allows(true) && stream::width().is_none_or(|width| width >= NARROWEST)
}

impl Menu {
    /// Shows the menu below the lines of `logs`, if the terminal is ours to read from.
    pub fn show(logs: &Logs) -> Result<Option<Self>, CommandError> {
        let Ok(Some(terminal)) = RawTerminal::keys() else {
            return Ok(None);
        };
        logs.set_footer("\u{1b}[1mw\u{1b}[0m Watch   \u{1b}[1md\u{1b}[0m Detach   \u{1b}[1mCtrl-C\u{1b}[0m Stop")?;
        Ok(Some(Self {
            _terminal: terminal,
            keys: tokio::io::stdin(),
        }))
    }

    /// Waits for a key that means something. Never returns once nothing can be typed any more.
    pub async fn wish(&mut self) -> Wish {
        let mut typed = [0; 64];
        loop {
            match self.keys.read(&mut typed).await {
                Ok(count @ 1..) if typed[..count].contains(&b'd') => return Wish::Detach,
                Ok(count @ 1..) if typed[..count].contains(&b'w') => return Wish::Watch,
                Ok(1..) => {}
                _ => std::future::pending().await,
            }
        }
    }
}
