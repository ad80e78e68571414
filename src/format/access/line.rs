//! One access log line: where its fields are. A pure function of the line's bytes, which touches no column.

use memchr::{memchr, memrchr};

use crate::format::column::Span;
use crate::format::quotes;
use crate::format::timestamp::ClfReader;

/// The fields of one line, as places in the block. `None` is NULL.
pub struct Line {
    pub ts: i64,
    pub client: Option<Span>,
    pub ident: Option<Span>,
    pub user: Option<Span>,
    pub method: Option<Span>,
    pub path: Option<Quoted>,
    pub protocol: Option<Span>,
    pub status: Option<i32>,
    pub bytes: Option<i64>,
    pub referer: Option<Quoted>,
    pub agent: Option<Quoted>,
}

/// The inside of a quoted field.
#[derive(Clone, Copy)]
pub struct Quoted {
    pub span: Span,
    /// Whether it holds a backslash, that is: whether its text differs from its bytes.
    pub escaped: bool,
}

/// Finds the fields of `line`, which lies at `base` in the block; or says what is wrong with it.
#[inline]
pub fn scan(line: &[u8], base: usize, combined: bool, clock: &mut ClfReader) -> Result<Line, &'static str> {
    if line.is_empty() {
        return Err("empty line");
    }
    let field = |start: usize, end: usize| -> Option<Span> {
        (line[start..end] != *b"-").then(|| Span::new(base + start, base + end))
    };
    let word = |from: usize| memchr(b' ', &line[from..]).map(|len| from + len);

    let client_end = word(0).ok_or("no time in brackets")?;
    let ident = client_end + 1;
    let ident_end = word(ident).ok_or("no time in brackets")?;
    let user = ident_end + 1;
    let (user_end, ts, at) = user_and_time(line, user, clock)?;

    let request_at = line[at..].strip_prefix(b" \"").map(|_| at + 2).ok_or("no request in quotes after the time")?;
    let (request, request_end) = quoted(line, request_at, base).ok_or("the request has no closing quote")?;
    let (method, path, protocol) = split_request(&line[request_at..request_end], base + request_at, request.escaped);

    let rest = line[request_end + 1..].strip_prefix(b" ").ok_or("no status after the request")?;
    let (status, rest) = match rest {
        [a @ b'0'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', rest @ ..] => {
            let digit = |d: &u8| i32::from(d - b'0');
            (Some(digit(a) * 100 + digit(b) * 10 + digit(c)), rest)
        }
        [b'-', b' ', rest @ ..] => (None, rest),
        [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9'] => return Err("no size after the status"),
        _ => return Err("status is not a number of three digits"),
    };
    let (bytes, rest) = size(rest).ok_or("size is not a number")?;

    let (mut referer, mut agent) = (None, None);
    if combined {
        let referer_at = line.len() - rest.strip_prefix(b" \"").ok_or("no referer in quotes after the size")?.len();
        let (found, end) = quoted(line, referer_at, base).ok_or("the referer has no closing quote")?;
        referer = null_dash(line, base, found);
        let tail = line[end + 1..].strip_prefix(b" \"").ok_or("no user agent in quotes after the referer")?;
        let agent_at = line.len() - tail.len();
        let (found, end) = quoted(line, agent_at, base).ok_or("the user agent has no closing quote")?;
        agent = null_dash(line, base, found);
        if end + 1 != line.len() {
            return Err("text after the user agent");
        }
    } else if !rest.is_empty() {
        return Err("text after the size");
    }
    let (client, ident) = (field(0, client_end), field(ident, ident_end));
    let user = field(user, user_end);
    Ok(Line { ts, client, ident, user, method, path, protocol, status, bytes, referer, agent })
}

/// The end of the user name that starts at `user`, the time behind it, and where the line goes on. Servers write user
/// names as they are, spaces and brackets included, so the name ends at the first ` [` that a time follows.
#[inline]
fn user_and_time(line: &[u8], user: usize, clock: &mut ClfReader) -> Result<(usize, i64, usize), &'static str> {
    const TIME_LEN: usize = 26;
    let mut reason = "no time in brackets";
    let mut from = user;
    while let Some(len) = memchr(b'[', &line[from..]) {
        let bracket = from + len;
        if bracket > user && line[bracket - 1] == b' ' {
            reason = "the time is not like 17/May/2015:10:05:03 +0000";
            let time_end = bracket + 1 + TIME_LEN;
            if line.get(time_end) == Some(&b']')
                && let Some(ts) = clock.read(&line[bracket + 1..time_end])
            {
                return Ok((bracket - 1, ts, time_end + 1));
            }
        }
        from = bracket + 1;
    }
    // `client [time]` has its time where ident or user should be.
    Err(if line.contains(&b'[') && reason == "no time in brackets" {
        "no ident and user before the time"
    } else {
        reason
    })
}

