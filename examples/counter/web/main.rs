//! Answers every HTTP request with the name of this replica and the count kept by the store.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::{env, fs, thread};

fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("[::]:8000").or_else(|_| TcpListener::bind("0.0.0.0:8000"))?;
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            // A client that went away is no reason to end.
            let _ = answer(stream);
        });
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    while let Some(line) = lines.next() {
        if line?.is_empty() {
            break;
        }
    }
    let (status, body) = match next_count() {
        Ok(count) => {
            let replica = fs::read_to_string("/etc/hostname").unwrap_or_default();
            let greeting = env::var("GREETING").unwrap_or_default();
            ("200 OK", format!("{greeting} from {}: visit {}\n", replica.trim(), count.trim()))
        }
        Err(error) => ("503 Service Unavailable", format!("the store does not answer: {error}\n")),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

fn next_count() -> std::io::Result<String> {
    let mut store = TcpStream::connect(env::var("STORE").unwrap_or_else(|_| "store:7000".to_owned()))?;
    store.write_all(b"next\n")?;
    let mut count = String::new();
    store.read_to_string(&mut count)?;
    Ok(count)
}
