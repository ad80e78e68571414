//! What alerts and reports must not forget: states of instances, what happened, what is to be told and was told, silences,
//! how far schedules were followed.
//!
//! ```text
//!     <data_dir>/alerts/journal.jsonl    an entry a line: its CRC-32 in 8 hexadecimal digits, a blank, its JSON
//! ```
//!
//! A line counts when its checksum is right. Each says what is so from then on, so reading them in order gives what is so
//! now; what a kill cut off is written over, and a damaged line costs what it said and no more. A journal that has become
//! several times as large as what it says is written anew, by rename. Those who write at the same time share one sync.
//!
//! What is kept is bounded: instances per alert ([`super::track::MOST_INSTANCES`]), the last [`MOST_EVENTS`] changes, the
//! last [`MOST_DONE`] notes that were sent, and notes that wait: of each group of an alert at most one that was tried before
//! and one that was not, as the latter takes all that comes for its group; of a report [`super::outbox::MOST_REPORTS`] for
//! each that gets it.
//!
//! A disk that is full or broken must not keep alerts from telling: what cannot be written is sent all the same, and the
//! journal is written anew once the disk takes it.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::rule::Moment;
use super::track::{Kept, Key};
use crate::error::{Error, Kind, Result};
use crate::notify::report::Report;
use crate::notify::{Alert, Content, Item, Message};
use crate::storage::fs::{File, Fs, read, write_atomic_private};
use crate::time::Micros;

const NAME: &str = "journal.jsonl";

/// Changes of state that are kept.
pub const MOST_EVENTS: usize = 10_000;

/// Notes that were sent and are kept.
pub const MOST_DONE: usize = 2_000;

/// Instances that one note tells of in full; of others it tells how many they are.
pub const MOST_ITEMS: usize = 200;

/// A journal is written anew when it is this many times as large as its content, and larger than [`SMALL`].
const GROWTH: u64 = 4;
const SMALL: u64 = 1 << 20;

/// A change of state, as it is remembered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub alert: String,
    pub key: Vec<(String, Option<String>)>,
    pub from: String,
    pub to: String,
    pub at: Moment,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub row: Map<String, Value>,
}

/// Something to be told to one notifier.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// The same however often it is sent.
    pub id: String,
    /// Notes are sent in this order.
    pub number: u64,
    /// The object's id of the alert or report, and its name.
    pub alert: u32,
    pub name: String,
    pub severity: String,
    pub notifier: String,
    /// What its items have in common, as text.
    pub group: String,
    pub made: Micros,
    /// It is not sent before.
    pub due: Micros,
    pub items: Vec<Item>,
    /// Items that were left out.
    #[serde(default)]
    pub omitted: u64,
    /// What it says, if it is no alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<Box<Report>>,
    /// What it said, once that is no longer needed in full.
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub tries: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// When it came to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done: Option<Done>,
    /// It was sent, or may have been by a process before this one: it says what it says.
    #[serde(skip, default = "yes")]
    pub frozen: bool,
    /// What was written with it: it is sent when that is durable.
    #[serde(skip)]
    pub ticket: u64,
}

fn yes() -> bool {
    true
}

impl Note {
    /// What is sent.
    pub fn message(&self) -> Message {
        let content = match &self.report {
            Some(report) => Content::Report(Report::clone(report)),
            None => Content::Alert(Alert {
                name: self.name.clone(),
                severity: self.severity.clone(),
                group: self.group.clone(),
                items: self.items.clone(),
                omitted: self.omitted,
                series: None,
            }),
        };
        Message { id: self.id.clone(), made: self.made, content }
    }
}

/// How a note came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub at: Micros,
    /// The other side has taken it; else it has refused it for good.
    pub taken: bool,
}

/// Instances of an alert that are not told of for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Silence {
    pub id: u64,
    pub alert: u32,
    /// Columns and labels, and what they have to be.
    pub matching: Vec<(String, String)>,
    pub until: Micros,
}

/// How far the relation of an alert was followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Of rows: everything before this offset was seen.
    pub offset: u64,
    /// Of windows: those that end until then have closed.
    pub closed_to: Micros,
}

/// An alert that cannot be evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    pub reason: String,
    pub since: Micros,
}

