//! The site and its crowds: one call, one request.
//!
//! Five crowds ask: visitors, crawlers, scanners, monitors and staff. A crowd's share of the traffic is fixed; within
//! it, a few of its members ask most (Zipf-Mandelbrot), as on real sites. Now and then the application behind the
//! server is down for a minute or so and the paths that need it fail: an incident for alerts to find. A scenario says
//! itself what goes wrong; for it the site has no incidents, but may have many hosts, other clients, other statuses.
//!
//! A request is drawn without memory of the one before. Sessions would read more lifelike one client at a time, but
//! no count per window would show the difference.

use super::random::{Random, Weights};
use super::scenario::{Choice, Scenario};
use super::tables::{self, Endpoint, Nature};
use crate::time::{MICROS_PER_SECOND, Micros};

/// One request and its answer, as both logs see it.
pub struct Request<'a> {
    /// Index of the virtual host; 0 where there is only one.
    pub host: usize,
    /// Address in text form.
    pub client: &'a str,
    pub port: u16,
    /// The name given at login, right or wrong, or `-`.
    pub user: &'static str,
    pub method: &'a str,
    /// Path with its query string.
    pub path: &'a [u8],
    pub protocol: &'static str,
    pub status: u16,
    /// Size of the answer's body; 0 when it has none.
    pub bytes: u64,
    /// `-` when there is none.
    pub referer: &'a [u8],
    pub agent: &'static str,
}

/// Draws requests. Its memory does not grow.
pub struct Site {
    // Fixed by the seed.
    visitors: Crowd,
    crawlers: Crowd,
    scanners: Crowd,
    monitors: Crowd,
    staff: Crowd,
    endpoints: Weights,
    pages: Weights,
    names: Names,
    /// None: there is one host, that of [`tables::ORIGIN`].
    hosts: Option<(Vec<String>, Weights)>,
    /// Statuses whatever is asked for. None: those that fit the request.
    statuses: Option<(Vec<u16>, Weights)>,
    has_incidents: bool,
    // State.
    random: Random,
    /// The next incident or the current one, by event time: from, until. None before the first request.
    incident: Option<(Micros, Micros)>,
    host: usize,
    path: Vec<u8>,
    referer: Vec<u8>,
}

/// A client and what it always sends.
struct Client {
    address: String,
    agent: &'static str,
    user: &'static str,
}

struct Crowd {
    clients: Vec<Client>,
    ranks: Weights,
}

/// Fills `#` and `~` of a path.
struct Names {
    numbers: Weights,
    words: Weights,
}

/// What a crowd decides about a request; the path and the referrer are in the site's buffers.
struct Answer {
    client: usize,
    method: &'static str,
    protocol: &'static str,
    status: u16,
    bytes: u64,
}

impl Site {
    /// The site that the log of `seed` is about.
    pub fn new(seed: u64) -> Site {
        Site { has_incidents: true, ..Site::of(seed, &Scenario::default()) }
    }

