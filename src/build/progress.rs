//! What a build tells while it works, and how BuildKit prints that on plain output.

use std::collections::HashMap;
use std::sync::Arc;

/// One thing that happened. Steps are numbered in the order they were begun.
#[derive(Debug, Clone, PartialEq)]
pub enum BuildEvent {
    Started {
        step: usize,
        name: String,
    },
    /// What the step's command printed.
    Output {
        step: usize,
        stderr: bool,
        text: String,
    },
    Cached {
        step: usize,
    },
    Done {
        step: usize,
        seconds: f64,
    },
    Failed {
        step: usize,
        message: String,
    },
    /// Something that has no effect, or deserves attention.
    Note(String),
}

/// Receives events.
pub type BuildSink = Arc<dyn Fn(BuildEvent) + Send + Sync>;

/// Writes events as BuildKit's `--progress=plain` does.
#[derive(Debug, Default)]
pub struct Plain {
    /// Which step wrote last: another one's lines are set off.
    last: Option<usize>,
    names: HashMap<usize, String>,
}

impl Plain {
    /// Returns the lines that an event prints, each with its newline.
    pub fn lines(&mut self, event: &BuildEvent) -> String {
        let mut text = String::new();
        let (step, line) = match event {
            BuildEvent::Started { step, name } => {
                self.names.insert(*step, name.clone());
                (*step, name.clone())
            }
            BuildEvent::Output { step, text: output, .. } => {
                self.begin(&mut text, *step);
                for line in output.lines() {
                    text.push_str(&format!("#{step} {line}\n"));
                }
                return text;
            }
            BuildEvent::Cached { step } => (*step, "CACHED".to_owned()),
            BuildEvent::Done { step, seconds } => (*step, format!("DONE {seconds:.1}s")),
            BuildEvent::Failed { step, message } => (*step, format!("ERROR: {message}")),
            BuildEvent::Note(note) => return format!("{note}\n"),
        };
        self.begin(&mut text, step);
        text.push_str(&format!("#{step} {line}\n"));
        text
    }

    fn begin(&mut self, text: &mut String, step: usize) {
        if self.last.is_some_and(|last| last != step) {
            text.push('\n');
            if let Some(name) = self.names.get(&step).filter(|_| self.seen(step)) {
                text.push_str(&format!("#{step} {name}\n"));
            }
        }
        self.last = Some(step);
    }

    /// Returns whether a step has written before, so that its name is due again.
    fn seen(&self, step: usize) -> bool {
        self.last.is_some_and(|last| last > step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_set_off_from_each_other() {
        let mut plain = Plain::default();
        let events = [
            BuildEvent::Started {
                step: 1,
                name: "[1/2] FROM scratch".to_owned(),
            },
            BuildEvent::Cached { step: 1 },
            BuildEvent::Started {
                step: 2,
                name: "[2/2] RUN x".to_owned(),
            },
            BuildEvent::Output {
                step: 2,
                stderr: false,
                text: "a\nb\n".to_owned(),
            },
            BuildEvent::Done { step: 2, seconds: 0.25 },
        ];
        let text: String = events.iter().map(|event| plain.lines(event)).collect();
        assert_eq!(
            text,
            "#1 [1/2] FROM scratch\n#1 CACHED\n\n#2 [2/2] RUN x\n#2 a\n#2 b\n#2 DONE 0.2s\n"
        );
    }
}
