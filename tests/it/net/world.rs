//! A host for each test: a network namespace in which the engine's networks are made, and an "outside" beyond it.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use compose::net::spec::{EndpointSpec, NetworkSpec, NetworkState, PortSpec, Protocol, SandboxSpec};
use compose::net::{NetConfig, Networks, Sandbox};
use compose::os::netlink::{self, CREATE, EXCLUSIVE, Message, Socket};
use compose::os::netns;
use hickory_proto::op::{Message as Question, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};

use crate::support::{available, is_root};

/// How long something that comes is waited for, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long something that must not come is waited for.
pub const IMPATIENCE: Duration = Duration::from_millis(400);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
pub const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// A host, what is beyond it, and an engine's networks on it.
pub struct World {
    pub networks: Networks,
    pub outside: OwnedFd,
    pub state: tempfile::TempDir,
}

impl World {
    /// Runs a test in a world of its own; false if there are no rights to make one.
    pub fn run(test: impl AsyncFnOnce(World) + Send + 'static) {
        if !available("the right to make network namespaces", is_root()) {
            return;
        }
        let host = std::thread::spawn(move || {
            netns::unshare().expect("a namespace");
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let outside = make_outside();
                let state = tempfile::tempdir().expect("a directory");
                let networks = Networks::open(config(&state)).await.expect("networks");
                test(World {
                    networks,
                    outside,
                    state,
                })
                .await;
            });
        });
        if let Err(panic) = host.join() {
            std::panic::resume_unwind(panic);
        }
    }

    pub async fn network(&self, name: &str) -> NetworkState {
        self.network_of(NetworkSpec {
            name: name.to_owned(),
            ..NetworkSpec::default()
        })
        .await
    }

    pub async fn network_of(&self, spec: NetworkSpec) -> NetworkState {
        let spec = NetworkSpec {
            id: id(&spec.name),
            ..spec
        };
        self.networks
            .create(spec)
            .await
            .unwrap_or_else(|error| panic!("{error}: {error:?}"))
    }

    pub async fn container(&self, name: &str, networks: &[&NetworkState], ports: &[PortSpec]) -> Sandbox {
        let sandbox = self.networks.sandbox(spec(name, networks, ports)).await;
        sandbox.unwrap_or_else(|error| panic!("{error}: {error:?}"))
    }
}

pub fn config(state: &tempfile::TempDir) -> NetConfig {
    NetConfig {
        state_dir: state.path().to_owned(),
        instance: "0e57ab1e".to_owned(),
        namespace: None,
    }
}

/// An id that looks like one and follows from a name.
pub fn id(name: &str) -> String {
    let mut id: String = name.bytes().map(|byte| format!("{byte:02x}")).collect();
    id.truncate(64);
    format!("{id:0<64}")
}

pub fn spec(name: &str, networks: &[&NetworkState], ports: &[PortSpec]) -> SandboxSpec {
    SandboxSpec {
        container: id(name),
        name: name.to_owned(),
        hostname: id(name)[..12].to_owned(),
        endpoints: networks
            .iter()
            .map(|network| EndpointSpec {
                network: network.spec.id.clone(),
                names: vec![name.to_owned(), name.trim_end_matches(char::is_numeric).to_owned()],
                ..EndpointSpec::default()
            })
            .collect(),
        ports: ports.to_vec(),
        ..SandboxSpec::default()
    }
}

