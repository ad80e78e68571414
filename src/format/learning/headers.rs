//! Which header line stands above a line? Remembered by where headers stood: the partition (file, connection) and the
//! offset in the stream. Both are the same when the log is read again, so a line is read under the header that stood
//! above it, whatever came later.
//!
//! A partition whose header is the first that the stream saw needs no entry of its own: files mostly agree, and a file
//! that is followed from its end has no header to show.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// More changes of header than this are not remembered: the oldest is forgotten. A partition that goes on under a
/// header this old is read under the stream's first.
const MOST: usize = 10_000;

/// The headers of a stream. `L` is what a format makes of one.
pub struct Headers<L> {
    first: Option<(u64, Arc<Header<L>>)>,
    /// By partition and offset of the header line.
    later: BTreeMap<(String, u64), Arc<Header<L>>>,
}

pub struct Header<L> {
    pub names: Vec<String>,
    pub layout: L,
}

/// What a checkpoint keeps of them.
#[derive(Default, Serialize, Deserialize)]
pub struct Saved {
    first: Option<(u64, Vec<String>)>,
    later: Vec<(String, u64, Vec<String>)>,
}

impl<L> Default for Headers<L> {
    fn default() -> Self {
        Headers { first: None, later: BTreeMap::new() }
    }
}

impl<L> Headers<L> {
    /// The header above the frame at `offset` of a partition.
    pub fn above(&self, partition: &str, offset: u64) -> Option<Arc<Header<L>>> {
        let key = |offset| (partition.to_string(), offset);
        if !self.later.is_empty()
            && let Some((_, header)) = self.later.range(key(0)..=key(offset)).next_back()
        {
            return Some(Arc::clone(header));
        }
        self.first.as_ref().filter(|(since, _)| *since <= offset).map(|(_, header)| Arc::clone(header))
    }

    /// Notes the header line at `offset` of a partition.
    pub fn note(&mut self, partition: &str, offset: u64, header: Header<L>) -> Arc<Header<L>> {
        if let Some(same) = self.above(partition, offset).filter(|above| above.names == header.names) {
            return same;
        }
        let header = Arc::new(header);
        if self.first.is_none() {
            self.first = Some((offset, Arc::clone(&header)));
            return header;
        }
        self.later.insert((partition.to_string(), offset), Arc::clone(&header));
        if self.later.len() > MOST
            && let Some(oldest) = self.later.keys().min_by_key(|(_, offset)| *offset).cloned()
        {
            self.later.remove(&oldest);
        }
        header
    }

    pub fn save(&self) -> Saved {
        Saved {
            first: self.first.as_ref().map(|(offset, header)| (*offset, header.names.clone())),
            later: self.later.iter().map(|((p, offset), h)| (p.clone(), *offset, h.names.clone())).collect(),
        }
    }

    /// Goes on from what was known once.
    pub fn recall(&mut self, saved: Saved, mut layout: impl FnMut(&[String]) -> L) {
        let mut header = |names: Vec<String>| Arc::new(Header { layout: layout(&names), names });
        self.first = saved.first.map(|(offset, names)| (offset, header(names)));
        self.later = saved.later.into_iter().map(|(p, offset, names)| ((p, offset), header(names))).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(headers: &mut Headers<()>, partition: &str, offset: u64, text: &str) {
        let names = text.split(' ').map(str::to_string).collect();
        headers.note(partition, offset, Header { names, layout: () });
    }

    fn above(headers: &Headers<()>, partition: &str, offset: u64) -> Option<String> {
        headers.above(partition, offset).map(|header| header.names.join(" "))
    }

    #[test]
    fn each_line_has_the_header_above_it() {
        let mut headers = Headers::default();
        note(&mut headers, "a", 10, "x y");
        note(&mut headers, "b", 20, "x y"); // the first: no entry
        assert_eq!(headers.later.len(), 0);
        note(&mut headers, "b", 30, "x z");
        note(&mut headers, "b", 40, "x y");
        for (partition, offset, expected) in [
            ("a", 9, None),
            ("a", 10, Some("x y")),
            ("a", 99, Some("x y")),
            ("b", 29, Some("x y")),
            ("b", 30, Some("x z")),
            ("b", 39, Some("x z")),
            ("b", 40, Some("x y")),
            ("c", 35, Some("x y")),
        ] {
            assert_eq!(above(&headers, partition, offset).as_deref(), expected, "{partition} {offset}");
        }
        // Reading the log again notes nothing new.
        note(&mut headers, "a", 10, "x y");
        note(&mut headers, "b", 30, "x z");
        assert_eq!(headers.later.len(), 2);

        let saved = serde_json::to_value(headers.save()).unwrap();
        let mut again = Headers::default();
        again.recall(serde_json::from_value(saved).unwrap(), |_| ());
        assert_eq!(above(&again, "b", 35).as_deref(), Some("x z"));
        assert_eq!(above(&again, "b", 5), None);
    }

    #[test]
    fn the_number_of_entries_is_bounded() {
        let mut headers = Headers::default();
        for offset in 0..(MOST as u64 + 10) {
            note(&mut headers, "a", offset, if offset % 2 == 0 { "x" } else { "y" });
        }
        assert_eq!(headers.later.len(), MOST);
        assert_eq!(above(&headers, "a", MOST as u64 + 9).as_deref(), Some("y"));
    }
}
