//! Who gets in, and what they may do there: roles, privileges, tokens, TLS; and what strangers try.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::server::{Client, Failure, LOGWEIR, Server, signal, wait};

const ADMIN: &str = "CREATE ROLE root ADMIN LOGIN PASSWORD 'correct horse'";

/// A row that nobody may see who was not let in.
const CANARY: &str = "canary-5e3f";

/// A server with the stream `access`, which holds the canary, the view `paths` over it, and an administrator.
fn server() -> (Server, Client) {
    let mut server = Server::start();
    prepare(&mut server);
    let root = log_in(&mut server, "root", "correct horse").expect("the password is right");
    (server, root)
}

fn prepare(server: &mut Server) {
    let client = server.client();
    client.run("CREATE TABLE access (ts timestamptz, path text, status bigint, WATERMARK FOR ts AS ts) FORMAT JSON");
    client.run(&format!("INSERT INTO access VALUES ('2026-01-01 00:00:00Z', '{CANARY}', 200)"));
    client.run(
        "CREATE MATERIALIZED VIEW paths AS SELECT window_start, path, count(*) AS n
         FROM TUMBLE(access, ts, INTERVAL '1 minute') GROUP BY window_start, path",
    );
    client.run(ADMIN);
}

fn log_in(server: &mut Server, user: &str, password: &str) -> Result<Client, Failure> {
    Client::log_in(&server.postgres(), user, password)
}

#[test]
fn only_who_knows_the_password_comes_in() {
    let (mut server, root) = server();
    root.run("CREATE USER alice PASSWORD 'wonderland'; CREATE ROLE nobody PASSWORD 'x'");
    for (user, password) in
        [("root", "wrong"), ("alice", "correct horse"), ("stranger", "x"), ("nobody", "y"), ("root", "")]
    {
        let refused = log_in(&mut server, user, password).err().expect("it is not the password");
        if !password.is_empty() {
            refused.says("28P01", &[&format!("password authentication failed for user \"{user}\"")]);
        }
    }
    log_in(&mut server, "nobody", "x").err().expect("it has no LOGIN").says("28000", &["not permitted to log in"]);
    // Who only says a name is asked for more.
    assert!(Client::try_connect(&server.postgres(), "logweir").is_none());

    // A password that was hashed by the client, as psql's \password sends it: that of RFC 7677.
    let verifier = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                    WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    root.run(&format!("CREATE USER pencil PASSWORD '{verifier}'"));
    log_in(&mut server, "pencil", "pencil").expect("the password is right");

    // They survive, and are nowhere in clear.
    let alice = log_in(&mut server, "alice", "wonderland").expect("the password is right");
    alice.run("ALTER ROLE alice PASSWORD 'looking glass'");
    drop((root, alice));
    assert!(server.terminate().success());
    for file in ["catalog.json", "catalog.json.1"] {
        let text = std::fs::read_to_string(server.data_dir().join(file)).expect("the catalog is there");
        assert!(!["wonderland", "looking glass", "correct horse"].iter().any(|secret| text.contains(secret)), "{text}");
    }
    server.again();
    log_in(&mut server, "alice", "wonderland").err().expect("it was changed").says("28P01", &[]);
    let alice = log_in(&mut server, "alice", "looking glass").expect("the password is right");
    assert_eq!(alice.one("SELECT current_user, session_user"), "alice alice");
    for secret in ["wonderland", "looking glass", "correct horse", "SCRAM-SHA-256"] {
        assert!(!server.has_logged(secret), "the log tells {secret}");
    }
}

#[test]
fn the_first_role_is_an_administrator_and_the_last_one_stays() {
    let mut server = Server::start();
    let client = server.client();
    client.fails("CREATE USER alice PASSWORD 'x'").says("55000", &["no administrator", "ADMIN LOGIN PASSWORD"]);
    client.run(ADMIN);
    let root = log_in(&mut server, "root", "correct horse").expect("the password is right");
    root.run("CREATE USER alice PASSWORD 'x'");
    root.fails("ALTER ROLE root NOADMIN").says("55000", &["no administrator"]);
    root.fails("ALTER ROLE root PASSWORD NULL").says("55000", &[]);
    root.fails("DROP ROLE root").says("55006", &["your own"]);
    root.fails("CREATE ROLE logweir_x").says("22023", &["reserved"]);
    root.fails("CREATE ROLE alice").says("42710", &["already exists"]);
    root.fails("CREATE ROLE bob PASSWORD ''").says("22023", &["empty"]);
    root.fails("DROP ROLE alcie").says("42704", &["alice"]);
    root.run("CREATE ROLE IF NOT EXISTS alice; DROP ROLE IF EXISTS bob; DROP USER alice");
}

