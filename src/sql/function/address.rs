//! IP addresses and networks in texts.
//!
//! An IPv4 address mapped into IPv6 (`::ffff:10.0.0.1`), as servers that listen on both write it, is the IPv4 address;
//! networks likewise. The zone of a link-local address (`fe80::1%eth0`) is left out. A list of networks is brought into
//! ranges once, so that a row is looked up in it by halving.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt::Write as _;
use std::str::FromStr;

use arrow::array::ArrayRef;
use arrow::datatypes::{Int32Type, Int64Type};
use datafusion::common::Result as DfResult;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::scalar::{Arguments, Scalar, Texts, Type, bad_constant, booleans, numbers, unchecked};
use crate::error::{Kind, Result};

pub static SPECS: &[Scalar] = &[
    Scalar {
        name: "ip_in",
        syntax: "ip_in(address, networks)",
        summary: "whether an IP address is in one of the networks, which are separated by commas",
        sample: ("ip_in('10.1.2.3', '10.0.0.0/8, fd00::/8')", "t"),
        forms: &[&[Type::Text, Type::Text]],
        result: Type::Boolean,
        check: check_networks,
        rows: contains,
    },
    Scalar {
        name: "ip_prefix",
        syntax: "ip_prefix(address, bits [, bits of IPv6])",
        summary: "the network of that many leading bits that an IP address is in",
        sample: ("ip_prefix('10.1.2.3', 24)", "10.1.2.0/24"),
        forms: &[&[Type::Text, Type::Bigint], &[Type::Text, Type::Bigint, Type::Bigint]],
        result: Type::Text,
        check: unchecked,
        rows: prefix,
    },
    Scalar {
        name: "ip_is_private",
        syntax: "ip_is_private(address)",
        summary: "whether an IP address is of a private network or of the host itself, and not of the internet",
        sample: ("ip_is_private('192.168.0.7')", "t"),
        forms: &[&[Type::Text]],
        result: Type::Boolean,
        check: unchecked,
        rows: |arguments| {
            let texts = arguments.text(0)?;
            Ok(booleans(arguments.rows, |row| texts.get(row).and_then(address).map(is_private)))
        },
    },
    Scalar {
        name: "ip_version",
        syntax: "ip_version(address)",
        summary: "4 or 6",
        sample: ("ip_version('2001:db8::1')", "6"),
        forms: &[&[Type::Text]],
        result: Type::Integer,
        check: unchecked,
        rows: |arguments| {
            let texts = arguments.text(0)?;
            let version = |address: IpAddr| if address.is_ipv4() { 4 } else { 6 };
            Ok(numbers::<Int32Type>(arguments.rows, |row| texts.get(row).and_then(address).map(version)))
        },
    },
];

/// Reads an address.
#[inline]
fn address(text: &str) -> Option<IpAddr> {
    if let Ok(address) = Ipv4Addr::from_str(text) {
        return Some(IpAddr::V4(address));
    }
    let text = text.split_once('%').map_or(text, |(address, _)| address);
    Ipv6Addr::from_str(text).ok().map(|address| address.to_canonical())
}

/// Private networks (RFC 1918, RFC 4193), those shared by the customers of a provider (RFC 6598), link-local ones, and
/// the host itself.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
    }
}

/// Networks as ranges of addresses, both ends included; in order, and none touches another.
struct Networks {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

/// Bits of an IPv6 address before the IPv4 address that is mapped into it.
const MAPPED_BITS: u8 = 96;

impl Networks {
    /// Reads a list of networks; an address alone is a network of one.
    fn parse(list: &str) -> Option<Networks> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for text in list.split(',').map(str::trim) {
            let network = match IpNet::from_str(text) {
                Ok(network) => network,
                Err(_) => IpNet::from(address(text)?),
            };
            match mapped(network) {
                IpNet::V4(network) => v4.push((network.network().to_bits(), network.broadcast().to_bits())),
                IpNet::V6(network) => v6.push((network.network().to_bits(), network.broadcast().to_bits())),
            }
        }
        Some(Networks { v4: merged(v4), v6: merged(v6) })
    }

    #[inline]
    fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => is_in(&self.v4, v4.to_bits()),
            IpAddr::V6(v6) => is_in(&self.v6, v6.to_bits()),
        }
    }
}

/// The IPv4 network that an IPv6 network is, if it lies in the mapped addresses.
fn mapped(network: IpNet) -> IpNet {
    if let IpNet::V6(v6) = network
        && v6.prefix_len() >= MAPPED_BITS
        && let Some(v4) = v6.addr().to_ipv4_mapped()
        && let Ok(v4) = Ipv4Net::new(v4, v6.prefix_len() - MAPPED_BITS)
    {
        return IpNet::V4(v4);
    }
    network
}

