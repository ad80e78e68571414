//! Results as files, each complete from the moment it has its name.
//!
//! ```text
//!     <path>/.access-0123456789abcdef.part                          being written
//!     <path>/access-0123456789abcdef-00000000000000012345.json      everything up to offset 12345, behind the file before it
//! ```
//!
//! A file is written under a hidden name, synced, and renamed when it is large or old enough. So what was accepted is what
//! the names say: after a kill the hidden file is thrown away and its rows come again, into the next one. Nobody who takes
//! files away once they have their names makes rows come twice: the driver has noted the position as well.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::properties::WriterProperties;
use flate2::write::GzEncoder;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::encode::{Encoding, plain};
use super::{Batch, Delivered, Feed, Position, Sink, Spec};
use crate::error::{Error, Kind, Result};
use crate::options::{OptionKind, OptionSpec, Options};

pub static SPEC: Spec = Spec {
    name: "file",
    summary: "files in a folder, each complete once it has its name",
    options: &[
        OptionSpec::required("path", OptionKind::Path, "the folder to write into; it is made when it is missing"),
        OptionSpec::optional(
            "prefix",
            OptionKind::Text,
            None,
            "what the names of files begin with [default: the sink's name]",
        ),
        OptionSpec::optional("roll_bytes", OptionKind::Bytes, Some("128 MiB"), "a file is complete at this size"),
        OptionSpec::optional("roll_interval", OptionKind::Interval, Some("1 minute"), "a file is complete at this age"),
        OptionSpec::optional(
            "compression",
            OptionKind::Choice(&["none", "gzip", "zstd"]),
            None,
            "of JSON and CSV; Parquet is compressed within [default: none]",
        ),
    ],
    formats: &["json", "csv", "parquet"],
    guarantee: "exactly once",
    upserts: false,
    repeats: false,
    keeps_position: false,
    writes_into: Some("path"),
    build,
};

/// Rows of a Parquet file that are kept in memory until they are written together, and their bytes.
const GROUP_ROWS: usize = 128 * 1024;
const GROUP_BYTES: usize = 32 << 20;

/// A file that is old enough in the middle of a change is looked at again after this time.
const AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Packing {
    None,
    Gzip,
    Zstd,
}

fn build(options: &Options, encoding: Encoding) -> Result<Box<dyn Sink>> {
    let folder = PathBuf::from(options.text("path").unwrap_or_default());
    if !folder.is_absolute() {
        return Err(Error::new(Kind::InvalidParameter, format!("the path {:?} is not absolute", folder.display()))
            .with_hint("Where a server was started is nothing to depend on: begin the path with /."));
    }
    let packing = match options.text("compression") {
        Some("gzip") => Packing::Gzip,
        Some("zstd") => Packing::Zstd,
        Some(_) | None => Packing::None,
    };
    if packing != Packing::None && encoding == Encoding::Parquet {
        return Err(Error::new(Kind::InvalidParameter, "option \"compression\" is for JSON and CSV")
            .with_detail("A Parquet file is compressed within."));
    }
    if options.text("prefix").is_some_and(|prefix| prefix.contains('/') || prefix.starts_with('.')) {
        return Err(Error::new(Kind::InvalidParameter, "option \"prefix\" is the beginning of a file's name")
            .with_hint("Name the folder in path; a name must not begin with a dot."));
    }
    let files = Files {
        folder,
        prefix: options.text("prefix").map(str::to_string),
        roll_bytes: options.bytes("roll_bytes").unwrap_or(128 << 20).max(1),
        encoding,
        packing,
        stem: String::new(),
        open: None,
    };
    let roll_interval = options.interval("roll_interval").unwrap_or(Duration::from_secs(60));
    Ok(Box::new(FileSink { files: Arc::new(Mutex::new(files)), roll_interval, due: None }))
}

struct FileSink {
    files: Arc<Mutex<Files>>,
    roll_interval: Duration,
    /// When the file that is being written is old enough; `None` when there is none.
    due: Option<Instant>,
}

impl FileSink {
    /// Works with the files where it may block.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Files) -> Result<T> + Send + 'static,
    ) -> Delivered<T> {
        let files = Arc::clone(&self.files);
        let done = tokio::task::spawn_blocking(move || work(&mut files.lock())).await;
        Ok(done.unwrap_or_else(|err| Err(Error::internal(format!("writing files failed: {err}"))))?)
    }

    async fn complete(&mut self) -> Delivered<Option<Position>> {
        let upto = self.with(Files::complete).await?;
        self.due = match (upto, self.due) {
            (None, Some(_)) => Some(Instant::now() + self.roll_interval.max(AGAIN)),
            (_, _) => None,
        };
        Ok(upto)
    }
}

