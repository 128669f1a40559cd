//! Why a caller gets no certificate.

use crate::{
    certificate_authority::{IssueError, certificate_request::InvalidRequest},
    issuance::admission::RENEWALS_PER_SECOND,
    workload_attestation::{NotAttested, join_token::JoinTokenError},
    workload_index::WorkloadName,
};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Refusal {
    #[error(transparent)]
    Request(#[from] InvalidRequest),
    #[error(transparent)]
    Token(#[from] JoinTokenError),
    #[error(transparent)]
    Attestation(#[from] NotAttested),
    #[error(
        "the certificate request asks for {asked:?}, but the caller is {id}: leave the name out, it is not the caller's to choose"
    )]
    OtherUri { asked: String, id: String },
    #[error("this key has a certificate already: make a new key for every request")]
    KeyUsedBefore,
    #[error(
        "{0} renews more than {RENEWALS_PER_SECOND} times a second: does its certificate look old to it at once? Compare the clocks"
    )]
    TooOften(WorkloadName),
    #[error("the caller is evicted by {0}")]
    Evicted(String),
    #[error(
        "{0} is not among the known workloads yet, so nobody can tell which services it is behind: ask again in a moment"
    )]
    NotKnownYet(WorkloadName),
    #[error(
        "another pod is known as {0} than the one that the service-account token was made for: if that is the newer one, \
         ask again in a moment"
    )]
    OtherPod(WorkloadName),
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl Refusal {
    /// One word for the metric.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Request(_) => "bad_request",
            Self::Token(error) if error.is_refusal() => "bad_token",
            Self::Attestation(_) => "not_attested",
            Self::OtherUri { .. } => "other_identity",
            Self::KeyUsedBefore => "key_used_before",
            Self::TooOften(_) => "too_often",
            Self::Evicted(_) => "evicted",
            Self::NotKnownYet(_) | Self::OtherPod(_) => "not_known_yet",
            Self::Token(_) | Self::Issue(_) => "failed",
        }
    }
}