    /// The site of a scenario.
    pub fn of(seed: u64, scenario: &Scenario) -> Site {
        let mut random = Random::new(seed);
        let random_ref = &mut random;
        let clients = &scenario.clients;
        let six_per_mille = (clients.ipv6 * 1000.0).round() as u32;
        let visitors = Crowd::of(clients.count, weights(clients.count, clients.choice, clients.flatness), |_| {
            let six = random_ref.chance(six_per_mille);
            let address = if six { address_v6(random_ref) } else { address_v4(random_ref) };
            Client { address, agent: random_ref.pick(tables::BROWSERS), user: "-" }
        });
        let crawlers = Crowd::new(240, 10, |_| {
            let (network, agent) = random_ref.pick(tables::CRAWLERS);
            let address = format!("{network}.{}.{}", 64 + random_ref.below(16), 1 + random_ref.below(254));
            Client { address, agent, user: "-" }
        });
        let scanners = Crowd::new(40, 2, |_| {
            let address = address_v4(random_ref);
            Client { address, agent: random_ref.pick(tables::SCANNER_AGENTS), user: "-" }
        });
        let monitors = Crowd::new(tables::MONITORS.len() as u32, 20, |rank| Client {
            address: address_v4(random_ref),
            agent: tables::MONITORS[rank].0,
            user: "-",
        });
        let staff = Crowd::new(tables::STAFF.len() as u32, 3, |rank| {
            let address = format!("192.0.2.{}", 10 + rank);
            Client { address, agent: random_ref.pick(tables::BROWSERS), user: tables::STAFF[rank] }
        });
        let page_weight = |e: &Endpoint| if e.nature == Nature::Page && e.status == 200 { e.weight } else { 0 };
        let hosts = &scenario.hosts;
        let origins: Vec<String> = hosts.names.iter().map(|name| format!("https://{name}")).collect();
        let host_weights = |count: usize| weights(count as u32, hosts.choice, hosts.flatness);
        Site {
            visitors,
            crawlers,
            scanners,
            monitors,
            staff,
            endpoints: Weights::new(tables::ENDPOINTS.iter().map(|e| e.weight)),
            pages: Weights::new(tables::ENDPOINTS.iter().map(page_weight)),
            names: Names { numbers: Weights::zipf(2_000, 3), words: Weights::zipf(tables::WORDS.len() as u32, 2) },
            hosts: (!origins.is_empty()).then(|| (origins, host_weights(hosts.names.len()))),
            statuses: (!scenario.statuses.is_empty()).then(|| {
                let (statuses, shares) = scenario.statuses.iter().copied().unzip::<_, _, _, Vec<f64>>();
                (statuses, Weights::of(&shares))
            }),
            has_incidents: false,
            random,
            incident: None,
            host: 0,
            path: Vec::new(),
            referer: Vec::new(),
        }
    }

    /// From here on chance is that of another seed; the clients stay.
    pub fn reseed(&mut self, seed: u64) {
        self.random = Random::new(seed);
    }

