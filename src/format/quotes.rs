//! Where does a value in quotes end? Two ways to write a quote inside: behind a backslash, or doubled.

use memchr::{memchr, memchr2};

/// The closing quote of the value whose inside starts at `start`, and whether there are escapes in it: whatever follows a
/// backslash does not end the value.
#[inline]
pub fn escaped(line: &[u8], start: usize, quote: u8) -> Option<(usize, bool)> {
    let mut from = start;
    let mut escaped = false;
    loop {
        let at = from + memchr2(quote, b'\\', line.get(from..)?)?;
        if line[at] == quote {
            return Some((at, escaped));
        }
        escaped = true;
        from = at + 2;
    }
}

/// The closing quote of the value whose inside starts at `start`, and whether there are doubled quotes in it.
#[inline]
pub fn doubled(line: &[u8], start: usize, quote: u8) -> Option<(usize, bool)> {
    let mut from = start;
    let mut doubled = false;
    loop {
        let end = from + memchr(quote, line.get(from..)?)?;
        if line.get(end + 1) != Some(&quote) {
            return Some((end, doubled));
        }
        doubled = true;
        from = end + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_quotes() {
        assert_eq!(escaped(br#""ab" c"#, 1, b'"'), Some((3, false)));
        assert_eq!(escaped(br#""a\"\\" c"#, 1, b'"'), Some((6, true)));
        assert_eq!(escaped(br#""a\""#, 1, b'"'), None);
        assert_eq!(escaped(br#""a\"#, 1, b'"'), None);
        assert_eq!(doubled(br#""a""" c"#, 1, b'"'), Some((4, true)));
        assert_eq!(doubled(br#"""""#, 1, b'"'), None);
        assert_eq!(doubled(br#"""""#, 2, b'"'), Some((2, false)));
        assert_eq!(doubled(b"'a'", 1, b'\''), Some((2, false)));
    }
}
