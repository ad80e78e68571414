//! Random tables: columns with few values so that groups meet, rows in disorder, rows far behind and far ahead, rows
//! twice, NULLs, and lines that are no rows.

use logweir::time::{MICROS_PER_SECOND, Micros};
use rand::RngExt;
use rand::rngs::StdRng;

use super::{chance, pick, some};
use crate::lines;

/// Where event time begins.
pub const START: Micros = lines::START * MICROS_PER_SECOND;
/// 2099-06-01T00:00:00Z: a clock gone wrong.
const FAR_FUTURE: Micros = 4_083_955_200 * MICROS_PER_SECOND;
/// Days before the beginning of a table's rows, for rows that come much too late; the last is before 1970.
const FAR_PAST_DAYS: &[i64] = &[1, 30, 400, 25_000];

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Bigint,
    /// Quarters, so that sums are exact in any order.
    Double,
    /// Any fraction: sums differ by rounding.
    Rough,
    Boolean,
    Time,
}

impl Kind {
    fn sql(self) -> &'static str {
        match self {
            Kind::Text => "text",
            Kind::Bigint => "bigint",
            Kind::Double | Kind::Rough => "double",
            Kind::Boolean => "boolean",
            Kind::Time => "timestamptz",
        }
    }
}

/// A column besides `ts`.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
    /// Values that rows take, the first ones more often.
    pool: Vec<Value>,
    /// NULLs in a hundred.
    nulls: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Text(String),
    Int(i64),
    Double(f64),
    Bool(bool),
    Time(Micros),
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    Row {
        time: Micros,
        /// One for each column.
        values: Vec<Value>,
    },
    /// No row in any format used here.
    Malformed(String),
}

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Json,
    /// Fields between bars, read by a regular expression; `~` is NULL.
    Bars,
}

/// How the times of a table's rows follow each other.
pub struct Pace {
    /// Rows come up to this much behind those before them.
    pub disorder: Micros,
    /// All times are multiples of this: then windows and sessions end just when rows come.
    pub grain: Micros,
}

/// What a stream's rows are.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    pub encoding: Encoding,
    pub columns: Vec<Column>,
}

impl Table {
    pub fn random(random: &mut StdRng) -> Table {
        const KINDS: &[Kind] =
            &[Kind::Text, Kind::Text, Kind::Bigint, Kind::Bigint, Kind::Double, Kind::Rough, Kind::Boolean, Kind::Time];
        let count = random.random_range(2..=6);
        let mut columns: Vec<Column> = Vec::new();
        for i in 0..count {
            // The first two make sure that there is something to group by and something to add up.
            let kind = match i {
                0 => Kind::Text,
                1 => Kind::Bigint,
                _ => *pick(random, KINDS),
            };
            let letter = match kind {
                Kind::Text => 't',
                Kind::Bigint => 'i',
                Kind::Double => 'd',
                Kind::Rough => 'r',
                Kind::Boolean => 'b',
                Kind::Time => 'z',
            };
            let size = *pick(random, &[1, 2, 3, 5, 8, 40]);
            let pool = (0..size).map(|_| value(random, kind)).collect();
            columns.push(Column { name: format!("{letter}{i}"), kind, pool, nulls: *pick(random, &[0, 0, 5, 50]) });
        }
        Table { encoding: *pick(random, &[Encoding::Json, Encoding::Bars]), columns }
    }

    pub fn of_kind(&self, kinds: &[Kind]) -> Vec<&Column> {
        self.columns.iter().filter(|c| kinds.contains(&c.kind)).collect()
    }

    /// The columns as CREATE TABLE declares them.
    pub fn declaration(&self) -> String {
        let columns = self.columns.iter().map(|c| format!(", {} {}", c.name, c.kind.sql()));
        format!("ts timestamptz{}", columns.collect::<String>())
    }

    /// `FORMAT …` with its options.
    pub fn format(&self) -> String {
        match self.encoding {
            Encoding::Json => "JSON (time_field = 'ts')".to_string(),
            Encoding::Bars => {
                let groups = self.columns.iter().map(|c| format!(r"\|(?:~|(?<{}>[^|]*))", c.name));
                format!("REGEX (pattern = '^(?<ts>[^|]+){}$')", groups.collect::<String>())
            }
        }
    }

    /// A row at about this time: in disorder, and sometimes from another age.
    pub fn row(&self, random: &mut StdRng, time: Micros, pace: &Pace) -> Line {
        let time = match random.random_range(0..200) {
            0 => time - pick(random, FAR_PAST_DAYS) * 86_400 * MICROS_PER_SECOND,
            1 => FAR_FUTURE + random.random_range(0..90) * MICROS_PER_SECOND,
            2..60 => time - random.random_range(0..=pace.disorder),
            _ => time,
        };
        let time = time - time.rem_euclid(pace.grain);
        let value = |column: &Column, random: &mut StdRng| {
            if random.random_range(0..100) < column.nulls {
                return Value::Null;
            }
            // The smaller of two places: the first values come most often.
            let place = |random: &mut StdRng| random.random_range(0..column.pool.len());
            column.pool[place(random).min(place(random))].clone()
        };
        let values = self.columns.iter().map(|column| value(column, random)).collect();
        Line::Row { time, values }
    }

