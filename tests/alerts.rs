//! Alerts with a real server, a real receiver of HTTP and real mail servers: what is told, when, how often, and that nothing
//! is lost when the server is killed between firing and telling.

mod disk;
mod episodes;
pub mod mail;
mod ready;
mod scores;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rand::RngExt;
use serde_json::Value;

use crate::lines::{self, START, clf};
use crate::server::{Client, Server};
use crate::sinks::receiver::Receiver;
use mail::MailServer;

/// Longer than any of this takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Kills between firing and telling.
const KILLS: u64 = 8;

#[track_caller]
fn until<T>(what: &str, found: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, found)
}

#[track_caller]
fn until_within<T>(patience: Duration, what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begun.elapsed() < patience, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A request of the path at a second.
fn line(second: i64, path: &str, status: u16) -> String {
    format!("10.0.0.1 - - [{}] \"GET {path} HTTP/1.1\" {status} 7 \"-\" \"-\"\n", clf(START + second))
}

/// A stream of `web.log`, and a view that counts requests and errors of each path in windows of 10 seconds.
fn create_web(server: &Server, client: &Client) -> PathBuf {
    let log = server.log("web.log");
    lines::append(&log, "");
    client.run(&format!(
        "CREATE TABLE web (*, WATERMARK FOR ts AS ts)
         WITH (connector = 'file', path = '{}', idle_timeout = '1 hour') FORMAT COMBINED;
         CREATE MATERIALIZED VIEW errors AS
         SELECT window_start, window_end, path, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors
         FROM TUMBLE(web, ts, INTERVAL '10 seconds') GROUP BY window_start, window_end, path",
        log.display()
    ));
    log
}

fn write(log: &Path, second: i64, path: &str, status: u16, count: usize) {
    lines::append(log, line(second, path, status).repeat(count));
}

fn create_hook(client: &Client, receiver: &Receiver) {
    client.run(&format!(
        "CREATE NOTIFIER hook WITH (type = 'webhook', url = '{}', secret = 'hunter2', retry_max = '300ms')",
        receiver.url()
    ));
}

/// The messages that a receiver has taken, each once by its id.
fn messages(receiver: &Receiver) -> Vec<Value> {
    let mut ids = BTreeSet::new();
    let all = receiver.accepted();
    let parsed = all.iter().map(|request| serde_json::from_str::<Value>(&request.body).expect("it is JSON"));
    parsed.filter(|message| ids.insert(message["id"].to_string())).collect()
}

/// The instances that a receiver was told of: status, path, whether repeated.
fn told(receiver: &Receiver) -> Vec<(String, String, bool)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let items = |message: &Value| message["instances"].as_array().cloned().unwrap_or_default();
    let all = messages(receiver);
    let one = |item: Value| (text(&item["status"]), text(&item["key"]["path"]), item["repeated"] == true);
    all.iter().flat_map(items).map(one).collect()
}

fn count(receiver: &Receiver, status: &str, path: &str) -> usize {
    told(receiver).iter().filter(|(s, p, _)| s == status && p == path).count()
}

fn states(client: &Client) -> Vec<String> {
    client.sorted("SELECT name, key, state FROM logweir.alerts")
}

