//! Tests of the sources over sockets without a server: real senders, and the driver's part is played here.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::*;
use crate::options::{OptionSpec, Options};
use crate::position::Position;
use crate::source::{Polled, Source};

/// Longer than anything here takes on a busy machine; reaching it means that something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

const TABLES: &[&[OptionSpec]] = &[CONNECTIONS, DATAGRAMS, crate::frame::OPTIONS];

fn settings(framing: &str, given: &[(&str, &str)]) -> Settings {
    let given: Vec<_> = given.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Settings::from(&Options::parse("x", TABLES, &given).unwrap(), framing).unwrap()
}

/// A source that listens on this machine, and what came out of it.
struct Run<S> {
    source: S,
    /// Per partition: frames, and up to where.
    partitions: BTreeMap<String, (Vec<String>, u64)>,
    gone: Vec<String>,
}

impl<S: Source> Run<S> {
    fn start(mut source: S) -> Run<S> {
        source.resume(Vec::new()).unwrap();
        Run { source, partitions: BTreeMap::new(), gone: Vec::new() }
    }

    /// One poll; `false` when there was nothing.
    fn step(&mut self) -> bool {
        match self.source.poll().unwrap() {
            Polled::Frames(frames, Position { partition, key, start, end, .. }) => {
                let known = self.partitions.entry(partition).or_default();
                assert!(key.is_empty() && start == known.1 && end > start && !frames.is_empty());
                known.0.extend(frames.iter().map(|frame| String::from_utf8_lossy(frame).into_owned()));
                known.1 = end;
            }
            Polled::Gone { partition, .. } => self.gone.push(partition),
            Polled::Idle => return false,
            Polled::End => panic!("sockets have no end"),
        }
        true
    }

    /// As FLUSH does: polls until all that was sent before has come.
    fn flush(&mut self) {
        self.source.mark().unwrap();
        self.until(|run| run.source.reached());
    }

