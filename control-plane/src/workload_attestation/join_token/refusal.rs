//! Why a token is not taken, or not made.

use std::path::PathBuf;

use super::MAX_TOKENS;
use crate::{
    certificate_authority::{key_store::KeyStoreError, random::NoRandomNumbers},
    workload_index::WorkloadName,
};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinTokenError {
    #[error(
        "this join token is not known here: it was mistyped, made with another --data-dir, or expired more than a day ago. Make one with `mesh-lite token create NAMESPACE/NAME`"
    )]
    Unknown,
    #[error(
        "this join token expired at {at}, and it is {now} here: make a new one with `mesh-lite token create {workload}`. \
         If it was made a moment ago on another machine, compare the clocks"
    )]
    Expired {
        at: String,
        now: String,
        workload: WorkloadName,
    },
    #[error(
        "this reusable token expired at {at}, and it is {now} here: make a new one with `mesh-lite token create {workload} --reusable` \
         and put it in the place of the old one"
    )]
    StreamTokenExpired {
        at: String,
        now: String,
        workload: WorkloadName,
    },
    #[error(
        "this reusable token was taken back: its record is gone from the data directory. If that was not meant, make a new one \
         with `mesh-lite token create {0} --reusable` and put it in the place of the old one"
    )]
    TakenBack(WorkloadName),
    #[error(
        "this token is reusable: it opens SDS streams and signs no certificate request. \
         Make one for that with `mesh-lite token create {0}`"
    )]
    SignsNothing(WorkloadName),
    #[error(
        "this join token is good for one certificate request and opens no stream: \
         make one that does with `mesh-lite token create {0} --reusable`"
    )]
    OpensNothing(WorkloadName),
    #[error(
        "this join token was redeemed at {at} and is good for one workload once: make a new one with `mesh-lite token create {workload}`, and find out who used it if it was not you"
    )]
    Redeemed { at: String, workload: WorkloadName },
    #[error(
        "{0} holds {MAX_TOKENS} join tokens that have not expired: wait for some to expire, or remove their files"
    )]
    TooMany(PathBuf),
    #[error("the lifetime is too long to be a date")]
    Lifetime,
    #[error("the record {path} of a join token can't be read or written: {error}")]
    Record {
        path: PathBuf,
        error: serde_json::Error,
    },
    #[error(transparent)]
    Store(#[from] KeyStoreError),
    #[error(transparent)]
    Random(#[from] NoRandomNumbers),
}

impl JoinTokenError {
    /// The caller's token is at fault, not this machine.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Unknown
                | Self::Expired { .. }
                | Self::Redeemed { .. }
                | Self::StreamTokenExpired { .. }
                | Self::TakenBack(_)
                | Self::SignsNothing(_)
                | Self::OpensNothing(_)
        )
    }
}