#[test]
fn it_fires_is_told_again_and_resolves() {
    let (mut server, receiver) = (Server::start(), Receiver::start(|_| (200, "")));
    let client = server.client();
    let log = create_web(&server, &client);
    create_hook(&client, &receiver);
    client.run(
        "CREATE ALERT bad ON errors WHERE errors >= 3 AND requests > 1 KEY (path) SEVERITY 'critical'
         LABELS (team = 'web') ANNOTATIONS (summary = '{{path}} has {{errors}} errors ({{team}})')
         REPEAT INTERVAL '1 second' NOTIFY hook ON RESOLVE",
    );
    assert_eq!(states(&client), ["bad NULL ok"]);
    write(&log, 1, "/a", 500, 2);
    write(&log, 2, "/b", 200, 9);
    write(&log, 3, "/a", 503, 2);
    until("/a to fire", || (count(&receiver, "firing", "/a") > 0).then_some(()));
    let message = messages(&receiver).remove(0);
    assert_eq!((message["alert"].as_str(), message["severity"].as_str()), (Some("bad"), Some("critical")));
    let item = &message["instances"][0];
    assert_eq!(item["since"], "2026-01-01T00:00:00Z");
    assert!(item["annotations"]["summary"].as_str().is_some_and(|text| text.starts_with("/a has ")), "{item}");
    assert!(item["row"]["errors"].as_i64().is_some_and(|errors| errors >= 3), "{item}");
    let request = receiver.accepted().remove(0);
    assert_eq!(request.key(), format!("\"{}\"", message["id"].as_str().expect("it has one")));
    assert!(request.headers["x-logweir-signature"].starts_with("sha256="));
    // Again, until somebody has acknowledged it.
    until("a repetition", || told(&receiver).iter().any(|(_, _, repeated)| *repeated).then_some(()));
    assert_eq!(states(&client), ["bad path=/a firing"]);
    client.run("ACKNOWLEDGE ALERT bad MATCH (path = '/a')");
    assert_eq!(client.one("SELECT acknowledged FROM logweir.alerts"), "t");
    let before = told(&receiver).len();
    // The next window is open: nothing is over yet. Then it closes without a word of /a.
    write(&log, 12, "/b", 200, 1);
    client.run("FLUSH");
    assert_eq!(states(&client), ["bad path=/a firing"]);
    write(&log, 20, "/b", 200, 1);
    until("/a to resolve", || (count(&receiver, "resolved", "/a") > 0).then_some(()));
    assert_eq!(told(&receiver).len(), before + 1, "it was acknowledged");
    let over = messages(&receiver).pop().expect("it was told");
    assert_eq!(over["instances"][0]["at"], "2026-01-01T00:00:10Z");
    let history = "SELECT key, from_state, to_state, at FROM logweir.alert_history ORDER BY noticed, at";
    let history: Vec<String> = client.rows(history).iter().map(crate::server::line).collect();
    assert_eq!(history, ["path=/a ok firing 2026-01-01 00:00:00+00", "path=/a firing resolved 2026-01-01 00:00:10+00"]);
    let sent = "SELECT count(*) FROM logweir.notifications WHERE state = 'sent' AND notifier = 'hook'";
    until("all to be noted", || (client.number(sent) as usize == messages(&receiver).len()).then_some(()));
}

#[test]
fn groups_wait_and_limits_tell_of_the_rest() {
    let (mut server, receiver) = (Server::start(), Receiver::start(|_| (200, "")));
    let client = server.client();
    let log = create_web(&server, &client);
    create_hook(&client, &receiver);
    client.run(
        "CREATE ALERT together ON errors WHERE errors > 0 KEY (path) LABELS (team = 'web')
         GROUP BY (team) WAIT INTERVAL '700ms' NOTIFY hook;
         CREATE ALERT few ON errors WHERE errors > 0 KEY (path) LIMIT 2 PER INTERVAL '2 seconds' NOTIFY hook",
    );
    lines::append(&log, (0..20).map(|n| line(1, &format!("/{n}"), 500)).collect::<String>());
    let of = |alert: &str| -> Vec<Value> {
        messages(&receiver).into_iter().filter(|message| message["alert"] == alert).collect()
    };
    let told = |messages: &[Value]| -> usize {
        messages.iter().map(|message| message["instances"].as_array().map_or(0, Vec::len)).sum()
    };
    until("all to be told", || (told(&of("together")) + told(&of("few")) == 40).then_some(()));
    assert_eq!(of("together").len(), 1);
    assert_eq!(of("together")[0]["group"], "team=web");
    assert_eq!(of("together")[0]["title"], "[FIRING:20] together: team=web");
    assert_eq!(of("few").len(), 3, "two, and one for the rest");
}

#[test]
fn what_is_silenced_is_told_when_the_silence_ends() {
    let (mut server, receiver) = (Server::start(), Receiver::start(|_| (200, "")));
    let client = server.client();
    let log = create_web(&server, &client);
    create_hook(&client, &receiver);
    client.run("CREATE ALERT bad ON errors WHERE errors > 0 KEY (path) NOTIFY hook ON RESOLVE");
    client.run("SILENCE ALERT bad MATCH (path = '/a') UNTIL now() + INTERVAL '1 hour'");
    client.fails("SILENCE ALERT bad MATCH (pth = '/a') UNTIL now() + INTERVAL '1 hour'").says("42703", &["path"]);
    client.fails("SILENCE ALERT bad UNTIL now() - INTERVAL '1 hour'").says("22023", &["over"]);
    client.fails("SILENCE ALERT bod UNTIL now()").says("22023", &[]);
    client.fails("UNSILENCE ALERT bod").says("42704", &["bad"]);
    write(&log, 1, "/a", 500, 1);
    write(&log, 1, "/b", 500, 1);
    until("/b to be told", || (count(&receiver, "firing", "/b") > 0).then_some(()));
    until("/a to fire", || states(&client).contains(&"bad path=/a firing".to_string()).then_some(()));
    assert_eq!(count(&receiver, "firing", "/a"), 0);
    let silenced = "SELECT key FROM logweir.alerts WHERE silenced_until > now()";
    assert_eq!(client.one(silenced), "path=/a");
    client.run("UNSILENCE ALERT bad MATCH (path = '/a')");
    until("/a to be told", || (count(&receiver, "firing", "/a") > 0).then_some(()));
    assert_eq!(told(&receiver).len(), 2);
}

