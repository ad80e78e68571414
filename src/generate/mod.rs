//! A made-up web site's Apache logs, for demos, tests and load: a seed goes in, lines come out.
//!
//! ```text
//! seed ─► random ─► site (one request) ─┬─► access: its line in the access log
//!                                       └─► error:  the line it leaves in the error log, if any
//!
//! scenario (a file) ─► player: when requests come, which fail, which lines are late or malformed ─► lines and truth
//! ```
//!
//! Always true: everything here is a pure function of the seed and of the times that the caller hands in. No clock, no
//! I/O, and on the way to a line no floating point but the operations that IEEE 754 defines to the last bit (a rate, a weight),
//! so the same seed gives the same bytes on every machine.
//!
//! Both logs tell of the same requests, because both are written from one [`site::Request`]: a 404 in the access log is
//! a "File does not exist" in the error log, with the same client and time. Joins of the two streams have something to
//! find.

pub mod access;
pub mod error;
mod fields;
mod header;
pub mod player;
mod random;
pub mod scenario;
pub mod site;
mod stamp;
mod tables;
pub mod truth;

pub use access::Access;
pub use error::Errors;
pub use header::Header;
pub use player::Player;
pub use scenario::Scenario;
pub use stamp::parse_utc;

/// Appends `number` in decimal digits. `write!` does the same through the formatting machinery, several times slower.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20]; // u64::MAX has 20 digits
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[first..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_like_the_standard_library_writes_them() {
        for number in [0, 7, 10, 404, 65_535, 1_000_000, u64::MAX] {
            let mut out = Vec::new();
            put_number(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
