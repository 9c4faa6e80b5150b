//! The one Engine API client: finds or starts the engine, and speaks to it through bollard.