/// How far a report has followed its schedule.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reported {
    /// The last moment of the schedule that was seen to.
    pub due: Micros,
    /// It was seen to late, and how many moments before it were left out.
    #[serde(default)]
    pub late: bool,
    #[serde(default)]
    pub missed: u64,
    /// When somebody was last sent one.
    #[serde(default)]
    pub sent: Option<Micros>,
    /// What went wrong when it was made last.
    #[serde(default)]
    pub error: Option<String>,
}

/// One line of the journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Entry {
    Instance {
        alert: u32,
        key: Key,
        kept: Box<Kept>,
    },
    Gone {
        alert: u32,
        key: Key,
    },
    Place {
        alert: u32,
        place: Place,
    },
    Problem {
        alert: u32,
        problem: Option<Problem>,
    },
    Event {
        event: Box<Event>,
    },
    Note {
        note: Box<Note>,
    },
    Silence {
        silence: Silence,
    },
    Unsilence {
        id: u64,
    },
    /// The alert or report was dropped.
    Forget {
        alert: u32,
    },
    /// A report was made: with what is to be sent of it, as a kill in between must neither lose it nor have it made again.
    Report {
        report: u32,
        reported: Reported,
        notes: Vec<Note>,
    },
}

/// What is remembered of one alert.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    pub instances: BTreeMap<Key, Kept>,
    pub place: Option<Place>,
    pub problem: Option<Problem>,
}

/// All that is so now.
#[derive(Debug, Default)]
pub struct Book {
    pub alerts: BTreeMap<u32, Remembered>,
    pub reports: BTreeMap<u32, Reported>,
    pub events: VecDeque<Event>,
    /// By their numbers: those that wait, and the last that do not.
    pub notes: BTreeMap<u64, Note>,
    pub silences: Vec<Silence>,
    done: usize,
    next: u64,
}

impl Book {
    /// The number of a new note or silence.
    pub fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn apply(&mut self, entry: Entry) {
        match entry {
            Entry::Instance { alert, key, kept } => {
                self.alerts.entry(alert).or_default().instances.insert(key, *kept);
            }
            Entry::Gone { alert, key } => {
                self.alerts.entry(alert).or_default().instances.remove(&key);
            }
            Entry::Place { alert, place } => self.alerts.entry(alert).or_default().place = Some(place),
            Entry::Problem { alert, problem } => self.alerts.entry(alert).or_default().problem = problem,
            Entry::Event { event } => {
                self.events.push_back(*event);
                if self.events.len() > MOST_EVENTS {
                    self.events.pop_front();
                }
            }
            Entry::Note { note } => self.put(*note),
            Entry::Silence { silence } => {
                self.next = self.next.max(silence.id);
                self.silences.retain(|other| other.id != silence.id);
                self.silences.push(silence);
            }
            Entry::Unsilence { id } => self.silences.retain(|silence| silence.id != id),
            Entry::Forget { alert } => {
                self.alerts.remove(&alert);
                self.reports.remove(&alert);
                self.silences.retain(|silence| silence.alert != alert);
                // What waits to be told of it is told: it happened.
            }
            Entry::Report { report, reported, notes } => {
                self.reports.insert(report, reported);
                notes.into_iter().for_each(|note| self.put(note));
            }
        }
    }

    /// Puts a note in its place, new or changed.
    pub fn put(&mut self, note: Note) {
        self.next = self.next.max(note.number);
        let is_done = note.done.is_some();
        if let (Some(Done { at, taken: true }), Some(reported)) = (note.done, self.reports.get_mut(&note.alert)) {
            reported.sent = reported.sent.max(Some(at));
        }
        let was_done = self.notes.insert(note.number, note).is_some_and(|before| before.done.is_some());
        self.done += usize::from(is_done && !was_done);
        if self.done > MOST_DONE {
            let oldest = self.notes.iter().find(|(_, note)| note.done.is_some()).map(|(number, _)| *number);
            if let Some(number) = oldest {
                self.notes.remove(&number);
                self.done -= 1;
            }
        }
    }

