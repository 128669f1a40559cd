//! What one caller of the SDS streams may have, and for how long.

use std::{
    mem,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::{
    identity::WorkloadId,
    secret_discovery::{
        BundleForm, DEFAULT_SVID, Secrets, ToldRejections, VersionedSecret,
        service::{SecretEvent, SecretSource},
    },
};
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use tonic::Status;

use super::{
    Sources, check_still_trusted,
    conversation::wait_for_change,
    secret_discovery::{not_issued, status_of},
    stream_proof::StreamProof,
};
use crate::{
    caller::{Caller, Standing},
    certificate_authority::rotation::Trust,
    clock::wait_until,
    issuance::{
        Refusal, StandingProof,
        queue::{IssuanceQueue, NotIssued},
    },
    metrics::{OpenGauge, StreamKind},
    policy_index::PolicyIndex,
    remote_keys::{MadeHere, RemoteSvid},
    trust_bundle_publisher::PublicSecrets,
    workload_attestation::join_token::StreamToken,
    workload_index::WorkloadIndex,
};

const KIND: StreamKind = StreamKind::Secrets;
/// How long a token that was taken back goes on being good on an open stream. A look is the reading
/// of one small file: 500 a second with 5,000 streams.
const LOOK_AT_TOKEN_EVERY: Duration = Duration::from_secs(10);

/// Bundles for every caller, and its own X509-SVID if keys are made here.
pub(super) struct CallerSecrets {
    proof: StreamProof,
    /// Fixed when the stream opened (SDS-S24).
    id: WorkloadId,
    caller: Caller,
    trust: watch::Receiver<Arc<Trust>>,
    policies: watch::Receiver<PolicyIndex>,
    workloads: watch::Receiver<Arc<WorkloadIndex>>,
    /// `None`: the operator did not allow it.
    svid: Option<RemoteSvid<MadeHere>>,
    sources: Sources,
    queue: IssuanceQueue,
    look_at_token_at: Instant,
    stream_token: Option<StreamToken>,
    /// Why the token is no longer good, once that was seen.
    token_ended: Option<Status>,
    told_rejections: ToldRejections,
    told_of_refused_key: bool,
    _open: OpenGauge,
}

/// Who the holder of a proof is, if it may have anything at all.
///
/// # Errors
/// If it has expired, or its holder was evicted or has no place in the mesh.
pub(super) fn identity_of(proof: &StandingProof, sources: &Sources) -> Result<WorkloadId, Status> {
    match proof {
        StandingProof::Svid(peer) => {
            check_still_trusted(peer, sources)?;
            Ok(peer.leaf.id.clone())
        }
        StandingProof::StreamToken(_) | StandingProof::Pod(_) => {
            let now = (sources.clock)();
            let attested = sources.issuance.entitled(proof, now);
            Ok(attested.map_err(|refusal| status_of(&refusal))?.id)
        }
    }
}

impl CallerSecrets {
    pub(super) fn open(
        caller: Caller,
        proof: StandingProof,
        sources: &Sources,
        queue: &IssuanceQueue,
    ) -> Result<Self, Status> {
        let id = identity_of(&proof, sources)?;
        // from here on the connection is a workload's
        if let StandingProof::StreamToken(token) = &proof {
            let standing = Standing::Workload(token.workload.clone());
            caller.proved.send_replace(standing);
        }
        let stream_token = match &proof {
            StandingProof::StreamToken(token) => Some(token.clone()),
            StandingProof::Svid(_) | StandingProof::Pod(_) => None,
        };
        let proof = StreamProof::new(proof, id.clone(), &caller, sources);
        let svid = sources.allow_remote_keys.then(|| {
            let maker = MadeHere {
                queue: queue.clone(),
                proof: proof.shown().clone(),
                attestation: sources.attestation.clone(),
                address: caller.address,
            };
            let (clock, metrics) = (sources.clock, sources.metrics.clone());
            RemoteSvid::new(maker, sources.authority.watch(), clock, metrics)
        });
        Ok(Self {
            proof,
            id,
            caller,
            trust: sources.authority.watch(),
            policies: sources.policies.clone(),
            workloads: sources.workloads.clone(),
            svid,
            sources: sources.clone(),
            queue: queue.clone(),
            stream_token,
            look_at_token_at: Instant::now() + LOOK_AT_TOKEN_EVERY,
            token_ended: None,
            told_rejections: ToldRejections::default(),
            told_of_refused_key: false,
            _open: sources.metrics.stream(KIND),
        })
    }

    fn is_own(&self, name: &str) -> bool {
        name == DEFAULT_SVID || name == self.id.as_str()
    }

    /// Bundles are for whoever was certified; an X509-SVID, and a token, are for a workload that
    /// exists.
    fn needs_document(&self) -> bool {
        let wants_svid = self.svid.as_ref().is_some_and(RemoteSvid::is_wanted);
        wants_svid || matches!(self.proof.shown(), StandingProof::StreamToken(_))
    }

    /// When the proof ends, if the stream ends with it (SDS-S27). Bundles go on being told to a
    /// sidecar whose leaf is over: it renews on the same connection.
    fn ends_at(&self) -> Option<SystemTime> {
        match self.proof.shown() {
            StandingProof::StreamToken(token) => Some(token.expires),
            StandingProof::Svid(peer) if self.needs_document() => Some(peer.leaf.not_after),
            StandingProof::Svid(_) | StandingProof::Pod(_) => None,
        }
    }

    fn check_document(&self) -> Result<(), Status> {
        let now = (self.sources.clock)();
        let attested = self.sources.issuance.entitled(self.proof.shown(), now);
        let found = attested.map_err(|refusal| status_of(&refusal))?.id;
        if found == self.id {
            return Ok(());
        }
        Err(Status::permission_denied(format!(
            "the caller's Workload document is {found} now, and this stream was opened for {}: open another",
            self.id
        )))
    }

    fn log_refused_key(&self) {
        tracing::warn!(
            peer.id = %self.id,
            client.addr = %self.caller.address,
            "a client without a certificate request asks for its X509-SVID, and keys are made here only with \
             --allow-remote-keys: put a sidecar with --workload-socket beside it, or send a certificate request \
             in node.metadata under mesh-lite.io/csr by FetchSecrets"
        );
    }
}

impl Secrets for CallerSecrets {
    fn secret(&self, name: &str, form: BundleForm) -> Option<VersionedSecret> {
        if self.is_own(name) {
            return self.svid.as_ref()?.secret(name);
        }
        PublicSecrets(Arc::clone(&self.trust.borrow())).secret(name, form)
    }

    fn is_being_made(&self, name: &str) -> bool {
        self.is_own(name) && self.svid.as_ref().is_some_and(RemoteSvid::is_being_made)
    }
}

impl SecretSource for CallerSecrets {
    fn wanted(&mut self, names: &[&str]) {
        let own = names.iter().any(|name| self.is_own(name));
        if let Some(svid) = &mut self.svid {
            svid.want(own);
        }
    }

    fn check(&mut self) -> Result<(), Status> {
        if is_closing(&self.caller) {
            return Err(Status::unavailable(
                "the control plane closes this connection: open the stream on a new one",
            ));
        }
        if let Some(ended) = &self.token_ended {
            return Err(ended.clone());
        }
        self.proof.check()?;
        if self.needs_document() {
            self.check_document()?;
        }
        Ok(())
    }

    async fn changed(&mut self) {
        let ends_at = self.ends_at();
        let clock = self.sources.clock;
        let needs_document = self.needs_document();
        tokio::select! {
            () = wait_for_change(&mut self.trust) => {}
            () = wait_for_change(&mut self.policies) => {}
            () = wait_for_change(&mut self.workloads), if needs_document => {}
            () = async {
                match &mut self.svid {
                    Some(svid) => svid.changed().await,
                    None => std::future::pending().await,
                }
            } => {}
            () = async {
                match ends_at {
                    Some(at) => wait_until(clock, at).await,
                    None => std::future::pending().await,
                }
            } => {}
            () = self.proof.changed() => {}
            ended = look_at_token(self.stream_token.as_ref(), &self.queue, self.look_at_token_at) => {
                self.look_at_token_at = Instant::now() + LOOK_AT_TOKEN_EVERY;
                self.token_ended = ended;
            }
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
                // the metric counts them all
                if self.told_rejections.is_new(rejection) {
                    tracing::warn!(
                        peer.id = %self.id,
                        secrets = ?rejection.secrets,
                        pair = ?pair,
                        message = ?rejection.message,
                        "secrets rejected: the client keeps the last good ones"
                    );
                }
            }
            SecretEvent::Unknown(name) => {
                metrics.unknown_secret();
                if self.is_own(name) && !mem::replace(&mut self.told_of_refused_key, true) {
                    self.log_refused_key();
                }
            }
        }
    }
}

/// When the time has come, why a token is no longer good. One that can't be looked at now (a full
/// queue, a disk that fails) is looked at again later: no key is made for it meanwhile.
async fn look_at_token(
    token: Option<&StreamToken>,
    queue: &IssuanceQueue,
    at: Instant,
) -> Option<Status> {
    let Some(token) = token else {
        return std::future::pending().await;
    };
    time::sleep_until(at).await;
    match queue.check_token(token.clone()).await {
        Err(NotIssued::Refused(Refusal::Token(error))) if error.is_refusal() => {
            Some(not_issued(&Refusal::Token(error).into()))
        }
        _ => None,
    }
}

fn is_closing(caller: &Caller) -> bool {
    *caller.closing.borrow() || caller.closing.has_changed().is_err()
}
