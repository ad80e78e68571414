//! Numbers as text with PostgreSQL's patterns (`to_char(1234.5, '9,999.99')`), and back (`to_number`): PostgreSQL manual,
//! Data Type Formatting Functions, table of numeric patterns. There is one locale: `.` and `,`, no currency sign.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use datafusion::common::Result as DfResult;

use super::scalar::{Arguments, Scalar, Type, unchecked};
use crate::error::{Error, Kind, Result};

pub static SPECS: &[Scalar] = &[Scalar {
    name: "to_number",
    syntax: "to_number(text, pattern)",
    summary: "the number that a text says, with a pattern as in PostgreSQL",
    sample: ("to_number('1,234.5-', '9G999D9S')", "-1234.5"),
    forms: &[&[Type::Text, Type::Text]],
    result: Type::Double,
    check: unchecked,
    rows: to_number,
}];

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Nine,
    Zero,
    Point,
    Group,
    Currency,
    /// `S`: before the number or behind it.
    Sign,
    Minus,
    Plus,
    PlusMinus,
    Angle,
    Roman(bool),
    Ordinal(bool),
    Shift,
    Exponent,
    Text(String),
}

/// A pattern that has been read.
#[derive(Debug)]
pub struct Pattern {
    nodes: Vec<Node>,
    fill: bool,
}

const WORDS: &[(&str, Node)] = &[
    ("EEEE", Node::Exponent),
    ("PR", Node::Angle),
    ("PL", Node::Plus),
    ("MI", Node::Minus),
    ("SG", Node::PlusMinus),
    ("S", Node::Sign),
    ("D", Node::Point),
    (".", Node::Point),
    ("G", Node::Group),
    (",", Node::Group),
    ("L", Node::Currency),
    ("V", Node::Shift),
    ("9", Node::Nine),
    ("0", Node::Zero),
];

impl Pattern {
    /// Reads a pattern; what is no field stands for itself.
    pub fn read(text: &str) -> Pattern {
        let (mut nodes, mut fill, mut rest) = (Vec::new(), false, text);
        while let Some(first) = rest.chars().next() {
            let starts = |word: &str| rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
            if let Some(quoted) = rest.strip_prefix('"') {
                let end = quoted.find('"').unwrap_or(quoted.len());
                nodes.push(Node::Text(quoted[..end].to_string()));
                rest = quoted.get(end + 1..).unwrap_or("");
            } else if starts("FM") {
                fill = true;
                rest = &rest[2..];
            } else if starts("RN") || starts("TH") {
                let upper = rest.starts_with(|c: char| c.is_ascii_uppercase());
                nodes.push(if starts("RN") { Node::Roman(upper) } else { Node::Ordinal(upper) });
                rest = &rest[2..];
            } else if starts("B") {
                rest = &rest[1..];
            } else if let Some((word, node)) = WORDS.iter().find(|(word, _)| starts(word)) {
                nodes.push(node.clone());
                rest = &rest[word.len()..];
            } else {
                nodes.push(Node::Text(first.to_string()));
                rest = &rest[first.len_utf8()..];
            }
        }
        Pattern { nodes, fill }
    }

    /// Digits before and behind the point, and those by which `V` shifts.
    fn places(&self) -> (usize, usize, usize) {
        let (mut before, mut behind, mut shifted) = (0, 0, 0);
        let (mut point, mut shift) = (false, false);
        for node in &self.nodes {
            match node {
                Node::Point => point = true,
                Node::Shift => shift = true,
                Node::Nine | Node::Zero if shift => shifted += 1,
                Node::Nine | Node::Zero if point => behind += 1,
                Node::Nine | Node::Zero => before += 1,
                _ => {}
            }
        }
        (before + shifted, behind, shifted)
    }

