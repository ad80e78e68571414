//! Which texts are more than texts? Those of PostgreSQL's types `json`, `jsonb`, `uuid`, `inet` and `cidr`, which Arrow has
//! no type for. Such a column is one of text whose field says so in its metadata ([`KEY`]); its values are in the type's
//! one spelling ([`Subtype::read`]), so that equal values are equal texts. All that knows texts works on them: grouping,
//! files, the archive. Only who is asked for a type's name or bytes looks at the metadata.

use core::net::IpAddr;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::str::FromStr;

use arrow::datatypes::{DataType, Field};

use super::jsonb;
use crate::error::{Error, Kind, Result};

/// The name in a field's metadata whose value is the object id of a type of PostgreSQL ([`Subtype::oid`]).
pub const KEY: &str = "logweir.type";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subtype {
    Json,
    Jsonb,
    Uuid,
    Inet,
    Cidr,
}

impl Subtype {
    pub const ALL: [Subtype; 5] = [Subtype::Json, Subtype::Jsonb, Subtype::Uuid, Subtype::Inet, Subtype::Cidr];

    /// PostgreSQL's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Subtype::Json => "json",
            Subtype::Jsonb => "jsonb",
            Subtype::Uuid => "uuid",
            Subtype::Inet => "inet",
            Subtype::Cidr => "cidr",
        }
    }

    /// `pg_type.oid`.
    pub fn oid(self) -> i32 {
        match self {
            Subtype::Json => 114,
            Subtype::Jsonb => 3802,
            Subtype::Uuid => 2950,
            Subtype::Inet => 869,
            Subtype::Cidr => 650,
        }
    }

    /// The one with this name, in any case of letters.
    pub fn named(name: &str) -> Option<Subtype> {
        Subtype::ALL.into_iter().find(|subtype| subtype.name().eq_ignore_ascii_case(name))
    }

    /// What the field's metadata says, if it is of text.
    pub fn of(field: &Field) -> Option<Subtype> {
        let oid = field.metadata().get(KEY)?;
        let found = Subtype::ALL.into_iter().find(|subtype| subtype.oid().to_string() == *oid);
        found.filter(|_| is_text(field.data_type()))
    }

    /// The metadata of its fields.
    pub fn metadata(self) -> HashMap<String, String> {
        HashMap::from([(KEY.to_string(), self.oid().to_string())])
    }

    /// A field of it.
    pub fn field(self, name: impl Into<String>) -> Field {
        Field::new(name, DataType::Utf8View, true).with_metadata(self.metadata())
    }

    pub fn is_json(self) -> bool {
        matches!(self, Subtype::Json | Subtype::Jsonb)
    }

    pub fn is_address(self) -> bool {
        matches!(self, Subtype::Inet | Subtype::Cidr)
    }

    /// A value in its one spelling, or what PostgreSQL says to what is none (SQLSTATE 22P02).
    pub fn read<'t>(self, text: &'t str) -> Result<Cow<'t, str>> {
        let name = if self.is_json() { "json" } else { self.name() };
        let wrong = || Error::new(Kind::InvalidText, format!("invalid input syntax for type {name}: \"{text}\""));
        match self {
            // Kept as it is written, as PostgreSQL does.
            Subtype::Json => jsonb::parse(text).map(|_| Cow::Borrowed(text)).map_err(|why| wrong().with_detail(why)),
            Subtype::Jsonb => jsonb::canonical(text).map_err(|why| wrong().with_detail(why)),
            Subtype::Uuid => uuid(text).ok_or_else(wrong),
            Subtype::Inet => Address::inet(text).map(|address| spelled(text, address.to_string())).ok_or_else(wrong),
            Subtype::Cidr => {
                let address = Address::cidr(text).ok_or_else(wrong)?;
                if address.network() != address {
                    return Err(Error::new(Kind::InvalidText, format!("invalid cidr value: \"{text}\""))
                        .with_detail("Value has bits set to right of mask."));
                }
                Ok(spelled(text, address.as_cidr()))
            }
        }
    }
}

pub fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// The spelling, borrowed where the text has it already.
fn spelled<'t>(text: &'t str, spelling: String) -> Cow<'t, str> {
    if spelling == text { Cow::Borrowed(text) } else { Cow::Owned(spelling) }
}

