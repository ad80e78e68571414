//! `kill -9` on the real program while three logs grow and are rotated, and while it does all it ever does: checkpoints
//! every 200 ms, small parts of the log to the archive, merges there, cutting the log off behind them.

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::logs::{CLASH, EARLY, LATE, LOGS, Log, MEMBER, Writer, is_malformed};
use super::{Named, number, tell};
use crate::batch::same;
use crate::lines;
use crate::server::{Client, Server};

/// In an ordinary run.
const KILLS: u64 = 20;

/// After so many kills, or more in a long run, all is compared; in between only that the program starts again.
const COMPARE_EVERY: u64 = 7;

/// Lines that are there before the streams: views over learned columns need them.
const FIRST: u64 = 100;

#[test]
fn killed_at_any_moment() {
    let seed = number("LOGWEIR_SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    let _named = Named(seed);
    let kills = number("LOGWEIR_KILLS").unwrap_or(KILLS);
    // It takes longer the more there is.
    let every = COMPARE_EVERY.max(kills / 10);
    let mut run = Run::start(seed);
    for kill in 0..kills {
        run.kill();
        if kill % every == every - 1 {
            run.compare();
        }
    }
    run.compare();
    // In peace for once, and again: neither adds nor takes anything.
    assert!(run.server.terminate().success());
    run.server.again();
    run.compare();
    let figures = run.figures();
    tell(&format!("crash: LOGWEIR_SEED={seed}: {} kills ({}), {figures}", run.counts.all(), run.counts));
    assert_eq!(run.counts.all(), kills);
    assert!(figures.cut_segments > 0, "no log was ever cut off");
    assert!(figures.archive_versions > 3 && figures.archived_rows > 0, "hardly anything came into the archive");
    assert!(figures.merges > 0, "nothing was merged in the archive");
    assert!(figures.checkpoints > 3, "hardly any checkpoint was made");
    assert!(figures.rotations > 0, "no log was rotated");
    let hit = |count: u64| count > 0 || kills < KILLS;
    assert!(hit(run.counts.starting) && hit(run.counts.running) && hit(run.counts.stopping), "{}", run.counts);
}

/// How many kills came when.
#[derive(Default)]
struct Counts {
    /// Before the line that says that it is ready.
    starting: u64,
    running: u64,
    /// Between SIGTERM and the end.
    stopping: u64,
    /// It had ended by itself before the kill.
    stopped: u64,
}

impl Counts {
    fn all(&self) -> u64 {
        self.starting + self.running + self.stopping + self.stopped
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { starting, running, stopping, stopped } = self;
        write!(f, "{starting} while starting, {running} running, {stopping} stopping, {stopped} just stopped")
    }
}

/// A server, its logs, and what is known of both.
struct Run {
    /// Stops before the folder goes that it writes to.
    writer: Writer,
    server: Server,
    random: StdRng,
    counts: Counts,
    begun: Instant,
    /// How long the last start took that was let be.
    start: Duration,
}

impl Run {
    fn start(seed: u64) -> Run {
        let mut random = StdRng::seed_from_u64(seed);
        let mut server = Server::prepare();
        // Some of the views' states go to disk while they are in use.
        server.use_arguments(&["--checkpoint-interval", "200ms", "--state-memory", "1 MiB"]);
        server.again();
        let folder = server.log("");
        for log in LOGS {
            let first: String = (0..FIRST).map(|number| log.line(number)).collect();
            lines::append(&folder.join(format!("{}.log", log.name())), first);
        }
        let client = server.client();
        for log in LOGS {
            client.run(&create(log, &folder));
        }
        client.run("FLUSH");
        for view in VIEWS {
            let (log, name, query, emit) = (view.log.name(), view.name, view.query, view.emit());
            client.run(&format!("CREATE MATERIALIZED VIEW {log}_{name} AS {query} {emit}"));
        }
        let writer = Writer::start(folder, random.random(), FIRST);
        let (counts, begun, start) = (Counts::default(), Instant::now(), Duration::from_millis(200));
        Run { server, random, writer, counts, begun, start }
    }

    /// Ends the server, one way or another, and starts it again.
    fn kill(&mut self) {
        // Each kind has to come; what has not by half of a run is tried for until it has.
        let late = self.counts.all() >= KILLS / 2;
        let kind = match self.counts {
            Counts { starting: 0, .. } if late => 0,
            Counts { stopping: 0, .. } if late => 1,
            _ => self.random.random_range(0..4),
        };
        match kind {
            0 => {
                self.server.kill();
                self.server.launch();
                let most = (self.start.as_millis() as u64 * 5 / 4).max(50);
                self.sleep(most);
                match self.server.is_ready() {
                    true => self.counts.running += 1,
                    false => self.counts.starting += 1,
                }
                // The one before it, which ran, is not counted: its moment was not chosen.
                self.server.kill();
            }
            1 => {
                self.sleep(800);
                let status = self.server.terminate_or_kill(Duration::from_micros(self.random.random_range(0..60_000)));
                match status.success() {
                    true => self.counts.stopped += 1,
                    false => self.counts.stopping += 1,
                }
            }
            _ => {
                self.sleep(1500);
                self.server.kill();
                self.counts.running += 1;
            }
        }
        let begun = Instant::now();
        self.server.again();
        self.start = begun.elapsed();
    }

    /// A random time: the moment of a kill, not a wait for anything.
    fn sleep(&mut self, most_millis: u64) {
        std::thread::sleep(Duration::from_micros(self.random.random_range(0..most_millis * 1000)));
    }

    /// Compares all there is with the lines that were written.
    fn compare(&mut self) {
        let written = self.writer.pause();
        let client = self.server.client();
        client.run("FLUSH");
        for log in LOGS {
            check_lines(&client, log, written);
        }
        check_learned(&client, written);
        for view in VIEWS {
            view.check(&client);
        }
        self.writer.go_on();
    }

    fn figures(&mut self) -> Figures {
        let client = self.server.client();
        let lines = self.writer.pause();
        let archived_rows = client.number("SELECT sum(archived_rows) FROM logweir.streams") as u64;
        let archive_files = client.number("SELECT sum(archive_files) FROM logweir.streams") as u64;
        drop(client);
        let data = self.server.data_dir();
        let commits: Vec<String> = LOGS
            .iter()
            .flat_map(|log| ["", "__malformed"].map(|suffix| format!("{}{suffix}/_delta_log", log.name())))
            .flat_map(|log| {
                names(&data.join("archive").join(&log)).into_iter().map(move |name| format!("{log}/{name}"))
            })
            .filter(|name| name.ends_with(".json"))
            .collect();
        let is_merge = |name: &&String| {
            let commit = std::fs::read_to_string(data.join("archive").join(name));
            commit.expect("commits stay for a day").contains("\"OPTIMIZE\"")
        };
        // Segments are numbered from 1 on, and so are checkpoints.
        let number = |name: &String| name.split(['-', '.']).next().and_then(|number| number.parse::<u64>().ok());
        let streams = names(&data.join("streams")).into_iter();
        let oldest = streams.filter_map(|id| names(&data.join("streams").join(id)).iter().filter_map(number).min());
        Figures {
            seconds: self.begun.elapsed().as_secs(),
            lines: lines * LOGS.len() as u64,
            rotations: self.writer.rotations(),
            checkpoints: names(&data.join("checkpoints")).iter().filter_map(number).max().unwrap_or(0),
            archive_versions: commits.len(),
            merges: commits.iter().filter(is_merge).count(),
            archived_rows,
            archive_files,
            cut_segments: oldest.map(|oldest| oldest - 1).sum(),
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect()
}

struct Figures {
    seconds: u64,
    lines: u64,
    rotations: u64,
    checkpoints: u64,
    archive_versions: usize,
    merges: usize,
    archived_rows: u64,
    archive_files: u64,
    cut_segments: u64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figures { seconds, lines, rotations, checkpoints, archive_versions, merges, .. } = self;
        let Figures { archived_rows, archive_files, cut_segments, .. } = self;
        write!(
            f,
            "{lines} lines, {rotations} rotations, {checkpoints} checkpoints, {archive_versions} versions of archives \
             ({merges} merges) with {archived_rows} rows in {archive_files} files, {cut_segments} segments of logs cut off, \
             {seconds} s"
        )
    }
}

fn create(log: Log, folder: &Path) -> String {
    let name = log.name();
    let path = folder.join(format!("{name}.log*"));
    let path = path.display();
    let (sync, format) = match log {
        Log::Grown => ("always", "COMBINED"),
        Log::Renamed => ("10ms", "COMBINED"),
        Log::Copied => ("off", "JSON"),
    };
    // Files that were put away do not hold event time back for long, and it never goes on with the wall clock.
    format!(
        "CREATE TABLE {name} (*, WATERMARK FOR ts AS ts - INTERVAL '1 minute')
         INCLUDE offset AS o, file AS from_file
         WITH (connector = 'file', path = '{path}', wal_sync = '{sync}', wal_segment_bytes = '64 KiB',
               hot_bytes = '128 KiB', archive_bytes = '64 KiB', archive_interval = '300 ms', idle_timeout = '1 hour')
         FORMAT {format}"
    )
}

/// A view over a log.
struct View {
    log: Log,
    name: &'static str,
    query: &'static str,
    /// It announces windows as they close.
    closes: bool,
}

const VIEWS: &[View] = &[
    View {
        log: Log::Grown,
        name: "minutes",
        query: "SELECT window_start, window_end, client, count(*) AS n, sum(bytes) AS bytes
                FROM TUMBLE(grown, ts, INTERVAL '1 minute') GROUP BY window_start, window_end, client",
        closes: false,
    },
    View {
        log: Log::Grown,
        name: "closed",
        query: "SELECT window_start, window_end, count(*) AS n, sum(bytes) AS bytes
                FROM TUMBLE(grown, ts, INTERVAL '1 minute') GROUP BY window_start, window_end",
        closes: true,
    },
    View {
        log: Log::Grown,
        name: "clients",
        query: "SELECT client, count(*) AS n, sum(bytes) AS bytes, min(path) AS first, max(bytes) AS last
                FROM grown GROUP BY client",
        closes: false,
    },
    View {
        log: Log::Renamed,
        name: "hops",
        query: "SELECT window_start, window_end, client, count(*) AS n, sum(bytes) AS bytes
                FROM HOP(renamed, ts, INTERVAL '1 minute', INTERVAL '5 minutes') GROUP BY window_start, window_end, client",
        closes: false,
    },
    View {
        log: Log::Renamed,
        name: "paths",
        // A group for each line: the largest state there can be.
        query: "SELECT path, count(*) AS n FROM renamed WHERE bytes % 50 = 0 GROUP BY path",
        closes: false,
    },
    View {
        log: Log::Grown,
        name: "answered",
        // The other log has the same lines, sooner or later; some of them do not count.
        query: "SELECT date_trunc('minute', g.ts) AS minute, g.client, count(*) AS n, count(r.bytes) AS found, sum(r.bytes) AS bytes
                FROM grown g LEFT JOIN renamed r ON g.bytes = r.bytes AND r.bytes % 3 <> 0
                AND r.ts BETWEEN g.ts - INTERVAL '1 second' AND g.ts + INTERVAL '1 second' GROUP BY 1, 2",
        closes: false,
    },
    View {
        log: Log::Renamed,
        name: "met",
        query: "SELECT window_start, window_end, count(*) AS n, sum(bytes) AS bytes FROM TUMBLE((SELECT r.ts, g.bytes
                FROM renamed r JOIN grown g ON g.bytes = r.bytes AND g.ts BETWEEN r.ts AND r.ts + INTERVAL '1 second'),
                ts, INTERVAL '1 minute') GROUP BY window_start, window_end",
        closes: false,
    },
    View {
        log: Log::Copied,
        name: "minutes",
        query: "SELECT window_start, window_end, count(*) AS n, sum(n) AS numbers, count(clash) AS whole
                FROM TUMBLE(copied, ts, INTERVAL '1 minute') GROUP BY window_start, window_end",
        closes: false,
    },
    View {
        log: Log::Copied,
        name: "learned",
        query: "SELECT client, count(early) AS early, sum(early) AS numbers, count(clash) AS whole, count(*) AS n
                FROM copied GROUP BY client",
        closes: false,
    },
];

