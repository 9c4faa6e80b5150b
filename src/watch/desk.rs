//! What is to be done and may start now: copies at once, whatever else is going on; rebuilds, restarts and hooks when
//! the burst that asked for them is over, never two at a time on one service.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Batch, Mapping};

/// How long a burst is waited for before something that takes long is begun, after its last change and at the most.
const SETTLE: Duration = Duration::from_millis(50);
const LONGEST_SETTLE: Duration = Duration::from_millis(500);

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Copy to a service's containers, or delete there what is not here any more.
    Sync {
        service: String,
        files: Vec<Mapping>,
        /// They were there in a container that has been replaced.
        again: bool,
    },
    /// Build anew and replace; each service with the path that is the reason.
    Rebuild(BTreeMap<String, PathBuf>),
    Restart(BTreeMap<String, PathBuf>),
    /// Run the hooks of these rules.
    Exec {
        service: String,
        rules: BTreeMap<usize, PathBuf>,
    },
}

/// Where work is laid down and taken up.
#[derive(Debug, Default)]
pub struct Desk {
    sync: BTreeMap<String, BTreeMap<String, Mapping>>,
    syncing: BTreeSet<String>,
    rebuild: BTreeMap<String, PathBuf>,
    restart: BTreeMap<String, PathBuf>,
    exec: BTreeMap<String, BTreeMap<usize, PathBuf>>,
    /// Services that are being rebuilt, restarted or given a hook.
    busy: BTreeSet<String>,
    /// What was copied to services. A new container may have been made without it.
    copied: BTreeMap<String, BTreeMap<String, Mapping>>,
    again: BTreeSet<String>,
    /// When the slow work was asked for: first and last.
    asked: Option<(Instant, Instant)>,
}

impl Desk {
    /// Adds what a batch of changes leads to.
    pub fn add(&mut self, batch: Batch, now: Instant) {
        for (service, files) in batch.sync {
            let copied = self.copied.entry(service.clone()).or_default();
            copied.extend(files.iter().map(|file| (file.to.clone(), file.clone())));
            let wanted = self.sync.entry(service).or_default();
            wanted.extend(files.into_iter().map(|file| (file.to.clone(), file)));
        }
        if batch.rebuild.is_empty() && batch.restart.is_empty() && batch.exec.is_empty() {
            return;
        }
        let first = self.asked.map_or(now, |(first, _)| first);
        self.asked = Some((first, now));
        for (service, cause) in batch.rebuild {
            self.rebuild.entry(service).or_insert(cause);
        }
        for (service, cause) in batch.restart {
            self.restart.entry(service).or_insert(cause);
        }
        for ((service, rule), cause) in batch.exec {
            self.exec.entry(service).or_default().entry(rule).or_insert(cause);
        }
    }

    /// Returns when slow work may begin, if there is some.
    pub fn settles_at(&self) -> Option<Instant> {
        let (first, last) = self.asked?;
        Some((last + SETTLE).min(first + LONGEST_SETTLE))
    }

    /// Returns whether nothing is wanted and nothing under way.
    pub fn is_idle(&self) -> bool {
        self.sync.is_empty()
            && self.again.is_empty()
            && self.syncing.is_empty()
            && self.busy.is_empty()
            && self.asked.is_none()
    }

