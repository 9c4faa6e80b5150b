//! Language models that services use: a plugin of the docker CLI (`docker model`) gets and serves them.
// docker/compose pkg/compose/model.go

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;

use super::Context;
use super::providers::{command, plugin};
use crate::model::{Model, Project};
use crate::ui::{Progress, Status};

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("'models' support requires Docker Model plugin")]
    NoPlugin,
    #[error("cannot run {path}")]
    Run {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("docker model {words}: {said}")]
    Failed { words: String, said: String },
}

/// Makes sure of the models that services use, and tells the services where they are.
pub async fn ensure(context: &Context, project: &mut Project, progress: &Progress) -> Result<(), ModelError> {
    let used = |name: &String| {
        project
            .services
            .values()
            .any(|service| service.models.contains_key(name))
    };
    let models: Vec<(String, Model)> = project
        .models
        .iter()
        .filter(|(name, _)| used(name))
        .map(|(name, model)| (name.clone(), model.clone()))
        .collect();
    if models.is_empty() {
        return Ok(());
    }
    let path = plugin(context, "model").ok_or(ModelError::NoPlugin)?;
    let mut endpoint = String::new();
    if !context.globals.dry_run {
        let there = json(&path, project, &["ls", "--json"]).await?;
        let is_there = |model: &Model| {
            let all = there.as_array().into_iter().flatten();
            all.flat_map(|one| one["tags"].as_array().into_iter().flatten())
                .any(|tag| tag == model.model.as_str())
        };
        for (name, model) in &models {
            if !is_there(model) {
                progress.event(name, Status::Working, "", "Pulling");
                run(&path, project, &["pull", &model.model]).await?;
                progress.event(name, Status::Done, "", "Pulled");
            }
            progress.event(name, Status::Working, "", "Configuring");
            let size = model.context_size.to_string();
            let mut words = vec!["configure"];
            if model.context_size > 0 {
                words.extend(["--context-size", &size]);
            }
            words.push(&model.model);
            if !model.runtime_flags.is_empty() {
                words.push("--");
                words.extend(model.runtime_flags.iter().map(String::as_str));
            }
            run(&path, project, &words).await?;
            progress.event(name, Status::Done, "", "Configured");
        }
        let status = json(&path, project, &["status", "--json"]).await?;
        endpoint = status["endpoint"].as_str().unwrap_or_default().to_owned();
    }
    for service in project.services.values_mut() {
        for (name, wish) in &service.models {
            let Some((_, model)) = models.iter().find(|(known, _)| known == name) else {
                continue;
            };
            let prefix = name.to_uppercase().replace('-', "_");
            let chosen = |wished: Option<&String>, ending: &str| match wished {
                Some(wished) if !wished.is_empty() => wished.clone(),
                _ => format!("{prefix}_{ending}"),
            };
            let wish = wish.as_ref();
            let variables = [
                (chosen(wish.map(|wish| &wish.model_var), "MODEL"), model.model.clone()),
                (chosen(wish.map(|wish| &wish.endpoint_var), "URL"), endpoint.clone()),
            ];
            for (variable, value) in variables {
                service.environment.insert(variable, Some(value));
            }
        }
    }
    Ok(())
}

async fn json(path: &Path, project: &Project, words: &[&str]) -> Result<Value, ModelError> {
    let output = run(path, project, words).await?;
    serde_json::from_slice(&output.stdout).map_err(|error| ModelError::Failed {
        words: words.join(" "),
        said: error.to_string(),
    })
}

async fn run(path: &Path, project: &Project, words: &[&str]) -> Result<Output, ModelError> {
    let output = command(path, project)
        .args(words)
        .stderr(Stdio::piped())
        .output()
        .await
        .map_err(|source| ModelError::Run {
            path: path.display().to_string(),
            source,
        })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(ModelError::Failed {
        words: words.join(" "),
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
