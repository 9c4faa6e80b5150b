//! Variables as a check knows them, and those that a word asks for in vain.

use std::cell::RefCell;

use crate::build::expand::{ExpandError, Expander};

/// Names and values, in the order in which they were set last.
#[derive(Debug, Clone, Default)]
pub(super) struct Variables(Vec<(String, String)>);

/// A word with its variables filled in.
#[derive(Debug, Default)]
pub(super) struct Expanded {
    pub value: String,
    /// Asked for and there.
    pub matched: Vec<String>,
    /// Asked for in vain, each once.
    pub unmatched: Vec<String>,
}

impl Variables {
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.0.iter();
        all.find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.retain(|(known, _)| known != name);
        self.0.push((name.to_owned(), value.into()));
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Fills a word's variables in.
    pub fn expand(&self, text: &str, escape: char) -> Result<Expanded, ExpandError> {
        self.run(|expander| expander.word(text), escape)
    }

    /// Fills in those of a here-document, in which quotes are as good as any other character.
    pub fn expand_document(&self, text: &str, escape: char) -> Result<Expanded, ExpandError> {
        self.run(|expander| expander.text(text), escape)
    }

    fn run(
        &self,
        expand: impl FnOnce(&Expander<'_>) -> Result<String, ExpandError>,
        escape: char,
    ) -> Result<Expanded, ExpandError> {
        let asked = RefCell::new(Expanded::default());
        let lookup = |name: &str| {
            let found = self.get(name).map(str::to_owned);
            let mut asked = asked.borrow_mut();
            let list = match found {
                Some(_) => &mut asked.matched,
                None => &mut asked.unmatched,
            };
            if !list.iter().any(|known| known == name) {
                list.push(name.to_owned());
            }
            found
        };
        let value = expand(&Expander {
            escape,
            lookup: &lookup,
        })?;
        Ok(Expanded {
            value,
            ..asked.into_inner()
        })
    }
}

/// Returns ` (did you mean X?)` where a name is near enough to be meant; the first of the nearest counts.
// buildkit util/suggest: nearer than three changes, and no word that is there exactly.
pub(super) fn suggestion<'n>(word: &str, names: impl Iterator<Item = &'n str>, sign: &str) -> String {
    let mut nearest: Option<(usize, &str)> = None;
    for name in names {
        let distance = strsim::levenshtein(word, name);
        if distance == 0 {
            return String::new();
        }
        if distance < nearest.map_or(3, |(distance, _)| distance) {
            nearest = Some((distance, name));
        }
    }
    nearest.map_or_else(String::new, |(_, name)| format!(" (did you mean {sign}{name}?)"))
}
