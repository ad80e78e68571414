//! The site's error log, in the default form of Apache 2.4 at `LogLevel info`:
//! `[time] [module:level] [pid p:tid t] (errno)cause: [client address:port] AHnnnnn: message, referer: url`.
//!
//! What a request leaves here is a function of that request alone, so this log fits the access log of the same seed.
//! The texts with AH codes are Apache's own (`docs/log-message-tags` and the calls of `ap_log_rerror` in its source).

use super::put_number;
use super::site::{Request, Site};
use super::stamp::Stamp;
use super::tables::STAFF;
use crate::time::Micros;

/// An endless error log.
pub struct Errors {
    site: Site,
    stamp: Stamp,
}

/// What a line says, apart from who and when.
struct Message {
    module_level: &'static str,
    /// What the system call reported, with its trailing `: `; empty for most.
    cause: &'static str,
    about: About,
    /// `%u` stands for the user, `%p` for the path as asked, `%f` for the path without its query.
    text: &'static str,
}

/// What a message is about decides whom it names.
#[derive(PartialEq, Eq)]
enum About {
    /// Names nobody.
    Server,
    /// Names the client; no request has been read yet.
    Connection,
    /// Names the client and the referrer.
    Request,
}

impl Errors {
    /// The error log of the site of `seed`.
    pub fn new(seed: u64) -> Errors {
        Errors { site: Site::new(seed), stamp: Stamp::default() }
    }

    /// Appends one line, with its newline, at `at` (microseconds since 1970): that of the site's next request that
    /// leaves one. Requests that leave none are passed over and take no time.
    pub fn line(&mut self, at: Micros, out: &mut Vec<u8>) {
        while !put(&self.site.request(at), at, &mut self.stamp, out) {}
    }
}

/// Appends the line that `request` leaves in the error log; false when it leaves none.
pub(super) fn put(request: &Request<'_>, at: Micros, stamp: &mut Stamp, out: &mut Vec<u8>) -> bool {
    let Some(message) = message(request) else { return false };
    out.push(b'[');
    stamp.put_error(at, out);
    out.extend_from_slice(b"] [");
    out.extend_from_slice(message.module_level.as_bytes());
    out.extend_from_slice(b"] [pid ");
    // Eight processes of 64 threads; as the port is random, so is the thread that served it.
    put_number(out, 2_101 + u64::from(request.port / 16 % 8));
    out.extend_from_slice(b":tid ");
    put_number(out, 140_213_775_000_000 + u64::from(request.port / 128 % 64) * 8_392_704);
    out.extend_from_slice(b"] ");
    out.extend_from_slice(message.cause.as_bytes());
    if message.about != About::Server {
        out.extend_from_slice(b"[client ");
        out.extend_from_slice(request.client.as_bytes()); // no brackets around IPv6 here either
        out.push(b':');
        put_number(out, u64::from(request.port));
        out.extend_from_slice(b"] ");
    }
    put_text(message.text, request, out);
    if message.about == About::Request && request.referer != b"-" {
        out.extend_from_slice(b", referer: ");
        out.extend_from_slice(request.referer);
    }
    out.push(b'\n');
    true
}

/// Appends a line that is about no request: `module:level` and its text.
pub(super) fn put_plain(module_level: &str, text: &str, at: Micros, stamp: &mut Stamp, out: &mut Vec<u8>) {
    out.push(b'[');
    stamp.put_error(at, out);
    out.extend_from_slice(b"] [");
    out.extend_from_slice(module_level.as_bytes());
    out.extend_from_slice(b"] [pid 2100:tid 140213775000000] ");
    out.extend_from_slice(text.as_bytes());
    out.push(b'\n');
}

fn put_text(text: &str, request: &Request<'_>, out: &mut Vec<u8>) {
    let mut parts = text.split('%');
    out.extend_from_slice(parts.next().unwrap_or("").as_bytes());
    for part in parts {
        let (name, rest) = part.split_at(1);
        match name {
            "u" => out.extend_from_slice(request.user.as_bytes()),
            "p" => out.extend_from_slice(request.path),
            _ => out.extend_from_slice(file(request)),
        }
        out.extend_from_slice(rest.as_bytes());
    }
}