#[test]
fn a_role_may_do_what_it_was_given() {
    let (mut server, root) = server();
    root.run("CREATE USER alice PASSWORD 'x'; CREATE ROLE readers; GRANT readers TO alice");
    let alice = log_in(&mut server, "alice", "x").expect("the password is right");
    assert_eq!(alice.one("SELECT 1 + 1"), "2");

    let file = server.log("out.csv").display().to_string();
    for statement in [
        "SELECT * FROM access",
        "SELECT * FROM public.\"access\"",
        "SELECT * FROM access__malformed",
        "SELECT * FROM access__late",
        "SELECT * FROM paths",
        "SELECT path, _revision FROM paths",
        "SELECT * FROM __versions(paths)",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM access)",
        "SELECT (SELECT max(path) FROM access)",
        "WITH a AS (SELECT * FROM access) SELECT * FROM a",
        "WITH access AS (SELECT * FROM access) SELECT * FROM access",
        "SELECT * FROM TUMBLE(access, ts, INTERVAL '1 minute')",
        "SELECT * FROM TUMBLE(public.access, ts, INTERVAL '1 minute')",
        "SELECT * FROM TABLE(TUMBLE(TABLE access, DESCRIPTOR(ts), INTERVAL '1 minute'))",
        "SELECT * FROM SESSION(access PARTITION BY path, ts, INTERVAL '1 minute')",
        "SELECT * FROM TUMBLE((SELECT * FROM access), ts, INTERVAL '1 minute')",
        "SELECT * FROM logweir.sources",
        "SELECT * FROM logweir.roles",
        "SELECT * FROM read_log('/etc/passwd', format => 'raw')",
        "SELECT * FROM '/etc/passwd'",
        "SUBSCRIBE TO access",
        "SUBSCRIBE (SELECT * FROM access)",
        "COPY access TO STDOUT",
        "COPY (SELECT * FROM access) TO STDOUT",
        "COPY (SUBSCRIBE TO access) TO STDOUT",
        "EXPLAIN SELECT * FROM access",
        "EXPLAIN ANALYZE SELECT * FROM access",
        "EXPLAIN VIEW paths",
        "EXPLAIN CREATE MATERIALIZED VIEW x AS SELECT path, count(*) FROM access GROUP BY path",
        "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM access",
        "DECLARE c CURSOR WITH HOLD FOR SUBSCRIBE TO access",
        "DESCRIBE access",
        "SHOW CREATE TABLE access",
        "SHOW COLUMNS FROM access",
        "SHOW STREAMS",
        "SHOW SOURCES",
        "INSERT INTO access VALUES ('2026-01-01 00:00:00Z', 'x', 1)",
        "INSERT INTO access SELECT * FROM access",
        "COPY access FROM STDIN",
        "CREATE TABLE other FORMAT JSON",
        "CREATE TABLE other AS SELECT * FROM access",
        "CREATE MATERIALIZED VIEW other AS SELECT path, count(*) FROM access GROUP BY path",
        "CREATE VIEW other AS SELECT * FROM access",
        "CREATE SOURCE other INTO access WITH (connector = 'file', path = '/etc/passwd')",
        "CREATE SINK other FROM access WITH (connector = 'file', path = '/tmp')",
        "CREATE NOTIFIER other WITH (type = 'log')",
        "CREATE EXTERNAL TABLE other STORED AS CSV LOCATION '/etc/passwd'",
        "PREVIEW (connector = 'file', path = '/etc/passwd')",
        "IMPORT '/etc/passwd' INTO access",
        "DROP TABLE access",
        "DROP MATERIALIZED VIEW paths",
        "CREATE ROLE other",
        "ALTER ROLE root PASSWORD 'x'",
        "ALTER ROLE alice ADMIN",
        "ALTER ROLE alice PASSWORD '${FILE:/etc/passwd}'",
        "DROP ROLE root",
        "GRANT SELECT ON access TO alice",
        "GRANT root TO alice",
        "REVOKE readers FROM alice",
        "CREATE TOKEN t FOR ROLE root",
        "DROP TOKEN t",
        "SET ROLE root",
        &format!("COPY (SELECT 1) TO '{file}'"),
        &format!("COPY access TO '{file}'"),
    ] {
        let refused = alice.attempt(statement).err().unwrap_or_else(|| panic!("not refused: {statement}"));
        assert_eq!(refused.code, "42501", "{statement}: {refused:?}");
        assert!(!format!("{refused:?}").contains(CANARY), "{refused:?}");
    }
    assert!(!Path::new(&file).exists());
    alice
        .fails("SELECT * FROM access")
        .says("42501", &["relation \"access\"", "\"alice\"", "SELECT on access", "GRANT SELECT"]);
    alice.fails("SELECT * FROM acess").says("42P01", &[]);

    // Of a view nothing more is needed than the privilege on the view.
    root.run("GRANT SELECT ON paths TO readers");
    assert_eq!(alice.one("SELECT path, n FROM paths"), format!("{CANARY} 1"));
    assert_eq!(alice.one("SELECT path, _revision FROM paths"), format!("{CANARY} 0"));
    alice.run("EXPLAIN VIEW paths; DESCRIBE paths; SHOW CREATE MATERIALIZED VIEW paths");
    alice.fails("SELECT * FROM access").says("42501", &[]);

    // What stands beside a stream goes with it.
    root.fails("GRANT SELECT ON access__late TO alice").says("42809", &["access"]);
    root.run("GRANT SELECT, INSERT ON access TO alice");
    alice.run("SELECT * FROM access__late; SELECT * FROM access__malformed");
    alice.run("INSERT INTO access VALUES ('2026-01-01 00:00:01Z', 'x', 404)");
    assert_eq!(alice.number("SELECT count(*) FROM access"), 2);
    if has("psql") {
        let shown = psql(&server.postgres(), "user=root", "correct horse", "\\dp access").expect("psql runs");
        assert!(shown.contains("alice=ar/logweir"), "{shown}");
    }
    assert_eq!(
        alice.one("SELECT has_table_privilege('access', 'SELECT'), has_table_privilege('public.access', 'DELETE')"),
        "t f"
    );
    assert_eq!(root.one("SELECT has_table_privilege('alice', 'logweir.sources', 'SELECT')"), "f");

    // A statement ends with its privilege, also one that was prepared before.
    let prepared = alice.prepare("SELECT path FROM access");
    assert_eq!(prepared().expect("it may"), 2);
    root.run("REVOKE ALL ON access FROM alice");
    prepared().expect_err("it may not any more").says("42501", &["SELECT on access"]);
    alice.fails("INSERT INTO access VALUES ('2026-01-01 00:00:01Z', 'x', 404)").says("42501", &["INSERT on access"]);
    drop(prepared);

    // What was planned as one role does not run as another.
    let planned = root.prepare("SELECT path FROM access");
    assert_eq!(planned().expect("it may"), 2);
    root.run("SET ROLE alice");
    planned().expect_err("it acts as another").says("42501", &["\"alice\"", "SELECT on access"]);
    root.run("RESET ROLE");
    assert_eq!(planned().expect("it may again"), 2);
    drop(planned);

    // Another relation of the name starts without privileges, also after a restart.
    root.run("GRANT SELECT ON access TO alice; DROP TABLE access CASCADE; CREATE TABLE access FORMAT JSON");
    alice.fails("SELECT * FROM access").says("42501", &[]);
    root.run("GRANT logweir_read TO readers");
    assert_eq!(alice.number("SELECT count(*) FROM access"), 0);
    assert_eq!(
        alice.one("SELECT name, admin, login, password, member_of FROM logweir.roles WHERE name = 'alice'"),
        "alice f t t readers"
    );
    alice.run("SHOW STREAMS; SHOW ROLES; SHOW GRANTS");

    // Acting as another.
    alice.run("SET ROLE readers");
    assert_eq!(alice.one("SELECT current_user"), "readers");
    alice.run("RESET ROLE; SET role = 'readers'; DISCARD ALL");
    assert_eq!(alice.one("SELECT current_user"), "alice");
    root.run("SET ROLE alice");
    root.fails("CREATE TABLE other FORMAT JSON").says("42501", &["schema public", "\"alice\""]);
    root.run("RESET ROLE");

    drop((root, alice));
    assert!(server.terminate().success());
    server.again();
    let root = log_in(&mut server, "root", "correct horse").expect("the password is right");
    let alice = log_in(&mut server, "alice", "x").expect("the password is right");
    assert_eq!(alice.number("SELECT count(*) FROM access"), 0);
    assert_eq!(root.sorted("SELECT rolname FROM pg_roles WHERE rolcanlogin"), ["alice", "root"]);
    root.run("REVOKE logweir_read FROM readers");
    alice.fails("SELECT * FROM access").says("42501", &[]);
    root.run("DROP ROLE readers, alice");
    alice.fails("SELECT * FROM access").says("42501", &[]);
    alice.fails("SELECT * FROM logweir.sources").says("42501", &[]);
}

