//! attest → issue → answer: the only path to a certificate.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use mesh_lite_proto::{secret_discovery::request_rate::RequestRate, svid::LeafFacts};
use tokio::{sync::watch, time::Instant};

use crate::{
    caller::Peer,
    certificate_authority::{
        CertificateAuthority, IssueError, IssuedSvid,
        certificate_request::{CertificateRequest, InvalidRequest, KeyPrint},
    },
    policy_index::PolicyIndex,
    workload_attestation::{
        Attested, NotAttested, by_name, by_svid,
        join_token::{Claim, JoinToken, JoinTokenError, JoinTokens},
    },
    workload_index::{WorkloadIndex, WorkloadName},
};

/// Keys that this process certified lately: none is certified twice. 64 K keys take some 6 MB and cover
/// more than an hour of 10,000 workloads with the shortest leaves that make sense.
const REMEMBERED_KEYS: usize = 65_536;

/// Renewals of one workload: a sidecar whose leaf is old by the time it has it renews without
/// end (CSR-C9). The burst leaves room for a rotation and some restarts.
const RENEWALS_PER_SECOND: u32 = 1;
const RENEWAL_BURST: u32 = 10;
/// Workloads whose rate is known; beyond, all start anew. Only attested ones get here.
const MAX_RATES: usize = 32_768;

/// What a caller showed to prove who it is.
pub(crate) enum Credential {
    JoinToken(JoinToken),
    /// The peer of its connection, whose chain was verified at the handshake.
    Svid(Arc<Peer>),
}

/// What a caller asks for.
pub(crate) struct Asked {
    /// PKCS#10, PEM.
    pub(crate) request_pem: Vec<u8>,
    /// The SPIFFE ID that it names, if it names one: it must be the caller's anyway.
    pub(crate) id: Option<String>,
}

/// A certificate chain for a caller, PEM, leaf first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) attested: Attested,
    pub(crate) chain_pem: String,
    /// How it was attested, for the log and the metric.
    pub(crate) by: &'static str,
}

pub(crate) struct Issuance {
    authority: CertificateAuthority,
    tokens: JoinTokens,
    workloads: watch::Receiver<Arc<WorkloadIndex>>,
    policies: watch::Receiver<PolicyIndex>,
    /// Issuances by join token happen one after the other: reading a token's record and
    /// redeeming it are two steps.
    redeeming: Mutex<()>,
    memory: Mutex<Memory>,
    started: Instant,
}

#[derive(Default)]
struct Memory {
    keys: RecentKeys,
    rates: HashMap<WorkloadName, RequestRate>,
}