impl Sink for FileSink {
    fn open<'a>(&'a mut self, feed: &'a Feed, known: Position) -> BoxFuture<'a, Delivered<Position>> {
        Box::pin(async move {
            self.due = None;
            let (name, id) = (feed.name.clone(), feed.id.clone());
            self.with(move |files| files.begin(&name, &id, known)).await
        })
    }

    fn deliver<'a>(&'a mut self, batch: &'a Batch) -> BoxFuture<'a, Delivered<Option<Position>>> {
        Box::pin(async move {
            let (rows, upto) = (batch.rows.clone(), batch.upto);
            let (is_open, is_full) = self.with(move |files| files.append(&rows, upto)).await?;
            if !is_open {
                return Ok(batch.upto);
            }
            let due = *self.due.get_or_insert_with(|| Instant::now() + self.roll_interval);
            match batch.upto.is_some() && (is_full || Instant::now() >= due) {
                true => self.complete().await,
                false => Ok(None),
            }
        })
    }

    fn holds(&self) -> bool {
        self.due.is_some()
    }

    fn due(&self) -> Option<Instant> {
        self.due
    }

    fn finish(&mut self) -> BoxFuture<'_, Delivered<Option<Position>>> {
        Box::pin(self.complete())
    }
}

/// The files of a sink.
struct Files {
    // fixed
    folder: PathBuf,
    prefix: Option<String>,
    roll_bytes: u64,
    encoding: Encoding,
    packing: Packing,
    // state
    /// What the names of all its files begin with.
    stem: String,
    open: Option<Part>,
}

/// The file that is being written.
struct Part {
    path: PathBuf,
    writer: Writer,
    written: Arc<AtomicU64>,
    /// Up to where all that it holds goes; `None` in the middle of a change.
    upto: Option<Position>,
}