impl View {
    fn emit(&self) -> &'static str {
        if self.closes { "EMIT ON WINDOW CLOSE" } else { "" }
    }

    fn check(&self, client: &Client) {
        let View { log, name, query, closes } = self;
        let stream = log.name();
        let batch = match closes {
            false => query.to_string(),
            true => {
                // Late lines come when their window is long closed.
                let watermark = client
                    .one(&format!("SELECT max(stream_watermark) FROM logweir.watermarks WHERE stream = '{stream}'"));
                let number = log.number_column();
                let in_time = query.replace(" GROUP BY", &format!(" WHERE {number} % {LATE} <> {} GROUP BY", LATE - 1));
                format!("SELECT * FROM ({in_time}) AS b WHERE window_end <= '{watermark}'")
            }
        };
        same(client, &format!("{stream}_{name}"), &format!("SELECT * FROM {stream}_{name}"), &batch, 0.0);
    }
}

/// Each of the first `written` lines is in the stream once: as a row, or as a malformed line.
fn check_lines(client: &Client, log: Log, written: u64) {
    let (stream, column) = (log.name(), log.number_column());
    let numbers = |malformed: bool| (0..written).filter(move |number| is_malformed(*number) == malformed);
    let wanted = |malformed| {
        let count = numbers(malformed).count();
        format!("{count} {count} {}", numbers(malformed).sum::<u64>())
    };
    let of_rows = format!("SELECT {column} AS number FROM {stream}");
    let of_malformed = format!("SELECT CAST(substr(raw, 18) AS bigint) AS number FROM {stream}__malformed");
    for (source, malformed) in [(of_rows, false), (of_malformed, true)] {
        let got = client.one(&format!("SELECT count(*), count(DISTINCT number), sum(number) FROM ({source}) AS s"));
        if got != wanted(malformed) {
            let all: Vec<u64> =
                client.rows(&source).iter().map(|row| row[0].as_deref().unwrap_or("0").parse().unwrap_or(0)).collect();
            let found: HashSet<u64> = all.iter().copied().collect();
            let missing: Vec<u64> = numbers(malformed).filter(|number| !found.contains(number)).collect();
            let mut seen = HashSet::new();
            let twice: Vec<u64> = all.iter().copied().filter(|number| !seen.insert(*number)).collect();
            let archived = client.rows(&format!("SELECT * FROM logweir.streams WHERE name = '{stream}'"));
            // Where the first of them came from: two offsets were read twice, one offset is in archive and memory.
            if let (Some(number), false) = (twice.first(), malformed) {
                let found = client.rows(&format!("SELECT o, from_file FROM {stream} WHERE {column} = {number}"));
                eprintln!("{stream}: {number} came from {found:?}");
            }
            panic!(
                "{stream}{}: {got} instead of {}; missing {}, twice {}; {archived:?}",
                if malformed { "__malformed" } else { "" },
                wanted(malformed),
                ranges(&missing),
                ranges(&twice),
            );
        }
    }
    // What the archive tells of its rows by itself.
    let late = (0..written).filter(|number| !is_malformed(*number) && number % LATE == LATE - 1).count();
    if log == Log::Grown {
        assert_eq!(
            client.number(&format!("SELECT count(*) FROM {stream}__late")),
            late as i64,
            "late rows of {stream}"
        );
    }
    let counted =
        client.one(&format!("SELECT rows + malformed, next_offset FROM logweir.streams WHERE name = '{stream}'"));
    assert_eq!(counted, format!("{written} {written}"), "{stream}");
}

