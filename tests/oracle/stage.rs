//! Runs a scenario on an engine, and says what must hold in the end.
//!
//! | property | what it says |
//! |---|---|
//! | rows | the stream holds the very rows that were written, and the malformed lines are counted |
//! | view | a view equals its own query run as a batch |
//! | narrow | so does a part of it, cut out by a condition on its windows |
//! | closed | a view that announces windows shows the closed ones, of the rows that came before they closed |
//! | versions | `_final` and `_revision` say whether a window has closed and how many rows came after that |
//! | subscribe | the changes that a subscriber got add up to the view |
//! | cut | a view over the same lines in other micro-batches is the same, and so are the numbers of late and future rows |
//! | model | windows hold the rows that a few lines of this file say, so batch and view are not wrong together |

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::{Array, AsArray, Float64Array};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::Datelike;
use chrono_tz::Tz;
use logweir::time::Micros;

use super::data::{Line, START, Value, rfc3339};
use super::follower::Follower;
use super::query::{Window, tolerance};
use super::scenario::{Failure, Property, STREAM, Scenario, Step, TWIN};
use crate::compare::{Tolerance, difference};
use crate::lines;
use crate::local::{Answer, Following, Local};
use crate::server::{Client, Row, Server};

/// Names of the columns of a result, and its rows.
type Table = (Vec<String>, Vec<Row>);

/// What a scenario runs on.
pub trait Engine {
    /// Runs statements; gives the result of the last one that has any.
    fn query(&self, sql: &str) -> Result<Table, String>;

    fn log(&self, name: &str) -> PathBuf;

    /// Begins a SUBSCRIBE, where that can be done.
    fn follow(&self, sql: &str) -> Result<Option<Following>, String>;

    /// Ends it in some way and starts it again.
    fn restart(&mut self);

    /// Gives the archive all rows, where that can be asked for.
    fn archive(&mut self);

    /// Does nothing where the clock cannot be turned.
    fn turn_clock(&mut self, now: Micros);

    /// What was logged and not announced.
    fn unexpected(&mut self) -> Vec<String>;

    /// Whether values are written as [`cell`] writes them, so that rows can be compared with the lines they came from.
    fn writes_cells(&self) -> bool;
}

impl Engine for Local {
    fn query(&self, sql: &str) -> Result<Table, String> {
        let answer = Local::query(self, sql).map_err(|err| err.to_string())?;
        Ok(answer.map(|answer| rows(&answer)).unwrap_or_default())
    }

    fn log(&self, name: &str) -> PathBuf {
        Local::log(self, name)
    }

    fn follow(&self, sql: &str) -> Result<Option<Following>, String> {
        Local::follow(self, sql).map(Some).map_err(|err| err.to_string())
    }

    fn restart(&mut self) {
        Local::restart(self);
    }

    fn archive(&mut self) {
        Local::archive(self);
    }

    fn turn_clock(&mut self, now: Micros) {
        // Should it fail, the next statement will say so.
        drop(Local::turn_clock(self, now));
    }

    fn unexpected(&mut self) -> Vec<String> {
        Local::unexpected(self)
    }

    fn writes_cells(&self) -> bool {
        true
    }
}

/// A server process that ends by `kill -9`.
pub struct Killed {
    server: Server,
    client: Option<Client>,
}

impl Killed {
    pub fn start() -> Killed {
        let mut server = Server::start();
        let client = Some(server.client());
        Killed { server, client }
    }
}

impl Engine for Killed {
    fn query(&self, sql: &str) -> Result<Table, String> {
        let client = self.client.as_ref().expect("connected since the start");
        client.table(sql).map_err(|failure| format!("{failure:?}"))
    }

    fn log(&self, name: &str) -> PathBuf {
        self.server.log(name)
    }

    fn follow(&self, _: &str) -> Result<Option<Following>, String> {
        Ok(None)
    }

    fn restart(&mut self) {
        self.client = None;
        self.server.kill();
        self.server.again();
        self.client = Some(self.server.client());
    }

    fn archive(&mut self) {}

    fn turn_clock(&mut self, _: Micros) {}

