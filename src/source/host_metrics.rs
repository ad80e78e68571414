//! How the machine is doing that the server runs on: every so often a row for each metric, as lines of JSON for `FORMAT JSON`:
//!
//! ```text
//!     {"ts": "2026-01-31T12:00:00.000000Z", "host": "web-1", "metric": "disk_used_percent", "instance": "/", "value": 71.3}
//! ```
//!
//! One row a metric, and not one column, so that an alert over all disks, or over all metrics, is one query.
//!
//! From Linux's `/proc` (proc(5): `stat`, `meminfo`, `loadavg`, `uptime`) and `statvfs(3)`. What is not read in time is past:
//! positions have no key.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::json;

use super::{Partition, Polled, Source, Spec};
use crate::error::{Error, Kind, Result};
use crate::frame::Frames;
use crate::options::{OptionKind, OptionSpec, Options};
use crate::position::{Position, Unit};
use crate::time::{Clock, Micros};

pub static SPEC: Spec = Spec {
    name: "host_metrics",
    summary: "CPU, memory, load and disks of the server's machine (Linux), one row a metric; for FORMAT JSON",
    options: &[
        OptionSpec::optional("every", OptionKind::Interval, Some("10 seconds"), "the time between two measurements"),
        OptionSpec::optional("disks", OptionKind::Text, Some("/"), "where disks are mounted, separated by commas"),
    ],
    check: Some(|options| HostMetrics::open(options, Clock::system())?.measure().map(drop)),
    build: |options| Ok(Box::new(HostMetrics::open(options, Clock::system())?)),
};

const SHORTEST: Duration = Duration::from_millis(100);

/// See the file header.
struct HostMetrics {
    // Fixed.
    every: Duration,
    disks: Vec<PathBuf>,
    proc: PathBuf,
    clock: Clock,

    // State.
    host: String,
    /// When it is measured next.
    next: Instant,
    /// CPU time of the last measurement.
    before: Option<CpuTime>,
    handed: u64,
    warnings: Vec<Error>,
    /// Disks of which it was said that they cannot be read.
    unreadable: Vec<PathBuf>,
}

/// In ticks since the machine started.
#[derive(Debug, Clone, Copy, PartialEq)]
struct CpuTime {
    busy: u64,
    total: u64,
}

/// A metric, what it is of, and its value.
type Metric = (&'static str, String, f64);

impl HostMetrics {
    fn open(options: &Options, clock: Clock) -> Result<HostMetrics> {
        let disks = options.text("disks").unwrap_or_default().split(',').map(str::trim);
        let every = options.interval("every").unwrap_or_default();
        if every < SHORTEST {
            return Err(Error::new(Kind::InvalidParameter, "option \"every\" takes 100 milliseconds or more"));
        }
        Ok(HostMetrics {
            every,
            disks: disks.filter(|path| !path.is_empty()).map(PathBuf::from).collect(),
            proc: PathBuf::from("/proc"),
            clock,
            host: String::new(),
            next: Instant::now(),
            before: None,
            handed: 0,
            warnings: Vec::new(),
            unreadable: Vec::new(),
        })
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.proc.join(name);
        std::fs::read_to_string(&path).map_err(|err| {
            Error::io("read", &path, &err).with_hint("The connector \"host_metrics\" needs Linux's /proc.")
        })
    }

    fn measure(&mut self) -> Result<Vec<Metric>> {
        let mut metrics = Vec::new();
        let now = cpu_time(&self.read("stat")?).ok_or_else(|| self.strange("stat"))?;
        if let Some(before) = self.before.replace(now) {
            let (busy, total) = (now.busy.saturating_sub(before.busy), now.total.saturating_sub(before.total));
            if total > 0 {
                metrics.push(("cpu_percent", String::new(), 100.0 * busy as f64 / total as f64));
            }
        }
        metrics.extend(load(&self.read("loadavg")?).ok_or_else(|| self.strange("loadavg"))?);
        metrics.extend(memory(&self.read("meminfo")?).ok_or_else(|| self.strange("meminfo"))?);
        let uptime = self.read("uptime")?;
        let uptime = uptime.split(' ').next().and_then(|seconds| seconds.parse().ok());
        metrics.push(("uptime_seconds", String::new(), uptime.ok_or_else(|| self.strange("uptime"))?));
        for path in self.disks.clone() {
            match disk(&path) {
                Ok(found) => {
                    metrics.extend(found);
                    self.unreadable.retain(|known| *known != path);
                }
                // Told once; the other disks go on.
                Err(err) if !self.unreadable.contains(&path) => {
                    self.warnings.push(err);
                    self.unreadable.push(path);
                }
                Err(_) => {}
            }
        }
        Ok(metrics)
    }

    fn strange(&self, name: &str) -> Error {
        Error::new(Kind::NotSupported, format!("{} is not as Linux has it", self.proc.join(name).display()))
    }

    fn lines(&self, at: Micros, metrics: &[Metric]) -> Vec<u8> {
        let ts = DateTime::<Utc>::from_timestamp_micros(at).unwrap_or_default();
        let ts = ts.to_rfc3339_opts(SecondsFormat::Micros, true);
        let mut lines = Vec::new();
        for (metric, instance, value) in metrics {
            let row = json!({"ts": ts, "host": self.host, "metric": metric, "instance": instance, "value": value});
            lines.extend_from_slice(row.to_string().as_bytes());
            lines.push(b'\n');
        }
        lines
    }
}

/// The line `cpu` of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal; what guests use is in user already.
fn cpu_time(stat: &str) -> Option<CpuTime> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map(|n| n.parse().ok()).collect::<Option<_>>()?;
    let idle = ticks.get(3)? + ticks.get(4).unwrap_or(&0);
    let total = ticks.iter().sum();
    Some(CpuTime { busy: total - idle, total })
}

