//! One line for each certificate: who asked, by what proof, what was signed. It holds no secret:
//! a token is named by the beginning of its hash, a key by its kind.

use std::net::SocketAddr;

use mesh_lite_proto::svid::{LeafFacts, Serial};

use crate::{
    certificate_authority::key_kind::KeyKind,
    clock::readable,
    workload_attestation::{join_token::JoinToken, service_account_token::PodProof},
    workload_index::WorkloadName,
};

/// Where the lines go: a log filter can give them a place of their own.
pub(crate) const AUDIT: &str = "mesh_lite_control_plane::audit";

/// By what a caller proved who it is, so that the proof can be found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The beginning of its hash, which is also its file's name in the data directory.
    JoinToken(String),
    /// As above, of a reusable one.
    StreamToken(String),
    Svid(Serial),
    /// The uid of the pod whose service-account token it was.
    Pod(String),
}

impl Proof {
    pub(super) fn of_token(token: &JoinToken) -> Self {
        Self::JoinToken(token.short_print())
    }

    pub(super) fn of_pod(proof: &PodProof) -> Self {
        Self::Pod(proof.pod.uid.to_string())
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::JoinToken(_) => "join token",
            Self::StreamToken(_) => "reusable token",
            Self::Svid(_) => "X509-SVID",
            Self::Pod(_) => "service-account token",
        }
    }

    fn which(&self) -> String {
        match self {
            Self::JoinToken(text) | Self::StreamToken(text) | Self::Pod(text) => text.clone(),
            Self::Svid(serial) => serial.to_string(),
        }
    }
}

/// Who asked.
pub(super) struct Asking<'a> {
    pub(super) address: SocketAddr,
    pub(super) workload: &'a WorkloadName,
    pub(super) proof: &'a Proof,
}

/// What was signed.
pub(super) struct Signed<'a> {
    pub(super) leaf: &'a LeafFacts,
    pub(super) key: KeyKind,
    /// The key was made here, because the caller brought none.
    pub(super) key_made_here: bool,
    /// Key id of the issuing CA.
    pub(super) issuer: &'a str,
}

pub(super) fn issued(asking: &Asking<'_>, signed: &Signed<'_>) {
    tracing::info!(
        target: AUDIT,
        workload = %asking.workload,
        client.addr = %asking.address,
        proof = asking.proof.kind(),
        proof.id = asking.proof.which(),
        id = %signed.leaf.id,
        serial = %signed.leaf.serial,
        key = %signed.key,
        key_made_here = signed.key_made_here,
        not_before = %readable(signed.leaf.not_before),
        not_after = %readable(signed.leaf.not_after),
        issuer.key_id = signed.issuer,
        "certificate issued"
    );
}

/// The answer to a redemption was lost: the same certificate is handed out once more.
pub(super) fn handed_out_again(asking: &Asking<'_>) {
    tracing::info!(
        target: AUDIT,
        workload = %asking.workload,
        client.addr = %asking.address,
        proof = asking.proof.kind(),
        proof.id = asking.proof.which(),
        "certificate handed out again"
    );
}
