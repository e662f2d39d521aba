//! A socket whose reads and writes all end at one deadline.
//!
//! A socket's own timeout restarts with each read, so a server that sends single bytes could delay a request forever. This type sets the
//! remaining time before each read, which bounds the whole call.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;

use crate::settings::Address;

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A socket and the deadline of all its operations.
pub(crate) struct Timed {
    socket: Socket,
    deadline: Instant,
}

impl Timed {
    fn remaining(&self) -> io::Result<Option<Duration>> {
        let remaining = self.deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            Err(io::ErrorKind::TimedOut.into())
        } else {
            Ok(Some(remaining))
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let remaining = self.remaining()?;
        match &mut self.socket {
            Socket::Tcp(socket) => {
                socket.set_read_timeout(remaining)?;
                socket.read(buffer)
            }
            Socket::Unix(socket) => {
                socket.set_read_timeout(remaining)?;
                socket.read(buffer)
            }
        }
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let remaining = self.remaining()?;
        match &mut self.socket {
            Socket::Tcp(socket) => {
                socket.set_write_timeout(remaining)?;
                socket.write(buffer)
            }
            Socket::Unix(socket) => {
                socket.set_write_timeout(remaining)?;
                socket.write(buffer)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A plain or encrypted stream; see the module.
pub(crate) enum Stream {
    Plain(Timed),
    Tls(Box<rustls::StreamOwned<rustls::ClientConnection, Timed>>),
}

impl Stream {
    /// Connects by `deadline`. Names are resolved by the system, whose own timeout applies.
    pub(crate) fn connect(
        address: &Address,
        tls: Option<&Arc<rustls::ClientConfig>>,
        deadline: Instant,
    ) -> io::Result<Self> {
        let (socket, host) = match address {
            Address::Unix(path) => (Socket::Unix(UnixStream::connect(path)?), None),
            Address::Tcp { host, port } => {
                (Socket::Tcp(connect_tcp(host, *port, deadline)?), Some(host))
            }
        };
        let timed = Timed { socket, deadline };
        let (Some(tls), Some(host)) = (tls, host) else {
            return Ok(Self::Plain(timed));
        };
        let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
        let session =
            rustls::ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
        let mut stream = rustls::StreamOwned::new(session, timed);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self::Tls(Box::new(stream)))
    }

    /// Sets the deadline of all further reads and writes.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        match self {
            Self::Plain(timed) => timed.deadline = deadline,
            Self::Tls(stream) => stream.sock.deadline = deadline,
        }
    }
}

fn connect_tcp(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    for address in (host, port).to_socket_addrs()? {
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, remaining) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(timed) => timed.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(timed) => timed.write(buffer),
            Self::Tls(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(timed) => timed.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
