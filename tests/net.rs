//! What others send: over TCP, TLS, unix sockets and UDP, with sockets of our own and with the programs that people use
//! (`logger`, `rsyslogd`), to the real server. And files in a spool folder, while the server is killed.
//!
//! `.ci/run` installs the programs. Where one is not there, its test passes with a note.

use std::io::{Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::server::{Client, Server};

/// Longer than anything takes on a busy machine; reaching it means that something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whatever comes is a row.
const ANYTHING: &str = "FORMAT REGEX (pattern = '(?s)^(?<message>.*)$')";

/// A line for `FORMAT JSON`, without its end.
fn json(n: usize) -> String {
    format!("{{\"ts\":\"2026-01-01T00:00:00Z\",\"n\":{n}}}")
}

/// Creates a stream over a source and gives the address it listens at.
fn listen(client: &Client, name: &str, with: &str, format: &str) -> String {
    client
        .run(&format!("CREATE TABLE {name} INCLUDE raw INCLUDE peer INCLUDE file AS partition WITH ({with}) {format}"));
    client.run("FLUSH");
    client.one(&format!("SELECT DISTINCT address FROM logweir.sources WHERE stream = '{name}'"))
}

/// Waits for what no FLUSH can wait for: another process, the end of a connection.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A connection whose bytes leave at once: else a small piece may wait in the sender's kernel, where no FLUSH can see
/// it.
fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("it is a TCP connection");
    stream
}

fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        eprintln!("note: skipped, there is no {program}");
    }
    found.is_ok()
}

#[test]
fn lines_over_tcp() {
    let mut server = Server::start();
    let client = server.client();
    let with = "connector = 'tcp', address = '127.0.0.1:0', max_line_bytes = '1 kB'";
    let address = listen(&client, "lines", with, "FORMAT JSON");
    let mut streams: Vec<_> = (0..10).map(|_| connect(&address)).collect();
    for n in 0..1000 {
        let line = json(n) + "\n";
        let (first, rest) = line.as_bytes().split_at(n % line.len());
        let stream = &mut streams[n % 10];
        stream.write_all(first).expect("it is read");
        stream.write_all(rest).expect("it is read");
    }
    client.run("FLUSH");
    assert_eq!(
        client.one("SELECT count(*), count(DISTINCT n), sum(n), min(peer) FROM lines"),
        "1000 1000 499500 127.0.0.1"
    );
    assert_eq!(client.number("SELECT count(DISTINCT partition) FROM lines"), 10);
    let sources = "SELECT count(*), min(connector), sum(lag) FROM logweir.sources WHERE stream = 'lines'";
    assert_eq!(client.one(sources), "10 tcp 0");

    // Bytes of any kind and a line that is too long: each is kept, and the lines behind them are rows.
    streams[0].write_all(b"\x00\xff\xfe\r\n").expect("it is read");
    streams[1].write_all(&[&[b'x'; 5000][..], b"\n"].concat()).expect("it is read");
    for n in [1000, 1001] {
        writeln!(streams[n % 10], "{}", json(n)).expect("it is read");
    }
    client.run("FLUSH");
    assert_eq!(client.number("SELECT count(*) FROM lines"), 1002);
    let malformed = "SELECT encode(raw_bytes, 'hex'), true_bytes FROM lines__malformed WHERE length(raw) < 10";
    assert_eq!(client.one(malformed), "00fffe 3");
    let cut =
        "SELECT length(raw), true_bytes, reason LIKE '%max_line_bytes%' FROM lines__malformed WHERE true_bytes > 3";
    assert_eq!(client.one(cut), "1000 5000 t");

    // The last line of a connection needs no end.
    for stream in &mut streams {
        write!(stream, "{}", json(2000)).expect("it is read");
    }
    drop(streams);
    until("the last lines", || client.number("SELECT count(*) FROM lines WHERE n = 2000") == 10);
    let there = "SELECT count(partition) FROM logweir.sources WHERE stream = 'lines'";
    until("the connections to be forgotten", || client.number(there) == 0);

    client
        .fails(&format!("CREATE TABLE other WITH (connector = 'tcp', address = '{address}') FORMAT JSON"))
        .says("55006", &[&address, "Choose another"]);
    client.run("DROP TABLE lines");
    client.run(&format!("CREATE TABLE lines WITH (connector = 'tcp', address = '{address}') FORMAT JSON"));
    connect(&address);
}

