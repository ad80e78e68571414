//! How a client comes in: by a password (SCRAM-SHA-256, over TLS also bound to the certificate), or by a certificate that
//! names its role; by just saying a name while there are no roles.
//!
//! ```text
//!     start-up ──► Start ──► Mechanism ──► Proof ──► in
//!                    └── no roles, or a certificate ──┘
//! ```
//!
//! Before that, client and server agree on a version of the protocol ([`negotiate`]).
//!
//! In the database of a tenant it is the tenant's roles that count, and administrators of the main database, who may enter
//! every database. Of a database that is not there nobody learns that without having proven to be such an administrator: it
//! is asked for a password that is then wrong, as it is for a stranger in one that is there.
//!
//! A name that nobody has is asked for a password like any other. What goes wrong ends the connection, and whoever guesses
//! waits longer from guess to guess ([`Failures`]).

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::ProtocolVersion;
use pgwire::messages::startup::{NegotiateProtocolVersion, PasswordMessageFamily, Startup};
use tokio::time::Instant;

use super::Choice;
use super::connection::State;
use super::error::{fatal, info, wire};
use crate::access::Role;
use crate::access::scram::{Exchange, MECHANISM, MECHANISM_PLUS, Malformed, Verifier};
use crate::catalog::postgres::ROLE;
use crate::engine::Engine;
use crate::error::Kind;
use crate::sql::Proof;

/// From where somebody comes, and how.
#[derive(Default)]
pub struct Peer {
    pub address: Option<IpAddr>,
    pub encrypted: bool,
    /// By which the client may bind its login to the server's certificate.
    pub end_point: Option<Vec<u8>>,
    /// Whom its own certificate names.
    pub certificate: Option<String>,
}

/// The version of the protocol that both speak, 3.0 or 3.2, and what the client has to be told about it: that a newer
/// version was asked for, or extensions (`_pq_.…`), which there are none of (PostgreSQL manual, "NegotiateProtocolVersion").
pub fn negotiate(startup: &Startup) -> (ProtocolVersion, Option<NegotiateProtocolVersion>) {
    let version =
        if startup.protocol_number_minor < 2 { ProtocolVersion::PROTOCOL3_0 } else { ProtocolVersion::PROTOCOL3_2 };
    let extensions: Vec<String> =
        startup.parameters.keys().filter(|name| name.starts_with(EXTENSION)).cloned().collect();
    let told = startup.protocol_number_minor > 2 || !extensions.is_empty();
    (version, told.then(|| NegotiateProtocolVersion::new(version.into(), extensions)))
}

/// What names of extensions of the protocol begin with.
pub const EXTENSION: &str = "_pq_.";

/// One client's login.
#[derive(Default)]
pub struct Login {
    pub peer: Peer,
    stage: Mutex<Stage>,
}

#[derive(Default)]
enum Stage {
    #[default]
    Start,
    Mechanism {
        user: String,
    },
    Proof {
        user: String,
        exchange: Exchange,
    },
    Over,
}

/// What comes next.
pub enum Step {
    /// To be asked for a password, by one of these mechanisms.
    Ask(Vec<String>),
    /// The server's first answer.
    Continue(String),
    /// In; with the server's last answer, if there is one.
    In(Option<String>),
}

impl State {
    /// Looks at who wants to come in.
    pub fn begin_login(&self, startup: &Startup) -> PgWireResult<Step> {
        let peer = &self.login.peer;
        if self.endpoint.limits.tls.as_ref().is_some_and(|tls| tls.required()) && !peer.encrypted {
            let mut refusal = info("FATAL", "28000", "connections have to be encrypted");
            refusal.hint = Some("Connect with sslmode=require, or better verify-full.".to_string());
            return Err(PgWireError::UserError(Box::new(refusal)));
        }
        let replication = startup.parameters.get("replication").map_or("off", String::as_str);
        if !matches!(replication, "off" | "false" | "no" | "0") {
            let mut refusal = info("FATAL", "0A000", "replication connections are not supported");
            refusal.hint = Some("SUBSCRIBE tells of changes as they happen.".to_string());
            return Err(PgWireError::UserError(Box::new(refusal)));
        }
        let given = startup.parameters.get("user").map_or("", String::as_str);
        if self.is_open() {
            self.refuse_choice()?;
            *self.login.stage.lock() = Stage::Over;
            self.session().log_in(if given.is_empty() { ROLE } else { given }, Proof::Trust);
            return Ok(Step::In(None));
        }
        if given.is_empty() {
            return Err(fatal("28000", "no user name is given"));
        }
        let known = self.role_for(given);
        if let (Choice::Not(_, err), None) = (&self.endpoint.choice, &known)
            && err.kind() == Kind::NotAvailable
        {
            // Its roles cannot be asked. Why it is so is for operators.
            return Err(fatal(err.kind().sqlstate(), err.message()));
        }
        let named = peer.certificate.as_deref() == Some(given);
        if named && known.is_some_and(|known| known.role.login) {
            *self.login.stage.lock() = Stage::Over;
            return self.enter(given, Proof::Certificate).map(|()| Step::In(None));
        }
        *self.login.stage.lock() = Stage::Mechanism { user: given.to_string() };
        let plus = peer.end_point.as_ref().map(|_| MECHANISM_PLUS.to_string());
        Ok(Step::Ask(plus.into_iter().chain([MECHANISM.to_string()]).collect()))
    }

