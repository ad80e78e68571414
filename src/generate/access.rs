//! The site's access log, in Apache's combined format:
//! `client - user [time] "method path protocol" status bytes "referer" "agent"`.

use super::error;
use super::put_number;
use super::site::{Request, Site};
use super::stamp::Stamp;
use crate::time::Micros;

/// An endless access log.
pub struct Access {
    site: Site,
    stamp: Stamp,
}

impl Access {
    /// The log that belongs to `seed`.
    pub fn new(seed: u64) -> Access {
        Access { site: Site::new(seed), stamp: Stamp::default() }
    }

    /// Appends one line, with its newline, for a request at `at` (microseconds since 1970); it shows whole seconds.
    pub fn line(&mut self, at: Micros, out: &mut Vec<u8>) {
        let request = self.site.request(at);
        put(&request, at, &mut self.stamp, out);
    }

    /// Like [`Access::line`], and appends to `errors` what the same request leaves in the error log: nothing, mostly.
    pub fn line_and_error(&mut self, at: Micros, out: &mut Vec<u8>, errors: &mut Vec<u8>) {
        let request = self.site.request(at);
        put(&request, at, &mut self.stamp, out);
        error::put(&request, at, &mut self.stamp, errors);
    }
}

/// Field after field into `out`. No allocation once `out` has grown to its size.
pub(super) fn put(request: &Request<'_>, at: Micros, stamp: &mut Stamp, out: &mut Vec<u8>) {
    out.extend_from_slice(request.client.as_bytes());
    out.extend_from_slice(b" - ");
    out.extend_from_slice(request.user.as_bytes());
    out.extend_from_slice(b" [");
    stamp.put_access(at, out);
    out.extend_from_slice(b"] \"");
    out.extend_from_slice(request.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.path);
    out.push(b' ');
    out.extend_from_slice(request.protocol.as_bytes());
    out.extend_from_slice(b"\" ");
    put_number(out, u64::from(request.status));
    out.push(b' ');
    match request.bytes {
        0 => out.push(b'-'), // `%b` of mod_log_config
        bytes => put_number(out, bytes),
    }
    out.extend_from_slice(b" \"");
    out.extend_from_slice(request.referer);
    out.extend_from_slice(b"\" \"");
    out.extend_from_slice(request.agent.as_bytes());
    out.extend_from_slice(b"\"\n");
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::IpAddr;

    use super::*;
    use crate::time::MICROS_PER_SECOND;

    /// `count` lines, a thousand a second, from midnight on.
    fn log(seed: u64, count: i64) -> String {
        let mut access = Access::new(seed);
        let mut out = Vec::new();
        let start = super::super::parse_utc("2026-01-01").unwrap();
        for line in 0..count {
            access.line(start + line * MICROS_PER_SECOND / 1000, &mut out);
        }
        String::from_utf8(out).unwrap()
    }

    /// The combined format, read by splitting where its grammar allows no doubt. Panics on any deviation.
    fn fields(line: &str) -> [&str; 9] {
        let [before, request, between, referer, space, agent, end] = line.split('"').collect::<Vec<_>>()[..] else {
            panic!("not three quoted fields: {line}");
        };
        assert_eq!((space, end), (" ", ""), "{line}");
        let (head, time) = before.split_once(" [").unwrap();
        let [client, "-", user] = head.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let [method, path, protocol] = request.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let ["", status, bytes, ""] = between.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };

        client.parse::<IpAddr>().unwrap();
        assert!(user == "-" || user.bytes().all(|b| b.is_ascii_lowercase()), "{line}");
        assert!(method.bytes().all(|b| b.is_ascii_uppercase()) && path.starts_with('/'), "{line}");
        assert!(["HTTP/1.0", "HTTP/1.1", "HTTP/2.0"].contains(&protocol), "{line}");
        assert!((200..600).contains(&status.parse::<u16>().unwrap()), "{line}");
        assert!(bytes == "-" || bytes.parse::<u64>().unwrap() > 0, "{line}");
        assert!(!referer.is_empty() && !agent.is_empty(), "{line}");
        [client, user, time.strip_suffix("] ").unwrap(), method, path, status, bytes, referer, agent]
    }

    #[test]
    fn a_seed_is_one_log_and_another_seed_another() {
        assert_eq!(log(7, 5_000), log(7, 5_000));
        assert_ne!(log(7, 5_000), log(8, 5_000));
    }

    #[test]
    fn the_log_of_a_seed_stays_the_same_between_versions() {
        // When the tables or the draws change on purpose, so does this number; by accident it must not.
        let sum = log(1, 10_000).bytes().fold(0u64, |sum, b| sum.wrapping_mul(31).wrapping_add(u64::from(b)));
        assert_eq!(sum, 13_323_332_145_003_145_918);
    }

    #[test]
    fn every_line_is_strict_combined_and_times_advance() {
        let text = log(3, 20_000);
        let mut last = String::new();
        for line in text.lines() {
            let [_, _, time, ..] = fields(line);
            // 20 seconds after midnight: day, hour and minute stand still, so text order is time order.
            assert!(time.starts_with("01/Jan/2026:00:00:") && time.ends_with(" +0000"), "{line}");
            assert!(time >= last.as_str());
            last = time.to_string();
        }
        assert_eq!(last, "01/Jan/2026:00:00:19 +0000");
    }

    #[test]
    fn a_few_clients_ask_most() {
        let text = log(4, 100_000);
        let mut lines_of: HashMap<&str, usize> = HashMap::new();
        for line in text.lines() {
            *lines_of.entry(fields(line)[0]).or_default() += 1;
        }
        let mut counts: Vec<usize> = lines_of.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        assert!(counts.len() > 10_000, "only {} clients", counts.len());
        let top: usize = counts[..counts.len() / 100].iter().sum();
        assert!((20_000..60_000).contains(&top), "the top 1 % of clients have {top} of 100000 lines");
    }

    #[test]
    fn the_mix_is_that_of_a_healthy_site() {
        let text = log(5, 50_000); // 50 s: before the first incident
        let mut seen: HashMap<&str, u32> = HashMap::new();
        let mut count = |what: &'static str, is: bool| *seen.entry(what).or_default() += u32::from(is);
        for line in text.lines() {
            let [client, user, _, method, _, status, bytes, referer, agent] = fields(line);
            count("200", status == "200");
            count("304", status == "304");
            count("404", status == "404");
            count("404 with a referrer", status == "404" && referer != "-");
            count("5xx", status.starts_with('5'));
            count("bots", agent.contains("bot"));
            count("HEAD", method == "HEAD");
            count("POST", method == "POST");
            count("IPv6", client.contains(':'));
            count("users", user != "-");
            count("megabytes", bytes.len() > 6);
            count("no body", bytes == "-");
        }
        let per_mille = |what: &str| f64::from(seen[what]) / 50.0;
        for (what, bounds) in [
            ("200", 800.0..900.0),
            ("304", 40.0..100.0),
            ("404", 25.0..60.0),
            ("404 with a referrer", 8.0..25.0),
            ("5xx", 0.2..3.0),
            ("bots", 80.0..140.0),
            ("HEAD", 8.0..20.0),
            ("POST", 15.0..50.0),
            ("IPv6", 80.0..160.0),
            ("users", 8.0..25.0),
            ("megabytes", 3.0..20.0),
            ("no body", 50.0..130.0),
        ] {
            assert!(bounds.contains(&per_mille(what)), "{what}: {} of 1000", per_mille(what));
        }
    }

    #[test]
    fn an_incident_comes_and_goes() {
        let mut access = Access::new(6);
        let mut failed_in_minute = [0; 15];
        let mut out = Vec::new();
        for second in 0..15 * 60 {
            for _ in 0..50 {
                out.clear();
                access.line(second * MICROS_PER_SECOND, &mut out);
                let line = std::str::from_utf8(&out).unwrap().trim_end();
                failed_in_minute[second as usize / 60] += usize::from(fields(line)[5].starts_with("50"));
            }
        }
        assert!(failed_in_minute.iter().any(|&failed| failed > 150), "{failed_in_minute:?}");
        assert!(failed_in_minute.iter().filter(|&&failed| failed < 15).count() > 5, "{failed_in_minute:?}");
    }
}
