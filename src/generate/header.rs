//! The header that a line needs to travel by syslog (RFC 5424, section 6): without a process id, a message id or structured
//! data.

use super::put_number;
use super::stamp::Stamp;
use crate::time::Micros;

/// Writes headers.
pub struct Header {
    /// Facility local7; of an access log severity informational, of an error log severity error.
    priority: u64,
    /// Host and application.
    origin: &'static [u8],
    stamp: Stamp,
}

impl Header {
    pub fn new(is_error: bool) -> Header {
        let (priority, origin) = match is_error {
            true => (187, b" www.example.com error - - - ".as_slice()),
            false => (190, b" www.example.com access - - - ".as_slice()),
        };
        Header { priority, origin, stamp: Stamp::default() }
    }

    /// Appends `<190>1 2026-01-01T00:00:00.000000Z www.example.com access - - - `.
    pub fn put(&mut self, at: Micros, out: &mut Vec<u8>) {
        out.push(b'<');
        put_number(out, self.priority);
        out.extend_from_slice(b">1 ");
        self.stamp.put_rfc3339(at, out);
        out.extend_from_slice(self.origin);
    }
}
