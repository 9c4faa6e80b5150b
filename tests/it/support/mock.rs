//! A server that does with each request what its test says.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// How many times this path was asked for, this time included.
    pub time: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns the offset that a range begins at.
    pub fn from(&self) -> Option<usize> {
        self.header("range")?
            .strip_prefix("bytes=")?
            .split('-')
            .next()?
            .parse()
            .ok()
    }
}

/// What to answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Ends the connection after so many bytes of the body, although the header promises all.
    pub cut: Option<usize>,
}

impl Reply {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::status(200, body)
    }

    pub fn status(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            cut: None,
        }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn cut(mut self, after: usize) -> Self {
        self.cut = Some(after);
        self
    }
}

type Answer = dyn Fn(&Request) -> Reply + Send + Sync;

/// A running server; its threads end with the test process.
pub struct Mock {
    pub address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Mock {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", None, answer)
    }

    /// Starts one that speaks TLS, with the certificate and the key in these files.
    pub fn start_encrypted(
        address: &str,
        (certificate, key): (PathBuf, PathBuf),
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("they belong together");
        Self::start_at(address, Some(Arc::new(config)), answer)
    }

    /// Starts one at an address of this machine.
    pub fn start_at(
        address: &str,
        encryption: Option<Arc<rustls::ServerConfig>>,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let requests = Arc::new(Mutex::new(Vec::<Request>::new()));
        let (seen, answer): (_, Arc<Answer>) = (requests.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let Ok(connection) = connection else { break };
                let (seen, answer) = (seen.clone(), answer.clone());
                let session = encryption
                    .clone()
                    .map(|config| rustls::ServerConnection::new(config).expect("a session"));
                std::thread::spawn(move || {
                    // Whoever asked may have gone.
                    let _ = match session {
                        Some(session) => serve(rustls::StreamOwned::new(session, &connection), &*answer, &seen),
                        None => serve(&connection, &*answer, &seen),
                    };
                    let _ = connection.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        Self { address, requests }
    }

    /// Returns what was asked for so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no test panics with it").clone()
    }
}

fn serve(mut connection: impl Read + Write, answer: &Answer, seen: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(&mut connection);
    let mut request = Request::default();
    let mut line = String::new();
    reader.by_ref().take(64 * 1024).read_line(&mut line)?;
    let mut words = line.split_whitespace();
    request.method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    (request.path, request.query) = (path.to_owned(), query.to_owned());
    loop {
        line.clear();
        reader.by_ref().take(64 * 1024).read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => request.headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let length: u64 = request
        .header("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    reader.take(length).read_to_end(&mut request.body)?;
    request.time = {
        let mut seen = seen.lock().expect("no test panics with it");
        let time = 1 + seen.iter().filter(|other| other.path == request.path).count();
        seen.push(request.clone());
        time
    };
    let reply = answer(&request);
    let body = if request.method == "HEAD" {
        &[][..]
    } else {
        &reply.body[..]
    };
    let mut head = format!(
        "HTTP/1.1 {} x\r\nContent-Length: {}\r\nConnection: close\r\n",
        reply.status,
        reply.body.len()
    );
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    write!(connection, "{head}\r\n")?;
    connection.write_all(&body[..reply.cut.unwrap_or(body.len()).min(body.len())])?;
    connection.flush()
}
