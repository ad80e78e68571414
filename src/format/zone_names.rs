//! Names of zones as programs write them behind a time: `CEST`, `PDT`, `+03`.
//!
//! An abbreviation is not a zone: `IST` is the time of India, of Israel and of Ireland. Those that nearly everybody means
//! alike, and that PostgreSQL reads so without being told, are read here; the others need the option `timezone`.

use super::timestamp::{Zone, zone_offset};

/// Hours east of UTC.
const NAMES: &[(&str, i64)] = &[
    // Europe
    ("WET", 0),
    ("WEST", 1),
    ("BST", 1),
    ("CET", 1),
    ("CEST", 2),
    ("EET", 2),
    ("EEST", 3),
    ("MSK", 3),
    // America
    ("AST", -4),
    ("ADT", -3),
    ("EST", -5),
    ("EDT", -4),
    ("CST", -6),
    ("CDT", -5),
    ("MST", -7),
    ("MDT", -6),
    ("PST", -8),
    ("PDT", -7),
    ("AKST", -9),
    ("AKDT", -8),
    ("HST", -10),
    // Asia and Oceania
    ("JST", 9),
    ("KST", 9),
    ("AEST", 10),
    ("AEDT", 11),
    ("NZST", 12),
    ("NZDT", 13),
];

/// The zone of a time behind which `name` stands. One that the user `chose` holds for all abbreviations, since he knows
/// what his servers mean; but not for what says its offset, or that it is UTC. `None` when nobody knows.
pub fn named(name: &[u8], chosen: Option<Zone>) -> Option<Zone> {
    if let Some(offset) = zone_offset(name) {
        return Some(Zone::Offset(offset));
    }
    let known =
        || NAMES.iter().find(|(known, _)| name == known.as_bytes()).map(|(_, hours)| Zone::Offset(hours * 3600));
    chosen.or_else(known)
}

/// The length of the name at the start of `text`: letters, or an offset.
pub fn length(text: &[u8]) -> Option<usize> {
    let len = match text.first()? {
        b'+' | b'-' => 1 + text[1..].iter().take_while(|b| b.is_ascii_digit() || **b == b':').count(),
        _ => text.iter().take_while(|b| b.is_ascii_alphabetic()).count(),
    };
    (len > 0).then_some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_or_chosen() {
        let india = Zone::Offset(19_800);
        for (name, chosen, expected) in [
            ("CEST", None, Some(Zone::Offset(7200))),
            ("IST", None, None),
            ("IST", Some(india), Some(india)),
            ("CEST", Some(india), Some(india)),
            ("UTC", Some(india), Some(Zone::UTC)),
            ("+03", Some(india), Some(Zone::Offset(10_800))),
            ("-0330", None, Some(Zone::Offset(-12_600))),
            ("cest", None, None),
            ("", None, None),
        ] {
            assert_eq!(named(name.as_bytes(), chosen), expected, "{name}");
        }
        assert_eq!([length(b"CEST ["), length(b"+03:00]"), length(b"[x")], [Some(4), Some(6), None]);
    }
}
