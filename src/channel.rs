//! Channels: what is said under a name, and who listens to it (PostgreSQL's `LISTEN` and `NOTIFY`).
//!
//! Each listener has a [`Mailbox`] of bounded size. Who speaks never waits: a notification that finds a mailbox full is left
//! out there and counted, and the count stands in its place, so that a slow listener is told how many it has missed and
//! nobody else notices. Nothing is kept for those who listen later.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::{Error, Kind, Result};

/// Bytes of the longest payload: PostgreSQL's must be shorter than 8000 (its manual, NOTIFY).
pub const MAX_PAYLOAD: usize = 7999;

/// Bytes of the longest name of a channel, as of any name in PostgreSQL.
pub const MAX_NAME: usize = 63;

/// Notifications that one mailbox keeps: at most 8 MB each, and only while a client does not read.
pub const MAX_WAITING: usize = 1000;

/// Channels that one listener may listen to.
pub const MAX_CHANNELS: usize = 1000;

/// What was said.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Notification {
    pub channel: Arc<str>,
    pub payload: Arc<str>,
    /// Of the backend that said it; 0 for the server itself.
    pub pid: i32,
}

impl Notification {
    /// Fails for names and payloads that are too long, in PostgreSQL's words.
    pub fn new(channel: &str, payload: &str, pid: i32) -> Result<Notification> {
        check_name(channel)?;
        if payload.len() > MAX_PAYLOAD {
            return Err(Error::new(Kind::InvalidParameter, "payload string too long")
                .with_detail(format!("It has {} bytes; at most {MAX_PAYLOAD} are sent.", payload.len())));
        }
        Ok(Notification { channel: channel.into(), payload: payload.into(), pid })
    }
}

/// Fails for what cannot be the name of a channel.
pub fn check_name(channel: &str) -> Result<()> {
    match channel.len() {
        0 => Err(Error::new(Kind::InvalidParameter, "channel name cannot be empty")),
        1..=MAX_NAME => Ok(()),
        _ => Err(Error::new(Kind::InvalidParameter, "channel name too long")
            .with_detail(format!("It has {} bytes; at most {MAX_NAME} are taken.", channel.len()))),
    }
}

/// All channels of one server. Cheap to clone.
#[derive(Clone, Default)]
pub struct Channels(Arc<Mutex<HashMap<Arc<str>, Vec<Arc<Mailbox>>>>>);

impl Channels {
    /// Puts it into the mailboxes of all who listen; tells how many they are.
    pub fn notify(&self, notification: &Notification) -> usize {
        let channels = self.0.lock();
        let listeners = channels.get(&notification.channel).map_or(&[][..], Vec::as_slice);
        listeners.iter().for_each(|mailbox| mailbox.put(notification));
        listeners.len()
    }

    /// From now on `mailbox` gets what is said under this name. Listening twice is listening once.
    pub fn listen(&self, channel: &str, mailbox: &Arc<Mailbox>) -> Result<()> {
        check_name(channel)?;
        let mut channels = self.0.lock();
        let listened = |listeners: &Vec<Arc<Mailbox>>| listeners.iter().any(|other| Arc::ptr_eq(other, mailbox));
        if channels.get(channel).is_some_and(listened) {
            return Ok(());
        }
        if channels.values().filter(|listeners| listened(listeners)).count() >= MAX_CHANNELS {
            return Err(Error::new(Kind::ResourceLimit, format!("more than {MAX_CHANNELS} channels are listened to"))
                .with_hint("Listen to fewer channels and tell what is meant in the payload."));
        }
        channels.entry(channel.into()).or_default().push(Arc::clone(mailbox));
        Ok(())
    }

    /// `mailbox` gets nothing more of this channel, or of any.
    pub fn unlisten(&self, channel: Option<&str>, mailbox: &Arc<Mailbox>) {
        self.0.lock().retain(|name, listeners| {
            if channel.is_none_or(|channel| channel == &**name) {
                listeners.retain(|other| !Arc::ptr_eq(other, mailbox));
            }
            !listeners.is_empty()
        });
    }
}

/// One item of a mailbox.
#[derive(Debug, Clone, PartialEq)]
pub enum Letter {
    Notification(Notification),
    /// So many found no room here.
    Lost(u64),
}

