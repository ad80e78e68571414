//! PostgreSQL's functions and operators for `inet` and `cidr` (PostgreSQL manual, Network Address Functions). Addresses are
//! texts in their one spelling; those of mapped IPv4 stay IPv6, as in PostgreSQL and unlike in [`super::address`].

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use datafusion::common::Result as DfResult;

use super::scalar::{Arguments, Scalar, Type, booleans, numbers, texts, unchecked};
use crate::error::{Error, Kind, Result};
use crate::format::subtype::{Address, Subtype};

const INET: Type = Type::Of(Subtype::Inet);
const CIDR: Type = Type::Of(Subtype::Cidr);

macro_rules! scalar {
    ($name:literal, $syntax:literal, $summary:literal, $sample:expr, $forms:expr, $result:expr, $rows:expr) => {
        Scalar {
            name: $name,
            syntax: $syntax,
            summary: $summary,
            sample: $sample,
            forms: $forms,
            result: $result,
            check: unchecked,
            rows: $rows,
        }
    };
}

pub static SPECS: &[Scalar] = &[
    scalar!(
        "inet_within",
        "inet_within(address, network) | address << network",
        "whether an address lies in a network and is not all of it",
        ("inet_within('10.1.2.3', '10.0.0.0/8')", "t"),
        &[&[Type::Text, Type::Text]],
        Type::Boolean,
        |a| two(a, |a, b| b.contains(a) && a.length > b.length)
    ),
    scalar!(
        "inet_within_or_equal",
        "inet_within_or_equal(address, network) | address <<= network",
        "whether an address lies in a network or is all of it",
        ("inet_within_or_equal('10.0.0.0/8', '10.0.0.0/8')", "t"),
        &[&[Type::Text, Type::Text]],
        Type::Boolean,
        |a| two(a, |a, b| b.contains(a))
    ),
    scalar!(
        "inet_overlaps",
        "inet_overlaps(network, network) | network && network",
        "whether one of them lies in the other",
        ("inet_overlaps('10.0.0.0/8', '10.1.0.0/16')", "t"),
        &[&[Type::Text, Type::Text]],
        Type::Boolean,
        |a| two(a, |a, b| a.contains(b) || b.contains(a))
    ),
    scalar!(
        "inet_same_family",
        "inet_same_family(address, address)",
        "whether both are of IPv4 or of IPv6",
        ("inet_same_family('10.0.0.1', '::1')", "f"),
        &[&[Type::Text, Type::Text]],
        Type::Boolean,
        |a| two(a, |a, b| a.is_v6 == b.is_v6)
    ),
    scalar!(
        "inet_order",
        "inet_order(address)",
        "a text by which addresses sort as in PostgreSQL: family, network, length, address",
        ("inet_order('9.0.0.1') < inet_order('10.0.0.1')", "t"),
        &[&[Type::Text]],
        Type::Text,
        |a| {
            each(a, |address| {
                let (is_v6, network, length, bits) = address.order();
                format!("{}{network:032x}{length:03}{bits:032x}", u8::from(is_v6))
            })
        }
    ),
    scalar!(
        "host",
        "host(address)",
        "the address without the length of its network",
        ("host('192.168.1.5/24')", "192.168.1.5"),
        &[&[Type::Text]],
        Type::Text,
        |a| each(a, |address| address.host())
    ),
    scalar!(
        "abbrev",
        "abbrev(address)",
        "an address in short",
        ("abbrev(cidr '10.1.0.0/16')", "10.1/16"),
        &[&[Type::Text]],
        Type::Text,
        |a| {
            let is_cidr = a.subtype(0) == Some(Subtype::Cidr);
            each(a, |address| if is_cidr { short(&address) } else { address.to_string() })
        }
    ),
    scalar!(
        "broadcast",
        "broadcast(address)",
        "the last address of the network",
        ("broadcast('192.168.1.5/24')", "192.168.1.255/24"),
        &[&[Type::Text]],
        INET,
        |a| { each(a, |address| Address { bits: address.bits | inverted(&address), ..address }.to_string()) }
    ),
    scalar!(
        "netmask",
        "netmask(address)",
        "ones where the network's part is",
        ("netmask('192.168.1.5/24')", "255.255.255.0"),
        &[&[Type::Text]],
        INET,
        |a| { each(a, |address| whole(&address, address.mask()).to_string()) }
    ),
    scalar!(
        "hostmask",
        "hostmask(address)",
        "ones where the network's part is not",
        ("hostmask('192.168.23.20/30')", "0.0.0.3"),
        &[&[Type::Text]],
        INET,
        |a| { each(a, |address| whole(&address, inverted(&address)).to_string()) }
    ),
    scalar!(
        "network",
        "network(address)",
        "the network of an address",
        ("network('192.168.1.5/24')", "192.168.1.0/24"),
        &[&[Type::Text]],
        CIDR,
        |a| each(a, |address| address.network().as_cidr())
    ),
    scalar!(
        "masklen",
        "masklen(address)",
        "how many bits the network's part has",
        ("masklen('192.168.1.5/24')", "24"),
        &[&[Type::Text]],
        Type::Integer,
        |a| {
            let column = a.text(0)?;
            let lengths =
                (0..a.rows).map(|row| column.get(row).map(|text| Ok(i32::from(read(text)?.length))).transpose());
            let lengths = lengths.collect::<Result<Vec<Option<i32>>>>()?;
            Ok(numbers::<Int32Type>(a.rows, |row| lengths[row]))
        }
    ),
    scalar!("family", "family(address)", "4 or 6", ("family('::1')", "6"), &[&[Type::Text]], Type::Integer, |a| {
        let column = a.text(0)?;
        let family = |text: &str| -> Result<i32> { Ok(if read(text)?.is_v6 { 6 } else { 4 }) };
        let families = (0..a.rows).map(|row| column.get(row).map(family).transpose());
        let families = families.collect::<Result<Vec<Option<i32>>>>()?;
        Ok(numbers::<Int32Type>(a.rows, |row| families[row]))
    }),
    scalar!(
        "set_masklen",
        "set_masklen(address, bits)",
        "with another length of the network's part",
        ("set_masklen('192.168.1.5/24', 16)", "192.168.1.5/16"),
        &[&[Type::Text, Type::Bigint]],
        INET,
        |a| {
            let (column, lengths) = (a.text(0)?, a.numbers::<Int64Type>(1)?);
            texts(a.rows, |row| {
                let (Some(text), Some(length)) = (column.get(row), lengths.get(row)) else { return Ok(None) };
                let address = read(text)?;
                let wrong = || Error::new(Kind::InvalidParameter, format!("invalid mask length: {length}"));
                let length = if length == -1 { address.width() } else { u8::try_from(length).map_err(|_| wrong())? };
                if length > address.width() {
                    return Err(wrong().into());
                }
                Ok(Some(Address { length, ..address }.to_string()))
            })
        }
    ),
    scalar!(
        "inet_merge",
        "inet_merge(address, address)",
        "the smallest network that both are in",
        ("inet_merge('192.168.1.5/24', '192.168.2.5/24')", "192.168.0.0/22"),
        &[&[Type::Text, Type::Text]],
        CIDR,
        |a| {
            pairs(a, |a, b| {
                if a.is_v6 != b.is_v6 {
                    return Err(Error::new(Kind::InvalidParameter, "cannot merge addresses from different families"));
                }
                let differs = (a.bits ^ b.bits) << (128 - u32::from(a.width()));
                let length = a.length.min(b.length).min(differs.leading_zeros() as u8);
                Ok(Address { length, ..*a }.network().as_cidr())
            })
        }
    ),
    scalar!(
        "inet_plus",
        "inet_plus(address, number) | address + number",
        "so many addresses further",
        ("inet_plus('192.168.1.6', 25)", "192.168.1.31"),
        &[&[Type::Text, Type::Bigint]],
        INET,
        |a| moved(a, 1)
    ),
    scalar!(
        "inet_minus",
        "inet_minus(address, number) | address - number",
        "so many addresses back",
        ("inet_minus('192.168.1.43', 36)", "192.168.1.7"),
        &[&[Type::Text, Type::Bigint]],
        INET,
        |a| moved(a, -1)
    ),
    scalar!(
        "inet_distance",
        "inet_distance(address, address) | address - address",
        "how many addresses lie between",
        ("inet_distance('192.168.1.43', '192.168.1.19')", "24"),
        &[&[Type::Text, Type::Text]],
        Type::Bigint,
        |a| {
            let (left, right) = (a.text(0)?, a.text(1)?);
            let between = |row: usize| -> Result<Option<i64>> {
                let (Some(left), Some(right)) = (left.get(row), right.get(row)) else { return Ok(None) };
                let (left, right) = (read(left)?, read(right)?);
                if left.is_v6 != right.is_v6 {
                    let message = "cannot subtract inet values of different sizes";
                    return Err(Error::new(Kind::InvalidParameter, message));
                }
                let out_of_range = || Error::new(Kind::OutOfRange, "result is out of range");
                let distance = (left.bits as i128).checked_sub(right.bits as i128).ok_or_else(out_of_range)?;
                Ok(Some(i64::try_from(distance).map_err(|_| out_of_range())?))
            };
            let distances = (0..a.rows).map(between).collect::<Result<Vec<Option<i64>>>>()?;
            Ok(numbers::<Int64Type>(a.rows, |row| distances[row]))
        }
    ),
    scalar!(
        "inet_and",
        "inet_and(address, address) | address & address",
        "bits of both",
        ("inet_and('192.168.1.6', '0.0.0.255')", "0.0.0.6"),
        &[&[Type::Text, Type::Text]],
        INET,
        |a| bits(a, |a, b| a & b)
    ),
    scalar!(
        "inet_or",
        "inet_or(address, address) | address | address",
        "bits of either",
        ("inet_or('192.168.1.6', '0.0.0.255')", "192.168.1.255"),
        &[&[Type::Text, Type::Text]],
        INET,
        |a| bits(a, |a, b| a | b)
    ),
];

