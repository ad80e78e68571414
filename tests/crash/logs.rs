//! Three logs that grow without end, and what must come out of each: nothing but the number of a line decides what it is.
//!
//! | log | format | rotation |
//! |---|---|---|
//! | `grown` | combined | none |
//! | `renamed` | combined | renamed, and a new file begun |
//! | `copied` | JSON, columns learned | copied, then truncated |

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::lines;

/// One line in so many is none of its format.
const MALFORMED: u64 = 97;

/// One line in so many comes ten minutes late.
pub const LATE: u64 = 100;
const LATE_BY: i64 = 600;

/// Only the first lines of the JSON log have the member `early`.
pub const EARLY: u64 = 50;

/// So many lines of it have the same further member, `m0`, `m1` and so on.
pub const MEMBER: u64 = 5000;

/// From this line on its member `clash` is a text and no number.
pub const CLASH: u64 = 3000;

/// The log of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    Grown,
    Renamed,
    Copied,
}

pub const LOGS: [Log; 3] = [Log::Grown, Log::Renamed, Log::Copied];

impl Log {
    /// Its stream.
    pub fn name(self) -> &'static str {
        match self {
            Log::Grown => "grown",
            Log::Renamed => "renamed",
            Log::Copied => "copied",
        }
    }

    pub fn line(self, number: u64) -> String {
        if is_malformed(number) {
            return format!("no line of a log {number}\n");
        }
        let late = if number % LATE == LATE - 1 { LATE_BY } else { 0 };
        let seconds = lines::START + LATE_BY + number as i64 / 10 - late;
        let client = number % 23;
        if self != Log::Copied {
            let time = lines::clf(seconds);
            return format!(
                "10.0.0.{client} - - [{time}] \"GET /n/{number} HTTP/1.1\" 200 {number} \"-\" \"t/{client}\"\n"
            );
        }
        let time = chrono::DateTime::from_timestamp(seconds, 0).expect("test times are ordinary").to_rfc3339();
        let early = if number < EARLY { format!(",\"early\":{number}") } else { String::new() };
        let clash = if number < CLASH { number.to_string() } else { format!("\"text {number}\"") };
        let member = number / MEMBER;
        format!(
            "{{\"ts\":\"{time}\",\"n\":{number},\"client\":{client}{early},\"clash\":{clash},\"m{member}\":true}}\n"
        )
    }

    /// The column with the number of a line.
    pub fn number_column(self) -> &'static str {
        if self == Log::Copied { "n" } else { "bytes" }
    }

    /// Puts the file away under another name, which says how many came before it.
    fn rotate(self, path: &Path, file: &mut File, rotations: u64) {
        let old = path.with_extension(format!("log.{rotations}"));
        match self {
            Log::Grown => {}
            Log::Renamed => {
                std::fs::rename(path, old).expect("both names are in one directory");
                *file = lines::open(path);
            }
            Log::Copied => {
                std::fs::copy(path, old).expect("the test's disk has room");
                file.set_len(0).expect("it is open for writing");
            }
        }
    }
}

pub fn is_malformed(number: u64) -> bool {
    number % MALFORMED == 13
}

/// Writes the logs until told to stop.
pub struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    stop: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Somebody wants it to pause; it pauses between complete lines.
    wanted: bool,
    paused: bool,
    /// Complete lines in each of the logs.
    written: u64,
    rotations: u64,
}

impl Writer {
    /// Goes on behind the first `written` lines of each of the logs in `folder`.
    pub fn start(folder: PathBuf, seed: u64, written: u64) -> Writer {
        let state = Mutex::new(State { written, ..State::default() });
        let shared = Arc::new(Shared { stop: AtomicBool::new(false), state, changed: Condvar::new() });
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || own.write(&folder, &mut StdRng::seed_from_u64(seed)));
        Writer { shared, thread: Some(thread) }
    }

    /// Lets it pause; gives the number of lines that each log has now.
    pub fn pause(&self) -> u64 {
        let mut state = self.shared.lock();
        state.wanted = true;
        while !state.paused {
            state = self.shared.changed.wait(state).expect("no panic holds it");
        }
        state.written
    }

    pub fn go_on(&self) {
        self.shared.lock().wanted = false;
        self.shared.changed.notify_all();
    }

    pub fn rotations(&self) -> u64 {
        self.shared.lock().rotations
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.go_on();
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_some_and(|ended| ended.is_ok()), "the writer panicked");
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, folder: &Path, random: &mut StdRng) {
        let path = |log: Log| folder.join(format!("{}.log", log.name()));
        let mut files = LOGS.map(|log| lines::open(&path(log)));
        let mut rotate_at = random.random_range(1_000..12_000);
        while !self.stop.load(Ordering::SeqCst) {
            let first = self.between();
            let end = first + random.random_range(1..120);
            for (log, file) in LOGS.into_iter().zip(&mut files) {
                let text: String = (first..end).map(|number| log.line(number)).collect();
                for piece in lines::pieces(random, text.as_bytes(), 3) {
                    file.write_all(piece).expect("the test's disk has room");
                    // The pace of a busy program, not a wait for anything.
                    std::thread::sleep(Duration::from_micros(random.random_range(0..5000)));
                }
            }
            let mut state = self.lock();
            state.written = end;
            if end >= rotate_at {
                state.rotations += 1;
                for (log, file) in LOGS.into_iter().zip(&mut files) {
                    log.rotate(&path(log), file, state.rotations);
                }
                rotate_at = end + random.random_range(1_000..12_000);
            }
        }
    }

    /// Pauses if that is wanted; gives the number of the next line.
    fn between(&self) -> u64 {
        let mut state = self.lock();
        while state.wanted && !self.stop.load(Ordering::SeqCst) {
            state.paused = true;
            self.changed.notify_all();
            state = self.changed.wait(state).expect("no panic holds it");
        }
        state.paused = false;
        state.written
    }
}
