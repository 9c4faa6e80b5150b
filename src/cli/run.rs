//! `compose run`: run a one-off command on a service.

use std::collections::BTreeMap;
use std::process::ExitCode;

use bollard::query_parameters::{RemoveContainerOptions, StartContainerOptions};

use super::attach::forward_signals;
use super::converge::{self, Converge, ImageWishes};
use super::hijacked::{self, Connection, Ending};
use super::lifecycle::{self, interruptible};
use super::{CommandError, Context, out_of_memory};
use crate::client::{self, ClientError, labels};
use crate::file::{dotenv, words::split_words};
use crate::model::{Dependencies, Project, Service, parse_mount, parse_ports};
use crate::plan::create::{self, ContainerRequest, references};
use crate::plan::execute::{copy_files, links, refused_container, send_create};
use crate::plan::observed::Container;
use crate::plan::reconcile::condition;
use crate::plan::{Action, Execution, Observed, Options, Plan, PlanError, Stage, hooks, reconcile};
use crate::ui::terminal::{self, DetachKeys};
use crate::ui::{Progress, stream};
use crate::yaml::Sources;

/// Run a one-off command on a service
#[derive(Debug, clap::Args)]
#[command(override_usage = "run [OPTIONS] SERVICE [COMMAND] [ARGS...]")]
pub struct Args {
    /// Build image before starting container
    #[arg(long)]
    pub build: bool,
    /// Add Linux capabilities
    #[arg(long, value_name = "list")]
    pub cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long, value_name = "list")]
    pub cap_drop: Vec<String>,
    /// Run container in background and print container ID
    #[arg(short = 'd', long)]
    pub detach: bool,
    /// Override the entrypoint of the image
    #[arg(long, value_name = "string")]
    pub entrypoint: Option<String>,
    /// Set environment variables
    #[arg(short = 'e', long, value_name = "stringArray")]
    pub env: Vec<String>,
    /// Set environment variables from file
    #[arg(long, value_name = "stringArray")]
    pub env_from_file: Vec<String>,
    /// Keep STDIN open even if not attached
    #[arg(short = 'i', long, value_name = "bool")]
    pub interactive: Option<bool>,
    /// Add or override a label
    #[arg(short = 'l', long, value_name = "stringArray")]
    pub label: Vec<String>,
    /// Assign a name to the container
    #[arg(long, value_name = "string")]
    pub name: Option<String>,
    /// Disable pseudo-TTY allocation (default: auto-detected)
    #[arg(short = 'T', long, alias = "no-TTY", value_name = "bool")]
    pub no_tty: Option<bool>,
    /// Don't start linked services
    #[arg(long)]
    pub no_deps: bool,
    /// Publish a container's port(s) to the host
    #[arg(short = 'p', long, value_name = "stringArray")]
    pub publish: Vec<String>,
    /// Pull image before running ("always"|"missing"|"never")
    #[arg(long, value_name = "string", default_value = "policy")]
    pub pull: String,
    /// Don't print anything to STDOUT
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Suppress progress output from the build process
    #[arg(long)]
    pub quiet_build: bool,
    /// Pull without printing progress information
    #[arg(long)]
    pub quiet_pull: bool,
    /// Remove containers for services not defined in the Compose file
    #[arg(long)]
    pub remove_orphans: bool,
    /// Automatically remove the container when it exits
    #[arg(long)]
    pub rm: bool,
    /// Run command with all service's ports enabled and mapped to the host
    #[arg(short = 'P', long)]
    pub service_ports: bool,
    /// Allocate a pseudo-TTY
    #[arg(short = 't', long, value_name = "bool", hide = true)]
    pub tty: Option<bool>,
    /// Use the service's network useAliases in the network(s) the container connects to
    #[arg(long)]
    pub use_aliases: bool,
    /// Run as specified username or uid
    #[arg(short = 'u', long, value_name = "string")]
    pub user: Option<String>,
    /// Bind mount a volume
    #[arg(short = 'v', long, value_name = "stringArray")]
    pub volume: Vec<String>,
    /// Working directory inside the container
    #[arg(short = 'w', long, value_name = "string")]
    pub workdir: Option<String>,
    #[arg(value_name = "SERVICE")]
    pub service: String,
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub command: Vec<String>,
}