/// The status of an answer, and its body.
fn http(address: &str, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
    let mut socket = TcpStream::connect(address).expect("the server listens");
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let length = body.len();
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nHost: x\r\n{token}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .expect("it is read");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer: {answer:?}")), answer)
}

#[test]
fn a_token_puts_rows_in_and_nothing_else() {
    let (mut server, root) = server();
    let address = server.http();
    let row = "{\"ts\":\"2026-01-01T00:00:02Z\",\"path\":\"/\",\"status\":200}\n";
    let post =
        |stream: &str, token: Option<&str>| http(&address, "POST", &format!("/v1/streams/{stream}/rows"), token, row);
    assert_eq!(post("access", None).0, 401);
    assert_eq!(post("access", Some("correct horse")).0, 401, "a password is no token");

    root.run("CREATE ROLE shipper; GRANT INSERT ON access TO shipper; CREATE TABLE other FORMAT JSON");
    let token = root.one("CREATE TOKEN web1 FOR ROLE shipper");
    let token = token.strip_prefix("web1 ").expect("name and token");
    assert_eq!(post("access", Some(token)).0, 200);
    assert_eq!(root.number("SELECT count(*) FROM access"), 2);
    // What it may not post into is not told from what is not there.
    let (refused, missing) = (post("other", Some(token)), post("otter", Some(token)));
    assert_eq!((refused.0, missing.0), (403, 403));
    assert!(refused.1.contains("INSERT on other") && !missing.1.contains("other"), "{refused:?} {missing:?}");
    // Neither figures nor SQL.
    assert_eq!(http(&address, "GET", "/metrics", Some(token), "").0, 403);
    assert_eq!(http(&address, "GET", "/metrics", None, "").0, 401);
    assert_eq!(http(&address, "GET", "/health", None, "").0, 200);
    log_in(&mut server, "shipper", token).err().expect("it is no password").says("28P01", &[]);

    root.run("GRANT logweir_read, logweir_ingest TO shipper");
    assert_eq!(http(&address, "GET", "/metrics", Some(token), "").0, 200);
    assert_eq!(post("other", Some(token)).0, 200);

    // Only its hash is kept; and one may give a hash.
    drop(root);
    assert!(server.terminate().success());
    let text = std::fs::read_to_string(server.data_dir().join("catalog.json")).expect("the catalog is there");
    assert!(!text.contains(token), "{text}");
    server.again();
    let (root, address) = (log_in(&mut server, "root", "correct horse").expect("it is right"), server.http());
    let post = |token: &str| http(&address, "POST", "/v1/streams/access/rows", Some(token), row).0;
    assert_eq!(post(token), 200);
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    root.run(&format!("CREATE TOKEN web2 FOR shipper HASH '{hash}'"));
    assert_eq!((post("secret"), post(hash)), (200, 401));
    root.fails("CREATE TOKEN web2 FOR shipper").says("42710", &[]);
    root.fails("CREATE TOKEN web3 FOR shipper HASH 'x'").says("22023", &["hexadecimal"]);
    root.run("DROP TOKEN web1");
    assert_eq!(post(token), 401);
    root.run("DROP ROLE shipper");
    assert_eq!(post("secret"), 401);
}

/// Certificates made for a test.
pub struct Certificates(PathBuf);

impl Certificates {
    pub fn make(folder: &Path) -> Option<Certificates> {
        if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
            eprintln!("note: skipped, there is no openssl");
            return None;
        }
        let made = Certificates(folder.to_path_buf());
        made.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=ca -keyout ca.key -out ca.pem",
        );
        made.issue("server", "localhost");
        made.issue("alice", "alice");
        Some(made)
    }

    /// A certificate of the authority for `subject`, in place of the one that `name` had.
    fn issue(&self, name: &str, subject: &str) {
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={subject} \
             -addext subjectAltName=DNS:localhost -keyout {name}.key -out {name}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -copy_extensions copy -out {name}.pem"
        ));
    }

    fn openssl(&self, arguments: &str) {
        let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(&self.0).output();
        let output = output.expect("it answered a moment ago");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// A TLS connection to something that speaks TLS at once.
    fn connect(&self, address: &str) -> StreamOwned<ClientConnection, TcpStream> {
        self.encrypt(TcpStream::connect(address).expect("the server listens"))
    }

    /// TLS over a connection that there is.
    fn encrypt(&self, socket: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.path("ca.pem")).expect("it was made")).expect("it is one");
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("there are some");
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        let name = "localhost".try_into().expect("it is a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("the settings are good");
        StreamOwned::new(connection, socket)
    }
}

/// What psql prints, or its errors.
fn psql(address: &str, settings: &str, password: &str, sql: &str) -> Result<String, String> {
    let (_, port) = address.rsplit_once(':').expect("an address has a port");
    let settings = format!("host=localhost hostaddr=127.0.0.1 port={port} dbname=logweir {settings}");
    let output = Command::new("psql")
        .args(["-X", "-A", "-t", "-w", "-d", &settings, "-c", sql])
        .env("PGPASSWORD", password)
        .output()
        .expect("it answered a moment ago");
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_string()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_string()),
    }
}

fn has(program: &str) -> bool {
    let there = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !there {
        eprintln!("note: skipped, there is no {program}");
    }
    there
}

