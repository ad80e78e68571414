//! Where generated lines go. Each kind of place is one file with its [`Spec`], listed once in [`OUTPUTS`]; `--output`
//! names it by its scheme (`tcp://…`), and what has none is a file.

use std::path::Path;
use std::time::Duration;

use super::{file, http, kafka, syslog, tcp};
use crate::error::{Error, Kind, Result};
use crate::options;

/// Every output with a scheme.
pub static OUTPUTS: &[&Spec] = &[&tcp::SPEC, &syslog::SPEC, &http::HTTP, &http::HTTPS, &kafka::SPEC];

/// Write once this much is waiting: large enough that a system call costs little beside the lines, small enough to stay
/// in the processor's cache.
const BLOCK_BYTES: usize = 64 * 1024;

/// The shortest pause of a paced log. Shorter ones only wake the process for a line or two.
const MIN_PAUSE: Duration = Duration::from_millis(5);

/// One row of the table of outputs.
pub struct Spec {
    pub scheme: &'static str,
    /// What is written behind `scheme://`, for errors.
    pub form: &'static str,
    /// Whether lines need a header of syslog.
    pub has_headers: bool,
    /// Receives what stands behind the scheme.
    pub open: fn(&str, &Settings) -> Result<Box<dyn Output>>,
}

/// What else the command line says of outputs.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// A file of this size gets another name, and the next one is begun.
    pub rotate: Option<u64>,
    /// So many files with other names are kept.
    pub keep: Option<u32>,
    pub token: Option<String>,
    /// Properties of librdkafka.
    pub kafka: Vec<(String, String)>,
}

/// Takes blocks of whole lines.
pub trait Output {
    /// False when the reader has gone and that is no error, as in `logweir gen access | head`.
    fn write(&mut self, block: &[u8]) -> Result<bool>;

    /// Waits until what was written has arrived, as far as that can be known.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    /// So many bytes are written at a time when there is no pace.
    fn block_bytes(&self) -> usize {
        BLOCK_BYTES
    }

    /// The shortest pause of a paced log.
    fn min_pause(&self) -> Duration {
        MIN_PAUSE
    }
}

/// Opens what `--output` names; also tells whether lines need a header of syslog.
pub fn open(target: &str, settings: &Settings) -> Result<(Box<dyn Output>, bool)> {
    let Some((scheme, rest)) = target.split_once("://") else {
        return Ok((file::open(Path::new(target), settings)?, false));
    };
    let schemes = || OUTPUTS.iter().map(|spec| spec.scheme);
    let Some(spec) = OUTPUTS.iter().find(|spec| spec.scheme == scheme.to_ascii_lowercase()) else {
        return Err(options::unknown("output", scheme, schemes())
            .with_detail(format!("There are: a file, - (standard output), {}.", options::list(schemes()))));
    };
    if rest.is_empty() {
        return Err(spec.wrong(rest));
    }
    Ok(((spec.open)(rest, settings)?, spec.has_headers))
}

impl Spec {
    /// The error of an address that is not as it should be.
    pub fn wrong(&self, rest: &str) -> Error {
        let scheme = self.scheme;
        Error::new(Kind::InvalidParameter, format!("\"{scheme}://{rest}\" is no output"))
            .with_hint(format!("Write it like {scheme}://{}.", self.form))
    }
}
