//! Whatever ends a server, and whenever: the next one goes on as if nothing had happened.
//!
//! | promise | how it is seen here |
//! |---|---|
//! | a line that a file holds is in its stream exactly once | each line has a number: count, distinct count and sum |
//! | rows and malformed lines together are the lines | both are counted, and each by its own numbers |
//! | what the archive has, memory has not | a row in both would be there twice |
//! | a view is its own query run as a batch | both are read and compared, as sets that may repeat rows |
//! | a view that announces windows announces each once | it is the batch over the windows closed and the rows in time |
//! | columns that were learned stay, also when the log they were learned from is gone | their values are counted |
//! | what FLUSH has acknowledged survives a power cut | on the simulated disk |
//! | a batch that is put in again under its key counts once | each batch is counted |
//! | a second restart changes nothing | the same again |
//!
//! | fault | where |
//! |---|---|
//! | `kill -9` at any moment: while it starts, runs, or stops | `kills.rs`: the real program on the real disk |
//! | the same while clients put rows in and repeat what got no answer | `pushes.rs` |
//! | the same while two sources feed one stream | `sources.rs` |
//! | the same again before it has recovered from the last one | `kills.rs`, `machine.rs` |
//! | logs that are renamed, or copied and truncated, meanwhile and while nobody reads them | `kills.rs` |
//! | power cut at any operation: what was not synced is there, in part, or not, in any order | `machine.rs` |
//! | writes that do only a part; a disk that is full for a while; syncs that fail | `machine.rs` |
//! | bits that flip in logs, checkpoints, states and the catalog | `machine.rs`: then an error that says so is allowed, and nothing wrong |
//!
//! After a flipped bit the next process may refuse to start, cut off the end of a log, or go back to the catalog before the
//! last statement that made or dropped something: it has to say so. It may never show other rows than those that were
//! written, and none twice.
//!
//! Not allowed for: files of the data directory that somebody else removes or changes; bits that flip in Delta's log, which
//! has no checksums; a log that loses lines before anybody has read them.
//!
//! `machine.rs` runs the whole engine and takes some tenths of a second for each seed; the same promises are kept by
//! storage alone over thousands of seeds in `src/engine/simulation.rs`.
//!
//! | variable | does |
//! |---|---|
//! | `LOGWEIR_KILLS=200` | so many kills instead of the ordinary number |
//! | `LOGWEIR_SEED=n` | repeats one run: its choices, not the moments at which threads come to something |
//! | `LOGWEIR_SEEDS=n` | so many seeds of the simulations |

mod kills;
mod logs;
mod machine;
mod pushes;
mod sources;

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a whole number"))
}

/// Written past the test runner's capture, so that it is seen when all is well.
fn tell(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{text}\n").as_bytes());
}

/// Says which run it was when a panic goes through.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the panic was in LOGWEIR_SEED={}", self.0);
        }
    }
}
