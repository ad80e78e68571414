//! Diagnostic log of IBM Db2 (`db2diag.log`). Format `db2diag`.
//!
//!     2023-06-09-20.26.08.204400-420 I367560E454           LEVEL: Info
//!     PID     : 255662               TID : 139733690738432 PROC : db2sysc 0
//!     INSTANCE: v11580               NODE : 000            DB   : HADRDB
//!     FUNCTION: DB2 UDB, High Availability Disaster Recovery, hdrPriTkHandleInitialRequest, probe:56040
//!     MESSAGE : Primary has started non-forced takeover request.
//!     DATA #1 : String, 22 bytes
//!     /usr/sbin/crm_resource
//!
//! (IBM, "Interpreting diagnostic log file entries".) A record is a header of labelled fields, several to a line, and behind
//! FUNCTION sections of any length: the message, the return code, data, a call stack. The number behind the time is the zone
//! in minutes. A section whose label is an event (START, CHANGE) is the message of an event record. What has no column of
//! its own, unknown labels included, stands in `data` as it was written, so nothing of a record is lost.

mod record;

use arrow::datatypes::{Field as ArrowField, SchemaRef};

use self::record::{HEADER, Record};
use super::column::{Block, Span};
use super::declared::Chosen;
use super::rows::Rows;
use super::typed::{Kind, Scalar};
use super::{Declared, Format, Malformed, Parsed, Spec};
use crate::error::Result;
use crate::frame::Frames;
use crate::options::Options;
use crate::time::Micros;

pub static SPEC: Spec = Spec {
    name: "db2diag",
    aliases: &["db2"],
    summary: "Diagnostic log of IBM Db2, whose records go over several lines",
    columns: &[
        ("ts", "timestamptz"),
        ("record_id", "text"),
        ("level", "text"),
        ("pid", "bigint"),
        ("tid", "bigint"),
        ("proc", "text"),
        ("instance", "text"),
        ("node", "bigint"),
        ("db", "text"),
        ("apphdl", "text"),
        ("appid", "text"),
        ("uowid", "text"),
        ("actid", "text"),
        ("authid", "text"),
        ("hostname", "text"),
        ("edu_id", "bigint"),
        ("edu_name", "text"),
        ("component", "text"),
        ("function", "text"),
        ("probe", "bigint"),
        ("event", "text"),
        ("message", "text"),
        ("retcode", "text"),
        ("callstack", "text"),
        ("data", "text"),
    ],
    options: &[],
    sample: concat!(
        "2026-06-09-20.26.08.204400-420 I367560E454           LEVEL: Info\n",
        "PID     : 255662               TID : 139733690738432 PROC : db2sysc 0\n",
        "INSTANCE: db2inst1             NODE : 000            DB   : SHOP\n",
        "HOSTNAME: db1.example.org\n",
        "FUNCTION: DB2 UDB, base sys utilities, sqleReleaseStStLockFile, probe:16242\n",
        "MESSAGE : Released lock on the file:\n",
        "DATA #1 : String, 21 bytes\n",
        "/database/db2stst.lck\n",
        "\n",
        "2026-06-09-20.26.09.000001+120 E368015E479           LEVEL: Event\n",
        "PID     : 255662               TID : 139733749458688 PROC : db2sysc 0\n",
        "FUNCTION: DB2 UDB, base sys utilities, sqeDBMgr::StartUsingLocalDatabase, probe:13\n",
        "START   : Received TAKEOVER HADR command.\n",
    ),
    sample_options: &[],
    build,
    detectable: true,
};

/// Where the columns stand that are no fields of the header.
const TS: usize = 0;
const RECORD_ID: usize = 1;
const LEVEL: usize = 2;
/// The first of [`HEADER`]; then those of FUNCTION, then the sections.
const FIRST: usize = 3;
const COMPONENT: usize = FIRST + HEADER.len();
const EVENT: usize = COMPONENT + 3;

/// Parses records of the diagnostic log.
struct Db2diag {
    chosen: Chosen,
}

