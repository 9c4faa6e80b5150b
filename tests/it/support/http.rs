//! The few words of HTTP that the tests speak.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// Asks for a path and returns the body of a 200 answer.
pub fn get(address: impl ToSocketAddrs, path: &str) -> std::io::Result<String> {
    let address = address.to_socket_addrs()?.next().expect("an address");
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if !head.lines().next().unwrap_or_default().contains(" 200 ") {
        return Err(std::io::Error::other(format!("not a 200 answer: {answer}")));
    }
    Ok(body.to_owned())
}

/// Asks until there is a 200 answer, and fails after a while.
pub fn get_when_up(address: &str, path: &str) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match get(address, path) {
            Ok(body) => return body,
            Err(error) if Instant::now() > deadline => panic!("http://{address}{path}: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}
