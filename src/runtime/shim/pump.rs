//! Moves bytes between a process's standard streams, the log and whoever is attached.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::log::Stream;
use crate::runtime::launch::AttachOptions;

/// How much is read at a time.
const CHUNK: usize = 16 * 1024;
/// How much may wait for a slow reader before the process has to wait too, as with Docker.
const BACKLOG: usize = 256 * 1024;

/// A process's streams on the shim's side.
#[derive(Debug, Default)]
pub struct Pump {
    /// The terminal, in place of all three pipes.
    pub terminal: Option<OwnedFd>,
    /// The writing end of the standard input.
    pub stdin: Option<OwnedFd>,
    /// The reading end of the standard output.
    pub stdout: Option<OwnedFd>,
    /// The reading end of the standard error.
    pub stderr: Option<OwnedFd>,
    /// Whether the standard input ends with the first one attached to it.
    pub stdin_once: bool,
    input: Vec<u8>,
    close_input: bool,
    attached: Vec<Attached>,
}

#[derive(Debug)]
struct Attached {
    socket: OwnedFd,
    options: AttachOptions,
    backlog: Vec<u8>,
    reads: bool,
    gone: bool,
}

/// One of a pump's descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// The terminal.
    Terminal,
    /// The standard input.
    Stdin,
    /// The standard output.
    Stdout,
    /// The standard error.
    Stderr,
    /// Somebody attached.
    Attached(usize),
}

