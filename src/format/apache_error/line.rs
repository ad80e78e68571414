//! One error log line: where its fields are. A pure function of the line's bytes, which touches no column.

use memchr::{memchr, memmem, memrchr};

use crate::format::timestamp::{self, Zone};
use crate::time::Micros;

/// The fields of one line, as slices of it.
#[derive(Default)]
pub struct Entry<'a> {
    pub ts: Micros,
    pub level: &'a [u8],
    pub module: Option<&'a [u8]>,
    pub pid: Option<i64>,
    pub tid: Option<i64>,
    pub client: Option<&'a [u8]>,
    pub client_port: Option<i32>,
    pub code: Option<&'a [u8]>,
    /// What stands before the client and belongs to the message: `(13)Permission denied`, `mod_x.c(123)`.
    pub before_client: &'a [u8],
    pub message: &'a [u8],
    pub referer: Option<&'a [u8]>,
}

/// Reads a line of Apache 2.2 or 2.4, or says what is wrong with it; `zone` as for [`nginx`].
pub fn apache(line: &[u8], zone: Zone) -> Result<Entry<'_>, &'static str> {
    let (time, rest) = bracket(line).ok_or("no time in brackets")?;
    let ts = timestamp::apache_error(time, zone).ok_or("the time is not like Sun Sep 09 10:42:29 2018")?;
    let (level, mut rest) = bracket(rest).ok_or("no level in brackets after the time")?;
    let (module, level) = match memchr(b':', level) {
        Some(colon) => (Some(&level[..colon]), &level[colon + 1..]),
        None => (None, level),
    };
    if level.is_empty() || !level.iter().all(u8::is_ascii_alphanumeric) {
        return Err("the level is not a word");
    }
    let mut entry = Entry { ts, level, module: module.filter(|m| !m.is_empty() && *m != b"-"), ..Entry::default() };
    if let Some((process, after)) = bracket(rest)
        && let Some((pid, tid)) = process_and_thread(process)
    {
        (entry.pid, entry.tid, rest) = (Some(pid), tid, after);
    }
    // 2.4 writes the source file and the operating system's error between process and client.
    if module.is_some()
        && !rest.starts_with(b"[")
        && let Some(at) = memmem::find(rest, b": [client ")
    {
        (entry.before_client, rest) = (&rest[..at], &rest[at + 2..]);
    }
    if let Some((peer, after)) = bracket(rest)
        && let Some(peer) = peer.strip_prefix(b"client ").or_else(|| peer.strip_prefix(b"remote "))
    {
        let (client, port) = split_port(peer, module.is_some());
        (entry.client, entry.client_port, rest) = (Some(client), port, after);
    }
    if let Some((code, after)) = split_code(rest) {
        (entry.code, rest) = (Some(code), after);
    }
    if let Some(at) = memmem::rfind(rest, b", referer: ") {
        (entry.referer, rest) = (Some(&rest[at + b", referer: ".len()..]), &rest[..at]);
    }
    entry.message = rest;
    Ok(entry)
}

/// Reads a line of nginx, or says what is wrong with it; `zone` is the server's.
pub fn nginx(line: &[u8], zone: Zone) -> Result<Entry<'_>, &'static str> {
    const TIME_LEN: usize = "2023/01/02 03:04:05".len();
    let (time, rest) = line.split_at_checked(TIME_LEN).ok_or("no time at the start")?;
    let ts = timestamp::rfc3339(time, zone).filter(|_| time[4] == b'/').ok_or("no time at the start")?;
    let rest = rest.strip_prefix(b" ").ok_or("no level in brackets after the time")?;
    let (level, rest) = bracket(rest).ok_or("no level in brackets after the time")?;
    let colon = memmem::find(rest, b": ").ok_or("no process after the level")?;
    let hash = memchr(b'#', &rest[..colon]).ok_or("no process after the level")?;
    let pid = whole(&rest[..hash]).ok_or("the process is not a number")?;
    let tid = whole(&rest[hash + 1..colon]).ok_or("the thread is not a number")?;
    let message = &rest[colon + 2..];
    // The context is part of the message; what has a column here is copied from it, not taken off it.
    let after = |key: &[u8]| memmem::rfind(message, key).map(|at| &message[at + key.len()..]);
    let client = after(b", client: ").map(|v| &v[..memchr(b',', v).unwrap_or(v.len())]);
    let referer = after(b", referrer: \"").and_then(|v| Some(&v[..memchr(b'"', v)?]));
    Ok(Entry { ts, level, pid: Some(pid), tid: Some(tid), client, message, referer, ..Entry::default() })
}

/// The inside of the bracket that `text` starts with, and what follows behind a space.
fn bracket(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inside = text.strip_prefix(b"[")?;
    // An IPv6 address may have brackets of its own: the closing one has a space or nothing behind it.
    let mut from = 0;
    loop {
        let end = from + memchr(b']', &inside[from..])?;
        match &inside[end + 1..] {
            rest @ [] => return Some((&inside[..end], rest)),
            [b' ', rest @ ..] => return Some((&inside[..end], rest)),
            _ => from = end + 1,
        }
    }
}

/// `pid 35708` or `pid 35708:tid 4328636416`.
fn process_and_thread(text: &[u8]) -> Option<(i64, Option<i64>)> {
    let text = text.strip_prefix(b"pid ")?;
    match memchr(b':', text) {
        Some(colon) => Some((whole(&text[..colon])?, Some(whole(text[colon + 1..].strip_prefix(b"tid ")?)?))),
        None => Some((whole(text)?, None)),
    }
}

/// An address and, if there is one, its port. 2.4 always writes a port, behind an IPv6 address too; 2.2 never does, so
/// there several colons are an IPv6 address.
fn split_port(peer: &[u8], always_port: bool) -> (&[u8], Option<i32>) {
    let plain = |address: &[u8]| address.starts_with(b"[") && address.ends_with(b"]");
    let Some(colon) = memrchr(b':', peer) else { return (peer, None) };
    let (address, digits) = (&peer[..colon], &peer[colon + 1..]);
    match whole(digits) {
        Some(port @ 0..=65535) if always_port || plain(address) || memchr(b':', address).is_none() => {
            let address = if plain(address) { &address[1..address.len() - 1] } else { address };
            (address, Some(port as i32))
        }
        Some(_) | None => (peer, None),
    }
}

/// `AH00126: text` → the code and the text.
fn split_code(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let digits = text.strip_prefix(b"AH")?.iter().take_while(|b| b.is_ascii_digit()).count();
    let (code, rest) = text.split_at(2 + digits);
    (digits >= 5).then_some(())?;
    Some((code, rest.strip_prefix(b": ")?))
}

fn whole(digits: &[u8]) -> Option<i64> {
    digits.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}