#[test]
fn psql_comes_in_by_tls_with_a_password_or_a_certificate() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let Some(made) = Certificates::make(folder.path()) else { return };
    if !has("psql") {
        return;
    }
    let mut server = Server::start();
    prepare(&mut server);
    let root = log_in(&mut server, "root", "correct horse").expect("the password is right");
    root.run("CREATE USER alice PASSWORD 'wonderland'; CREATE USER bob PASSWORD 'builder'");
    drop(root);
    assert!(server.terminate().success());
    let (cert, key, ca) = (made.path("server.pem"), made.path("server.key"), made.path("ca.pem"));
    server.use_arguments(&["--tls-cert", &cert, "--tls-key", &key, "--tls-client-ca", &ca, "--tls-require"]);
    server.again();
    let address = server.postgres();

    let verified = format!("user=alice sslmode=verify-full sslrootcert={ca} sslcert=/none");
    assert_eq!(psql(&address, &verified, "wonderland", "SELECT current_user"), Ok("alice".into()));
    let bound = format!("{verified} channel_binding=require");
    assert_eq!(psql(&address, &bound, "wonderland", "SELECT current_user"), Ok("alice".into()));
    let wrong = psql(&address, &bound, "wrong", "SELECT 1").expect_err("it is not the password");
    assert!(wrong.contains("password authentication failed for user \"alice\""), "{wrong}");
    let clear = psql(&address, "user=alice sslmode=disable", "wonderland", "SELECT 1").expect_err("in clear");
    assert!(clear.contains("have to be encrypted"), "{clear}");
    let other = format!("user=alice sslmode=verify-full sslrootcert={} sslcert=/none", made.path("alice.pem"));
    psql(&address, &other, "wonderland", "SELECT 1").expect_err("another authority");

    // A certificate that names the role is enough; for another role it is nothing.
    let certificate = format!(
        "sslmode=verify-full sslrootcert={ca} sslcert={} sslkey={}",
        made.path("alice.pem"),
        made.path("alice.key")
    );
    let of = |user: &str, password: &str| {
        psql(&address, &format!("user={user} {certificate}"), password, "SELECT current_user")
    };
    assert_eq!(of("alice", ""), Ok("alice".into()));
    assert_eq!(of("bob", "builder"), Ok("bob".into()));
    of("bob", "").expect_err("no password");
    of("root", "").expect_err("no password");

    // Clients that are in stay in when the certificate is renewed, and later ones see the new one.
    let before = std::fs::read(made.path("server.pem")).expect("it was made");
    let http_address = server.http();
    let shown = || {
        let mut stream = made.connect(&http_address);
        write!(stream, "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it is read");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        stream.conn.peer_certificates().expect("it has shown one")[0].to_vec()
    };
    let old = shown();
    let mut open = made.connect(&http_address);
    write!(open, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is read");
    made.issue("server", "localhost");
    assert_ne!(std::fs::read(made.path("server.pem")).expect("it was made"), before);
    server.hang_up();
    let begun = Instant::now();
    while shown() == old {
        assert!(begun.elapsed() < Duration::from_secs(60), "the certificate is the old one");
    }
    let mut first = [0; 12];
    open.read_exact(&mut first).expect("it is still open");
    assert_eq!(&first, b"HTTP/1.1 200");
    assert_eq!(psql(&server.postgres(), &bound, "wonderland", "SELECT 1"), Ok("1".into()));

    // One that cannot be read leaves the old one in place.
    server.expect_log("the certificate could not be read again");
    std::fs::write(made.path("server.pem"), "rubbish").expect("it can be written");
    server.hang_up();
    let begun = Instant::now();
    while !server.has_logged("the certificate could not be read again") {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing was told");
        assert_eq!(psql(&server.postgres(), &verified, "wonderland", "SELECT 1"), Ok("1".into()));
    }
    assert_eq!(psql(&server.postgres(), &verified, "wonderland", "SELECT 1"), Ok("1".into()));

    // In clear nothing is answered by HTTP, either.
    let mut socket = TcpStream::connect(server.http()).expect("it listens");
    write!(socket, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is taken");
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    assert_eq!(String::from_utf8_lossy(&answer), "");
}

#[test]
fn what_is_sent_in_clear_before_tls_is_not_taken() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let Some(made) = Certificates::make(folder.path()) else { return };
    let mut server = Server::prepare();
    server.use_arguments(&["--tls-cert", &made.path("server.pem"), "--tls-key", &made.path("server.key")]);
    server.again();
    let mut socket = TcpStream::connect(server.postgres()).expect("it listens");
    // The wish for TLS, and behind it what somebody in between would like to add.
    let mut sent = vec![0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
    sent.extend_from_slice(&startup("logweir"));
    sent.extend_from_slice(&message(b'Q', b"SELECT 1\0"));
    socket.write_all(&sent).expect("it is read");
    let mut accepted = [0];
    socket.read_exact(&mut accepted).expect("it answers");
    assert_eq!(&accepted, b"S");
    let mut stream = made.encrypt(socket);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!stream.conn.is_handshaking() && answer.is_empty(), "{answer:?}");
    assert_eq!(server.client().one("SELECT 1"), "1", "in clear it is still taken");
}

/// The psycopg that many programs use, if it is installed.
#[test]
fn psycopg_logs_in() {
    let program = "import sys, psycopg\n\
                   with psycopg.connect(sys.argv[1]) as c:\n\
                   \x20   print(c.execute('SELECT current_user, %s::int', (42,)).fetchone())\n";
    if !Command::new("python3").args(["-c", "import psycopg"]).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    {
        eprintln!("note: skipped, there is no psycopg");
        return;
    }
    let (mut server, root) = server();
    root.run("CREATE USER alice PASSWORD 'wonder''land'");
    let address = server.postgres();
    let (host, port) = address.rsplit_once(':').expect("an address has a port");
    let run = |password: &str| {
        let settings = format!("host={host} port={port} user=alice dbname=logweir password={password}");
        let output = Command::new("python3").args(["-c", program, &settings]).output().expect("it was there");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (out.trim().to_string(), err.to_string())
    };
    assert_eq!(run("wonder\\'land").0, "('alice', 42)");
    let (out, err) = run("wrong");
    assert!(out.is_empty() && err.contains("password authentication failed for user \"alice\""), "{err}");
}

