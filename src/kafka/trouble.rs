//! What goes wrong between a client and its cluster, in the words of this program. What librdkafka has logged last says why
//! there is no answer.

use std::cell::{Cell, RefCell};

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::native::Logs;
use crate::error::{Error, Kind, Result};

/// Of one client, which must outlive it: where both are fields it stands first.
pub struct Trouble {
    logs: Logs,
    brokers: String,
    /// A connection failed since the cluster last answered.
    seen: Cell<bool>,
    /// Why.
    last: RefCell<Option<String>>,
}

impl Trouble {
    /// `brokers`: as the user wrote them.
    pub fn of<C: ClientContext>(client: &Client<C>, brokers: &str) -> Result<Trouble> {
        let logs = Logs::of(client).ok_or_else(|| Error::internal("no queue for librdkafka's logs"))?;
        Ok(Trouble { logs, brokers: brokers.to_string(), seen: Cell::new(false), last: RefCell::default() })
    }

    /// Whether a connection failed since the cluster last answered.
    pub fn is_seen(&self) -> bool {
        self.logs.take(|facility, message| {
            tracing::debug!(facility, message, "librdkafka");
            self.seen.set(self.seen.get() || matches!(facility, "FAIL" | "ERROR"));
            if matches!(facility, "FAIL" | "TXNERR") {
                // `[thrd:…]: host:9092/bootstrap: Connect to … failed: Connection refused (after 0ms in state CONNECT)`
                let named = message.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: "));
                *self.last.borrow_mut() = Some(named.map_or(message, |(_, message)| message).to_string());
            }
        });
        self.seen.get()
    }

    /// The cluster has answered.
    pub fn is_over(&self) {
        self.is_seen();
        self.seen.set(false);
        self.last.take();
    }

    /// librdkafka's error. Where no broker answers, with what was logged last.
    pub fn error(&self, err: &KafkaError) -> Error {
        use RDKafkaErrorCode as C;
        self.is_seen();
        let last = self.last.borrow().clone();
        let refused = last.as_ref().is_some_and(|text| text.contains("uthentication") || text.contains("SASL"));
        let code = err.rdkafka_error_code();
        let unanswered = matches!(
            code,
            Some(
                C::BrokerTransportFailure
                    | C::AllBrokersDown
                    | C::OperationTimedOut
                    | C::RequestTimedOut
                    | C::MessageTimedOut
                    | C::Resolve
            )
        );
        let err = match code {
            Some(C::Authentication | C::SaslAuthenticationFailed) => self.refused(),
            _ if unanswered && refused => self.refused(),
            _ if unanswered => {
                let message = format!("no Kafka broker answers at {}", self.brokers);
                Error::new(Kind::Unreachable, message)
                    .with_hint("Check the option \"brokers\", the network, and kafka.security.protocol.")
            }
            Some(code) => Error::new(Kind::Unreachable, format!("the Kafka cluster answers: {code}")),
            None => Error::new(Kind::Unreachable, format!("Kafka: {err}")),
        };
        match last {
            Some(last) => err.with_detail(format!("librdkafka: {last}.")),
            None => err,
        }
    }

    fn refused(&self) -> Error {
        Error::new(Kind::InsufficientPrivilege, format!("the Kafka brokers at {} refuse the login", self.brokers))
            .with_hint(
                "Check kafka.security.protocol, kafka.sasl.mechanism, kafka.sasl.username and kafka.sasl.password.",
            )
    }
}