/// Which line a request leaves. Where several could be, its port decides: that is random, and already drawn.
fn message(request: &Request<'_>) -> Option<Message> {
    let odd = request.port % 2 == 1;
    let one_in = |n: u16| request.port.is_multiple_of(n);
    match request.status {
        400 => about_request("core:error", "AH10244: invalid URI path (%p)"),
        401 if !STAFF.contains(&request.user) => about_request("auth_basic:error", "AH01618: user %u not found: %f"),
        401 => {
            about_request("auth_basic:error", "AH01617: user %u: authentication failure for \"%f\": Password Mismatch")
        }
        403 => about_request("authz_core:error", "AH01630: client denied by server configuration: /var/www/html%f"),
        404 if file(request).ends_with(b".php") => {
            about_request("php:error", "script '/var/www/html%f' not found or unable to stat")
        }
        404 => about_request("core:info", "AH00128: File does not exist: /var/www/html%f"),
        500 => about_request(
            "proxy_fcgi:error",
            "AH01071: Got error 'PHP message: PHP Fatal error:  Allowed memory size of 134217728 bytes exhausted \
             (tried to allocate 20480 bytes) in /var/www/app/src/Order.php on line 214'",
        ),
        502 => about_request("proxy:error", "AH00898: Error reading from remote server returned by %f"),
        503 if one_in(20) => about_server(
            "mpm_event:error",
            "",
            "AH00484: server reached MaxRequestWorkers setting, consider raising the MaxRequestWorkers setting",
        ),
        503 if odd => about_server(
            "proxy:error",
            "(111)Connection refused: ",
            "AH00957: http: attempt to connect to 127.0.0.1:8080 (127.0.0.1:8080) failed",
        ),
        503 => about_request("proxy_http:error", "AH01114: HTTP: failed to make connection to backend: 127.0.0.1"),
        504 => Some(Message {
            cause: "(70007)The timeout specified has expired: ",
            ..about_request("proxy_http:error", "AH01102: error reading status line from remote server 127.0.0.1:8080")?
        }),
        // What a healthy server says while it serves.
        _ if one_in(2_000) => about_server(
            "ssl:warn",
            "",
            "AH01909: shop.example.com:443:0 server certificate does NOT include an ID which matches the server name",
        ),
        _ if one_in(400) => about_connection("AH02008: SSL library error 1 in handshake (server www.example.com:443)"),
        _ if one_in(150) => about_request(
            "php:warn",
            "PHP Warning:  Undefined array key \"ref\" in /var/www/app/src/Visit.php on line 88",
        ),
        _ if one_in(12) => about_connection("AH01964: Connection to child 5 established (server www.example.com:443)"),
        _ => None,
    }
}

fn about_request(module_level: &'static str, text: &'static str) -> Option<Message> {
    Some(Message { module_level, cause: "", about: About::Request, text })
}

fn about_server(module_level: &'static str, cause: &'static str, text: &'static str) -> Option<Message> {
    Some(Message { module_level, cause, about: About::Server, text })
}

fn about_connection(text: &'static str) -> Option<Message> {
    Some(Message { module_level: "ssl:info", cause: "", about: About::Connection, text })
}

/// The path without its query string.
fn file<'a>(request: &Request<'a>) -> &'a [u8] {
    request.path.split(|&byte| byte == b'?').next().unwrap_or(request.path)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::IpAddr;

    use super::*;
    use crate::generate::{Access, parse_utc};
    use crate::time::MICROS_PER_SECOND;

    fn log(seed: u64, count: i64) -> String {
        let mut errors = Errors::new(seed);
        let mut out = Vec::new();
        let start = parse_utc("2026-01-01").unwrap();
        for line in 0..count {
            errors.line(start + line * MICROS_PER_SECOND / 10, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    /// Time, module and level of a line of Apache 2.4; the rest is checked. Panics on any deviation.
    fn fields(line: &str) -> (&str, &str, &str) {
        let (time, rest) = line.strip_prefix('[').unwrap().split_once("] [").unwrap();
        let (module_level, rest) = rest.split_once("] [pid ").unwrap();
        let (process, text) = rest.split_once("] ").unwrap();
        let (module, level) = module_level.split_once(':').unwrap();
        let (pid, tid) = process.split_once(":tid ").unwrap();
        assert!(pid.parse::<u32>().is_ok() && tid.parse::<u64>().is_ok(), "{line}");
        assert!(["info", "warn", "error"].contains(&level), "{line}");
        if let Some((_, after)) = text.split_once("[client ") {
            let (client, message) = after.split_once("] ").unwrap();
            let (address, port) = client.rsplit_once(':').unwrap();
            address.parse::<IpAddr>().unwrap();
            assert!(port.parse::<u16>().unwrap() >= 1024 && !message.is_empty(), "{line}");
        }
        assert!(!line.contains('%') || line.contains("AH10244"), "a placeholder is left: {line}");
        (time, module, level)
    }

    #[test]
    fn a_seed_is_one_log_and_another_seed_another() {
        assert_eq!(log(7, 2_000), log(7, 2_000));
        assert_ne!(log(7, 2_000), log(8, 2_000));
    }

    #[test]
    fn every_line_is_apache_2_4_and_times_advance() {
        let text = log(3, 6_000); // ten minutes: with an incident
        let mut lines_of: HashMap<(&str, &str), u32> = HashMap::new();
        let mut last = "";
        for line in text.lines() {
            let (time, module, level) = fields(line);
            assert!(time.starts_with("Thu Jan 01 00:") && time.ends_with(" 2026"), "{line}");
            assert!(time > last, "{line}");
            last = time;
            *lines_of.entry((module, level)).or_default() += 1;
        }
        for kind in [("core", "info"), ("authz_core", "error"), ("proxy_http", "error"), ("ssl", "info")] {
            assert!(lines_of.get(&kind).is_some_and(|&lines| lines > 20), "{kind:?} in {lines_of:?}");
        }
    }

    #[test]
    fn both_logs_tell_of_the_same_requests() {
        let mut access = Access::new(9);
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        let mut missing = 0;
        for line in 0..20_000 {
            out.clear();
            errors.clear();
            access.line_and_error(line * 1000, &mut out, &mut errors);
            let (out, errors) = (std::str::from_utf8(&out).unwrap(), std::str::from_utf8(&errors).unwrap());
            if out.contains("\" 404 ") {
                missing += 1;
                let client = out.split(' ').next().unwrap();
                assert!(errors.contains(&format!("[client {client}:")), "{out}{errors}");
                assert!(errors.contains("not found") || errors.contains("does not exist"), "{out}{errors}");
            }
        }
        assert!(missing > 300, "{missing}");
    }
}
