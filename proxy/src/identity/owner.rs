//! The one task that owns the identity: issues, renews, rotates, follows the trust bundle, and
//! publishes each change in one send.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::{identity::WorkloadId, svid::LeafFacts, trust_bundle::TrustBundle};
use rustls_pki_types::CertificateDer;
use spiffe::TrustDomain;
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tonic::transport::Channel;

use super::{
    Identity, PrivateKey,
    issued_chain::{check_chain, end_of},
    issuer_client::{Attempt, Credential, Expected, IssueError, Issued, issue},
    key_and_csr::{KeyAndRequest, KeyError},
    renewal::{Schedule, attempt_deadline, retry_delay},
    renewal_state::RenewalReporter,
    secret_stream::Announced,
    token_file::TokenFile,
};
use crate::{
    back_off::BackOff,
    clock::Clock,
    control::status::Reporter,
    control_plane_client::ControlPlaneClient,
    metrics::{BreakageCause, CertificateKind, Metrics, Renewal},
};

mod trust;

/// Clocks are set and machines sleep: no wait for a time on the wall is longer than this.
const LONGEST_NAP: Duration = Duration::from_secs(30);

/// What stays the same for the life of the process.
pub(crate) struct OwnerSettings {
    pub(crate) client: ControlPlaneClient,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) trust_bundle_file: PathBuf,
    pub(crate) token_file: Option<TokenFile>,
    pub(crate) pod_uid: String,
}

/// Where changes go.
pub(crate) struct OwnerOutputs {
    pub(crate) identities: watch::Sender<Option<Arc<Identity>>>,
    /// Channels that show the identity; `None` until there is one.
    pub(crate) channels: watch::Sender<Option<Channel>>,
    /// Digest of the bundle in the trust bundle file.
    pub(crate) bundle_file: watch::Sender<String>,
    pub(crate) reporter: Reporter,
    pub(crate) renewal: RenewalReporter,
    pub(crate) metrics: Metrics,
}

/// A leaf with its key, from the control plane or from the state file; checked.
pub(crate) struct Leaf {
    pub(crate) leaf: LeafFacts,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKey,
}

pub(crate) struct IdentityOwner {
    settings: OwnerSettings,
    outputs: OwnerOutputs,
    announced: watch::Receiver<Announced>,
    clock: Clock,
    schedule: Schedule,
    back_off: BackOff,
    bundle: Option<Arc<TrustBundle>>,
    bundle_generation: u64,
    revision: u64,
    /// Who we are, from the first certificate on: no later one may say otherwise.
    own_id: Option<WorkloadId>,
    /// When the next certificate is due; in the past without an identity.
    renew_at: SystemTime,
    /// After a failure: not sooner than this.
    retry_at: Instant,
    attempt: Option<JoinHandle<Result<Issued, IssueError>>>,
    /// The key that a join token may be bound to, until it has brought its certificate.
    token_key: Option<Arc<KeyAndRequest>>,
    /// After attempts that did not reach anybody every other one shows no certificate: a control plane
    /// that does not accept ours ends the connection without a word.
    without_svid: bool,
    /// The announced authority that a rotation was already tried for.
    followed_authority: Option<Arc<str>>,
}

enum Wake {
    Announced(bool),
    Attempted(Result<Issued, IssueError>),
    Timer,
}

impl IdentityOwner {
    pub(crate) fn new(
        settings: OwnerSettings,
        outputs: OwnerOutputs,
        announced: watch::Receiver<Announced>,
        clock: Clock,
    ) -> Self {
        Self {
            schedule: Schedule::new(&settings.pod_uid),
            back_off: BackOff::new(&settings.pod_uid),
            settings,
            outputs,
            announced,
            clock,
            bundle: None,
            bundle_generation: 0,
            revision: 0,
            own_id: None,
            renew_at: SystemTime::UNIX_EPOCH,
            retry_at: Instant::now(),
            attempt: None,
            token_key: None,
            without_svid: false,
            followed_authority: None,
        }
    }