fn read(text: &str) -> Result<Address> {
    let wrong = || Error::new(Kind::InvalidText, format!("invalid input syntax for type inet: \"{text}\""));
    Address::inet(text).ok_or_else(wrong)
}

/// Ones where the network's part is not.
fn inverted(address: &Address) -> u128 {
    let all = if address.is_v6 { u128::MAX } else { u128::from(u32::MAX) };
    all & !address.mask()
}

/// An address of the same family, without a network.
fn whole(of: &Address, bits: u128) -> Address {
    Address { is_v6: of.is_v6, bits, length: of.width() }
}

/// Without the zero bytes behind the network's part of IPv4.
fn short(address: &Address) -> String {
    if address.is_v6 {
        return address.as_cidr();
    }
    let octets = (address.bits as u32).to_be_bytes();
    let shown = usize::from(address.length.div_ceil(8)).max(1);
    let octets: Vec<String> = octets[..shown].iter().map(u8::to_string).collect();
    format!("{}/{}", octets.join("."), address.length)
}

/// A text of each address.
fn each(arguments: &Arguments<'_>, of: impl Fn(Address) -> String) -> DfResult<ArrayRef> {
    let column = arguments.text(0)?;
    texts(arguments.rows, |row| match column.get(row) {
        Some(text) => Ok(Some(of(read(text)?))),
        None => Ok(None),
    })
}

