//! Projected service-account tokens: how a pod proves itself, each time that it opens a stream or
//! asks for a certificate.
//!
//! The API server judges them (TokenReview): it alone knows that a pod was deleted. What it says is
//! believed for some minutes. Only while it can't be reached are its signing keys asked instead,
//! and never about a token that it refused.
//!
//! ```text
//! token ─▶ claims (says it is for us, of a pod, of now) ─▶ verdicts (what was answered lately)
//!              ─▶ token_review ──no──▶ refused
//!                     └─unreachable─▶ signing_keys
//! ```

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mesh_lite_proto::identity::WorkloadId;
use spiffe::TrustDomain;
use tokio::{
    sync::watch,
    time::{self, Instant},
};
use zeroize::Zeroizing;

use crate::{
    caller::Peer,
    certificate_authority::certificate_request::KeyPrint,
    clock::Clock,
    issuance::turns::{Turns, Urgency},
    metrics::Metrics,
    workload_index::WorkloadName,
};

mod claims;
mod refusal;
mod signing_keys;
mod token_review;
mod verdicts;

use claims::{PodOfToken, TokenClaims};
pub(crate) use refusal::NotReviewed;
use signing_keys::SigningKeys;
use token_review::{ReviewFailure, Reviewed, TokenReviews};
use verdicts::{Known, Verdict, Verdicts};

/// Reviews at one time. The API server answers one in some milliseconds; more at once would be in
/// the way of all that it does else.
const MAX_REVIEWS: usize = 50;
/// An API server that takes longer is away.
const REVIEW_DEADLINE: Duration = Duration::from_secs(3);
/// How long a review is believed: how long a deleted pod's streams live on.
const BELIEVED: Duration = Duration::from_secs(5 * 60);
/// The same where a certificate is asked for. The streams and the certificate of a pod that starts
/// are one review.
const BELIEVED_FOR_CERTIFICATE: Duration = Duration::from_secs(10);
/// The same of what the signing keys say, which know nothing of deleted pods: the API server is
/// asked as soon as it is back.
const BELIEVED_OFFLINE: Duration = Duration::from_secs(15);
/// An API server that could not be reached is left alone for this long: whoever waits for it
/// would wait in vain, and hold up the others.
const LEFT_ALONE: Duration = Duration::from_secs(5);
/// Signing keys are changed in steps of hours at the least.
const READ_KEYS_EVERY: Duration = Duration::from_secs(10 * 60);
const READ_KEYS_AGAIN: Duration = Duration::from_secs(15);

/// A token as it was shown. It is kept as long as its holder's streams are open, to be reviewed
/// again.
pub(crate) struct ServiceAccountToken {
    text: Zeroizing<String>,
    claims: TokenClaims,
    print: KeyPrint,
}

impl ServiceAccountToken {
    /// # Errors
    /// If it is no such token. That nobody vouched for it is not looked at here.
    pub(crate) fn received(text: &str) -> Result<Self, NotReviewed> {
        let text = Zeroizing::new(text.trim().to_owned());
        Ok(Self {
            claims: TokenClaims::unproved(&text)?,
            print: KeyPrint::of(text.as_bytes()),
            text,
        })
    }

    pub(crate) fn print(&self) -> KeyPrint {
        self.print
    }
}

/// Without the token.
impl fmt::Debug for ServiceAccountToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceAccountToken")
    }
}

impl PartialEq for ServiceAccountToken {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}

impl Eq for ServiceAccountToken {}

/// The pod that a token was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AttestedPod {
    pub(crate) id: WorkloadId,
    /// Namespace and name of the pod.
    pub(crate) workload: WorkloadName,
    /// Another pod of the same name has another.
    pub(crate) uid: Arc<str>,
    /// When to ask again.
    pub(crate) until: Instant,
}

