//! The `filters` parameter of lists, events and prunes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::config::StringMap;
use super::{EngineError, Result};

/// What a list is to be narrowed to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Reads `{"label": ["a=b"]}` or the older `{"label": {"a=b": true}}`.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
            return Ok(Self::default());
        };
        let invalid = || EngineError::InvalidParameter(format!("invalid filter: {text}"));
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else {
            return Err(invalid());
        };
        let mut filters = BTreeMap::new();
        for (name, values) in fields {
            let values = match values {
                Value::Array(values) => values
                    .into_iter()
                    .map(|value| value.as_str().map(str::to_owned).ok_or_else(invalid))
                    .collect::<Result<Vec<_>>>()?,
                Value::Object(values) => values
                    .into_iter()
                    .filter(|(_, on)| on.as_bool().unwrap_or(true))
                    .map(|(value, _)| value)
                    .collect(),
                Value::Null => Vec::new(),
                _ => return Err(invalid()),
            };
            filters.insert(name, values);
        }
        Ok(Self(filters))
    }

    /// Returns whether a filter is given at all.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|values| !values.is_empty())
    }

    /// Returns the values of a filter.
    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// Returns whether one of a filter's values is wanted.
    pub fn any(&self, name: &str, matches: impl Fn(&str) -> bool) -> bool {
        self.all(name).iter().any(|value| matches(value))
    }

    /// Returns whether a filter is absent or names this very word.
    pub fn allows(&self, name: &str, word: &str) -> bool {
        !self.has(name) || self.any(name, |wanted| wanted == word)
    }

    /// Returns the truth of a filter such as `dangling`.
    pub fn truth(&self, name: &str) -> Result<Option<bool>> {
        let Some(word) = self.all(name).first() else {
            return Ok(None);
        };
        match word.to_lowercase().as_str() {
            "1" | "t" | "true" => Ok(Some(true)),
            "0" | "f" | "false" => Ok(Some(false)),
            _ => Err(EngineError::InvalidParameter(format!(
                "invalid filter '{name}=[{word}]'"
            ))),
        }
    }

    /// Returns whether the labels are as `label` and `label!` demand.
    pub fn labels_match(&self, labels: &StringMap) -> bool {
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
            None => labels.contains_key(wanted),
        };
        self.all("label").iter().all(has) && !self.all("label!").iter().any(has)
    }

    /// Refuses filters that a request does not know.
    pub fn only(&self, known: &[&str]) -> Result<()> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            Some(name) => Err(EngineError::InvalidParameter(format!("invalid filter '{name}'"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_filters_are_read() {
        let new = Filters::parse(Some(r#"{"label":["a=b","c"]}"#)).unwrap();
        let old = Filters::parse(Some(r#"{"label":{"a=b":true,"c":true,"d":false}}"#)).unwrap();
        assert_eq!(new, old);
        assert!(Filters::parse(Some("[]")).is_err());
        assert!(!Filters::parse(None).unwrap().has("label"));
    }

    #[test]
    fn all_labels_must_match_and_none_of_the_negated() {
        let labels: StringMap = [("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())].into();
        for (text, matches) in [
            (r#"{"label":["a"]}"#, true),
            (r#"{"label":["a=b","c"]}"#, true),
            (r#"{"label":["a=c"]}"#, false),
            (r#"{"label!":["a"]}"#, false),
            (r#"{"label!":["x"]}"#, true),
        ] {
            assert_eq!(
                Filters::parse(Some(text)).unwrap().labels_match(&labels),
                matches,
                "{text}"
            );
        }
    }
}