/// The quoted field whose inside starts at `start`, and where its closing quote is.
#[inline]
fn quoted(line: &[u8], start: usize, base: usize) -> Option<(Quoted, usize)> {
    let (end, escaped) = quotes::escaped(line, start, b'"')?;
    Some((Quoted { span: Span::new(base + start, base + end), escaped }, end))
}

#[inline]
fn null_dash(line: &[u8], base: usize, field: Quoted) -> Option<Quoted> {
    let range = field.span.range();
    (line[range.start - base..range.end - base] != *b"-").then_some(field)
}

/// Method, path and protocol of a request at `base`.
#[inline]
pub fn split_request(request: &[u8], base: usize, escaped: bool) -> (Option<Span>, Option<Quoted>, Option<Span>) {
    if let (Some(first), Some(last)) = (memchr(b' ', request), memrchr(b' ', request))
        && first < last
        && is_method(&request[..first])
        && is_protocol(&request[last + 1..])
    {
        return (
            Some(Span::new(base, base + first)),
            Some(Quoted { span: Span::new(base + first + 1, base + last), escaped }),
            Some(Span::new(base + last + 1, base + request.len())),
        );
    }
    let whole = Quoted { span: Span::new(base, base + request.len()), escaped };
    (None, (request != b"-").then_some(whole), None)
}

/// `GET`, `M-SEARCH`, `SSTP_DUPLEX_POST`.
#[inline]
fn is_method(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|&b| b.is_ascii_alphabetic() || b == b'-' || b == b'_')
}

/// `HTTP/1.1`, `RTSP/1.0`.
#[inline]
fn is_protocol(word: &[u8]) -> bool {
    let version = word.strip_prefix(b"HTTP/").or_else(|| {
        let slash = memchr(b'/', word)?;
        (slash > 0 && word[..slash].iter().all(u8::is_ascii_alphabetic)).then(|| &word[slash + 1..])
    });
    version.is_some_and(|v| {
        v.first().is_some_and(u8::is_ascii_digit) && v.iter().all(|b| b.is_ascii_digit() || *b == b'.')
    })
}

/// A number of bytes or `-`, and what follows it.
#[inline]
fn size(text: &[u8]) -> Option<(Option<i64>, &[u8])> {
    if let [b'-', rest @ ..] = text {
        return Some((None, rest));
    }
    let mut value: i64 = 0;
    let mut digits = 0;
    while let Some(b @ b'0'..=b'9') = text.get(digits) {
        value = value.checked_mul(10)?.checked_add(i64::from(b - b'0'))?;
        digits += 1;
    }
    (digits > 0).then(|| (Some(value), &text[digits..]))
}