#[test]
fn lines_over_a_unix_socket() {
    let mut server = Server::start();
    let client = server.client();
    let path = server.log("logs.sock");
    let with = format!("connector = 'unix', path = '{}', framing = 'nul'", path.display());
    assert_eq!(listen(&client, "lines", &with, ANYTHING), path.display().to_string());
    let mut stream = UnixStream::connect(&path).expect("it listens");
    stream.write_all(b"one\ntwo\0three\0").expect("it is read");
    client.run("FLUSH");
    assert_eq!(
        client.sorted("SELECT message, peer, partition FROM lines"),
        ["one\ntwo NULL connection 1", "three NULL connection 1"]
    );
    // A server that was killed leaves its socket behind.
    server.kill();
    assert!(path.exists());
    server.again();
    let client = server.client();
    client.run("FLUSH");
    UnixStream::connect(&path).expect("it listens again").write_all(b"four\0").expect("it is read");
    until("a line", || client.number("SELECT count(*) FROM lines") == 3);
}

#[test]
fn what_has_come_is_stored_at_a_stop() {
    let mut server = Server::start();
    let client = server.client();
    let address = listen(&client, "lines", "connector = 'tcp', address = '127.0.0.1:0'", "FORMAT JSON");
    client.run("CREATE TABLE grams WITH (connector = 'syslog', address = '127.0.0.1:0') FORMAT JSON; FLUSH");
    let udp = client.one("SELECT address FROM logweir.sources WHERE stream = 'grams'");
    drop(client);
    let mut stream = connect(&address);
    let lines: String = (0..20_000).map(|n| json(n) + "\n").collect();
    stream.write_all(lines.as_bytes()).expect("it is read");
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    for n in 0..100 {
        sender.send_to(json(n).as_bytes(), &udp).expect("it is read");
    }
    assert!(server.terminate().success());
    server.again();
    let client = server.client();
    assert_eq!(client.one("SELECT count(*), sum(n) FROM lines"), "20000 199990000");
    assert_eq!(client.one("SELECT count(*), sum(n) FROM grams"), "100 4950");
}

#[test]
fn a_kill_loses_at_most_what_was_not_stored_and_repeats_nothing() {
    let mut server = Server::start();
    server.expect_log("the log ended in the middle of a record");
    let client = server.client();
    let address = listen(&client, "lines", "connector = 'tcp', address = '127.0.0.1:0'", "FORMAT JSON");
    let mut stream = connect(&address);
    for n in 0..1000 {
        writeln!(stream, "{}", json(n)).expect("it is read");
    }
    client.run("FLUSH");
    for n in 1000..20_000 {
        writeln!(stream, "{}", json(n)).expect("it is read");
    }
    server.kill();
    server.again();
    let client = server.client();
    let found = client.one("SELECT count(*) - count(DISTINCT n), max(n) - count(*), count(*) >= 1000 FROM lines");
    assert_eq!(found, "0 -1 t", "a beginning of what was sent, each once, and all that a FLUSH has seen");
}