/// Lower case in groups of 8-4-4-4-12; read as PostgreSQL reads it: in any case, in braces, hyphens after each four digits.
fn uuid(text: &str) -> Option<Cow<'_, str>> {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    let bytes = text.as_bytes();
    let is_spelled = bytes.len() == 36
        && bytes.iter().enumerate().all(|(i, byte)| match byte {
            b'-' => HYPHENS.contains(&i),
            b'0'..=b'9' | b'a'..=b'f' => !HYPHENS.contains(&i),
            _ => false,
        });
    if is_spelled {
        return Some(Cow::Borrowed(text));
    }
    let inner = match text.strip_prefix('{') {
        Some(inner) => inner.strip_suffix('}')?,
        None => text,
    };
    let mut digits = String::with_capacity(36);
    let mut count = 0;
    let mut chars = inner.chars().peekable();
    while let Some(c) = chars.next() {
        if !c.is_ascii_hexdigit() {
            return None;
        }
        if HYPHENS.contains(&digits.len()) {
            digits.push('-');
        }
        digits.push(c.to_ascii_lowercase());
        count += 1;
        if count % 4 == 0 && count < 32 {
            chars.next_if_eq(&'-');
        }
    }
    (count == 32).then_some(Cow::Owned(digits))
}

/// An address with the length of its network's part, as `inet` holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub is_v6: bool,
    /// Of IPv4 the lowest 32.
    pub bits: u128,
    pub length: u8,
}

impl Address {
    /// Bits of an address of its family.
    pub fn width(&self) -> u8 {
        if self.is_v6 { 128 } else { 32 }
    }

    /// `192.168.1.5`, `192.168.1.5/24`, `192.168.1/24`, `::1`.
    pub fn inet(text: &str) -> Option<Address> {
        Address::parse(text, false)
    }

    /// The same; what is short of four numbers is a network of the class that its first one says, as PostgreSQL has it.
    pub fn cidr(text: &str) -> Option<Address> {
        Address::parse(text, true)
    }

    fn parse(text: &str, is_network: bool) -> Option<Address> {
        let text = text.trim();
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => {
                let plain = !length.is_empty() && length.len() <= 3 && length.bytes().all(|c| c.is_ascii_digit());
                (address, Some(if plain { length.parse::<u8>().ok()? } else { return None }))
            }
            None => (text, None),
        };
        if let Ok(address) = IpAddr::from_str(address) {
            let (is_v6, bits) = match address {
                IpAddr::V4(v4) => (false, u128::from(v4.to_bits())),
                IpAddr::V6(v6) => (true, v6.to_bits()),
            };
            let width = if is_v6 { 128 } else { 32 };
            let length = length.unwrap_or(width);
            return (length <= width).then_some(Address { is_v6, bits, length });
        }
        // The last numbers of an IPv4 network may be left out.
        let numbers = address.split('.').map(|part| {
            let plain = (1..=3).contains(&part.len()) && part.bytes().all(|c| c.is_ascii_digit());
            if plain { part.parse::<u8>().ok() } else { None }
        });
        let numbers: Vec<u8> = numbers.collect::<Option<_>>()?;
        if numbers.is_empty() || numbers.len() > 3 || (length.is_none() && !is_network) {
            return None;
        }
        let by_class = match numbers[0] {
            0..=127 => 8,
            128..=191 => 16,
            192..=223 => 24,
            224..=239 => 8,
            240..=255 => 32,
        };
        let length = length.unwrap_or_else(|| by_class.max(numbers.len() as u8 * 8));
        let mut octets = [0; 4];
        octets[..numbers.len()].copy_from_slice(&numbers);
        (length <= 32).then_some(Address { is_v6: false, bits: u128::from(u32::from_be_bytes(octets)), length })
    }

    /// Ones where the network's part is.
    pub fn mask(&self) -> u128 {
        let width = u32::from(self.width());
        let all = if self.is_v6 { u128::MAX } else { u128::from(u32::MAX) };
        all & all.checked_shl(width - u32::from(self.length)).unwrap_or(0)
    }

    /// With zeros behind the network's part.
    pub fn network(&self) -> Address {
        Address { bits: self.bits & self.mask(), ..*self }
    }

    /// Whether the other one's network lies in this one's, or is it.
    pub fn contains(&self, other: &Address) -> bool {
        self.is_v6 == other.is_v6 && other.length >= self.length && (self.bits ^ other.bits) & self.mask() == 0
    }

    /// How PostgreSQL sorts them: family, network, length, address.
    pub fn order(&self) -> (bool, u128, u8, u128) {
        (self.is_v6, self.bits & self.mask(), self.length, self.bits)
    }

    /// Without the length.
    pub fn host(&self) -> String {
        if self.is_v6 {
            core::net::Ipv6Addr::from_bits(self.bits).to_string()
        } else {
            core::net::Ipv4Addr::from_bits(self.bits as u32).to_string()
        }
    }

    /// Always with the length.
    pub fn as_cidr(&self) -> String {
        format!("{}/{}", self.host(), self.length)
    }

    /// As `inet_send` writes it: family, length, whether a `cidr`, bytes that follow, the address.
    pub fn bytes(&self, is_cidr: bool) -> Vec<u8> {
        let (family, bytes) = if self.is_v6 {
            (3, self.bits.to_be_bytes().to_vec())
        } else {
            (2, (self.bits as u32).to_be_bytes().to_vec())
        };
        let mut out = vec![family, self.length, u8::from(is_cidr), bytes.len() as u8];
        out.extend(bytes);
        out
    }

    /// Reads what [`bytes`](Address::bytes) writes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Address> {
        let [family, length, _, size, address @ ..] = bytes else { return None };
        if address.len() != usize::from(*size) {
            return None;
        }
        let (is_v6, bits) = match family {
            2 => (false, u128::from(u32::from_be_bytes(address.try_into().ok()?))),
            3 => (true, u128::from_be_bytes(address.try_into().ok()?)),
            _ => return None,
        };
        (*length <= if is_v6 { 128 } else { 32 }).then_some(Address { is_v6, bits, length: *length })
    }
}

