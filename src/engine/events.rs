//! What happened: kept for a while, told to whoever listens.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::config::StringMap;
use super::filters::Filters;

/// How many events are remembered for those who ask for the past; moby keeps as many.
const REMEMBERED: usize = 256;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `container`, `network`, `volume` or `image`.
    pub kind: &'static str,
    pub action: String,
    pub id: String,
    pub attributes: StringMap,
    pub at: Timestamp,
}

impl Event {
    /// Returns the event as the API writes it.
    pub fn to_json(&self) -> Value {
        let mut value = json!({});
        if self.kind == "container" || self.kind == "image" {
            value["status"] = json!(self.action);
            value["id"] = json!(self.id);
            if self.kind == "container"
                && let Some(image) = self.attributes.get("image")
            {
                value["from"] = json!(image);
            }
        }
        value["Type"] = json!(self.kind);
        value["Action"] = json!(self.action);
        value["Actor"] = json!({ "ID": self.id, "Attributes": self.attributes });
        value["scope"] = json!("local");
        value["time"] = json!(self.at.as_second());
        let nanoseconds = i64::try_from(self.at.as_nanosecond()).unwrap_or(i64::MAX);
        value["timeNano"] = json!(nanoseconds);
        value
    }

    /// Returns whether the filters of a request let the event through.
    pub fn passes(&self, filters: &Filters) -> bool {
        // moby: the filter `event` also matches the part before the colon of `exec_create: ls`.
        let short = self.action.split(':').next().unwrap_or(&self.action);
        let of_kind = |kind: &str| {
            let name = self.attributes.get("name").map_or("", String::as_str);
            !filters.has(kind)
                || (self.kind == kind
                    && filters.any(kind, |wanted| {
                        wanted == self.id || wanted == name || (!wanted.is_empty() && self.id.starts_with(wanted))
                    }))
        };
        (!filters.has("event") || filters.any("event", |wanted| wanted == self.action || wanted == short))
            && (!filters.has("type") || filters.any("type", |wanted| wanted == self.kind))
            && (!filters.has("scope") || filters.any("scope", |wanted| wanted == "local"))
            && (!filters.has("daemon") || filters.any("daemon", |wanted| wanted == self.id))
            && of_kind("container")
            && of_kind("network")
            && of_kind("volume")
            && self.passes_image(filters)
            && filters.labels_match(&self.attributes)
    }

    fn passes_image(&self, filters: &Filters) -> bool {
        if !filters.has("image") {
            return true;
        }
        let name = match self.kind {
            "image" => self.attributes.get("name").unwrap_or(&self.id),
            _ => self.attributes.get("image").map_or("", String::as_str),
        };
        filters.any("image", |wanted| {
            wanted == self.id || wanted == name || name.strip_prefix(wanted).is_some_and(|rest| rest.starts_with(':'))
        })
    }
}

/// The engine's events.
#[derive(Debug)]
pub struct Events {
    past: Mutex<VecDeque<Arc<Event>>>,
    live: broadcast::Sender<Arc<Event>>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            past: Mutex::default(),
            live: broadcast::Sender::new(REMEMBERED),
        }
    }
}

impl Events {
    /// Says that something happened just now.
    pub fn publish(&self, kind: &'static str, action: impl Into<String>, id: &str, attributes: StringMap) {
        let event = Arc::new(Event {
            kind,
            action: action.into(),
            id: id.to_owned(),
            attributes,
            at: Timestamp::now(),
        });
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if past.len() == REMEMBERED {
            past.pop_front();
        }
        past.push_back(Arc::clone(&event));
        // Nobody may be listening.
        let _ = self.live.send(event);
    }

    /// Returns what is remembered and what is to come, without a gap between them.
    pub fn subscribe(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        (past.iter().cloned().collect(), self.live.subscribe())
    }

    /// Returns how many listen.
    pub fn listeners(&self) -> usize {
        self.live.receiver_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str) -> Event {
        Event {
            kind: "container",
            action: action.to_owned(),
            id: "abcdef".to_owned(),
            attributes: [("image", "busybox:latest"), ("name", "web"), ("color", "red")]
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .into(),
            at: Timestamp::new(5, 7).unwrap(),
        }
    }

    #[test]
    fn an_event_is_written_as_docker_writes_it() {
        assert_eq!(
            event("start").to_json().to_string(),
            r#"{"status":"start","id":"abcdef","from":"busybox:latest","Type":"container","Action":"start","Actor":{"ID":"abcdef","Attributes":{"color":"red","image":"busybox:latest","name":"web"}},"scope":"local","time":5,"timeNano":5000000007}"#
        );
    }

    #[test]
    fn filters_choose_events() {
        for (filters, passes) in [
            (r#"{}"#, true),
            (r#"{"event":["start"]}"#, false),
            (r#"{"event":["exec_create"]}"#, true),
            (r#"{"type":["container"],"container":["web"]}"#, true),
            (r#"{"container":["abc"]}"#, true),
            (r#"{"container":["other"]}"#, false),
            (r#"{"network":["web"]}"#, false),
            (r#"{"label":["color=red"]}"#, true),
            (r#"{"label":["color=blue"]}"#, false),
            (r#"{"image":["busybox"]}"#, true),
            (r#"{"image":["busy"]}"#, false),
        ] {
            let parsed = Filters::parse(Some(filters)).unwrap();
            assert_eq!(event("exec_create: ls").passes(&parsed), passes, "{filters}");
        }
    }

    #[test]
    fn the_past_is_remembered_for_a_while() {
        let events = Events::default();
        for number in 0..300 {
            events.publish("volume", "create", &number.to_string(), StringMap::new());
        }
        let (past, _live) = events.subscribe();
        assert_eq!(past.len(), REMEMBERED);
        assert_eq!(past[0].id, "44");
    }
}