fn kinds() -> impl Iterator<Item = (&'static str, Kind)> {
    SPEC.columns.iter().map(|&(name, sql_type)| {
        let kind = match sql_type {
            "timestamptz" => Kind::Time,
            "bigint" => Kind::Int,
            _ => Kind::Text,
        };
        (name, kind)
    })
}

fn build(_: &Options, declared: &[Declared]) -> Result<Box<dyn Format>> {
    let own = kinds().map(|(name, kind)| ArrowField::new(name, kind.data_type(), true)).collect();
    Ok(Box::new(Db2diag { chosen: Chosen::new(own, declared)? }))
}

impl Format for Db2diag {
    fn schema(&self) -> SchemaRef {
        self.chosen.schema.clone()
    }

    fn time_column(&self) -> Option<String> {
        self.chosen.time_column("ts")
    }

    fn record_start(&self) -> Option<String> {
        Some(r"^\d{4}-\d\d-\d\d-\d\d\.\d\d\.\d\d\.\d{6}[+-]\d".to_string())
    }

    fn parse(&self, frames: &Frames, _: Micros) -> Parsed {
        let block = Block::new(frames);
        let mut rows = Rows::new(&block, kinds().map(|(_, kind)| kind), frames.len());
        let mut malformed = Vec::new();
        for (i, text) in frames.iter().enumerate() {
            match record::parse(text) {
                Ok(record) => push(&mut rows, &block, text, frames.range(i).start, &record),
                Err(reason) => malformed.push(Malformed { frame: i as u32, reason: reason.into() }),
            }
        }
        Parsed { rows: rows.finish(&self.chosen), malformed }
    }
}

/// Adds the row of a record whose `text` lies at `base` in the block.
fn push(rows: &mut Rows<'_>, block: &Block<'_>, text: &[u8], base: usize, record: &Record<'_>) {
    let span = |part: &[u8]| {
        let start = base + (part.as_ptr() as usize - text.as_ptr() as usize);
        Span::new(start, start + part.len())
    };
    let mut set = |column: usize, part: Option<&[u8]>| match part {
        Some(part) if kind_of(column) == Kind::Int => {
            if let Some(number) = std::str::from_utf8(part).ok().and_then(|digits| digits.parse().ok()) {
                rows.value(column, Scalar::Int(number));
            }
        }
        Some(part) => rows.text(column, span(part)),
        None => {}
    };
    set(RECORD_ID, Some(record.id));
    set(LEVEL, record.level);
    for (i, value) in record.header.iter().enumerate() {
        set(FIRST + i, *value);
    }
    let function = [record.component, record.function, record.probe];
    let sections = [record.event, record.message, record.retcode, record.callstack];
    for (i, value) in function.into_iter().chain(sections).enumerate() {
        set(COMPONENT + i, value);
    }
    let data = EVENT + sections.len();
    match record.data.as_slice() {
        [] => {}
        [section] => set(data, Some(*section)),
        // Mostly they follow each other, and are one piece of the text.
        sections if are_adjacent(sections) => {
            let (first, last) = (span(sections[0]), span(sections[sections.len() - 1]));
            rows.text(data, Span { start: first.start, end: last.end });
        }
        sections => {
            let texts: Vec<_> = sections.iter().map(|section| block.text(span(section))).collect();
            rows.own(data, &texts.join("\n"));
        }
    }
    rows.value(TS, Scalar::Time(record.ts));
    rows.end_row();
}

fn kind_of(column: usize) -> Kind {
    if SPEC.columns[column].1 == "bigint" { Kind::Int } else { Kind::Text }
}

/// Whether only a line's end lies between any two.
fn are_adjacent(sections: &[&[u8]]) -> bool {
    sections.windows(2).all(|pair| {
        let gap = (pair[1].as_ptr() as usize).saturating_sub(pair[0].as_ptr() as usize + pair[0].len());
        (1..=2).contains(&gap)
    })
}

#[cfg(test)]
mod tests {
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

    use super::*;
    use crate::format::real_log;
    use crate::format::timestamp::{Zone, rfc3339};