    /// Goes on with what the client answers.
    pub async fn continue_login(&self, message: PasswordMessageFamily) -> PgWireResult<Step> {
        let PasswordMessageFamily::Raw(body) = message else {
            return Err(fatal("08P01", "the message is not known"));
        };
        let stage = std::mem::replace(&mut *self.login.stage.lock(), Stage::Over);
        match stage {
            Stage::Mechanism { user } => {
                let (exchange, answer) = self.begin_exchange(&user, &body).map_err(malformed)?;
                *self.login.stage.lock() = Stage::Proof { user, exchange };
                Ok(Step::Continue(answer))
            }
            Stage::Proof { user, exchange } => {
                let proof = std::str::from_utf8(&body).map_err(|_| malformed(Malformed("It is no UTF-8.")))?;
                match exchange.finish(proof).map_err(malformed)? {
                    Some(answer) => self.enter(&user, Proof::Password).map(|()| Step::In(Some(answer))),
                    None => Err(self.wrong(&user).await),
                }
            }
            Stage::Start | Stage::Over => Err(fatal("08P01", "no password was asked for")),
        }
    }

    /// `mechanism \0 length (4 bytes) message`.
    fn begin_exchange(&self, user: &str, body: &[u8]) -> Result<(Exchange, String), Malformed> {
        let torn = Malformed("The first message is cut off.");
        let end = body.iter().position(|byte| *byte == 0).ok_or(torn.clone())?;
        let (mechanism, rest) = (&body[..end], &body[end + 1..]);
        let (length, first) = rest.split_at_checked(4).ok_or(torn.clone())?;
        if u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize != first.len() {
            return Err(torn);
        }
        let plus = match std::str::from_utf8(mechanism) {
            Ok(MECHANISM) => false,
            Ok(MECHANISM_PLUS) => true,
            Ok(_) | Err(_) => return Err(Malformed("The mechanism is not one of those that were offered.")),
        };
        let first = std::str::from_utf8(first).map_err(|_| Malformed("It is no UTF-8."))?;
        let known = self.role_for(user).and_then(|known| known.role.verifier);
        let verifier = known.unwrap_or_else(|| self.mock(user));
        Exchange::begin(verifier, first, self.login.peer.end_point.as_deref(), plus)
    }

    /// It was proven who it is.
    fn enter(&self, user: &str, proof: Proof) -> PgWireResult<()> {
        let Some(known) = self.role_for(user) else { return Err(fatal("28P01", failed(user))) };
        if !known.role.login {
            return Err(fatal("28000", format!("role \"{user}\" is not permitted to log in")));
        }
        self.refuse_choice()?;
        self.session().log_in(user, if known.operator { Proof::Operator } else { proof });
        Ok(())
    }

    /// Whether nobody has to say who they are.
    fn is_open(&self) -> bool {
        let main = self.endpoint.databases.main().engine();
        let open = |engine: &Engine| engine.roles(|roles| roles.is_empty());
        main.is_ok_and(|main| open(&main)) && open(self.session().engine())
    }

    /// The role by which a user comes into the database.
    fn role_for(&self, user: &str) -> Option<Known> {
        let of = |engine: &Engine| engine.roles(|roles| roles.get(user).cloned());
        let of_main = of(&*self.endpoint.databases.main().engine().ok()?);
        let is_main = match &self.endpoint.choice {
            Choice::Known(database) => database.is_main(),
            Choice::Not(..) => false,
        };
        if is_main {
            return of_main.map(|role| Known { role, operator: false });
        }
        // First, so that no tenant can take the name of one.
        if let Some(role) = of_main.filter(|role| role.admin) {
            return Some(Known { role, operator: true });
        }
        match &self.endpoint.choice {
            Choice::Known(_) => of(self.session().engine()).map(|role| Known { role, operator: false }),
            Choice::Not(..) => None,
        }
    }