    /// A number, given in decimal digits, as the pattern says.
    pub fn format(&self, number: &str) -> String {
        if !number.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit()) {
            return number.to_string(); // NaN and infinities
        }
        if let Some(upper) =
            self.nodes.iter().find_map(|n| if let Node::Roman(upper) = n { Some(*upper) } else { None })
        {
            return self.roman(number, upper);
        }
        if self.nodes.contains(&Node::Exponent) {
            return self.scientific(number);
        }
        let (before, behind, shifted) = self.places();
        let (negative, digits, point) = decimal(number);
        let (mut whole, fraction) = rounded(&digits, point + shifted as i64, behind);
        let negative = negative && !(whole.chars().all(|c| c == '0') && fraction.chars().all(|c| c == '0'));
        whole = whole.trim_start_matches('0').to_string();
        let overflows = whole.len() > before;
        if whole.is_empty() && (behind == 0 || before == 0) && before > 0 {
            whole.push('0');
        }
        // Where the number begins among the places before the point.
        let first = before.saturating_sub(whole.len());
        let zero_from = self
            .nodes
            .iter()
            .take_while(|n| !matches!(n, Node::Point))
            .filter(|n| matches!(n, Node::Nine | Node::Zero));
        let zero_from = zero_from.enumerate().find(|(_, n)| matches!(n, Node::Zero)).map_or(usize::MAX, |(at, _)| at);
        let explicit = self
            .nodes
            .iter()
            .any(|n| matches!(n, Node::Sign | Node::Minus | Node::PlusMinus | Node::Angle | Node::Plus));
        let sign_leads = self.sign_leads();
        // Zeros at the end that only nines ask for are left out with FM.
        let last_zero = self.behind().iter().rposition(|n| matches!(n, Node::Zero)).map_or(0, |at| at + 1);
        let shown = match self.fill {
            true => fraction.trim_end_matches('0').len().max(last_zero),
            false => fraction.len(),
        };
        let mut out = String::new();
        let (mut place, mut after_point, mut begun, mut signed) = (0, 0, false, false);
        let mut in_fraction = false;
        let angle = self.nodes.contains(&Node::Angle);
        for node in &self.nodes {
            match node {
                Node::Nine | Node::Zero if !in_fraction => {
                    let filled = place >= first || place >= zero_from;
                    if filled && !begun {
                        begun = true;
                        // The sign stands right before the first digit.
                        if !signed && (!explicit || sign_leads || angle) {
                            self.put_sign(&mut out, negative, sign_leads, angle);
                            signed = true;
                        }
                    }
                    if overflows {
                        if !begun {
                            begun = true;
                            if !signed && (!explicit || sign_leads || angle) {
                                self.put_sign(&mut out, negative, sign_leads, angle);
                                signed = true;
                            }
                        }
                        out.push('#');
                    } else if place >= first {
                        out.push_str(&whole[place - first..place - first + 1]);
                    } else if place >= zero_from {
                        out.push('0');
                    } else if !self.fill {
                        out.push(' ');
                    }
                    place += 1;
                }
                Node::Nine | Node::Zero => {
                    if overflows {
                        out.push('#');
                    } else if after_point < shown {
                        out.push_str(&fraction[after_point..after_point + 1]);
                    }
                    after_point += 1;
                }
                Node::Point => {
                    if !signed && (!explicit || sign_leads || angle) {
                        self.put_sign(&mut out, negative, sign_leads, angle);
                        signed = true;
                    }
                    begun = true;
                    in_fraction = true;
                    out.push('.');
                }
                Node::Group if begun => out.push(','),
                Node::Group | Node::Currency if !self.fill => out.push(' '),
                Node::Sign if !sign_leads => out.push(if negative { '-' } else { '+' }),
                Node::Minus if negative => out.push('-'),
                Node::Minus if !self.fill => out.push(' '),
                Node::Plus => {
                    if !negative {
                        out.push('+');
                    } else if !self.fill {
                        out.push(' ');
                    }
                }
                Node::PlusMinus => out.push(if negative { '-' } else { '+' }),
                Node::Angle if negative => out.push('>'),
                Node::Angle if !self.fill => out.push(' '),
                Node::Ordinal(upper) if !negative && behind == 0 => {
                    let ending = super::datetime::ending(&whole);
                    out.push_str(&if *upper { ending.to_uppercase() } else { ending.to_string() });
                }
                Node::Text(text) => out.push_str(text),
                _ => {}
            }
        }
        out
    }

    /// Whether `S` stands before the first digit.
    fn sign_leads(&self) -> bool {
        let digit = self.nodes.iter().position(|n| matches!(n, Node::Nine | Node::Zero | Node::Point));
        let sign = self.nodes.iter().position(|n| matches!(n, Node::Sign));
        matches!((sign, digit), (Some(sign), Some(digit)) if sign < digit)
    }

    /// The places behind the point.
    fn behind(&self) -> Vec<&Node> {
        let after = self.nodes.iter().skip_while(|n| !matches!(n, Node::Point));
        after.filter(|n| matches!(n, Node::Nine | Node::Zero)).collect()
    }

    fn put_sign(&self, out: &mut String, negative: bool, sign_leads: bool, angle: bool) {
        match (negative, sign_leads, angle) {
            (true, _, true) => out.push('<'),
            (true, ..) => out.push('-'),
            (false, true, _) => out.push('+'),
            (false, ..) if !self.fill => out.push(' '),
            (false, ..) => {}
        }
    }

    fn scientific(&self, number: &str) -> String {
        let (_, behind, _) = self.places();
        let value: f64 = number.parse().unwrap_or(0.0);
        let text = format!("{:.behind$e}", value.abs());
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        let sign = match value < 0.0 {
            true => "-",
            false if self.fill => "",
            false => " ",
        };
        format!("{sign}{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
    }

    fn roman(&self, number: &str, upper: bool) -> String {
        const PARTS: [(u32, &str); 13] = [
            (1000, "M"),
            (900, "CM"),
            (500, "D"),
            (400, "CD"),
            (100, "C"),
            (90, "XC"),
            (50, "L"),
            (40, "XL"),
            (10, "X"),
            (9, "IX"),
            (5, "V"),
            (4, "IV"),
            (1, "I"),
        ];
        let value: f64 = number.parse().unwrap_or(0.0);
        let mut left = value.round() as i64;
        if !(1..4000).contains(&left) {
            return "#".repeat(15);
        }
        let mut text = String::new();
        for (size, part) in PARTS {
            while left >= i64::from(size) {
                text.push_str(part);
                left -= i64::from(size);
            }
        }
        let text = if upper { text } else { text.to_lowercase() };
        if self.fill { text } else { format!("{text:>15}") }
    }
}

