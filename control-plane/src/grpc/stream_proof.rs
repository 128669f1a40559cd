//! What a stream was opened by, and whether that still holds. A pod's token is reviewed again and
//! again while its stream is open, and the cluster's pods are watched: the stream of a pod that was
//! deleted ends.

use std::{sync::Arc, time::Duration};

use mesh_lite_proto::identity::WorkloadId;
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tonic::Status;

use super::{
    Sources, check_still_trusted,
    credential::{Bearer, workload_proof},
    secret_discovery::{not_reviewed, status_of},
    secret_source::identity_of,
};
use crate::{
    caller::{Caller, Standing},
    issuance::{StandingProof, turns::Urgency},
    workload_attestation::{Attestation, by_document},
    workload_index::{Workload, WorkloadIndex},
};

/// After a review that could not be made.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long a stream goes on after that: an API server with much to do, or one that is restarted,
/// is back by then.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct StreamProof {
    /// Fixed when the stream opened (SDS-S24).
    id: WorkloadId,
    shown: StandingProof,
    sources: Sources,
    look_at: Instant,
    /// Why the token is no longer good, once that was seen.
    ended: Option<Status>,
}

impl StreamProof {
    /// For the streams of the directory and of policies.
    ///
    /// # Errors
    /// If nothing good is shown, or its holder may have nothing at all.
    pub(super) async fn of(
        caller: &Caller,
        bearer: Option<Bearer>,
        sources: &Sources,
    ) -> Result<Self, Status> {
        let shown = workload_proof(caller, bearer, sources).await?;
        let id = identity_of(&shown, sources)?;
        Ok(Self::new(shown, id, caller, sources))
    }

    /// For a proof whose holder may have something.
    pub(super) fn new(
        shown: StandingProof,
        id: WorkloadId,
        caller: &Caller,
        sources: &Sources,
    ) -> Self {
        if let StandingProof::Pod(proof) = &shown
            && caller.peer.is_none()
        {
            // from here on the connection is a workload's
            let standing = Standing::Workload(proof.pod.workload.clone());
            caller.proved.send_replace(standing);
        }
        let look_at = match &shown {
            StandingProof::Pod(proof) => proof.pod.until,
            StandingProof::Svid(_) | StandingProof::StreamToken(_) => Instant::now(),
        };
        Self {
            id,
            shown,
            sources: sources.clone(),
            look_at,
            ended: None,
        }
    }

    pub(super) fn shown(&self) -> &StandingProof {
        &self.shown
    }

    /// # Errors
    /// Ends the stream: the caller may have nothing any more.
    pub(super) fn check(&self) -> Result<(), Status> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone());
        }
        match &self.shown {
            StandingProof::Svid(peer) => check_still_trusted(peer, &self.sources),
            StandingProof::Pod(proof) => {
                let now = (self.sources.clock)();
                let entitled = self.sources.issuance.entitled(&self.shown, now);
                entitled.map_err(|refusal| status_of(&refusal))?;
                let last = proof.pod.until.checked_add(PATIENCE);
                if last.is_none_or(|last| Instant::now() > last) {
                    return Err(Status::unavailable(
                        "the service-account token could not be reviewed again in time: open the stream again",
                    ));
                }
                Ok(())
            }
            StandingProof::StreamToken(_) => Ok(()),
        }
    }

    /// Waits until a token was looked at again. Cancelled and called again at will.
    pub(super) async fn changed(&mut self) {
        let StandingProof::Pod(proof) = &mut self.shown else {
            return std::future::pending().await;
        };
        let Attestation::ServiceAccountTokens(tokens) = &self.sources.attestation else {
            return std::future::pending().await;
        };
        if self.ended.is_some() {
            return std::future::pending().await;
        }
        let workloads = self.sources.workloads.clone();
        tokio::select! {
            // the next check says so
            () = until_gone(workloads, &proof.pod.uid) => return,
            () = time::sleep_until(self.look_at) => {}
        }
        match tokens.attest(&proof.token, Urgency::Renewal).await {
            Ok(pod) => {
                self.look_at = pod.until;
                proof.pod = pod;
            }
            Err(not) if not.is_refusal() => self.ended = Some(not_reviewed(&not)),
            Err(_) => self.look_at = Instant::now() + LOOK_AGAIN,
        }
    }

    pub(super) fn id(&self) -> &WorkloadId {
        &self.id
    }

    /// `None`: it is a pod that is not known yet or no longer. A pod that was made anew under the
    /// same name is another one.
    ///
    /// # Errors
    /// If it is none that is in the mesh.
    pub(super) fn workload_in<'a>(
        &self,
        index: &'a WorkloadIndex,
    ) -> Result<Option<&'a Workload>, Status> {
        match &self.shown {
            StandingProof::Svid(peer) => {
                let attested = by_document(&peer.leaf, index)
                    .map_err(|not| Status::permission_denied(not.to_string()))?;
                Ok(index.workload(&attested.workload))
            }
            StandingProof::StreamToken(token) => Ok(index.workload(&token.workload)),
            StandingProof::Pod(proof) => {
                let named = index.workload(&proof.pod.workload);
                Ok(named.filter(|workload| workload.uid.as_deref() == Some(&*proof.pod.uid)))
            }
        }
    }
}

/// Nobody waits for the next review of the token where its pod is seen to be gone.
async fn until_gone(mut workloads: watch::Receiver<Arc<WorkloadIndex>>, uid: &str) {
    if workloads
        .wait_for(|index| index.is_gone(uid))
        .await
        .is_err()
    {
        std::future::pending().await
    }
}