/// The text that an escaped field stands for: `\"`, `\\`, `\n`, `\r`, `\t` and `\xHH` (Apache manual, mod_log_config,
/// "Format Notes"). `None` when its bytes would not be text (binary sent as a request): then the field stays as it is
/// written, and nothing is lost.
pub fn unescape(field: &[u8]) -> Option<String> {
    let hex = |at: usize| -> Option<u8> {
        let digits = std::str::from_utf8(field.get(at..at + 2)?).ok()?;
        u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
    };
    let mut bytes = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let (byte, len) = match (field[at], field.get(at + 1)) {
            (b'\\', Some(&quoted @ (b'"' | b'\\'))) => (quoted, 2),
            (b'\\', Some(b'n')) => (b'\n', 2),
            (b'\\', Some(b'r')) => (b'\r', 2),
            (b'\\', Some(b't')) => (b'\t', 2),
            (b'\\', Some(b'x')) => match hex(at + 2) {
                Some(byte) => (byte, 4),
                None => (b'\\', 1),
            },
            (byte, _) => (byte, 1),
        };
        bytes.push(byte);
        at += len;
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields of a combined line, NULL as `~`.
    fn fields(line: &str) -> Result<String, &'static str> {
        let found = scan(line.as_bytes(), 0, true, &mut ClfReader::default())?;
        let text = |span: Option<Span>| span.map_or("~", |s| &line[s.range()]);
        let quoted = |q: Option<Quoted>| text(q.map(|q| q.span));
        let parts = [
            text(found.client),
            text(found.ident),
            text(found.user),
            text(found.method),
            quoted(found.path),
            text(found.protocol),
            &found.status.map_or("~".to_string(), |s| s.to_string()),
            &found.bytes.map_or("~".to_string(), |s| s.to_string()),
            quoted(found.referer),
            quoted(found.agent),
        ]
        .join("|");
        Ok(parts)
    }

    fn with_request(request: &str) -> String {
        format!("c - - [17/May/2015:10:05:03 +0000] \"{request}\" 200 1 \"-\" \"\"")
    }

    #[test]
    fn fields_of_a_line() {
        let line =
            r#"1.2.3.4 id frank [17/May/2015:10:05:03 +0000] "GET /a?b=c HTTP/1.1" 304 - "-" "Mozilla (\"x\") \\""#;
        assert_eq!(fields(line).unwrap(), r#"1.2.3.4|id|frank|GET|/a?b=c|HTTP/1.1|304|~|~|Mozilla (\"x\") \\"#);
    }

    #[test]
    fn user_names_may_hold_spaces_and_brackets() {
        let line = r#"c - John [Jr.] [x] [17/May/2015:10:05:03 +0000] "-" - 5 "" "a""#;
        assert_eq!(fields(line).unwrap(), "c|~|John [Jr.] [x]|~|~|~|~|5||a");
    }

    #[test]
    fn requests_that_are_none() {
        for (request, expected) in [
            ("GET /a b HTTP/1.0", "GET|/a b|HTTP/1.0"),
            ("GET /x", "~|GET /x|~"),
            ("GET  HTTP/1.0", "GET||HTTP/1.0"),
            ("-", "~|~|~"),
            ("", "~||~"),
            (r"\x16\x03 a b", r"~|\x16\x03 a b|~"),
            ("GET / HTTP", "~|GET / HTTP|~"),
            ("RTSP_X rtsp://h RTSP/1.0", "RTSP_X|rtsp://h|RTSP/1.0"),
        ] {
            let all = fields(&with_request(request)).unwrap();
            assert_eq!(all, format!("c|~|~|{expected}|200|1|~|"), "{request}");
        }
    }

    #[test]
    fn reasons() {
        let time = "[17/May/2015:10:05:03 +0000]";
        for (line, reason) in [
            ("".to_string(), "empty line"),
            (" \"curl/7.54.0\"".to_string(), "no time in brackets"),
            (format!("c {time} \"GET / HTTP/1.0\" 200 1 \"-\" \"-\""), "no ident and user before the time"),
            ("c - - [17/May/2015] \"-\" 200 1".to_string(), "the time is not like 17/May/2015:10:05:03 +0000"),
            ("c - - [31/Feb/2015:10:05:03 +0000] ".to_string(), "the time is not like 17/May/2015:10:05:03 +0000"),
            (format!("c - - {time} GET"), "no request in quotes after the time"),
            (format!("c - - {time} \"GET / HTTP/1.0"), "the request has no closing quote"),
            (format!("c - - {time} \"GET / HTTP/1.0\\"), "the request has no closing quote"),
            (format!("c - - {time} \"-\" abc 1"), "status is not a number of three digits"),
            (format!("c - - {time} \"-\" 200"), "no size after the status"),
            (format!("c - - {time} \"-\" 200 x"), "size is not a number"),
            (format!("c - - {time} \"-\" 200 99999999999999999999"), "size is not a number"),
            (format!("c - - {time} \"-\" 200 1"), "no referer in quotes after the size"),
            (format!("c - - {time} \"-\" 200 1 \"-\""), "no user agent in quotes after the referer"),
            (format!("c - - {time} \"-\" 200 1 \"-\" \"Mozilla"), "the user agent has no closing quote"),
            (format!("c - - {time} \"-\" 200 1 \"-\" \"-\" \"x\""), "text after the user agent"),
        ] {
            assert_eq!(fields(&line), Err(reason), "{line}");
        }
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape(br#"a \"b\" \\ \x41\xc3\xa9 \t."#).as_deref(), Some("a \"b\" \\ Aé \t."));
        assert_eq!(unescape(br"\q \x4 \").as_deref(), Some(r"\q \x4 \"));
        assert_eq!(unescape(br"\x16\x03\xfc"), None);
        assert_eq!(unescape(br"\x00"), None);
    }
}
