//! `logweir import`: old files into a stream of a data directory that no server uses. With a server, SQL does it.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{io_runtime, start_logging};
use crate::config::Config;
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::sql;
use crate::sql::statement::import::summary;
use crate::storage::stream_log::IMPORTS;
use crate::task::Compute;
use crate::time::Clock;

/// How often the bar is drawn.
const DRAW: Duration = Duration::from_millis(200);

/// Read old log files (also .gz and .zst) into a stream.
///
/// The lines become durable rows of the stream and count in all of its views. Interrupted or
/// repeated, an import goes on behind the last durable line: no line is read twice. The server must
/// not be running; while it is, use SQL: IMPORT '/var/log/old/*.gz' INTO access. For example:
///
///   logweir import --data-dir /var/lib/logweir /var/log/apache2/access.log.* --into access
///   logweir import --data-dir /var/lib/logweir 'old/*.gz' INTO access
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct ImportArgs {
    /// Files, or patterns in quotes; INTO and the stream may stand at the end
    #[arg(value_name = "FILES", required = true)]
    pub files: Vec<String>,

    /// The stream
    #[arg(long, value_name = "STREAM")]
    pub into: Option<String>,

    /// Directory of the server's data
    #[arg(long, value_name = "DIR", env = "LOGWEIR_DATA_DIR")]
    pub data_dir: PathBuf,
}

pub fn run(args: ImportArgs) -> Result<()> {
    start_logging("warn");
    let (files, stream) = words(args.files, args.into)?;
    let absolute = |name: &String| {
        std::path::absolute(name)
            .map(|path| path.display().to_string())
            .map_err(|err| Error::io("read", name.as_ref(), &err))
    };
    let files = files.iter().map(absolute).collect::<Result<Vec<_>>>()?;
    if !args.data_dir.is_dir() {
        let message = format!("there is no data directory {:?}", args.data_dir.display().to_string());
        return Err(Error::new(Kind::UndefinedFile, message)
            .with_hint("It is the --data-dir of `logweir serve`, in which the stream was created."));
    }
    let compute = Compute::new()?;
    io_runtime()?.block_on(async {
        let mut stopped = std::pin::pin!(super::serve::wait_for_signal()?);
        let config = Config { data_dir: Some(args.data_dir), ..Config::default() };
        let opened = compute.spawn(sql::open(config, Clock::system())).await?;
        let engine = opened.map_err(|err| in_use(err, &files, &stream))?;
        let bar = std::io::stderr().is_terminal().then(|| tokio::spawn(show(Arc::clone(&engine), stream.clone())));
        let importing = {
            let engine = Arc::clone(&engine);
            compute.spawn(async move { engine.import(&stream, &files).await })
        };
        let done = tokio::select! {
            done = importing => done.and_then(|done| done),
            signal = &mut stopped => signal.and_then(|()| {
                Err(Error::new(Kind::Canceled, "the import was interrupted").with_hint("Run it again to go on."))
            }),
        };
        if let Some(bar) = bar {
            bar.abort();
            let _ = bar.await;
        }
        engine.shutdown().await;
        println!("imported {}", summary(&done?));
        Ok(())
    })
}

/// The files and the stream, which may be given as `--into STREAM` or as the last two words `INTO STREAM`.
fn words(mut files: Vec<String>, into: Option<String>) -> Result<(Vec<String>, String)> {
    let missing = || {
        Error::new(Kind::InvalidParameter, "into which stream?")
            .with_hint("The form is: logweir import FILES… --into STREAM")
    };
    if let Some(stream) = into {
        return Ok((files, stream));
    }
    match files.as_slice() {
        [_, .., word, _] if word.eq_ignore_ascii_case("into") => {}
        _ => return Err(missing()),
    }
    let stream = files.pop().ok_or_else(missing)?;
    files.pop();
    Ok((files, stream))
}

/// What to type instead while a server has the directory.
fn in_use(err: Error, files: &[String], stream: &str) -> Error {
    if err.kind() != Kind::ObjectInUse {
        return err;
    }
    let quoted = |name: &String| format!("'{}'", name.replace('\'', "''"));
    let files: Vec<String> = files.iter().map(quoted).collect();
    err.with_hint(format!("The server can do it while it runs. In psql: IMPORT {} INTO {stream};", files.join(", ")))
}

/// Draws a bar on stderr: bytes of plain files; of compressed ones it is not known how many there are.
async fn show(engine: Arc<Engine>, stream: String) {
    let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left, {msg}");
    let open = ProgressStyle::with_template("{spinner} {bytes}, {bytes_per_sec}, {msg}");
    let mut tick = tokio::time::interval(DRAW);
    let mut bar: Option<ProgressBar> = None;
    loop {
        tick.tick().await;
        let sources = engine.stream(&stream).map(|s| s.sources()).unwrap_or_default();
        let Some(status) = sources.into_iter().find(|s| s.id == IMPORTS) else { continue };
        let partitions = status.get().partitions;
        let done = partitions.iter().map(|p| p.position).sum();
        let total: Option<u64> = partitions.iter().map(|p| p.end).sum();
        let bar = bar.get_or_insert_with(|| ProgressBar::new(total.unwrap_or(0)));
        let wanted = if total.is_some() { &style } else { &open };
        bar.set_style(wanted.as_ref().map_or_else(|_| ProgressStyle::default_bar(), Clone::clone));
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(done);
        bar.set_message(format!("{} lines", status.frames.load(Ordering::Relaxed)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_stands_behind_into() {
        let strings = |words: &[&str]| words.iter().map(|w| w.to_string()).collect::<Vec<_>>();
        assert_eq!(words(strings(&["a", "b", "INTO", "s"]), None).unwrap(), (strings(&["a", "b"]), "s".into()));
        assert_eq!(words(strings(&["a", "b"]), Some("s".into())).unwrap(), (strings(&["a", "b"]), "s".into()));
        for missing in [&["a", "b"][..], &["into", "s"], &["a"]] {
            assert!(words(strings(missing), None).is_err(), "{missing:?}");
        }
    }

    #[test]
    fn a_running_server_is_asked_in_sql() {
        let err = in_use(Error::new(Kind::ObjectInUse, "in use"), &["/a's.log".into(), "/b".into()], "s");
        assert!(err.hint().unwrap().ends_with("IMPORT '/a''s.log', '/b' INTO s;"), "{err}");
    }
}
