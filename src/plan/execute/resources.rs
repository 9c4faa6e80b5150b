//! Networks, volumes and images: one request each.

use bollard::models::{NetworkConnectRequest, NetworkDisconnectRequest};
use bollard::query_parameters::{RemoveImageOptions, RemoveVolumeOptions};

use super::{Execution, ExecutionError};
use crate::client::ClientError;
use crate::plan::create;
use crate::plan::observed::Container;
use crate::ui::{Progress, Status};

impl Execution<'_> {
    pub(super) async fn create_network(&self, key: &str, progress: &Progress) -> Result<(), ExecutionError> {
        let Some(network) = self.project.networks.get(key) else {
            return Ok(());
        };
        let request = async {
            let body = create::network(self.project, key, network);
            match self.engine.docker.create_network(body).await.map_err(ClientError::from) {
                Ok(_) => Ok(()),
                // Somebody else's `up` was a moment earlier.
                Err(error) if error.is_conflict() && error.to_string().contains("already exists") => Ok(()),
                Err(error) => Err(error),
            }
        };
        match self
            .simple(
                format!("Network {}", network.name),
                ["Creating", "Created"],
                request,
                progress,
            )
            .await
        {
            Err(ExecutionError::Client(source)) => Err(ExecutionError::Network {
                name: network.name.clone(),
                source,
            }),
            other => other,
        }
    }

    pub(super) async fn remove_network(
        &self,
        id: &str,
        name: &str,
        replaced: bool,
        progress: &Progress,
    ) -> Result<(), ExecutionError> {
        let event = format!("Network {name}");
        if !replaced {
            progress.event(&event, Status::Working, "", "Removing");
        }
        // Podman takes a network away from containers that are on it.
        let has_to_look = self.settings.dry_run || self.engine.is_podman() && !replaced;
        if has_to_look {
            let found = self.engine.docker.inspect_network(id, None).await;
            let containers = found.ok().and_then(|network| network.containers).unwrap_or_default();
            if !containers.is_empty() {
                progress.event(&event, Status::Warning, "", "Resource is still in use");
                return Ok(());
            }
        }
        if self.settings.dry_run {
            progress.event(&event, Status::Done, "", "Removed");
            return Ok(());
        }
        match self.engine.docker.remove_network(id).await.map_err(ClientError::from) {
            Ok(()) => progress.event(&event, Status::Done, "", "Removed"),
            Err(error) if error.is_not_found() => {
                progress.event(&event, Status::Warning, "", "No resource found to remove");
            }
            Err(error) if !replaced && is_in_use(&error) => {
                progress.event(&event, Status::Warning, "", "Resource is still in use");
            }
            Err(error) => {
                progress.event(&event, Status::Error, "", "Error");
                return Err(error.into());
            }
        }
        Ok(())
    }

    pub(super) async fn disconnect(&self, network: &str, container: &Container) -> Result<(), ExecutionError> {
        if self.settings.dry_run {
            return Ok(());
        }
        let request = NetworkDisconnectRequest {
            container: container.id.clone(),
            force: Some(true),
        };
        match self
            .engine
            .docker
            .disconnect_network(network, request)
            .await
            .map_err(ClientError::from)
        {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }

    pub(super) async fn connect(
        &self,
        key: &str,
        service: &str,
        id: &str,
        named: &Container,
    ) -> Result<(), ExecutionError> {
        let (Some(service), Some(network)) = (self.project.services.get(service), self.project.networks.get(key))
        else {
            return Ok(());
        };
        if self.settings.dry_run {
            return Ok(());
        }
        let links = self.links(service, named.number.unwrap_or(1), named.one_off);
        let request = NetworkConnectRequest {
            container: id.to_owned(),
            endpoint_config: Some(create::endpoint(service, key, &named.name, true, &links)?),
        };
        self.engine
            .docker
            .connect_network(&network.name, request)
            .await
            .map_err(ClientError::from)?;
        Ok(())
    }

    pub(super) async fn create_volume(&self, key: &str, progress: &Progress) -> Result<(), ExecutionError> {
        let Some(volume) = self.project.volumes.get(key) else {
            return Ok(());
        };
        let request = async {
            let body = create::volume(self.project, key, volume);
            self.engine.docker.create_volume(body).await?;
            Ok(())
        };
        self.simple(
            format!("Volume {}", volume.name),
            ["Creating", "Created"],
            request,
            progress,
        )
        .await
    }

    pub(super) async fn remove_volume(
        &self,
        name: &str,
        replaced: bool,
        progress: &Progress,
    ) -> Result<(), ExecutionError> {
        let event = format!("Volume {name}");
        let shown = |status, text: &str| {
            if !replaced {
                progress.event(&event, status, "", text);
            }
        };
        shown(Status::Working, "Removing");
        if self.settings.dry_run {
            shown(Status::Done, "Removed");
            return Ok(());
        }
        let options = RemoveVolumeOptions { force: true };
        match self
            .engine
            .docker
            .remove_volume(name, Some(options))
            .await
            .map_err(ClientError::from)
        {
            Ok(()) => shown(Status::Done, "Removed"),
            Err(error) if error.is_conflict() && !replaced => shown(Status::Warning, "Resource is still in use"),
            Err(error) if error.is_not_found() => shown(Status::Done, "Warning: No resource found to remove"),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    pub(super) async fn remove_image(&self, reference: &str, progress: &Progress) -> Result<(), ExecutionError> {
        let event = format!("Image {reference}");
        progress.event(&event, Status::Working, "", "Removing");
        if self.settings.dry_run {
            progress.event(&event, Status::Done, "", "Removed");
            return Ok(());
        }
        match self
            .engine
            .docker
            .remove_image(reference, None::<RemoveImageOptions>, None)
            .await
            .map_err(ClientError::from)
        {
            Ok(_) => progress.event(&event, Status::Done, "", "Removed"),
            Err(error) if error.is_conflict() => {
                progress.event(&event, Status::Warning, "", "Resource is still in use");
            }
            Err(error) if error.is_not_found() => {
                progress.event(&event, Status::Done, "", "Warning: No resource found to remove");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// The engine forbids the removal of a network that has running containers.
fn is_in_use(error: &ClientError) -> bool {
    error.status() == Some(403) || error.to_string().contains("has active endpoints")
}