pub fn port(text: &str, host_ports: (u16, u16), container_port: u16) -> PortSpec {
    let (host_ip, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    PortSpec {
        protocol: if protocol == "udp" {
            Protocol::Udp
        } else {
            Protocol::Tcp
        },
        container_port,
        host_ip: (!host_ip.is_empty()).then(|| host_ip.parse().expect("an address")),
        host_ports,
    }
}

pub fn address(sandbox: &Sandbox) -> IpAddr {
    sandbox.record.endpoints[0].ipv4.expect("an address").into()
}

/// Runs `work` in a namespace, while the engine goes on.
pub async fn inside<T: Send + 'static>(namespace: &OwnedFd, work: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = namespace.try_clone().expect("a descriptor");
    at_host(move || {
        let thread = std::thread::spawn(move || {
            netns::enter(&namespace).expect("the namespace can be entered");
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
    .await
}

/// Runs `work` on the test's host, while the engine goes on.
pub async fn at_host<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the work ends")
}

pub fn ns(sandbox: &Sandbox) -> &OwnedFd {
    sandbox.netns.as_ref().expect("a namespace")
}

/// Makes a link from the test's host to an outside of its own, which knows no way back but to the host's address.
pub fn make_outside() -> OwnedFd {
    let outside = std::thread::spawn(|| {
        netns::unshare().expect("a namespace");
        netns::current().expect("a namespace")
    })
    .join()
    .expect("a thread");
    let mut socket = Socket::open(netlink::Protocol::Route).expect("a socket");
    set_up(&mut socket, "lo");
    let mut pair = Message::new(16, CREATE | EXCLUSIVE, "create the way out");
    pair.fixed(&[0; 16]).string(3, "out0").nested(18, |info| {
        info.string(1, "veth").nested(2, |data| {
            data.nested(1, |peer| {
                peer.fixed(&[0; 16])
                    .string(3, "host0")
                    .number(28, outside.as_raw_fd() as u32);
            });
        });
    });
    socket.request(vec![pair]).expect("a link");
    add_address(&mut socket, "out0", HOST);
    set_up(&mut socket, "out0");
    default_route(&mut socket, OUTSIDE);
    let there = outside.try_clone().expect("a descriptor");
    std::thread::spawn(move || {
        netns::enter(&there).expect("the namespace can be entered");
        let mut socket = Socket::open(netlink::Protocol::Route).expect("a socket");
        set_up(&mut socket, "lo");
        add_address(&mut socket, "host0", OUTSIDE);
        set_up(&mut socket, "host0");
    })
    .join()
    .expect("a thread");
    outside
}

pub fn index(socket: &mut Socket, name: &str) -> u32 {
    let mut message = Message::new(18, 0, "find a link");
    message.fixed(&[0; 16]).string(3, name);
    let answer = socket.get(message).expect("the link is there").expect("an answer");
    u32::from_ne_bytes(answer.body[4..8].try_into().expect("four bytes"))
}

pub fn set_up(socket: &mut Socket, name: &str) {
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index(socket, name).to_ne_bytes());
    fixed[8] = 1;
    fixed[12] = 1;
    let mut message = Message::new(16, 0, "set a link up");
    message.fixed(&fixed);
    socket.request(vec![message]).expect("the link goes up");
}

pub fn add_address(socket: &mut Socket, name: &str, address: Ipv4Addr) {
    let mut fixed = [libc::AF_INET as u8, 24, 0, 0, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index(socket, name).to_ne_bytes());
    let mut message = Message::new(20, CREATE | EXCLUSIVE, "add an address");
    message
        .fixed(&fixed)
        .attribute(2, &address.octets())
        .attribute(1, &address.octets());
    socket.request(vec![message]).expect("the address is added");
}

pub fn default_route(socket: &mut Socket, gateway: Ipv4Addr) {
    let mut message = Message::new(24, CREATE | EXCLUSIVE, "add a route");
    let fixed = [libc::AF_INET as u8, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
    message.fixed(&fixed).attribute(5, &gateway.octets());
    socket.request(vec![message]).expect("the route is added");
}

/// Returns the names of the links in the thread's namespace.
pub fn links() -> Vec<String> {
    let mut socket = Socket::open(netlink::Protocol::Route).expect("a socket");
    let mut message = Message::new(18, 0, "list links");
    message.fixed(&[0; 16]);
    let answers = socket.dump(message).expect("links");
    let mut names: Vec<String> = answers
        .iter()
        .filter_map(|answer| netlink::attribute(&answer.body[16..], 3).map(netlink::text))
        .collect();
    names.sort();
    names
}

/// Returns whether there is such a firewall table.
pub fn has_table(family: u8, name: &str) -> bool {
    let mut socket = Socket::open(netlink::Protocol::Netfilter).expect("a socket");
    let mut message = Message::new(10 << 8 | 1, 0, "find a table");
    message.fixed(&[family, 0, 0, 0]).string(1, name);
    socket.get(message).is_ok_and(|answer| answer.is_some())
}

/// Answers every connection in the namespace with who it is and who came.
pub async fn greet(namespace: &OwnedFd, name: &'static str, port: u16) {
    inside(namespace, move || {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a listener");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let from = stream.peer_addr().expect("an address").ip();
                let _ = write!(stream, "{name} to {from}");
            }
        });
    })
    .await;
}

/// Answers every datagram in the namespace.
pub async fn echo(namespace: &OwnedFd, port: u16) {
    inside(namespace, move || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a socket");
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
    })
    .await;
}

/// Connects and returns what is said, or why nothing is.
pub fn ask(to: impl Into<SocketAddr>) -> Result<String, String> {
    ask_for(PATIENCE, to)
}

/// Connects to what is hoped to be out of reach.
pub fn ask_in_vain(to: impl Into<SocketAddr>) -> Result<String, String> {
    ask_for(IMPATIENCE, to)
}

pub fn ask_for(wait: Duration, to: impl Into<SocketAddr>) -> Result<String, String> {
    let mut stream = TcpStream::connect_timeout(&to.into(), wait).map_err(|error| error.kind().to_string())?;
    stream.set_read_timeout(Some(wait)).map_err(|error| error.to_string())?;
    let mut said = String::new();
    stream
        .read_to_string(&mut said)
        .map_err(|error| error.kind().to_string())?;
    Ok(said)
}

pub fn ask_datagram(to: SocketAddr) -> bool {
    let any: IpAddr = if to.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        "::".parse().expect("an address")
    };
    let socket = UdpSocket::bind((any, 0)).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    // Connected: an answer from another address than was asked is not taken.
    socket.connect(to).expect("a route");
    socket.send(b"ping").expect("a way out");
    let mut buffer = [0; 16];
    socket
        .recv(&mut buffer)
        .is_ok_and(|length| &buffer[..length] == b"ping")
}

/// Asks the container's resolver.
pub fn resolve(name: &str, kind: RecordType) -> Question {
    let mut question = Question::new(4711, MessageType::Query, OpCode::Query);
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_secs(6)))
        .expect("a timeout");
    socket.connect("127.0.0.11:53").expect("a resolver");
    socket
        .send(&question.to_vec().expect("a question"))
        .expect("a resolver");
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).expect("an answer");
    Question::from_vec(&buffer[..length]).expect("an answer that can be read")
}

pub fn resolve_by_tcp(name: &str) -> Question {
    let mut question = Question::new(4711, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_ascii(name).expect("a name"), RecordType::A));
    let bytes = question.to_vec().expect("a question");
    let mut stream = TcpStream::connect("127.0.0.11:53").expect("a resolver");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
        .write_all(&(bytes.len() as u16).to_be_bytes())
        .expect("a resolver");
    stream.write_all(&bytes).expect("a resolver");
    let mut length = [0; 2];
    stream.read_exact(&mut length).expect("an answer");
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).expect("an answer");
    Question::from_vec(&answer).expect("an answer that can be read")
}

pub fn first(answer: &Question) -> Option<IpAddr> {
    answer.answers.first().and_then(|record| record.data.ip_addr())
}