/// A text of two addresses.
fn pairs(arguments: &Arguments<'_>, of: impl Fn(&Address, &Address) -> Result<String>) -> DfResult<ArrayRef> {
    let (left, right) = (arguments.text(0)?, arguments.text(1)?);
    texts(arguments.rows, |row| match (left.get(row), right.get(row)) {
        (Some(left), Some(right)) => Ok(Some(of(&read(left)?, &read(right)?)?)),
        _ => Ok(None),
    })
}

/// Whether something is so of two addresses.
fn two(arguments: &Arguments<'_>, is: impl Fn(&Address, &Address) -> bool) -> DfResult<ArrayRef> {
    let found = pairs(arguments, |a, b| Ok(if is(a, b) { "t" } else { "f" }.to_string()))?;
    let found = found.as_string_view();
    Ok(booleans(arguments.rows, |row| found.is_valid(row).then(|| found.value(row) == "t")))
}

fn bits(arguments: &Arguments<'_>, of: impl Fn(u128, u128) -> u128) -> DfResult<ArrayRef> {
    pairs(arguments, |a, b| {
        if a.is_v6 != b.is_v6 {
            return Err(Error::new(Kind::InvalidParameter, "cannot combine inet values of different sizes"));
        }
        Ok(Address { length: a.length.max(b.length), bits: of(a.bits, b.bits), ..*a }.to_string())
    })
}

fn moved(arguments: &Arguments<'_>, sign: i128) -> DfResult<ArrayRef> {
    let (column, numbers) = (arguments.text(0)?, arguments.numbers::<Int64Type>(1)?);
    texts(arguments.rows, |row| {
        let (Some(text), Some(number)) = (column.get(row), numbers.get(row)) else { return Ok(None) };
        let address = read(text)?;
        let out_of_range = || Error::new(Kind::OutOfRange, "result is out of range");
        let by = i128::from(number) * sign;
        let bits = address.bits.checked_add_signed(by).ok_or_else(out_of_range)?;
        if !address.is_v6 && bits > u128::from(u32::MAX) {
            return Err(out_of_range().into());
        }
        Ok(Some(Address { bits, ..address }.to_string()))
    })
}