    /// What a user who is not known is asked for: the same each time, and no other than that of a database that is not there.
    fn mock(&self, user: &str) -> Verifier {
        let main = self.endpoint.databases.main().engine().map(|main| main.access_secret());
        let secret = main.ok().filter(|secret| !secret.is_empty());
        let secret = secret.unwrap_or_else(|| self.session().engine().access_secret());
        match &self.endpoint.choice {
            Choice::Known(database) if database.is_main() => Verifier::mock(secret.as_bytes(), user),
            Choice::Known(database) => Verifier::mock(secret.as_bytes(), &format!("{user}\0{}", database.name)),
            Choice::Not(name, _) => Verifier::mock(secret.as_bytes(), &format!("{user}\0{name}")),
        }
    }

    /// Fails where there is no database to enter, for who may know.
    fn refuse_choice(&self) -> PgWireResult<()> {
        match &self.endpoint.choice {
            Choice::Known(_) => Ok(()),
            Choice::Not(_, err) => Err(wire(err.clone())),
        }
    }

    /// Waits, and says no more than that it was wrong.
    async fn wrong(&self, user: &str) -> PgWireError {
        let wait = self.login.peer.address.map(|address| self.endpoint.failures.note(address));
        tracing::info!(user, address = ?self.login.peer.address, "a login failed");
        tokio::time::sleep(wait.unwrap_or(FIRST_WAIT)).await;
        fatal("28P01", failed(user))
    }
}

/// A role that was found.
struct Known {
    role: Role,
    /// An administrator of the main database, who comes into that of a tenant.
    operator: bool,
}

fn failed(user: &str) -> String {
    format!("password authentication failed for user \"{user}\"")
}

fn malformed(Malformed(what): Malformed) -> PgWireError {
    let mut refusal = info("FATAL", "08P01", "malformed SCRAM message");
    refusal.detail = Some(what.to_string());
    PgWireError::UserError(Box::new(refusal))
}

/// So long the first wrong guess waits for its answer; each further one twice as long, up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const DOUBLINGS: u32 = 5;

/// Guesses before this are forgotten.
const MEMORY: Duration = Duration::from_secs(60);

/// Addresses remembered. With more, the one that has failed longest ago is forgotten.
const MAX_ADDRESSES: usize = 1024;

/// Who has guessed how often lately.
#[derive(Default)]
pub struct Failures(Mutex<HashMap<IpAddr, (u32, Instant)>>);

impl Failures {
    /// Counts one more, and gives how long it has to wait for its answer.
    fn note(&self, address: IpAddr) -> Duration {
        self.note_at(address, Instant::now())
    }

    fn note_at(&self, address: IpAddr, now: Instant) -> Duration {
        let mut failures = self.0.lock();
        failures.retain(|_, (_, last)| now.duration_since(*last) < MEMORY);
        if failures.len() >= MAX_ADDRESSES && !failures.contains_key(&address) {
            let oldest = failures.iter().min_by_key(|(_, (_, last))| *last).map(|(address, _)| *address);
            oldest.map(|oldest| failures.remove(&oldest));
        }
        let (count, last) = failures.entry(address).or_insert((0, now));
        let wait = FIRST_WAIT * 2u32.pow((*count).min(DOUBLINGS));
        (*count, *last) = (count.saturating_add(1), now);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_both_speak() {
        let asked = |minor, options: &[&str]| {
            let mut startup = Startup::new();
            startup.protocol_number_minor = minor;
            startup.parameters.extend(options.iter().map(|name| (name.to_string(), "1".to_string())));
            let (version, told) = negotiate(&startup);
            (version, told.map(|told| (told.newest_minor_protocol, told.unsupported_options)))
        };
        assert_eq!(asked(0, &["user"]), (ProtocolVersion::PROTOCOL3_0, None));
        assert_eq!(asked(2, &[]), (ProtocolVersion::PROTOCOL3_2, None));
        assert_eq!(asked(9999, &[]), (ProtocolVersion::PROTOCOL3_2, Some((3 << 16 | 2, Vec::new()))));
        let extension = Some((3 << 16, vec!["_pq_.x".to_string()]));
        assert_eq!(asked(0, &["_pq_.x", "user"]), (ProtocolVersion::PROTOCOL3_0, extension));
    }

    #[test]
    fn guesses_wait_longer_and_are_forgotten() {
        let (failures, one, now) = (Failures::default(), IpAddr::from([192, 0, 2, 1]), Instant::now());
        let waits: Vec<u128> = (0..8).map(|_| failures.note_at(one, now).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 3200, 3200]);
        assert_eq!(failures.note_at(IpAddr::from([192, 0, 2, 2]), now), FIRST_WAIT, "others do not wait for them");
        assert_eq!(failures.note_at(one, now + MEMORY), FIRST_WAIT);
        for n in 0..2000u32 {
            failures.note_at(IpAddr::from(n.to_be_bytes()), now + MEMORY);
        }
        assert_eq!(failures.0.lock().len(), MAX_ADDRESSES);
    }
}