/// A server that starts with these arguments, and what it says: that it is ready, or why it is not.
fn attempt(data: &Path, arguments: &[&str]) -> String {
    let mut child = Command::new(LOGWEIR)
        .args(["serve", "--data-dir", &data.display().to_string()])
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok) {
        said += &format!("{line}\n");
        if line.starts_with("ready: ") {
            break;
        }
    }
    signal(&child, libc::SIGTERM);
    wait(&mut child);
    said
}

#[test]
fn strangers_are_not_let_in_without_a_role() {
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let data = home.path().join("data");
    let (open, local) = ("0.0.0.0:0", "127.0.0.1:0");
    for (pg, http) in [(open, local), (local, open)] {
        let said = attempt(&data, &["--pg", pg, "--http", http]);
        assert!(
            said.contains("could not listen on 0.0.0.0:") && said.contains("no role") && said.contains("--insecure"),
            "{said}"
        );
        assert!(!said.contains("ready: "), "{said}");
    }
    // Who posts logs may have to know a token instead.
    let said = attempt(&data, &["--pg", local, "--http", open, "--http-token", "secret"]);
    assert!(said.contains("ready: "), "{said}");
    assert!(attempt(&data, &["--pg", open, "--http", open, "--insecure"]).contains("ready: "));
    assert!(attempt(&data, &["--pg", "[::1]:0", "--http", "localhost:0"]).contains("ready: "));
    // A role made by a file is there before anybody can come.
    let init = home.path().join("roles.sql");
    std::fs::write(&init, "CREATE ROLE IF NOT EXISTS root ADMIN LOGIN PASSWORD '${ENV:ROOT}'")
        .expect("it can be written");
    let init = init.display().to_string();
    let said = attempt(&data, &["--pg", open, "--http", open, "--init", &init]);
    assert!(said.contains("no variable ROOT"), "{said}");
    std::fs::write(&init, "CREATE ROLE IF NOT EXISTS root ADMIN LOGIN PASSWORD 'hunter2'").expect("it can be written");
    for _ in 0..2 {
        let said = attempt(&data, &["--pg", open, "--http", open, "--init", &init]);
        assert!(said.contains("ready: ") && !said.contains("hunter2"), "{said}");
    }
    assert!(attempt(&data, &["--pg", open, "--http", open]).contains("ready: "), "the role is kept");
    std::fs::write(&init, "CREATE ROLE x PASSWORD 'hunter2' NONSENSE").expect("it can be written");
    let said = attempt(&data, &["--pg", local, "--http", local, "--init", &init]);
    assert!(said.contains("syntax error") && !said.contains("hunter2"), "{said}");
}

#[test]
fn names_and_values_are_only_names_and_values() {
    let (mut server, root) = server();
    let file = server.log("any.log");
    std::fs::write(&file, "").expect("the folder is there");
    let nasty = [
        "x\"; DROP TABLE access CASCADE; --",
        "x'; DROP TABLE access CASCADE; --",
        "x\" ADMIN LOGIN PASSWORD 'y",
        "x\\'; --",
        "$$; DROP TABLE access; $$",
        "/* x",
        "ünï\u{202e}cødé",
        "../../../etc/passwd",
        "%2e%2e/x",
        "a b;c",
    ];
    for name in nasty {
        let (ident, text) = (format!("\"{}\"", name.replace('"', "\"\"")), name.replace('\'', "''"));
        root.run(&format!("CREATE ROLE {ident} LOGIN PASSWORD '{text}'"));
        root.run(&format!("CREATE TOKEN {ident} FOR ROLE {ident}"));
        root.run(&format!("GRANT SELECT ON access TO {ident}; GRANT logweir_ingest TO {ident}"));
        let stream = format!("\"s {}\"", name.replace('"', "\"\""));
        root.run(&format!("CREATE TABLE {stream} FORMAT JSON; GRANT INSERT, SELECT ON {stream} TO {ident}"));
        root.run(&format!("CREATE VIEW \"v {}\" AS SELECT '{text}' AS x", name.replace('"', "\"\"")));
        // As values of options: taken as they are, or refused; never as SQL.
        for option in ["idle_timeout", "retention", "wal_sync", "hot_bytes", "connector", "path", "nonsense"] {
            let create = format!(
                "CREATE TABLE o WITH (connector = 'file', path = '{}', {option} = '{text}') FORMAT JSON",
                file.display()
            );
            root.fails(&create);
        }
        root.fails(&format!("CREATE NOTIFIER n WITH (type = 'webhook', url = '{text}')"));
        root.fails(&format!("GRANT SELECT ON {ident} TO root"));
    }
    drop(root);
    assert!(server.terminate().success());
    server.again();
    for name in nasty {
        let client = log_in(&mut server, name, name).unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
        assert_eq!(client.rows("SELECT current_user"), [[Some(name.to_string())]]);
        assert_eq!(client.number("SELECT count(*) FROM access"), 1);
        assert_eq!(client.number(&format!("SELECT count(*) FROM \"s {}\"", name.replace('"', "\"\""))), 0);
        client.fails("CREATE TABLE other FORMAT JSON").says("42501", &[]);
    }
    let root = log_in(&mut server, "root", "correct horse").expect("the password is right");
    assert_eq!(root.number("SELECT count(*) FROM logweir.roles WHERE admin"), 1);
}

