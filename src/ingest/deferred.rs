//! A source that cannot be built yet: after a restart its file or its broker may be missing, while the stream's rows are
//! still there. Building is tried again at every poll, with the driver's backoff.

use std::time::Duration;

use crate::batch::Metadata;
use crate::error::{Error, Result};
use crate::position::Position;
use crate::source::{Partition, Polled, Source, Waker};

/// See the file header.
pub struct Deferred {
    build: Box<dyn Fn() -> Result<Box<dyn Source>> + Send>,
    positions: Vec<Position>,
    waker: Option<Waker>,
    included: Vec<Metadata>,
    source: Option<Box<dyn Source>>,
}

impl Deferred {
    pub fn new(build: impl Fn() -> Result<Box<dyn Source>> + Send + 'static) -> Deferred {
        Deferred { build: Box::new(build), positions: Vec::new(), waker: None, included: Vec::new(), source: None }
    }

    fn built(&mut self) -> Result<&mut Box<dyn Source>> {
        let source = match self.source.take() {
            Some(source) => source,
            None => {
                let mut source = (self.build)()?;
                if let Some(waker) = &self.waker {
                    source.set_waker(waker.clone());
                }
                source.include(&self.included);
                source.resume(self.positions.clone())?;
                source
            }
        };
        Ok(self.source.insert(source))
    }
}

impl Source for Deferred {
    fn resume(&mut self, positions: Vec<Position>) -> Result<()> {
        self.positions = positions;
        Ok(())
    }

    fn poll(&mut self) -> Result<Polled> {
        self.built()?.poll()
    }

    fn mark(&mut self) -> Result<()> {
        self.built()?.mark()
    }

    /// What cannot be read now is not waited for.
    fn reached(&self) -> bool {
        self.source.as_ref().is_none_or(|s| s.reached())
    }

    fn partitions(&self) -> Vec<Partition> {
        self.source.as_ref().map_or_else(Vec::new, |s| s.partitions())
    }

    fn unneeded(&mut self, positions: &[Position]) -> Vec<String> {
        self.source.as_mut().map_or_else(Vec::new, |s| s.unneeded(positions))
    }

    fn set_waker(&mut self, waker: Waker) {
        self.waker = Some(waker);
    }

    fn include(&mut self, included: &[Metadata]) {
        self.included = included.to_vec();
    }

    fn idle_wait(&self) -> Duration {
        self.source.as_ref().map_or(Duration::ZERO, |s| s.idle_wait())
    }

    fn wants_acknowledgement(&self) -> bool {
        self.source.as_ref().is_some_and(|s| s.wants_acknowledgement())
    }

    fn acknowledge(&mut self, position: &Position) -> Result<()> {
        self.source.as_mut().map_or(Ok(()), |s| s.acknowledge(position))
    }

    fn address(&self) -> Option<String> {
        self.source.as_ref().and_then(|s| s.address())
    }

    fn lost(&self) -> Option<u64> {
        self.source.as_ref().and_then(|s| s.lost())
    }

    fn last_call(&mut self) -> bool {
        self.source.as_mut().is_some_and(|s| s.last_call())
    }

    fn take_warnings(&mut self) -> Vec<Error> {
        self.source.as_mut().map_or_else(Vec::new, |s| s.take_warnings())
    }
}
