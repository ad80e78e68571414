//! Lines that a program writes by a pattern (`%d [%t] %-5p %c - %m`): fields with fixed text between them.
//!
//! A [`Layout`] is such a pattern read backwards. A field ends where the text behind it stands; where that stands more than
//! once (`[%t] ` around a thread called `a] b`), the first place is tried at which all that follows fits, and what a field
//! may hold is for its [`Reader`] to say. A field that knows its own length (a time) needs no text behind it.
//!
//! Backtracking is bounded by [`MAX_TRIES`] a line, so no line can hold up a stream; a line that needs more does not fit.

use memchr::memmem;

/// Places tried in a line: a handful is usual.
const MAX_TRIES: u32 = 200;

/// A pattern: its text in front, and its fields. `F` says which fields there are.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout<F> {
    pub prefix: Vec<u8>,
    pub parts: Vec<Part<F>>,
}

/// A field and the fixed text behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Part<F> {
    pub field: F,
    /// It is filled up with spaces to this many characters.
    pub min_width: usize,
    pub then: Vec<u8>,
}

/// What the fields of a layout may hold. One is made for each line.
pub trait Reader<F> {
    /// For a field that knows its own length: how long it is at the start of `text`, `Some(None)` if it is not there. `None`
    /// for a field that ends where the text behind it stands.
    fn length(&mut self, _field: &F, _text: &[u8]) -> Option<Option<usize>> {
        None
    }

    /// Whether a field may hold `value`, which has no spaces around it.
    fn accepts(&mut self, field: &F, value: &[u8]) -> bool;

    /// Whether what follows the layout fits.
    fn ends(&mut self, rest: &[u8]) -> bool;
}

/// A place in the text that was read.
pub type Place = std::ops::Range<usize>;

impl<F> Layout<F> {
    /// Reads `text` and notes the place of each part in `places`; returns where the rest begins.
    pub fn read(&self, text: &[u8], reader: &mut impl Reader<F>, places: &mut Vec<Place>) -> Option<usize> {
        places.clear();
        places.resize(self.parts.len(), 0..0);
        text.starts_with(&self.prefix).then_some(())?;
        let mut search = Search { text, reader, tries: 0 };
        search.fit(&self.parts, self.prefix.len(), places)
    }
}

struct Search<'a, R> {
    text: &'a [u8],
    reader: &'a mut R,
    tries: u32,
}

impl<R> Search<'_, R> {
    /// Fits `parts` to the text from `at` on.
    fn fit<F>(&mut self, parts: &[Part<F>], at: usize, places: &mut [Place]) -> Option<usize>
    where
        R: Reader<F>,
    {
        let Some((part, others)) = parts.split_first() else {
            return self.reader.ends(&self.text[at..]).then_some(at);
        };
        let (place, other_places) = places.split_first_mut()?;
        let text = self.text;
        let rest = &text[at..];
        if let Some(length) = self.reader.length(&part.field, rest) {
            let end = at + length?;
            text[end..].starts_with(&part.then).then_some(())?;
            *place = at..end;
            return self.fit(others, end + part.then.len(), other_places);
        }
        if part.then.is_empty() {
            // The last field goes to the end.
            let value = trimmed(text, at..text.len());
            self.reader.accepts(&part.field, &text[value.clone()]).then_some(())?;
            *place = value;
            return self.fit(others, text.len(), other_places);
        }
        for found in memmem::find_iter(rest.get(part.min_width..)?, &part.then) {
            self.tries += 1;
            if self.tries > MAX_TRIES {
                return None;
            }
            let end = at + part.min_width + found;
            let value = trimmed(text, at..end);
            if self.reader.accepts(&part.field, &text[value.clone()]) {
                *place = value;
                if let Some(rest) = self.fit(others, end + part.then.len(), other_places) {
                    return Some(rest);
                }
            }
        }
        None
    }
}

/// Without the spaces around it.
fn trimmed(text: &[u8], place: Place) -> Place {
    let value = &text[place.clone()];
    let end = place.start + value.trim_ascii_end().len();
    let start = end - text[place.start..end].trim_ascii_start().len();
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a` to `z`: fields of letters only; `A` to `Z`: fields of anything; `5`: five bytes.
    struct Letters;

    impl Reader<char> for Letters {
        fn length(&mut self, field: &char, text: &[u8]) -> Option<Option<usize>> {
            (*field == '5').then(|| (text.len() >= 5).then_some(5))
        }

        fn accepts(&mut self, field: &char, value: &[u8]) -> bool {
            field.is_uppercase() || value.iter().all(u8::is_ascii_alphabetic)
        }

        fn ends(&mut self, rest: &[u8]) -> bool {
            rest.is_empty() || rest.starts_with(b"!")
        }
    }

    fn read(prefix: &str, parts: &[(char, usize, &str)], text: &str) -> Option<Vec<String>> {
        let part = |&(field, min_width, then): &(char, usize, &str)| Part { field, min_width, then: then.into() };
        let layout = Layout { prefix: prefix.into(), parts: parts.iter().map(part).collect() };
        let mut places = Vec::new();
        let rest = layout.read(text.as_bytes(), &mut Letters, &mut places)?;
        let mut found: Vec<String> = places.into_iter().map(|place| text[place].to_string()).collect();
        found.push(text[rest..].to_string());
        Some(found)
    }

    #[test]
    fn fields_end_where_the_text_behind_them_stands() {
        let parts = [('A', 0, "] "), ('b', 0, " - "), ('C', 0, "")];
        assert_eq!(read("[", &parts, "[main] x - y - z").unwrap(), ["main", "x", "y - z", ""]);
        assert_eq!(read("[", &parts, "[a] b] x - ").unwrap(), ["a] b", "x", "", ""], "the place at which all fits");
        assert_eq!(read("[", &parts, "[main] x1 - y"), None);
        assert_eq!(read("[", &parts, "main] x - y"), None);
        assert_eq!(read("", &[('5', 0, ""), ('a', 0, ";")], "1 2 3abc;!").unwrap(), ["1 2 3", "abc", "!"]);
        assert_eq!(read("", &[('a', 0, ";")], "abc;def"), None, "the rest does not fit");
    }

    #[test]
    fn padding_is_no_value() {
        let parts = [('a', 5, " "), ('b', 0, " ["), ('C', 8, "]")];
        assert_eq!(read("", &parts, "INFO  x [main    ]").unwrap(), ["INFO", "x", "main", ""]);
        assert_eq!(read("", &parts, " INFO x [    main]").unwrap(), ["INFO", "x", "main", ""]);
        assert_eq!(read("", &parts, "ERROR x [a long name]").unwrap(), ["ERROR", "x", "a long name", ""]);
        assert_eq!(read("", &parts, "abc"), None);
    }

    #[test]
    fn a_hostile_line_is_given_up() {
        let parts = [('A', 0, "a"), ('B', 0, "a"), ('C', 0, "a"), ('D', 0, "a"), ('E', 0, "b")];
        assert_eq!(read("", &parts, &"a".repeat(100_000)), None);
    }
}
