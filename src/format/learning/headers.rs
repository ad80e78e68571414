//! Which header line stands above a line? Remembered by where headers stood ([`super::places`]), so a line is read again
//! under the header that stood above it, whatever came later.
//!
//! A partition whose header is the first that the stream saw needs no entry of its own: files mostly agree, and a file
//! that is followed from its end has no header to show. For the same reason a partition whose header was forgotten, because
//! there were too many, is read under the stream's first.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::places::Places;

/// The headers of a stream. `L` is what a format makes of one.
pub struct Headers<L> {
    first: Option<(u64, Arc<Header<L>>)>,
    later: Places<Arc<Header<L>>>,
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

impl<L> Headers<L> {
    /// Remembers at most `most` headers besides the first.
    pub fn new(most: usize) -> Headers<L> {
        Headers { first: None, later: Places::new(most) }
    }

    /// The header above the frame at `offset` of a partition.
    pub fn above(&self, partition: &str, offset: u64) -> Option<Arc<Header<L>>> {
        let first = || self.first.as_ref().filter(|(since, _)| *since <= offset).map(|(_, header)| header);
        self.later.above(partition, offset).or_else(first).cloned()
    }

    /// Notes the header line at `offset` of a partition; and says whether the oldest was forgotten for it.
    pub fn note(&mut self, partition: &str, offset: u64, header: Header<L>) -> (Arc<Header<L>>, bool) {
        if let Some(same) = self.above(partition, offset).filter(|above| above.names == header.names) {
            return (same, false);
        }
        let header = Arc::new(header);
        if self.first.is_none() {
            self.first = Some((offset, Arc::clone(&header)));
            return (header, false);
        }
        let forgot = self.later.note(partition, offset, Arc::clone(&header));
        (header, forgot)
    }

    pub fn save(&self) -> Saved {
        let later = self.later.iter().map(|(partition, offset, h)| (partition.to_string(), offset, h.names.clone()));
        Saved {
            first: self.first.as_ref().map(|(offset, header)| (*offset, header.names.clone())),
            later: later.collect(),
        }
    }

    /// Goes on from what was known once.
    pub fn recall(&mut self, saved: Saved, mut layout: impl FnMut(&[String]) -> L) {
        let mut header = |names: Vec<String>| Arc::new(Header { layout: layout(&names), names });
        self.first = saved.first.map(|(offset, names)| (offset, header(names)));
        for (partition, offset, names) in saved.later {
            self.later.note(&partition, offset, header(names));
        }
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
        let mut headers = Headers::new(10);
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
        let mut again = Headers::new(10);
        again.recall(serde_json::from_value(saved).unwrap(), |_| ());
        assert_eq!(above(&again, "b", 35).as_deref(), Some("x z"));
        assert_eq!(above(&again, "b", 5), None);
    }

    #[test]
    fn a_header_too_many_is_told() {
        let mut headers = Headers::new(2);
        let mut forgot = Vec::new();
        for (offset, name) in ["x", "y", "x", "y", "y"].into_iter().enumerate() {
            forgot.push(headers.note("a", offset as u64, Header { names: vec![name.to_string()], layout: () }).1);
        }
        assert_eq!(forgot, [false, false, false, true, false]);
        assert_eq!((headers.later.len(), above(&headers, "a", 9).as_deref()), (2, Some("y")));
    }
}
