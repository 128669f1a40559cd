//! Issuance as the services use it: in turn, off the threads that serve, counted.

use std::{net::SocketAddr, sync::Arc};

use tokio::task;

use super::{
    Asked, Credential, Granted, Issuance, Refusal, StandingProof,
    turns::{NoTurn, Turns, Urgency},
};
use crate::{
    certificate_authority::{IssueError, IssuedSvid, certificate_request::PublicKey},
    clock::Clock,
    metrics::Metrics,
    workload_attestation::join_token::{JoinToken, StreamToken},
};

/// Issuances at one time. One costs a signature and, with a join token, a synced write; more at
/// once would only wait for the same processors and disk.
const MAX_ISSUANCES: usize = 32;

#[derive(Clone)]
pub(crate) struct IssuanceQueue {
    issuance: Arc<Issuance>,
    turns: Turns,
    metrics: Metrics,
    clock: Clock,
}

impl IssuanceQueue {
    pub(crate) fn new(issuance: Arc<Issuance>, metrics: Metrics, clock: Clock) -> Self {
        Self {
            issuance,
            turns: Turns::new(MAX_ISSUANCES),
            metrics,
            clock,
        }
    }

    pub(crate) async fn issue(
        &self,
        credential: Credential,
        asked: Asked,
    ) -> Result<Granted, NotIssued> {
        let urgency = match &credential {
            Credential::JoinToken(_) => Urgency::First,
            Credential::Svid(_) => Urgency::Renewal,
        };
        let now = (self.clock)();
        let address = asked.address;
        let issued = self
            .in_turn(urgency, move |issuance| {
                issuance.issue(&credential, &asked, now)
            })
            .await;
        self.count(issued, address)
    }

    /// For a key that was made here.
    pub(crate) async fn issue_for(
        &self,
        proof: StandingProof,
        address: SocketAddr,
        public_key: PublicKey,
        urgency: Urgency,
    ) -> Result<IssuedSvid, NotIssued> {
        let now = (self.clock)();
        let issued = self
            .in_turn(urgency, move |issuance| {
                issuance.issue_for(&proof, address, &public_key, now)
            })
            .await;
        self.count(issued, address)
    }

    /// Whose stream a reusable token opens.
    pub(crate) async fn open_stream(&self, token: JoinToken) -> Result<StreamToken, NotIssued> {
        let now = (self.clock)();
        self.in_turn(Urgency::First, move |issuance| {
            Ok(issuance.open_stream(&token, now)?)
        })
        .await
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        urgency: Urgency,
        work: impl FnOnce(&Issuance) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, NotIssued> {
        let turn = self.turns.take(urgency).await?;
        let issuance = Arc::clone(&self.issuance);
        let done = task::spawn_blocking(move || {
            let done = work(&issuance);
            drop(turn);
            done
        });
        Ok(done.await.map_err(|_| NotIssued::Failed)??)
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

#[derive(Debug, thiserror::Error)]
pub(crate) enum NotIssued {
    #[error(transparent)]
    Refused(#[from] Refusal),
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
            Self::Busy(_) => "busy",
            Self::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests;