/// Sign, digits, and where the point stands in them, of a number that may have an exponent.
fn decimal(number: &str) -> (bool, String, i64) {
    let (negative, number) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number),
    };
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    (negative, format!("{whole}{fraction}"), whole.len() as i64 + exponent)
}

/// The digits before and behind the point, rounded to so many behind it; halves away from zero.
fn rounded(digits: &str, point: i64, behind: usize) -> (String, String) {
    let mut all: Vec<u8> = Vec::new();
    let digit = |at: i64| usize::try_from(at).ok().and_then(|at| digits.as_bytes().get(at)).map_or(0, |c| c - b'0');
    let whole = point.clamp(0, 400);
    let start = point - whole;
    for at in start..point + behind as i64 {
        all.push(digit(at));
    }
    let mut carry = digit(point + behind as i64) >= 5;
    for digit in all.iter_mut().rev() {
        if !carry {
            break;
        }
        *digit = (*digit + 1) % 10;
        carry = *digit == 0;
    }
    let mut text: String = all.iter().map(|digit| char::from(b'0' + digit)).collect();
    let mut whole = whole as usize;
    if carry {
        text.insert(0, '1');
        whole += 1;
    }
    (text[..whole].to_string(), text[whole..].to_string())
}

fn to_number(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let (texts, patterns) = (arguments.text(0)?, arguments.text(1)?);
    let number = |row: usize| -> Result<Option<f64>> {
        match (texts.get(row), patterns.get(row)) {
            (Some(text), Some(pattern)) => read(text, &Pattern::read(pattern)).map(Some),
            _ => Ok(None),
        }
    };
    Ok(Arc::new((0..arguments.rows).map(number).collect::<Result<Float64Array>>()?))
}