#[test]
fn killed_between_firing_and_telling() {
    let mut server = Server::prepare();
    server.expect_log("a notifier cannot tell");
    server.again();
    // Slow, so that kills find messages on their way; some answers never reach the sender.
    let receiver = Receiver::start(|_| {
        std::thread::sleep(Duration::from_millis(rand::random_range(0..30)));
        (200, "")
    });
    let mut client = server.client();
    let log = create_web(&server, &client);
    create_hook(&client, &receiver);
    client.run("CREATE ALERT bad ON errors WHERE errors > 0 KEY (path) NOTIFY hook ON RESOLVE");
    let mut random = rand::rng();
    for kill in 0..KILLS {
        let paths: String = (0..5).map(|n| line(20 * kill as i64, &format!("/{kill}-{n}"), 500)).collect();
        lines::append(&log, paths);
        std::thread::sleep(Duration::from_millis(random.random_range(0..120)));
        server.kill();
        server.again();
        client = server.client();
    }
    // Closes all windows.
    write(&log, 20 * KILLS as i64 + 100, "/end", 200, 1);
    client.run("FLUSH");
    let expected: BTreeSet<(String, String)> = (0..KILLS)
        .flat_map(|kill| (0..5).map(move |n| format!("/{kill}-{n}")))
        .flat_map(|path| [("firing".to_string(), path.clone()), ("resolved".to_string(), path)])
        .collect();
    until("everything to be told", || {
        let all: BTreeSet<_> = told(&receiver).into_iter().map(|(status, path, _)| (status, path)).collect();
        (all == expected).then_some(())
    });
    until("nothing to wait", || {
        (client.number("SELECT count(*) FROM logweir.notifications WHERE ended IS NULL") == 0).then_some(())
    });
    // Once each, but for messages that came again under their id, with the same content.
    assert_eq!(told(&receiver).len(), expected.len());
    let mut bodies: BTreeMap<String, String> = BTreeMap::new();
    let mut repeated = 0;
    for request in receiver.accepted() {
        if let Some(before) = bodies.insert(request.key().to_string(), request.body.clone()) {
            assert_eq!(before, request.body);
            repeated += 1;
        }
    }
    println!("{} messages, {repeated} of them twice, {KILLS} kills", bodies.len());
}

#[test]
fn a_receiver_that_is_down_delays_and_loses_nothing() {
    let mut server = Server::prepare();
    server.expect_log("a notifier cannot tell");
    server.again();
    let receiver = Receiver::start(|_| (200, ""));
    let client = server.client();
    let log = create_web(&server, &client);
    create_hook(&client, &receiver);
    receiver.go_down();
    client.run("CREATE ALERT bad ON errors WHERE errors > 0 KEY (path) NOTIFY hook ON RESOLVE");
    lines::append(&log, (0..5).map(|n| line(1, &format!("/{n}"), 500)).collect::<String>());
    until("tries", || {
        let tried = "SELECT count(*) FROM logweir.notifications WHERE tries > 1 AND last_error LIKE '%could not POST%'";
        (client.number(tried) > 0).then_some(())
    });
    assert_eq!(client.one("SELECT state, waiting FROM logweir.notifiers"), "retrying 5");
    write(&log, 40, "/end", 200, 1);
    until("all to resolve", || {
        (client.number("SELECT count(*) FROM logweir.alerts WHERE state = 'resolved'") == 5).then_some(())
    });
    receiver.come_back();
    until("all to be told", || {
        let all = told(&receiver);
        (all.len() == 10 && all.iter().filter(|(status, ..)| status == "resolved").count() == 5).then_some(())
    });
    assert_eq!(client.one("SELECT state, waiting, refused FROM logweir.notifiers"), "ready 0 0");
}