enum Writer {
    Plain(BufWriter<Counted>),
    Gzip(GzEncoder<BufWriter<Counted>>),
    Zstd(zstd::Encoder<'static, BufWriter<Counted>>),
    Parquet(Box<ArrowWriter<Counted>>),
}

/// A file that counts what is written to it.
struct Counted(File, Arc<AtomicU64>);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.1.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Files {
    /// Throws away what was not complete, and looks how far the complete files go.
    fn begin(&mut self, name: &str, id: &str, known: Position) -> Result<Position> {
        self.open = None;
        let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let prefix = self.prefix.clone().unwrap_or_else(|| name.trim_start_matches('.').chars().map(plain).collect());
        self.stem = format!("{prefix}-{id}");
        std::fs::create_dir_all(&self.folder).map_err(|err| Error::io("create the folder", &self.folder, &err))?;
        let failed = |err: io::Error| Error::io("list", &self.folder, &err);
        let mut reached = known;
        for entry in std::fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else { continue };
            let position = name.strip_prefix(&self.stem).and_then(|rest| rest.strip_prefix('-'));
            let position = position.and_then(|rest| Position::parse(rest.split('.').next().unwrap_or(rest)));
            if let Some(position) = position.filter(|position| !reached.has_reached(*position)) {
                reached = position;
            }
        }
        let part = self.part_path();
        match std::fs::remove_file(&part) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", &part, &err)),
            Ok(()) | Err(_) => {}
        }
        // What is there was renamed, but perhaps not durably.
        sync(&self.folder)?;
        Ok(reached)
    }

    fn part_path(&self) -> PathBuf {
        self.folder.join(format!(".{}.part", self.stem))
    }

    /// Writes rows behind those that are there. Tells whether there is a file now, and whether it is large enough.
    fn append(&mut self, rows: &RecordBatch, upto: Option<Position>) -> Result<(bool, bool)> {
        let appended = self.try_append(rows, upto);
        if appended.is_err() {
            // What is in the file is not known.
            self.open = None;
        }
        appended
    }

    fn try_append(&mut self, rows: &RecordBatch, upto: Option<Position>) -> Result<(bool, bool)> {
        let first = self.open.is_none();
        if first && rows.num_rows() == 0 {
            return Ok((false, false));
        }
        if first {
            self.open = Some(self.create(rows)?);
        }
        let Some(part) = &mut self.open else { return Err(Error::internal("a file was made")) };
        let failed = |err: io::Error| Error::io("write", &part.path, &err);
        let mut buffered = 0;
        let text = |first| self.encoding.lines(rows, first);
        match &mut part.writer {
            Writer::Plain(out) => out.write_all(&text(first)?).map_err(failed)?,
            Writer::Gzip(out) => out.write_all(&text(first)?).map_err(failed)?,
            Writer::Zstd(out) => out.write_all(&text(first)?).map_err(failed)?,
            Writer::Parquet(writer) => {
                writer.write(&plain(rows)?).map_err(|err| parquet(&part.path, &err))?;
                if writer.in_progress_size() > GROUP_BYTES {
                    writer.flush().map_err(|err| parquet(&part.path, &err))?;
                }
                buffered = writer.in_progress_size() as u64;
            }
        }
        part.upto = upto;
        Ok((true, part.written.load(Ordering::Relaxed) + buffered >= self.roll_bytes))
    }

    fn create(&self, rows: &RecordBatch) -> Result<Part> {
        let path = self.part_path();
        let failed = |err: io::Error| Error::io("create", &path, &err);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path).map_err(failed)?;
        let written = Arc::new(AtomicU64::new(0));
        let file = Counted(file, Arc::clone(&written));
        let writer = match (&self.encoding, self.packing) {
            (Encoding::Parquet, _) => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(GROUP_ROWS))
                    .build();
                let schema = plain(rows)?.schema();
                let writer = ArrowWriter::try_new(file, schema, Some(properties));
                Writer::Parquet(Box::new(writer.map_err(|err| parquet(&path, &err))?))
            }
            (_, Packing::None) => Writer::Plain(BufWriter::new(file)),
            (_, Packing::Gzip) => Writer::Gzip(GzEncoder::new(BufWriter::new(file), flate2::Compression::default())),
            (_, Packing::Zstd) => Writer::Zstd(zstd::Encoder::new(BufWriter::new(file), 0).map_err(failed)?),
        };
        Ok(Part { path, writer, written, upto: None })
    }

    /// Gives the file its name, for good. Tells up to where all files go now.
    fn complete(&mut self) -> Result<Option<Position>> {
        let Some(Part { upto: Some(upto), .. }) = self.open else { return Ok(None) };
        let Some(part) = self.open.take() else { return Ok(None) };
        let failed = |err: io::Error| Error::io("write", &part.path, &err);
        let unwrap = |out: BufWriter<Counted>| out.into_inner().map_err(|err| failed(err.into_error()));
        let file = match part.writer {
            Writer::Plain(out) => unwrap(out)?,
            Writer::Gzip(out) => unwrap(out.finish().map_err(failed)?)?,
            Writer::Zstd(out) => unwrap(out.finish().map_err(failed)?)?,
            Writer::Parquet(writer) => writer.into_inner().map_err(|err| parquet(&part.path, &err))?,
        };
        file.0.sync_all().map_err(failed)?;
        let packed = match self.packing {
            Packing::None => "",
            Packing::Gzip => ".gz",
            Packing::Zstd => ".zst",
        };
        let name = format!("{}-{upto}.{}{packed}", self.stem, self.encoding.extension());
        let target = self.folder.join(name);
        std::fs::rename(&part.path, &target).map_err(|err| Error::io("rename", &target, &err))?;
        sync(&self.folder)?;
        Ok(Some(upto))
    }
}

fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|err| Error::io("sync", folder, &err))
}