    /// The next request, answered at `at`. Times should not go backwards; nothing breaks if they do.
    pub fn request(&mut self, at: Micros) -> Request<'_> {
        let down = self.is_down(at);
        if let Some((_, weights)) = &self.hosts {
            self.host = weights.draw(&mut self.random);
        }
        self.path.clear();
        self.referer.clear();
        let share = self.random.below(1000);
        let (mut answer, crowd) = if share < 830 {
            (self.visit(down), &self.visitors)
        } else if share < 930 {
            (self.crawl(down), &self.crawlers)
        } else if share < 960 {
            (self.scan(), &self.scanners)
        } else if share < 985 {
            (self.monitor(down), &self.monitors)
        } else {
            (self.administer(down), &self.staff)
        };
        if let Some((statuses, weights)) = &self.statuses {
            let status = statuses[weights.draw(&mut self.random)];
            if (status >= 400) != (answer.status >= 400) {
                answer.bytes = if status >= 400 { error_size(status) } else { 11_000 };
            }
            answer.status = status;
        }
        let client = &crowd.clients[answer.client];
        // A name without a member of staff behind it is one that a scanner tried.
        let guessed = answer.status == 401 && client.user == "-";
        let user = if guessed { self.random.pick(tables::GUESSED_NAMES) } else { client.user };
        let body = has_body(answer.method, answer.status);
        Request {
            host: self.host,
            client: &client.address,
            port: 1024 + self.random.below(64_512) as u16,
            user,
            method: answer.method,
            path: &self.path,
            protocol: answer.protocol,
            status: answer.status,
            bytes: if body { answer.bytes } else { 0 },
            referer: if self.referer.is_empty() { b"-" } else { &self.referer },
            agent: client.agent,
        }
    }

    /// Whether the application is down. The first incident begins one to ten minutes into the log, and so does each
    /// next one after the last; it is event time that counts, so that a window of a minute sees it at any rate.
    fn is_down(&mut self, at: Micros) -> bool {
        if !self.has_incidents {
            return false;
        }
        match self.incident {
            Some((from, until)) if at < until => at >= from,
            Some(_) | None => {
                let from = at + i64::from(60 + self.random.below(540)) * MICROS_PER_SECOND;
                let until = from + i64::from(20 + self.random.below(70)) * MICROS_PER_SECOND;
                self.incident = Some((from, until));
                false
            }
        }
    }

    fn visit(&mut self, down: bool) -> Answer {
        let client = self.visitors.ranks.draw(&mut self.random);
        let protocol = if self.random.chance(700) { "HTTP/2.0" } else { "HTTP/1.1" };
        if self.random.chance(20) {
            let (path, from) = self.random.pick(tables::BROKEN_LINKS);
            self.path.extend_from_slice(path.as_bytes());
            self.referer.extend_from_slice(from.as_bytes());
            return Answer { client, method: "GET", protocol, status: 404, bytes: 9_400 };
        }
        let endpoint = &tables::ENDPOINTS[self.endpoints.draw(&mut self.random)];
        self.names.fill(endpoint.path, &mut self.random, &mut self.path);
        self.refer(endpoint.nature);
        let status = match endpoint.nature {
            Nature::Asset if endpoint.status == 200 && self.random.chance(160) => 304,
            Nature::Call => self.called(endpoint.status, down),
            Nature::Page | Nature::Asset => endpoint.status,
        };
        let bytes = if status < 400 { self.size(endpoint) } else { error_size(status) };
        Answer { client, method: endpoint.method, protocol, status, bytes }
    }

    fn crawl(&mut self, down: bool) -> Answer {
        let client = self.crawlers.ranks.draw(&mut self.random);
        let (method, protocol) = ("GET", "HTTP/1.1");
        let kind = self.random.below(100);
        if kind < 8 {
            self.path.extend_from_slice(self.random.pick(tables::CRAWLER_FILES).as_bytes());
            return Answer { client, method, protocol, status: 200, bytes: 1_208 };
        }
        if kind < 13 {
            // Crawlers remember pages that are long gone.
            self.names.fill("/archive/#/~", &mut self.random, &mut self.path);
            return Answer { client, method, protocol, status: 404, bytes: 9_400 };
        }
        if kind < 25 {
            self.names.fill("/search?q=~", &mut self.random, &mut self.path);
            let status = self.called(200, down);
            return Answer { client, method, protocol, status, bytes: if status < 400 { 11_000 } else { 299 } };
        }
        let endpoint = &tables::ENDPOINTS[self.pages.draw(&mut self.random)];
        self.names.fill(endpoint.path, &mut self.random, &mut self.path);
        let status = if self.random.chance(120) { 304 } else { 200 };
        Answer { client, method, protocol, status, bytes: self.size(endpoint) }
    }

    fn scan(&mut self) -> Answer {
        let client = self.scanners.ranks.draw(&mut self.random);
        let (method, path, status) = self.random.pick(tables::PROBES);
        self.names.fill(path, &mut self.random, &mut self.path);
        let protocol = if self.random.chance(200) { "HTTP/1.0" } else { "HTTP/1.1" };
        Answer { client, method, protocol, status, bytes: if status < 400 { 14_200 } else { error_size(status) } }
    }

    fn monitor(&mut self, down: bool) -> Answer {
        let client = self.monitors.ranks.draw(&mut self.random);
        self.path.extend_from_slice(b"/health");
        let status = if down { 503 } else { 200 };
        Answer { client, method: tables::MONITORS[client].1, protocol: "HTTP/1.1", status, bytes: 17 }
    }

    fn administer(&mut self, down: bool) -> Answer {
        let client = self.staff.ranks.draw(&mut self.random);
        self.names.fill(self.random.pick(tables::STAFF_PATHS), &mut self.random, &mut self.path);
        self.referer.extend_from_slice(b"https://www.example.com/admin/");
        let status = if self.random.chance(40) { 401 } else { self.called(200, down) };
        let bytes = if status < 400 { u64::from(3_000 + self.random.below(40_000)) } else { error_size(status) };
        Answer { client, method: "GET", protocol: "HTTP/2.0", status, bytes }
    }

    /// The status of a request that needs the application: during an incident half of them fail, else 4 in a thousand.
    fn called(&mut self, status: u16, down: bool) -> u16 {
        let luck = self.random.below(1000);
        match (down, luck) {
            (true, 0..300) => 503,
            (true, 300..400) => 502,
            (true, 400..500) => 504,
            (true, _) => status,
            (false, 0..4) => 500,
            (false, _) => status,
        }
    }

    /// Where a visitor comes from: assets from a page of the site, the rest from nowhere, the site, or outside.
    fn refer(&mut self, nature: Nature) {
        let from = match nature {
            Nature::Asset | Nature::Call => 500,
            Nature::Page => self.random.below(1000),
        };
        if from < 380 {
            return;
        }
        if from >= 700 {
            self.referer.extend_from_slice(self.random.pick(tables::OUTSIDE_REFERERS).as_bytes());
            return;
        }
        let origin = self.hosts.as_ref().map_or(tables::ORIGIN, |(origins, _)| &origins[self.host]);
        self.referer.extend_from_slice(origin.as_bytes());
        let page = &tables::ENDPOINTS[self.pages.draw(&mut self.random)];
        self.names.fill(page.path, &mut self.random, &mut self.referer);
    }

    /// The size of an answer. Files and pages keep theirs from request to request; what the application makes does not.
    fn size(&mut self, endpoint: &Endpoint) -> u64 {
        let beyond = match endpoint.nature {
            Nature::Page | Nature::Asset if endpoint.status == 200 => spread_by_path(&self.path, endpoint.spread),
            Nature::Page | Nature::Asset | Nature::Call => self.random.below(endpoint.spread),
        };
        u64::from(endpoint.bytes + beyond)
    }
}

