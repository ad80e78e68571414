//! Parts of URLs: of absolute ones, as in a referer, and of what stands in the request line of an access log.
//!
//! A text is cut where RFC 3986 (section 3) and RFC 9112 (section 3.2, request targets) say, and its parts are given as
//! they are written: a log should show what was asked for, also when it is `/a/../b`. Only hosts and schemes are brought
//! to their one spelling (hosts by the `url` crate), because they are compared without regard to case. What has none of
//! these forms gives NULL:
//!
//! ```text
//!     https://ann@example.org:8443/a/b?x=1#top       /a/b?x=1       *        example.org:443 (CONNECT)
//!     scheme      host        port path  query       path query     path     host        port
//! ```

use core::net::Ipv4Addr;
use std::borrow::Cow;

use arrow::array::ArrayRef;
use arrow::datatypes::Int32Type;
use datafusion::common::Result as DfResult;
use memchr::{memchr, memchr2, memrchr};
use url::Host;

use super::scalar::{Arguments, Scalar, Type, map_text, numbers, unchecked};

pub static SPECS: &[Scalar] = &[
    Scalar {
        name: "url_path",
        syntax: "url_path(url)",
        summary: "the path of a URL or request target, as written, without what follows ? and #",
        sample: ("url_path('/a/b?x=1#top')", "/a/b"),
        forms: &[&[Type::Text]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| map_text(arguments, |url, _| path(url).map(Cow::Borrowed)),
    },
    Scalar {
        name: "url_host",
        syntax: "url_host(url)",
        summary: "the host of a URL in lower case; an IPv6 address without its brackets",
        sample: ("url_host('https://ann@Example.org:8443/a')", "example.org"),
        forms: &[&[Type::Text]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| map_text(arguments, |url, _| host(split(url)?.host()?.0)),
    },
    Scalar {
        name: "url_port",
        syntax: "url_port(url)",
        summary: "the port that a URL names; NULL where it leaves it to its scheme",
        sample: ("url_port('https://example.org:8443/a')", "8443"),
        forms: &[&[Type::Text]],
        result: Type::Integer,
        check: unchecked,
        rows: port,
    },
    Scalar {
        name: "url_scheme",
        syntax: "url_scheme(url)",
        summary: "the scheme of a URL in lower case",
        sample: ("url_scheme('HTTPS://example.org/')", "https"),
        forms: &[&[Type::Text]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| map_text(arguments, |url, _| split(url)?.scheme.map(lower)),
    },
    Scalar {
        name: "url_query",
        syntax: "url_query(url)",
        summary: "what stands between ? and # of a URL or request target, as written",
        sample: ("url_query('/a/b?x=1&y=2#top')", "x=1&y=2"),
        forms: &[&[Type::Text]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| map_text(arguments, |url, _| split(url)?.query.map(Cow::Borrowed)),
    },
    Scalar {
        name: "url_fragment",
        syntax: "url_fragment(url)",
        summary: "what stands behind # in a URL, as written",
        sample: ("url_fragment('https://example.org/a#top')", "top"),
        forms: &[&[Type::Text]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| map_text(arguments, |url, _| split(url)?.fragment.map(Cow::Borrowed)),
    },
    Scalar {
        name: "url_param",
        syntax: "url_param(url, name)",
        summary: "the value of the first parameter of that name in the query of a URL, decoded",
        sample: ("url_param('/search?q=caf%C3%A9+noir&page=2', 'q')", "café noir"),
        forms: &[&[Type::Text, Type::Text]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| {
            let names = arguments.text(1)?;
            map_text(arguments, |url, row| param(split(url)?.query?, names.get(row)?))
        },
    },
    Scalar {
        name: "url_decode",
        syntax: "url_decode(text)",
        summary: "a part of a query with its %41 and + decoded; bytes that are not UTF-8 become U+FFFD",
        sample: ("url_decode('caf%C3%A9+noir')", "café noir"),
        forms: &[&[Type::Text]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| map_text(arguments, |text, _| Some(decode(text))),
    },
    Scalar {
        name: "url_encode",
        syntax: "url_encode(text)",
        summary: "a text in the form in which it can stand anywhere in a URL",
        sample: ("url_encode('café & more')", "caf%C3%A9%20%26%20more"),
        forms: &[&[Type::Text]],
        result: Type::Text,
        check: unchecked,
        rows: |arguments| map_text(arguments, |text, _| Some(encode(text))),
    },
];

/// The parts of a URL or request target, as written.
#[derive(Debug, Default, PartialEq)]
struct Parts<'a> {
    scheme: Option<&'a str>,
    authority: Option<&'a str>,
    path: Option<&'a str>,
    query: Option<&'a str>,
    fragment: Option<&'a str>,
}

/// Cuts a text into its parts; `None` when it is no URL and no request target.
fn split(text: &str) -> Option<Parts<'_>> {
    let (text, fragment) = cut(text, memchr(b'#', text.as_bytes()));
    let (text, query) = cut(text, memchr(b'?', text.as_bytes()));
    let rest = Parts { query, fragment, ..Parts::default() };
    if text.starts_with('/') || text == "*" {
        return Some(Parts { path: Some(text), ..rest });
    }
    if is_host_and_port(text) {
        return Some(Parts { authority: Some(text), ..rest });
    }
    let (scheme, after) = text.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c));
    if !is_scheme {
        return None;
    }
    let Some(after) = after.strip_prefix("//") else {
        return Some(Parts { scheme: Some(scheme), path: Some(after), ..rest });
    };
    let (authority, path) = after.split_at(memchr(b'/', after.as_bytes()).unwrap_or(after.len()));
    // A URL without a path asks for the root.
    let path = if path.is_empty() { "/" } else { path };
    Some(Parts { scheme: Some(scheme), authority: Some(authority), path: Some(path), ..rest })
}

/// The text before and behind the byte at `place`.
fn cut(text: &str, place: Option<usize>) -> (&str, Option<&str>) {
    match place {
        Some(place) => (&text[..place], Some(&text[place + 1..])),
        None => (text, None),
    }
}

/// `example.org:443`, as CONNECT has it. This is also how a URL of scheme `example.org` could look, which nobody writes.
fn is_host_and_port(text: &str) -> bool {
    let Some(colon) = memrchr(b':', text.as_bytes()) else { return false };
    let (host, port) = (&text[..colon], &text[colon + 1..]);
    let bracketed = host.starts_with('[') && host.ends_with(']');
    (bracketed || !(host.is_empty() || host.contains([':', '/', '@']))) && parse_port(port).is_some()
}

fn parse_port(text: &str) -> Option<u16> {
    if text.bytes().all(|c| c.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// The path alone, for which most texts in a log need one look.
#[inline]
fn path(text: &str) -> Option<&str> {
    if text.starts_with('/') {
        return Some(&text[..memchr2(b'?', b'#', text.as_bytes()).unwrap_or(text.len())]);
    }
    split(text)?.path
}

impl<'a> Parts<'a> {
    /// Host and port as written.
    fn host(&self) -> Option<(&'a str, Option<u16>)> {
        let authority = self.authority?;
        let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        let end = match place.starts_with('[') {
            true => place.find(']')? + 1,
            false => place.find(':').unwrap_or(place.len()),
        };
        let (host, port) = place.split_at(end);
        match port.strip_prefix(':') {
            None if port.is_empty() => Some((host, None)),
            Some("") => Some((host, None)),
            Some(port) => Some((host, Some(parse_port(port)?))),
            None => None,
        }
    }
}

/// A host in its one spelling.
fn host(text: &str) -> Option<Cow<'_, str>> {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-._".contains(&c);
    if text.bytes().all(plain) {
        // A last label of digits makes it an address, of which there are more spellings.
        let last = text.rsplit('.').next().unwrap_or(text);
        if last.starts_with(|c: char| c.is_ascii_lowercase()) || text.parse::<Ipv4Addr>().is_ok() {
            return Some(Cow::Borrowed(text));
        }
    }
    match Host::parse(text).ok()? {
        Host::Domain(name) => Some(Cow::Owned(name)),
        Host::Ipv4(address) => Some(Cow::Owned(address.to_string())),
        Host::Ipv6(address) => Some(Cow::Owned(address.to_string())),
    }
}

fn port(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let urls = arguments.text(0)?;
    let port = |url: &str| split(url)?.host()?.1;
    Ok(numbers::<Int32Type>(arguments.rows, |row| urls.get(row).and_then(port).map(i32::from)))
}

fn lower(text: &str) -> Cow<'_, str> {
    match text.bytes().any(|c| c.is_ascii_uppercase()) {
        true => Cow::Owned(text.to_ascii_lowercase()),
        false => Cow::Borrowed(text),
    }
}

fn param<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name || (is_encoded(key) && decode(key) == name)).then(|| decode(value))
    })
}