    /// All that is so as entries.
    fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (&alert, remembered) in &self.alerts {
            let instances = remembered.instances.iter();
            entries.extend(instances.map(|(key, kept)| Entry::Instance {
                alert,
                key: key.clone(),
                kept: Box::new(kept.clone()),
            }));
            entries.extend(remembered.place.map(|place| Entry::Place { alert, place }));
            let problem = remembered.problem.clone();
            entries.extend(problem.map(|problem| Entry::Problem { alert, problem: Some(problem) }));
        }
        let report = |(&report, reported): (&u32, &Reported)| {
            let (reported, notes) = (reported.clone(), Vec::new());
            Entry::Report { report, reported, notes }
        };
        entries.extend(self.reports.iter().map(report));
        entries.extend(self.events.iter().map(|event| Entry::Event { event: Box::new(event.clone()) }));
        entries.extend(self.notes.values().map(|note| Entry::Note { note: Box::new(note.clone()) }));
        entries.extend(self.silences.iter().map(|silence| Entry::Silence { silence: silence.clone() }));
        entries
    }
}

/// See the file header.
pub struct Ledger {
    fs: Arc<dyn Fs>,
    folder: PathBuf,
    shared: Mutex<Shared>,
    writer: Mutex<Writer>,
    /// The last ticket whose entries are as durable as they get.
    written: AtomicU64,
    /// Changes whenever notes may be sent that could not be before.
    bell: watch::Sender<u64>,
}

/// What is so, and what of it is not written yet.
struct Shared {
    book: Book,
    queue: Vec<u8>,
    ticket: u64,
}

struct Writer {
    file: Option<Arc<dyn File>>,
    end: u64,
    /// Size when it was written anew.
    base: u64,
    failed: bool,
}

