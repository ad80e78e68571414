//! To a syslog server over UDP: each line is a datagram with a header of RFC 5424 (RFC 5426), which the generator puts in
//! front. UDP has no answer, so what the receiver cannot take in time is lost: give a rate that it can.

use std::net::UdpSocket;

use super::output::{Output, Settings, Spec};
use crate::error::{Error, Kind, Result};

pub static SPEC: Spec = Spec { scheme: "syslog", form: "HOST:PORT", has_headers: true, open };

fn open(address: &str, _: &Settings) -> Result<Box<dyn Output>> {
    let failed = |err: std::io::Error| {
        Error::new(Kind::Unreachable, format!("could not send to {address}: {err}"))
            .with_hint("The address is written like syslog://HOST:PORT; the protocol is UDP.")
    };
    // A socket of the same family as the address, which may be a name.
    let socket = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0")).map_err(failed)?;
    if socket.connect(address).is_err() {
        let socket = UdpSocket::bind("0.0.0.0:0").map_err(failed)?;
        socket.connect(address).map_err(failed)?;
        return Ok(Box::new(Syslog { address: address.to_string(), socket }));
    }
    Ok(Box::new(Syslog { address: address.to_string(), socket }))
}

struct Syslog {
    address: String,
    socket: UdpSocket,
}

impl Output for Syslog {
    fn write(&mut self, block: &[u8]) -> Result<bool> {
        for line in block.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            self.socket.send(line).map_err(|err| {
                Error::new(Kind::Unreachable, format!("could not send to {}: {err}", self.address))
                    .with_hint("Nobody seems to listen there.")
            })?;
        }
        Ok(true)
    }
}
