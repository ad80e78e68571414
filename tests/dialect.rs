//! Expressions and queries that a real PostgreSQL and this server answer alike: the files of `postgres/`, by the chapters of
//! PostgreSQL's manual, and what tools write.
//!
//! Each line is an expression or a query; its columns, their types, its rows as text or its error's SQLSTATE are compared. A
//! line that differs is preceded by one that begins with `! ` and says why. So the test fails for what newly differs, and
//! also for what is said to differ and does not. `#` begins a comment.
//!
//! One difference is everywhere and therefore not said each time: a whole number that is written in a query is a bigint
//! here, and one with a point a double precision. So types of whole numbers count as one, and types of other numbers; where
//! they are not both numeric, values are compared as numbers. How many lines are the same to the letter is counted too,
//! and of how many errors the position is.
//!
//! `LOGWEIR_DIALECT=FILE` writes both answers of all that differ into a file. `LOGWEIR_WRITE_DIALECT=1` brings the reasons up to
//! date: those that no longer hold go, and what newly differs gets both answers as its reason, to be put into words.

use std::fmt::Write as _;
use std::path::Path;

use crate::server::{Client, Row, Server, line};
use crate::sinks::postgres::Postgres;

/// How a line begins that is a statement; others are expressions.
const STATEMENTS: &[&str] =
    &["COPY", "DROP", "EXECUTE", "FETCH", "INSERT", "SELEC", "SELECT", "SET", "SHOW", "TABLE", "VALUES", "WITH"];

/// What a server says to a statement.
#[derive(Debug, PartialEq)]
enum Answer {
    Rows { names: Vec<String>, types: Vec<String>, rows: Vec<Row> },
    Error { code: String, position: Option<u32> },
}

/// The types that count as one with this one.
fn family(kind: &str) -> &str {
    match kind {
        "int2" | "int4" | "int8" => "int",
        "numeric" | "float4" | "float8" => "number",
        "_int2" | "_int4" | "_int8" => "_int",
        "_numeric" | "_float4" | "_float8" => "_number",
        "varchar" | "bpchar" | "name" | "unknown" => "text",
        other => other,
    }
}

/// Whether two numbers, or arrays of them, are the same but for what rounding does to them.
fn close(a: &str, b: &str) -> bool {
    let numbers = |text: &str| -> Option<Vec<f64>> {
        text.trim_matches(['{', '}']).split(',').map(|number| number.parse().ok()).collect()
    };
    let (Some(a), Some(b)) = (numbers(a), numbers(b)) else { return false };
    let near = |(a, b): (&f64, &f64)| a == b || (a - b).abs() <= 1e-12 * a.abs().max(b.abs());
    a.len() == b.len() && a.iter().zip(&b).all(near)
}

impl Answer {
    /// Whether it is the same as the other one: see the file's header.
    fn is_like(&self, other: &Answer) -> bool {
        match (self, other) {
            (Answer::Error { code, .. }, Answer::Error { code: other, .. }) => code == other,
            (Answer::Rows { names, types, rows }, Answer::Rows { names: n, types: t, rows: r }) => {
                let families = types.len() == t.len() && types.iter().zip(t).all(|(a, b)| family(a) == family(b));
                let is_number =
                    |at: usize| family(&types[at]).ends_with("number") && !(types[at] == t[at] && t[at] == "numeric");
                let value = |(at, (a, b)): (usize, (&Option<String>, &Option<String>))| match (a, b) {
                    (Some(a), Some(b)) => a == b || (is_number(at) && close(a, b)),
                    (a, b) => a == b,
                };
                let same = |(a, b): (&Row, &Row)| a.len() == b.len() && a.iter().zip(b).enumerate().all(value);
                names == n && families && rows.len() == r.len() && rows.iter().zip(r).all(same)
            }
            _ => false,
        }
    }

    fn of(client: &Client, sql: &str) -> Answer {
        // Types come from a prepared statement, values as text from a simple query.
        let answer = client.described(sql).and_then(|types| Ok((types, client.table(sql)?)));
        match answer {
            Ok((types, (names, mut rows))) => {
                if !sql.to_lowercase().contains("order by") {
                    rows.sort();
                }
                Answer::Rows { names, types, rows }
            }
            Err(failure) => Answer::Error { code: failure.code, position: failure.position },
        }
    }