    /// The rows of a log, `column=value` without NULLs.
    fn rows(log: impl Into<Vec<u8>>) -> Vec<Vec<String>> {
        let format = crate::format::build("db2diag", &[], &[]).unwrap();
        let frames = crate::format::joined(&*format, &Frames::from_text(log));
        let parsed = format.parse(&frames, 0);
        assert_eq!(parsed.malformed, []);
        let schema = parsed.rows.schema();
        let cell = |row: usize, column: usize| -> Option<String> {
            let array = parsed.rows.column(column);
            let text = || array.as_string_view_opt().map(|c| c.value(row).to_string());
            let int = || array.as_primitive_opt::<Int64Type>().map(|c| c.value(row).to_string());
            let time = || array.as_primitive_opt::<TimestampMicrosecondType>().map(|c| c.value(row).to_string());
            let value = text().or_else(int).or_else(time)?;
            array.is_valid(row).then(|| format!("{}={value}", schema.field(column).name()))
        };
        (0..parsed.rows.num_rows()).map(|r| (0..schema.fields().len()).filter_map(|c| cell(r, c)).collect()).collect()
    }

    #[test]
    fn columns_are_where_they_are_said_to_be() {
        let names: Vec<&str> = SPEC.columns.iter().map(|(name, _)| *name).collect();
        let header: Vec<&str> = HEADER.iter().map(|(_, column)| *column).collect();
        assert_eq!(names[..FIRST], ["ts", "record_id", "level"]);
        assert_eq!(names[FIRST..COMPONENT], header);
        assert_eq!(names[COMPONENT..EVENT], ["component", "function", "probe"]);
        assert_eq!(names[EVENT..], ["event", "message", "retcode", "callstack", "data"]);
    }

    #[test]
    fn hadr_log() {
        let Some(log) = real_log("multiline/hadr_pcmk1_2023.db2diag.log") else { return };
        let rows = rows(log);
        assert_eq!(rows.len(), 10);
        let ts = rfc3339(b"2023-06-10T03:26:08.2044Z", Zone::UTC).unwrap();
        let first = format!(
            "ts={ts}|record_id=I367560E454|level=Info|pid=255662|tid=139733690738432|proc=db2sysc 0|instance=v11580|node=0|\
             db=HADRDB|hostname=pcmk1.fyre.ibm.com|edu_id=128|edu_name=db2hadrp.0.1 (HADRDB) 0|\
             component=DB2 UDB, High Availability Disaster Recovery|function=hdrPriTkHandleInitialRequest|probe=56040|\
             message=Primary has started non-forced takeover request."
        );
        assert_eq!(rows[0].join("|"), first);
        let fourth = rows[3].join("|");
        for part in [
            "|apphdl=0-24715|appid=*LOCAL.v11580.230610033239|authid=V11580|hostname=pcmk1.fyre.ibm.com|",
            "|function=sqeDBMgr::StartUsingLocalDatabase|probe=13|event=START|message=Received TAKEOVER HADR command.",
        ] {
            assert!(fourth.contains(part), "{fourth}");
        }
        let ninth = rows[8].join("|");
        assert!(ninth.contains("|callstack=(Static functions may not be") && ninth.contains("clone + 0x43"), "{ninth}");
        assert!(ninth.contains("|data=DATA #1 : String, 22 bytes\nHADR Resource enabled.\nDATA #2 "), "{ninth}");
        assert!(ninth.ends_with("DATA #7 : unsigned integer, 8 bytes\n21"), "{ninth}");
    }

    #[test]
    fn lab_log() {
        let Some(log) = real_log("multiline/db2inst1_lab_2025.db2diag.log") else { return };
        let rows = rows(log);
        assert_eq!(rows.len(), 5);
        let last = rows[4].join("|").replace('\r', ""); // its lines end with both
        assert!(last.contains("|db=SAMPLE|appid=*LOCAL.db2inst1.250901040046|"), "{last}");
        let retcode = "|retcode=ZRC=0x8005006D=-2147155859=SQLE_CA_BUILT\n          \"SQLCA has been built and saved in component specific control block.\"";
        assert!(last.ends_with(retcode), "{last}");
        // Every word of the log is in some column of its record.
        assert!(rows[2].join("|").contains("sqlwarn : (1)      (2)"));
    }
}