/// A pod's token, and what was said of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodProof {
    pub(crate) pod: AttestedPod,
    pub(crate) token: Arc<ServiceAccountToken>,
    /// Of the connection, if it showed a certificate too.
    pub(crate) peer: Option<Arc<Peer>>,
}

/// Judges tokens. Cheap to clone: all clones are one.
#[derive(Clone)]
pub(crate) struct ServiceAccountTokens(Arc<Judge>);

struct Judge {
    trust_domain: TrustDomain,
    reviews: TokenReviews,
    keys: SigningKeys,
    turns: Turns,
    verdicts: Mutex<Verdicts>,
    /// Until when the API server is left alone, and why.
    away: Mutex<Option<(Instant, String)>>,
    metrics: Metrics,
    clock: Clock,
}

impl ServiceAccountTokens {
    pub(crate) fn new(
        client: kube::Client,
        trust_domain: TrustDomain,
        metrics: Metrics,
        clock: Clock,
    ) -> Self {
        Self(Arc::new(Judge {
            trust_domain,
            keys: SigningKeys::new(client.clone()),
            reviews: TokenReviews::new(client),
            turns: Turns::new(MAX_REVIEWS),
            verdicts: Mutex::default(),
            away: Mutex::default(),
            metrics,
            clock,
        }))
    }

    /// Whose token it is, for a stream. Whoever shows the same one meanwhile waits for the same
    /// answer; nothing is lost if the caller gives up.
    ///
    /// # Errors
    /// If nobody vouches for it, or nobody can be asked.
    pub(crate) async fn attest(
        &self,
        token: &Arc<ServiceAccountToken>,
        urgency: Urgency,
    ) -> Result<AttestedPod, NotReviewed> {
        self.attest_within(BELIEVED, token, urgency).await
    }

    /// As [`Self::attest`], for a certificate: that outlives a stream by far, so only what was said
    /// just now counts.
    pub(crate) async fn attest_for_certificate(
        &self,
        token: &Arc<ServiceAccountToken>,
        urgency: Urgency,
    ) -> Result<AttestedPod, NotReviewed> {
        self.attest_within(BELIEVED_FOR_CERTIFICATE, token, urgency)
            .await
    }

    async fn attest_within(
        &self,
        believed: Duration,
        token: &Arc<ServiceAccountToken>,
        urgency: Urgency,
    ) -> Result<AttestedPod, NotReviewed> {
        token.claims.check((self.0.clock)())?;
        let mut answer = {
            let mut verdicts = self.0.verdicts();
            match verdicts.of(token.print, believed, Instant::now()) {
                Some(Known::Answered(verdict)) => return verdict,
                Some(Known::Asked(answer)) => answer,
                None => {
                    let (tell, answer) = watch::channel(None);
                    verdicts.asked(token.print, answer.clone());
                    self.ask(Arc::clone(token), urgency, tell);
                    answer
                }
            }
        };
        match answer.wait_for(Option::is_some).await {
            Ok(verdict) => verdict.clone().unwrap_or(Err(NotReviewed::Defect)),
            // a panic in the task that asks
            Err(_) => Err(NotReviewed::Defect),
        }
    }

    fn ask(
        &self,
        token: Arc<ServiceAccountToken>,
        urgency: Urgency,
        tell: watch::Sender<Option<Verdict>>,
    ) {
        let judge = Arc::clone(&self.0);
        tokio::spawn(async move {
            let verdict = judge.judge(&token, urgency).await;
            judge.metrics.token_review(match &verdict {
                Ok(_) => "accepted",
                Err(error) => error.outcome(),
            });
            judge
                .verdicts()
                .answered(token.print, &verdict, Instant::now());
            tell.send_replace(Some(verdict));
        });
    }