    /// Some values of the first column, one of them twice, NULL, and one that never comes; each with a label.
    pub fn reference(&self, random: &mut StdRng) -> Vec<(Value, String)> {
        let known = some(random, &self.columns[0].pool, 1, 4).into_iter().cloned();
        let mut values: Vec<Value> = known.chain([Value::Null, Value::Text("nowhere".into())]).collect();
        values.push(values[0].clone());
        values.into_iter().enumerate().map(|(i, value)| (value, format!("label {}", i % 3))).collect()
    }

    pub fn malformed(&self, random: &mut StdRng) -> Line {
        let text = match self.encoding {
            Encoding::Json => *pick(random, &["no object", "{\"ts\":", "{}", "{\"ts\":\"never\"}", "", "[1]"]),
            Encoding::Bars => *pick(random, &["no row", "|", "", "never|1", "2026-01-01T00:00:00Z"]),
        };
        Line::Malformed(text.to_string())
    }

    /// A line as it stands in the log, without its end.
    pub fn text(&self, line: &Line) -> String {
        let (time, values) = match line {
            Line::Malformed(text) => return text.clone(),
            Line::Row { time, values } => (*time, values),
        };
        match self.encoding {
            Encoding::Json => {
                let mut members = vec![format!("\"ts\":\"{}\"", rfc3339(time))];
                for (column, value) in self.columns.iter().zip(values) {
                    let text = match value {
                        Value::Null if column.nulls > 5 => continue,
                        Value::Null => "null".to_string(),
                        Value::Text(text) => serde_json::to_string(text).expect("texts can be written"),
                        Value::Time(time) => format!("\"{}\"", rfc3339(*time)),
                        Value::Int(_) | Value::Double(_) | Value::Bool(_) => value.plain(),
                    };
                    members.push(format!("\"{}\":{text}", column.name));
                }
                format!("{{{}}}", members.join(","))
            }
            Encoding::Bars => {
                let fields =
                    values.iter().map(|v| if *v == Value::Null { "|~".into() } else { format!("|{}", v.plain()) });
                format!("{}{}", rfc3339(time), fields.collect::<String>())
            }
        }
    }

    /// The same table without a column, if it is not one of those that must be there.
    pub fn without(&self, column: usize) -> Table {
        let mut table = self.clone();
        table.columns.remove(column);
        table
    }
}

impl Value {
    fn plain(&self) -> String {
        match self {
            Value::Null => String::new(),
            Value::Text(text) => text.clone(),
            Value::Int(number) => number.to_string(),
            Value::Double(number) => number.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Time(time) => rfc3339(*time),
        }
    }

    /// As [`super::run::cell`] writes the value of a result.
    pub fn cell(&self) -> Option<String> {
        match self {
            Value::Null => None,
            Value::Double(number) => Some(format!("{:?}", number + 0.0)),
            Value::Text(_) | Value::Int(_) | Value::Bool(_) | Value::Time(_) => Some(self.plain()),
        }
    }
}

/// `2026-01-01T00:00:00.25Z`, with as many digits as it takes.
pub fn rfc3339(time: Micros) -> String {
    let time = chrono::DateTime::from_timestamp_micros(time).expect("test times are ordinary");
    time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)
}

fn value(random: &mut StdRng, kind: Kind) -> Value {
    const TEXTS: &[&str] = &[
        "a",
        "b",
        "A",
        "",
        "ab",
        "/a/b?x=1",
        "/a",
        "/long/path/to/a/page.html",
        "ü",
        "a b",
        "0",
        "-",
        "null",
        "x\\y",
        "it's",
        "\"q\"",
        "NaN",
        "%",
        "🦀",
        "a text of more than twelve bytes",
        "a text of more than twelve bytes too",
    ];
    match kind {
        Kind::Text => Value::Text(pick(random, TEXTS).to_string()),
        Kind::Bigint => Value::Int(match random.random_range(0..6) {
            0 => *pick(random, &[0, -1, 200, 404, 500, 503]),
            1 => random.random_range(-1_000_000_000_000..1_000_000_000_000),
            2 => random.random_range(-5..5),
            _ => random.random_range(0..100_000),
        }),
        Kind::Double => Value::Double(random.random_range(-4000..4000) as f64 / 4.0),
        Kind::Rough => Value::Double(random.random_range(-1000..100_000) as f64 / 7.0),
        Kind::Boolean => Value::Bool(chance(random, 2)),
        Kind::Time => {
            let second = random.random_range(-100_000..100_000);
            let micros = *pick(random, &[0, 0, 500_000, 1]);
            Value::Time(START + second * MICROS_PER_SECOND + micros)
        }
    }
}
