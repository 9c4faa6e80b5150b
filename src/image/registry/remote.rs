//! One repository at one registry: its manifests and blobs.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use http::{Method, StatusCode};
use reqwest::{Body, Response};
use tokio::sync::mpsc;

use super::challenge::Scope;
use super::credentials::{self, Login};
use super::settings::Endpoint;
use super::transport::{self, Call, Transport, TransportError};
use super::{ATTEMPTS, MAX_DOCUMENT, RegistryError, chain, pull_error, retrying};
use crate::image::archive::{DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, OCI_INDEX, OCI_MANIFEST};
use crate::image::{ImageError, Reference, sha256};

/// A repository, with what is needed to talk about it.
pub(super) struct Remote {
    transport: Transport,
    scope: Scope,
    /// The repository's path there.
    repository: String,
    pub reference: Reference,
    /// Why the login for it could not be read.
    problem: Option<String>,
}

/// What becomes of a blob that is to be sent.
pub(super) enum Upload {
    /// It was in another repository of the registry, and now is in this one as well.
    Mounted(String),
    /// It is to be sent here.
    To(reqwest::Url),
}

impl Remote {
    pub(super) async fn connect(
        endpoint: &Endpoint,
        reference: &Reference,
        login: Option<&Login>,
        to_push: bool,
    ) -> Result<Self, ImageError> {
        let found = match login {
            Some(login) if !endpoint.is_mirror => credentials::Found {
                login: Some(login.clone()),
                problem: None,
            },
            _ => {
                let (host, reference) = (endpoint.host.clone(), reference.clone());
                tokio::task::spawn_blocking(move || credentials::find(&host, &reference))
                    .await
                    .unwrap_or_default()
            }
        };
        let repository = endpoint.repository(reference.path());
        let scope = if to_push {
            Scope::push(&repository)
        } else {
            Scope::pull(&repository)
        };
        let transport = retrying(|_| {}, || Transport::connect(endpoint, found.login.clone()))
            .await
            .map_err(|error| pull_error(reference, error, None))?;
        Ok(Self {
            transport,
            scope,
            repository,
            reference: reference.clone(),
            problem: found.problem,
        })
    }

    fn url(&self, path: &str) -> Result<reqwest::Url, TransportError> {
        self.transport.url(&format!("{}/{path}", self.repository))
    }

    async fn get(&self, path: &str, headers: HeaderMap) -> Result<Response, TransportError> {
        let call = Call {
            method: Method::GET,
            url: self.url(path)?,
            scope: &self.scope,
            headers,
            body: None,
        };
        self.transport.send(call).await
    }

    pub(super) fn refused(&self, error: TransportError) -> ImageError {
        pull_error(&self.reference, error, self.problem.as_deref())
    }

    pub(super) fn push_refused(&self, error: TransportError) -> ImageError {
        super::push_error(&self.reference, error, self.problem.as_deref())
    }

