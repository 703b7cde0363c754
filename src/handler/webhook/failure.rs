//! From what went wrong with a call to a kind of failure. Decided by types only, never by the text of an error.

use std::error::Error;
use std::io;
use std::time::Duration;

use hyper::StatusCode;
use rustls::AlertDescription;

use super::client::NoAnswer;
use super::connect::{NotConnected, find};
use crate::task::{ErrorKind, Failure};

/// No answer came. `sent` says whether anything may have reached the receiver.
pub(super) fn no_answer(error: &NoAnswer, receiver: &str, sent: bool) -> Failure {
    let error = error.as_ref();
    if let Some(error) = find::<NotConnected>(error) {
        return not_connected(error, receiver);
    }
    if let Some(alert) = refused_in_handshake(error) {
        let why = format!("it answered with the alert {alert:?}");
        return not_connected(&NotConnected::Tls(why), receiver);
    }
    let message = match find::<hyper::Error>(error) {
        Some(error) if error.is_parse() => format!("the answer of {receiver} is not HTTP ({error})"),
        _ if sent => format!("{receiver} ended the connection before it answered"),
        _ => format!("{receiver} ended the connection before anything was sent"),
    };
    doubtful_if(sent, ErrorKind::ConnectionLost, message)
}

fn not_connected(error: &NotConnected, receiver: &str) -> Failure {
    match error {
        NotConnected::Name(why) => {
            Failure::new(ErrorKind::Dns, format!("the name of {receiver} was not found ({why})"))
        }
        NotConnected::Egress(address) => Failure::new(
            ErrorKind::Egress,
            format!("{receiver} is at {address}, which `egress` does not allow"),
        ),
        NotConnected::Refused(why) => {
            Failure::new(ErrorKind::Refused, format!("nobody accepts connections at {receiver} ({why})"))
        }
        NotConnected::Tls(why) => {
            Failure::new(ErrorKind::Tls, format!("no TLS session could be agreed on with {receiver} ({why})"))
        }
        NotConnected::TooSlow(limit) => too_late(*limit, receiver, false),
    }
}

/// In TLS 1.3 a server refuses a client's certificate when the client has begun to send: what it sent then was read by
/// nobody.
fn refused_in_handshake(error: &(dyn Error + 'static)) -> Option<AlertDescription> {
    // What a custom I/O error holds is not among its sources.
    let inner = find::<io::Error>(error)?.get_ref()?;
    match inner.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError
            | AlertDescription::HandshakeFailure
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate),
        ) => Some(*alert),
        _ => None,
    }
}

/// The time was up before an answer began.
pub(super) fn too_late(limit: Duration, receiver: &str, sent: bool) -> Failure {
    let message = if sent {
        format!("{receiver} did not answer within {limit:?}")
    } else {
        format!("no connection to {receiver} came about within {limit:?}")
    };
    doubtful_if(sent, ErrorKind::Timeout, message)
}

/// The answer began well and did not end.
pub(super) fn broken_off(error: &hyper::Error, status: StatusCode, receiver: &str) -> Failure {
    let message = if error.is_parse() {
        format!("{receiver} answered {status}, but the body is not HTTP ({error})")
    } else {
        format!("{receiver} answered {status}, but the connection ended before the body did")
    };
    Failure::new(ErrorKind::ConnectionLost, message)
}

/// The answer began well, and the time was up before it ended.
pub(super) fn unfinished(limit: Duration, status: StatusCode, receiver: &str) -> Failure {
    Failure::new(
        ErrorKind::Timeout,
        format!("{receiver} answered {status}, but the body did not end within {limit:?}"),
    )
}

/// An answer outside the success rule.
pub(super) fn status(status: StatusCode, receiver: &str) -> Failure {
    let hint = if status.is_redirection() { " (redirects are not followed)" } else { "" };
    let reason = status.canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
    let code = status.as_u16();
    Failure::status(code, format!("{receiver} answered {code}{reason}{hint}"))
}

fn doubtful_if(sent: bool, kind: ErrorKind, message: String) -> Failure {
    if sent { Failure::new(kind, message) } else { Failure::without_effect(kind, message) }
}

/// The call was told to end.
pub(super) fn ended(receiver: &str, sent: bool) -> Failure {
    let message = format!("the call to {receiver} was told to end");
    Failure { in_doubt: sent, ..Failure::new(ErrorKind::Canceled, message) }
}