    /// The server looks itself when it is dropped.
    fn unexpected(&mut self) -> Vec<String> {
        Vec::new()
    }

    fn writes_cells(&self) -> bool {
        false
    }
}

/// Runs a scenario on an engine of its own. Gives the number of cases: queries compared over a data set and a cut.
pub fn run(scenario: &Scenario) -> Result<usize, Failure> {
    run_on(scenario, Local::with_cores(START, scenario.settings.cores))
}

/// The same with a fault switched on, which the archive may notice while the engine stops: that is no failure of the test.
pub fn run_faulty(scenario: &Scenario) -> Result<usize, Failure> {
    let mut engine = Local::with_cores(START, scenario.settings.cores);
    engine.expect_log("the archive cannot go on");
    run_on(scenario, engine)
}

/// The same on an engine that was just started.
pub fn run_on(scenario: &Scenario, engine: impl Engine) -> Result<usize, Failure> {
    let mut stage = Stage::new(scenario, engine)?;
    for step in &scenario.steps {
        stage.take(step)?;
    }
    stage.finish()
}

/// A scenario under way.
struct Stage<'a, E> {
    scenario: &'a Scenario,
    engine: E,
    spread: f64,
    middle: Option<(Micros, Micros)>,
    compared: usize,
    /// At most one for each view.
    followers: Vec<Follower>,
}

