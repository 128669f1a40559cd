//! What one caller of the SDS streams may have, and for how long.

use std::sync::Arc;

use mesh_lite_proto::secret_discovery::{
    BundleForm, Secrets, VersionedSecret,
    service::{SecretEvent, SecretSource},
};
use tokio::sync::watch;
use tonic::{Request, Status};

use super::{Sources, caller_of, check_still_trusted, conversation::wait_for_change, peer_of};
use crate::{
    caller::{Caller, Peer},
    certificate_authority::rotation::Trust,
    metrics::{OpenGauge, StreamKind},
    policy_index::PolicyIndex,
    trust_bundle_publisher::PublicSecrets,
};

const KIND: StreamKind = StreamKind::Secrets;

/// The secrets of a caller with an X509-SVID.
pub(super) struct PeerSecrets {
    peer: Arc<Peer>,
    caller: Caller,
    trust: watch::Receiver<Arc<Trust>>,
    policies: watch::Receiver<PolicyIndex>,
    sources: Sources,
    _open: OpenGauge,
}

impl PeerSecrets {
    pub(super) fn open(opening: &Request<()>, sources: &Sources) -> Result<Self, Status> {
        let caller = caller_of(opening)?;
        let peer = peer_of(&caller)?;
        check_still_trusted(&peer, sources)?;
        Ok(Self {
            peer,
            caller,
            trust: sources.authority.watch(),
            policies: sources.policies.clone(),
            sources: sources.clone(),
            _open: sources.metrics.stream(KIND),
        })
    }
}

impl Secrets for PeerSecrets {
    fn secret(&self, name: &str, form: BundleForm) -> Option<VersionedSecret> {
        PublicSecrets(Arc::clone(&self.trust.borrow())).secret(name, form)
    }
}

impl SecretSource for PeerSecrets {
    fn wanted(&mut self, _names: &[&str]) {
        // bundles are always ready
    }

    fn check(&mut self) -> Result<(), Status> {
        if is_closing(&self.caller) {
            return Err(Status::unavailable(
                "the control plane closes this connection: open the stream on a new one",
            ));
        }
        check_still_trusted(&self.peer, &self.sources)
    }

    async fn changed(&mut self) {
        tokio::select! {
            () = wait_for_change(&mut self.trust) => {}
            () = wait_for_change(&mut self.policies) => {}
            // its sender gone means the same: the connection ends
            _ = self.caller.closing.changed() => {}
        }
    }

    fn observe(&mut self, event: SecretEvent<'_>) {
        let metrics = &self.sources.metrics;
        match event {
            SecretEvent::Accepted(_) => metrics.accepted(KIND),
            SecretEvent::Rejected { rejection, pair } => {
                metrics.rejected(KIND);
                tracing::warn!(
                    peer.id = %self.peer.leaf.id,
                    secrets = ?rejection.secrets,
                    pair = ?pair,
                    message = ?rejection.message,
                    "secrets rejected: the client keeps the last good ones"
                );
            }
            SecretEvent::Unknown(_) => metrics.unknown_secret(),
        }
    }
}

fn is_closing(caller: &Caller) -> bool {
    *caller.closing.borrow() || caller.closing.has_changed().is_err()
}
