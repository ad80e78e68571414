//! Alerts against the truth: a made-up site in which errors burst and creep in, traffic drops and stops, at times that the
//! generator tells. Rules with fixed limits must find all of it and nothing else; what rules that follow the data find is
//! counted beside it.
//!
//! The rules were written for the kinds of episodes, not for a seed: the small run has a new one each time. A failure tells it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use logweir::generate::{Player, Scenario};
use logweir::time::{MICROS_PER_SECOND, Micros};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{until, until_within};
use crate::lines::START;
use crate::server::{Client, Server};

const S: Micros = MICROS_PER_SECOND;

/// Longer than the longest log takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Nothing happens before this second: what is usual has to be known first.
const WARM_UP: Micros = 70 * S;

/// The two episodes at the end, with a pause behind each.
const CLOSING: Micros = 42 * S;

/// A firing may begin this much behind the end of what it is about: windows, FOR and rounding.
const SLACK: Micros = 3 * S;

const KINDS: [&str; 4] = ["errors", "drift", "drop", "silence"];

/// What is watched: the kinds of episodes that each rule is to find, and those that explain a firing of it.
const RULES: &[Rule] = &[
    Rule { name: "fixed_errors", is_fixed: true, finds: &["errors", "drift"], explained: &["errors", "drift"] },
    Rule { name: "fixed_drop", is_fixed: true, finds: &["drop"], explained: &["drop", "silence"] },
    Rule { name: "fixed_silence", is_fixed: true, finds: &["silence"], explained: &["silence"] },
    Rule { name: "dynamic_errors", is_fixed: false, finds: &["errors", "drift"], explained: &["errors", "drift"] },
    Rule { name: "dynamic_traffic", is_fixed: false, finds: &["drop", "silence"], explained: &["drop", "silence"] },
    Rule { name: "dynamic_season", is_fixed: false, finds: &["drop", "silence"], explained: &["drop", "silence"] },
];

struct Rule {
    name: &'static str,
    is_fixed: bool,
    finds: &'static [&'static str],
    explained: &'static [&'static str],
}

/// Something that happened, or that a rule says did.
#[derive(Debug, Clone)]
struct Span {
    what: String,
    start: Micros,
    end: Micros,
}

/// How a run is to be.
struct Run {
    seed: u64,
    /// Lines a second.
    rate: u32,
    episodes: usize,
    /// As datagen has it: 0 is as fast as they are taken.
    speed: u32,
}

impl Run {
    /// One episode after the other, of each kind as many, with pauses between them in which all is well.
    fn scenario(&self) -> String {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut text = format!(
            "rate = {}\njitter = 0.1\nstatus = {{ 200 = 0.95, 304 = 0.02, 404 = 0.025, 500 = 0.005 }}\n",
            self.rate
        );
        let mut at = WARM_UP;
        for n in 0..self.episodes {
            let kind = KINDS[n % KINDS.len()];
            let (length, size) = match kind {
                "errors" => (random.random_range(4000..12_000), random.random_range(0.2..0.8)),
                "drift" => (random.random_range(30_000..60_000), random.random_range(0.1..0.5)),
                "drop" => (random.random_range(4000..12_000), random.random_range(0.05..0.35)),
                _ => (random.random_range(4000..12_000), 0.0),
            };
            let size = if kind == "silence" { String::new() } else { format!(", size = {size:.3}") };
            writeln!(
                text,
                "[[episodes]]\nkind = '{kind}'\nat = '{} ms'\nlength = '{length} ms'{}",
                at / 1000,
                size.replace(", ", "\n")
            )
            .expect("a String takes all");
            at += length * 1000 + random.random_range(12_000_000..25_000_000);
        }
        // What no rule misses once it has seen a minute of peace, to tell by when all of them have come to the end.
        at += WARM_UP;
        for (kind, size) in [("errors", "size = 0.8"), ("silence", "")] {
            writeln!(text, "[[episodes]]\nkind = '{kind}'\nat = '{} ms'\nlength = '6 s'\n{size}", at / 1000)
                .expect("a String takes all");
            at += CLOSING / 2;
        }
        format!("duration = '{} ms'\n{text}", at / 1000)
    }

