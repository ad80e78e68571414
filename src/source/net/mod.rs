//! What do the sources have in common that are sockets? They listen, they hold what came until the engine takes it, and
//! they cannot ask for anything again.
//!
//! ```text
//!     sockets ──► a thread of the source ──► bounded buffers, one per sender ──► poll: framed, on the driver's thread
//! ```
//!
//! What always holds:
//! - Whatever is kept is bounded by a named option: connections by `max_connections`, senders of datagrams by
//!   `max_senders`, what was read and not taken yet by `buffer_bytes`, an unfinished line by `max_line_bytes`.
//! - When the buffers are full the sockets are not read. Then TCP makes the senders wait; of datagrams the kernel keeps
//!   what fits into its receive buffer and drops the rest, which it counts and we show.
//! - One sender holds up no other: they are taken in turn, and the more there are, the less each may have in the
//!   buffers.
//! - A connection that does not go on is closed: after `line_timeout` in the middle of a line, after `read_timeout`
//!   where that is set, after [`HANDSHAKE_TIMEOUT`] in a TLS handshake, and by TCP keepalive when the other side is
//!   gone.
//! - What was read is handed out: the unfinished line of a closed connection as a frame, and at a stop all that has
//!   come by then.
//!
//! | file | holds |
//! |---|---|
//! | `settings.rs` | the options |
//! | `bind.rs` | addresses and sockets |
//! | `inbox.rs` | the buffers between the thread that reads connections and the driver |
//! | `accept.rs` | that thread |
//! | `connections.rs` | the source over connections |
//! | `datagrams.rs` | the source over datagrams |
//! | `rounds.rs` | how often what has come is made blocks of |
//! | `tls.rs` | certificates |
//! | `problems.rs` | warnings that senders can provoke, and therefore few |
//! | `kernel.rs` | what only the operating system's own calls can tell |

mod accept;
mod bind;
mod connections;
mod datagrams;
mod inbox;
pub(super) mod kernel;
mod problems;
mod rounds;
mod settings;
mod tls;

use std::time::Duration;

pub use bind::Listener;
pub use connections::Connections;
pub use datagrams::Datagrams;
pub use settings::{CONNECTIONS, DATAGRAMS, Settings, TLS};
pub use tls::acceptor;

/// So long a client may take for its TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