    /// Starts from what the state file and the trust bundle file gave.
    pub(crate) fn start_from(&mut self, bundle: Option<Arc<TrustBundle>>, leaf: Option<Leaf>) {
        if let Some(bundle) = bundle {
            self.set_bundle(bundle);
        }
        if let Some(leaf) = leaf {
            // when it came is not known: its whole life counts
            self.renew_at = self
                .schedule
                .renewal_point(leaf.leaf.not_before, &leaf.leaf);
            self.outputs.renewal.restored();
            self.publish(leaf);
        }
    }

    /// Runs until nobody announces any more, which is when the sidecar ends.
    pub(crate) async fn run(mut self) {
        loop {
            let now = (self.clock)();
            self.drop_ended_identity(now);
            self.outputs
                .renewal
                .due(self.current().map(|_| self.renew_at));
            if self.attempt.is_none() && self.renew_at <= now && self.retry_at <= Instant::now() {
                self.begin_attempt(now);
            }
            match self.wait(now).await {
                Wake::Announced(true) => self.follow_announcement(),
                Wake::Announced(false) => return,
                Wake::Attempted(result) => {
                    self.attempt = None;
                    let result = result.and_then(|issued| self.recheck(issued));
                    match result {
                        Ok(issued) => self.issued(issued),
                        Err(error) => self.attempt_failed(&error),
                    }
                }
                Wake::Timer => {}
            }
        }
    }