fn load(loadavg: &str) -> Option<Vec<Metric>> {
    let mut numbers = loadavg.split(' ').map(|n| n.parse().ok());
    let names = ["load_1m", "load_5m", "load_15m"];
    names.into_iter().map(|name| Some((name, String::new(), numbers.next()??))).collect()
}

/// Lines such as `MemAvailable:   12345 kB`.
fn memory(meminfo: &str) -> Option<Vec<Metric>> {
    let of = |name: &str| -> Option<f64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
    };
    let (total, available) = (of("MemTotal")?, of("MemAvailable")?);
    let (swap, swap_free) = (of("SwapTotal").unwrap_or(0.0), of("SwapFree").unwrap_or(0.0));
    let percent = |used: f64, of: f64| if of > 0.0 { 100.0 * used / of } else { 0.0 };
    Some(vec![
        ("memory_total_bytes", String::new(), total),
        ("memory_available_bytes", String::new(), available),
        ("memory_used_percent", String::new(), percent(total - available, total)),
        ("swap_used_percent", String::new(), percent(swap - swap_free, swap)),
    ])
}

/// As df(1) counts: what only root may use is neither used nor available.
fn disk(path: &Path) -> Result<Vec<Metric>> {
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::new(Kind::InvalidParameter, "a path in option \"disks\" has a NUL byte".to_string()))?;
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the name ends with NUL and outlives the call, which writes a whole statvfs when it succeeds.
    let stat = unsafe {
        if libc::statvfs(name.as_ptr(), found.as_mut_ptr()) != 0 {
            return Err(Error::io("look at the disk of", path, &std::io::Error::last_os_error()));
        }
        found.assume_init()
    };
    let bytes = |blocks: u64| blocks as f64 * stat.f_frsize as f64;
    let (used, available) = (bytes(stat.f_blocks.saturating_sub(stat.f_bfree)), bytes(stat.f_bavail));
    let usable = used + available;
    let instance = path.display().to_string();
    Ok(vec![
        ("disk_total_bytes", instance.clone(), bytes(stat.f_blocks)),
        ("disk_available_bytes", instance.clone(), available),
        ("disk_used_percent", instance, if usable > 0.0 { 100.0 * used / usable } else { 0.0 }),
    ])
}

