//! Keeps one number in `/data/count` and hands out the next one to whoever asks.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::{env, fs};

fn main() -> ExitCode {
    let outcome = match env::args().nth(1).as_deref() {
        Some("check") => check(),
        _ => serve(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("store: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What the health check runs: the store is well when it answers.
fn check() -> std::io::Result<()> {
    let mut stream = TcpStream::connect("127.0.0.1:7000")?;
    stream.write_all(b"current\n")?;
    stream.read_to_string(&mut String::new())?;
    Ok(())
}

fn serve() -> std::io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:7000")?;
    println!("store: starts at {}", current());
    for stream in listener.incoming() {
        let mut stream = stream?;
        let mut request = String::new();
        BufReader::new(stream.try_clone()?).read_line(&mut request)?;
        let count = match request.trim() {
            "next" => keep(current() + 1)?,
            _ => current(),
        };
        // A client that went away is no reason to end.
        let _ = writeln!(stream, "{count}");
    }
    Ok(())
}

fn current() -> u64 {
    fs::read_to_string("/data/count").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn keep(count: u64) -> std::io::Result<u64> {
    let mut file = fs::File::create("/data/count.new")?;
    writeln!(file, "{count}")?;
    file.sync_all()?;
    fs::rename("/data/count.new", "/data/count")?;
    Ok(count)
}
