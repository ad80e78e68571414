//! What only the operating system's own calls can tell (Linux): how much waits in a socket, how much it has dropped,
//! and many datagrams at once.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// Bytes that could be read from a connection or pipe now. 0 also where the kernel does not tell.
pub fn readable_bytes(fd: RawFd) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, to where the pointer points. A descriptor that is none gives an error.
    match unsafe { libc::ioctl(fd, libc::FIONREAD, &raw mut bytes) } {
        0 => u64::try_from(bytes).unwrap_or(0),
        _ => 0,
    }
}

/// Waits until one of the descriptors is readable, at most so long, and tells for each whether it is. An end or an
/// error counts: reading tells which.
pub fn wait_readable<const N: usize>(fds: [BorrowedFd<'_>; N], at_most: Duration) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    let millis = libc::c_int::try_from(at_most.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the array has as many entries as is said, and outlives the call.
    match unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, millis) } {
        ..0 => match io::Error::last_os_error() {
            err if err.kind() == io::ErrorKind::Interrupted => Ok([false; N]),
            err => Err(err),
        },
        _ => Ok(polled.map(|p| p.revents != 0)),
    }
}

/// Whether there is something to read (or to accept) now.
pub fn is_readable(fd: BorrowedFd<'_>) -> bool {
    wait_readable([fd], Duration::ZERO).is_ok_and(|[readable]| readable)
}

/// `SO_MEMINFO` of Linux' asm-generic/socket.h, which the libc crate does not name: the array of `SK_MEMINFO_…`.
const SO_MEMINFO: libc::c_int = 55;

/// How many datagrams a socket has dropped since it was made, because its receive buffer was full or they were damaged;
/// modulo 2³². `None` where the kernel does not tell.
pub fn dropped_datagrams(fd: BorrowedFd<'_>) -> Option<u32> {
    let mut info = [0u32; libc::SK_MEMINFO_DROPS as usize + 1];
    let mut len = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to the array, and says in `len` how many.
    let outcome = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, SO_MEMINFO, info.as_mut_ptr().cast(), &raw mut len)
    };
    (outcome == 0 && len as usize == size_of_val(&info)).then(|| info[libc::SK_MEMINFO_DROPS as usize])
}

/// `SO_RCVBUFFORCE` of the same, which the libc crate names for Android only.
const SO_RCVBUFFORCE: libc::c_int = 33;

/// Asks for a receive buffer beyond what ordinary users may have; fails where that needs a privilege we have not.
pub fn force_receive_buffer(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let value = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel reads one int from where the pointer points.
    let outcome = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_RCVBUFFORCE,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Datagrams received by one call.
const BATCH: usize = 64;

/// The largest that UDP can carry, and a byte more.
const DATAGRAM_BYTES: usize = 1 << 16;

/// Room for a batch of datagrams: 4 MiB of addresses, of which the kernel makes memory what is used.
pub struct Batch {
    bytes: Vec<u8>,
    from: Vec<libc::sockaddr_storage>,
}

impl Batch {
    pub fn new() -> Batch {
        // SAFETY: an address of all zeros is one of no family.
        let none: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        Batch { bytes: vec![0; BATCH * DATAGRAM_BYTES], from: vec![none; BATCH] }
    }

    /// Takes what is there, up to [`BATCH`] datagrams, and hands each with its sender to `take`. Does not wait: the
    /// error is `WouldBlock` when there is none.
    pub fn receive(&mut self, fd: BorrowedFd<'_>, mut take: impl FnMut(IpAddr, &[u8])) -> io::Result<usize> {
        let base = self.bytes.as_mut_ptr();
        let mut pieces: [libc::iovec; BATCH] = std::array::from_fn(|i| libc::iovec {
            // SAFETY: the block has BATCH times as many bytes, so each place lies in it.
            iov_base: unsafe { base.add(i * DATAGRAM_BYTES) }.cast(),
            iov_len: DATAGRAM_BYTES,
        });
        // SAFETY: a header of all zeros has no address, no pieces and no control data.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for (i, header) in headers.iter_mut().enumerate() {
            header.msg_hdr.msg_name = (&raw mut self.from[i]).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_iov = &raw mut pieces[i];
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: all that the headers point to is ours, as large as they say, and outlives the call.
        let received = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let Ok(received) = usize::try_from(received) else { return Err(io::Error::last_os_error()) };
        for (i, header) in headers[..received].iter().enumerate() {
            let len = (header.msg_len as usize).min(DATAGRAM_BYTES);
            take(address_of(&self.from[i]), &self.bytes[i * DATAGRAM_BYTES..][..len]);
        }
        Ok(received)
    }
}

/// The IP address in what the kernel wrote; one of IPv4 that came in as IPv6 as what it is.
fn address_of(storage: &libc::sockaddr_storage) -> IpAddr {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is this type, which is no larger and no stricter aligned than the
            // storage.
            let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            IpAddr::V4(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            IpAddr::V6(Ipv6Addr::from(address.sin6_addr.s6_addr)).to_canonical()
        }
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn what_waits_and_what_was_dropped_is_told() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&socket).set_recv_buffer_size(4096).unwrap();
        let fd = socket.as_fd();
        assert!(!is_readable(fd));
        let mut batch = Batch::new();
        let none = batch.receive(fd, |_, _| panic!("nothing was sent")).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(dropped_datagrams(fd), Some(0));

        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for i in 0..200u8 {
            sender.send_to(&[i; 500], socket.local_addr().unwrap()).unwrap();
        }
        assert!(is_readable(fd));
        let mut received = Vec::new();
        let take = |from: IpAddr, bytes: &[u8]| {
            assert!(from.is_loopback() && bytes.len() == 500);
            received.push(bytes[0]);
        };
        batch.receive(fd, take).unwrap();
        let dropped = dropped_datagrams(fd).unwrap();
        assert!(dropped > 0 && received.len() as u32 + dropped == 200, "{} and {dropped}", received.len());
        assert!(received.iter().enumerate().all(|(i, byte)| i == *byte as usize), "the first ones, in order");
    }

    #[test]
    fn addresses_are_what_they_are() {
        let receive = |to: &str, from: &str| {
            let socket = UdpSocket::bind(to).ok()?;
            let sender = UdpSocket::bind(from).ok()?;
            let port = socket.local_addr().unwrap().port();
            sender.send_to(b"x", (sender.local_addr().unwrap().ip(), port)).ok()?;
            let mut found = None;
            Batch::new().receive(socket.as_fd(), |from, _| found = Some(from)).ok()?;
            found
        };
        assert_eq!(receive("127.0.0.1:0", "127.0.0.1:0"), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        // Where there is IPv6.
        for (to, from) in [("[::1]:0", "[::1]:0"), ("[::]:0", "127.0.0.1:0")] {
            if let Some(found) = receive(to, from) {
                assert_eq!(found, from[..from.len() - 2].trim_matches(['[', ']']).parse::<IpAddr>().unwrap());
            }
        }
    }
}
