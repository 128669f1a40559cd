//! Sends each workload the whole of the policy that concerns it, numbered, at every change of
//! its content, and notes what the workload made of it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use mesh_lite_proto::{
    authorization::PolicySnapshot,
    wire::mesh_lite::v1 as wire,
    wire::mesh_lite::v1::{
        authorization_policies_server::AuthorizationPolicies, policy_request::Request as Kind,
    },
};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Sources, caller_of,
    conversation::{Conversation, Responses, start, wait_for_change},
    credential::bearer_token,
    stream_proof::StreamProof,
};
use crate::{
    certificate_authority::rotation::Trust,
    clock::unix_millis,
    metrics::StreamKind,
    policy_index::{PolicyIndex, Selected},
    workload_index::WorkloadIndex,
};

const KIND: StreamKind = StreamKind::Policies;
/// A reason goes into a log line.
const MAX_REASON: usize = 1024;

pub(super) struct Policies {
    sources: Sources,
    /// Numbers snapshots. Begins at the time of the start, so that numbers also grow over a
    /// restart.
    revision: Arc<AtomicU64>,
}

impl Policies {
    pub(super) fn new(sources: Sources) -> Self {
        let revision = Arc::new(AtomicU64::new(unix_millis((sources.clock)())));
        Self { sources, revision }
    }
}

#[tonic::async_trait]
impl AuthorizationPolicies for Policies {
    type WatchStream = Responses<wire::PolicySnapshot>;

    async fn watch(
        &self,
        request: Request<Streaming<wire::PolicyRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let caller = caller_of(&request)?;
        let proof = StreamProof::of(&caller, bearer_token(&request)?, &self.sources).await?;
        let conversation = PolicyConversation {
            proof,
            workloads: self.sources.workloads.clone(),
            policies: self.sources.policies.clone(),
            trust: self.sources.authority.watch(),
            sources: self.sources.clone(),
            revision: Arc::clone(&self.revision),
            greeted: false,
            sent: None,
            labels: None,
            looked_at: self.sources.policies.clone(),
        };
        let open = self.sources.metrics.stream(KIND);
        Ok(Response::new(start(
            request.into_inner(),
            conversation,
            caller,
            open,
        )))
    }
}

struct PolicyConversation {
    proof: StreamProof,
    /// Only says when to look.
    workloads: watch::Receiver<Arc<WorkloadIndex>>,
    policies: watch::Receiver<PolicyIndex>,
    trust: watch::Receiver<Arc<Trust>>,
    sources: Sources,
    revision: Arc<AtomicU64>,
    greeted: bool,
    /// Numbered as it was sent.
    sent: Option<PolicySnapshot>,
    /// The workload's, when policy was last looked at.
    labels: Option<BTreeMap<String, String>>,
    /// Says whether policy changed since then.
    looked_at: watch::Receiver<PolicyIndex>,
}

impl PolicyConversation {
    /// In a cluster pods come and go all the time, and nearly all of it changes nothing here: a
    /// snapshot is not made for each.
    fn is_as_sent(&self) -> bool {
        let policies = self.looked_at.borrow();
        let workload = self.proof.workload_in(policies.workloads()).ok().flatten();
        let labels = workload.map(|workload| &workload.labels);
        let same = labels.is_some() && labels == self.labels.as_ref();
        same && self.sent.is_some() && !self.looked_at.has_changed().unwrap_or(true)
    }

    /// The snapshot of this workload, without a number. `None` while the workload is a pod that is
    /// not known here yet, or no longer: its labels decide what it gets.
    /// Labels and documents are of one state: those of before and those of now together may allow
    /// what neither does.
    fn current(&mut self) -> Result<Option<PolicySnapshot>, Status> {
        let policies = self.looked_at.borrow_and_update();
        // until there are new ones, what was looked at is of no use
        self.labels = None;
        let Some(workload) = self.proof.workload_in(policies.workloads())? else {
            return Ok(None);
        };
        let selected = Selected {
            namespace: &workload.name.namespace,
            labels: &workload.labels,
        };
        self.labels = Some(workload.labels.clone());
        let now = (self.sources.clock)();
        Ok(Some(policies.snapshot_for(selected, now)))
    }

    fn rejected(&self, nack: &wire::Nack) {
        self.sources.metrics.rejected(KIND);
        let reason: String = nack.reason.chars().take(MAX_REASON).collect();
        tracing::warn!(
            peer.id = %self.proof.id(),
            revision = nack.revision,
            reason = ?reason,
            "policies rejected: the workload keeps the last good ones"
        );
    }

    fn is_last_sent(&self, revision: u64) -> bool {
        self.sent
            .as_ref()
            .is_some_and(|sent| sent.revision == revision)
    }
}

impl Conversation for PolicyConversation {
    type Request = wire::PolicyRequest;
    type Response = wire::PolicySnapshot;

    fn receive(&mut self, request: wire::PolicyRequest) -> Result<(), Status> {
        let id = self.proof.id();
        match request.request {
            Some(Kind::Hello(hello)) if !self.greeted => {
                self.greeted = true;
                tracing::debug!(peer.id = %id, schema = hello.schema, "policies are watched");
            }
            Some(Kind::Hello(_)) => {
                return Err(Status::invalid_argument(
                    "hello comes once, first on a stream",
                ));
            }
            _ if !self.greeted => {
                return Err(Status::invalid_argument("hello comes first on a stream"));
            }
            Some(Kind::Ack(ack)) if self.is_last_sent(ack.revision) => {
                self.sources.metrics.accepted(KIND);
            }
            Some(Kind::Nack(nack)) if self.is_last_sent(nack.revision) => self.rejected(&nack),
            // about an older snapshot: the word on the last one is still to come
            Some(Kind::Ack(_) | Kind::Nack(_)) => {}
            None => {
                return Err(Status::invalid_argument(
                    "a request without content, or of a later version",
                ));
            }
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), Status> {
        self.proof.check()
    }

    fn owed(&mut self) -> Result<Option<wire::PolicySnapshot>, Status> {
        if !self.greeted {
            return Ok(None);
        }
        if self.is_as_sent() {
            return Ok(None);
        }
        let Some(mut current) = self.current()? else {
            return Ok(None);
        };
        // numbers differ at every send; content decides
        current.revision = self.sent.as_ref().map_or(0, |sent| sent.revision);
        if self.sent.as_ref() == Some(&current) {
            return Ok(None);
        }
        current.revision = self
            .revision
            .fetch_add(1, Ordering::Relaxed)
            .saturating_add(1);
        let message = wire::PolicySnapshot::from(&current);
        self.sent = Some(current);
        Ok(Some(message))
    }

    async fn changed(&mut self) {
        tokio::select! {
            () = wait_for_change(&mut self.workloads) => {}
            () = wait_for_change(&mut self.policies) => {}
            () = wait_for_change(&mut self.trust) => {}
            () = self.proof.changed() => {}
        }
    }
}