    /// Reads the signing keys now and then while the API server answers, for when it does not.
    pub(crate) async fn keep_signing_keys(self) {
        let mut told = false;
        loop {
            let wait = match time::timeout(REVIEW_DEADLINE, self.0.keys.read()).await {
                Ok(Ok(())) => READ_KEYS_EVERY,
                failed => {
                    let reason = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => format!("no answer within {REVIEW_DEADLINE:?}"),
                    };
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(
                            %reason,
                            "the signing keys of service-account tokens can't be read: while the API server is away, \
                             no pod is attested"
                        );
                    }
                    READ_KEYS_AGAIN
                }
            };
            time::sleep(wait).await;
        }
    }
}

impl Judge {
    async fn judge(&self, token: &ServiceAccountToken, urgency: Urgency) -> Verdict {
        if let Some(why) = self.away() {
            return self.offline(token, &why);
        }
        let _turn = self.turns.take(urgency).await?;
        // learned by others while this one waited for its turn
        if let Some(why) = self.away() {
            return self.offline(token, &why);
        }
        let asked = time::timeout(REVIEW_DEADLINE, self.reviews.review(&token.text)).await;
        match asked.unwrap_or_else(|_| Err(ReviewFailure::too_slow(REVIEW_DEADLINE))) {
            Ok(Reviewed::Yes(pod)) => {
                self.is_back();
                self.attested(pod, BELIEVED)
            }
            Ok(Reviewed::No(words)) => {
                self.is_back();
                self.remember_refusal(token);
                Err(NotReviewed::Refused(words))
            }
            Err(ReviewFailure::Failed(words)) => Err(NotReviewed::Failed(words)),
            Err(ReviewFailure::Unreachable(why)) => {
                self.is_away(&why);
                self.offline(token, &why)
            }
        }
    }

    fn attested(&self, pod: PodOfToken, believed: Duration) -> Verdict {
        let id = WorkloadId::new(&self.trust_domain, &pod.namespace, &pod.service_account)
            .map_err(|error| NotReviewed::Refused(error.to_string()))?;
        let now = Instant::now();
        Ok(AttestedPod {
            id,
            workload: WorkloadName {
                namespace: pod.namespace,
                name: pod.name,
            },
            uid: pod.uid.into(),
            until: now.checked_add(believed).unwrap_or(now),
        })
    }

    /// By the signing keys. A token lives for an hour: nobody is let in for longer than that after
    /// the API server, which alone can renew it, went away.
    fn offline(&self, token: &ServiceAccountToken, why: &str) -> Verdict {
        match self.verdicts().was_refused(token.print) {
            Ok(false) => {}
            Ok(true) => return Err(NotReviewed::RefusedBefore),
            Err(error) => return Err(error),
        }
        let pod = self.keys.pod_of(&token.text, (self.clock)(), why)?;
        self.attested(pod, BELIEVED_OFFLINE)
    }

    /// Only of tokens that the signing keys would vouch for: others are refused by them anyway,
    /// and anybody can invent any number of those.
    fn remember_refusal(&self, token: &ServiceAccountToken) {
        if self.keys.could_vouch_for(&token.text) {
            let now = (self.clock)();
            self.verdicts()
                .refused_for_good(token.print, token.claims.ends(), now);
        }
    }

    fn away(&self) -> Option<String> {
        let away = lock(&self.away);
        let (until, why) = away.as_ref()?;
        (Instant::now() < *until).then(|| why.clone())
    }

    fn is_away(&self, why: &str) {
        let now = Instant::now();
        let until = now.checked_add(LEFT_ALONE).unwrap_or(now);
        if lock(&self.away).replace((until, why.to_owned())).is_none() {
            tracing::warn!(reason = %why, "the API server can't be asked about tokens: its signing keys are, if they are known");
        }
    }

    fn is_back(&self) {
        if lock(&self.away).take().is_some() {
            tracing::info!("the API server answers about tokens again");
        }
    }

    fn verdicts(&self) -> MutexGuard<'_, Verdicts> {
        lock(&self.verdicts)
    }
}

/// A poisoned lock means a panic in here; what it guards is whole all the same.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