/// Runs a command in a container of its own, beside those of the service.
pub async fn run(args: Args, context: &Context) -> Result<ExitCode, CommandError> {
    let mut context = context.clone();
    if args.quiet {
        context.progress = Progress::quiet();
    }
    let context = &context;
    if !args.publish.is_empty() && args.service_ports {
        return Err(CommandError::message("--service-ports and --publish are incompatible"));
    }
    let prepared = interruptible(prepare(&args, context)).await?;
    if context.globals.dry_run {
        return match args.detach {
            true => Ok(ExitCode::SUCCESS),
            false => Err(CommandError::message(
                "interactive run is not supported in dry-run mode",
            )),
        };
    }
    if args.detach {
        let (engine, id) = (&prepared.converge.engine, &prepared.id);
        interruptible(async {
            engine
                .docker
                .start_container(id, None::<StartContainerOptions>)
                .await
                .map_err(ClientError::from)?;
            prepared.post_start().await
        })
        .await?;
        stream::out(format!("{}\n", prepared.id))?;
        return Ok(ExitCode::SUCCESS);
    }
    prepared.attach().await
}

/// A container that is ready to start, and its surroundings.
struct Prepared {
    converge: Converge,
    service: Service,
    id: String,
    tty: bool,
    interactive: bool,
    removes_itself: bool,
}

/// Starts what the service depends on, and creates the container.
// docker/compose pkg/compose/run.go: prepareRun
async fn prepare(args: &Args, context: &Context) -> Result<Prepared, CommandError> {
    let tty = match (args.tty, args.no_tty) {
        (Some(tty), _) => tty,
        (None, Some(no_tty)) => !no_tty,
        (None, None) => stream::out_is_terminal(),
    };
    let interactive = args.interactive.unwrap_or(true);
    let separator = lifecycle::separator(context);
    let mut project = context.load_to_run(std::slice::from_ref(&args.service))?.project;
    if args.no_deps {
        project = project.with_selected_services(std::slice::from_ref(&args.service), Dependencies::Ignore)?;
    }
    let images = ImageWishes {
        pull: &args.pull,
        build: args.build,
        no_build: false,
        quiet_pull: args.quiet_pull || args.quiet,
        quiet_build: args.quiet_build || args.quiet,
    };
    images.apply(&mut project)?;
    converge::absolute_images(&mut project);
    let mut service = project.service(&args.service)?.clone();
    args.apply(&mut service, &project, context)?;
    if !args.detach && interactive && tty && !terminal::in_is_terminal() {
        return Err(CommandError::message("the input device is not a TTY"));
    }
    service.tty = tty;
    service.stdin_open = interactive;

    let mut converge = dependencies(args, context, project, &images).await?;
    let execution = converge.execution();
    context.progress.begin("Running");
    let dependencies = execution.run_all(&context.progress).await;
    context.progress.end();
    dependencies?;
    let containers = execution.containers();
    drop(execution);
    // Only now, when what it needs is there: networks stay even if the image cannot be had.
    converge::ensure_images(
        context,
        &converge.engine,
        &converge.project,
        |candidate| candidate.name == args.service,
        &mut converge.observed,
        &images,
    )
    .await?;
    if !args.no_deps {
        await_dependencies(&converge, &service, containers.clone()).await?;
    }

    let slug = random_digits()?;
    let name = match &args.name {
        Some(name) => name.clone(),
        None => format!(
            "{}{separator}{}{separator}run{separator}{}",
            converge.project.name,
            service.name,
            &slug[..12]
        ),
    };
    // As a label only: it must not become part of the configuration's hash.
    let labels = BTreeMap::from([
        (labels::SLUG.to_owned(), slug),
        (labels::ONE_OFF.to_owned(), "True".to_owned()),
    ]);
    let mut by_service: BTreeMap<String, Vec<Container>> = BTreeMap::new();
    for container in containers {
        by_service.entry(container.service.clone()).or_default().push(container);
    }
    resolve_references(&mut service, &by_service)?;
    let links = links(
        &converge.engine,
        &converge.project.name,
        &service,
        1,
        true,
        separator,
        &by_service,
    );
    let image_name = converge.project.image_name(&service, separator);
    let (body, warnings) = create::container(&ContainerRequest {
        project: &converge.project,
        service: &service,
        number: None,
        name: &name,
        image: converge.observed.images.get(&image_name),
        image_name: &image_name,
        inherit: None,
        links: &links,
        labels,
        auto_remove: args.rm,
        attach_stdin: interactive && !args.detach,
        use_aliases: args.use_aliases,
        host: &converge.settings.host,
    })?;
    for warning in warnings {
        stream::warn(warning);
    }
    let id = if context.globals.dry_run {
        String::new()
    } else {
        let (engine, project) = (&converge.engine, &converge.project);
        let created = send_create(engine, project, &service, &name, body, &context.progress).await;
        let id = created.map_err(|error| refused_container(error, project, &service.name))?;
        copy_files(engine, project, &service, &id).await?;
        id
    };
    Ok(Prepared {
        converge,
        service,
        id,
        tty,
        interactive,
        removes_itself: args.rm,
    })
}

