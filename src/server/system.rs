//! The engine itself: ping, version, info.

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use std::sync::Arc;

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::error::ApiError;
use super::request::Call;
use super::response::{self, Answer};
use super::version::{NEWEST, OLDEST};

use crate::engine::EngineError;
use crate::engine::container::Status;
use crate::engine::filters::Filters;
use crate::engine::images::image_failure;
use crate::image::{ImageError, Login, PullOptions, Reference, check_login, inspect_remote};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Says that the engine is there.
pub fn ping(method: &Method) -> Response<Body> {
    let mut response = Response::new(if method == Method::HEAD {
        Body::empty()
    } else {
        Body::from("OK")
    });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(
        CACHE_CONTROL,
        HeaderValue::from_static("no-cache, no-store, must-revalidate"),
    );
    headers.insert("pragma", HeaderValue::from_static("no-cache"));
    headers.insert("swarm", HeaderValue::from_static("inactive"));
    // The classic builder: clients then send a plain tar instead of opening a BuildKit session.
    headers.insert("builder-version", HeaderValue::from_static("1"));
    response
}

/// Says what the engine is and what it speaks.
pub fn version() -> Response<Body> {
    let kernel = rustix::system::uname();
    let kernel = kernel.release().to_string_lossy();
    response::json(&json!({
        "Platform": { "Name": "Compose embedded engine" },
        "Components": [{
            "Name": "Engine",
            "Version": VERSION,
            "Details": {
                "ApiVersion": NEWEST.to_string(),
                "Arch": architecture(),
                "BuildTime": "",
                "Experimental": "false",
                "GitCommit": "",
                "GoVersion": "",
                "KernelVersion": kernel,
                "MinAPIVersion": OLDEST.to_string(),
                "Os": "linux",
            },
        }],
        "Version": VERSION,
        "ApiVersion": NEWEST.to_string(),
        "MinAPIVersion": OLDEST.to_string(),
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": architecture(),
        "KernelVersion": kernel,
        "BuildTime": "",
    }))
}

/// Says what the machine is and what the engine has on it.
pub fn info(call: &Call) -> Response<Body> {
    let engine = &call.engine;
    let (mut running, mut paused, mut stopped) = (0, 0, 0);
    for container in engine.containers.all() {
        match container.status() {
            Status::Running | Status::Restarting => running += 1,
            Status::Paused => paused += 1,
            _ => stopped += 1,
        }
    }
    let kernel = rustix::system::uname();
    let cgroup_version = if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "2"
    } else {
        "1"
    };
    let rootless = !crate::rootless::is_machine_wide();
    let mut security = vec!["name=seccomp,profile=builtin"];
    if rootless {
        security.push("name=rootless");
    }
    let mut info = json!({
        "ID": call.engine.paths.instance(),
        "Containers": running + paused + stopped,
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": stopped,
        "Images": engine.store.list().map_or(0, |images| images.len()),
        "Driver": "overlay2",
        "DriverStatus": [["Backing Filesystem", "extfs"], ["Supports d_type", "true"]],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": null,
            "Log": ["journald", "json-file", "local", "none", "syslog"],
        },
        "MemoryLimit": true,
        "SwapLimit": true,
        "CpuCfsPeriod": true,
        "CpuCfsQuota": true,
        "CPUShares": true,
        "CPUSet": true,
        "PidsLimit": true,
        "IPv4Forwarding": true,
        "Debug": false,
    });
    let machine = json!({
        "NFd": 0,
        "OomKillDisable": cgroup_version == "1",
        "NGoroutines": 0,
        "SystemTime": jiff::Timestamp::now().to_string(),
        "LoggingDriver": "json-file",
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": cgroup_version,
        "NEventsListener": engine.events.listeners(),
        "KernelVersion": kernel.release().to_string_lossy(),
        "OperatingSystem": operating_system(),
        "OSVersion": "",
        "OSType": "linux",
        "Architecture": kernel.machine().to_string_lossy(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "IndexConfigs": { "docker.io": { "Mirrors": [], "Name": "docker.io", "Official": true, "Secure": true } },
            "InsecureRegistryCIDRs": ["::1/128", "127.0.0.0/8"],
            "Mirrors": null,
        },
        "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "MemTotal": rustix::system::sysinfo().totalram as u64 * u64::from(rustix::system::sysinfo().mem_unit),
        "GenericResources": null,
        "DockerRootDir": call.engine.paths.state_dir(),
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": kernel.nodename().to_string_lossy(),
        "Labels": [],
        "ExperimentalBuild": false,
        "ServerVersion": VERSION,
        "Runtimes": { "compose": { "path": "compose" } },
        "DefaultRuntime": "compose",
        "Swarm": {
            "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "",
            "RemoteManagers": null,
        },
        "LiveRestoreEnabled": true,
        "Isolation": "",
        "InitBinary": "compose",
        "ContainerdCommit": { "ID": "" },
        "RuncCommit": { "ID": "" },
        "InitCommit": { "ID": "" },
        "SecurityOptions": security,
        "CDISpecDirs": [],
        "Warnings": null,
    });
    if let (Some(info), serde_json::Value::Object(machine)) = (info.as_object_mut(), machine) {
        info.extend(machine);
    }
    response::json(&info)
}