impl Crowd {
    /// `make` receives the rank from 0 on; the lower, the more that client asks.
    fn new(count: u32, flatness: u32, make: impl FnMut(usize) -> Client) -> Crowd {
        Crowd::of(count, Weights::zipf(count, flatness), make)
    }

    fn of(count: u32, ranks: Weights, make: impl FnMut(usize) -> Client) -> Crowd {
        Crowd { clients: (0..count as usize).map(make).collect(), ranks }
    }
}

impl Names {
    fn fill(&self, pattern: &str, random: &mut Random, out: &mut Vec<u8>) {
        let mut rest = pattern.as_bytes();
        while let Some(at) = rest.iter().position(|&byte| byte == b'#' || byte == b'~') {
            out.extend_from_slice(&rest[..at]);
            if rest[at] == b'#' {
                super::put_number(out, 1 + self.numbers.draw(random) as u64);
            } else {
                out.extend_from_slice(tables::WORDS[self.words.draw(random)].as_bytes());
            }
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
    }
}

/// A number below `spread` that depends on the path alone (FNV-1a, 32 bits).
fn spread_by_path(path: &[u8], spread: u32) -> u32 {
    let hash = path.iter().fold(0x811c_9dc5u32, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    ((u64::from(hash) * u64::from(spread)) >> 32) as u32
}

fn weights(count: u32, choice: Choice, flatness: u32) -> Weights {
    match choice {
        Choice::Uniform => Weights::new(std::iter::repeat_n(1, count as usize)),
        Choice::Zipf => Weights::zipf(count, flatness),
        Choice::Binomial => Weights::binomial(count),
    }
}

/// Whether an answer has a body (RFC 9110, sections 9.3.2, 15.3.5 and 15.4.5).
pub(super) fn has_body(method: &str, status: u16) -> bool {
    method != "HEAD" && status != 304 && status != 204
}

/// Apache's built-in error pages differ a little by status.
pub(super) fn error_size(status: u16) -> u64 {
    match status {
        400 => 226,
        401 => 381,
        403 => 199,
        404 => 196,
        405 => 224,
        500 => 528,
        502 => 341,
        504 => 247,
        _ => 299,
    }
}

/// A public address: none of the private, loopback, link-local, multicast and reserved ranges.
fn address_v4(random: &mut Random) -> String {
    let first = loop {
        let first = 1 + random.below(223);
        if ![10, 100, 127, 169, 172, 192, 198, 203].contains(&first) {
            break first;
        }
    };
    format!("{first}.{}.{}.{}", random.below(256), random.below(256), 1 + random.below(254))
}

/// An address of the documentation prefix, in the canonical form of RFC 5952.
fn address_v6(random: &mut Random) -> String {
    let mut group = || 1 + random.below(0xffff);
    format!("2001:db8:{:x}:{:x}::{:x}", group(), group(), group())
}
