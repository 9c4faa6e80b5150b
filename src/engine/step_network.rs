//! Networks for the steps of builds.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::container::new_id;
use super::networks::failure;
use super::{Engine, Result};
use crate::build::{Plug, PlugError, Plugs};
use crate::net::spec::{DnsSpec, EndpointSpec, Mode, SandboxSpec};

/// Takes a step off its network when it has ended, however it did.
struct Release {
    engine: Arc<Engine>,
    name: String,
    handle: Handle,
}

impl Drop for Release {
    fn drop(&mut self) {
        let (engine, name) = (Arc::clone(&self.engine), std::mem::take(&mut self.name));
        let released = async move { engine.networks.net.release(&name).await };
        self.engine.tasks.spawn_on(released, &self.handle);
    }
}

impl Engine {
    /// Returns what gives every step of a build a namespace of its own on a network.
    ///
    /// The network's interface is made when the first step wants it. Must be called where the engine's tasks run: a
    /// build's own thread ends with it, and names are answered and networks left on the engine's.
    pub fn step_networks(self: &Arc<Self>, network: &str) -> Plugs {
        let (engine, network, handle) = (Arc::clone(self), network.to_owned(), Handle::current());
        Arc::new(move |name| {
            let plug = Arc::clone(&engine).plug_step(name, network.clone(), handle.clone());
            let plug = handle.spawn(plug);
            Box::pin(async move { Ok(plug.await.map_err(PlugError::from)??) })
        })
    }

    async fn plug_step(self: Arc<Self>, name: String, network: String, handle: Handle) -> Result<Plug> {
        let network = self.networks.ready(&network).await?;
        let spec = SandboxSpec {
            container: name.clone(),
            name: name.clone(),
            hostname: "buildkitsandbox".to_owned(),
            mode: Mode::Networks,
            endpoints: vec![EndpointSpec {
                network: network.spec.id,
                endpoint_id: new_id(),
                ..EndpointSpec::default()
            }],
            dns: DnsSpec::default(),
            ..SandboxSpec::default()
        };
        let sandbox = self.networks.net.sandbox(spec).await.map_err(failure)?;
        let guard = Box::new(Release {
            engine: Arc::clone(&self),
            name,
            handle,
        });
        for warning in &sandbox.warnings {
            tracing::warn!(warning);
        }
        let endpoint = sandbox.record.endpoints.first();
        Ok(Plug {
            gateway: endpoint.and_then(|endpoint| endpoint.gateway).map(Into::into),
            namespace: sandbox.netns.expect("a network of its own has a namespace"),
            resolv_conf: sandbox.files.resolv_conf,
            guard,
        })
    }
}