/// What waits for one listener, in the order in which it was said.
#[derive(Default)]
pub struct Mailbox {
    letters: Mutex<VecDeque<Letter>>,
    arrived: Notify,
}

impl Mailbox {
    fn put(&self, notification: &Notification) {
        let mut letters = self.letters.lock();
        let full = letters.len() >= MAX_WAITING;
        match letters.back_mut() {
            Some(Letter::Lost(count)) if full => *count += 1,
            _ if full => letters.push_back(Letter::Lost(1)),
            Some(_) | None => letters.push_back(Letter::Notification(notification.clone())),
        }
        drop(letters);
        self.arrived.notify_one();
    }

    /// Returns when there may be something to take. One waits at a time.
    pub async fn wait(&self) {
        if self.letters.lock().is_empty() {
            self.arrived.notified().await;
        }
    }

    /// The next one.
    pub fn take(&self) -> Option<Letter> {
        self.letters.lock().pop_front()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn said(channel: &str, payload: &str) -> Notification {
        Notification::new(channel, payload, 7).unwrap()
    }

    #[test]
    fn who_listens_gets_what_is_said_from_then_on() {
        let (channels, one, two) = (Channels::default(), Arc::default(), Arc::default());
        assert_eq!(channels.notify(&said("a", "early")), 0);
        channels.listen("a", &one).unwrap();
        channels.listen("a", &one).unwrap();
        channels.listen("a", &two).unwrap();
        channels.listen("b", &two).unwrap();
        assert_eq!((channels.notify(&said("a", "1")), channels.notify(&said("b", "2"))), (2, 1));
        assert_eq!((one.take(), one.take()), (Some(Letter::Notification(said("a", "1"))), None));
        channels.unlisten(Some("a"), &two);
        assert_eq!(channels.notify(&said("a", "3")), 1);
        channels.unlisten(None, &one);
        channels.unlisten(None, &two);
        assert!(channels.0.lock().is_empty(), "channels without listeners are no more");
        let got: Vec<Letter> = std::iter::from_fn(|| two.take()).collect();
        assert_eq!(got, [Letter::Notification(said("a", "1")), Letter::Notification(said("b", "2"))]);
    }

    #[test]
    fn a_full_mailbox_counts_what_it_leaves_out() {
        let (channels, slow) = (Channels::default(), Arc::default());
        channels.listen("a", &slow).unwrap();
        for i in 0..MAX_WAITING + 5 {
            channels.notify(&said("a", &i.to_string()));
        }
        for i in 0..MAX_WAITING {
            assert_eq!(slow.take(), Some(Letter::Notification(said("a", &i.to_string()))));
        }
        channels.notify(&said("a", "later"));
        assert_eq!(slow.take(), Some(Letter::Lost(5)));
        assert_eq!(slow.take(), Some(Letter::Notification(said("a", "later"))));
        assert_eq!(slow.take(), None);
    }

    #[test]
    fn waiting_ends_when_something_has_come() {
        let (channels, mailbox) = (Channels::default(), Arc::<Mailbox>::default());
        channels.listen("a", &mailbox).unwrap();
        let mut waiting = Box::pin(mailbox.wait());
        assert!(waiting.as_mut().now_or_never().is_none());
        channels.notify(&said("a", ""));
        assert!(waiting.now_or_never().is_some());
        assert!(mailbox.wait().now_or_never().is_some(), "it is still there");
        mailbox.take();
        assert!(mailbox.wait().now_or_never().is_none());
    }

    #[test]
    fn what_is_too_long_is_refused() {
        assert!(Notification::new("a", &"x".repeat(MAX_PAYLOAD), 0).is_ok());
        for (channel, payload) in
            [("", String::new()), (&*"a".repeat(64), String::new()), ("a", "x".repeat(MAX_PAYLOAD + 1))]
        {
            assert_eq!(Notification::new(channel, &payload, 0).unwrap_err().kind(), Kind::InvalidParameter);
        }
        let (channels, mailbox) = (Channels::default(), Arc::default());
        for i in 0..MAX_CHANNELS {
            channels.listen(&i.to_string(), &mailbox).unwrap();
        }
        assert_eq!(channels.listen("more", &mailbox).unwrap_err().kind(), Kind::ResourceLimit);
    }
}