    /// Fetches a manifest and returns it with its digest, which is that of its bytes, whatever the registry says.
    pub(super) async fn manifest(&self, digest: Option<&str>) -> Result<(Vec<u8>, String), ImageError> {
        let expected = digest.or(self.reference.digest());
        let name = expected.unwrap_or_else(|| self.reference.tag().unwrap_or("latest"));
        let path = format!("manifests/{name}");
        let accept: Vec<_> = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX]
            .map(HeaderValue::from_static)
            .into();
        let fetch = async || {
            let mut headers = HeaderMap::new();
            for kind in &accept {
                headers.append(ACCEPT, kind.clone());
            }
            let response = self.get(&path, headers).await?;
            read(response).await
        };
        let bytes = retrying(|_| {}, fetch).await.map_err(|error| self.refused(error))?;
        let bytes = bytes.ok_or_else(|| RegistryError::TooLarge {
            digest: name.to_owned(),
            limit: MAX_DOCUMENT,
        })?;
        let actual = sha256(&bytes);
        if let Some(expected) = expected
            && expected != actual
        {
            return Err(ImageError::Digest {
                what: format!("the manifest of {}", self.reference.familiar()),
                expected: expected.to_owned(),
                actual,
            });
        }
        Ok((bytes, actual))
    }

    /// Fetches a small blob whole.
    pub(super) async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        let too_large = || RegistryError::TooLarge {
            digest: descriptor.digest.clone(),
            limit: MAX_DOCUMENT,
        };
        if descriptor.size > MAX_DOCUMENT {
            return Err(too_large().into());
        }
        let path = format!("blobs/{}", descriptor.digest);
        let fetch = async || read(self.get(&path, HeaderMap::new()).await?).await;
        let bytes = retrying(|_| {}, fetch).await.map_err(|error| self.refused(error))?;
        let bytes = bytes.ok_or_else(too_large)?;
        let actual = sha256(&bytes);
        if actual != descriptor.digest {
            return Err(ImageError::Digest {
                what: format!("the config of {}", self.reference.familiar()),
                expected: descriptor.digest.clone(),
                actual,
            });
        }
        Ok(bytes)
    }

    /// Streams a blob to `send`, going on where it broke off. `wait` is told of every pause before another try.
    pub(super) async fn blob(
        &self,
        descriptor: &Descriptor,
        send: &mpsc::Sender<Bytes>,
        listen: impl Fn(u64),
        wait: impl Fn(Duration),
    ) -> Result<(), ImageError> {
        let mut done: u64 = 0;
        let mut failures = 0;
        loop {
            let before = done;
            let result: Result<(), TransportError> = async {
                let (mut response, mut skip) = self.blob_from(descriptor, done).await?;
                while let Some(mut chunk) = chunk(&mut response).await? {
                    if skip > 0 {
                        let behind = skip.min(chunk.len() as u64);
                        skip -= behind;
                        chunk = chunk.slice(usize::try_from(behind).unwrap_or(chunk.len())..);
                    }
                    done += chunk.len() as u64;
                    if send.send(chunk).await.is_err() {
                        // Whoever unpacks has given up and says why itself.
                        return Ok(());
                    }
                    listen(done);
                }
                Ok(())
            }
            .await;
            // A slow line that breaks now and then is no broken registry: only tries that brought nothing count.
            if done > before {
                failures = 0;
            }
            failures += 1;
            let asked = match result {
                Ok(()) if done >= descriptor.size || send.is_closed() => return Ok(()),
                // The registry closed the connection early and politely.
                Ok(()) if failures < ATTEMPTS => None,
                Ok(()) => {
                    return Err(RegistryError::Transfer {
                        what: descriptor.digest.clone(),
                        reason: format!("unexpected EOF after {done} of {} bytes", descriptor.size),
                    }
                    .into());
                }
                Err(error) if failures < ATTEMPTS && super::is_worth_waiting(&error) => {
                    tracing::debug!(digest = %descriptor.digest, done, error = %chain(&error), "download broke off");
                    error.retry_after()
                }
                Err(error) => {
                    return Err(RegistryError::Transfer {
                        what: descriptor.digest.clone(),
                        reason: chain(&error),
                    }
                    .into());
                }
            };
            let pause = asked.unwrap_or_else(|| super::pause(failures));
            wait(pause);
            tokio::time::sleep(pause).await;
        }
    }

    /// Opens a blob at an offset; the second number says how many bytes come before it, where a registry has no ranges.
    async fn blob_from(&self, descriptor: &Descriptor, offset: u64) -> Result<(Response, u64), TransportError> {
        let mut headers = HeaderMap::new();
        if offset > 0
            && let Ok(range) = HeaderValue::from_str(&format!("bytes={offset}-"))
        {
            headers.insert(RANGE, range);
        }
        let response = self.get(&format!("blobs/{}", descriptor.digest), headers).await?;
        let skip = if response.status() == StatusCode::PARTIAL_CONTENT {
            // What it sends may begin elsewhere than it was asked to.
            let begins: Option<u64> = response.headers().get(http::header::CONTENT_RANGE).and_then(|range| {
                range
                    .to_str()
                    .ok()?
                    .strip_prefix("bytes ")?
                    .split('-')
                    .next()?
                    .parse()
                    .ok()
            });
            match begins {
                Some(begins) if begins > offset => {
                    return Err(TransportError::Protocol {
                        url: response.url().path().to_owned(),
                        problem: "it leaves bytes out",
                    });
                }
                Some(begins) => offset - begins,
                None => 0,
            }
        } else {
            offset
        };
        Ok((response, skip))
    }

    /// Returns whether the repository has a blob.
    pub(super) async fn has_blob(&self, digest: &str) -> Result<bool, TransportError> {
        let call = Call {
            method: Method::HEAD,
            url: self.url(&format!("blobs/{digest}"))?,
            scope: &self.scope,
            headers: HeaderMap::new(),
            body: None,
        };
        match self.transport.send(call).await {
            Ok(_) => Ok(true),
            Err(TransportError::Answer(answer)) if answer.status == StatusCode::NOT_FOUND => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Begins to send a blob, or has the registry take it from another repository.
    pub(super) async fn begin_upload(&self, digest: &str, from: Option<&str>) -> Result<Upload, TransportError> {
        let mut url = self.url("blobs/uploads/")?;
        let mut scope = self.scope.clone();
        if let Some(from) = from {
            url.query_pairs_mut()
                .append_pair("mount", digest)
                .append_pair("from", from);
            scope = scope.and_pull(from);
        }
        let call = Call {
            method: Method::POST,
            url,
            scope: &scope,
            headers: empty_body(),
            body: None,
        };
        let response = self.transport.send(call).await?;
        match (response.status(), from) {
            (StatusCode::CREATED, Some(from)) => Ok(Upload::Mounted(from.to_owned())),
            _ => Ok(Upload::To(transport::location(&response)?)),
        }
    }

    /// Sends a blob to where the registry wants it.
    pub(super) async fn upload(
        &self,
        mut to: reqwest::Url,
        digest: &str,
        size: u64,
        body: &(dyn Fn() -> std::io::Result<Body> + Sync),
    ) -> Result<(), TransportError> {
        to.query_pairs_mut().append_pair("digest", digest);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        let call = Call {
            method: Method::PUT,
            url: to,
            scope: &self.scope,
            headers,
            body: Some(body),
        };
        self.transport.send(call).await.map(drop)
    }

    /// Gives the repository a manifest under a name.
    pub(super) async fn put_manifest(
        &self,
        name: &str,
        bytes: &[u8],
        media_type: &'static str,
    ) -> Result<(), TransportError> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        let body = || Ok(Body::from(bytes.to_vec()));
        let call = Call {
            method: Method::PUT,
            url: self.url(&format!("manifests/{name}"))?,
            scope: &self.scope,
            headers,
            body: Some(&body),
        };
        self.transport.send(call).await.map(drop)
    }
}

fn empty_body() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    headers
}

async fn chunk(response: &mut Response) -> Result<Option<Bytes>, TransportError> {
    response.chunk().await.map_err(|source| TransportError::Request {
        method: Method::GET,
        url: response.url().path().to_owned(),
        source: source.without_url(),
    })
}

/// Reads a small answer whole; `None` if it is not small.
async fn read(mut response: Response) -> Result<Option<Vec<u8>>, TransportError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = chunk(&mut response).await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}
