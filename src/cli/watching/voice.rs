//! Who hears what a watch does.

use std::fmt::Display;
use std::sync::Arc;

use super::journal::Journal;
use crate::plan::execute::HookOutput;
use crate::plan::observed::Container;
use crate::ui::logs::{Logs, Target};
use crate::ui::stream;

/// Who hears what the watch does.
#[derive(Clone)]
pub enum Voice {
    /// Standard output, which nobody else uses.
    Plain,
    /// The lines of containers are shown there too.
    Logs(Arc<Logs>),
    /// Nobody listens now; whoever asks later is told.
    Journal(Arc<Journal>),
}

impl Voice {
    /// Says what is done.
    pub fn say(&self, text: &str) {
        // A watch whose words nobody hears still watches.
        let _ = match self {
            Self::Plain => stream::out(format!("{text}\n")),
            Self::Logs(logs) => logs.aside(text),
            Self::Journal(journal) => {
                journal.say(text);
                Ok(())
            }
        };
    }

    /// Says what went wrong, or is not as the user may think.
    pub fn warn(&self, text: impl Display) {
        match self {
            Self::Plain | Self::Logs(_) => stream::warn(text),
            Self::Journal(journal) => journal.warn(&text.to_string()),
        }
    }

    /// Returns who hears what hooks print.
    pub fn of_hooks(&self, project: &str) -> HookOutput {
        let (voice, project) = (self.clone(), project.to_owned());
        Arc::new(move |container: &Container, line: &str| {
            // What cannot be shown is no reason to stop the hook.
            let _ = match &voice {
                Self::Plain | Self::Journal(_) => stream::out(format!("{line}\n")),
                Self::Logs(logs) => {
                    let source = logs.source(&format!("{} ->", container.log_name(&project)));
                    logs.line(source, Target::Out, line.as_bytes())
                        .and_then(|()| logs.flush())
                }
            };
        })
    }
}