#[test]
fn mail_has_text_html_and_a_chart_and_a_server_that_stalls_is_given_up() {
    let mut server = Server::prepare();
    server.expect_log("a notifier cannot tell");
    server.again();
    let mails = MailServer::start();
    let client = server.client();
    let log = create_web(&server, &client);
    client.run(&format!(
        "CREATE NOTIFIER ops WITH (type = 'email', to = 'Ops <ops@example.org>, boss@example.org',
             from = 'logweir@example.org', host = '127.0.0.1', port = {}, tls = 'none', timeout = '1 second')",
        mails.address.port()
    ));
    client.run("TEST NOTIFIER ops");
    assert!(mails.mails()[0].contains("Subject: [TEST] test of ops"), "{}", mails.mails()[0]);
    for second in 0..9 {
        write(&log, second * 10, "/a", 500, 1 + second as usize % 3);
    }
    client.run("FLUSH");
    mails.stall(true);
    client.run(
        "CREATE ALERT bad ON errors WHERE errors > 5 KEY (path) ANNOTATIONS (summary = 'look at {{path}} <now>') NOTIFY ops",
    );
    write(&log, 91, "/a", 500, 9);
    until("it to be given up", || {
        let tried =
            "SELECT count(*) FROM logweir.notifications WHERE last_error LIKE '%did not take the mail within 1s%'";
        (client.number(tried) > 0).then_some(())
    });
    mails.stall(false);
    // Long lines are cut, and equal signs stand for what they announce (RFC 2045).
    let unpacked = |mail: String| mail.replace("=\n", "").replace("=3D", "=");
    let mail = until("the mail", || {
        mails.mails().into_iter().map(unpacked).find(|mail| mail.contains("[FIRING] bad: path=/a"))
    });
    for part in [
        "To: Ops <ops@example.org>, boss@example.org",
        "text/plain",
        "text/html",
        "image/png",
        "Content-ID: <chart>",
        "&lt;now&gt;",
    ] {
        assert!(mail.contains(part), "no {part} in: {mail}");
    }
    let id = client.one("SELECT id FROM logweir.notifications");
    assert!(mail.contains(&format!("Message-ID: <{id}@example.org>")), "{mail}");
}

/// A server that other people's programs are tested with, with a certificate of its own, STARTTLS and a login.
const AIOSMTPD: &str = r#"
import ssl, sys, time
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, SMTP
class Handler:
    async def handle_DATA(self, server, session, envelope):
        with open(sys.argv[2], "ab") as f:
            f.write(envelope.content + b"\n====\n")
        return "250 taken"
def authenticate(server, session, envelope, mechanism, data):
    return AuthResult(success=(data.login, data.password) == (b"user", b"hunter2"), handled=False)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(sys.argv[1] + "/cert.pem", sys.argv[1] + "/key.pem")
class Own(Controller):
    def factory(self):
        return SMTP(self.handler, require_starttls=True, tls_context=tls, auth_required=True, authenticator=authenticate)
own = Own(Handler(), hostname="127.0.0.1", port=int(sys.argv[3]))
own.start()
print("ready", flush=True)
sys.stdin.read()
own.stop()
"#;

