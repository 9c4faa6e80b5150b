//! `/events`.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::broadcast::error::RecvError;

use super::error::ApiError;
use super::request::Call;
use super::response::{self, Answer};
use crate::engine::events::Event;
use crate::engine::filters::Filters;
use crate::engine::time;

/// `GET /events`
pub fn stream(call: &Call) -> Answer {
    let filters = Filters::parse(call.query.get("filters"))?;
    let moment = |name: &str| -> Result<Option<Timestamp>, ApiError> {
        call.query
            .get(name)
            .map(|text| {
                time::parse(text).ok_or_else(|| ApiError::bad_request(format!("invalid value for \"{name}\": {text}")))
            })
            .transpose()
    };
    let (since, until) = (moment("since")?, moment("until")?);
    let (past, mut live) = call.engine.events.subscribe();
    let engine = Arc::clone(&call.engine);
    let body = async_stream::stream! {
        // The headers go out at once, so that the client knows that it listens.
        yield Ok::<_, std::convert::Infallible>(Bytes::new());
        if let Some(since) = since {
            for event in past {
                if event.at >= since && until.is_none_or(|until| event.at <= until) && event.passes(&filters) {
                    yield Ok(line(&event));
                }
            }
        }
        let end = async {
            match until {
                Some(until) => {
                    let rest = until.duration_since(Timestamp::now());
                    tokio::time::sleep(std::time::Duration::try_from(rest).unwrap_or_default()).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        loop {
            tokio::select! {
                event = live.recv() => match event {
                    Ok(event) if event.passes(&filters) => yield Ok(line(&event)),
                    // A listener too slow to follow misses events, as with Docker.
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                },
                () = &mut end => return,
                () = engine.closing.cancelled() => return,
            }
        }
    };
    Ok(response::stream("application/json", body))
}

fn line(event: &Event) -> Bytes {
    Bytes::from(format!("{}\n", event.to_json()))
}
