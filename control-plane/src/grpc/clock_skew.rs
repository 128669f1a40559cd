//! A client's certificate that only the clocks speak against: said with both times, because the
//! cure is another than for a certificate that is wrong.

use std::{io, time::SystemTime};

use rustls::{CertificateError, Error};
use rustls_pki_types::UnixTime;

use crate::clock::{from_unix_seconds, readable};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotValidNow {
    #[error(
        "the client's certificate is valid from {from} on, and it is {now} here: one of the two clocks is wrong. \
         Set it, or keep both by NTP"
    )]
    NotYet { from: String, now: String },
    #[error(
        "the client's certificate ended at {at}, and it is {now} here: it was not renewed in time, or one of the two \
         clocks is wrong. A new join token (`mesh-lite token create`) brings the client back"
    )]
    Over { at: String, now: String },
}

impl NotValidNow {
    /// What a handshake failed for, if it was that.
    pub(super) fn reason_of(error: &io::Error) -> Option<Self> {
        let error = error.get_ref()?.downcast_ref::<Error>()?;
        let Error::InvalidCertificate(error) = error else {
            return None;
        };
        match error {
            CertificateError::NotValidYetContext { time, not_before } => Some(Self::NotYet {
                from: date(*not_before),
                now: date(*time),
            }),
            CertificateError::ExpiredContext { time, not_after } => Some(Self::Over {
                at: date(*not_after),
                now: date(*time),
            }),
            _ => None,
        }
    }

    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::NotYet { .. } => "certificate_not_yet_valid",
            Self::Over { .. } => "certificate_expired",
        }
    }
}

fn date(time: UnixTime) -> String {
    let time: SystemTime = from_unix_seconds(time.as_secs());
    readable(time)
}
