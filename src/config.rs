//! Settings of a server: flags first, then `LOGWEIR_*` variables (both through the command line's parser), then an
//! optional TOML file, then the defaults here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::error::{Error, Kind, Result};
use crate::options::parse_bytes;

/// What an engine needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The name of the database, under which clients and SQL know it.
    pub database: String,
    /// Where streams and the catalog are kept; `None`: nothing is kept (one-shot queries).
    pub data_dir: Option<PathBuf>,
    /// Memory that one server's queries may use together before they spill to disk, in bytes.
    pub query_memory: u64,
    /// The same for one query, in bytes.
    pub memory_per_query: u64,
    /// Queries that compute at one time; others wait.
    pub max_queries: usize,
    /// Bytes that queries may put on disk together.
    pub spill_limit: u64,
    /// Memory that the state of one view may take unless it says otherwise, in bytes. The rest of it goes to disk.
    pub view_memory: u64,
    /// Memory that one reference table may take, in bytes.
    pub table_memory: u64,
    /// Memory that the states of all views may take together, in bytes. The coldest go to disk.
    pub state_memory: u64,
    /// Memory that the rows which streams keep at hand may take together, in bytes; `None`: what each stream says.
    pub rows_memory: Option<u64>,
    /// Cores that one query may use.
    pub cores: usize,
    /// How often the states of views are made durable.
    pub checkpoint_interval: Duration,
    /// Bytes that the data directory may take before sources pause; `None`: what the disk has.
    pub disk_limit: Option<u64>,
    /// Bytes of lines that the streams may take in together each second; `None`: as many as come.
    pub ingest_rate: Option<u64>,
}

/// The database that is always there.
pub const MAIN_DATABASE: &str = "logweir";

/// The folder of the data directory in which the other databases are, each with a data directory of its own.
pub const DATABASES: &str = "databases";

/// What a restart reads again at most, more or less.
pub const DEFAULT_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);

/// 1 GiB: enough for large GROUP BYs, small beside the machine.
pub const DEFAULT_QUERY_MEMORY: u64 = 1 << 30;

/// Enough that a dashboard's queries do not wait for each other, few enough that each has some memory.
pub const DEFAULT_MAX_QUERIES: usize = 32;

/// 100 GiB.
pub const DEFAULT_SPILL_LIMIT: u64 = 100 << 30;

/// A query may take three quarters of what all may, unless told otherwise: one that is too large leaves room for others.
pub fn part_of_one(query_memory: u64) -> u64 {
    query_memory / 4 * 3
}

/// 2 GiB: some tens of millions of groups.
pub const DEFAULT_VIEW_MEMORY: u64 = 2 << 30;

/// 256 MiB: some millions of rows. Larger things are better joined above an aggregate.
pub const DEFAULT_TABLE_MEMORY: u64 = 256 << 20;

/// Queries, and all states together, take at most this part of the machine's memory unless told otherwise: the rest is
/// for rows in memory, what is under way, and the page cache.
const MACHINE_PART: u64 = 4;

impl Default for Config {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let part = machine_memory().map_or(u64::MAX, |bytes| bytes / MACHINE_PART);
        let query_memory = DEFAULT_QUERY_MEMORY.min(part);
        Config {
            database: MAIN_DATABASE.to_string(),
            data_dir: None,
            query_memory,
            memory_per_query: part_of_one(query_memory),
            max_queries: DEFAULT_MAX_QUERIES,
            spill_limit: DEFAULT_SPILL_LIMIT,
            view_memory: DEFAULT_VIEW_MEMORY,
            table_memory: DEFAULT_TABLE_MEMORY,
            // Not known: as much as one view.
            state_memory: if part == u64::MAX { DEFAULT_VIEW_MEMORY } else { part },
            rows_memory: None,
            cores,
            checkpoint_interval: DEFAULT_CHECKPOINT_INTERVAL,
            disk_limit: None,
            ingest_rate: None,
        }
    }
}

/// Bytes of memory that this process can have: the machine's, or less in a container.
fn machine_memory() -> Option<u64> {
    let text = |path: &str| std::fs::read_to_string(path).ok();
    let total = text("/proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    });
    // Version 2 and version 1 of control groups; "max" is no number.
    let groups = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limits = groups.iter().filter_map(|path| text(path)?.trim().parse::<u64>().ok());
    total.into_iter().chain(limits).min()
}

/// What the TOML file may hold: the same names as the flags of `logweir serve`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    pub data_dir: Option<PathBuf>,
    pub pg: Option<String>,
    pub http: Option<String>,
    pub http_token: Option<String>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub tls_client_ca: Option<PathBuf>,
    #[serde(default)]
    pub tls_require: bool,
    #[serde(default)]
    pub insecure: bool,
    #[serde(default)]
    pub allow_root: Vec<PathBuf>,
    #[serde(default)]
    pub allow_host: Vec<String>,
    #[serde(default)]
    pub init: Vec<PathBuf>,
    /// A size such as "1 GiB".
    pub query_memory: Option<String>,
    /// A size such as "256 MiB".
    pub memory_per_query: Option<String>,
    pub max_queries: Option<usize>,
    /// A size such as "20 GiB".
    pub spill_limit: Option<String>,
    /// A size such as "2 GiB".
    pub view_memory: Option<String>,
    /// A size such as "256 MiB".
    pub table_memory: Option<String>,
    /// A size such as "4 GiB".
    pub state_memory: Option<String>,
    pub max_connections: Option<usize>,
    pub reserved_connections: Option<usize>,
    /// An interval such as "60 seconds".
    pub authentication_timeout: Option<String>,
    /// An interval such as "10 seconds".
    pub checkpoint_interval: Option<String>,
    /// A size such as "500 GiB".
    pub disk_limit: Option<String>,
}

impl File {
    /// Reads a config file. Errors name the file, and the line of a mistake.
    pub fn read(path: &Path) -> Result<File> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io("read the config file", path, &e))?;
        toml::from_str(&text).map_err(|e| {
            let text = e.to_string();
            Error::new(
                Kind::InvalidParameter,
                format!("config file {:?}: {}", path.display().to_string(), text.trim_end()),
            )
        })
    }
}

/// A size given as a flag.
pub fn size(text: &str) -> std::result::Result<u64, String> {
    parse_bytes(text).ok_or_else(|| format!("\"{text}\" is not a size such as \"512 MiB\""))
}
