//! What ends a statement before its time: the client's cancel request (Ctrl-C in psql) or `pg_cancel_backend`,
//! `statement_timeout`, or the end of the connection by the server's shutdown or `pg_terminate_backend`. Whatever waits for
//! the compute pool waits through an `Interrupt`; dropping that wait drops the work on the pool and all it holds.

use std::collections::HashMap;
use std::future::Future;

use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use pgwire::messages::startup::SecretKey;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backend::Running;
use crate::error::{Error, Kind, Result};

/// Ends one statement.
#[derive(Clone)]
pub struct Interrupt {
    pub canceled: CancellationToken,
    /// Of the connection.
    pub shutdown: CancellationToken,
    pub deadline: Option<Instant>,
}

impl Interrupt {
    /// The result of `work`, or the error of what came first. An interrupt that has already happened wins.
    pub async fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let timeout = async {
            match self.deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(shutting_down()),
            () = self.canceled.cancelled() => {
                Err(Error::new(Kind::Canceled, "canceling statement due to user request"))
            }
            () = timeout => Err(Error::new(Kind::Canceled, "canceling statement due to statement timeout")),
            result = work => result,
        }
    }

    /// `input` until it is interrupted; the error is then the last item.
    pub fn stream<T, S>(self, input: S) -> impl Stream<Item = Result<T>> + Send
    where
        T: Send,
        S: Stream<Item = Result<T>> + Send + Unpin,
    {
        futures::stream::unfold(Some((self, input)), |state| async move {
            let (interrupt, mut input) = state?;
            match interrupt.run(async { Ok(input.next().await) }).await {
                Ok(Some(Ok(item))) => Some((Ok(item), Some((interrupt, input)))),
                Ok(Some(Err(err))) | Err(err) => Some((Err(err), None)),
                Ok(None) => None,
            }
        })
    }
}

pub fn shutting_down() -> Error {
    Error::new(Kind::Shutdown, "terminating connection due to administrator command")
}

/// Finds the statement that a cancel request means: it comes on a connection of its own and names the other one by
/// the process id and secret that were sent at its start. Each database counts its ids for itself, so an id may be that of
/// several.
#[derive(Default)]
pub struct Cancels(Mutex<HashMap<i32, Vec<Entry>>>);

struct Entry {
    secret: SecretKey,
    running: Running,
}

impl Cancels {
    pub fn register(&self, pid: i32, secret: SecretKey, running: Running) {
        self.0.lock().entry(pid).or_default().push(Entry { secret, running });
    }

    pub fn forget(&self, pid: i32, running: &Running) {
        let mut entries = self.0.lock();
        if let Some(of_pid) = entries.get_mut(&pid) {
            of_pid.retain(|entry| !entry.running.is(running));
            if of_pid.is_empty() {
                entries.remove(&pid);
            }
        }
    }

    /// Cancels what `pid` runs, if the secret is the right one.
    pub fn cancel(&self, pid: i32, secret: &SecretKey) {
        let entries = self.0.lock();
        let of_pid = entries.get(&pid).map(Vec::as_slice).unwrap_or_default();
        for entry in of_pid.iter().filter(|entry| entry.secret.eq_value(secret)) {
            entry.running.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interrupt(canceled: &CancellationToken) -> Interrupt {
        Interrupt { canceled: canceled.clone(), shutdown: CancellationToken::new(), deadline: None }
    }

    #[tokio::test]
    async fn only_the_right_secret_cancels() {
        let (cancels, running) = (Cancels::default(), Running::default());
        cancels.register(7, SecretKey::I32(42), running.clone());
        // Of another database.
        let other = Running::default();
        cancels.register(7, SecretKey::I32(43), other.clone());
        let others = other.begin();
        let token = running.begin();
        cancels.cancel(7, &SecretKey::I32(41));
        cancels.cancel(8, &SecretKey::I32(42));
        assert!(!token.is_cancelled());
        cancels.cancel(7, &SecretKey::I32(42));
        assert!(token.is_cancelled() && !others.is_cancelled());
        assert!(!running.begin().is_cancelled(), "the next statement is not affected");
        cancels.forget(7, &running);
        let token = running.begin();
        cancels.cancel(7, &SecretKey::I32(42));
        assert!(!token.is_cancelled());
        cancels.cancel(7, &SecretKey::I32(43));
        assert!(others.is_cancelled());
        cancels.forget(7, &other);
        assert!(cancels.0.lock().is_empty());
    }

    #[tokio::test]
    async fn a_canceled_stream_ends_with_the_error() {
        let token = CancellationToken::new();
        let input = futures::stream::iter([Ok(1)]).chain(futures::stream::pending::<Result<i32>>());
        let mut stream = std::pin::pin!(interrupt(&token).stream(Box::pin(input)));
        assert_eq!(stream.next().await.unwrap().unwrap(), 1);
        token.cancel();
        let err = stream.next().await.unwrap().unwrap_err();
        assert_eq!(err.kind(), Kind::Canceled);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_statement_times_out() {
        let mut interrupt = interrupt(&CancellationToken::new());
        interrupt.deadline = Some(Instant::now());
        let err = interrupt.run(std::future::pending::<Result<()>>()).await.unwrap_err();
        assert_eq!(err.message(), "canceling statement due to statement timeout");
    }
}
