//! Lines over a socket in the file system, from processes of this machine. Nobody is told what was stored: see
//! [`net`](super::net) for what that means.

use std::path::Path;

use super::net::{CONNECTIONS, Connections, Listener, Settings};
use super::{Source, Spec};
use crate::error::{Error, Kind, Result};
use crate::frame::{self, framing_option};
use crate::options::{OptionKind, OptionSpec, Options, join};

pub static SPEC: Spec = Spec {
    name: "unix",
    summary: "lines (or records in another framing) over a socket in the file system",
    options: OPTIONS,
    // Listening says all there is to say.
    check: None,
    build,
};

static OPTIONS: &[OptionSpec] = &join::<{ LISTEN.len() + frame::OPTIONS.len() }>(LISTEN, frame::OPTIONS);

const LISTEN: &[OptionSpec] = &join::<{ OWN.len() + CONNECTIONS.len() }>(OWN, CONNECTIONS);

const OWN: &[OptionSpec] = &[
    OptionSpec::required("path", OptionKind::Path, "the socket, which is made; one left behind is replaced"),
    OptionSpec::optional("mode", OptionKind::Text, Some("0660"), "who may connect, as chmod takes it, in octal"),
    framing_option(&["newline", "multiline", "nul", "octet_counted"], "how records are told apart"),
];

fn build(options: &Options) -> Result<Box<dyn Source>> {
    let settings = Settings::from(options, "newline")?;
    let mode = options.text("mode").unwrap_or_default();
    let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o777).ok_or_else(|| {
        Error::new(
            Kind::InvalidParameter,
            format!("option \"mode\" takes an octal number such as 0660, not \"{mode}\""),
        )
    })?;
    let listener = Listener::unix(Path::new(options.text("path").unwrap_or_default()), mode)?;
    Ok(Box::new(Connections::new(listener, None, settings)?))
}
