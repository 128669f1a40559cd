//! attest → issue → answer: the only path to a certificate.
//!
//! ```text
//! certificate request ─┐                    ┌─▶ admission (rate, key used before)
//! key made here ───────┴▶ queue (in turn) ──┼─▶ workload_attestation, evictions
//!                                           ├─▶ certificate_authority (template, sign, inspect)
//!                                           └─▶ audit (who asked, by what proof, what was signed)
//! ```

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use mesh_lite_proto::svid::LeafFacts;
use tokio::{sync::watch, time::Instant};

use crate::{
    caller::Peer,
    certificate_authority::{
        CertificateAuthority, IssuedSvid,
        certificate_request::{CertificateRequest, KeyPrint, PublicKey},
        svid_template::{MAX_COMMON_NAME, Subject},
    },
    policy_index::PolicyIndex,
    workload_attestation::{
        Attested, by_name, by_pod, by_svid,
        join_token::{Claim, JoinToken, JoinTokenError, JoinTokens, StreamToken},
        service_account_token::PodProof,
    },
    workload_index::WorkloadIndex,
};

mod admission;
mod audit;
pub(crate) mod queue;
mod redeeming;
mod refusal;
mod service_names;
pub(crate) mod turns;

use admission::Admission;
pub(crate) use audit::{AUDIT, Proof};
use audit::{Asking, Signed};
use redeeming::Redeeming;
pub(crate) use refusal::Refusal;
use service_names::service_names;

/// What a caller showed to prove who it is.
pub(crate) enum Credential {
    JoinToken(JoinToken),
    /// The peer of its connection, whose chain was verified at the handshake.
    Svid(Arc<Peer>),
    /// A service-account token that was reviewed.
    Pod(PodProof),
}

/// What proves a caller more than once: for as long as its stream lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StandingProof {
    StreamToken(StreamToken),
    Svid(Arc<Peer>),
    Pod(PodProof),
}

/// What a caller asks for.
pub(crate) struct Asked {
    /// Where from, for the audit log.
    pub(crate) address: SocketAddr,
    /// PKCS#10, PEM.
    pub(crate) request_pem: Vec<u8>,
    /// The SPIFFE ID that it names, if it names one: it must be the caller's anyway.
    pub(crate) id: Option<String>,
    /// Whether the leaf is to hold the names of the services that the caller is behind.
    pub(crate) service_names: bool,
}

/// A certificate chain for a caller, PEM, leaf first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) chain_pem: String,
}

