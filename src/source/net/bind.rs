//! Addresses and the sockets bound to them. What does not work is told with the address, and what to do about it.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use super::kernel;
use crate::error::{Error, Kind, Result};

/// Connections that the kernel may hold until they are accepted.
const BACKLOG: i32 = 1024;

/// A connection that was silent for so long is asked whether the other side is still there, so often, so many times.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(10), 6);

/// What is asked for where the user names no size: some tenths of a second of much traffic.
const RECEIVE_BUFFER: usize = 8 << 20;

/// A socket that accepts connections.
pub enum Listener {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    /// Listens on `HOST:PORT`. Port 0 is any free one: see [`Listener::address`].
    pub fn tcp(address: &str) -> Result<Listener> {
        let bound = bind(address, Type::STREAM, Protocol::TCP, |socket, address| {
            // So that a restart need not wait for the last packets of old connections.
            socket.set_reuse_address(true)?;
            socket.bind(&(*address).into())?;
            socket.listen(BACKLOG)
        })?;
        let listener = TcpListener::from(bound);
        let bound = listener.local_addr().map_err(|err| failed("listen on", address, &err))?;
        Ok(Listener::Tcp(listener, bound))
    }

    /// Listens on a socket in the file system. One that a former process has left behind is replaced.
    pub fn unix(path: &Path, mode: u32) -> Result<Listener> {
        let wrong = |err: io::Error| {
            Error::io("listen on", path, &err)
                .with_hint("The path names a socket, which is made here: its folder must exist.")
        };
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
            match UnixStream::connect(path) {
                Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(wrong)?,
                Ok(_) | Err(_) => {}
            }
        }
        let listener = UnixListener::bind(path).map_err(|err| match err.kind() {
            io::ErrorKind::AddrInUse => {
                let path = path.display().to_string();
                Error::new(Kind::ObjectInUse, format!("could not listen on {path:?}: it exists already"))
                    .with_hint("Another process listens there, or it is no socket. Choose another path, or remove it.")
            }
            _ => wrong(err),
        })?;
        let file = SocketFile(path.to_path_buf());
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(wrong)?;
        listener.set_nonblocking(true).map_err(wrong)?;
        Ok(Listener::Unix(listener, file))
    }

    /// Where it listens, the port as it is.
    pub fn address(&self) -> String {
        match self {
            Listener::Tcp(_, address) => address.to_string(),
            Listener::Unix(_, file) => file.0.display().to_string(),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener, _) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        }
    }
}

/// A socket's name in the file system, which goes with the socket.
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Left behind, it does no harm: the next one replaces it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Receives datagrams on `HOST:PORT`. The receive buffer is as large as wanted or allowed; where less is allowed than
/// the user wants, the second value says so.
pub fn udp(address: &str, receive_buffer: Option<usize>) -> Result<(UdpSocket, Option<Error>)> {
    let bound = bind(address, Type::DGRAM, Protocol::UDP, |socket, address| socket.bind(&(*address).into()))?;
    let wanted = receive_buffer.unwrap_or(RECEIVE_BUFFER);
    let socket = UdpSocket::from(bound);
    let handle = SockRef::from(&socket);
    let set = match kernel::force_receive_buffer(socket.as_fd(), wanted) {
        Ok(()) => Ok(()),
        Err(_) => handle.set_recv_buffer_size(wanted),
    };
    // The kernel doubles what is asked for, to have room for its own data.
    let got = set.and_then(|()| handle.recv_buffer_size()).map_err(|err| failed("listen on", address, &err))? / 2;
    let too_small = receive_buffer.is_some() && got < wanted;
    let warning = too_small.then(|| {
        let message = format!("the kernel allows a receive buffer of {got} bytes instead of {wanted}");
        Error::new(Kind::ResourceLimit, message).with_hint("Raise it with: sysctl -w net.core.rmem_max=….")
    });
    Ok((socket, warning))
}

/// A connection that goes on being silent is asked whether somebody is there.
pub fn keep_alive(socket: BorrowedFd<'_>) {
    let (time, interval, retries) = KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(time).with_interval(interval).with_retries(retries);
    // Without it, a half-open connection stays until read_timeout or max_connections; nothing else depends on it.
    let _ = SockRef::from(&socket).set_tcp_keepalive(&keepalive);
}

/// The first of the addresses that a name stands for which can be bound.
fn bind(
    address: &str,
    kind: Type,
    protocol: Protocol,
    open: impl Fn(&Socket, &SocketAddr) -> io::Result<()>,
) -> Result<Socket> {
    let found = address.to_socket_addrs().map_err(|err| {
        let kind = if err.kind() == io::ErrorKind::InvalidInput { Kind::InvalidParameter } else { Kind::Io };
        Error::new(kind, format!("{address:?} is no address to listen on: {err}")).with_hint(
            "Write HOST:PORT, such as '0.0.0.0:5140' for every interface or '127.0.0.1:5140' for this machine.",
        )
    })?;
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for found in found {
        let opened = Socket::new(Domain::for_address(found), kind, Some(protocol)).and_then(|socket| {
            open(&socket, &found)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        });
        match opened {
            Ok(socket) => return Ok(socket),
            Err(err) => last = err,
        }
    }
    Err(failed("listen on", address, &last))
}

fn failed(action: &str, address: &str, err: &io::Error) -> Error {
    let message = format!("could not {action} {address:?}: {err}");
    match err.kind() {
        io::ErrorKind::AddrInUse => Error::new(Kind::ObjectInUse, message)
            .with_hint("Another source or process has this port. Choose another, or stop that one."),
        io::ErrorKind::PermissionDenied => Error::new(Kind::InsufficientPrivilege, message)
            .with_hint("Ports below 1024 are for root or CAP_NET_BIND_SERVICE. Choose another, such as 5140."),
        io::ErrorKind::AddrNotAvailable => {
            Error::new(Kind::InvalidParameter, message).with_hint("This machine has no such address.")
        }
        _ => Error::new(Kind::Io, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_work_is_said() {
        let taken = Listener::tcp("127.0.0.1:0").unwrap();
        let err = Listener::tcp(&taken.address()).err().unwrap();
        assert_eq!(err.kind(), Kind::ObjectInUse);
        assert!(err.message().contains(&taken.address()), "{err}");
        for wrong in ["127.0.0.1", "5140", "127.0.0.1:x", ""] {
            let err = Listener::tcp(wrong).err().unwrap();
            assert!(err.message().contains("no address") && err.hint().unwrap().contains("HOST:PORT"), "{err}");
        }
        // Of a network for documentation.
        assert_eq!(udp("192.0.2.1:0", None).err().unwrap().kind(), Kind::InvalidParameter);
    }

    #[test]
    fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs.sock");
        let first = Listener::unix(&path, 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Listener::unix(&path, 0o600).err().unwrap().kind(), Kind::ObjectInUse);
        drop(first);
        assert!(!path.exists(), "its name goes with it");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Listener::unix(&path, 0o666).unwrap());
        fs::write(&path, "precious").unwrap();
        assert_eq!(Listener::unix(&path, 0o666).err().unwrap().kind(), Kind::ObjectInUse);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
        assert!(Listener::unix(&dir.path().join("no/such/folder"), 0o666).is_err());
    }
}
