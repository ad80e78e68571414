//! Lines per second from senders to rows: the real server, whose log is synced as ever, and a sender that is as fast as
//! it can be, both on this machine. Beside each kind of source the same lines from a file.
//!
//! ```text
//!     cargo bench --bench net                     1,000,000 lines each
//!     LOGWEIR_BENCH_LINES=100000 cargo bench --bench net
//! ```
//!
//! All are read by `FORMAT COMBINED`, so that the sources differ and nothing else. Over UDP nobody waits for the
//! server: first as fast as the sender can, which shows what is lost, then at the pace at which nothing should be.

mod server;

use std::io::Write;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use logweir::generate::Access;
use server::Server;

/// Connections that send at the same time, where it is more than one.
const MANY: usize = 20;

/// Datagrams per second when the sender paces itself.
const PACES: [u64; 3] = [50_000, 100_000, 200_000];

fn main() {
    let lines = std::env::var("LOGWEIR_BENCH_LINES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let mut access = Access::new(7);
    let mut text = Vec::new();
    for i in 0..lines as i64 {
        access.line(1_767_225_600_000_000 + i * 200, &mut text);
    }
    println!("{lines} lines of {} bytes\n", text.len() / lines);
    println!("| source | lines/s | seconds | lost | peak memory |\n|---|---|---|---|---|");
    let bench = Bench { text: &text, lines };
    bench.run(
        "file",
        |dir| format!("connector = 'file', path = '{}'", dir.join("in-*.log").display()),
        |dir, _| {
            std::fs::write(dir.join("in-1.log"), &text).expect("a file");
        },
    );
    let tcp = |_: &Path| "connector = 'tcp', address = '127.0.0.1:0'".to_string();
    bench.run("tcp, 1 connection", tcp, |_, address| bench.send(address, 1, TcpStream::connect));
    bench.run("tcp, 20 connections", tcp, |_, address| bench.send(address, MANY, TcpStream::connect));
    let unix = |dir: &Path| format!("connector = 'unix', path = '{}'", dir.join("sock").display());
    bench.run("unix, 1 connection", unix, |_, address| bench.send(address, 1, UnixStream::connect));
    // By the first bytes they would not be told, as these lines begin with no priority.
    let syslog = |_: &Path| {
        "connector = 'syslog', transport = 'tcp', address = '127.0.0.1:0', framing = 'octet_counted'".to_string()
    };
    bench.run("syslog over TCP, octet-counted", syslog, |_, address| {
        let mut counted = Vec::with_capacity(text.len() + lines * 4);
        for line in text.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            counted.extend_from_slice(format!("{} ", line.len()).as_bytes());
            counted.extend_from_slice(line);
        }
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(&counted).expect("it is read");
    });
    let udp = |_: &Path| "connector = 'syslog', address = '127.0.0.1:0'".to_string();
    bench.run("syslog over UDP, as fast as can be", udp, |_, address| bench.send_datagrams(address, None));
    for pace in PACES {
        let name = format!("syslog over UDP, {pace} per second");
        bench.run(&name, udp, |_, address| bench.send_datagrams(address, Some(pace)));
    }
    let spool = |dir: &Path| {
        std::fs::create_dir(dir.join("spool")).expect("a folder");
        format!("connector = 'spool', path = '{}', quiet_time = '0 s'", dir.join("spool").display())
    };
    for files in [1, 100] {
        bench.run(&format!("spool, {files} files"), spool, |dir, _| {
            for (i, part) in bench.parts(files).into_iter().enumerate() {
                let (temporary, name) = (dir.join("temporary"), dir.join(format!("spool/{i}.log")));
                std::fs::write(&temporary, part).and_then(|()| std::fs::rename(temporary, name)).expect("a file");
            }
        });
    }
}

struct Bench<'a> {
    text: &'a [u8],
    lines: usize,
}

impl Bench<'_> {
    /// One row of the table. `send` returns when all is sent.
    fn run(&self, name: &str, with: impl Fn(&Path) -> String, send: impl FnOnce(&Path, &str)) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let server = Server::start(&dir.path().join("data"), &[]);
        server.run(&format!("CREATE TABLE logs WITH ({}) FORMAT COMBINED", with(dir.path())));
        server.run("FLUSH");
        let address = server.text("SELECT coalesce(max(address), '') FROM logweir.sources");
        let begun = Instant::now();
        send(dir.path(), &address);
        let (mut stored, mut lost) = (0, 0);
        while stored + lost < self.lines as i64 {
            server.run("FLUSH");
            stored = server.number("SELECT sum(rows + malformed)::bigint FROM logweir.streams");
            lost = server.number("SELECT coalesce(max(lost), 0) FROM logweir.sources");
            assert!(begun.elapsed() < Duration::from_secs(600), "{stored} stored and {lost} lost of {}", self.lines);
        }
        let took = begun.elapsed().as_secs_f64();
        assert_eq!(server.number("SELECT sum(malformed)::bigint FROM logweir.streams"), 0);
        let (rate, memory) = (stored as f64 / took, server.memory() / 1_000_000);
        println!("| {name} | {rate:.0} | {took:.2} | {lost} | {memory} MB |");
    }

    /// The text in so many parts of whole lines.
    fn parts(&self, count: usize) -> Vec<&[u8]> {
        let mut parts = Vec::new();
        let mut rest = self.text;
        for left in (1..=count).rev() {
            let at = rest.len() / left;
            let end = memchr::memchr(b'\n', &rest[at.saturating_sub(1)..]).map_or(rest.len(), |n| at.max(1) + n);
            let (part, after) = rest.split_at(end);
            parts.push(part);
            rest = after;
        }
        parts
    }

    fn send<'a, S: Write>(&self, address: &'a str, connections: usize, connect: fn(&'a str) -> std::io::Result<S>) {
        std::thread::scope(|scope| {
            for part in self.parts(connections) {
                scope.spawn(move || connect(address).expect("it listens").write_all(part).expect("it is read"));
            }
        });
    }

    fn send_datagrams(&self, address: &str, per_second: Option<u64>) {
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        sender.connect(address).expect("an address");
        let begun = Instant::now();
        for (n, line) in self.text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).enumerate() {
            if let Some(pace) = per_second.filter(|_| n % 100 == 0) {
                let due = Duration::from_micros(n as u64 * 1_000_000 / pace);
                std::thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            // Refused when nobody listens, which the count at the end tells.
            let _ = sender.send(line);
        }
    }
}