pub(crate) struct Issuance {
    authority: CertificateAuthority,
    tokens: JoinTokens,
    workloads: watch::Receiver<Arc<WorkloadIndex>>,
    policies: watch::Receiver<PolicyIndex>,
    redeeming: Redeeming,
    admission: Mutex<Admission>,
    started: Instant,
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
            redeeming: Redeeming::default(),
            admission: Mutex::default(),
            started: Instant::now(),
        }
    }

    /// That a join token is worth a turn: anybody can invent one, and a certificate request is
    /// costlier to check than to make. Blocks on the disk.
    pub(crate) fn check_claimable(
        &self,
        token: KeyPrint,
        now: SystemTime,
    ) -> Result<(), JoinTokenError> {
        self.tokens.check_claimable(token, now)
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
        request.wants_service_names = asked.service_names;
        match credential {
            Credential::JoinToken(token) => self.first(token, &request, asked.address, now),
            Credential::Svid(peer) => self.renew(peer, &request, asked.address, now),
            Credential::Pod(proof) => self.certify(proof, &request, asked.address, now),
        }
    }

    /// A certificate for a key that was made here, for a caller that brought none. Blocks on the
    /// disk when the proof is a token.
    pub(crate) fn issue_for(
        &self,
        proof: &StandingProof,
        address: SocketAddr,
        public_key: &PublicKey,
        now: SystemTime,
    ) -> Result<IssuedSvid, Refusal> {
        if let StandingProof::StreamToken(token) = proof {
            self.check_token(token, now)?;
        }
        let attested = self.entitled(proof, now)?;
        if let StandingProof::Pod(proof) = proof {
            check_no_other_pod(proof, &self.workloads.borrow())?;
        }
        let print = public_key.print();
        let since_start = self.started.elapsed();
        self.admission()
            .renewal(&attested.workload, print, since_start)?;
        let proof = match proof {
            StandingProof::StreamToken(token) => Proof::StreamToken(token.short_print()),
            StandingProof::Svid(peer) => Proof::Svid(peer.leaf.serial.clone()),
            StandingProof::Pod(proof) => Proof::of_pod(proof),
        };
        let asking = Asking {
            address,
            workload: &attested.workload,
            proof: &proof,
        };
        let key = Key {
            public: public_key,
            made_here: true,
            with_service_names: false,
        };
        self.sign(&attested, &key, &asking, now)
    }

    /// Who the holder of a proof is now, and that it may have a certificate (SDS-S26).
    pub(crate) fn entitled(
        &self,
        proof: &StandingProof,
        now: SystemTime,
    ) -> Result<Attested, Refusal> {
        let index = Arc::clone(&self.workloads.borrow());
        let (attested, leaf) = match proof {
            StandingProof::StreamToken(token) => {
                token.check_time(now)?;
                (by_name(&token.workload, &index)?, None)
            }
            StandingProof::Svid(peer) => {
                let attested = by_svid(peer, &self.authority.trust().bundle, &index, now)?;
                (attested, Some(&peer.leaf))
            }
            StandingProof::Pod(proof) => {
                let attested = by_pod(proof, &self.authority.trust().bundle, &index)?;
                (attested, proof.peer.as_ref().map(|peer| &peer.leaf))
            }
        };
        self.check_evicted(&attested, leaf, now)?;
        Ok(attested)
    }

    /// Whose streams a reusable token opens. Blocks on the disk.
    pub(crate) fn open_stream(
        &self,
        token: &JoinToken,
        now: SystemTime,
    ) -> Result<StreamToken, JoinTokenError> {
        self.tokens.open(token, now)
    }

    /// That a token whose stream is open was not taken back. Blocks on the disk.
    pub(crate) fn check_token(
        &self,
        token: &StreamToken,
        now: SystemTime,
    ) -> Result<(), JoinTokenError> {
        self.tokens.check_open(token, now)
    }

    fn first(
        &self,
        token: &JoinToken,
        request: &CertificateRequest,
        address: SocketAddr,
        now: SystemTime,
    ) -> Result<Granted, Refusal> {
        let _one_at_a_time = self.redeeming.begin(token.print());
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
        check_uris(&attested, request)?;
        self.check_evicted(&attested, None, now)?;
        let asking = Asking {
            address,
            workload: &workload,
            proof: &Proof::of_token(token),
        };
        if let Some(chain_pem) = answered {
            audit::handed_out_again(&asking);
            return Ok(Granted { chain_pem });
        }
        self.admission().first(key)?;
        let issued = self.sign(&attested, &Key::of(request), &asking, now)?;
        let chain_pem = issued.chain_pem();
        self.tokens.redeem(token, key, chain_pem.clone(), now)?;
        Ok(Granted { chain_pem })
    }

    fn renew(
        &self,
        peer: &Peer,
        request: &CertificateRequest,
        address: SocketAddr,
        now: SystemTime,
    ) -> Result<Granted, Refusal> {
        let index = Arc::clone(&self.workloads.borrow());
        let attested = by_svid(peer, &self.authority.trust().bundle, &index, now)?;
        check_uris(&attested, request)?;
        self.check_evicted(&attested, Some(&peer.leaf), now)?;
        if peer.key == request.key_print {
            return Err(Refusal::KeyUsedBefore);
        }
        let since_start = self.started.elapsed();
        self.admission()
            .renewal(&attested.workload, request.key_print, since_start)?;
        let asking = Asking {
            address,
            workload: &attested.workload,
            proof: &Proof::Svid(peer.leaf.serial.clone()),
        };
        let issued = self.sign(&attested, &Key::of(request), &asking, now)?;
        Ok(Granted {
            chain_pem: issued.chain_pem(),
        })
    }

    /// A pod's certificate, the first or a later one: its token proves it each time, and its X509-SVID
    /// alone would not.
    fn certify(
        &self,
        proof: &PodProof,
        request: &CertificateRequest,
        address: SocketAddr,
        now: SystemTime,
    ) -> Result<Granted, Refusal> {
        let index = Arc::clone(&self.workloads.borrow());
        let attested = by_pod(proof, &self.authority.trust().bundle, &index)?;
        check_no_other_pod(proof, &index)?;
        check_uris(&attested, request)?;
        let peer = proof.peer.as_ref();
        self.check_evicted(&attested, peer.map(|peer| &peer.leaf), now)?;
        if peer.is_some_and(|peer| peer.key == request.key_print) {
            return Err(Refusal::KeyUsedBefore);
        }
        let since_start = self.started.elapsed();
        self.admission()
            .renewal(&attested.workload, request.key_print, since_start)?;
        let asking = Asking {
            address,
            workload: &attested.workload,
            proof: &Proof::of_pod(proof),
        };
        let issued = self.sign(&attested, &Key::of(request), &asking, now)?;
        Ok(Granted {
            chain_pem: issued.chain_pem(),
        })
    }

    /// A poisoned lock means a panic in here; what it guards is whole all the same.
    fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn sign(
        &self,
        attested: &Attested,
        key: &Key<'_>,
        asking: &Asking<'_>,
        now: SystemTime,
    ) -> Result<IssuedSvid, Refusal> {
        // Whoever stole a reusable token for a moment must not keep the identity by renewing: only
        // the token itself gets the next certificate.
        let name = match asking.proof {
            Proof::StreamToken(_) => None,
            Proof::JoinToken(_) | Proof::Svid(_) => Some(attested.workload.name.clone()),
            // for people: nothing is found by it
            Proof::Pod(_) => Some(attested.workload.name.clone())
                .filter(|name| name.chars().count() <= MAX_COMMON_NAME),
        };
        let dns_names = if key.with_service_names {
            let index = Arc::clone(&self.workloads.borrow());
            service_names(&index, &attested.workload)
                .ok_or_else(|| Refusal::NotKnownYet(attested.workload.clone()))?
        } else {
            Vec::new()
        };
        let subject = Subject {
            id: attested.id.clone(),
            common_name: name,
            dns_names,
        };
        let lifetime = self.authority.leaf_lifetime();
        let public_key = key.public.clone();
        let issued = self
            .authority
            .issue_for(subject, public_key, lifetime, now)?;
        let signed = Signed {
            leaf: &issued.facts,
            key: key.public.kind(),
            key_made_here: key.made_here,
            issuer: &issued.issuer_key_id,
        };
        audit::issued(asking, &signed);
        Ok(issued)
    }

    fn check_evicted(
        &self,
        attested: &Attested,
        leaf: Option<&LeafFacts>,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let policies = self.policies.borrow();
        match policies.evicted(&attested.id, leaf.map(|leaf| &leaf.serial), now) {
            Some(eviction) => Err(Refusal::Evicted(eviction.source.to_string())),
            None => Ok(()),
        }
    }
}