impl Pump {
    /// Attaches somebody.
    pub fn attach(&mut self, socket: OwnedFd, options: AttachOptions) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        self.attached.push(Attached {
            socket,
            options,
            backlog: Vec::new(),
            reads: true,
            gone: false,
        });
        Ok(())
    }

    /// Calls `add` with every descriptor to watch, and for what.
    pub fn watch<'p>(&'p self, mut add: impl FnMut(Port, &'p OwnedFd, PollFlags)) {
        let may_read = self.attached.iter().all(|attached| attached.backlog.len() < BACKLOG);
        if let Some(terminal) = &self.terminal {
            let mut flags = PollFlags::empty();
            if may_read {
                flags |= PollFlags::IN;
            }
            if !self.input.is_empty() {
                flags |= PollFlags::OUT;
            }
            if !flags.is_empty() {
                add(Port::Terminal, terminal, flags);
            }
        }
        if may_read {
            for (port, stream) in [(Port::Stdout, &self.stdout), (Port::Stderr, &self.stderr)] {
                if let Some(stream) = stream {
                    add(port, stream, PollFlags::IN);
                }
            }
        }
        if let Some(stdin) = &self.stdin
            && !self.input.is_empty()
        {
            add(Port::Stdin, stdin, PollFlags::OUT);
        }
        for (index, attached) in self.attached.iter().enumerate() {
            let mut flags = PollFlags::empty();
            if attached.reads && self.input.is_empty() {
                flags |= PollFlags::IN;
            }
            if !attached.backlog.is_empty() {
                flags |= PollFlags::OUT;
            }
            // Without flags the kernel still tells of a hang-up, which one who is read to the end waits for.
            if !flags.is_empty() || !attached.reads {
                add(Port::Attached(index), &attached.socket, flags);
            }
        }
    }

    /// Does what a descriptor is ready for; output goes to `log` as well.
    pub fn handle(&mut self, port: Port, ready: PollFlags, log: &mut dyn FnMut(Stream, &[u8])) {
        match port {
            Port::Terminal => {
                if ready.intersects(PollFlags::OUT) {
                    self.feed();
                }
                if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    self.read_output(port, log);
                }
            }
            Port::Stdout => {
                self.read_output(port, log);
            }
            Port::Stderr => {
                // What was written to the standard output before may have come while the kernel looked at the error's.
                self.read_output(Port::Stdout, log);
                self.read_output(port, log);
            }
            Port::Stdin => self.feed(),
            Port::Attached(index) => {
                if ready.intersects(PollFlags::OUT) {
                    self.attached[index].flush();
                }
                if self.attached[index].reads && ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                    self.read_input(index);
                } else if ready.intersects(PollFlags::HUP | PollFlags::ERR) {
                    self.attached[index].gone = true;
                }
            }
        }
    }

    /// Forgets whoever has hung up.
    pub fn sweep(&mut self) {
        let before = self.attached.len();
        self.attached.retain(|attached| !attached.gone);
        if self.attached.len() != before && self.attached.is_empty() {
            self.attached = Vec::new();
        }
    }

    /// Reads what is there, without waiting; returns whether every stream has ended.
    pub fn drain(&mut self, log: &mut dyn FnMut(Stream, &[u8])) -> bool {
        for port in [Port::Terminal, Port::Stdout, Port::Stderr] {
            while self.read_output(port, log) {}
        }
        self.terminal.is_none() && self.stdout.is_none() && self.stderr.is_none()
    }

    /// Lets go of the process's side.
    pub fn close_streams(&mut self) {
        self.terminal = None;
        self.stdin = None;
        self.stdout = None;
        self.stderr = None;
        self.input = Vec::new();
    }

    /// Returns whether somebody attached has still to be told something.
    pub fn has_backlog(&self) -> bool {
        self.attached.iter().any(|attached| !attached.backlog.is_empty())
    }

    /// Hangs up on everybody who has been told everything.
    pub fn hang_up(&mut self) {
        self.attached.retain(|attached| !attached.backlog.is_empty());
    }

    /// Changes the terminal's size.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        let Some(terminal) = &self.terminal else {
            return Err(io::Error::other("the process has no terminal"));
        };
        let size = rustix::termios::Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(rustix::termios::tcsetwinsize(terminal, size)?)
    }

    /// Reads once; returns whether there may be more.
    fn read_output(&mut self, port: Port, log: &mut dyn FnMut(Stream, &[u8])) -> bool {
        let (slot, stream) = match port {
            Port::Terminal => (&mut self.terminal, Stream::Stdout),
            Port::Stdout => (&mut self.stdout, Stream::Stdout),
            Port::Stderr => (&mut self.stderr, Stream::Stderr),
            Port::Stdin | Port::Attached(_) => return false,
        };
        let Some(descriptor) = slot else {
            return false;
        };
        let mut buffer = [0; CHUNK];
        match rustix::io::read(descriptor, &mut buffer) {
            Ok(count) if count > 0 => {
                let bytes = &buffer[..count];
                log(stream, bytes);
                let is_terminal = port == Port::Terminal;
                for attached in &mut self.attached {
                    attached.tell(stream, bytes, is_terminal);
                }
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            // The end of a pipe is an empty read, that of a terminal EIO.
            Ok(_) | Err(_) => {
                *slot = None;
                false
            }
        }
    }

    fn read_input(&mut self, index: usize) {
        let mut buffer = [0; CHUNK];
        let attached = &mut self.attached[index];
        match rustix::io::read(&attached.socket, &mut buffer) {
            Ok(count) if count > 0 => {
                // What nobody asked to be read is thrown away, or the other side would block.
                if attached.options.stdin && (self.stdin.is_some() || self.terminal.is_some()) {
                    self.input.extend_from_slice(&buffer[..count]);
                    self.feed();
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => {
                attached.reads = false;
                if attached.options.stdin && self.stdin_once {
                    self.close_input = true;
                    self.feed();
                }
            }
        }
    }

    /// Writes what waits to the standard input.
    fn feed(&mut self) {
        while !self.input.is_empty() {
            let Some(descriptor) = self.terminal.as_ref().or(self.stdin.as_ref()) else {
                self.input = Vec::new();
                break;
            };
            match rustix::io::write(descriptor, &self.input) {
                Ok(count) => {
                    self.input.drain(..count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.stdin = None;
                    self.input = Vec::new();
                }
            }
        }
        self.input = Vec::new();
        if self.close_input {
            self.stdin = None;
        }
    }
}

impl Attached {
    /// Passes output on: framed by Docker's header where there is no terminal.
    fn tell(&mut self, stream: Stream, bytes: &[u8], is_terminal: bool) {
        let wanted = match stream {
            Stream::Stdout => self.options.stdout,
            Stream::Stderr => self.options.stderr,
        };
        if !wanted || self.gone {
            return;
        }
        if !is_terminal {
            let mut header = [0; 8];
            header[0] = stream as u8 + 1;
            header[4..].copy_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
            self.backlog.extend_from_slice(&header);
        }
        self.backlog.extend_from_slice(bytes);
        self.flush();
    }

    fn flush(&mut self) {
        while !self.backlog.is_empty() {
            match rustix::net::send(&self.socket, &self.backlog, rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => {
                    self.backlog.drain(..count);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.backlog = Vec::new();
                    self.gone = !self.reads;
                    self.options.stdout = false;
                    self.options.stderr = false;
                    return;
                }
            }
        }
        if self.backlog.capacity() > 0 {
            self.backlog = Vec::new();
        }
    }
}

/// Makes a pipe: its reading and its writing end.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?)
}

/// Makes a descriptor that never blocks.
pub fn unblock(descriptor: impl AsFd) -> io::Result<()> {
    Ok(rustix::io::ioctl_fionbio(descriptor, true)?)
}
