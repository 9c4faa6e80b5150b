//! `build --check`: what the Dockerfiles of services have in them that is likely to be a mistake.

use std::collections::BTreeMap;
use std::process::ExitCode;

use super::building::{self, BuildWishes};
use super::{CommandError, Context, pulling};
use crate::build::check::{self, Base, Question, Report};
use crate::client::{ClientError, Engine};
use crate::model::{Build, Project, Service};
use crate::ui::{Progress, stream};

/// Checks the Dockerfiles of the named services, and fails if there is anything to say of one.
pub async fn check_services(
    context: &Context,
    engine: &Engine,
    project: &Project,
    services: &[String],
    wishes: &BuildWishes,
) -> Result<ExitCode, CommandError> {
    let mut is_clean = true;
    let mut refusals = Vec::new();
    for (index, name) in services.iter().enumerate() {
        let service = project.service(name)?;
        let Some(build) = &service.build else { continue };
        let (file, report) = check_service(context, engine, project, service, build, wishes).await?;
        let separator = if index == 0 { "" } else { "\n" };
        stream::out(format!("{separator}{name}\n\n{}", report.text(&file)))?;
        is_clean &= report.is_clean();
        refusals.extend(report.refusal().map(|refusal| format!("service \"{name}\": {refusal}")));
    }
    match (is_clean, refusals.is_empty()) {
        (true, _) => Ok(ExitCode::SUCCESS),
        (false, true) => Ok(ExitCode::FAILURE),
        (false, false) => Err(CommandError::message(refusals.join("\n"))),
    }
}

/// Returns the name of the service's Dockerfile, and what there is to say of it.
async fn check_service(
    context: &Context,
    engine: &Engine,
    project: &Project,
    service: &Service,
    build: &Build,
    wishes: &BuildWishes,
) -> Result<(String, Report), CommandError> {
    if crate::build::is_remote(&build.context) {
        return Err(CommandError::message(format!(
            "service \"{}\": the context {} is not a local directory, and only such are checked",
            service.name, build.context
        ))
        .hint("fetch it and name the directory as the context"));
    }
    let files = building::files(project, build);
    files.check()?;
    let (file, text) = match &files.inline {
        Some(text) => ("inline".to_owned(), text.clone()),
        None => {
            let path = files.directory.join(&files.dockerfile);
            let path = std::path::absolute(&path).unwrap_or(path);
            (path.display().to_string(), fs_err::read_to_string(&path)?)
        }
    };
    let ignore = files.ignore_file()?;
    let arguments: BTreeMap<String, String> = building::arguments(context, project, build, wishes)
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let own = format!("linux/{}", crate::image::Platform::host().architecture);
    let platform = match building::platform_of(service, build) {
        "" => own.as_str(),
        platform => platform,
    };
    let mut bases = BTreeMap::new();
    for name in check::bases(&text, &arguments, platform) {
        if build.additional_contexts.iter().any(|(known, _)| *known == name) {
            continue;
        }
        match base(context, engine, project, &name).await {
            Ok(base) => {
                bases.insert(name, base);
            }
            Err(error) => {
                let reason = format!("failed to resolve source metadata: {error}");
                return Ok((file, Report::of_base(&text, &name, &reason)));
            }
        }
    }
    let report = check::check(&Question {
        text: &text,
        target: Some(build.target.as_str()).filter(|target| !target.is_empty()),
        arguments: &arguments,
        ignore: &ignore,
        platform,
        bases: &bases,
    });
    Ok((file, report))
}

/// Returns what counts of a base image; it is pulled if it is not there, as it is for a build.
async fn base(context: &Context, engine: &Engine, project: &Project, name: &str) -> Result<Base, ClientError> {
    let mut found = engine.docker.inspect_image(name).await.map_err(ClientError::from);
    if found.as_ref().is_err_and(ClientError::is_not_found) && !context.globals.dry_run {
        let service = Service {
            image: name.to_owned(),
            ..Service::default()
        };
        pulling::pull(engine, project, &service, &Progress::quiet()).await?;
        found = engine.docker.inspect_image(name).await.map_err(ClientError::from);
    }
    let config = found?.config.unwrap_or_default();
    Ok(Base {
        environment: config.env.unwrap_or_default(),
        has_shell: config.shell.is_some_and(|shell| !shell.is_empty()),
    })
}