#[test]
fn too_many_connections_and_slow_ones_are_bounded() {
    let mut server = Server::start();
    server.expect_log("max_connections");
    server.expect_log("line_timeout");
    // A connection that is closed while its other side still sends.
    server.expect_log("Connection reset by peer");
    let client = server.client();
    let with = "connector = 'tcp', address = '127.0.0.1:0', max_connections = 20, line_timeout = '500 ms'";
    let address = listen(&client, "lines", with, ANYTHING);
    let flood: Vec<_> = (0..200).map(|_| TcpStream::connect(&address).expect("the kernel accepts")).collect();
    client.run("FLUSH");
    let errors = "SELECT max(errors), max(last_error) FROM logweir.sources WHERE stream = 'lines'";
    until("the refusals to be told", || client.one(errors).contains("max_connections (20) are open"));
    // Those that are in begin a line and never end it.
    for mut stream in &flood {
        // Most are closed already.
        let _ = stream.write_all(b"never ending");
    }
    until("the beginnings", || client.number("SELECT count(*) FROM lines WHERE message = 'never ending'") == 20);
    let mut good = connect(&address);
    good.write_all(b"a line\n").expect("there is room again");
    client.run("FLUSH");
    assert_eq!(client.number("SELECT count(*) FROM lines WHERE message = 'a line'"), 1);
    drop(flood);
}

/// Certificates made for a test: an authority, a server and a client of it, and a client of another.
struct Certificates(PathBuf);

impl Certificates {
    fn make(folder: &Path) -> Option<Certificates> {
        if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
            eprintln!("note: skipped, there is no openssl");
            return None;
        }
        let made = Certificates(folder.to_path_buf());
        for authority in ["ca", "other"] {
            made.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN={authority} \
                 -keyout {authority}.key -out {authority}.pem"
            ));
        }
        for (name, authority) in [("server", "ca"), ("client", "ca"), ("stranger", "other")] {
            made.openssl(&format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost \
                 -addext subjectAltName=DNS:localhost -keyout {name}.key -out {name}.csr"
            ));
            made.openssl(&format!(
                "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 30 \
                 -copy_extensions copy -out {name}.pem"
            ));
        }
        Some(made)
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(&self.0).output();
        let output = output.expect("it answered a moment ago");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn options(&self) -> String {
        format!("tls_cert = '{}', tls_key = '{}'", self.path("server.pem").display(), self.path("server.key").display())
    }

    /// A TLS connection, with the certificate of a client or without.
    fn connect(&self, address: &str, client: Option<&str>) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).expect("it was made")).expect("it is one");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder =
            builder.with_safe_default_protocol_versions().expect("there are some").with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let certificate =
                    CertificateDer::from_pem_file(self.path(&format!("{name}.pem"))).expect("it was made");
                let key = PrivateKeyDer::from_pem_file(self.path(&format!("{name}.key"))).expect("it was made");
                builder.with_client_auth_cert(vec![certificate], key).expect("they fit")
            }
        };
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("the settings fit");
        StreamOwned::new(connection, connect(address))
    }
}