    async fn wait(&mut self, now: SystemTime) -> Wake {
        let nap = self.nap(now);
        let attempt = async {
            match &mut self.attempt {
                Some(attempt) => attempt.await.unwrap_or_else(|_| {
                    Err(IssueError::Unreachable {
                        words: "the attempt was broken off".to_owned(),
                        clock_skew: None,
                    })
                }),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.announced.changed() => Wake::Announced(changed.is_ok()),
            result = attempt => Wake::Attempted(result),
            () = tokio::time::sleep(nap) => Wake::Timer,
        }
    }

    fn nap(&self, now: SystemTime) -> Duration {
        let due = self
            .renew_at
            .duration_since(now)
            .unwrap_or_default()
            .max(self.retry_at.saturating_duration_since(Instant::now()));
        // while an attempt is under way, only the leaf's end matters
        let due = if self.attempt.is_some() {
            LONGEST_NAP
        } else {
            due
        };
        let end = self.left(now).unwrap_or(LONGEST_NAP);
        due.min(end).min(LONGEST_NAP).max(Duration::from_millis(1))
    }

    fn current(&self) -> Option<Arc<Identity>> {
        self.outputs.identities.borrow().clone()
    }

    /// What is left of the leaf in use.
    fn left(&self, now: SystemTime) -> Option<Duration> {
        self.current()
            .map(|it| it.leaf.not_after.duration_since(now).unwrap_or_default())
    }

    fn drop_ended_identity(&mut self, now: SystemTime) {
        let ended = self
            .current()
            .map(|identity| identity.leaf.not_after)
            .filter(|end| *end <= now);
        if let Some(end) = ended {
            tracing::error!(
                "our certificate has ended: nothing is accepted or dialled until a new one is issued"
            );
            self.outputs.renewal.ended(end);
            self.outputs.identities.send_replace(None);
        }
    }

    fn begin_attempt(&mut self, now: SystemTime) {
        match self.attempt(now) {
            Ok(attempt) => self.attempt = Some(attempt),
            Err(error) => self.attempt_failed(&error),
        }
    }

    fn attempt(
        &mut self,
        now: SystemTime,
    ) -> Result<JoinHandle<Result<Issued, IssueError>>, IssueError> {
        if self.bundle.is_none() {
            self.read_bundle_file()?;
        }
        let bundle = self.bundle.clone().ok_or(IssueError::NoCredential)?;
        let identity = self.current();
        let credential = match (&identity, &self.settings.token_file) {
            (_, Some(file @ TokenFile::ServiceAccount(_))) => Credential::Token(file.clone()),
            (Some(_), _) => Credential::Svid,
            (None, Some(file)) => Credential::Token(file.clone()),
            (None, None) => return Err(IssueError::NoCredential),
        };
        // a pod's token needs no certificate beside it, which may be what is in the way
        let identity = identity.filter(|_| !(self.without_svid && credential.is_of_pod()));
        let shared = self.outputs.channels.borrow().clone();
        let channel = match (&identity, shared) {
            (Some(_), Some(channel)) => channel,
            (identity, _) => self
                .settings
                .client
                .channel(&bundle, identity.as_deref())
                .map_err(|reason| IssueError::Tls { reason })?,
        };
        let attempt = Attempt {
            key: self.key_for(&credential)?,
            credential,
            node_id: self.settings.pod_uid.clone(),
            deadline: attempt_deadline(self.left(now)),
            service_names: false,
        };
        let (before, clock) = (self.own_id.clone(), self.clock);
        Ok(tokio::spawn(async move {
            let expected = Expected {
                trust_bundle: &bundle,
                before: before.as_ref(),
            };
            issue(channel, &attempt, expected, clock).await
        }))
    }

    fn key_for(&mut self, credential: &Credential) -> Result<Arc<KeyAndRequest>, KeyError> {
        let waiting = self.token_key.take();
        if matches!(credential, Credential::Svid) || credential.is_of_pod() {
            return KeyAndRequest::generate().map(Arc::new);
        }
        let key = match waiting {
            Some(key) => key,
            None => Arc::new(KeyAndRequest::generate()?),
        };
        self.token_key = Some(Arc::clone(&key));
        Ok(key)
    }

    /// The bundle may have changed while the certificate was being issued.
    fn recheck(&self, issued: Issued) -> Result<Issued, IssueError> {
        let Some(bundle) = &self.bundle else {
            return Ok(issued);
        };
        check_chain(&issued.chain, &issued.key, bundle, None, (self.clock)()).map_err(
            |reason| IssueError::Chain {
                reason,
                clock_skew: issued.clock_skew,
            },
        )?;
        Ok(issued)
    }

    fn issued(&mut self, issued: Issued) {
        let now = (self.clock)();
        self.back_off.succeeded();
        self.token_key = None;
        self.without_svid = false;
        self.renew_at = self.schedule.renewal_point(now, &issued.leaf);
        self.outputs.metrics.renewal(Renewal::Issued);
        self.outputs.renewal.issued(now, issued.clock_skew);
        self.outputs.reporter.contact();
        self.outputs.reporter.fine();
        tracing::info!(id = %issued.leaf.id, serial = %issued.leaf.serial, "certificate issued");
        self.publish(Leaf {
            leaf: issued.leaf,
            chain: issued.chain,
            key: issued.key,
        });
    }

    fn attempt_failed(&mut self, error: &IssueError) {
        let now = (self.clock)();
        let left = self.left(now);
        self.outputs.metrics.renewal(error.outcome());
        self.outputs.reporter.disconnected(&error.to_string());
        if matches!(error, IssueError::TokenRefused { .. }) {
            self.token_key = None;
        }
        if error.outcome() == Renewal::Unreachable {
            self.without_svid = !self.without_svid;
        }
        let delay = retry_delay(self.back_off.after_failure(), left);
        self.retry_at = Instant::now() + delay;
        let leaf_end = self.current().map(|identity| identity.leaf.not_after);
        self.outputs
            .renewal
            .failed(error, now, now + delay, leaf_end);
        // the operator may have replaced the bundle because nothing works
        if let Err(error) = self.read_bundle_file() {
            tracing::debug!(%error, "trust bundle file");
        }
    }

    fn publish(&mut self, leaf: Leaf) {
        let Some(bundle) = self.bundle.clone() else {
            return;
        };
        self.revision = self.revision.saturating_add(1);
        self.own_id = Some(leaf.leaf.id.clone());
        let metrics = &self.outputs.metrics;
        metrics.certificate_expires(CertificateKind::Leaf, leaf.leaf.not_after);
        if let Some(end) = leaf.chain.get(1).and_then(end_of) {
            metrics.certificate_expires(CertificateKind::IssuingCa, end);
            metrics.breakage_at(BreakageCause::IssuingCa, Some(end));
        }
        let identity = Arc::new(Identity {
            revision: self.revision,
            leaf: leaf.leaf,
            chain: leaf.chain,
            key: leaf.key,
            trust_bundle: bundle,
        });
        match self
            .settings
            .client
            .channel(&identity.trust_bundle, Some(&identity))
        {
            Ok(channel) => drop(self.outputs.channels.send_replace(Some(channel))),
            Err(reason) => self.outputs.reporter.wrong(&reason.to_string()),
        }
        self.outputs.identities.send_replace(Some(identity));
    }
}