impl Source for HostMetrics {
    fn resume(&mut self, _: Vec<Position>) -> Result<()> {
        self.host = self.read("sys/kernel/hostname").map(|name| name.trim().to_string()).unwrap_or_default();
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled> {
        let now = Instant::now();
        if now < self.next {
            return Ok(Polled::Idle);
        }
        // What was missed meanwhile is not made up for.
        self.next = (self.next + self.every).max(now);
        let metrics = self.measure()?;
        let frames = Frames::from_text(self.lines(self.clock.now(), &metrics));
        let start = self.handed;
        self.handed += frames.len() as u64;
        let position =
            Position { partition: "host".to_string(), key: String::new(), start, end: self.handed, unit: Unit::Frames };
        Ok(Polled::Frames(frames, position))
    }

    fn mark(&mut self) -> Result<()> {
        Ok(())
    }

    /// Nothing waits to be read.
    fn reached(&self) -> bool {
        true
    }

    fn partitions(&self) -> Vec<Partition> {
        vec![Partition { name: "host".to_string(), position: self.handed, end: None }]
    }

    fn idle_wait(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
    }

    fn take_warnings(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.warnings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(given: &[(&str, &str)]) -> Result<HostMetrics> {
        let given: Vec<_> = given.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let options = Options::parse("connector \"host_metrics\"", &[SPEC.options], &given)?;
        HostMetrics::open(&options, Clock::manual(1_000_000))
    }

    #[test]
    fn files_of_proc_are_read_as_the_manual_has_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("stat", "cpu  100 0 50 800 50 0 0 0 0 0\ncpu0 1 2 3\nintr 5\n");
        write("loadavg", "0.50 1.25 2.00 1/300 4242\n");
        write(
            "meminfo",
            "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    250 kB\nSwapTotal:  0 kB\nSwapFree: 0 kB\n",
        );
        write("uptime", "350.75 1000.00\n");
        let mut source = open(&[("disks", "")]).unwrap();
        source.proc = folder.path().to_path_buf();
        let value = |metrics: &[Metric], name: &str| metrics.iter().find(|m| m.0 == name).map(|m| m.2);
        let first = source.measure().unwrap();
        assert_eq!(value(&first, "cpu_percent"), None, "one measurement tells nothing of the time between two");
        assert_eq!((value(&first, "load_1m"), value(&first, "load_15m")), (Some(0.5), Some(2.0)));
        assert_eq!(value(&first, "memory_available_bytes"), Some(256_000.0));
        assert_eq!((value(&first, "memory_used_percent"), value(&first, "swap_used_percent")), (Some(75.0), Some(0.0)));
        assert_eq!(value(&first, "uptime_seconds"), Some(350.75));
        write("stat", "cpu  160 0 50 830 60 0 0 0 0 0\n");
        assert_eq!(value(&source.measure().unwrap(), "cpu_percent"), Some(60.0));
        write("stat", "something else\n");
        assert_eq!(source.measure().unwrap_err().kind(), Kind::NotSupported);
    }

    #[test]
    fn rows_are_lines_of_json_and_a_missing_disk_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let disks = format!("{}, /no/such/mount", folder.path().display());
        let mut source = open(&[("disks", &disks), ("every", "100 ms")]).unwrap();
        source.resume(Vec::new()).unwrap();
        let Polled::Frames(frames, position) = source.poll().unwrap() else { panic!("the first is due at once") };
        assert!(matches!(source.poll().unwrap(), Polled::Idle));
        assert_eq!((position.end, position.key.as_str()), (frames.len() as u64, ""));
        let rows: Vec<serde_json::Value> =
            (0..frames.len()).map(|i| serde_json::from_slice(frames.get(i)).unwrap()).collect();
        assert!(rows.iter().all(|row| row["ts"] == "1970-01-01T00:00:01.000000Z" && row["value"].is_number()));
        let used = rows.iter().find(|row| row["metric"] == "disk_used_percent").unwrap();
        assert_eq!(used["instance"], folder.path().display().to_string());
        assert!((0.0..=100.0).contains(&used["value"].as_f64().unwrap()));
        assert_eq!(source.take_warnings().len(), 1);
        source.measure().unwrap();
        assert!(source.take_warnings().is_empty());
        assert!(open(&[("every", "1 ms")]).is_err());
    }
}