#[test]
fn syslog_over_tls() {
    let mut server = Server::start();
    let Some(certificates) = Certificates::make(&server.log("")) else { return };
    server.expect_log("no TLS handshake");
    let client = server.client();
    let common = "connector = 'syslog', transport = 'tls', address = '127.0.0.1:0'";
    let address = listen(&client, "open", &format!("{common}, {}", certificates.options()), ANYTHING);
    let mut streams: Vec<_> = (0..5).map(|_| certificates.connect(&address, None)).collect();
    for n in 0..500 {
        let message = format!("<34>1 - host app - - - number {n}");
        write!(streams[n % 5], "{} {message}", message.len()).expect("it is read");
    }
    client.run("FLUSH");
    assert_eq!(client.one("SELECT count(*), count(DISTINCT message) FROM open"), "500 500");

    // Only those whom the authority knows.
    let ca = certificates.path("ca.pem");
    let options = format!("{common}, {}, tls_client_ca = '{}'", certificates.options(), ca.display());
    let address = listen(&client, "closed", &options, ANYTHING);
    let mut known = certificates.connect(&address, Some("client"));
    known.write_all(b"<34>known\n").expect("it is let in");
    client.run("FLUSH");
    for stranger in [None, Some("stranger")] {
        let mut stream = certificates.connect(&address, stranger);
        // With TLS 1.3 the refusal is told after the first bytes were sent.
        let _ = stream.write_all(b"<34>unknown\n").and_then(|()| stream.flush());
        assert!(stream.read(&mut [0; 1]).is_err(), "{stranger:?} is not let in");
    }
    let mut plain = TcpStream::connect(&address).expect("the kernel accepts");
    plain.write_all(b"<34>no TLS at all\n").expect("the kernel takes it");
    // An alert, and then the end.
    let _ = plain.read_to_end(&mut Vec::new());
    client.run("FLUSH");
    assert_eq!(client.sorted("SELECT message FROM closed"), ["<34>known"]);
    let errors = "SELECT max(last_error) LIKE '%no TLS handshake%' FROM logweir.sources WHERE stream = 'closed'";
    until("the errors to be told", || client.one(errors) == "t");

    let missing = format!("{common}, tls_cert = '/no/such.pem', tls_key = '{}'", ca.display());
    client.fails(&format!("CREATE TABLE t WITH ({missing}) {ANYTHING}")).says("58P01", &["/no/such.pem"]);
    let wrong = format!("{common}, tls_cert = '{}', tls_key = '{}'", ca.display(), ca.display());
    client.fails(&format!("CREATE TABLE t WITH ({wrong}) {ANYTHING}")).says("22023", &["ca.pem", "no private key"]);
    let other = certificates.path("client.key");
    let wrong = format!("{common}, tls_cert = '{}', tls_key = '{}'", ca.display(), other.display());
    client.fails(&format!("CREATE TABLE t WITH ({wrong}) {ANYTHING}")).says("22023", &["ca.pem", "client.key"]);
    client.fails(&format!("CREATE TABLE t WITH ({common}) {ANYTHING}")).says("22023", &["tls_cert"]);
}

/// The examples of RFC 3164 (section 5.4), RFC 5424 (section 6.5) and of both sections of RFC 6587 (3.4).
const VECTORS: [&str; 8] = [
    "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
    "Use the BFG!",
    "<13>Feb  5 17:32:18 10.0.0.99 Use the BFG!",
    "<165>Aug 24 05:34:00 CST 1987 mymachine myproc[10]: %% It's time to make the do-nuts.  %%  Ingredients: Mix=OK, \
     Jelly=OK # Devices: Mixer=OK, Jelly_Injector=OK, Frier=OK # Transport: Conveyer1=OK, Conveyer2=OK # %%",
    "<34>1 2003-10-11T22:14:15.003Z mymachine.example.com su - ID47 - \u{FEFF}'su root' failed for lonvick on /dev/pts/8",
    "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time to make the do-nuts.",
    "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" \
     eventSource=\"Application\" eventID=\"1011\"] \u{FEFF}An application event log entry...",
    "<165>1 2003-10-11T22:14:15.003Z mymachine.example.com evntslog - ID47 [exampleSDID@32473 iut=\"3\" \
     eventSource=\"Application\" eventID=\"1011\"][examplePriority@32473 class=\"high\"]",
];

#[test]
fn the_examples_of_the_rfcs_come_as_they_are() {
    let mut server = Server::start();
    let client = server.client();
    let udp = listen(&client, "udp", "connector = 'syslog', address = '127.0.0.1:0'", ANYTHING);
    let with = "connector = 'syslog', transport = 'tcp', address = '127.0.0.1:0'";
    let tcp = listen(&client, "tcp", with, ANYTHING);
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let mut counted = connect(&tcp);
    let mut lines = connect(&tcp);
    for vector in VECTORS {
        sender.send_to(vector.as_bytes(), &udp).expect("it is sent");
        write!(counted, "{} {vector}", vector.len()).expect("it is read");
        writeln!(lines, "{vector}").expect("it is read");
    }
    // RFC 5426 allows one of several lines; and anything may come.
    sender.send_to(b"<13>two\nlines\n", &udp).expect("it is sent");
    sender.send_to(b"\xff\x00", &udp).expect("it is sent");
    client.run("FLUSH");
    let all = |stream: &str| {
        client.sorted(&format!("SELECT message FROM {stream} WHERE message NOT LIKE '%two%' AND length(message) > 2"))
    };
    let mut expected = VECTORS.map(str::to_string).to_vec();
    expected.sort_unstable();
    assert_eq!(all("udp"), expected);
    assert_eq!(client.one("SELECT message FROM udp WHERE message LIKE '%two%'"), "<13>two\nlines");
    assert_eq!(client.number("SELECT count(*) FROM udp WHERE encode(raw, 'hex') = 'ff00'"), 1);
    let twice: Vec<String> = expected.iter().flat_map(|message| [message.clone(), message.clone()]).collect();
    assert_eq!(all("tcp"), twice);
    assert_eq!(client.one("SELECT DISTINCT peer, partition FROM udp"), "127.0.0.1 127.0.0.1");
    client
        .fails("CREATE TABLE t WITH (connector = 'syslog', address = '127.0.0.1:0', framing = 'newline') FORMAT JSON")
        .says("22023", &["each datagram is one message"]);
}

