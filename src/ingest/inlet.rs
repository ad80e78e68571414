//! The way into a stream's log: a bounded queue in front of the log stage.
//!
//! Threads (sources) and tasks (whoever pushes) wait for a place in it, in the order in which they came: a source that has
//! much to read does not keep others out. The places are permits of a semaphore, which is what can be waited for both ways.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// The end where items go in.
pub struct Inlet<T> {
    places: Arc<Semaphore>,
    /// Holds no more items than there are places.
    sender: Sender<(T, Place)>,
}

/// The end where they come out.
pub struct Outlet<T> {
    places: Arc<Semaphore>,
    receiver: Receiver<(T, Place)>,
}

/// A place in the queue for one item.
pub struct Place(#[expect(dead_code, reason = "it is free again when this is dropped")] OwnedSemaphorePermit);

/// The other end is gone.
#[derive(Debug)]
pub struct Closed;

/// A queue of so many items.
pub fn bounded<T>(places: usize) -> (Inlet<T>, Outlet<T>) {
    let places = Arc::new(Semaphore::new(places));
    let (sender, receiver) = channel();
    (Inlet { places: Arc::clone(&places), sender }, Outlet { places, receiver })
}

impl<T> Clone for Inlet<T> {
    fn clone(&self) -> Self {
        Inlet { places: Arc::clone(&self.places), sender: self.sender.clone() }
    }
}

impl<T> Inlet<T> {
    /// Puts an item in; waits for a place, blocking the thread.
    pub fn send(&self, item: T) -> Result<(), Closed> {
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => Place(place),
            Err(TryAcquireError::Closed) => return Err(Closed),
            Err(TryAcquireError::NoPermits) => wait(self.place())?,
        };
        self.put(item, place)
    }

    /// Waits for a place.
    pub async fn place(&self) -> Result<Place, Closed> {
        Arc::clone(&self.places).acquire_owned().await.map(Place).map_err(|_| Closed)
    }

    /// Puts an item into its place.
    pub fn put(&self, item: T, place: Place) -> Result<(), Closed> {
        self.sender.send((item, place)).map_err(|_| Closed)
    }
}

impl<T> Outlet<T> {
    /// The next item. The error says whether there may be one later.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.receiver.recv_timeout(timeout).map(|(item, _)| item)
    }
}

impl<T> Drop for Outlet<T> {
    fn drop(&mut self) {
        // Those who wait for a place get none any more.
        self.places.close();
    }
}

/// Blocks the thread until a future is ready, on any thread, also one of a runtime.
fn wait<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    // How much one task may do at a time, which the runtime limits, must not end a wait that it knows nothing of.
    let mut future = std::pin::pin!(tokio::task::unconstrained(future));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn threads_and_tasks_wait_in_turn_and_hear_of_the_end() {
        let (inlet, outlet) = bounded(1);
        inlet.send(1).unwrap();
        let thread = std::thread::spawn({
            let inlet = inlet.clone();
            move || inlet.send(2)
        });
        while inlet.places.available_permits() > 0 || !thread.is_finished() && outlet.places.is_closed() {
            std::thread::yield_now();
        }
        assert!(tokio::time::timeout(Duration::from_millis(1), inlet.place()).await.is_err(), "it is full");
        assert_eq!(outlet.recv_timeout(Duration::from_secs(10)).unwrap(), 1);
        assert_eq!(outlet.recv_timeout(Duration::from_secs(10)).unwrap(), 2);
        thread.join().unwrap().unwrap();
        let place = inlet.place().await.unwrap();
        inlet.put(3, place).unwrap();
        let waiting = tokio::spawn({
            let inlet = inlet.clone();
            async move { inlet.place().await.map(drop) }
        });
        tokio::task::yield_now().await;
        drop(outlet);
        assert!(waiting.await.unwrap().is_err());
        assert!(inlet.send(4).is_err());
    }
}