impl Issuance {
    pub(crate) fn new(
        authority: CertificateAuthority,
        tokens: JoinTokens,
        workloads: watch::Receiver<Arc<WorkloadIndex>>,
        policies: watch::Receiver<PolicyIndex>,
    ) -> Self {
        Self {
            authority,
            tokens,
            workloads,
            policies,
            redeeming: Mutex::default(),
            memory: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// Blocks on the disk when the credential is a join token.
    pub(crate) fn issue(
        &self,
        credential: &Credential,
        asked: &Asked,
        now: SystemTime,
    ) -> Result<Granted, Refusal> {
        let mut request = CertificateRequest::from_pem(&asked.request_pem)?;
        request.uris.extend(asked.id.clone());
        match credential {
            Credential::JoinToken(token) => self.first(token, &request, now),
            Credential::Svid(peer) => self.renew(peer, &request, now),
        }
    }

    fn first(
        &self,
        token: &JoinToken,
        request: &CertificateRequest,
        now: SystemTime,
    ) -> Result<Granted, Refusal> {
        let _one_at_a_time = self
            .redeeming
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let index = Arc::clone(&self.workloads.borrow());
        let key = request.key_print;
        let (workload, answered) = match self.tokens.claim(token, key, now)? {
            Claim::Fresh(workload) => (workload, None),
            Claim::Again {
                workload,
                chain_pem,
            } => (workload, Some(chain_pem)),
        };
        let attested = by_name(&workload, &index)?;
        self.check(&attested, request, None, now)?;
        if let Some(chain_pem) = answered {
            return Ok(Granted {
                attested,
                chain_pem,
                by: "join token, asked again",
            });
        }
        self.memory().keys.admit(key)?;
        let issued = self.sign(&attested, request, now)?;
        let chain_pem = issued.chain_pem();
        self.tokens.redeem(token, key, chain_pem.clone(), now)?;
        Ok(Granted {
            attested,
            chain_pem,
            by: "join token",
        })
    }

    fn renew(
        &self,
        peer: &Peer,
        request: &CertificateRequest,
        now: SystemTime,
    ) -> Result<Granted, Refusal> {
        let index = Arc::clone(&self.workloads.borrow());
        let attested = by_svid(peer, &self.authority.trust().bundle, &index, now)?;
        self.check(&attested, request, Some(&peer.leaf), now)?;
        if peer.key == request.key_print {
            return Err(Refusal::KeyUsedBefore);
        }
        self.admit_renewal(&attested.workload, request.key_print)?;
        let issued = self.sign(&attested, request, now)?;
        Ok(Granted {
            attested,
            chain_pem: issued.chain_pem(),
            by: "X509-SVID",
        })
    }

    /// A poisoned lock means a panic in here; what it guards is whole all the same.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit_renewal(&self, workload: &WorkloadName, key: KeyPrint) -> Result<(), Refusal> {
        let since_start = self.started.elapsed();
        let mut memory = self.memory();
        if !memory.take_turn(workload, since_start) {
            return Err(Refusal::TooOften(workload.clone()));
        }
        memory.keys.admit(key)
    }

    fn check(
        &self,
        attested: &Attested,
        request: &CertificateRequest,
        leaf: Option<&LeafFacts>,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        if let Some(uri) = request.uris.iter().find(|uri| *uri != attested.id.as_str()) {
            return Err(Refusal::OtherUri {
                asked: uri.chars().take(200).collect(),
                id: attested.id.to_string(),
            });
        }
        let policies = self.policies.borrow();
        match policies.evicted(&attested.id, leaf.map(|leaf| &leaf.serial), now) {
            Some(eviction) => Err(Refusal::Evicted(eviction.source.to_string())),
            None => Ok(()),
        }
    }

    fn sign(
        &self,
        attested: &Attested,
        request: &CertificateRequest,
        now: SystemTime,
    ) -> Result<IssuedSvid, Refusal> {
        let name = attested.workload.name.clone();
        Ok(self
            .authority
            .issue(attested.id.clone(), name, request.public_key.clone(), now)?)
    }
}

impl Memory {
    fn take_turn(&mut self, workload: &WorkloadName, since_start: Duration) -> bool {
        if self.rates.len() >= MAX_RATES && !self.rates.contains_key(workload) {
            self.rates.clear();
        }
        let rate = self
            .rates
            .entry(workload.clone())
            .or_insert_with(|| RequestRate::new(RENEWALS_PER_SECOND, RENEWAL_BURST));
        rate.take(1, since_start)
    }
}

/// The keys certified last, oldest first.
///
/// They are those of this process: after a restart, and at another control plane, a key that was
/// certified before is certified once more. The holder of the key gains a certificate that it
/// could have had with a new key anyway; join tokens, which must be spent once, are on disk.
#[derive(Default)]
struct RecentKeys {
    known: HashSet<KeyPrint>,
    order: VecDeque<KeyPrint>,
}

impl RecentKeys {
    /// Remembered before the signature: a key whose signing failed needs to be made anew too.
    fn admit(&mut self, key: KeyPrint) -> Result<(), Refusal> {
        if !self.known.insert(key) {
            return Err(Refusal::KeyUsedBefore);
        }
        self.order.push_back(key);
        if self.order.len() > REMEMBERED_KEYS
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        Ok(())
    }
}

/// Why a caller gets no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Refusal {
    #[error(transparent)]
    Request(#[from] InvalidRequest),
    #[error(transparent)]
    Token(#[from] JoinTokenError),
    #[error(transparent)]
    Attestation(#[from] NotAttested),
    #[error(
        "the certificate request asks for {asked:?}, but the caller is {id}: leave the name out, it is not the caller's to choose"
    )]
    OtherUri { asked: String, id: String },
    #[error("this key has a certificate already: make a new key for every request")]
    KeyUsedBefore,
    #[error(
        "{0} renews more than {RENEWALS_PER_SECOND} times a second: does its certificate look old to it at once? Compare the clocks"
    )]
    TooOften(WorkloadName),
    #[error("the caller is evicted by {0}")]
    Evicted(String),
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl Refusal {
    /// One word for the metric.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Request(_) => "bad_request",
            Self::Token(error) if error.is_refusal() => "bad_token",
            Self::Attestation(_) => "not_attested",
            Self::OtherUri { .. } => "other_identity",
            Self::KeyUsedBefore => "key_used_before",
            Self::TooOften(_) => "too_often",
            Self::Evicted(_) => "evicted",
            Self::Token(_) | Self::Issue(_) => "failed",
        }
    }
}

#[cfg(test)]
mod tests;