#[test]
fn lost_datagrams_are_counted_and_shown() {
    let mut server = Server::start();
    server.expect_log("datagrams were lost");
    let client = server.client();
    let with = "connector = 'syslog', address = '127.0.0.1:0', receive_buffer = '8 KiB'";
    let address = listen(&client, "udp", with, ANYTHING);
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
    let lost = "SELECT max(lost) FROM logweir.sources WHERE stream = 'udp'";
    assert_eq!(client.one(lost), "0");
    let mut sent = 0;
    until("a loss", || {
        for n in 0..5000 {
            sender.send_to(format!("<13>message {n} {}", "x".repeat(300)).as_bytes(), &address).expect("it is sent");
        }
        sent += 5000;
        client.run("FLUSH");
        client.number(lost) > 0
    });
    let all = format!("SELECT (SELECT count(*) FROM udp) + ({lost})");
    until("the last count", || client.number(&all) == sent);
    let mut http = TcpStream::connect(server.http()).expect("it listens");
    http.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it is read");
    let mut metrics = String::new();
    http.read_to_string(&mut metrics).expect("it is text");
    let shown = format!("logweir_source_lost_total{{stream=\"udp\",source=\"udp\"}} {}", client.number(lost));
    assert!(metrics.contains(&shown), "no {shown} in {metrics}");
}