impl Ledger {
    /// Reads what there is in the folder, which is made when something is written first. Gives how many lines are damaged.
    pub fn open(fs: Arc<dyn Fs>, folder: &Path) -> Result<(Ledger, usize)> {
        let path = folder.join(NAME);
        let bytes = match read(&*fs, &path) {
            Ok(bytes) => bytes,
            Err(err) if err.kind() == Kind::UndefinedFile => Vec::new(),
            Err(err) => return Err(err),
        };
        let (mut book, mut damaged, mut end) = (Book::default(), 0, 0);
        let mut at = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            at += line.len() as u64;
            match line.strip_suffix(b"\n").and_then(parse) {
                Some(entry) => {
                    book.apply(entry);
                    end = at;
                }
                // The last one may have been cut off by a kill.
                None if at == bytes.len() as u64 => {}
                None => damaged += 1,
            }
        }
        let file = if bytes.is_empty() {
            None
        } else {
            let file = fs.open(&path).map_err(|err| Error::io("open", &path, &err))?;
            // What a kill cut off must not stand behind what is written over its beginning.
            file.truncate(end).map_err(|err| Error::io("truncate", &path, &err))?;
            Some(file)
        };
        let writer = Writer { file, end, base: end, failed: false };
        let shared = Shared { book, queue: Vec::new(), ticket: 0 };
        let ledger = Ledger {
            fs,
            folder: folder.to_path_buf(),
            shared: Mutex::new(shared),
            writer: Mutex::new(writer),
            written: AtomicU64::new(0),
            bell: watch::Sender::new(0),
        };
        Ok((ledger, damaged))
    }

    /// Looks at what is so.
    pub fn look<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.shared.lock().book)
    }

    /// Told whenever there may be something to send.
    pub fn bell(&self) -> watch::Receiver<u64> {
        self.bell.subscribe()
    }

    pub fn ring(&self) {
        self.bell.send_modify(|n| *n += 1);
    }

    /// Makes entries and lets them be written with those that come next: what they say may be forgotten by a kill.
    pub fn mention(&self, make: impl FnOnce(&mut Book) -> Vec<Entry>) -> Result<()> {
        let mut shared = self.shared.lock();
        let entries = make(&mut shared.book);
        let mut lines = Vec::new();
        for entry in &entries {
            line(entry, &mut lines)?;
        }
        entries.into_iter().for_each(|entry| shared.book.apply(entry));
        shared.queue.append(&mut lines);
        Ok(())
    }

    /// Writes what was mentioned. Blocks.
    pub fn flush(&self) -> Result<()> {
        let mut writer = self.writer.lock();
        let (lines, upto) = {
            let mut shared = self.shared.lock();
            (std::mem::take(&mut shared.queue), shared.ticket)
        };
        if lines.is_empty() {
            return Ok(());
        }
        let written = self.write(&mut writer, &lines);
        writer.failed = written.is_err();
        self.written.store(upto, Ordering::Release);
        written
    }

    /// Makes entries, of what is so, and writes them down; returns when they are durable. Blocks.
    pub fn record(&self, make: impl FnOnce(&mut Book) -> Vec<Entry>) -> Result<()> {
        let ticket = {
            let mut shared = self.shared.lock();
            let mut entries = make(&mut shared.book);
            if entries.is_empty() {
                return Ok(());
            }
            let ticket = shared.ticket + 1;
            for entry in &mut entries {
                match entry {
                    Entry::Note { note } => note.ticket = ticket,
                    Entry::Report { notes, .. } => notes.iter_mut().for_each(|note| note.ticket = ticket),
                    Entry::Instance { .. }
                    | Entry::Gone { .. }
                    | Entry::Place { .. }
                    | Entry::Problem { .. }
                    | Entry::Event { .. }
                    | Entry::Silence { .. }
                    | Entry::Unsilence { .. }
                    | Entry::Forget { .. } => {}
                }
            }
            let mut lines = Vec::new();
            for entry in &entries {
                line(entry, &mut lines)?;
            }
            entries.into_iter().for_each(|entry| shared.book.apply(entry));
            shared.queue.append(&mut lines);
            shared.ticket = ticket;
            ticket
        };
        let mut writer = self.writer.lock();
        if self.written.load(Ordering::Acquire) >= ticket {
            return Ok(());
        }
        let (lines, upto) = {
            let mut shared = self.shared.lock();
            (std::mem::take(&mut shared.queue), shared.ticket)
        };
        let written = self.write(&mut writer, &lines);
        writer.failed = written.is_err();
        // Notes that a failing disk does not take are sent all the same.
        self.written.store(upto, Ordering::Release);
        drop(writer);
        self.ring();
        written
    }

    fn write(&self, writer: &mut Writer, lines: &[u8]) -> Result<()> {
        let path = self.folder.join(NAME);
        let large = writer.end > SMALL.max(writer.base.saturating_mul(GROWTH));
        if let Some(file) = writer.file.as_ref().filter(|_| !writer.failed && !large) {
            let written = file.write_all_at(lines, writer.end).and_then(|()| file.sync_data());
            written.map_err(|err| Error::io("write", &path, &err))?;
            writer.end += lines.len() as u64;
            return Ok(());
        }
        // All of it anew; what is in the book is what the lines say, and more.
        let mut bytes = Vec::new();
        let entries = self.look(Book::entries);
        for entry in &entries {
            line(entry, &mut bytes)?;
        }
        self.fs.create_dir_all(&self.folder).map_err(|err| Error::io("create", &self.folder, &err))?;
        write_atomic_private(&*self.fs, &path, &bytes)?;
        let file = self.fs.open(&path).map_err(|err| Error::io("open", &path, &err))?;
        (writer.file, writer.end, writer.base) = (Some(file), bytes.len() as u64, bytes.len() as u64);
        Ok(())
    }

    /// Whether what a note tells of is written, or cannot be: then it may be sent.
    pub fn is_written(&self, note: &Note) -> bool {
        self.written.load(Ordering::Acquire) >= note.ticket
    }
}

fn line(entry: &Entry, into: &mut Vec<u8>) -> Result<()> {
    let json = serde_json::to_string(entry).map_err(|err| Error::internal(err.to_string()))?;
    into.extend_from_slice(format!("{:08x} {json}\n", crc32fast::hash(json.as_bytes())).as_bytes());
    Ok(())
}

