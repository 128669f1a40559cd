//! The policy in force: whole numbered snapshots from the control plane, each acknowledged or
//! refused. A refused one changes nothing: the last good one stays, also while the control
//! plane is away.

use std::sync::Arc;

use mesh_lite_proto::{
    authorization::PolicySnapshot,
    sidecar::{MAX_GRPC_MESSAGE, SCHEMA},
    wire::mesh_lite::v1::{
        self as wire, authorization_policies_client::AuthorizationPoliciesClient,
        policy_request::Request,
    },
};
use spiffe::TrustDomain;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Response, Status, Streaming, transport::Channel};

use crate::{
    control::status::Reporter, control_plane_client::subscription::Subscription, metrics::Metrics,
};

/// A reason longer than this tells the control plane's log nothing more.
const MAX_REASON: usize = 1024;

pub(crate) struct PolicyWatch {
    trust_domain: TrustDomain,
    snapshots: watch::Sender<Option<Arc<PolicySnapshot>>>,
    reporter: Reporter,
    metrics: Metrics,
}

impl PolicyWatch {
    /// `saved` is what the state file had.
    pub(crate) fn new(
        trust_domain: TrustDomain,
        saved: Option<PolicySnapshot>,
        reporter: Reporter,
        metrics: Metrics,
    ) -> (Self, watch::Receiver<Option<Arc<PolicySnapshot>>>) {
        let (snapshots, receiver) = watch::channel(None);
        let watch = Self {
            trust_domain,
            snapshots,
            reporter,
            metrics,
        };
        if let Some(saved) = saved {
            watch.publish(saved);
        }
        (watch, receiver)
    }

    fn read(&self, snapshot: wire::PolicySnapshot) -> Result<PolicySnapshot, String> {
        let snapshot = PolicySnapshot::try_from(snapshot).map_err(|error| error.to_string())?;
        if snapshot.trust_domain == self.trust_domain {
            Ok(snapshot)
        } else {
            let found = &snapshot.trust_domain;
            Err(format!(
                "it is for the trust domain {found}, this is {}",
                self.trust_domain
            ))
        }
    }

    /// A snapshot with another number but the same content is not sent on: every live
    /// connection would be judged again for nothing.
    fn publish(&self, snapshot: PolicySnapshot) {
        self.metrics.policy_revision(snapshot.revision);
        self.metrics.broken_policies(snapshot.broken.len());
        let before = self.snapshots.borrow().clone();
        if let Some(before) = before.filter(|before| same_content(before, &snapshot)) {
            // pages show the number that was acknowledged; nobody is told
            let renumbered = Arc::new(PolicySnapshot {
                revision: snapshot.revision,
                ..Arc::unwrap_or_clone(before)
            });
            self.snapshots.send_if_modified(|in_force| {
                *in_force = Some(renumbered);
                false
            });
            return;
        }
        tracing::info!(
            revision = snapshot.revision,
            policies = snapshot.policies.len(),
            broken = snapshot.broken.len(),
            "policy"
        );
        // here, and not while the first connection waits for its decision
        snapshot.policies.prepare();
        self.snapshots.send_replace(Some(Arc::new(snapshot)));
    }
}

fn same_content(one: &PolicySnapshot, other: &PolicySnapshot) -> bool {
    // named one by one, so that a new field can't be forgotten here
    let PolicySnapshot {
        revision: _,
        trust_domain,
        mutual_tls,
        default_action,
        policies,
        evictions,
        broken,
    } = one;
    *trust_domain == other.trust_domain
        && *mutual_tls == other.mutual_tls
        && *default_action == other.default_action
        && *policies == other.policies
        && *evictions == other.evictions
        && *broken == other.broken
}

impl Subscription for PolicyWatch {
    type Request = wire::PolicyRequest;
    type Response = wire::PolicySnapshot;

    async fn open(
        channel: Channel,
        requests: tonic::Request<ReceiverStream<wire::PolicyRequest>>,
    ) -> Result<Response<Streaming<wire::PolicySnapshot>>, Status> {
        let mut client =
            AuthorizationPoliciesClient::new(channel).max_decoding_message_size(MAX_GRPC_MESSAGE);
        client.watch(requests).await
    }

    fn first_requests(&mut self) -> Vec<wire::PolicyRequest> {
        vec![request(Request::Hello(wire::Hello { schema: SCHEMA }))]
    }

    fn received(&mut self, snapshot: wire::PolicySnapshot) -> Vec<wire::PolicyRequest> {
        self.reporter.contact();
        let revision = snapshot.revision;
        match self.read(snapshot) {
            Ok(snapshot) => {
                self.publish(snapshot);
                self.reporter.fine();
                vec![request(Request::Ack(wire::Ack { revision }))]
            }
            Err(reason) => {
                let reason: String = reason.chars().take(MAX_REASON).collect();
                self.metrics.policy_refused();
                self.reporter
                    .wrong(&format!("policy snapshot {revision} is refused: {reason}"));
                vec![request(Request::Nack(wire::Nack { revision, reason }))]
            }
        }
    }

    async fn next_requests(&mut self) -> Vec<wire::PolicyRequest> {
        std::future::pending().await
    }

    fn connected(&mut self) {}

    fn disconnected(&mut self, reason: &str) {
        self.reporter.disconnected(reason);
    }
}

fn request(request: Request) -> wire::PolicyRequest {
    wire::PolicyRequest {
        request: Some(request),
    }
}

#[cfg(test)]
mod tests;