/// Statements that would read or write PATH.
pub const READING: &[&str] = &[
    "SELECT * FROM 'PATH'",
    "SELECT * FROM read_log('PATH', format => 'raw')",
    "IMPORT 'PATH' INTO lines",
    "PREVIEW (connector = 'file', path = 'PATH')",
    "CREATE TABLE t WITH (connector = 'file', path = 'PATH') FORMAT RAW",
    "CREATE SOURCE s INTO lines WITH (connector = 'file', path = 'PATH')",
    "CREATE TABLE t WITH (connector = 'spool', path = 'PATH') FORMAT RAW",
    "CREATE TABLE t WITH (connector = 'unix', path = 'PATH') FORMAT RAW",
    "CREATE TABLE t WITH (connector = 'tcp', address = '127.0.0.1:0', tls_cert = 'PATH', tls_key = 'PATH') FORMAT RAW",
    "CREATE TABLE t WITH (connector = 'datagen', scenario = 'PATH') FORMAT COMBINED",
    "CREATE TABLE t WITH (archive = 'PATH') FORMAT RAW",
    "CREATE TABLE t FORMAT GROK (pattern = '%{X:x}', patterns_dir = 'PATH')",
    "CREATE TABLE t WITH (connector = 'kafka', brokers = 'good.example.org:1', topic = 't', \
     kafka.ssl.ca.location = 'PATH') FORMAT RAW",
    "CREATE TABLE t WITH (connector = 'kafka', brokers = 'good.example.org:1', topic = 't', \
     kafka.sasl.password = '${FILE:PATH}') FORMAT RAW",
    "CREATE SINK s FROM lines WITH (connector = 'file', path = 'PATH') FORMAT PLAIN ENCODE JSON",
    "CREATE NOTIFIER n WITH (type = 'email', to = 'a@b.c', host = 'good.example.org', ca_file = 'PATH')",
    "CREATE NOTIFIER n WITH (type = 'webhook', url = 'http://good.example.org', secret = '${FILE:PATH}')",
    "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'PATH'",
    "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 'file://PATH'",
    "COPY (SELECT 1 AS x) TO 'PATH'",
    "CREATE ROLE r PASSWORD '${FILE:PATH}'",
];

/// Statements that would reach other machines than good.example.org.
pub const REACHING: &[&str] = &[
    "CREATE NOTIFIER n WITH (type = 'webhook', url = 'http://evil.example.org/')",
    "CREATE NOTIFIER n WITH (type = 'alertmanager', url = 'http://good.example.org.evil.example/')",
    "CREATE NOTIFIER n WITH (type = 'email', to = 'a@b.c', host = 'evil.example.org')",
    "CREATE SINK s FROM lines WITH (connector = 'http', url = 'http://127.0.0.1:1/') FORMAT PLAIN ENCODE JSON",
    "CREATE TABLE t WITH (connector = 'http_check', url = 'http://good.example.org/ http://169.254.169.254/') FORMAT JSON",
    "CREATE TABLE t WITH (connector = 'kafka', brokers = 'good.example.org:1, evil:1', topic = 't') FORMAT RAW",
    "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION 's3://bucket/x'",
    "COPY (SELECT 1 AS x) TO 's3://bucket/x'",
];

#[test]
fn paths_and_machines_are_bounded_for_administrators_too() {
    let mut server = Server::prepare();
    let root = server.log("allowed");
    std::fs::create_dir(&root).expect("the folder is new");
    std::fs::create_dir(server.log("secret")).expect("the folder is new");
    let line = "198.51.100.1 - - [17/May/2015:10:05:03 +0000] \"GET / HTTP/1.1\" 200 1 \"-\" \"-\"\n";
    std::fs::write(root.join("good.log"), line).expect("it can be written");
    std::fs::write(server.log("secret/file.log"), "password\n").expect("it can be written");
    std::os::unix::fs::symlink(server.log("secret"), root.join("link")).expect("links can be made");
    let allowed = root.display().to_string();
    server.use_arguments(&["--allow-root", &allowed, "--allow-host", "good.example.org"]);
    server.again();
    let client = server.client();
    client.run("CREATE TABLE lines FORMAT RAW");
    let good = root.join("good.log").display().to_string();
    client.run(&format!("IMPORT '{good}' INTO lines"));
    assert_eq!(client.number(&format!("SELECT count(*) FROM read_log('{good}', format => 'raw')")), 1);
    assert_eq!(client.number(&format!("SELECT count(*) FROM '{good}'")), 1);
    client.run(&format!("COPY (SELECT 1 AS x) TO '{allowed}/out.csv'"));

    let (secret, passwd) = (server.log("secret/file.log").display().to_string(), "/etc/passwd".to_string());
    for path in [
        passwd,
        secret,
        format!("{allowed}/../secret/file.log"),
        format!("{allowed}/link/file.log"),
        format!("{allowed}/./link/../secret/file.log"),
        format!("{allowed}/*/../../secret/file.log"),
        format!("{allowed}x/file.log"),
        "../../../../../../../../../etc/passwd".to_string(),
    ] {
        for statement in READING {
            let statement = statement.replace("PATH", &path);
            let refused = client.attempt(&statement).err().unwrap_or_else(|| panic!("not refused: {statement}"));
            assert_eq!(refused.code, "42501", "{statement}: {refused:?}");
        }
    }
    for statement in REACHING {
        let refused = client.attempt(statement).err().unwrap_or_else(|| panic!("not refused: {statement}"));
        assert_eq!(refused.code, "42501", "{statement}: {refused:?}");
    }
    client.run("CREATE NOTIFIER n WITH (type = 'webhook', url = 'http://good.example.org/')");
}

/// A message of the protocol.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

fn startup(user: &str) -> Vec<u8> {
    let body = [&[0, 3, 0, 0][..], b"user\0", user.as_bytes(), b"\0database\0logweir\0\0"].concat();
    [&(body.len() as u32 + 4).to_be_bytes()[..], &body].concat()
}

/// Messages that a client may send, as they ought to be.
fn samples() -> Vec<Vec<u8>> {
    let first = [b"SCRAM-SHA-256\0".as_slice(), &[0, 0, 0, 10], b"n,,n=,r=xy"].concat();
    vec![
        message(b'Q', b"SELECT path FROM access\0"),
        message(b'Q', b"COPY access FROM STDIN\0"),
        message(b'P', b"s\0SELECT path FROM access WHERE status = $1\0\0\x01\0\0\0\x14"),
        message(b'B', b"p\0s\0\0\x01\0\0\0\x01\0\0\0\x03200\0\x01\0\0"),
        message(b'B', b"\0\0\0\0\0\0\0\0"),
        message(b'D', b"Ss\0"),
        message(b'D', b"Pp\0"),
        message(b'E', b"p\0\0\0\0\0"),
        message(b'C', b"Ss\0"),
        message(b'H', b""),
        message(b'S', b""),
        message(b'd', b"2026-01-01 00:00:00Z\tx\t1\n"),
        message(b'c', b""),
        message(b'f', b"no\0"),
        message(b'p', b"password\0"),
        message(b'p', &first),
        message(b'p', b"c=biws,r=xy,p=AAAA"),
        message(b'F', b"\0\0\0\x01\0\0\0\0\0\0"),
        message(b'X', b""),
    ]
}