/// Says how much room everything takes.
pub async fn disk_usage(call: Call) -> Answer {
    let engine = Arc::clone(&call.engine);
    let value = call
        .engine
        .blocking(move || -> crate::engine::Result<Value> {
            let mut images = engine.list_images(&Filters::default(), false)?;
            let containers = engine.list(&crate::engine::inspect::ListOptions {
                all: true,
                size: true,
                ..Default::default()
            })?;
            let volumes: Vec<Value> = engine
                .volumes
                .list()
                .iter()
                .map(|volume| {
                    let mut value = engine.volumes.to_json(volume);
                    value["UsageData"] = json!({
                        "RefCount": engine.users_of_volume(&volume.name).len(),
                        "Size": crate::engine::disk::size(&engine.volumes.data_dir(&volume.name)),
                    });
                    value
                })
                .collect();
            // A layer that several images have is there once.
            let all = engine.store.list().map_err(image_failure)?;
            let mut layers: std::collections::BTreeMap<&str, (u64, usize)> = std::collections::BTreeMap::new();
            for layer in all.iter().flat_map(|image| &image.layers) {
                layers.entry(&layer.diff_id).or_insert((layer.size, 0)).1 += 1;
            }
            for value in &mut images {
                let image = all.iter().find(|image| value["Id"].as_str() == Some(&image.id));
                let of_image = image.into_iter().flat_map(|image| &image.layers);
                let shared =
                    of_image.filter(|layer| layers.get(layer.diff_id.as_str()).is_some_and(|(_, count)| *count > 1));
                value["SharedSize"] = json!(shared.map(|layer| layer.size).sum::<u64>());
            }
            let mut build_cache = Vec::new();
            for (key, record) in engine.store.cache().map_err(image_failure)? {
                let size = record
                    .layer
                    .as_deref()
                    .and_then(|layer| engine.store.layer(layer).ok())
                    .map_or(0, |info| info.size);
                let time = |seconds| jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string();
                build_cache.push(json!({
                    "ID": key,
                    "Type": "regular",
                    "Description": record.layer.clone().unwrap_or_default(),
                    "InUse": false,
                    "Shared": record.layer.as_deref().is_some_and(|layer| layers.contains_key(layer)),
                    "Size": size,
                    "CreatedAt": time(record.made),
                    "LastUsedAt": time(record.used),
                    "UsageCount": 1,
                }));
            }
            Ok(json!({
                "LayersSize": layers.values().map(|(size, _)| size).sum::<u64>(),
                "Images": images,
                "Containers": containers,
                "Volumes": volumes,
                "BuildCache": build_cache,
            }))
        })
        .await??;
    Ok(response::json(&value))
}

/// Lets another build of the program take over, unless somebody else uses this one. No container notices.
pub fn leave(call: &Call) -> Answer {
    if call.engine.activity.users() > 1 {
        return Err(EngineError::Conflict("the engine is in use".to_owned()).into());
    }
    call.engine.leaving.notify_one();
    Ok(response::done())
}

/// Says what everything takes on the disk, to the block.
pub async fn usage(call: Call) -> Answer {
    let engine = Arc::clone(&call.engine);
    let verify = call.query.flag("verify");
    let usage = call.engine.blocking(move || engine.usage(verify)).await??;
    Ok(response::json(&usage))
}

/// Asks the registry whether it takes a login.
pub async fn auth(call: Call) -> Answer {
    let body: Value = call.json().await?;
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    if body["username"].as_str().is_none_or(str::is_empty) && body["identitytoken"].as_str().is_none_or(str::is_empty) {
        return Err(ApiError::bad_request("username is required"));
    }
    let login = match text("identitytoken") {
        token if !token.is_empty() => Login::Identity(token),
        _ => Login::Password {
            username: text("username"),
            password: text("password"),
        },
    };
    if let Err(refused) = check_login(&text("serveraddress"), login).await {
        return Err(ApiError {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            message: refused.to_string(),
        });
    }
    Ok(response::json(
        &json!({ "Status": "Login Succeeded", "IdentityToken": "" }),
    ))
}

/// The answer to everything about swarms.
pub fn no_swarm() -> ApiError {
    ApiError {
        status: StatusCode::SERVICE_UNAVAILABLE,
        message:
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
                  node to swarm and try again."
                .to_owned(),
    }
}

/// Says what an image's registry has under its name now.
pub async fn distribution(call: Call, name: &str) -> Answer {
    let reference = Reference::parse(name).map_err(|cause| image_failure(ImageError::from(cause)))?;
    let options = PullOptions {
        login: super::images::login(&call),
        ..PullOptions::default()
    };
    let engine = Arc::clone(&call.engine);
    drop(call);
    let asked = engine.on_own_thread(move || async move { inspect_remote(&reference, &options).await });
    let found = asked.await?.map_err(image_failure)?;
    let platforms = found.platforms.iter().map(|platform| {
        let mut shown = json!({ "architecture": platform.architecture, "os": platform.os });
        if let Some(variant) = &platform.variant {
            shown["variant"] = json!(variant);
        }
        shown
    });
    Ok(response::json(&json!({
        "Descriptor": { "mediaType": found.media_type, "digest": found.digest, "size": found.size },
        "Platforms": platforms.collect::<Vec<_>>(),
    })))
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn operating_system() -> String {
    std::fs::read_to_string("/etc/os-release")
        .ok()
        .and_then(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("PRETTY_NAME="))
                .map(|name| name.trim_matches('"').to_owned())
        })
        .unwrap_or_else(|| "Linux".to_owned())
}