/// Columns of the JSON log that only some lines have.
fn check_learned(client: &Client, written: u64) {
    let count = |lines: std::ops::Range<u64>| lines.filter(|number| !is_malformed(*number)).count();
    let members: Vec<u64> = (0..=(written - 1) / MEMBER).collect();
    let mut wanted = vec![count(0..EARLY), count(0..CLASH.min(written)), count(CLASH.min(written)..written)];
    let mut columns = vec!["count(early)".to_string(), "count(clash)".to_string()];
    columns.push(if written > CLASH + MALFORMED_RUN {
        "count(clash__text)".into()
    } else {
        "count(*) - count(clash)".into()
    });
    for member in members {
        let lines = member * MEMBER..((member + 1) * MEMBER).min(written);
        if count(lines.clone()) > 0 {
            wanted.push(count(lines));
            columns.push(format!("count(m{member})"));
        }
    }
    let wanted: Vec<String> = wanted.iter().map(usize::to_string).collect();
    assert_eq!(client.one(&format!("SELECT {} FROM copied", columns.join(", "))), wanted.join(" "), "learned columns");
}

/// More lines than this cannot all be malformed.
const MALFORMED_RUN: u64 = 1;

/// `1..4 9..10` for 1, 2, 3, 9.
fn ranges(numbers: &[u64]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let texts: Vec<String> = runs.take(20).map(|run| format!("{}..{}", run[0], run[run.len() - 1] + 1)).collect();
    format!("{} [{}]", numbers.len(), texts.join(" "))
}