    fn until(&mut self, done: impl Fn(&Run<S>) -> bool) {
        let begun = Instant::now();
        while !done(self) {
            assert!(begun.elapsed() < PATIENCE, "it did not come: {:?}", self.partitions);
            if !self.step() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn frames(&self) -> Vec<&str> {
        self.partitions.values().flat_map(|(frames, _)| frames).map(String::as_str).collect()
    }

    fn warnings(&mut self) -> Vec<String> {
        self.source.take_warnings().iter().map(|err| err.message().to_string()).collect()
    }
}

fn tcp(framing: &str, given: &[(&str, &str)]) -> Run<Connections> {
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    Run::start(Connections::new(listener, None, settings(framing, given)).unwrap())
}

/// What is written leaves at once: else the sender's kernel may keep a small piece until the one before is
/// acknowledged.
fn connect(run: &Run<Connections>) -> TcpStream {
    let stream = TcpStream::connect(run.source.address().unwrap()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

#[test]
fn a_flush_finds_all_that_was_sent_before() {
    let mut run = tcp("newline", &[]);
    for round in 0..50 {
        let mut streams: Vec<_> = (0..5).map(|_| connect(&run)).collect();
        for (i, stream) in streams.iter_mut().enumerate() {
            let lines: String = (0..i * 100).map(|line| format!("{round} {i} {line}\n")).collect();
            stream.write_all(lines.as_bytes()).unwrap();
            stream.write_all(b"half a").unwrap();
        }
        run.flush();
        assert_eq!(run.frames().len(), 1000, "all whole lines, and no half one");
        for stream in &mut streams {
            stream.write_all(b" line\nlast").unwrap();
        }
        run.flush();
        assert_eq!(run.frames().len(), 1005);
        drop(streams);
        run.until(|run| run.gone.len() == 5);
        let frames = run.frames();
        assert_eq!(frames.iter().filter(|frame| **frame == "half a line").count(), 5);
        assert_eq!(frames.iter().filter(|frame| **frame == "last").count(), 5, "a closed connection ends its line");
        assert!(run.source.partitions().is_empty());
        run.partitions.clear();
        run.gone.clear();
    }
    assert!(run.warnings().is_empty());
}

#[test]
fn senders_wait_when_nobody_polls() {
    const LINES: usize = 400_000;
    let mut run = tcp("newline", &[("buffer_bytes", "1 MiB")]);
    let mut stream = connect(&run);
    stream.set_nonblocking(true).unwrap();
    let text: Vec<u8> = (0..LINES).flat_map(|i| format!("{i:099}\n").into_bytes()).collect();
    let mut sent = 0;
    // Until nothing more goes for a while: then the buffers are full, here and in the kernel.
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_millis(500) {
        match stream.write(&text[sent..]) {
            Ok(n) => (sent, since) = (sent + n, Instant::now()),
            Err(err) => {
                assert_eq!(err.kind(), std::io::ErrorKind::WouldBlock);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    assert!(sent < text.len(), "40 MB went nowhere");
    stream.set_nonblocking(false).unwrap();
    let rest = std::thread::spawn(move || stream.write_all(&text[sent..]).unwrap());
    run.until(|run| run.frames().len() == LINES);
    rest.join().unwrap();
    assert!(run.frames().iter().enumerate().all(|(i, line)| line.parse() == Ok(i)), "each once, in order");
}

#[test]
fn more_connections_than_allowed_are_closed() {
    let mut run = tcp("newline", &[("max_connections", "2")]);
    let mut allowed: Vec<_> = (0..2).map(|_| connect(&run)).collect();
    allowed.iter_mut().for_each(|stream| stream.write_all(b"in\n").unwrap());
    run.flush();
    for _ in 0..5 {
        let mut refused = connect(&run);
        // An error where the closing overtook the read.
        assert_eq!(refused.read(&mut [0; 1]).unwrap_or(0), 0);
    }
    assert!(run.warnings()[0].contains("max_connections (2)"));
    drop(allowed.pop());
    run.until(|run| run.gone.len() == 1);
    connect(&run).write_all(b"in again\n").unwrap();
    run.flush();
    assert_eq!(run.frames().iter().filter(|frame| frame.starts_with("in")).count(), 3);
}

#[test]
fn a_line_that_does_not_end_is_ended() {
    let mut run = tcp("newline", &[("line_timeout", "300 ms"), ("max_line_bytes", "10")]);
    let (mut slow, mut good) = (connect(&run), connect(&run));
    // A byte now and then, for ever.
    let slowly = std::thread::spawn(move || {
        let mut sent = 0;
        while slow.write_all(b"x").is_ok() {
            sent += 1;
            std::thread::sleep(Duration::from_millis(5));
        }
        sent
    });
    run.until(|run| run.gone.len() == 1);
    assert!(slowly.join().unwrap() > 2);
    good.write_all(b"fine\n").unwrap();
    run.flush();
    let mut frames = run.frames();
    frames.sort();
    assert_eq!(frames, ["fine", "xxxxxxxxxx"], "the other goes on; what came is kept, cut");
    assert!(run.warnings()[0].contains("line_timeout"));
}

#[test]
fn silence_is_allowed_unless_it_is_not() {
    let mut run = tcp("newline", &[("read_timeout", "100 ms")]);
    let mut silent = connect(&run);
    silent.write_all(b"one\n").unwrap();
    run.until(|run| run.gone.len() == 1);
    assert_eq!(silent.read(&mut [0; 1]).unwrap(), 0);
    assert!(run.warnings()[0].contains("read_timeout"));
    assert_eq!(run.frames(), ["one"]);
}

#[test]
fn a_record_ends_when_its_connection_is_silent() {
    let mut run = tcp("newline", &[("multiline_continue", r"^\s"), ("multiline_timeout", "100 ms")]);
    let mut stream = connect(&run);
    stream.write_all(b"one\n more\ntwo\n").unwrap();
    run.flush();
    assert_eq!(run.frames(), ["one\n more", "two"], "FLUSH waits for it");
    stream.write_all(b" late\nthree\n four").unwrap();
    drop(stream);
    run.until(|run| run.gone.len() == 1);
    assert_eq!(run.frames()[2..], [" late", "three\n four"]);
}

#[test]
fn a_last_call_takes_what_the_kernel_holds_and_no_more() {
    let mut run = tcp("newline", &[]);
    let mut stream = connect(&run);
    stream.write_all(&b"line\n".repeat(1000)).unwrap();
    assert!(run.source.last_call());
    run.until(|run| run.source.reached());
    assert_eq!(run.frames().len(), 1000);
    drop(run);
    // An error where the closing threw away what came meanwhile.
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0, "the connection is closed");
}

#[test]
fn lines_over_a_unix_socket() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs.sock");
    let listener = Listener::unix(&path, 0o660).unwrap();
    let mut run = Run::start(Connections::new(listener, None, settings("newline", &[])).unwrap());
    let mut streams: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
    streams.iter_mut().for_each(|stream| stream.write_all(b"one\ntwo\n").unwrap());
    run.flush();
    assert_eq!((run.frames().len(), run.partitions.len()), (6, 3));
    drop(run);
    assert!(!path.exists());
}

/// A server's certificate that is its own authority, made for a test: the certificate's path and the key's.
fn certificate(folder: &Path) -> Option<(PathBuf, PathBuf)> {
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    let made = Command::new("openssl")
        .args("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=localhost".split(' '))
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE"])
        .args([OsStr::new("-keyout"), key.as_os_str(), OsStr::new("-out"), cert.as_os_str()])
        .output();
    match made {
        Err(_) => {
            eprintln!("note: skipped, there is no openssl");
            None
        }
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some((cert, key))
        }
    }
}

#[test]
fn a_flush_finds_all_that_was_sent_before_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let Some((cert, key)) = certificate(dir.path()) else { return };
    let given = [("tls_cert", &cert), ("tls_key", &key)];
    let given = given.map(|(name, path)| (name.to_string(), path.display().to_string()));
    let tls = acceptor(&Options::parse("x", &[TLS], &given).unwrap()).unwrap();
    let listener = Listener::tcp("127.0.0.1:0").unwrap();
    let mut run = Run::start(Connections::new(listener, tls, settings("newline", &[])).unwrap());

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let config = Arc::new(config.with_no_client_auth());
    // One that never says anything is not waited for.
    let _silent = connect(&run);
    let mut old = Vec::new();
    for round in 0..40 {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::clone(&config), name).unwrap();
        let mut stream = StreamOwned::new(connection, connect(&run));
        let lines: String = (0..round * 100).map(|line| format!("{round} {line}\n")).collect();
        stream.write_all(lines.as_bytes()).unwrap();
        old.push(stream);
        let count = old.len();
        old[round % count].write_all(b"one more\n").unwrap();
        run.flush();
        assert_eq!(run.frames().len(), round * 100 + 1, "round {round}");
        run.partitions.values_mut().for_each(|(frames, _)| frames.clear());
    }
    old.clear();
    run.until(|run| run.gone.len() == 40);
    assert!(run.warnings().is_empty());
}

#[test]
fn syslog_over_tcp_in_either_framing() {
    let mut run = tcp("syslog", &[]);
    let (mut counted, mut lines) = (connect(&run), connect(&run));
    // RFC 6587, 3.4.1 and 3.4.2, around the examples of RFC 5424 and 3164.
    let messages = [
        "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - 'su root' failed\nfor lonvick on /dev/pts/8",
        "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
    ];
    for message in messages {
        for byte in format!("{} {message}", message.len()).bytes() {
            counted.write_all(&[byte]).unwrap();
        }
    }
    lines.write_all(format!("{}\n", messages[1]).as_bytes()).unwrap();
    run.flush();
    let mut frames = run.frames();
    frames.sort();
    assert_eq!(frames, [messages[0], messages[1], messages[1]]);
}

fn udp(given: &[(&str, &str)]) -> (Run<Datagrams>, UdpSocket) {
    let run = Run::start(Datagrams::bind("127.0.0.1:0", settings("message", given)).unwrap());
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.connect(run.source.address().unwrap()).unwrap();
    (run, sender)
}

#[test]
fn datagrams_are_frames_whatever_they_hold() {
    let (mut run, sender) = udp(&[("max_line_bytes", "1000")]);
    let longest = "x".repeat(65_507);
    let sent = ["one", "two\nlines\n", "", "three\0", &longest];
    for datagram in sent {
        assert_eq!(sender.send(datagram.as_bytes()).unwrap(), datagram.len());
        run.flush();
    }
    assert_eq!(run.frames(), ["one", "two\nlines", "", "three\0", &longest[..1000]]);
    assert_eq!(run.partitions.keys().collect::<Vec<_>>(), ["127.0.0.1"], "whatever the port");
    assert_eq!(run.source.lost(), Some(0));
    assert!(run.warnings().is_empty());
}

#[test]
fn every_datagram_comes_or_is_counted_as_lost() {
    let (mut run, sender) = udp(&[("receive_buffer", "8 KiB"), ("max_senders", "1")]);
    let mut sent = 0;
    // Until some are lost: the thread that reads may be fast.
    while run.source.lost() == Some(0) {
        assert!(sent < 10_000_000, "none was lost");
        for _ in 0..1000 {
            sender.send(&[b'x'; 400]).unwrap();
            sent += 1;
        }
        run.flush();
    }
    run.flush();
    run.step();
    let lost = run.source.lost().unwrap();
    assert!(lost > 0 && run.frames().len() as u64 + lost == sent, "{} and {lost} of {sent}", run.frames().len());
    let warnings = run.warnings();
    assert!(warnings.iter().any(|warning| warning.contains("datagrams were lost")), "{warnings:?}");
}

#[test]
fn a_sender_more_than_allowed_takes_the_place_of_the_silent_one() {
    let (mut run, _) = udp(&[("max_senders", "2")]);
    for from in ["127.0.0.1", "127.0.0.2", "127.0.0.3"] {
        let sender = UdpSocket::bind((from, 0)).unwrap();
        sender.send_to(from.as_bytes(), run.source.address().unwrap()).unwrap();
        run.flush();
    }
    while run.step() {}
    assert_eq!(run.gone, ["127.0.0.1"]);
    assert_eq!(run.frames(), ["127.0.0.1", "127.0.0.2", "127.0.0.3"]);
    assert_eq!(run.source.partitions().len(), 2);
}