impl<'a, E: Engine> Stage<'a, E> {
    fn new(scenario: &'a Scenario, engine: E) -> Result<Stage<'a, E>, Failure> {
        let (spread, middle) = (scenario.spread(), scenario.middle());
        let mut stage = Stage { scenario, engine, spread, middle, compared: 0, followers: Vec::new() };
        let path = stage.engine.log("s.log");
        lines::append(&path, "");
        let path = path.display().to_string();
        stage.run(&scenario.create_stream(STREAM, &path, scenario.settings.block_bytes))?;
        if let Some(block_bytes) = scenario.settings.twin_block_bytes {
            stage.run(&scenario.create_stream(TWIN, &path, block_bytes))?;
        }
        if let Some(reference) = scenario.create_reference() {
            stage.run(&reference)?;
        }
        Ok(stage)
    }

    fn run(&mut self, sql: &str) -> Result<(), Failure> {
        self.rows(sql).map(drop)
    }

    fn rows(&mut self, sql: &str) -> Result<Table, Failure> {
        let done = self.engine.query(sql);
        done.map_err(|err| Failure::new(Property::Statement, None, format!("{err}\nin: {sql}")))
    }

    fn take(&mut self, step: &Step) -> Result<(), Failure> {
        let about = |view: usize| move |failure: Failure| Failure { view: Some(view), ..failure };
        match step {
            Step::Push { lines, torn, flush } => {
                let text: String = lines.iter().map(|line| self.scenario.table.text(line) + "\n").collect();
                let path = self.engine.log("s.log");
                let (first, second) = text.as_bytes().split_at(if *torn { text.len() * 2 / 3 } else { text.len() });
                lines::append(&path, first);
                if *torn {
                    // Time for the source to see the first part. FLUSH would wait for the rest of the line.
                    self.run(&format!("SELECT count(*) FROM {STREAM}"))?;
                    lines::append(&path, second);
                }
                if *flush {
                    self.run("FLUSH")?;
                }
            }
            Step::Create(view) => {
                let scenario = self.scenario;
                let sql = scenario.create_view("CREATE", &format!("v{view}"), *view, &scenario.live(*view));
                self.run(&sql).map_err(about(*view))?;
                if let Some(twin) = scenario.twin(*view) {
                    let sql = scenario.create_view("CREATE", &format!("u{view}"), *view, &twin);
                    self.run(&sql).map_err(about(*view))?;
                }
            }
            Step::Replace(view) => {
                self.followers.retain(|f| f.view != *view);
                let scenario = self.scenario;
                let sql = scenario.create_view("CREATE OR REPLACE", &format!("v{view}"), *view, &scenario.live(*view));
                self.run(&sql).map_err(about(*view))?;
            }
            Step::Check(view) => {
                self.run("FLUSH")?;
                self.check(*view)?;
            }
            Step::Subscribe(view) => self.subscribe(*view).map_err(about(*view))?,
            Step::Restart => {
                let followed: Vec<usize> = self.followers.iter_mut().map(Follower::leave).collect();
                self.engine.restart();
                for view in followed {
                    self.subscribe(view).map_err(about(view))?;
                }
            }
            Step::Archive => self.engine.archive(),
            Step::Clock(now) => self.engine.turn_clock(*now),
        }
        self.quiet()
    }

    fn quiet(&mut self) -> Result<(), Failure> {
        let logged = self.engine.unexpected();
        if logged.is_empty() { Ok(()) } else { Err(Failure::new(Property::Log, None, logged.join("\n"))) }
    }

    fn finish(mut self) -> Result<usize, Failure> {
        self.run("FLUSH")?;
        self.check_rows()?;
        for view in 0..self.scenario.views.len() {
            self.check(view)?;
            self.check_narrow(view)?;
            self.check_cut(view)?;
        }
        if self.scenario.settings.twin_block_bytes.is_some() && self.engine.writes_cells() {
            let counts = |name: &str| {
                let columns = "sum(rows) AS rows, sum(late_rows) AS late, sum(future_rows) AS future";
                format!("SELECT {columns} FROM logweir.watermarks WHERE stream = '{name}'")
            };
            self.same(Property::Cut, None, &counts(STREAM), &counts(TWIN))?;
        }
        self.check_model()?;
        self.quiet()?;
        Ok(self.compared)
    }

    /// Begins to follow a view, or goes on from where the follower was.
    fn subscribe(&mut self, view: usize) -> Result<(), Failure> {
        let query = &self.scenario.views[view];
        if self.followers.iter().all(|f| f.view != view) {
            self.followers.push(Follower::new(view));
        }
        let follower = self.followers.iter_mut().find(|f| f.view == view).expect("pushed above");
        let sql = follower.subscribe(query.resumes());
        let begun = self.engine.follow(&sql);
        match begun.map_err(|err| Failure::new(Property::Statement, Some(view), format!("{err}\nin: {sql}")))? {
            Some(following) => follower.begin(following),
            None => self.followers.retain(|f| f.view != view),
        }
        Ok(())
    }

    /// Waits until the follower of a view, if there is one, has what the view shows.
    fn check_follower(&mut self, view: usize) -> Result<(), Failure> {
        let Some(place) = self.followers.iter().position(|f| f.view == view) else { return Ok(()) };
        let sql = format!("SELECT * FROM v{view}");
        let (names, wanted) = self.rows(&sql)?;
        let tolerances: Vec<Tolerance> = names.iter().map(|name| tolerance(name, self.spread)).collect();
        let follower = &mut self.followers[place];
        match follower.reach(&wanted, &tolerances) {
            Ok(()) => {
                self.compared += 1;
                Ok(())
            }
            Err(text) => Err(Failure::new(Property::Subscribe, Some(view), format!("{text}{}", follower.history()))),
        }
    }

    /// The stream's rows are the lines.
    fn check_rows(&mut self) -> Result<(), Failure> {
        let table = &self.scenario.table;
        let columns: String = table.columns.iter().map(|c| format!(", {}", c.name)).collect();
        let sql = format!("SELECT ts{columns} FROM {STREAM}");
        let (_, got) = self.rows(&sql)?;
        let (mut wanted, mut malformed) = (Vec::new(), 0);
        for line in self.scenario.lines() {
            match line {
                Line::Row { time, values } => {
                    let cells = values.iter().map(Value::cell);
                    wanted.push([Some(rfc3339(*time))].into_iter().chain(cells).collect());
                }
                Line::Malformed(_) => malformed += 1,
            }
        }
        let text = match self.engine.writes_cells() {
            true => difference(got, wanted, &[Tolerance::None]),
            false => (got.len() != wanted.len()).then(|| format!("{} rows instead of {}\n", got.len(), wanted.len())),
        };
        if let Some(text) = text {
            return Err(Failure::new(Property::Rows, None, format!("{text}in: {sql}")));
        }
        let (_, counted) = self.rows(&format!("SELECT count(*) FROM {STREAM}__malformed"))?;
        if counted != [[Some(malformed.to_string())]] {
            let text = format!("{counted:?} malformed lines instead of {malformed}");
            return Err(Failure::new(Property::Rows, None, text));
        }
        Ok(())
    }

    /// All that a view shows.
    fn check(&mut self, view: usize) -> Result<(), Failure> {
        self.compared += 1;
        let got = format!("SELECT * FROM v{view}");
        let query = &self.scenario.views[view];
        if query.is_closed() || query.versions(STREAM, None).is_some() {
            let watermark = self.watermark()?;
            if let Some(announced) = query.announced(STREAM, watermark.as_deref()) {
                self.same(Property::Closed, Some(view), &got, &announced)?;
                return self.check_follower(view);
            }
            if let Some(versions) = query.versions(STREAM, watermark.as_deref()) {
                let sql = format!("SELECT *, _final, _revision FROM v{view}");
                self.same(Property::Versions, Some(view), &sql, &versions)?;
            }
        }
        self.same(Property::View, Some(view), &got, &self.scenario.batch(view))?;
        self.check_follower(view)
    }

    /// How far event time is.
    fn watermark(&mut self) -> Result<Option<String>, Failure> {
        let sql =
            format!("SELECT max(stream_watermark) AS watermark FROM logweir.watermarks WHERE stream = '{STREAM}'");
        let (_, rows) = self.rows(&sql)?;
        Ok(rows.into_iter().next().and_then(|row| row.into_iter().next()).flatten())
    }

    /// Some of the views are also read in part.
    fn check_narrow(&mut self, view: usize) -> Result<(), Failure> {
        let (Some(column), Some((from, to))) = (self.scenario.views[view].start_column(), self.middle) else {
            return Ok(());
        };
        let part = format!("{column} >= '{}' AND {column} < '{}'", rfc3339(from), rfc3339(to));
        let batch = format!("SELECT * FROM ({}) AS x WHERE {part}", self.scenario.batch(view));
        self.same(Property::Narrow, Some(view), &format!("SELECT * FROM v{view} WHERE {part}"), &batch)
    }

    fn check_cut(&mut self, view: usize) -> Result<(), Failure> {
        if self.scenario.twin(view).is_none() {
            return Ok(());
        }
        self.compared += 1;
        self.same(Property::Cut, Some(view), &format!("SELECT * FROM u{view}"), &format!("SELECT * FROM v{view}"))
    }

    fn check_model(&mut self) -> Result<(), Failure> {
        let Some(window) = self.scenario.model.as_ref().filter(|_| self.engine.writes_cells()) else { return Ok(()) };
        // A key tells no end.
        let bounds = window.key().map_or("window_start, window_end".to_string(), |start| format!("{start}, {start}"));
        let sql = format!("SELECT {bounds}, count(*) FROM {} GROUP BY 1, 2", window.over(STREAM));
        let (_, got) = self.rows(&sql)?;
        let time = |line: &Line| if let Line::Row { time, .. } = line { Some(*time) } else { None };
        let times: Vec<Micros> = self.scenario.lines().filter_map(time).collect();
        let row = |((start, end), count): ((Micros, Micros), u64)| -> Row {
            vec![Some(rfc3339(start)), Some(rfc3339(end)), Some(count.to_string())]
        };
        let wanted = window_counts(window, &times).into_iter().map(row).collect();
        match difference(got, wanted, &[Tolerance::None]) {
            Some(text) => Err(Failure::new(Property::Model, None, format!("{text}in: {sql}"))),
            None => Ok(()),
        }
    }

    /// Two queries give the same rows under the same names.
    fn same(&mut self, property: Property, view: Option<usize>, got: &str, wanted: &str) -> Result<(), Failure> {
        let about = |failure: Failure| Failure { view, ..failure };
        let (names, left) = self.rows(got).map_err(about)?;
        let (wanted_names, right) = self.rows(wanted).map_err(about)?;
        let tolerances: Vec<Tolerance> = names.iter().map(|name| tolerance(name, self.spread)).collect();
        let text = match names == wanted_names {
            true => difference(left, right, &tolerances),
            false => Some(format!("columns {names:?} instead of {wanted_names:?}\n")),
        };
        match text {
            None => Ok(()),
            Some(text) => Err(Failure {
                property,
                view,
                text: format!("{text}got from:    {got}\nwanted from: {wanted}"),
                queries: Some((got.to_string(), wanted.to_string())),
            }),
        }
    }
}

/// Names of the columns and the rows of an answer.
fn rows(answer: &Answer) -> (Vec<String>, Vec<Row>) {
    let names = answer.schema.fields().iter().map(|f| f.name().clone()).collect();
    (names, cells(&answer.batches))
}

/// The values of batches as text.
pub fn cells(batches: &[RecordBatch]) -> Vec<Row> {
    let options = FormatOptions::default();
    let mut rows = Vec::new();
    for batch in batches {
        let formatters: Vec<_> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options).expect("results can be shown"))
            .collect();
        for row in 0..batch.num_rows() {
            let columns = batch.columns().iter().zip(&formatters);
            rows.push(columns.map(|(column, formatter)| cell(column, row, formatter)).collect());
        }
    }
    rows
}