fn read(text: &str, pattern: &Pattern) -> Result<f64> {
    let mut digits = String::new();
    let mut negative = text.contains('-') || (pattern.nodes.contains(&Node::Angle) && text.contains('<'));
    let mut rest = text.trim_start();
    let signs = |c: char| matches!(c, '-' | '+' | '<' | '>');
    for node in &pattern.nodes {
        rest = rest.trim_start_matches(signs);
        match node {
            Node::Nine | Node::Zero => {
                rest = rest.trim_start();
                if let Some(c) = rest.chars().next().filter(char::is_ascii_digit) {
                    digits.push(c);
                    rest = &rest[1..];
                }
            }
            Node::Point if !digits.contains('.') => {
                if let Some(after) = rest.strip_prefix('.') {
                    digits.push('.');
                    rest = after;
                }
            }
            Node::Group => rest = rest.strip_prefix(',').unwrap_or(rest),
            Node::Currency => {
                rest = rest.trim_start_matches(|c: char| !c.is_ascii_digit() && !signs(c) && c != '.');
            }
            Node::Text(_) if rest.starts_with(|c: char| !c.is_ascii_digit()) => {
                rest = rest.chars().next().map_or(rest, |c| &rest[c.len_utf8()..]);
            }
            _ => {}
        }
    }
    if !digits.bytes().any(|c| c.is_ascii_digit()) {
        let message = format!("invalid input syntax for type numeric: \"{}\"", digits.trim());
        return Err(Error::new(Kind::InvalidText, message));
    }
    let value: f64 = digits.parse().map_err(|_| Error::new(Kind::InvalidText, "invalid number"))?;
    negative &= value != 0.0;
    Ok(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As PostgreSQL 15 prints them.
    #[test]
    fn patterns_are_those_of_postgres() {
        for (number, pattern, expected) in [
            ("125", "999", " 125"),
            ("-125", "999", "-125"),
            ("-12", "9999", "  -12"),
            ("125.8", "999D9", " 125.8"),
            ("-125.8", "999D99S", "125.80-"),
            ("1234567.891", "9,999,999.99", " 1,234,567.89"),
            ("1234.5", "9,999,999.99", "     1,234.50"),
            ("0.1", "0.9", " 0.1"),
            ("0.1", "9.9", "  .1"),
            ("12", "000", " 012"),
            ("12", "FM000", "012"),
            ("482", "999th", " 482nd"),
            ("485", "RN", "        CDLXXXV"),
            ("148.5", "999.999", " 148.500"),
            ("148.5", "FM999.999", "148.5"),
            ("148.5", "FM999.990", "148.500"),
            ("-485", "999PR", "<485>"),
            ("485", "999PR", " 485 "),
            ("-485", "SG999", "-485"),
            ("-485", "999MI", "485-"),
            ("485", "9 9 9", " 4 8 5"),
            ("1485", "9G999", " 1,485"),
            ("12.45", "99V9", " 125"),
            ("0.0004859", "9.99EEEE", " 4.86e-04"),
            ("1234", "999", " ###"),
            ("0", "9", " 0"),
            ("0.995", "9.99", " 1.00"),
            ("485", "\"Good number:\"999", "Good number: 485"),
        ] {
            assert_eq!(Pattern::read(pattern).format(number), expected, "{number} {pattern}");
        }
    }

    #[test]
    fn texts_are_numbers() {
        for (text, pattern, expected) in [
            ("12,454.8-", "99G999D9S", -12454.8),
            ("1,234.56", "9,999.99", 1234.56),
            ("<5>", "9PR", -5.0),
            (" 42", "99", 42.0),
        ] {
            assert_eq!(read(text, &Pattern::read(pattern)).unwrap(), expected, "{text}");
        }
        assert!(read("x", &Pattern::read("999")).is_err());
    }
}