/// Plans for everything but the service itself.
async fn dependencies(
    args: &Args,
    context: &Context,
    mut project: Project,
    images: &ImageWishes<'_>,
) -> Result<Converge, CommandError> {
    let separator = lifecycle::separator(context);
    converge::provide(context, &mut project).await?;
    let engine = context.engine().await?;
    converge::check_local_images(&engine, &project, project.services.values())?;
    let mut observed = converge::observe(&engine, &project, separator).await?;
    let is_other = |service: &Service| service.name != args.service;
    converge::ensure_images(context, &engine, &project, is_other, &mut observed, images).await?;
    let mut others = project.clone();
    others.disable_service(&args.service);
    let options = Options {
        orphans: lifecycle::orphans(context, &project, args.remove_orphans)?,
        separator,
        ..Options::default()
    };
    let plan = reconcile(&others, &observed, &options, &mut lifecycle::answers(false))?;
    lifecycle::announce(context, &plan);
    let settings = lifecycle::settings(context, &engine);
    Ok(Converge {
        engine,
        project,
        observed,
        plan,
        settings,
    })
}

/// Waits until the conditions hold under which the service may run.
async fn await_dependencies(
    converge: &Converge,
    service: &Service,
    containers: Vec<Container>,
) -> Result<(), CommandError> {
    let mut plan = Plan::default();
    for (dependency, how) in &service.depends_on {
        let wanted = converge
            .project
            .services
            .get(dependency)
            .is_some_and(|it| it.replicas() > 0);
        if let Some(condition) = condition(&how.condition).filter(|_| wanted) {
            let wait = Action::Wait {
                service: dependency.clone(),
                condition,
                required: how.required,
                dependent: service.name.clone(),
            };
            let cause = format!("{} waits for it", service.name);
            plan.add(Stage::Start, wait, format!("service:{dependency}"), cause, []);
        }
    }
    if plan.operations.is_empty() {
        return Ok(());
    }
    let observed = Observed {
        containers,
        ..Observed::default()
    };
    let execution = Execution::new(
        &converge.engine,
        &converge.project,
        &observed,
        &plan,
        &converge.settings,
    );
    Ok(execution.run_all(&Progress::quiet()).await?)
}

