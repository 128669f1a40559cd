//! Issuance as the services use it: in turn, off the threads that serve, counted.

use std::{net::SocketAddr, sync::Arc, time::SystemTime};

use tokio::task;

use super::{
    Asked, Credential, Granted, Issuance, Refusal, StandingProof,
    turns::{NoTurn, Turn, Turns, Urgency},
};
use crate::{
    caller::Peer,
    certificate_authority::{IssueError, IssuedSvid, certificate_request::PublicKey},
    clock::Clock,
    metrics::Metrics,
    workload_attestation::{
        join_token::{JoinToken, StreamToken},
        service_account_token::NotReviewed,
    },
};

/// Issuances at one time. One costs a signature and, with a join token, a synced write; more at
/// once would only wait for the same processors and disk.
const MAX_ISSUANCES: usize = 32;
/// Looks at a token at one time, one small file each: they do not wait for signatures, nor do
/// signatures wait for tokens that somebody invented.
const MAX_LOOKS: usize = 8;

#[derive(Clone)]
pub(crate) struct IssuanceQueue {
    issuance: Arc<Issuance>,
    turns: Turns,
    looks: Turns,
    metrics: Metrics,
    clock: Clock,
}

impl IssuanceQueue {
    pub(crate) fn new(issuance: Arc<Issuance>, metrics: Metrics, clock: Clock) -> Self {
        Self {
            issuance,
            turns: Turns::new(MAX_ISSUANCES),
            looks: Turns::new(MAX_LOOKS),
            metrics,
            clock,
        }
    }

    pub(crate) async fn issue(
        &self,
        credential: Credential,
        asked: Asked,
    ) -> Result<Granted, NotIssued> {
        let address = asked.address;
        let issued = self.look_and_issue(credential, asked).await;
        self.count(issued, address)
    }

    async fn look_and_issue(
        &self,
        credential: Credential,
        asked: Asked,
    ) -> Result<Granted, NotIssued> {
        let urgency = match &credential {
            Credential::JoinToken(token) => {
                let print = token.print();
                self.look(Urgency::First, move |issuance, now| {
                    Ok(issuance.check_claimable(print, now)?)
                })
                .await?;
                Urgency::First
            }
            Credential::Svid(_) => Urgency::Renewal,
            Credential::Pod(proof) => urgency_of(proof.peer.as_deref()),
        };
        self.in_turn(urgency, move |issuance, now| {
            issuance.issue(&credential, &asked, now)
        })
        .await
    }

    /// For a key that was made here.
    pub(crate) async fn issue_for(
        &self,
        proof: StandingProof,
        address: SocketAddr,
        public_key: PublicKey,
        urgency: Urgency,
    ) -> Result<IssuedSvid, NotIssued> {
        let issued = self
            .in_turn(urgency, move |issuance, now| {
                issuance.issue_for(&proof, address, &public_key, now)
            })
            .await;
        self.count(issued, address)
    }

    /// Whose stream a reusable token opens.
    pub(crate) async fn open_stream(&self, token: JoinToken) -> Result<StreamToken, NotIssued> {
        self.look(Urgency::First, move |issuance, now| {
            Ok(issuance.open_stream(&token, now)?)
        })
        .await
    }

    /// That the token of an open stream was not taken back.
    pub(crate) async fn check_token(&self, token: StreamToken) -> Result<(), NotIssued> {
        self.look(Urgency::Renewal, move |issuance, now| {
            Ok(issuance.check_token(&token, now)?)
        })
        .await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        urgency: Urgency,
        work: impl FnOnce(&Issuance, SystemTime) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, NotIssued> {
        self.after(self.turns.take(urgency).await?, work).await
    }

    async fn look<T: Send + 'static>(
        &self,
        urgency: Urgency,
        work: impl FnOnce(&Issuance, SystemTime) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, NotIssued> {
        self.after(self.looks.take(urgency).await?, work).await
    }

    /// The time is told when the turn has come: a credential may end while its holder waits.
    async fn after<T: Send + 'static>(
        &self,
        turn: Turn,
        work: impl FnOnce(&Issuance, SystemTime) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, NotIssued> {
        let (issuance, clock) = (Arc::clone(&self.issuance), self.clock);
        let done = task::spawn_blocking(move || {
            let done = work(&issuance, clock());
            drop(turn);
            done
        });
        Ok(done.await.map_err(|_| NotIssued::Failed)??)
    }

    /// A certificate was asked for with a token that is not good, or that nobody can judge now.
    pub(crate) fn not_reviewed(&self, error: NotReviewed, address: SocketAddr) -> NotIssued {
        let error = NotIssued::from(error);
        self.metrics.issuance(error.outcome());
        tracing::warn!(client.addr = %address, %error, "no certificate issued");
        error
    }

    fn count<T>(&self, issued: Result<T, NotIssued>, address: SocketAddr) -> Result<T, NotIssued> {
        match &issued {
            Ok(_) => self.metrics.issuance("granted"),
            Err(error) => {
                self.metrics.issuance(error.outcome());
                if error.is_broken() {
                    self.metrics.broken_secret();
                    tracing::error!(client.addr = %address, %error, "a certificate is broken and is sent to nobody");
                } else {
                    tracing::warn!(client.addr = %address, %error, "no certificate issued");
                }
            }
        }
        issued
    }
}

/// Of a pod. Its word has to do for it: whoever lies is served before others once.
pub(crate) fn urgency_of(peer: Option<&Peer>) -> Urgency {
    match peer {
        Some(_) => Urgency::Renewal,
        None => Urgency::First,
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum NotIssued {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    NotReviewed(#[from] NotReviewed),
    #[error(transparent)]
    Busy(#[from] NoTurn),
    #[error("issuing failed, a defect; the control plane's log says where")]
    Failed,
}

impl NotIssued {
    /// What was signed is not what was meant (SDS-S18).
    fn is_broken(&self) -> bool {
        matches!(
            self,
            Self::Refused(Refusal::Issue(IssueError::Inspection(_)))
        )
    }

    fn outcome(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.outcome(),
            Self::NotReviewed(error) if error.is_refusal() => "bad_token",
            Self::NotReviewed(error) => error.outcome(),
            Self::Busy(_) => "busy",
            Self::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests;