fn is_encoded(text: &str) -> bool {
    memchr2(b'%', b'+', text.as_bytes()).is_some()
}

/// As form data is decoded (WHATWG URL standard, section 5.1): a `%` that begins no escape stands for itself.
fn decode(text: &str) -> Cow<'_, str> {
    if !is_encoded(text) {
        return Cow::Borrowed(text);
    }
    let hex = |byte: Option<&u8>| byte.and_then(|b| char::from(*b).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match (byte, hex(bytes.get(at + 1)), hex(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                at += 2;
            }
            (b'+', ..) => decoded.push(b' '),
            _ => decoded.push(byte),
        }
        at += 1;
    }
    Cow::Owned(match String::from_utf8(decoded) {
        Ok(text) => text,
        Err(err) => String::from_utf8_lossy(err.as_bytes()).into_owned(),
    })
}

/// Leaves what RFC 3986 calls unreserved (section 2.3).
fn encode(text: &str) -> Cow<'_, str> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let stays = |c: u8| c.is_ascii_alphanumeric() || b"-._~".contains(&c);
    if text.bytes().all(stays) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if stays(byte) {
            encoded.push(char::from(byte));
        } else {
            let digit = |n: u8| char::from(HEX[usize::from(n)]);
            encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scheme, host, port, path, query, fragment; `-` for none.
    fn shown(url: &str) -> String {
        let Some(parts) = split(url) else { return "no URL".to_string() };
        assert_eq!(path(url), parts.path, "{url}");
        let text = |part: Option<Cow<'_, str>>| part.map_or_else(|| "-".to_string(), |part| format!("'{part}'"));
        let (name, port) = parts.host().map_or((None, None), |(name, port)| (host(name), port));
        [
            text(parts.scheme.map(lower)),
            text(name),
            text(port.map(|port| port.to_string().into())),
            text(parts.path.map(Cow::Borrowed)),
            text(parts.query.map(Cow::Borrowed)),
            text(parts.fragment.map(Cow::Borrowed)),
        ]
        .join(" ")
    }

    #[test]
    fn urls_and_request_targets_are_cut() {
        for (url, expected) in [
            ("/a/b?x=1#f", "- - - '/a/b' 'x=1' 'f'"),
            ("/", "- - - '/' - -"),
            ("//a/../b?", "- - - '//a/../b' '' -"),
            ("/a#b?c", "- - - '/a' - 'b?c'"),
            ("/a?b?c=/d#", "- - - '/a' 'b?c=/d' ''"),
            ("/login?next=http://x/", "- - - '/login' 'next=http://x/' -"),
            ("*", "- - - '*' - -"),
            ("example.org:443", "- 'example.org' '443' - - -"),
            ("localhost:8080", "- 'localhost' '8080' - - -"),
            ("[2001:DB8::1]:443", "- '2001:db8::1' '443' - - -"),
            ("http://example.org", "'http' 'example.org' - '/' - -"),
            ("http://example.org?x=1", "'http' 'example.org' - '/' 'x=1' -"),
            ("HTTPS://ann:pw@Example.ORG:08443/a/B?x#y", "'https' 'example.org' '8443' '/a/B' 'x' 'y'"),
            ("http://münchen.example/ä", "'http' 'xn--mnchen-3ya.example' - '/ä' - -"),
            ("http://[::ffff:1.2.3.4]:80/", "'http' '::ffff:1.2.3.4' '80' '/' - -"),
            ("http://10.0.0.1:/", "'http' '10.0.0.1' - '/' - -"),
            ("http://0x7f.1/", "'http' '127.0.0.1' - '/' - -"),
            ("http://a b/", "'http' - - '/' - -"),
            ("http://a:99999/x", "'http' - - '/x' - -"),
            ("android-app://com.example/x", "'android-app' 'com.example' - '/x' - -"),
            ("mailto:ann@example.org", "'mailto' - - 'ann@example.org' - -"),
            ("file:///etc/hosts", "'file' - - '/etc/hosts' - -"),
            ("a/b", "no URL"),
            ("", "no URL"),
            ("-", "no URL"),
            ("\\x16\\x03", "no URL"),
            ("1http://x/", "no URL"),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let query = "a=1&b=x+y%21&b=2&c&%64=%zz%4&=empty&e=%ff";
        for (name, expected) in [
            ("a", Some("1")),
            ("b", Some("x y!")),
            ("c", Some("")),
            ("d", Some("%zz%4")),
            ("", Some("empty")),
            ("e", Some("\u{fffd}")),
            ("f", None),
        ] {
            assert_eq!(param(query, name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for text in ["", "plain-text_1.~", "a b+c%d/é\n", "100%"] {
            assert_eq!(decode(&encode(text)), text);
        }
    }
}
