//! What a project's `develop.watch` says: which change leads to which action on which service.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::ignore::is_ephemeral;
use crate::build::context::{Context as BuildContext, ContextError};
use crate::build::ignore::{Ignore, PatternError};
use crate::model::{Hook, Project, Service};

/// What follows a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Sync,
    Rebuild,
    Restart,
    SyncRestart,
    SyncExec,
}

/// One path of one service, and what follows a change there.
#[derive(Debug)]
pub struct Rule {
    pub service: String,
    pub action: Action,
    pub path: PathBuf,
    target: String,
    include: Option<Ignore>,
    ignore: Ignore,
    /// Whose files stay out of the image too: the build's context and its ignore file.
    docker_ignore: Option<(PathBuf, Ignore)>,
    pub hook: Hook,
    pub initial_sync: bool,
    /// The container sees the path itself by a bind mount; a copy would overwrite what it is a copy of.
    is_mounted: bool,
}

/// A file here and its place in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub from: PathBuf,
    pub to: String,
    /// It lies below the rule's target, so that what is in its way may go.
    pub is_below: bool,
}

/// All rules of a project, in the order of the file.
#[derive(Debug, Default)]
pub struct Rules {
    pub rules: Vec<Rule>,
    /// Files that say what is ignored: when they change, the rules have to be read again.
    pub ignore_files: BTreeSet<PathBuf>,
    /// What the user should know about the rules.
    pub warnings: Vec<String>,
}

/// What a set of changes leads to. The path that an action is done for is kept with it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub sync: BTreeMap<String, Vec<Mapping>>,
    pub rebuild: BTreeMap<String, PathBuf>,
    pub restart: BTreeMap<String, PathBuf>,
    /// By service and rule.
    pub exec: BTreeMap<(String, usize), PathBuf>,
}

/// The rules make no sense.
#[derive(Debug, thiserror::Error)]
pub enum RuleError {
    #[error("none of the selected services is configured for watch, consider setting a 'develop' section")]
    None,
    #[error("can't watch service \"{0}\" with action rebuild without a build context")]
    NoBuild(String),
    #[error("can't watch with action \"sync+exec\" on service {0} without a command")]
    NoCommand(String),
    #[error("service \"{service}\": watch rule for {}: unknown action \"{action}\"", path.display())]
    UnknownAction {
        service: String,
        path: PathBuf,
        action: String,
    },
    #[error("service \"{service}\": watch rule for {}: {source}", path.display())]
    Pattern {
        service: String,
        path: PathBuf,
        #[source]
        source: PatternError,
    },
    #[error(transparent)]
    Ignore(#[from] ContextError),
}

impl Action {
    fn parse(text: &str) -> Option<Self> {
        let all = [
            Self::Sync,
            Self::Rebuild,
            Self::Restart,
            Self::SyncRestart,
            Self::SyncExec,
        ];
        all.into_iter().find(|action| action.name() == text)
    }