/// Runs logger with these arguments.
fn logger(arguments: &[&str]) {
    let output = Command::new("logger").args(arguments).output().expect("it is installed");
    assert!(output.status.success(), "logger {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn messages_of_logger() {
    if !is_installed("logger") {
        return;
    }
    let mut server = Server::start();
    let client = server.client();
    let udp = listen(&client, "udp", "connector = 'syslog', address = '127.0.0.1:0'", ANYTHING);
    let with = "connector = 'syslog', transport = 'tcp', address = '127.0.0.1:0'";
    let tcp = listen(&client, "tcp", with, ANYTHING);
    let mut expected = Vec::new();
    for (transport, address) in [("udp", &udp), ("tcp", &tcp)] {
        let port = address.rsplit_once(':').expect("an address has a port").1;
        let to =
            ["--server", "127.0.0.1", "--port", port, "--tag", "test", &format!("--{transport}")].map(str::to_string);
        for form in [&["--rfc3164"][..], &["--rfc5424"], &["--rfc5424", "--octet-count"]] {
            let text = format!("over {transport} with {}", form.join(" "));
            let mut arguments: Vec<&str> = to.iter().map(String::as_str).collect();
            arguments.extend(form);
            // Over UDP the length would be a part of the message.
            if transport == "udp" {
                arguments.retain(|argument| *argument != "--octet-count");
            }
            arguments.push(&text);
            logger(&arguments);
            expected.push(text);
        }
    }
    client.run("FLUSH");
    // What a connection leaves unfinished comes when its end is seen.
    let count = "SELECT (SELECT count(*) FROM udp) + (SELECT count(*) FROM tcp)";
    until("all messages", || client.number(count) == expected.len() as i64);
    let found = client.rows("SELECT message FROM udp UNION ALL SELECT message FROM tcp");
    let found: Vec<String> = found.into_iter().map(|row| row[0].clone().expect("a text")).collect();
    for text in expected {
        let one = found.iter().filter(|message| message.ends_with(&text) && message.starts_with("<13>")).count();
        assert_eq!(one, 1, "{text} in {found:#?}");
    }
}

/// A process that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn messages_that_rsyslog_forwards() {
    const MESSAGES: usize = 3000;
    if Command::new("rsyslogd").arg("-v").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        eprintln!("note: skipped, there is no rsyslogd");
        return;
    }
    let mut server = Server::start();
    let client = server.client();
    let tcp = "connector = 'syslog', transport = 'tcp', address = '127.0.0.1:0'";
    let streams = [
        ("udp", listen(&client, "udp", "connector = 'syslog', address = '127.0.0.1:0'", ANYTHING)),
        ("tcp", listen(&client, "tcp", tcp, ANYTHING)),
        ("counted", listen(&client, "counted", tcp, ANYTHING)),
    ];
    let folder = server.log("");
    let socket = folder.join("devlog");
    let mut settings = format!(
        "global(workDirectory=\"{}\" maxMessageSize=\"8k\")
         module(load=\"imuxsock\" SysSock.Use=\"off\")
         input(type=\"imuxsock\" Socket=\"{}\" CreatePath=\"on\" RateLimit.Interval=\"0\" UseSysTimeStamp=\"off\")\n",
        folder.display(),
        socket.display()
    );
    for (name, address) in &streams {
        let (protocol, framing) = match *name {
            "udp" => ("udp", ""),
            "tcp" => ("tcp", " TCP_Framing=\"traditional\""),
            _ => ("tcp", " TCP_Framing=\"octet-counted\""),
        };
        let (host, port) = address.rsplit_once(':').expect("an address has a port");
        settings += &format!(
            "*.* action(type=\"omfwd\" target=\"{host}\" port=\"{port}\" protocol=\"{protocol}\"{framing}
                 template=\"RSYSLOG_SyslogProtocol23Format\")\n"
        );
    }
    let path = folder.join("rsyslog.conf");
    std::fs::write(&path, settings).expect("the folder is there");
    let mut command = Command::new("rsyslogd");
    command.arg("-n").arg("-f").arg(&path).arg("-i").arg(folder.join("rsyslog.pid"));
    let rsyslogd =
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it answered a moment ago"));
    let sender = UnixDatagram::unbound().expect("sockets can be made");
    until("rsyslogd to listen", || sender.connect(&socket).is_ok());
    for n in 0..MESSAGES {
        let message = format!("<13>Oct 11 22:14:15 test[7]: number {n}");
        sender.send(message.as_bytes()).expect("rsyslogd reads it");
    }
    for (name, _) in &streams {
        // Over UDP what was lost counts as well.
        let lost = format!("coalesce((SELECT max(lost) FROM logweir.sources WHERE stream = '{name}'), 0)");
        let mine = format!("SELECT count(*) + {lost} FROM {name} WHERE message LIKE '%number %'");
        until(&format!("all messages over {name}"), || client.number(&mine) as usize == MESSAGES);
        let shape = format!(
            "SELECT count(DISTINCT message) = count(*), bool_and(message ~ '^<13>1 .* test 7 - - .*number [0-9]+$') FROM {name}
             WHERE message LIKE '%number %'"
        );
        assert_eq!(client.one(&shape), "t t", "{name}: {}", client.one(&format!("SELECT min(message) FROM {name}")));
    }
    drop(rsyslogd);
}

#[test]
fn what_is_piped_into_the_server() {
    let mut server = Server::prepare();
    let mut input = server.pipe();
    let client = server.client();
    client.run("CREATE TABLE piped WITH (connector = 'stdin') FORMAT JSON");
    client.fails("CREATE TABLE other WITH (connector = 'stdin') FORMAT JSON").says("55006", &["another source"]);
    // Before any column is known.
    writeln!(input, "no JSON").expect("it is read");
    client.run("FLUSH");
    assert_eq!(client.number("SELECT count(*) FROM piped__malformed"), 1);
    for n in 0..10_000 {
        writeln!(input, "{}", json(n)).expect("it is read");
    }
    write!(input, "{}", json(10_000)).expect("it is read");
    client.run("FLUSH");
    assert_eq!(client.one("SELECT count(*), sum(n) FROM piped"), "10000 49995000");
    drop(input);
    until("the end", || client.one("SELECT state FROM logweir.sources") == "ended");
    client.run("FLUSH");
    assert_eq!(client.number("SELECT count(*) FROM piped"), 10_001);
    client.run("DROP TABLE piped");
    client.run("CREATE TABLE piped WITH (connector = 'stdin') FORMAT JSON");
}

/// In an ordinary run.
const KILLS: u64 = 10;

/// `kill -9` while files come into a spool folder: each line exactly once, and each file is gone when all is durable.
#[test]
fn a_spool_folder_while_the_server_is_killed() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seed = number("LOGWEIR_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    let kills = number("LOGWEIR_KILLS").unwrap_or(KILLS);
    let mut random = StdRng::seed_from_u64(seed);
    let mut server = Server::prepare();
    server.use_arguments(&["--checkpoint-interval", "200ms"]);
    server.expect_log("the log ended in the middle of a record");
    server.again();
    let folders = ["renamed", "deleted"].map(|name| server.log(name));
    for (folder, after) in folders.iter().zip(["rename", "delete"]) {
        std::fs::create_dir(folder).expect("the folder is new");
        server.client().run(&format!(
            "CREATE TABLE {after}d WITH (connector = 'spool', path = '{}', after = '{after}', quiet_time = '0 s',
                 poll_interval = '20 ms', block_bytes = '2 KiB', wal_segment_bytes = '16 KiB') FORMAT JSON",
            folder.display()
        ));
    }
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let mut own = StdRng::seed_from_u64(random.random());
        let (folders, stop, written) = (&folders, &stop, &written);
        scope.spawn(move || {
            for file in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let first = written.load(Ordering::SeqCst);
                // Also none, and so many that a kill comes in between.
                let count = own.random_range(0..3000);
                let text: String = (first..first + count).map(|n| json(n as usize) + "\n").collect();
                for folder in folders {
                    let temporary = folder.join(format!("{file}.tmp"));
                    std::fs::write(&temporary, &text).expect("the folder is there");
                    // The same name again, after a while.
                    let name = folder.join(format!("{}.log", file % 5));
                    until("the name to be free", || stop.load(Ordering::SeqCst) || !name.exists());
                    let name = if name.exists() { folder.join(format!("{file}.log")) } else { name };
                    std::fs::rename(&temporary, name).expect("the folder is there");
                }
                written.fetch_add(count, Ordering::SeqCst);
            }
        });
        for _ in 0..kills {
            std::thread::sleep(Duration::from_micros(random.random_range(0..700_000)));
            server.kill();
            server.again();
        }
        stop.store(true, Ordering::SeqCst);
    });
    let client = server.client();
    let written = written.into_inner() as i64;
    for (folder, stream) in folders.iter().zip(["renamed", "deleted"]) {
        let left = || {
            let names = std::fs::read_dir(folder).expect("the folder is there");
            let names = names.map(|entry| entry.expect("it is listed").file_name().into_string().expect("a text"));
            names.filter(|name| !name.ends_with(".done")).count()
        };
        client.run("FLUSH");
        let found = client.one(&format!("SELECT count(*), count(DISTINCT n), max(n) + 1 FROM {stream}"));
        assert_eq!(found, format!("{written} {written} {written}"), "LOGWEIR_SEED={seed}: {stream}");
        until("the files to leave", || left() == 0);
    }
    println!("spool: LOGWEIR_SEED={seed}: {kills} kills, {written} lines from each of two folders");
    assert!(written > 1000, "{written}");
}