/// With the length where it is not that of the whole address.
impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.host())?;
        if self.length == self.width() { Ok(()) } else { write!(f, "/{}", self.length) }
    }
}

/// The sixteen bytes of a uuid in its one spelling.
pub fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}

/// The spelling of a uuid's sixteen bytes.
pub fn uuid_of(bytes: [u8; 16]) -> String {
    let mut out = String::with_capacity(36);
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        let _ = write!(out, "{byte:02x}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As PostgreSQL 15 reads and prints them.
    #[test]
    fn values_have_one_spelling() {
        let cases = [
            (Subtype::Uuid, "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            (Subtype::Uuid, "{a0eebc999c0b4ef8bb6d6bb9bd380a11}", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            (Subtype::Uuid, "a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
            (Subtype::Inet, "192.168.1.5", "192.168.1.5"),
            (Subtype::Inet, "192.168.1.5/32", "192.168.1.5"),
            (Subtype::Inet, "192.168.1/24", "192.168.1.0/24"),
            (Subtype::Inet, "2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
            (Subtype::Inet, "::ffff:1.2.3.4", "::ffff:1.2.3.4"),
            (Subtype::Cidr, "10", "10.0.0.0/8"),
            (Subtype::Cidr, "192.168", "192.168.0.0/24"),
            (Subtype::Cidr, "10.1.2.3", "10.1.2.3/32"),
            (Subtype::Jsonb, " {\"bb\":1, \"a\":[1, 2.50,null] ,\"bb\" : 2} ", "{\"a\": [1, 2.50, null], \"bb\": 2}"),
            (Subtype::Json, " {\"b\":1,  \"a\":2}", " {\"b\":1,  \"a\":2}"),
        ];
        for (subtype, text, expected) in cases {
            assert_eq!(subtype.read(text).unwrap(), expected, "{text}");
            assert_eq!(subtype.read(expected).unwrap(), expected, "{text} again");
        }
        for (subtype, text) in [
            (Subtype::Uuid, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1"),
            (Subtype::Uuid, "a-0eebc999c0b4ef8bb6d6bb9bd380a11"),
            (Subtype::Uuid, "x"),
            (Subtype::Inet, "192.168.1"),
            (Subtype::Inet, "192.168.1.5/33"),
            (Subtype::Inet, "300.1.1.1"),
            (Subtype::Cidr, "10.1.2.3/8"),
            (Subtype::Jsonb, "{"),
            (Subtype::Json, "{\"a\":}"),
        ] {
            assert_eq!(subtype.read(text).unwrap_err().kind(), Kind::InvalidText, "{text}");
        }
    }

    #[test]
    fn bytes_come_back() {
        let text = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11";
        assert_eq!(uuid_of(uuid_bytes(text).unwrap()), text);
        for text in ["10.0.0.1", "10.0.0.0/8", "2001:db8::/32"] {
            let address = Address::inet(text).unwrap();
            assert_eq!(Address::from_bytes(&address.bytes(false)), Some(address));
        }
        assert_eq!(Address::from_bytes(&[2, 33, 0, 4, 1, 2, 3, 4]), None);
        assert_eq!(Address::from_bytes(&[2]), None);
    }

    #[test]
    fn networks_contain_addresses() {
        let of = |text: &str| Address::inet(text).unwrap();
        assert!(of("10.0.0.0/8").contains(&of("10.1.2.3")));
        assert!(!of("10.0.0.0/8").contains(&of("11.1.2.3")));
        assert!(of("0.0.0.0/0").contains(&of("11.1.2.3")));
        assert!(!of("::/0").contains(&of("11.1.2.3")));
        assert!(of("9.0.0.1").order() < of("10.0.0.1").order());
    }
}