/// A value as text: the same text for the same value, whatever made it.
fn cell(column: &dyn Array, row: usize, formatter: &ArrayFormatter<'_>) -> Option<String> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        // Zero has no sign here.
        DataType::Float64 => {
            let values = column.as_any().downcast_ref::<Float64Array>().expect("its type says so");
            format!("{:?}", values.value(row) + 0.0)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            rfc3339(column.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        _ => formatter.value(row).to_string(),
    })
}

/// The first instant of the day, week or month that holds a time. In these zones no clock is put forward at midnight.
fn start_in_zone(time: Micros, unit: &str, zone: Tz) -> Micros {
    let utc = chrono::DateTime::from_timestamp_micros(time).expect("test times are ordinary");
    let day = utc.with_timezone(&zone).date_naive();
    let first = match unit {
        "day" => day,
        "week" => day - chrono::Days::new(u64::from(day.weekday().num_days_from_monday())),
        _ => day.with_day(1).expect("every month has a first day"),
    };
    let midnight = first.and_time(chrono::NaiveTime::MIN).and_local_timezone(zone).earliest();
    midnight.expect("there is a midnight").timestamp_micros()
}

/// How many of these rows are in each window, said as plainly as possible.
fn window_counts(window: &Window, times: &[Micros]) -> BTreeMap<(Micros, Micros), u64> {
    let mut counts = BTreeMap::new();
    let mut add = |start: Micros, end: Micros| *counts.entry((start, end)).or_insert(0) += 1;
    let floor = |time: Micros, width: Micros, offset: Micros| (time - offset).div_euclid(width) * width + offset;
    match *window {
        Window::None | Window::Key(_) => {}
        Window::Zone { unit, zone } => {
            let zone: Tz = zone.parse().expect("a time zone");
            for time in times {
                let start = start_in_zone(*time, unit, zone);
                add(start, start);
            }
        }
        Window::Tumble { size, offset } => {
            for time in times {
                let start = floor(*time, size * 1000, offset * 1000);
                add(start, start + size * 1000);
            }
        }
        Window::Hop { slide, size, offset } => {
            for time in times {
                let mut start = floor(*time, slide * 1000, offset * 1000);
                while start + size * 1000 > *time {
                    add(start, start + size * 1000);
                    start -= slide * 1000;
                }
            }
        }
        Window::Cumulate { step, size, offset } => {
            for time in times {
                let start = floor(*time, size * 1000, offset * 1000);
                let mut end = start + size * 1000;
                while end > *time {
                    add(start, end);
                    end -= step * 1000;
                }
            }
        }
        Window::Session { gap, .. } => {
            // A row whose gap ends where the next one comes begins another session.
            let mut times = times.to_vec();
            times.sort_unstable();
            let mut rest = times.as_slice();
            while let Some(start) = rest.first() {
                let apart = rest.windows(2).position(|pair| pair[1] - pair[0] >= gap * 1000);
                let count = apart.map_or(rest.len(), |at| at + 1);
                counts.insert((*start, rest[count - 1] + gap * 1000), count as u64);
                rest = &rest[count..];
            }
        }
    }
    counts
}
