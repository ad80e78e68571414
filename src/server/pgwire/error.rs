//! Errors on the wire: severity, SQLSTATE, message, detail and hint.

use pgwire::error::{ErrorInfo, PgWireError};
use pgwire::messages::PgWireBackendMessage;

use crate::error::{Error, Kind};

/// The whole of one of our errors. A shutdown ends the connection, everything else only the statement.
pub fn wire(err: impl Into<Error>) -> PgWireError {
    let err: Error = err.into();
    let severity = if err.kind() == Kind::Shutdown { "FATAL" } else { "ERROR" };
    let mut info = info(severity, err.kind().sqlstate(), err.message());
    info.detail = err.detail().map(str::to_string);
    info.hint = err.hint().map(str::to_string);
    info.position = err.position().map(|position| position.to_string());
    PgWireError::UserError(Box::new(info))
}

/// An error that only the protocol knows of, with its SQLSTATE.
pub fn refuse(sqlstate: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(info("ERROR", sqlstate, message)))
}

/// An error that ends the connection.
pub fn fatal(sqlstate: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(info("FATAL", sqlstate, message)))
}

/// The last thing that a client is told, whatever it is.
pub fn farewell(err: PgWireError) -> PgWireBackendMessage {
    let mut info = ErrorInfo::from(err);
    info.severity = "FATAL".to_string();
    info.severity_nonlocalized = Some("FATAL".to_string());
    PgWireBackendMessage::ErrorResponse(info.into())
}

/// The fields of an error or notice.
pub fn info(severity: &str, sqlstate: &str, message: impl Into<String>) -> ErrorInfo {
    let mut info = ErrorInfo::new(severity.to_string(), sqlstate.to_string(), message.into());
    // Drivers read this one, as the other may be translated.
    info.severity_nonlocalized = Some(severity.to_string());
    info
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_error_reaches_the_client() {
        let err =
            Error::new(Kind::UndefinedTable, "relation \"x\" does not exist").with_hint("Try y.").with_detail("D.");
        let PgWireError::UserError(info) = wire(err) else { panic!("another kind of error") };
        assert_eq!((info.severity.as_str(), info.code.as_str()), ("ERROR", "42P01"));
        assert_eq!((info.detail.as_deref(), info.hint.as_deref()), (Some("D."), Some("Try y.")));
    }

    #[test]
    fn a_shutdown_is_fatal() {
        let PgWireError::UserError(info) = wire(Error::new(Kind::Shutdown, "bye")) else { panic!("another kind") };
        assert!(info.is_fatal());
        assert_eq!(info.code, "57P01");
    }
}
