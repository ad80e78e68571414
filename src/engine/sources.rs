//! Sources: what feeds a stream. A stream may have one of its own (CREATE TABLE … WITH (connector = …)), which has the id 0
//! in its log, and any number of others (CREATE SOURCE … INTO), whose ids are those of their objects: never used again, so
//! that no source goes on at another one's position.

use std::sync::Arc;
use std::time::Duration;

use super::{Engine, SOURCE_OPTIONS, Stream, blocking, first_rows};
use crate::catalog::{Object, ObjectKind, Origin};
use crate::error::{Error, Kind, Result};
use crate::ingest::{Deferred, SourceStatus};
use crate::options::{OptionSpec, Options, nearest};
use crate::reach;
use crate::rollup::watermark::FOREVER;
use crate::source::{self, Source, Spec};
use crate::time::{Micros, parse_duration};

/// How long DROP waits for a source to stop.
const STOPPING: Duration = Duration::from_secs(15);

/// What CREATE SOURCE says.
#[derive(Debug, Clone)]
pub struct SourceDefinition {
    pub name: String,
    pub stream: String,
    pub connector: String,
    /// Of the connector, as given.
    pub options: Vec<(String, String)>,
}

/// A source that has not been started yet.
pub(super) type Waiting = (Box<dyn Source>, Arc<SourceStatus>);

/// Options of a source, checked. `more`: what may stand beside them.
pub(super) fn source_options(spec: &Spec, more: &[OptionSpec], given: &[(String, String)]) -> Result<Options> {
    Options::parse(&format!("connector \"{}\"", spec.name), &[spec.options, SOURCE_OPTIONS, more], given)
}

/// What is known of a source before it runs.
pub(super) fn status(id: u32, name: &str, spec: &Spec, options: &Options) -> Result<Arc<SourceStatus>> {
    let forget_after = match options.text("forget_after") {
        Some(text) if !text.eq_ignore_ascii_case("off") => {
            let after = parse_duration(text).map_err(|err| err.with_context("option forget_after"))?;
            Some(after.as_micros() as Micros)
        }
        Some(_) | None => None,
    };
    let mut status = SourceStatus::new(id, name, spec.name);
    status.forget_after = forget_after;
    Ok(Arc::new(status))
}

impl Engine {
    /// Creates a source that feeds a stream beside its others, and starts it. Gives back what there is to say about it.
    pub async fn create_source(&self, definition: &SourceDefinition, by: Origin<'_>) -> Result<Option<String>> {
        let _ddl = self.ddl.lock().await;
        let SourceDefinition { name, stream, connector, options } = definition;
        if !self.is_restoring() && self.object(name).is_some() {
            return Err(Error::new(Kind::DuplicateObject, format!("\"{name}\" already exists")));
        }
        let stream = self.stream_called(stream)?;
        let spec = source::find(connector)?;
        let options = source_options(spec, &[], options)?;
        let id = {
            let catalog = self.catalog.lock();
            catalog.get(name).map_or(catalog.next_id(), |object| object.id)
        };
        let status = status(id, name, spec, &options)?;
        let source = self.build_source(spec, &options).await?;
        if self.is_restoring() {
            stream.add_later((source, status));
            return Ok(None);
        }
        let ingest = stream.pipeline()?;
        // First, so that what it gives is never that of another source with its id.
        self.remember(ObjectKind::Source, name, by, [stream.name.clone()].into())?;
        if let Err(err) = blocking(move || ingest.add_source(source, status)).await {
            self.catalog.lock().remove(std::slice::from_ref(name))?;
            return Err(err);
        }
        first_rows(&stream).await;
        let over = stream.runner.watermark() == FOREVER;
        Ok(over.then(|| {
            format!(
                "all sources of \"{}\" had come to their end, so its windows are closed: new rows are late",
                stream.name
            )
        }))
    }

    /// Makes a source. What a user creates must work at once, unless he says that it will work later.
    pub(super) async fn build_source(&self, spec: &'static Spec, options: &Options) -> Result<Box<dyn Source>> {
        let options = options.clone();
        if self.is_restoring() || !options.bool("validate") {
            // What a tenant may not reach is an error all the same.
            let tried = if reach::bounds().is_some() { (spec.build)(&options).map(drop) } else { Ok(()) };
            if let Err(err) = tried
                && err.kind() == Kind::InsufficientPrivilege
            {
                return Err(err);
            }
            return Ok(Box::new(Deferred::new(move || (spec.build)(&options))));
        }
        let made = blocking(move || {
            spec.check.map_or(Ok(()), |check| check(&options))?;
            (spec.build)(&options)
        });
        made.await.map_err(|err| match (spec.check, err.hint()) {
            (Some(_), None) => {
                err.with_hint("With validate = false it is created all the same, and tried again until it works.")
            }
            _ => err,
        })
    }

    /// Stops a source that was dropped. What it has handed out is in its stream.
    pub(super) async fn stop_source(&self, object: &Object) -> Result<()> {
        let stream = object.reads.first().and_then(|name| self.stream(name));
        let Some(ingest) = stream.and_then(|stream| stream.pipeline().ok()) else { return Ok(()) };
        let id = object.id;
        // While the disk is full its thread waits for room: whoever drops other things to make some must not wait for it.
        let removing = tokio::task::spawn_blocking(move || ingest.remove_source(id));
        if tokio::time::timeout(STOPPING, removing).await.is_err() {
            tracing::warn!(source = %object.name, "it is dropped, and stops when there is room for what it has read");
        }
        Ok(())
    }

    /// "source does not exist", with the nearest name.
    pub fn no_source(&self, name: &str) -> Error {
        let objects = self.objects();
        let sources = objects.iter().filter(|object| object.kind == ObjectKind::Source);
        let err = Error::new(Kind::UndefinedObject, format!("source \"{name}\" does not exist"));
        match nearest(name, sources.map(|object| object.name.as_str())) {
            Some(near) => err.with_hint(format!("Did you mean \"{near}\"?")),
            None => err.with_hint("SHOW SOURCES lists them. A stream's own source goes with the stream."),
        }
    }

    /// The stream called `name`, for what feeds it.
    pub fn stream_called(&self, name: &str) -> Result<Arc<Stream>> {
        match (self.stream(name), self.object(name)) {
            (Some(stream), _) => Ok(stream),
            (None, None) => Err(self.no_relation(name)),
            (None, Some(object)) => {
                let word = object.kind.word();
                Err(Error::new(Kind::WrongObjectType, format!("{word} \"{name}\" is not a stream"))
                    .with_hint("Rows are put into what CREATE TABLE … FORMAT … has made."))
            }
        }
    }
}
