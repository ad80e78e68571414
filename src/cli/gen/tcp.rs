//! To a TCP socket, line by line, as `nc` would. Nobody confirms lines there; a receiver that does not read makes the
//! generator wait.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::output::{Output, Settings, Spec};
use crate::error::{Error, Kind, Result};

pub static SPEC: Spec = Spec { scheme: "tcp", form: "HOST:PORT", has_headers: false, open };

fn open(address: &str, _: &Settings) -> Result<Box<dyn Output>> {
    let socket = TcpStream::connect(address).map_err(|err| {
        Error::new(Kind::Unreachable, format!("could not connect to {address}: {err}"))
            .with_hint("The address is written like tcp://HOST:PORT.")
    })?;
    Ok(Box::new(Tcp { address: address.to_string(), socket }))
}

struct Tcp {
    address: String,
    socket: TcpStream,
}

impl Output for Tcp {
    fn write(&mut self, block: &[u8]) -> Result<bool> {
        let written = self.socket.write_all(block);
        written.map_err(|err| Error::new(Kind::Unreachable, format!("could not send to {}: {err}", self.address)))?;
        Ok(true)
    }

    fn finish(&mut self) -> Result<()> {
        // What is still to be sent goes before the end; without this, a receiver could see a reset instead.
        let ended = self.socket.shutdown(Shutdown::Write);
        ended.map_err(|err| Error::new(Kind::Unreachable, format!("could not end {}: {err}", self.address)))?;
        // The other side closes when it has read all. One that does not is left after a while.
        let _ = self.socket.set_read_timeout(Some(Duration::from_secs(2)));
        let _ = std::io::copy(&mut self.socket, &mut std::io::sink());
        Ok(())
    }
}