    /// Returns its name in the file.
    fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Rebuild => "rebuild",
            Self::Restart => "restart",
            Self::SyncRestart => "sync+restart",
            Self::SyncExec => "sync+exec",
        }
    }

    /// Returns whether files are copied.
    pub fn syncs(self) -> bool {
        matches!(self, Self::Sync | Self::SyncRestart | Self::SyncExec)
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Rules {
    /// Reads the rules of all services of the project.
    pub fn of(project: &Project) -> Result<Self, RuleError> {
        let mut all = Self::default();
        for service in project.services.values() {
            let Some(develop) = &service.develop else { continue };
            if develop.watch.is_empty() {
                continue;
            }
            let context = build_context(project, service);
            let docker_ignore = match context {
                Some(context) => {
                    all.ignore_files.extend(context.ignore_files());
                    let ignore = context.ignore_file()?;
                    Some((context.directory, ignore))
                }
                None => None,
            };
            for watch in &develop.watch {
                all.add(project, service, watch, docker_ignore.clone())?;
            }
        }
        if all.rules.is_empty() {
            return Err(RuleError::None);
        }
        Ok(all)
    }

    fn add(
        &mut self,
        project: &Project,
        service: &Service,
        watch: &crate::model::Watch,
        docker_ignore: Option<(PathBuf, Ignore)>,
    ) -> Result<(), RuleError> {
        let path = clean(&project.working_dir.join(&watch.path));
        let Some(action) = Action::parse(&watch.action) else {
            return Err(RuleError::UnknownAction {
                service: service.name.clone(),
                path,
                action: watch.action.clone(),
            });
        };
        if action == Action::Rebuild && service.build.is_none() {
            return Err(RuleError::NoBuild(service.name.clone()));
        }
        if action == Action::SyncExec && watch.exec.command.words().is_empty() {
            return Err(RuleError::NoCommand(service.name.clone()));
        }
        let is_mounted = service
            .volumes
            .iter()
            .any(|mount| mount.bind.is_some() && path.starts_with(&mount.source));
        if is_mounted && matches!(action, Action::Sync | Action::SyncRestart) {
            self.warnings.push(format!(
                "path '{}' also declared by a bind mount volume, this path won't be monitored!\n",
                path.display()
            ));
            return Ok(());
        }
        let pattern = |source| RuleError::Pattern {
            service: service.name.clone(),
            path: path.clone(),
            source,
        };
        let patterns = |list: &[String]| Ignore::from_patterns(list.iter().map(String::as_str));
        let ignore = patterns(&watch.ignore).map_err(pattern)?;
        let include = match watch.include.as_slice() {
            [] => None,
            list => Some(patterns(list).map_err(pattern)?),
        };
        let legacy = watch
            .extensions
            .get("x-initialSync")
            .is_some_and(|value| matches!(value, crate::model::Value::Bool(true)));
        if legacy && !watch.initial_sync {
            self.warnings
                .push("x-initialSync is DEPRECATED, please use the official `initial_sync` attribute\n".to_owned());
        }
        self.rules.push(Rule {
            service: service.name.clone(),
            action,
            path,
            target: watch.target.clone(),
            include,
            ignore,
            docker_ignore,
            hook: watch.exec.clone(),
            initial_sync: watch.initial_sync || legacy,
            is_mounted,
        });
        Ok(())
    }

    /// Returns the paths that have to be watched.
    pub fn roots(&self) -> Vec<PathBuf> {
        let paths = self.rules.iter().map(|rule| &rule.path);
        let paths: BTreeSet<&PathBuf> = paths.chain(&self.ignore_files).collect();
        paths.into_iter().cloned().collect()
    }

    /// Returns whether no rule has to do with a directory or anything below it.
    pub fn prunes(&self, directory: &Path) -> bool {
        !self.rules.iter().any(|rule| rule.concerns_below(directory))
            && !self.ignore_files.iter().any(|file| file.starts_with(directory))
    }

    /// Returns whether a change of the path leads to anything.
    pub fn concerns(&self, path: &Path) -> bool {
        self.rules.iter().any(|rule| rule.matches(path).is_some())
    }

    /// Returns what changes of these paths lead to.
    pub fn batch(&self, paths: &[PathBuf]) -> Batch {
        let mut batch = Batch::default();
        for path in paths {
            for (index, rule) in self.rules.iter().enumerate() {
                let Some(mapping) = rule.matches(path) else { continue };
                let service = rule.service.clone();
                if rule.action.syncs() && !rule.is_mounted {
                    batch.sync.entry(service.clone()).or_default().push(mapping);
                }
                match rule.action {
                    Action::Sync => {}
                    Action::Rebuild => {
                        batch.rebuild.entry(service).or_insert_with(|| path.clone());
                    }
                    Action::Restart | Action::SyncRestart => {
                        batch.restart.entry(service).or_insert_with(|| path.clone());
                    }
                    Action::SyncExec => {
                        batch.exec.entry((service, index)).or_insert_with(|| path.clone());
                    }
                }
            }
        }
        batch
    }
}

impl Rule {
    /// Returns where in the container the path belongs.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns where in the container a file belongs, if the rule is about it. A rule that copies nothing says so by
    /// an empty place.
    pub fn matches(&self, path: &Path) -> Option<Mapping> {
        let inside = path.strip_prefix(&self.path).ok()?;
        let relative = inside.to_string_lossy();
        if is_ephemeral(inside) || inside.as_os_str().is_empty() && path.file_name().is_none() {
            return None;
        }
        let matched = |pattern: &Ignore| pattern.excludes(&relative);
        if self.include.as_ref().is_some_and(|include| !matched(include)) || matched(&self.ignore) {
            return None;
        }
        if let Some((context, ignore)) = &self.docker_ignore
            && let Ok(in_context) = path.strip_prefix(context)
            && ignore.excludes(&in_context.to_string_lossy())
        {
            return None;
        }
        let target = self.target.as_str();
        let to = match (target, relative.is_empty()) {
            ("", _) => String::new(),
            (target, true) => target.to_owned(),
            (target, false) => format!("{}/{relative}", target.trim_end_matches('/')),
        };
        Some(Mapping {
            from: path.to_owned(),
            to,
            is_below: !relative.is_empty(),
        })
    }

    fn concerns_below(&self, directory: &Path) -> bool {
        let Ok(inside) = directory.strip_prefix(&self.path) else {
            return self.path.starts_with(directory);
        };
        if is_ephemeral(inside) || self.ignore.excludes_all_below(&inside.to_string_lossy()) {
            return false;
        }
        match &self.docker_ignore {
            Some((context, ignore)) => match directory.strip_prefix(context) {
                Ok(in_context) => !ignore.excludes_all_below(&in_context.to_string_lossy()),
                Err(_) => true,
            },
            None => true,
        }
    }
}

/// Returns what a service's image is built from, if that is on this machine.
fn build_context(project: &Project, service: &Service) -> Option<BuildContext> {
    let build = service.build.as_ref()?;
    if build.context.contains("://") || build.context.starts_with("git@") {
        return None;
    }
    Some(BuildContext {
        directory: clean(&project.working_dir.join(&build.context)),
        dockerfile: match build.dockerfile.as_str() {
            "" => "Dockerfile".into(),
            dockerfile => dockerfile.into(),
        },
        inline: None,
    })
}

/// Takes out `.` and undoes `..` by name.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Build, Develop, Watch};

    fn watch(path: &str, action: &str) -> Watch {
        Watch {
            path: path.to_owned(),
            action: action.to_owned(),
            target: if matches!(action, "rebuild" | "restart") {
                ""
            } else {
                "/app"
            }
            .to_owned(),
            ..Watch::default()
        }
    }

    fn project(services: Vec<(&str, Vec<Watch>)>) -> Project {
        let services = services.into_iter().map(|(name, watch)| {
            let service = Service {
                name: name.to_owned(),
                image: "i".to_owned(),
                build: Some(Box::new(Build {
                    context: "/nowhere".to_owned(),
                    ..Build::default()
                })),
                develop: Some(Box::new(Develop {
                    watch,
                    ..Develop::default()
                })),
                ..Service::default()
            };
            (name.to_owned(), service)
        });
        Project {
            working_dir: "/p".into(),
            services: services.collect(),
            ..Project::default()
        }
    }

    fn rules(services: Vec<(&str, Vec<Watch>)>) -> Rules {
        Rules::of(&project(services)).unwrap()
    }

    fn paths(paths: &[&str]) -> Vec<PathBuf> {
        paths.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn one_path_may_concern_several_rules_and_services() {
        let rules = rules(vec![
            ("api", vec![watch("./src", "sync"), watch("./src/go.mod", "rebuild")]),
            ("web", vec![watch("./src", "sync+restart")]),
        ]);
        let batch = rules.batch(&paths(&["/p/src/go.mod", "/p/src/a/b", "/p/other"]));
        let to = |service: &str| {
            let mappings = batch.sync[service].iter();
            mappings.map(|mapping| mapping.to.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(to("api"), ["/app/go.mod", "/app/a/b"]);
        assert_eq!(to("web"), ["/app/go.mod", "/app/a/b"]);
        assert_eq!(batch.rebuild, [("api".to_owned(), "/p/src/go.mod".into())].into());
        assert_eq!(batch.restart, [("web".to_owned(), "/p/src/go.mod".into())].into());
    }

    #[test]
    fn ignore_and_include_are_relative_to_the_path() {
        let with = |ignore: &[&str], include: &[&str]| {
            let list = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
            rules(vec![(
                "s",
                vec![Watch {
                    ignore: list(ignore),
                    include: list(include),
                    ..watch("src", "sync")
                }],
            )])
        };
        let hits = |rules: &Rules, path: &str| !rules.batch(&paths(&[path])).sync.is_empty();
        let ignoring = with(&["node_modules/", "**/*.pyc"], &[]);
        assert!(hits(&ignoring, "/p/src/a.py"));
        assert!(!hits(&ignoring, "/p/src/node_modules/x/y"));
        assert!(!hits(&ignoring, "/p/src/deep/a.pyc"));
        assert!(ignoring.prunes(Path::new("/p/src/node_modules")));
        assert!(!ignoring.prunes(Path::new("/p/src/deep")));
        assert!(!ignoring.prunes(Path::new("/p")));
        assert!(ignoring.prunes(Path::new("/p/src/.git")));
        let including = with(&[], &["**/*.html", "static"]);
        assert!(hits(&including, "/p/src/a/b.html"));
        assert!(hits(&including, "/p/src/static/x.css"));
        assert!(!hits(&including, "/p/src/a.css"));
    }

    #[test]
    fn a_file_rule_maps_the_file_itself() {
        let rules = rules(vec![(
            "s",
            vec![Watch {
                target: "/etc/app.conf".to_owned(),
                ..watch("./app.conf", "sync")
            }],
        )]);
        let batch = rules.batch(&paths(&["/p/app.conf"]));
        let mapping = &batch.sync["s"][0];
        assert_eq!((mapping.to.as_str(), mapping.is_below), ("/etc/app.conf", false));
        assert_eq!(rules.batch(&paths(&["/p/app.conf.d/x"])), Batch::default());
    }

    #[test]
    fn rules_that_make_no_sense_are_refused() {
        let mut without_build = project(vec![("s", vec![watch(".", "rebuild")])]);
        without_build.services.get_mut("s").unwrap().build = None;
        for (project, text) in [
            (
                without_build,
                "can't watch service \"s\" with action rebuild without a build context",
            ),
            (
                project(vec![("s", vec![watch(".", "sync+exec")])]),
                "can't watch with action \"sync+exec\" on service s without a command",
            ),
            (
                project(vec![("s", vec![])]),
                "none of the selected services is configured for watch, consider setting a 'develop' section",
            ),
        ] {
            assert_eq!(Rules::of(&project).unwrap_err().to_string(), text);
        }
    }
}