#[test]
fn mail_by_starttls_with_a_login() {
    let home = std::env::var_os("LOGWEIR_PEERS").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/logweir/peers"),
        PathBuf::from,
    );
    let python = home.join("venv/bin/python");
    let has = |arguments: &[&str], program: &Path| {
        Command::new(program)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    if !has(&["-c", "import aiosmtpd"], &python) || !has(&["version"], Path::new("openssl")) {
        eprintln!("note: skipped, no Python with aiosmtpd in {} or no openssl", home.display());
        return;
    }
    let mut server = Server::prepare();
    server.use_environment(&[("MAIL_PASSWORD", "hunter2".to_string())]);
    server.again();
    let folder = server.log("tls");
    std::fs::create_dir(&folder).expect("it is new");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args([
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .current_dir(&folder)
        .stderr(Stdio::null())
        .status();
    assert!(made.is_ok_and(|status| status.success()));
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port is free").port();
    let out = server.log("mails");
    let mut peer = Command::new(python)
        .args([
            "-W",
            "ignore",
            "-c",
            AIOSMTPD,
            &folder.display().to_string(),
            &out.display().to_string(),
            &port.to_string(),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was there a moment ago");
    let mut ready = [0; 5];
    std::io::Read::read_exact(peer.stdout.as_mut().expect("it is piped"), &mut ready).expect("it starts");
    let client = server.client();
    let options = format!(
        "type = 'email', to = 'ops@example.org', host = 'localhost', port = {port}, user = 'user', ca_file = '{}'",
        folder.join("cert.pem").display()
    );
    client.run(&format!("CREATE NOTIFIER ops WITH ({options}, password = '${{ENV:MAIL_PASSWORD}}')"));
    client.run("TEST NOTIFIER ops");
    client.run(&format!("CREATE NOTIFIER wrong WITH ({options}, password = 'hunter3')"));
    client.fails("TEST NOTIFIER wrong").says("58030", &["mail server", "password"]);
    let mail = std::fs::read_to_string(&out).expect("one was taken");
    assert!(mail.contains("[TEST] test of ops"), "{mail}");
    let shown = client.one("SHOW CREATE NOTIFIER wrong");
    assert!(shown.contains("***") && !shown.contains("hunter3"), "{shown}");
    drop(peer.stdin.take());
    peer.wait().expect("it is ours");
}

#[test]
fn other_forms_go_where_they_belong() {
    let (mut server, receiver) = (Server::start(), Receiver::start(|_| (200, "")));
    let client = server.client();
    let log = create_web(&server, &client);
    let at = format!("http://{}", receiver.address);
    client.run(&format!(
        "CREATE NOTIFIER chat WITH (type = 'slack', secret_url = '{at}/services/T/B/token', channel = '#ops');
         CREATE NOTIFIER am WITH (type = 'alertmanager', url = '{at}/am/');
         CREATE NOTIFIER own WITH (type = 'webhook', url = '{at}/own', template = '{{\"say\": \"{{{{title}}}} {{{{errors}}}}\"}}');
         CREATE NOTIFIER lines WITH (type = 'log');
         CREATE ALERT bad ON errors WHERE errors > 0 KEY (path) NOTIFY chat, am, own, lines"
    ));
    let shown = client.one("SHOW CREATE NOTIFIER chat");
    assert!(shown.contains("secret_url = '***'") && !shown.contains("token"), "{shown}");
    write(&log, 1, "/a", 500, 1);
    write(&log, 40, "/end", 200, 1);
    let by_path = |path: &str| -> Vec<Value> {
        let all = receiver.accepted();
        let mine = all.iter().filter(|request| request.path == path);
        mine.map(|request| serde_json::from_str(&request.body).expect("it is JSON")).collect()
    };
    let am = until("the end", || Some(by_path("/am/api/v2/alerts")).filter(|all| all.len() == 2));
    assert_eq!(
        (am[0][0]["labels"]["alertname"].as_str(), am[0][0]["labels"]["path"].as_str()),
        (Some("bad"), Some("/a"))
    );
    assert_eq!(
        (am[1][0]["startsAt"].as_str(), am[1][0]["endsAt"].as_str()),
        (Some("2026-01-01T00:00:00Z"), Some("2026-01-01T00:00:10Z"))
    );
    let chat = until("the chat", || by_path("/services/T/B/token").pop());
    assert_eq!((chat["channel"].as_str(), chat["text"].as_str()), (Some("#ops"), Some("[FIRING] bad: path=/a")));
    let own = until("the own form", || by_path("/own").pop());
    assert_eq!(own, serde_json::json!({"say": "[FIRING] bad: path=/a 1"}));
    until("the log", || server.has_logged("[FIRING] bad: path=/a").then_some(()));
}

#[test]
fn a_predicate_that_cannot_be_evaluated_is_told_once() {
    let mut server = Server::prepare();
    server.expect_log("an alert cannot be evaluated");
    server.again();
    let receiver = Receiver::start(|_| (200, ""));
    let client = server.client();
    let log = create_web(&server, &client);
    create_hook(&client, &receiver);
    client.run(
        "CREATE ALERT odd ON errors WHERE 10 / (requests - 3) > 4 KEY (path) NOTIFY hook;
         CREATE ALERT fine ON errors WHERE requests = 3 KEY (path) NOTIFY hook",
    );
    write(&log, 1, "/a", 200, 3);
    let error = until("the error", || messages(&receiver).into_iter().find(|message| message["status"] == "error"));
    let reason = error["instances"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.to_lowercase().contains("zero"), "{error}");
    until("the other one", || (count(&receiver, "firing", "/a") == 1).then_some(()));
    assert_eq!(client.one("SELECT state FROM logweir.alerts WHERE name = 'odd'"), "error");
    write(&log, 2, "/b", 200, 3);
    until("/b", || (count(&receiver, "firing", "/b") == 1).then_some(()));
    // It goes on: another row can be judged.
    write(&log, 2, "/c", 200, 5);
    until("/c", || {
        let fired = messages(&receiver).into_iter().any(|m| m["alert"] == "odd" && m["status"] == "firing");
        fired.then_some(())
    });
    assert_eq!(messages(&receiver).iter().filter(|message| message["status"] == "error").count(), 1);
}

#[test]
fn silence_of_a_source_and_queries_over_tables() {
    let (mut server, receiver) = (Server::start(), Receiver::start(|_| (200, "")));
    let client = server.client();
    let log = create_web(&server, &client);
    create_hook(&client, &receiver);
    client.run(
        "CREATE ALERT quiet ON web WHERE true ON NO DATA FIRE AFTER INTERVAL '1 second' KEEP FIRING FOR '0s';
         CREATE TABLE limits AS SELECT 'disk' AS name, 50 AS used;
         CREATE ALERT none ON errors WHERE errors > 1000 ON NO DATA FIRE AFTER INTERVAL '1 second' NOTIFY hook ON RESOLVE;
         CREATE ALERT full ON limits WHERE used > 90 KEY (name) EVERY INTERVAL '100ms' NOTIFY hook ON RESOLVE",
    );
    let of = |alert: &str, status: &str| {
        let all = messages(&receiver);
        all.into_iter().filter(|message| message["alert"] == alert && message["status"] == status).collect::<Vec<_>>()
    };
    let silent = until("silence", || of("none", "firing").pop());
    assert_eq!(silent["instances"][0]["reason"], "no data for 1 second");
    write(&log, 1, "/a", 200, 1);
    until("rows again", || of("none", "resolved").pop());
    client.run("CREATE OR REPLACE TABLE limits AS SELECT 'disk' AS name, 95 AS used");
    let full = until("the table to be too full", || of("full", "firing").pop());
    assert_eq!(full["instances"][0]["key"]["name"], "disk");
    client.run("CREATE OR REPLACE TABLE limits AS SELECT 'disk' AS name, 40 AS used");
    until("the table to be fine", || of("full", "resolved").pop());
}

#[test]
fn what_cannot_work_is_refused_and_what_is_watched_is_kept() {
    let mut server = Server::start();
    let client = server.client();
    create_web(&server, &client);
    client.run("CREATE NOTIFIER n WITH (type = 'log'); CREATE TABLE limits AS SELECT 'disk' AS name, 50 AS used");
    for (sql, code, texts) in [
        ("CREATE NOTIFIER m WITH (type = 'emial', to = 'a@x.org')", "22023", &["email"][..]),
        ("CREATE NOTIFIER m WITH (type = 'email')", "22023", &["to"]),
        ("CREATE NOTIFIER m WITH (type = 'webhook', ulr = 'http://x/')", "22023", &["url"]),
        ("CREATE NOTIFIER errors WITH (type = 'log')", "42P07", &[]),
        ("CREATE NOTIFIER n WITH (type = 'log')", "42710", &[]),
        ("CREATE ALERT a ON errrs WHERE errors > 1", "42P01", &["errors"]),
        ("CREATE ALERT a ON errors WHERE erors > 1", "42703", &["errors"]),
        ("CREATE ALERT a ON errors WHERE errors", "42804", &["true or false"]),
        ("CREATE ALERT a ON errors WHERE errors > (SELECT 1)", "0A000", &["subqueries"]),
        ("CREATE ALERT a ON errors WHERE window_end > now()", "0A000", &["now()", "EVERY"]),
        ("CREATE ALERT a ON errors WHERE errors > 1 KEY (pth)", "42703", &["KEY", "path"]),
        ("CREATE ALERT a ON errors WHERE errors > 1 GROUP BY (pth)", "42703", &["GROUP BY"]),
        ("CREATE ALERT a ON errors WHERE errors > 1 ANNOTATIONS (s = '{{pth}}')", "42703", &["annotation", "{{path}}"]),
        ("CREATE ALERT a ON errors WHERE errors > 1 NOTIFY m", "42704", &["\"m\"", "n"]),
        ("CREATE ALERT a ON errors", "42601", &["WHERE"]),
        ("CREATE ALERT a ON limits WHERE used > 90", "0A000", &["EVERY"]),
        ("CREATE ALERT a ON web WHERE status = 500 FOR '1 minute'", "0A000", &["single rows"]),
        ("DROP ALERT a", "42704", &[]),
        ("TEST NOTIFIER m", "42704", &["\"m\""]),
    ] {
        let failure = client.fails(sql);
        failure.says(code, texts);
    }
    client.run("TEST NOTIFIER n");
    client.run("CREATE ALERT a ON errors WHERE errors > 1 KEY (path) NOTIFY n; CREATE ALERT IF NOT EXISTS a ON errors WHERE true");
    client.fails("DROP NOTIFIER n").says("2BP01", &["alert \"a\""]);
    client.fails("DROP MATERIALIZED VIEW errors").says("2BP01", &["alert \"a\""]);
    client.fails("CREATE TABLE a FORMAT JSON").says("42710", &["alert"]);
    client.fails("SELECT * FROM a").says("42P01", &[]);
    assert!(client.one("SHOW CREATE ALERT a").contains("WHERE errors > 1 KEY (path)"));
    assert_eq!(client.rows("SHOW ALERTS").len(), 1);
    server.terminate();
    server.again();
    let client = server.client();
    assert_eq!(states(&client), ["a NULL ok"]);
    client.run("DROP MATERIALIZED VIEW errors CASCADE");
    assert_eq!((client.rows("SHOW ALERTS").len(), client.rows("SHOW NOTIFIERS").len()), (0, 1));
    client.run("DROP NOTIFIER n");
}

#[test]
fn single_rows_and_closed_windows() {
    let (mut server, receiver) = (Server::start(), Receiver::start(|_| (200, "")));
    let client = server.client();
    let log = create_web(&server, &client);
    create_hook(&client, &receiver);
    client.run(
        "CREATE ALERT each ON web WHERE path = '/admin' AND status = 200 KEY (client) NOTIFY hook ON RESOLVE;
         CREATE ALERT slow ON errors_final WHERE requests < 3 KEY (path) FOR INTERVAL '20 seconds' NOTIFY hook ON RESOLVE",
    );
    let of = |alert: &str, status: &str| {
        let all = messages(&receiver);
        all.into_iter().filter(|message| message["alert"] == alert && message["status"] == status).collect::<Vec<_>>()
    };
    write(&log, 1, "/a", 200, 5);
    write(&log, 2, "/admin", 200, 3);
    let each = until("the row", || of("each", "firing").pop());
    assert_eq!(each["instances"][0]["since"], "2026-01-01T00:00:02Z");
    // Two windows with too little, then one with enough.
    write(&log, 11, "/a", 200, 1);
    write(&log, 21, "/a", 200, 2);
    client.run("FLUSH");
    assert_eq!(of("slow", "firing").len(), 0, "an open window of a view that shows closed ones says nothing");
    write(&log, 31, "/a", 200, 4);
    let slow = until("two windows", || of("slow", "firing").pop());
    assert_eq!(slow["instances"][0]["since"], "2026-01-01T00:00:30Z", "10 + 20 seconds");
    write(&log, 41, "/a", 200, 4);
    until("enough again", || of("slow", "resolved").pop());
    // Five minutes without another one.
    write(&log, 400, "/b", 200, 4);
    let over = until("no more rows", || of("each", "resolved").pop());
    assert_eq!(over["instances"][0]["at"], "2026-01-01T00:05:02Z");
}

#[test]
fn a_rehearsal_finds_what_the_live_run_found() {
    let (mut server, receiver) = (Server::start(), Receiver::start(|_| (200, "")));
    let client = server.client();
    let log = create_web(&server, &client);
    create_hook(&client, &receiver);
    let clauses = "ON errors WHERE errors * 10 > requests KEY (path) FOR INTERVAL '20 seconds' KEEP FIRING FOR INTERVAL '10 seconds'";
    client.run(&format!("CREATE ALERT bad {clauses} NOTIFY hook ON RESOLVE"));
    let mut random = rand::rng();
    let mut bad = [false; 4];
    for window in 0..120 {
        for (n, bad) in bad.iter_mut().enumerate() {
            if random.random_range(0..3) == 0 {
                *bad = !*bad;
            }
            // A word that a window says stays the same while it fills: all of its errors come first.
            let path = format!("/{n}");
            write(&log, window * 10, &path, if *bad { 500 } else { 200 }, 2);
            write(&log, window * 10 + 5, &path, 200, random.random_range(0..8));
        }
    }
    write(&log, 1300, "/end", 200, 1);
    client.run("FLUSH");
    until("all windows to be judged", || {
        let firing = "SELECT count(*) FROM logweir.alerts WHERE state IN ('firing', 'pending')";
        let known = client.number("SELECT count(*) FROM logweir.alert_history WHERE to_state = 'resolved'");
        (known > 5 && client.number(firing) == 0).then_some(())
    });
    let live = "SELECT key, at, to_state FROM logweir.alert_history WHERE to_state IN ('firing', 'resolved')";
    let live = client.sorted(live);
    let times = "FROM '2026-01-01T00:00:00Z' TO '2026-01-02T00:00:00Z'";
    for alert in ["bad".to_string(), format!("draft {clauses}")] {
        let mut rehearsed = Vec::new();
        for row in client.rows(&format!("BACKTEST ALERT {alert} {times}")) {
            let text = |i: usize| row[i].clone().unwrap_or_default();
            rehearsed.push(format!("{} {} firing", text(0), text(1)));
            rehearsed.push(format!("{} {} resolved", text(0), text(2)));
        }
        rehearsed.sort_unstable();
        assert_eq!(rehearsed, live);
    }
    println!("{} firings, live and rehearsed", live.len() / 2);
    client.fails("BACKTEST ALERT bod FROM now() TO now()").says("42704", &["bad"]);
    client.fails("BACKTEST ALERT bad FROM now() TO now() - INTERVAL '1 day'").says("22023", &["before"]);
    client.fails("BACKTEST ALERT x ON errors WHERE true").says("42601", &["FROM"]);
    client.run("CREATE TABLE limits AS SELECT 1 AS used");
    client.fails(&format!("BACKTEST ALERT x ON limits WHERE used > 1 EVERY '1s' {times}")).says("0A000", &["no times"]);
}

/// Lines that are no reason to tell anybody, as many in a second as are written to it: `cargo test --release … -- --ignored`.
const RATE: usize = 100_000;

/// From the write of a line to the receiver, while many others are written.
#[test]
#[ignore = "a measurement"]
fn how_long_it_takes() {
    use std::sync::{Arc, Mutex};
    let arrived: Arc<Mutex<BTreeMap<String, Instant>>> = Arc::default();
    let seen = Arc::clone(&arrived);
    let receiver = Receiver::start(move |request| {
        let now = Instant::now();
        let message: Value = serde_json::from_str(&request.body).expect("it is JSON");
        for item in message["instances"].as_array().into_iter().flatten() {
            let path = item["key"]["path"].as_str().unwrap_or_default().to_string();
            seen.lock().expect("no panic holds it").entry(path).or_insert(now);
        }
        (200, "")
    });
    let mut server = Server::start();
    let client = server.client();
    let log = create_web(&server, &client);
    create_hook(&client, &receiver);
    client.run("CREATE ALERT bad ON errors WHERE errors > 0 KEY (path) NOTIFY hook");
    let mut file = lines::open(&log);
    let (mut written, mut sent) = (0, Vec::new());
    let begun = Instant::now();
    // A tenth of a second at a time, with an alarm in the middle of some.
    for tick in 0..200i64 {
        let mut text = String::new();
        for n in 0..RATE / 10 {
            text += &line(tick / 10, &format!("/{}", n % 100), 200);
        }
        std::io::Write::write_all(&mut file, text.as_bytes()).expect("the disk takes it");
        written += RATE / 10;
        if tick >= 20 {
            let path = format!("/alarm-{tick}");
            std::io::Write::write_all(&mut file, line(tick / 10, &path, 500).as_bytes()).expect("the disk takes it");
            sent.push((path, Instant::now()));
        }
        let next = begun + Duration::from_millis(100) * (tick as u32 + 1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    let rate = written as f64 / begun.elapsed().as_secs_f64();
    until("all alarms", || {
        let arrived = arrived.lock().expect("no panic holds it");
        sent.iter().all(|(path, _)| arrived.contains_key(path)).then_some(())
    });
    let arrived = arrived.lock().expect("no panic holds it");
    let mut took: Vec<Duration> = sent.iter().map(|(path, at)| arrived[path].saturating_duration_since(*at)).collect();
    took.sort_unstable();
    let part = |part: usize| took[(took.len() - 1) * part / 100];
    println!("at {rate:.0} lines/s: p50 {:?}, p90 {:?}, p99 {:?}, max {:?}", part(50), part(90), part(99), part(100));
}

/// A thousand alerts on fifty views, and none: how fast are lines read?
#[test]
#[ignore = "a measurement"]
fn what_a_thousand_alerts_cost() {
    let (mut server, receiver) = (Server::start(), Receiver::start(|_| (200, "")));
    let client = server.client();
    let log = create_web(&server, &client);
    create_hook(&client, &receiver);
    for view in 0..50 {
        client.run(&format!(
            "CREATE MATERIALIZED VIEW v{view} AS SELECT window_start, path, count(*) AS n, sum(bytes) AS bytes
             FROM TUMBLE(web, ts, INTERVAL '1 minute') WHERE bytes <> {view} GROUP BY window_start, path"
        ));
    }
    let text: String = (0..20_000).map(|n| line(0, &format!("/{}", n % 100), 200)).collect();
    let measure = |what: &str| {
        let begun = Instant::now();
        for _ in 0..50 {
            lines::append(&log, &text);
        }
        client.run("FLUSH");
        let rate = 1_000_000.0 / begun.elapsed().as_secs_f64();
        println!("{what}: {rate:.0} lines/s");
        rate
    };
    measure("50 views, warming up");
    let without = measure("50 views, no alerts");
    let begun = Instant::now();
    for view in 0..50 {
        let alerts = (0..20).map(|n| {
            format!("CREATE ALERT a{view}_{n} ON v{view} WHERE n > {n} AND bytes < {n} KEY (path) NOTIFY hook;")
        });
        client.run(&alerts.collect::<String>());
    }
    println!("1000 alerts created in {:?}", begun.elapsed());
    let with = measure("50 views, 1000 alerts");
    println!("with / without: {:.2}", with / without);
}