    /// Takes what may start now.
    pub fn take(&mut self, now: Instant) -> Vec<Job> {
        let mut jobs = Vec::new();
        let free: Vec<String> = self
            .sync
            .keys()
            .filter(|service| !self.syncing.contains(*service))
            .cloned()
            .collect();
        for service in free {
            let files = self.sync.remove(&service).unwrap_or_default().into_values().collect();
            self.syncing.insert(service.clone());
            jobs.push(Job::Sync {
                service,
                files,
                again: false,
            });
        }
        for service in std::mem::take(&mut self.again) {
            if self.syncing.contains(&service) {
                self.again.insert(service);
                continue;
            }
            let files = self.copied.get(&service).into_iter().flat_map(BTreeMap::values);
            let files = files.cloned().collect();
            self.syncing.insert(service.clone());
            jobs.push(Job::Sync {
                service,
                files,
                again: true,
            });
        }
        if self.settles_at().is_none_or(|settled| settled > now) {
            return jobs;
        }
        let rebuild = take_free(&mut self.rebuild, |service| !self.busy.contains(service));
        for service in rebuild.keys() {
            // The new container is started anyway.
            self.restart.remove(service);
            self.busy.insert(service.clone());
        }
        if !rebuild.is_empty() {
            jobs.push(Job::Rebuild(rebuild));
        }
        let ready = |desk: &Self, service: &str| {
            !desk.busy.contains(service)
                && !desk.rebuild.contains_key(service)
                && !desk.sync.contains_key(service)
                && !desk.again.contains(service)
                && !desk.syncing.contains(service)
        };
        let mut restart = std::mem::take(&mut self.restart);
        let now_restarted = take_free(&mut restart, |service| ready(self, service));
        self.restart = restart;
        self.busy.extend(now_restarted.keys().cloned());
        if !now_restarted.is_empty() {
            jobs.push(Job::Restart(now_restarted));
        }
        let mut exec = std::mem::take(&mut self.exec);
        let now_run = take_free(&mut exec, |service| {
            ready(self, service) && !self.restart.contains_key(service)
        });
        self.exec = exec;
        for (service, rules) in now_run {
            self.busy.insert(service.clone());
            jobs.push(Job::Exec { service, rules });
        }
        if self.rebuild.is_empty() && self.restart.is_empty() && self.exec.is_empty() {
            self.asked = None;
        }
        jobs
    }

    /// Copies what was copied to a service once more: there is a new container of it.
    pub fn copy_again(&mut self, service: &str) {
        if self.copied.contains_key(service) {
            self.again.insert(service.to_owned());
        }
    }

    /// Takes back a job that could not be done now, noted as done before. What came since is as new as it.
    pub fn give_back(&mut self, job: Job, now: Instant) {
        let mut batch = Batch::default();
        match job {
            Job::Sync {
                service, again: true, ..
            } => {
                self.again.insert(service);
            }
            Job::Sync { service, files, .. } => {
                batch.sync.insert(service, files);
            }
            Job::Rebuild(services) => batch.rebuild = services,
            Job::Restart(services) => batch.restart = services,
            Job::Exec { service, rules } => {
                let rules = rules.into_iter().map(|(rule, cause)| ((service.clone(), rule), cause));
                batch.exec = rules.collect();
            }
        }
        self.add(batch, now);
    }

    /// Notes that a job was done.
    pub fn done(&mut self, job: &Job) {
        match job {
            Job::Sync { service, .. } => {
                self.syncing.remove(service);
            }
            Job::Rebuild(services) => {
                for service in services.keys() {
                    self.busy.remove(service);
                    if self.copied.contains_key(service) {
                        self.again.insert(service.clone());
                    }
                }
            }
            Job::Restart(services) => {
                for service in services.keys() {
                    self.busy.remove(service);
                }
            }
            Job::Exec { service, .. } => {
                self.busy.remove(service);
            }
        }
    }
}