/// What a leaf is made for.
struct Key<'a> {
    public: &'a PublicKey,
    made_here: bool,
    with_service_names: bool,
}

impl<'a> Key<'a> {
    fn of(request: &'a CertificateRequest) -> Self {
        Self {
            public: &request.public_key,
            made_here: false,
            with_service_names: request.wants_service_names,
        }
    }
}

/// Another pod under the name is the one before or the one after: which, the next changes of the
/// index say.
fn check_no_other_pod(proof: &PodProof, index: &WorkloadIndex) -> Result<(), Refusal> {
    let known = index.workload(&proof.pod.workload);
    match known.and_then(|workload| workload.uid.as_deref()) {
        Some(uid) if uid != &*proof.pod.uid => Err(Refusal::OtherPod(proof.pod.workload.clone())),
        _ => Ok(()),
    }
}

/// Names in a certificate request widen nothing; a wrong one is somebody's mistake about who the
/// caller is, and is said (CSR-C2, C4 as design §3).
fn check_uris(attested: &Attested, request: &CertificateRequest) -> Result<(), Refusal> {
    const SHOWN: usize = 200;
    match request.uris.iter().find(|uri| *uri != attested.id.as_str()) {
        Some(uri) => Err(Refusal::OtherUri {
            asked: uri.chars().take(SHOWN).collect(),
            id: attested.id.to_string(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