    fn length(&self) -> Micros {
        Scenario::parse(&self.scenario()).expect("it is one").duration.expect("it ends")
    }

    /// What happens, as the generator says.
    fn truth(&self) -> Vec<Span> {
        let scenario = Scenario::parse(&self.scenario()).expect("it is one");
        let mut player = Player::new(scenario, self.seed, START * S);
        player.skip(u64::MAX);
        let span =
            |e: logweir::generate::truth::Happened| Span { what: e.kind.to_string(), start: e.start, end: e.end };
        player.truth().episodes.into_iter().map(span).collect()
    }

    /// Lets it happen before a server's eyes; gives the firings.
    fn play(&self) -> Vec<Span> {
        let mut server = Server::prepare();
        let path = server.log("scenario.toml");
        std::fs::write(&path, self.scenario()).expect("the folder is there");
        server.again();
        let client = server.client();
        let start = if self.speed == 0 { "2026-01-01T00:00:00Z" } else { "now" };
        client.run("CREATE TABLE access (*, WATERMARK FOR ts AS ts) WITH (archive = 'off', idle_timeout = '1 hour') FORMAT COMBINED");
        create(&client, self.rate);
        client.run(&format!(
            "CREATE SOURCE site INTO access WITH (connector = 'datagen', scenario = '{}', seed = {}, speed = {}, start = '{start}')",
            path.display(),
            self.seed,
            self.speed,
        ));
        let state = "SELECT state FROM logweir.sources WHERE source = 'site'";
        until_within(PATIENCE, "the end of the log", || (client.sorted(state) == ["ended"]).then_some(()));
        client.run("FLUSH");
        let begun = client.number("SELECT (extract(epoch FROM min(window_start)) * 1000000)::bigint FROM traffic");
        let closing = begun + self.length() - CLOSING;
        let over = format!(
            "SELECT count(DISTINCT name) FROM logweir.alert_history
             WHERE to_state = 'resolved' AND extract(epoch FROM at) * 1000000 >= {closing}"
        );
        until("all rules to come to the end", || (client.number(&over) as usize == RULES.len()).then_some(()));
        let history = "SELECT name, to_state, (extract(epoch FROM at) * 1000000)::bigint FROM logweir.alert_history
                       WHERE to_state IN ('firing', 'resolved') ORDER BY name, at, to_state DESC";
        let mut firings: Vec<Span> = Vec::new();
        for row in client.rows(history) {
            let text = |i: usize| row[i].clone().expect("it is never NULL");
            let at = text(2).parse::<Micros>().expect("a number") - begun + START * S;
            match (text(1).as_str(), firings.last_mut()) {
                ("firing", _) => firings.push(Span { what: text(0), start: at, end: at }),
                (_, Some(last)) if last.what == text(0) => last.end = at,
                other => panic!("{other:?}: it was not firing"),
            }
        }
        firings
    }
}

fn create(client: &Client, rate: u32) {
    client.run(&format!(
        "CREATE MATERIALIZED VIEW traffic AS
         SELECT window_start, window_end, count(*) AS requests, count(*) FILTER (WHERE status >= 500) AS errors
         FROM TUMBLE(access, ts, INTERVAL '1 second') GROUP BY window_start, window_end
         EMIT ON WINDOW CLOSE FILL ZERO;
         CREATE ALERT fixed_errors ON traffic WHERE errors > requests * 0.05 AND requests > {busy}
           FOR INTERVAL '2 seconds' KEEP FIRING FOR INTERVAL '2 seconds';
         CREATE ALERT fixed_drop ON traffic WHERE requests < {half}
           FOR INTERVAL '2 seconds' KEEP FIRING FOR INTERVAL '2 seconds';
         CREATE ALERT fixed_silence ON traffic WHERE requests = 0
           FOR INTERVAL '2 seconds' KEEP FIRING FOR INTERVAL '2 seconds';
         CREATE ALERT dynamic_errors ON traffic WHERE anomaly(errors) > 8
           FOR INTERVAL '2 seconds' KEEP FIRING FOR INTERVAL '2 seconds';
         CREATE ALERT dynamic_traffic ON traffic WHERE anomaly(requests) < -5
           FOR INTERVAL '2 seconds' KEEP FIRING FOR INTERVAL '2 seconds';
         CREATE ALERT dynamic_season ON traffic
           WHERE requests < 0.5 * seasonal_baseline(requests, window_start, INTERVAL '13 seconds')
           FOR INTERVAL '2 seconds' KEEP FIRING FOR INTERVAL '2 seconds'",
        busy = rate / 4,
        half = rate / 2,
    ));
}