fn take_free<V>(wanted: &mut BTreeMap<String, V>, is_free: impl Fn(&str) -> bool) -> BTreeMap<String, V> {
    let all = std::mem::take(wanted);
    let (free, rest) = all.into_iter().partition(|(service, _)| is_free(service));
    *wanted = rest;
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(to: &str) -> Mapping {
        Mapping {
            from: format!("/p{to}").into(),
            to: to.to_owned(),
            is_below: true,
        }
    }

    fn sync(service: &str, to: &str) -> Batch {
        Batch {
            sync: [(service.to_owned(), vec![mapping(to)])].into(),
            ..Batch::default()
        }
    }

    fn rebuild(service: &str) -> Batch {
        Batch {
            rebuild: [(service.to_owned(), PathBuf::from("go.mod"))].into(),
            ..Batch::default()
        }
    }

    #[test]
    fn copies_do_not_wait_and_gather_while_one_is_under_way() {
        let mut desk = Desk::default();
        let now = Instant::now();
        desk.add(sync("web", "/a"), now);
        let first = desk.take(now);
        assert_eq!(first.len(), 1);
        desk.add(sync("web", "/b"), now);
        desk.add(sync("web", "/c"), now);
        desk.add(sync("web", "/b"), now);
        assert_eq!(desk.take(now), []);
        desk.done(&first[0]);
        let second = desk.take(now);
        assert!(matches!(&second[..], [Job::Sync { files, .. }] if files.len() == 2));
        desk.done(&second[0]);
        assert!(desk.is_idle());
    }

    #[test]
    fn a_burst_leads_to_one_rebuild_and_one_without_end_to_one_all_the_same() {
        let mut desk = Desk::default();
        let start = Instant::now();
        let mut begun = Vec::new();
        for step in 0..600 {
            let now = start + Duration::from_millis(step);
            desk.add(rebuild("api"), now);
            begun.extend(desk.take(now));
        }
        assert_eq!(begun.len(), 1);
        desk.done(&begun[0]);
        assert!(matches!(
            &desk.take(start + Duration::from_secs(2))[..],
            [Job::Rebuild(_)]
        ));
    }

    #[test]
    fn what_was_copied_is_copied_again_into_a_rebuilt_container() {
        let mut desk = Desk::default();
        let now = Instant::now();
        let copy = |desk: &mut Desk, to| {
            desk.add(sync("api", to), now);
            let copy = desk.take(now).remove(0);
            desk.done(&copy);
        };
        copy(&mut desk, "/before");
        desk.add(rebuild("api"), now);
        let job = desk.take(now + SETTLE).remove(0);
        copy(&mut desk, "/during");
        desk.done(&job);
        let expected = Job::Sync {
            service: "api".to_owned(),
            files: vec![mapping("/before"), mapping("/during")],
            again: true,
        };
        assert_eq!(desk.take(now), [expected]);
    }

    #[test]
    fn a_restart_waits_for_the_copies_and_a_hook_for_the_restart() {
        let mut desk = Desk::default();
        let now = Instant::now();
        let mut batch = sync("web", "/a");
        batch.restart.insert("web".to_owned(), "a".into());
        batch.exec.insert(("web".to_owned(), 3), "a".into());
        desk.add(batch, now);
        let later = now + SETTLE;
        let mut seen = Vec::new();
        while let Some(job) = desk.take(later).into_iter().next() {
            assert_eq!(desk.take(later), [], "one after the other");
            seen.push(match &job {
                Job::Sync { .. } => "sync",
                Job::Restart(_) => "restart",
                Job::Exec { .. } => "exec",
                Job::Rebuild(_) => "rebuild",
            });
            desk.done(&job);
        }
        assert_eq!(seen, ["sync", "restart", "exec"]);
        assert!(desk.is_idle());
    }

    #[test]
    fn what_could_not_be_done_is_done_later() {
        let mut desk = Desk::default();
        let now = Instant::now();
        let mut batch = sync("web", "/a");
        batch.exec.insert(("web".to_owned(), 0), "a".into());
        desk.add(batch, now);
        let copy = desk.take(now).remove(0);
        desk.done(&copy);
        desk.give_back(copy.clone(), now);
        let later = now + SETTLE;
        assert_eq!(
            desk.take(later).as_slice(),
            std::slice::from_ref(&copy),
            "the hook waits for it"
        );
        desk.done(&copy);
        let hook = desk.take(later).remove(0);
        desk.done(&hook);
        desk.give_back(hook.clone(), later);
        assert_eq!(desk.take(later + SETTLE), [hook]);
    }

    #[test]
    fn a_new_container_gets_what_the_others_have() {
        let mut desk = Desk::default();
        let now = Instant::now();
        desk.copy_again("web");
        assert!(desk.is_idle());
        desk.add(sync("web", "/a"), now);
        let copy = desk.take(now).remove(0);
        desk.copy_again("web");
        assert_eq!(desk.take(now), [], "one after the other");
        desk.done(&copy);
        assert!(matches!(&desk.take(now)[..], [Job::Sync { again: true, files, .. }] if files.len() == 1));
    }

    #[test]
    fn services_do_not_wait_for_each_other() {
        let mut desk = Desk::default();
        let now = Instant::now();
        desk.add(rebuild("api"), now);
        desk.take(now + SETTLE);
        desk.add(
            Batch {
                restart: [("web".to_owned(), PathBuf::from("x"))].into(),
                ..rebuild("api")
            },
            now,
        );
        assert!(matches!(&desk.take(now + SETTLE)[..], [Job::Restart(_)]));
    }
}