    /// In one line.
    fn shown(&self) -> String {
        match self {
            Answer::Rows { names, types, rows } => {
                let columns: Vec<String> = names.iter().zip(types).map(|(name, of)| format!("{name} {of}")).collect();
                let rows: Vec<String> = rows.iter().map(line).collect();
                format!("({}) {}", columns.join(", "), rows.join(" | "))
            }
            Answer::Error { code, position } => match position {
                Some(position) => format!("{code} at {position}"),
                None => code.clone(),
            },
        }
    }
}

fn statement(text: &str) -> String {
    let word: String = text.trim_start_matches('(').chars().take_while(char::is_ascii_alphabetic).collect();
    if STATEMENTS.contains(&word.to_uppercase().as_str()) { text.to_string() } else { format!("SELECT {text}") }
}

/// The beginning of an answer.
fn short(answer: &str) -> String {
    answer.chars().take(90).collect()
}

#[derive(Default)]
struct Counts {
    lines: usize,
    alike: usize,
    to_the_letter: usize,
}

impl Counts {
    fn put(&self, name: &str, out: &mut String) {
        let Counts { lines, alike, to_the_letter } = self;
        writeln!(out, "{name:12} {lines:6} {alike:6} {to_the_letter:14}").expect("memory");
    }
}

#[test]
fn answers_are_those_of_postgres() {
    let Some(postgres) = Postgres::start() else { return };
    let mut server = Server::start();
    let (theirs, ours) = (postgres.client(), server.client());
    theirs.run("SET TimeZone = 'UTC'");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/postgres");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("it is there").map(|e| e.expect("readable").path()).collect();
    files.sort();
    let (mut wrong, mut report, mut table) = (String::new(), String::new(), String::new());
    let mut total = Counts::default();
    for file in files {
        let name = file.file_stem().expect("it has a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file).expect("it is readable");
        let (mut counts, mut reason) = (Counts::default(), None);
        let mut written = String::new();
        for (number, text) in text.lines().enumerate().map(|(i, text)| (i + 1, text)) {
            if text.is_empty() || text.starts_with('#') {
                written += &format!("{text}\n");
                continue;
            }
            if let Some(why) = text.strip_prefix("! ") {
                reason = Some(why);
                continue;
            }
            let sql = statement(text);
            let (wanted, got) = (Answer::of(&theirs, &sql), Answer::of(&ours, &sql));
            let same = wanted.is_like(&got);
            counts.lines += 1;
            counts.alike += usize::from(same);
            counts.to_the_letter += usize::from(wanted == got);
            if !same {
                let (wanted, got) = (wanted.shown(), got.shown());
                let both = || format!("PostgreSQL says {}, here it is {}", short(&wanted), short(&got));
                written += &format!("! {}\n", reason.map_or_else(both, str::to_string));
                let known = reason.unwrap_or("-");
                writeln!(report, "{name}:{number}: {text}\n  wanted {wanted}\n  got    {got}\n  {known}")
                    .expect("memory");
                if reason.is_none() {
                    writeln!(wrong, "{name}.txt:{number}: {text}\n  PostgreSQL {wanted}\n  here       {got}")
                        .expect("memory");
                }
            } else if let Some(why) = reason {
                writeln!(wrong, "{name}.txt:{number}: {text}\n  is alike now, though it says: {why}").expect("memory");
            }
            reason = None;
            written += &format!("{text}\n");
        }
        if std::env::var_os("LOGWEIR_WRITE_DIALECT").is_some() {
            std::fs::write(&file, written).expect("it can be written");
        }
        counts.put(&name, &mut table);
        total.lines += counts.lines;
        total.alike += counts.alike;
        total.to_the_letter += counts.to_the_letter;
    }
    total.put("all", &mut table);
    println!("{:12} {:>6} {:>6} {:>14}\n{table}", "", "lines", "alike", "to the letter");
    if let Some(file) = std::env::var_os("LOGWEIR_DIALECT") {
        std::fs::write(file, report).expect("it can be written");
    }
    assert!(ours.alive());
    assert!(wrong.is_empty(), "{wrong}");
}