fn parquet(path: &Path, err: &ParquetError) -> Error {
    Error::new(Kind::Io, format!("could not write {:?}: {err}", path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn rows(from: i64, to: i64) -> RecordBatch {
        RecordBatch::try_from_iter(vec![("n", Arc::new(Int64Array::from_iter_values(from..to)) as ArrayRef)]).unwrap()
    }

    fn batch(from: u64, to: u64, whole: bool) -> Batch {
        let upto = whole.then_some(Position::at(to));
        let rows = rows(from as i64, to as i64);
        let offsets = Int64Array::from_iter_values(from as i64 + 1..to as i64 + 1);
        Batch { rows, offsets, gone: None, from: Position::at(from), upto, replaces: false, key: String::new() }
    }

    fn sink(folder: &Path, options: &[(&str, &str)], encoding: Encoding) -> Box<dyn Sink> {
        let mut given = vec![("path".to_string(), folder.display().to_string())];
        given.extend(options.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        build(&Options::parse("file", &[SPEC.options], &given).unwrap(), encoding).unwrap()
    }

    fn feed() -> Feed {
        let schema = rows(0, 0).schema();
        Feed { name: "s".into(), id: "00000000000000ff".into(), schema, key: None, time: None, upserts: false }
    }

    fn names(folder: &Path) -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    async fn open(sink: &mut Box<dyn Sink>, known: u64) -> Position {
        sink.open(&feed(), Position::at(known)).await.unwrap()
    }

    #[tokio::test]
    async fn a_file_has_its_name_when_it_is_large_or_old_enough_and_a_kill_leaves_none() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("made/here");
        let mut sink = sink(&folder, &[("roll_bytes", "40")], Encoding::Json);
        assert_eq!(open(&mut sink, 0).await, Position::at(0));
        assert_eq!(sink.deliver(&batch(0, 2, true)).await.unwrap(), None);
        assert_eq!(names(&folder), [".s-00000000000000ff.part".to_string()].into());
        assert!(sink.due().unwrap() > Instant::now());
        // Not in the middle of a change.
        assert_eq!(sink.deliver(&batch(2, 9, false)).await.unwrap(), None);
        assert_eq!(sink.finish().await.unwrap(), None);
        // The writer's buffer counts when it is written out, so the size is reached with the rows of more than one buffer.
        let mut end = 9;
        while sink.deliver(&batch(end, end + 3000, true)).await.unwrap().is_none() {
            end += 3000;
        }
        let complete = format!("s-00000000000000ff-{}.json", Position::at(end + 3000));
        assert_eq!(names(&folder), [complete.clone()].into());
        assert!(sink.due().is_none());
        let text = std::fs::read_to_string(folder.join(&complete)).unwrap();
        let expected: String = (0..end + 3000).map(|n| format!("{{\"n\":{n}}}\n")).collect();
        assert_eq!(text, expected);
        // Killed here: what has no name comes again.
        sink.deliver(&batch(end + 3000, end + 3001, true)).await.unwrap();
        assert_eq!(names(&folder).len(), 2);
        drop(sink);
        let mut sink = self::sink(&folder, &[("roll_interval", "0s")], Encoding::Json);
        assert_eq!(open(&mut sink, 0).await, Position::at(end + 3000), "the names say it");
        assert_eq!(open(&mut sink, end + 5000).await, Position::at(end + 5000), "somebody took files away");
        assert_eq!(names(&folder), [complete].into());
        let upto = sink.deliver(&batch(end + 3000, end + 3001, true)).await.unwrap();
        assert_eq!(upto, Some(Position::at(end + 3001)), "by age");
        assert_eq!(sink.deliver(&batch(5, 5, true)).await.unwrap(), Some(Position::at(5)), "no rows, no file");
        assert_eq!(names(&folder).len(), 2);
    }

    #[tokio::test]
    async fn every_form_can_be_read_back() {
        use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReader;
        for (name, options) in
            [("csv", vec![("compression", "gzip")]), ("json", vec![("compression", "zstd")]), ("parquet", vec![])]
        {
            let dir = tempfile::tempdir().unwrap();
            let encoding = Encoding::named(name, &[], SPEC.formats, "file").unwrap();
            let mut sink = sink(dir.path(), &options, encoding);
            open(&mut sink, 0).await;
            for from in [0, 10] {
                sink.deliver(&batch(from, from + 10, true)).await.unwrap();
            }
            assert_eq!(sink.finish().await.unwrap(), Some(Position::at(20)));
            let name = names(dir.path()).pop_first().unwrap();
            let file = File::open(dir.path().join(&name)).unwrap();
            let found: Vec<i64> = if name.ends_with(".csv.gz") {
                let text = io::read_to_string(flate2::read::GzDecoder::new(file)).unwrap();
                text.lines().skip(1).map(|line| line.parse().unwrap()).collect()
            } else if name.ends_with(".json.zst") {
                let text = io::read_to_string(zstd::Decoder::new(file).unwrap()).unwrap();
                text.lines().map(|line| line[5..line.len() - 1].parse().unwrap()).collect()
            } else {
                use arrow::array::AsArray;
                use arrow::datatypes::Int64Type;
                let reader = ParquetRecordBatchReader::try_new(file, 100).unwrap();
                reader.flat_map(|rows| rows.unwrap().column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
            };
            assert_eq!(found, (0..20).collect::<Vec<_>>(), "{name}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (options, encoding, expected) in [
            (vec![("path", "relative")], Encoding::Json, "not absolute"),
            (vec![("path", "/x"), ("compression", "zstd")], Encoding::Parquet, "for JSON and CSV"),
            (vec![("path", "/x"), ("prefix", "../y")], Encoding::Json, "beginning of a file's name"),
        ] {
            let given: Vec<_> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            let options = Options::parse("file", &[SPEC.options], &given).unwrap();
            let err = build(&options, encoding).err().unwrap();
            assert!(err.message().contains(expected), "{err}");
        }
    }
}