/// Found, missed and false of each kind, by fixed rules and by others.
type Table = BTreeMap<(&'static str, bool), [usize; 3]>;

fn compare(truth: &[Span], counted: usize, firings: &[Span]) -> Table {
    let mut table = Table::new();
    for is_fixed in [true, false] {
        let rules = || RULES.iter().filter(|rule| rule.is_fixed == is_fixed);
        for episode in &truth[..counted] {
            let kind = KINDS.iter().find(|kind| **kind == episode.what).expect("it is one of these");
            let finders: Vec<&str> = rules().filter(|rule| rule.finds.contains(kind)).map(|rule| rule.name).collect();
            let meets = |firing: &&Span| {
                finders.contains(&firing.what.as_str())
                    && firing.start >= episode.start
                    && firing.start <= episode.end + SLACK
            };
            let row = table.entry((*kind, is_fixed)).or_default();
            row[usize::from(!firings.iter().any(|firing| meets(&firing)))] += 1;
        }
        for rule in rules() {
            for firing in firings.iter().filter(|firing| firing.what == rule.name) {
                let explains = |episode: &&Span| {
                    rule.explained.contains(&episode.what.as_str())
                        && firing.start >= episode.start
                        && firing.start <= episode.end + SLACK
                };
                if !truth.iter().any(|episode| explains(&episode)) {
                    println!("{} fired for nothing at second {}", rule.name, (firing.start - START * S) as f64 / 1e6);
                    table.entry((rule.finds[0], is_fixed)).or_default()[2] += 1;
                }
            }
        }
    }
    table
}

#[track_caller]
fn prove(run: &Run) {
    let truth = run.truth();
    assert_eq!(truth.len(), run.episodes + 2, "all of them happen, and the two at the end");
    println!("seed {}: {} episodes in {} seconds at {} lines/s", run.seed, run.episodes, run.length() / S, run.rate);
    let begun = Instant::now();
    let firings = run.play();
    println!("played in {:?}, {} firings", begun.elapsed(), firings.len());
    let table = compare(&truth, run.episodes, &firings);
    println!("{:<10} {:>26} {:>26}", "", "fixed: found missed false", "dynamic: found missed false");
    for kind in KINDS {
        let row = |is_fixed| table.get(&(kind, is_fixed)).copied().unwrap_or_default();
        let shown = |[found, missed, wrong]: [usize; 3]| format!("{found:>10} {missed:>8} {wrong:>6}");
        println!("{kind:<10} {} {}", shown(row(true)), shown(row(false)));
    }
    for kind in KINDS {
        let [_, missed, wrong] = table.get(&(kind, true)).copied().unwrap_or_default();
        assert_eq!((missed, wrong), (0, 0), "{kind} by fixed rules, seed {}: {truth:#?} {firings:#?}", run.seed);
    }
}

#[test]
fn fixed_rules_find_all_that_happens_and_nothing_else() {
    prove(&Run { seed: rand::random_range(0..1_000_000), rate: 400, episodes: 12, speed: 0 });
}

/// `cargo test --release … -- --ignored fifty --nocapture`, with `SEED` and `RATE` of the environment if they are there.
#[test]
#[ignore = "takes minutes"]
fn fifty_episodes() {
    let number = |name: &str, usual: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    prove(&Run { seed: number("SEED", 1), rate: number("RATE", 20_000) as u32, episodes: 50, speed: 0 });
}

/// The same at the pace of the clock, for some minutes.
#[test]
#[ignore = "takes minutes"]
fn ten_episodes_as_they_happen() {
    prove(&Run { seed: 5, rate: 20_000, episodes: 10, speed: 1 });
}
