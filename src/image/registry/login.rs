//! Whether a registry knows somebody, asked before anybody relies on it.

use http::Method;
use http::header::HeaderMap;

use super::challenge::Scope;
use super::settings::Settings;
use super::transport::{Call, Transport};
use super::{Login, RegistryError, TransportError, chain};
use crate::image::ImageError;

/// Asks a registry whether it takes a login. `server` is its host, or an address as `docker login` writes it.
pub async fn check_login(server: &str, login: Login) -> Result<(), ImageError> {
    let host = server.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or_default();
    let registry = match host {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    };
    let endpoint = Settings::load()?.origin(registry);
    let refused = |error: TransportError| {
        let reason = match &error {
            TransportError::Request { source, .. } => {
                let mut cause: &dyn std::error::Error = source;
                while let Some(deeper) = cause.source() {
                    cause = deeper;
                }
                cause.to_string()
            }
            other => chain(other),
        };
        RegistryError::Unreachable {
            url: format!("https://{}/v2/", endpoint.host),
            reason,
        }
    };
    let transport = Transport::connect(&endpoint, Some(login)).await.map_err(refused)?;
    let call = Call {
        method: Method::GET,
        url: transport.url("").map_err(refused)?,
        scope: &Scope::none(),
        headers: HeaderMap::new(),
        body: None,
    };
    transport.send(call).await.map_err(refused)?;
    Ok(())
}