fn parse(line: &[u8]) -> Option<Entry> {
    let (checksum, json) = line.split_at_checked(9)?;
    let expected = format!("{:08x} ", crc32fast::hash(json));
    (checksum == expected.as_bytes()).then(|| serde_json::from_slice(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::faulty_fs::FaultyFs;

    fn note(number: u64) -> Note {
        Note {
            id: format!("{number:016x}"),
            number,
            alert: 1,
            name: "a".into(),
            severity: "warning".into(),
            notifier: "n".into(),
            group: String::new(),
            made: 5,
            due: 5,
            items: Vec::new(),
            omitted: 0,
            report: None,
            tries: 0,
            last_error: None,
            done: None,
            title: String::new(),
            frozen: false,
            ticket: 0,
        }
    }

    fn open(fs: &FaultyFs) -> (Ledger, usize) {
        Ledger::open(Arc::new(fs.clone()), Path::new("/data/alerts")).unwrap()
    }

    fn put(ledger: &Ledger, note: Note) {
        ledger.record(|_| vec![Entry::Note { note: Box::new(note) }]).unwrap();
    }

    fn waiting(ledger: &Ledger) -> Vec<u64> {
        ledger.look(|book| book.notes.values().filter(|n| n.done.is_none()).map(|n| n.number).collect())
    }

    #[test]
    fn what_is_recorded_is_read_again_and_a_cut_or_damaged_line_costs_itself() {
        let fs = FaultyFs::new(1);
        fs.create_dir_all(Path::new("/data")).unwrap();
        let (ledger, damaged) = open(&fs);
        assert_eq!(damaged, 0);
        (1..=3).for_each(|number| put(&ledger, note(number)));
        let done = Some(Done { at: 7, taken: true });
        put(&ledger, Note { done, ..note(2) });
        assert_eq!(waiting(&open(&fs).0), [1, 3]);
        let path = Path::new("/data/alerts").join(NAME);
        let good = read(&fs, &path).unwrap();
        let second = good.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let mut bad = good.clone();
        bad[second + 20] ^= 1;
        crate::storage::fs::write_atomic(&fs, &path, &bad).unwrap();
        let (ledger, damaged) = open(&fs);
        assert_eq!((waiting(&ledger), damaged), (vec![1, 3], 1), "what was done with it stands in the last line");
        crate::storage::fs::write_atomic(&fs, &path, &good[..good.len() - 3]).unwrap();
        let (ledger, damaged) = open(&fs);
        assert_eq!((waiting(&ledger), damaged), (vec![1, 2, 3], 0));
        put(&ledger, note(4));
        assert_eq!((waiting(&open(&fs).0), open(&fs).1), (vec![1, 2, 3, 4], 0));
        let next = open(&fs).0.shared.lock().book.number();
        assert_eq!(next, 5, "numbers are not used again");
    }

    #[test]
    fn a_report_and_what_is_sent_of_it_are_one_line() {
        let fs = FaultyFs::new(1);
        fs.create_dir_all(Path::new("/data")).unwrap();
        let (ledger, _) = open(&fs);
        let report = |due: Micros, notes: Vec<Note>| {
            let reported = Reported { due, ..Reported::default() };
            ledger.record(|_| vec![Entry::Report { report: 1, reported, notes }]).unwrap();
        };
        report(5, Vec::new());
        report(9, vec![note(1), note(2)]);
        let of = |ledger: &Ledger| ledger.look(|book| book.reports.get(&1).map(|r| (r.due, r.sent)));
        let path = Path::new("/data/alerts").join(NAME);
        let bytes = read(&fs, &path).unwrap();
        let (again, _) = open(&fs);
        assert_eq!((of(&again), waiting(&again)), (Some((9, None)), vec![1, 2]));
        // A kill in its middle leaves neither.
        crate::storage::fs::write_atomic(&fs, &path, &bytes[..bytes.len() - 30]).unwrap();
        let (again, _) = open(&fs);
        assert_eq!((of(&again), waiting(&again)), (Some((5, None)), vec![]));
        put(&again, Note { done: Some(Done { at: 7, taken: true }), ..note(1) });
        assert_eq!(of(&open(&fs).0), Some((5, Some(7))));
        again.record(|_| vec![Entry::Forget { alert: 1 }]).unwrap();
        assert_eq!(of(&open(&fs).0), None);
    }

    #[test]
    fn a_journal_stays_small_and_what_waits_is_kept() {
        let fs = FaultyFs::new(1);
        fs.create_dir_all(Path::new("/data")).unwrap();
        let (ledger, _) = open(&fs);
        put(&ledger, note(1));
        let long = "x".repeat(1000);
        for number in 2..6000 {
            let done = Some(Done { at: 7, taken: true });
            put(&ledger, Note { done, last_error: Some(long.clone()), ..note(number) });
        }
        let size = read(&fs, &Path::new("/data/alerts").join(NAME)).unwrap().len() as u64;
        assert!(size < MOST_DONE as u64 * 1400 * (GROWTH + 1), "{size}");
        let (ledger, _) = open(&fs);
        assert_eq!(waiting(&ledger), [1]);
        assert_eq!(ledger.look(|book| book.notes.len()), MOST_DONE + 1);
    }
}
