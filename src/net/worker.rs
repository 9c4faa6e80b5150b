//! The threads that change network namespaces.
//!
//! A thread's namespace is its own, so work inside a container's namespace is done by threads that do nothing else;
//! what runs on tokio's threads is always in the host's.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use super::error::NetError;
use crate::os::netlink::{Protocol, Socket};
use crate::os::netns;

/// Two, because the kernel makes namespaces in parallel but links one at a time.
const THREADS: usize = 2;

type Job = Box<dyn FnOnce(&mut Host) + Send>;

/// A namespace with nothing in it that whoever needs the next one finds made.
#[derive(Debug, Default)]
struct Spare {
    namespace: Mutex<Option<OwnedFd>>,
    /// Whether one was used since the last one was made.
    is_wanted: AtomicBool,
    /// How many jobs wait, which go before.
    jobs: AtomicUsize,
}

/// What a job works with: the host's namespace, seen from wherever the thread is.
#[derive(Debug)]
pub struct Host {
    namespace: OwnedFd,
    spare: Arc<Spare>,
    /// Links, addresses and routes of the host.
    pub route: Socket,
}

/// The threads.
#[derive(Clone, Debug)]
pub struct Workers {
    jobs: Sender<Job>,
    spare: Arc<Spare>,
}

impl Workers {
    /// Starts the threads in a namespace, which is the host's to them: the calling thread's, unless another is given.
    pub fn start(namespace: Option<OwnedFd>) -> Result<Self, NetError> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let namespace = namespace.map(Arc::new);
        let spare = Arc::new(Spare::default());
        for at in 0..THREADS {
            let failed = || NetError::system("start a thread for network namespaces");
            let queue = Arc::clone(&queue);
            let namespace = namespace.clone();
            let of_thread = Arc::clone(&spare);
            let (opened, open) = channel();
            std::thread::Builder::new()
                .name(format!("net-{at}"))
                .stack_size(256 * 1024)
                .spawn(move || {
                    let entered = namespace.map_or(Ok(()), netns::enter);
                    match entered.and_then(|()| Host::open(of_thread)) {
                        Ok(mut host) => {
                            let _ = opened.send(Ok(()));
                            work(&mut host, &queue);
                        }
                        Err(error) => drop(opened.send(Err(error))),
                    }
                })
                .map_err(failed())?;
            open.recv()
                .unwrap_or_else(|_| Err(io::ErrorKind::UnexpectedEof.into()))
                .map_err(failed())?;
        }
        Ok(Self { jobs, spare })
    }

    /// Runs a job on one of the threads.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Host) -> T + Send + 'static,
    ) -> Result<T, NetError> {
        let (done, result) = oneshot::channel();
        let job = Box::new(move |host: &mut Host| {
            // Nobody waits any more if the caller was dropped; the job's work is done all the same.
            let _ = done.send(job(host));
        });
        self.spare.jobs.fetch_add(1, Ordering::Relaxed);
        self.jobs.send(job).map_err(|_| NetError::Ended)?;
        result.await.map_err(|_| NetError::Ended)
    }
}

fn work(host: &mut Host, queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        host.spare.jobs.fetch_sub(1, Ordering::Relaxed);
        job(host);
        host.make_spare();
    }
}

impl Host {
    fn open(spare: Arc<Spare>) -> io::Result<Self> {
        Ok(Self {
            namespace: netns::current()?,
            spare,
            route: Socket::open(Protocol::Route)?,
        })
    }

    /// Makes a namespace and does `work` in it.
    pub fn in_new_namespace<T>(
        &mut self,
        work: impl FnOnce(&mut Self, BorrowedFd<'_>) -> Result<T, NetError>,
    ) -> Result<(OwnedFd, T), NetError> {
        self.spare.is_wanted.store(true, Ordering::Relaxed);
        let spare = self
            .spare
            .namespace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(namespace) = spare {
            let made = self.in_namespace(namespace.as_fd(), |host| work(host, namespace.as_fd()))?;
            return Ok((namespace, made));
        }
        netns::unshare().map_err(NetError::system("create a network namespace"))?;
        let namespace = netns::current().map_err(NetError::system("open the new network namespace"));
        let result = namespace.and_then(|namespace| {
            let made = work(self, namespace.as_fd())?;
            Ok((namespace, made))
        });
        self.go_back();
        result
    }

    /// Makes a namespace for the next one who needs one, if any was needed before: the kernel takes its time for that.
    fn make_spare(&self) {
        let is_time =
            self.spare.jobs.load(Ordering::Relaxed) == 0 && self.spare.is_wanted.swap(false, Ordering::Relaxed);
        if !is_time || netns::unshare().is_err() {
            return;
        }
        let made = netns::current();
        self.go_back();
        if let Ok(made) = made {
            *self.spare.namespace.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        }
    }

    /// Does `work` in a namespace that exists.
    pub fn in_namespace<T>(
        &mut self,
        namespace: BorrowedFd<'_>,
        work: impl FnOnce(&mut Self) -> Result<T, NetError>,
    ) -> Result<T, NetError> {
        netns::enter(namespace).map_err(NetError::system("enter the container's network namespace"))?;
        let result = work(self);
        self.go_back();
        result
    }

    /// Returns to the host's namespace. A thread that cannot ends here: it must not do the next job in a container's.
    fn go_back(&self) {
        netns::enter(&self.namespace).expect("a namespace that a thread came from can be entered again");
    }
}