/// In order, those that overlap as one.
fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut merged: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match merged.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            _ => merged.push((first, last)),
        }
    }
    merged
}

#[inline]
fn is_in<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let behind = ranges.partition_point(|(first, _)| *first <= address);
    behind > 0 && address <= ranges[behind - 1].1
}

fn check_networks(constants: &[Option<&str>]) -> Result<()> {
    match constants.get(1).copied().flatten() {
        Some(list) if Networks::parse(list).is_none() => {
            Err(bad_constant(Kind::InvalidText, "a list of networks", list, "It must hold IP addresses or networks.")
                .with_hint("Write it like '10.0.0.0/8' or '10.0.0.0/8, 192.168.0.0/16, fd00::/8'."))
        }
        Some(_) | None => Ok(()),
    }
}

fn contains(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let (addresses, lists) = (arguments.text(0)?, arguments.text(1)?);
    // The list that was read last: mostly it is the same in all rows.
    let mut read: Option<(&str, Option<Networks>)> = None;
    Ok(booleans(arguments.rows, |row| {
        let (address, list) = (address(addresses.get(row)?)?, lists.get(row)?);
        if read.as_ref().is_none_or(|(text, _)| *text != list) {
            read = Some((list, Networks::parse(list)));
        }
        let networks = read.as_ref()?.1.as_ref()?;
        Some(networks.contains(address))
    }))
}

fn prefix(arguments: &Arguments<'_>) -> DfResult<ArrayRef> {
    let addresses = arguments.text(0)?;
    let bits = arguments.numbers::<Int64Type>(1)?;
    let bits_of_v6 = if arguments.count() > 2 { Some(arguments.numbers::<Int64Type>(2)?) } else { None };
    let mut texts = Texts::new(arguments.rows);
    let mut shown = String::new();
    for row in 0..arguments.rows {
        let network = || -> Option<IpNet> {
            let bits = bits.get(row)?;
            let bits_of_v6 = bits_of_v6.as_ref().map_or(Some(bits), |of_v6| of_v6.get(row))?;
            match address(addresses.get(row)?)? {
                IpAddr::V4(v4) => Some(Ipv4Net::new(v4, u8::try_from(bits).ok()?).ok()?.trunc().into()),
                IpAddr::V6(v6) => Some(Ipv6Net::new(v6, u8::try_from(bits_of_v6).ok()?).ok()?.trunc().into()),
            }
        };
        match network() {
            Some(network) => {
                shown.clear();
                write!(shown, "{network}").expect("a String takes all");
                texts.push(&shown);
            }
            None => texts.push_null(),
        }
    }
    Ok(texts.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_lists_of_networks() {
        let list = "10.0.0.0/8,192.168.1.7, 10.2.0.0/16,2001:db8::/32,::ffff:172.16.0.0/108,192.168.1.8/31";
        let networks = Networks::parse(list).unwrap();
        assert_eq!(networks.v4.len(), 4);
        for (text, inside) in [
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("9.255.255.255", false),
            ("192.168.1.7", true),
            ("192.168.1.9", true),
            ("192.168.1.10", false),
            ("::ffff:10.1.2.3", true),
            ("172.31.255.255", true),
            ("172.32.0.0", false),
            ("2001:DB8:ffff::1", true),
            ("2001:db9::", false),
            ("::1", false),
        ] {
            assert_eq!(networks.contains(address(text).unwrap()), inside, "{text}");
        }
        let everything = Networks::parse("0.0.0.0/0,::/0").unwrap();
        assert!(
            ["0.0.0.0", "255.255.255.255", "::", "ffff::1"].iter().all(|t| everything.contains(address(t).unwrap()))
        );
    }

    #[test]
    fn what_is_no_address_is_none() {
        for text in ["", "10.0.0", "10.0.0.256", "1.2.3.4:80", " 1.2.3.4", "example.org", ":", "%", "::1::"] {
            assert!(address(text).is_none(), "{text}");
        }
        assert_eq!(address("fe80::1%eth0"), address("fe80::1"));
        for list in ["", "10.0.0.0/33", "10.0.0.0/8,", "x", "::/129"] {
            assert!(Networks::parse(list).is_none(), "{list}");
        }
    }

    #[test]
    fn private_addresses_are_known() {
        for text in ["10.0.0.1", "172.31.0.1", "127.0.0.1", "100.64.0.1", "169.254.1.1", "::1", "fd00::1", "fe80::1"] {
            assert!(is_private(address(text).unwrap()), "{text}");
        }
        for text in ["8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(!is_private(address(text).unwrap()), "{text}");
        }
    }
}
