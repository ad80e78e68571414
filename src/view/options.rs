//! What a view's definition says besides its query: when results are announced, how long windows wait for stragglers,
//! what empty windows show, how much memory the state may take.

use std::time::Duration;

use crate::time::Micros;

/// `CREATE MATERIALIZED VIEW … WITH (…) AS query EMIT … FILL …`. The default is a view that always shows the latest.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ViewOptions {
    /// A window is final when the watermark has passed its end by this much.
    pub allowed_lateness: Micros,
    /// Bytes of memory that the view's state may take; `None`: the server's setting.
    pub memory_limit: Option<u64>,
    /// Windows that began longer ago than this are given up, and sessions that ended longer ago: a row that comes so late that
    /// it would have gone on with one begins another. `None`: all are kept.
    pub retention: Option<Micros>,
    pub emit: Emit,
    pub fill: Option<Fill>,
}

/// When results are announced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Emit {
    /// Whenever rows change them; subscribers get changes at most `every` so often.
    OnUpdate { every: Option<Micros> },
    /// Once for each window: when it is final, and `delay` later. Rows that come after that are left out.
    OnWindowClose { delay: Micros },
}

impl Default for Emit {
    fn default() -> Self {
        Emit::OnUpdate { every: None }
    }
}

/// What groups seen before show in windows without rows of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub enum Fill {
    /// 0 in columns of numbers, NULL in others.
    Zero,
    Null,
    /// The values of the window before.
    Previous,
}

impl ViewOptions {
    /// How far the watermark has to be past a window's end for the window to be final (or announced).
    pub fn lateness(&self) -> Micros {
        match self.emit {
            Emit::OnUpdate { .. } => self.allowed_lateness,
            Emit::OnWindowClose { delay } => self.allowed_lateness.saturating_add(delay),
        }
    }

    /// How long subscribers wait between two changes at least.
    pub fn every(&self) -> Option<Duration> {
        match self.emit {
            Emit::OnUpdate { every } => every.map(|micros| Duration::from_micros(micros.unsigned_abs())),
            Emit::OnWindowClose { .. } => None,
        }
    }

    pub fn on_close(&self) -> bool {
        matches!(self.emit, Emit::OnWindowClose { .. })
    }
}