/// Some of the samples with something wrong, and noise.
fn broken(random: &mut StdRng, samples: &[Vec<u8>]) -> Vec<u8> {
    let mut sent = Vec::new();
    for _ in 0..random.random_range(1..5) {
        let mut one = samples[random.random_range(0..samples.len())].clone();
        for _ in 0..random.random_range(0..4) {
            let at = random.random_range(0..one.len().max(1)).min(one.len().saturating_sub(1));
            match random.random_range(0..6) {
                _ if one.is_empty() => one.push(random.random()),
                0 => one[at] = random.random(),
                1 => one[at] ^= 1 << random.random_range(0..8),
                2 => drop(one.remove(at)),
                3 => one.insert(at, random.random()),
                4 => one.truncate(at),
                // Lengths and counts at their ends.
                _ => one[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
            }
        }
        sent.extend(one);
    }
    sent
}

/// What the server answers to these bytes before it closes the connection.
fn answer(address: &str, sent: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).expect("the server lives");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("it is more than nothing");
    // It may close the connection before all of it is sent.
    let _ = socket.write_all(sent);
    let _ = socket.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Err(err) if matches!(err.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            panic!("no end of the answer to {sent:?}")
        }
        Ok(_) | Err(_) => answer,
    }
}

fn seed() -> u64 {
    let seed = std::env::var("LOGWEIR_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    eprintln!("seed: LOGWEIR_SEED={seed}");
    seed
}

fn holds(answer: &[u8], text: &str) -> bool {
    answer.windows(text.len()).any(|window| window == text.as_bytes())
}

/// How many cases of damaged messages: more where LOGWEIR_FUZZ says so.
fn cases() -> usize {
    std::env::var("LOGWEIR_FUZZ").ok().and_then(|count| count.parse().ok()).unwrap_or(3000)
}

#[test]
fn broken_messages_end_their_connection_and_nothing_else() {
    let cases = cases();
    let (mut server, root) = server();
    let (address, mut random, samples) = (server.postgres(), StdRng::seed_from_u64(seed()), samples());
    // Before the login: nothing gets through, whatever comes first.
    for case in 0..cases {
        let mut sent = match case % 4 {
            0 => Vec::new(),
            1 => vec![0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f],
            _ => startup(["root", "nobody", ""][case % 3]),
        };
        if case % 4 == 3 {
            let at = random.random_range(0..sent.len());
            sent[at] = random.random();
        }
        sent.extend(broken(&mut random, &samples));
        let answer = answer(&address, &sent);
        assert!(!holds(&answer, CANARY), "case {case}: {sent:?}");
        // No message says that a login is done: an answer of authentication (R, 8 bytes) with code 0.
        let welcomed = answer.windows(9).any(|window| window == [b'R', 0, 0, 0, 8, 0, 0, 0, 0]);
        assert!(!welcomed, "case {case}: {sent:?}");
    }
    assert!(root.alive());

    // Too long is told at once, and not waited for.
    for (sent, told) in [
        (vec![0, 0, 0x27, 0x11, 0, 3, 0, 0], "invalid length of startup packet"),
        (vec![0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0], "invalid length of startup packet"),
        ([startup("root"), vec![b'Q', 0x3f, 0xff, 0xff, 0xff]].concat(), "expected a message of the login"),
        ([startup("root"), vec![b'p', 0x3f, 0xff, 0xff, 0xff]].concat(), "invalid message length"),
    ] {
        let answer = answer(&address, &sent);
        assert!(holds(&answer, told) && holds(&answer, "08P01"), "{}", String::from_utf8_lossy(&answer));
    }
    drop(root);
    assert!(server.peak_memory() < 2 << 30);
}

#[test]
fn broken_statements_and_portals_leave_the_server_alone() {
    let cases = cases();
    let mut server = Server::start();
    let client = server.client();
    client.run("CREATE TABLE access (ts timestamptz, path text, status bigint) FORMAT JSON");
    let (address, mut random, samples) = (server.postgres(), StdRng::seed_from_u64(seed()), samples());
    // While there are no roles everybody is in at once.
    let (mut ready, mut told, mut messages) = (0, std::collections::BTreeMap::<String, usize>::new(), 0);
    for _ in 0..cases {
        let sent = broken(&mut random, &samples);
        messages += 1;
        let answer = answer(&address, &[startup("anybody"), sent].concat());
        ready += usize::from(holds(&answer, "server_version"));
        *told.entry(sqlstate(&answer).unwrap_or_else(|| "no error".to_string())).or_default() += 1;
        assert!(!holds(&answer, "XX000"), "an error of the server itself: {}", String::from_utf8_lossy(&answer));
    }
    eprintln!(
        "{messages} connections with damaged messages behind their start, {ready} let in; first errors: {told:?}"
    );
    // An answer may be lost when the server closes the connection with something unread.
    assert!(ready > cases / 2, "{ready} of {cases} were let in");
    let long = [startup("anybody"), vec![b'Q', 0x7f, 0xff, 0xff, 0xff]].concat();
    let answer = answer(&address, &long);
    assert!(holds(&answer, "invalid message length"), "{}", String::from_utf8_lossy(&answer));
    assert!(client.alive());
    assert!(server.peak_memory() < 2 << 30);
}

/// The SQLSTATE of the first error in an answer.
fn sqlstate(answer: &[u8]) -> Option<String> {
    let at = answer.windows(2).position(|window| window == b"\0C")?;
    let code = answer.get(at + 2..at + 7).filter(|code| code.iter().all(u8::is_ascii_alphanumeric))?;
    Some(String::from_utf8_lossy(code).into_owned())
}

/// Connections that say nothing, and those that never come to an end, keep nobody out who knows the password.
#[test]
fn silence_takes_no_places() {
    let (mut server, root) = server();
    root.run("CREATE ROLE shipper; GRANT INSERT ON access TO shipper; CREATE USER alice PASSWORD 'x'");
    let token = root.one("CREATE TOKEN web1 FOR ROLE shipper");
    let token = token.strip_prefix("web1 ").expect("name and token").to_string();
    let (address, http_address) = (server.postgres(), server.http());
    let silent = |address: &str, said: &[u8]| {
        let mut socket = TcpStream::connect(address).expect("it listens");
        let _ = socket.write_all(said);
        socket
    };
    let half = startup("alice");
    let mut held: Vec<TcpStream> = (0..500).map(|n| silent(&address, &half[..n % half.len()])).collect();
    // Some get to the question for their password.
    held.extend((0..100).map(|_| silent(&address, &half)));
    for _ in 0..5 {
        let alice = log_in(&mut server, "alice", "x").expect("the password is right");
        assert_eq!(alice.one("SELECT current_user"), "alice");
    }
    assert!(root.alive());
    // The same at the other door: half a request each.
    held.extend((0..600).map(|_| silent(&http_address, b"POST /v1/streams/access/rows HTTP/1.1\r\nHost: x\r\n")));
    let row = "{\"ts\":\"2026-01-01T00:00:02Z\",\"path\":\"/\",\"status\":200}\n";
    for _ in 0..5 {
        assert_eq!(http(&http_address, "POST", "/v1/streams/access/rows", Some(&token), row).0, 200);
    }
    // Whoever has no token is told so before the body has come.
    let mut socket = TcpStream::connect(&http_address).expect("it listens");
    write!(socket, "POST /v1/streams/access/rows HTTP/1.1\r\nHost: x\r\nContent-Length: 60000000\r\n\r\n")
        .expect("it is read");
    let mut status = [0; 12];
    socket.read_exact(&mut status).expect("it answers");
    assert_eq!(&status, b"HTTP/1.1 401");
    drop(held);
}

#[test]
fn the_last_places_are_for_administrators() {
    let (mut server, root) = server();
    root.run("CREATE USER alice PASSWORD 'x'");
    drop(root);
    assert!(server.terminate().success());
    server.use_arguments(&["--max-connections", "4", "--reserved-connections", "2", "--authentication-timeout", "1s"]);
    server.again();
    let clients: Vec<Client> = (0..2).map(|_| log_in(&mut server, "alice", "x").expect("there is a place")).collect();
    let refused = log_in(&mut server, "alice", "x").err().expect("the others are kept");
    refused.says("53300", &["too many connections", "administrators"]);
    // Nobody learns that who has not logged in.
    log_in(&mut server, "alice", "y").err().expect("it is wrong").says("28P01", &[]);
    let admins: Vec<Client> =
        (0..2).map(|_| log_in(&mut server, "root", "correct horse").expect("there is a place")).collect();
    log_in(&mut server, "root", "correct horse").err().expect("all are taken").says("53300", &["4 connections"]);
    drop((clients, admins));
    let begun = Instant::now();
    while log_in(&mut server, "alice", "x").is_err() {
        assert!(begun.elapsed() < Duration::from_secs(60), "places are given back");
    }
    // Who says nothing has a second.
    let mut socket = TcpStream::connect(server.postgres()).expect("it listens");
    let begun = Instant::now();
    assert_eq!(socket.read(&mut [0]).expect("it ends"), 0);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

/// Statements that are large or deep in every way that text can be: each is answered, and the server lives.
#[test]
fn monstrous_statements_are_answered() {
    let mut server = Server::start();
    let client = server.client();
    let many = |one: &str, count: usize| one.repeat(count);
    let list = (0..200_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    for statement in [
        format!("SELECT {}1{}", many("(", 100_000), many(")", 100_000)),
        format!("SELECT 1{}", many(" + 1", 50_000)),
        format!("SELECT true{}", many(" AND true", 50_000)),
        format!("SELECT 'a'{}", many(" || 'a'", 50_000)),
        format!("SELECT {}true", many("NOT ", 50_000)),
        format!("SELECT {}1", many("- ", 50_000)),
        format!("SELECT 1{}", many("::bigint", 50_000)),
        format!("SELECT {}1{}", many("abs(", 20_000), many(")", 20_000)),
        format!("SELECT {}1{}", many("CASE WHEN true THEN ", 20_000), many(" END", 20_000)),
        format!("SELECT {}1{}", many("ARRAY[", 20_000), many("]", 20_000)),
        format!("SELECT x FROM {}(SELECT 1 AS x) AS t{}", many("(SELECT x FROM ", 5_000), many(") AS t", 5_000)),
        format!("SELECT 1{}", many(" UNION ALL SELECT 1", 5_000)),
        format!("WITH {} SELECT 1", (0..1_000).map(|n| format!("t{n} AS (SELECT 1)")).collect::<Vec<_>>().join(", ")),
        format!("SELECT 1 WHERE 1 IN ({list})"),
        format!("SELECT {list}"),
        // Within what is allowed.
        format!("SELECT 1{}", many(" + 1", 300)),
        format!("SELECT true{}", many(" OR 1 = 2", 300)),
        format!("SELECT 1{}", many(" UNION ALL SELECT 1", 300)),
        format!("SELECT 1{}", many("::bigint", 300)),
        format!("CREATE VIEW deep AS SELECT 1{} AS x", many(" UNION ALL SELECT 1", 300)),
        "SELECT count(*) FROM deep".to_string(),
        format!("SELECT 1{}", many(" BETWEEN 0 AND 1", 20_000)),
        format!("CREATE VIEW v AS SELECT {}1{} AS x", many("(", 100_000), many(")", 100_000)),
        format!("CREATE VIEW v AS SELECT 1{} AS x", many(" + 1", 50_000)),
        format!("CREATE ALERT a ON v WHERE 1{} > 0", many(" + 1", 50_000)),
        format!("EXPLAIN SELECT 1{}", many(" + 1", 50_000)),
        format!("SELECT '{}'::jsonb", many("[", 100_000)),
        format!("SELECT 'x' ~ '{}x{}'", many("(", 20_000), many(")", 20_000)),
        format!("SELECT 1 AS \"{}\"", many("x", 1_000_000)),
    ] {
        let begun = Instant::now();
        let outcome = client.attempt(&statement);
        let what = &statement[..statement.len().min(60)];
        let told = outcome.as_ref().map_or_else(|failure| failure.code.clone(), |rows| format!("{} rows", rows.len()));
        eprintln!("{what}…: {told} in {:?}", begun.elapsed());
        assert!(client.alive(), "the server has gone: {what}");
    }
    // What was created is planned again at the next start.
    assert!(server.terminate().success());
    server.again();
    assert_eq!(server.client().number("SELECT count(*) FROM deep"), 301);
}
