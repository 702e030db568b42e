//! Why a handshake with a peer failed, in words that say what to do.
//!
//! Owns the translation from what the TLS library says. Pure. It is never more than a hint: what a stranger sends
//! decides what is said here, and nothing else.

use std::io::{self, ErrorKind};

use rustls::{AlertDescription, CertificateError, Error};

/// Why replicas do not come together. `Display` has no trailing dot and no secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PeerTlsFailure {
    /// We do not believe the peer.
    #[error(
        "the peer's certificate is of another CA: the replicas' raft.secrets, vault.token or raft.tls.caCert differ, \
         or their namespace, service or raft.clusterName do"
    )]
    AnotherCa,
    /// Of our CA, but not for our service.
    #[error(
        "the peer's certificate is of our CA, but not for this service: it must have the URI \
         kubernetes-vault://NAMESPACE/SERVICE/peer or the DNS name SERVICE.NAMESPACE.svc"
    )]
    AnotherName,
    /// Expired, or not valid yet.
    #[error("the peer's certificate has expired or is not valid yet: renew it, or set the clocks right")]
    OutOfTime,
    /// Not for servers, or not for clients.
    #[error("the peer's certificate is not for both, server and client authentication")]
    AnotherPurpose,
    /// Something else is wrong with it.
    #[error("the peer's certificate cannot be used: {0}")]
    BadCertificate(String),
    /// It shows none.
    #[error("the peer shows no certificate: it is no replica of kubernetes-vault")]
    NoCertificate,
    /// The peer does not believe us, and says so.
    #[error(
        "the peer does not accept our certificate ({0}): the replicas' raft.secrets, vault.token or raft.tls differ"
    )]
    NotAccepted(String),
    /// Somebody else, or a version that speaks otherwise.
    #[error("the peer speaks another protocol or another version of ours: it is no replica, or of another version")]
    AnotherProtocol,
    /// TLS 1.2, most likely.
    #[error("the peer does not speak TLS 1.3: it is no replica of kubernetes-vault")]
    OldTls,
    /// Not TLS at all.
    #[error("the peer does not speak TLS: it may be the Go version, or another program")]
    NotTls,
    /// The connection ended without a word.
    #[error(
        "the peer closed the connection without an answer: it does not speak TLS (the Go version does not), does not \
         accept our certificate, or has stopped"
    )]
    Closed,
    /// No answer in time.
    #[error("the peer did not answer in time")]
    Silent,
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl PeerTlsFailure {
    /// Whether it is about who somebody is, so that waiting changes nothing: a change of the configuration does.
    pub fn concerns_identity(&self) -> bool {
        match self {
            Self::AnotherCa
            | Self::AnotherName
            | Self::OutOfTime
            | Self::AnotherPurpose
            | Self::BadCertificate(_)
            | Self::NoCertificate
            | Self::NotAccepted(_) => true,
            Self::AnotherProtocol | Self::OldTls | Self::NotTls | Self::Closed | Self::Silent | Self::Other(_) => false,
        }
    }

    /// Whether a peer that fails so may be the Go version: worth asking it.
    pub fn may_be_go_version(&self) -> bool {
        matches!(self, Self::NotTls | Self::Closed | Self::Silent)
    }
}

/// What an error of a handshake, or of the first read after it, means. For both ends.
pub fn explain(error: &io::Error) -> PeerTlsFailure {
    if let Some(cause) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        return explain_tls(cause);
    }
    match error.kind() {
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected => PeerTlsFailure::Closed,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => PeerTlsFailure::Silent,
        _ => PeerTlsFailure::Other(error.to_string()),
    }
}

fn explain_tls(error: &Error) -> PeerTlsFailure {
    match error {
        Error::InvalidCertificate(cause) => explain_certificate(cause),
        Error::NoCertificatesPresented => PeerTlsFailure::NoCertificate,
        Error::AlertReceived(alert) => explain_alert(*alert),
        Error::NoApplicationProtocol => PeerTlsFailure::AnotherProtocol,
        Error::PeerIncompatible(_) => PeerTlsFailure::OldTls,
        // What is no TLS record, and a record that cannot come first.
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerSentOversizedRecord => PeerTlsFailure::NotTls,
        other => PeerTlsFailure::Other(other.to_string()),
    }
}

fn explain_certificate(cause: &CertificateError) -> PeerTlsFailure {
    match cause {
        // A derived CA always has the same name, so one of another secret shows as a signature that does not fit.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => PeerTlsFailure::AnotherCa,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            PeerTlsFailure::AnotherName
        }
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => PeerTlsFailure::OutOfTime,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            PeerTlsFailure::AnotherPurpose
        }
        other => PeerTlsFailure::BadCertificate(other.to_string()),
    }
}

fn explain_alert(alert: AlertDescription) -> PeerTlsFailure {
    match alert {
        AlertDescription::UnknownCA
        | AlertDescription::DecryptError
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateRequired
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied => PeerTlsFailure::NotAccepted(meaning(alert)),
        AlertDescription::NoApplicationProtocol => PeerTlsFailure::AnotherProtocol,
        AlertDescription::ProtocolVersion => PeerTlsFailure::OldTls,
        other => PeerTlsFailure::Other(format!("the peer ended the handshake ({other:?})")),
    }
}

fn meaning(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => "it is of another CA".to_owned(),
        AlertDescription::BadCertificate => "it does not name the peer's service".to_owned(),
        AlertDescription::CertificateExpired => "it has expired or is not valid yet".to_owned(),
        AlertDescription::UnsupportedCertificate => "it is not for both, servers and clients".to_owned(),
        AlertDescription::CertificateRequired => "it got none".to_owned(),
        other => format!("{other:?}"),
    }
}