/// Puts the ids of containers where the service refers to other services.
fn resolve_references(
    service: &mut Service,
    containers: &BTreeMap<String, Vec<Container>>,
) -> Result<(), CommandError> {
    let referred: Vec<(String, &'static str)> = references::of(service)
        .into_iter()
        .map(|reference| (reference.service.to_owned(), reference.what))
        .collect();
    for (provider, what) in referred {
        let container = containers.get(&provider).and_then(|containers| containers.first());
        let Some(container) = container else {
            return Err(PlanError::MissingContainer {
                what,
                service: provider,
            }
            .into());
        };
        references::resolve(service, &provider, &container.id);
    }
    references::resolve_containers(service);
    Ok(())
}

impl Prepared {
    /// Starts the container with the user at its streams, and passes its exit code on.
    async fn attach(self) -> Result<ExitCode, CommandError> {
        let (engine, id) = (&self.converge.engine, self.id.as_str());
        let path = format!(
            "/containers/{id}/attach?stream=1&stdin={}&stdout=1&stderr=1",
            u8::from(self.interactive)
        );
        let streams = engine.hijack(&path, None).await?;
        // Asked for before the start: with `--rm` nobody could answer afterwards. Then the container is gone when we
        // return, as whoever asked for its removal expects.
        let condition = if self.removes_itself { "removed" } else { "next-exit" };
        let path = format!("/containers/{id}/wait?condition={condition}");
        let wait = engine.request(http::Method::POST, &path, None).await?;
        if let Err(error) = engine.docker.start_container(id, None::<StartContainerOptions>).await {
            self.remove_unstarted().await;
            return Err(ClientError::from(error).into());
        }
        let connection = Connection {
            tty: self.tty,
            stdin: self.interactive,
            detach_keys: (self.interactive && self.tty).then(DetachKeys::default),
        };
        let resize = async |rows: u16, columns: u16| {
            let path = format!("/containers/{id}/resize?h={rows}&w={columns}");
            // The container may have ended already; its size no longer matters.
            let _ = engine.request(http::Method::POST, &path, None).await;
        };
        let ending = async {
            let (ending, hooks) = tokio::join!(hijacked::run(streams, connection, resize), self.post_start());
            hooks?;
            ending
        };
        // A terminal in raw mode sends signals as keys, which go to the process anyway.
        let ending = tokio::select! {
            ending = ending => ending?,
            error = forward_signals(engine, id), if !self.tty => return Err(error.into()),
        };
        if ending == Ending::Detached {
            return Ok(ExitCode::SUCCESS);
        }
        let answer: serde_json::Value = client::json(wait).await?;
        match answer
            .get("StatusCode")
            .and_then(serde_json::Value::as_i64)
            .unwrap_or_default()
        {
            0 => Ok(ExitCode::SUCCESS),
            code => {
                // One that removes itself is gone by now, and its exit code is all there is.
                if let Ok(container) = engine.docker.inspect_container(id, None).await
                    && let Some(text) = out_of_memory::explain(&container, &self.converge.project)
                {
                    stream::warn(text);
                }
                Err(CommandError::status(code))
            }
        }
    }

    async fn post_start(&self) -> Result<(), CommandError> {
        let container = Container {
            id: self.id.clone(),
            service: self.service.name.clone(),
            ..Container::default()
        };
        for hook in &self.service.post_start {
            let status = hooks::run(&self.converge.engine, &container, hook, None).await?;
            if status != 0 {
                return Err(CommandError::message(format!(
                    "{} hook exited with status {status}",
                    self.service.name
                )));
            }
        }
        Ok(())
    }

    /// A container that never started does not remove itself.
    async fn remove_unstarted(&self) {
        if self.removes_itself {
            let options = RemoveContainerOptions {
                force: true,
                v: true,
                link: false,
            };
            // The failed start is what the user has to know.
            let _ = self
                .converge
                .engine
                .docker
                .remove_container(&self.id, Some(options))
                .await;
        }
    }
}

impl Args {
    /// Changes the service as the flags say.
    // docker/compose pkg/compose/run.go: applyRunOptions; cmd/compose/run.go: apply
    fn apply(&self, service: &mut Service, project: &Project, context: &Context) -> Result<(), CommandError> {
        service.restart.clear();
        if let Some(deploy) = &mut service.deploy {
            deploy.restart_policy = None;
        }
        service.container_name.clear();
        service.set_replicas(1);
        if !self.service_ports {
            service.ports.clear();
        }
        for port in &self.publish {
            service.ports.extend(parse_ports(port)?);
        }
        for volume in &self.volume {
            let mut mount = parse_mount(volume)?;
            if mount.r#type == "bind" {
                mount.source = context.absolute(&mount.source).display().to_string();
            }
            service.volumes.retain(|other| other.target != mount.target);
            service.volumes.push(mount);
        }
        if !self.command.is_empty() {
            service.command.0 = Some(self.command.clone());
        }
        if let Some(entrypoint) = self.entrypoint.as_deref().filter(|entrypoint| !entrypoint.is_empty()) {
            service.entrypoint.0 = Some(split_words(entrypoint)?);
            if self.command.is_empty() {
                service.command.0 = Some(Vec::new());
            }
        }
        if let Some(user) = &self.user {
            service.user.clone_from(user);
        }
        if let Some(directory) = &self.workdir {
            service.working_dir.clone_from(directory);
        }
        service.cap_drop.retain(|name| !self.cap_add.contains(name));
        service.cap_add.extend(self.cap_add.clone());
        service.cap_add.retain(|name| !self.cap_drop.contains(name));
        service.cap_drop.extend(self.cap_drop.clone());
        for label in &self.label {
            let (name, value) = label
                .split_once('=')
                .ok_or_else(|| CommandError::message("label must be set as KEY=VALUE"))?;
            service.labels.insert(name.to_owned(), value.to_owned());
        }
        self.set_environment(service, project, context)
    }

    /// Files first, then single variables; one without a value takes the project's, or stays as it is.
    fn set_environment(&self, service: &mut Service, project: &Project, context: &Context) -> Result<(), CommandError> {
        let lookup = |name: &str| project.environment.get(name).cloned();
        for file in &self.env_from_file {
            let path = context.absolute(file);
            let text = std::fs::read_to_string(&path).map_err(|error| {
                CommandError::message(match error.kind() {
                    std::io::ErrorKind::NotFound => format!("open {file}: no such file or directory"),
                    _ => format!("couldn't read env file {}: {error}", path.display()),
                })
            })?;
            let mut sources = Sources::default();
            let source = sources.add(path.display().to_string(), text);
            let read = dotenv::parse(&sources, source, &lookup, &BTreeMap::new())
                .map_err(|error| CommandError::message(error.to_string()))?;
            for (name, value) in read.variables {
                service.environment.insert(name, Some(value));
            }
        }
        for variable in &self.env {
            match variable.split_once('=') {
                Some((name, value)) => {
                    service.environment.insert(name.to_owned(), Some(value.to_owned()));
                }
                None => {
                    if let Some(value) = lookup(variable) {
                        service.environment.insert(variable.clone(), Some(value));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Returns 64 random hexadecimal digits.
fn random_digits() -> Result<String, CommandError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| CommandError::message(format!("cannot get random bytes: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
