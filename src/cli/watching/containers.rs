//! The project's containers, as far as a watch has to know them.

use std::time::Duration;

use super::super::Context;
use crate::client::events::{Event, Events};
use crate::client::{ClientError, Engine};
use crate::plan::observed::{self, Container};

/// How long to wait before the engine that went away is asked again.
const ENGINE_RETRY: Duration = Duration::from_millis(200);

/// What happened.
pub enum Happening {
    /// Something to a container.
    Event(Event),
    /// The engine answers again.
    Back,
    Nothing,
}

/// The project's containers, asked for again only when something happened to one.
pub struct Containers<'c> {
    context: &'c Context,
    engine: &'c Engine,
    project: &'c str,
    events: Option<Events>,
    known: Option<Vec<Container>>,
}

impl<'c> Containers<'c> {
    /// Begins to listen.
    pub async fn new(context: &'c Context, engine: &'c Engine, project: &'c str) -> Result<Self, ClientError> {
        Ok(Self {
            context,
            engine,
            project,
            events: Some(engine.container_events(project).await?),
            known: None,
        })
    }

    /// Returns the containers that there are.
    pub async fn known(&mut self) -> Result<Vec<Container>, ClientError> {
        if let Some(known) = self.known.as_ref().filter(|_| self.events.is_some()) {
            return Ok(known.clone());
        }
        let containers = observed::containers(self.engine, self.project).await?;
        self.known = Some(containers.clone());
        Ok(containers)
    }

    /// Waits until something happens to a container, or to the engine.
    pub async fn next(&mut self) -> Happening {
        let Some(events) = &mut self.events else {
            tokio::time::sleep(ENGINE_RETRY).await;
            // The embedded one is started where nobody else does it.
            let answers = self.context.engine().await.is_ok();
            self.known = None;
            if answers && let Ok(events) = self.engine.container_events(self.project).await {
                self.events = Some(events);
                return Happening::Back;
            }
            return Happening::Nothing;
        };
        match events.next().await {
            Some(Ok(event)) => {
                // What runs in a container, and what we copy ourselves, changes nothing.
                let is_inside = event.action.starts_with("exec_") || event.action.starts_with("health_status");
                if !is_inside && event.action != "extract-to-dir" {
                    self.known = None;
                }
                Happening::Event(event)
            }
            // The engine went away; a new one may come.
            _ => {
                self.lose();
                Happening::Nothing
            }
        }
    }

    /// Notes that the engine did not answer.
    pub fn lose(&mut self) {
        self.events = None;
        self.known = None;
    }
}
