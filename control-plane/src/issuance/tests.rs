use std::{collections::BTreeMap, time::Duration};

use mesh_lite_proto::{identity::WorkloadId, svid::LeafFacts, trust_bundle::TrustBundle};
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use spiffe::TrustDomain;
use tempfile::TempDir;

use super::*;
use crate::{
    certificate_authority::{
        authority::IssuingAuthority,
        certificate_request::KeyPrint,
        root::Root,
        rotation::{Found, Rotation, Trust},
    },
    clock::from_unix_seconds,
    policy_index::ShippedDefaults,
    workload_attestation::{NotAttested, join_token::TokenUse},
    workload_index::Workload,
};

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) fn now() -> SystemTime {
    from_unix_seconds(1_800_000_000)
}

fn trust_domain() -> TrustDomain {
    "mesh.test".parse().unwrap()
}

/// Issuance over a data directory of its own, and workloads `shop/w0`, `shop/w1` and so on.
pub(super) struct Fixture {
    pub(super) issuance: Arc<Issuance>,
    tokens: JoinTokens,
    root: KeyPrint,
    trust: watch::Sender<Arc<Trust>>,
    workloads: watch::Sender<Arc<WorkloadIndex>>,
    _policies: watch::Sender<PolicyIndex>,
    directory: TempDir,
}

pub(super) fn id(number: usize) -> WorkloadId {
    let text = format!("spiffe://mesh.test/ns/shop/sa/w{number}");
    text.parse().unwrap()
}

fn name(number: usize) -> crate::workload_index::WorkloadName {
    format!("shop/w{number}").parse().unwrap()
}

fn trust(root: &Root) -> Arc<Trust> {
    let new = root.sign_issuing_authority(90 * DAY, now()).unwrap();
    let authority = IssuingAuthority::new(new.certificate, new.key, &trust_domain()).unwrap();
    let bundle = TrustBundle::new(trust_domain(), vec![root.certificate().clone()]).unwrap();
    let found = Found { bundle, authority };
    Rotation::start(found, DAY, now()).unwrap().trust()
}

pub(super) fn fixture(count: usize) -> Fixture {
    let directory = TempDir::new().unwrap();
    let root = Root::create(&trust_domain(), 365 * DAY, now()).unwrap();
    let (trust, trusted) = watch::channel(trust(&root));
    let documents = (0..count).map(|number| Workload {
        name: name(number),
        id: id(number),
        addresses: Vec::new(),
        labels: BTreeMap::new(),
        ports: BTreeMap::new(),
        tunnel_port: None,
        uid: None,
        node: None,
        host: None,
    });
    let index = WorkloadIndex::default().successor(documents.collect(), Vec::new());
    let (workloads, workloads_seen) = watch::channel(Arc::new(index));
    let policies = PolicyIndex::new(trust_domain(), "mesh", ShippedDefaults::STRICT);
    let (policies, policies_seen) = watch::channel(policies);
    let tokens = JoinTokens::new(directory.path().join("join-tokens"));
    let anchor = webpki::anchor_from_trusted_cert(root.certificate()).unwrap();
    Fixture {
        issuance: Arc::new(Issuance::new(
            CertificateAuthority::new(trusted, DAY),
            tokens.clone(),
            workloads_seen,
            policies_seen,
        )),
        tokens,
        root: KeyPrint::of(&anchor.subject_public_key_info),
        trust,
        workloads,
        _policies: policies,
        directory,
    }
}

impl Fixture {
    pub(super) fn peer(&self, number: usize) -> Arc<Peer> {
        let leaf = LeafFacts {
            id: id(number),
            serial: "01".parse().unwrap(),
            not_before: now(),
            not_after: now() + DAY,
            common_name: Some(format!("w{number}")),
        };
        Arc::new(Peer {
            leaf,
            key: KeyPrint::of(b"another key"),
            root: self.root,
        })
    }

    pub(super) fn join_token(&self, number: usize) -> JoinToken {
        let workload = name(number);
        let created = self.tokens.create(&workload, TokenUse::Once, DAY, now());
        created.unwrap()
    }

    fn stream_proof(&self, number: usize, lifetime: Duration) -> StandingProof {
        let workload = name(number);
        let token = self
            .tokens
            .create(&workload, TokenUse::Streams, lifetime, now())
            .unwrap();
        let opened = self.issuance.open_stream(&token, now()).unwrap();
        StandingProof::StreamToken(opened)
    }

    fn take_back(&self, proof: &StandingProof) {
        let StandingProof::StreamToken(token) = proof else {
            panic!("no token");
        };
        let file = format!("join-tokens/{}.json", token.print.to_hex());
        std::fs::remove_file(self.directory.path().join(file)).unwrap();
    }

    fn make(&self, proof: &StandingProof, at: SystemTime) -> Result<IssuedSvid, Refusal> {
        let key = KeyPair::generate().unwrap().subject_public_key_info();
        let key = PublicKey::from_der(&key).unwrap();
        let address = "192.0.2.1:4444".parse().unwrap();
        self.issuance.issue_for(proof, address, &key, at)
    }
}

pub(super) fn asked() -> Asked {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default().serialize_request(&key);
    Asked {
        address: "192.0.2.1:4444".parse().unwrap(),
        request_pem: request.unwrap().pem().unwrap().into_bytes(),
        id: None,
        service_names: false,
    }
}

/// CSR-C2, CSR-C4: as design §3 has it.
#[test]
fn refuses_names_of_others_before_a_token_is_spent() {
    let fixture = fixture(2);
    let credential = Credential::JoinToken(fixture.join_token(0));
    let other = Asked {
        id: Some(id(1).to_string()),
        ..asked()
    };
    let refused = fixture.issuance.issue(&credential, &other, now());
    assert!(matches!(refused, Err(Refusal::OtherUri { .. })));
    let own = Asked {
        id: Some(id(0).to_string()),
        ..asked()
    };
    assert!(fixture.issuance.issue(&credential, &own, now()).is_ok());
}

/// SDS-S27
#[test]
fn makes_nothing_for_a_proof_that_is_over() {
    let fixture = fixture(1);
    let token = fixture.stream_proof(0, DAY / 2);
    let svid = StandingProof::Svid(fixture.peer(0));
    let last = now() + DAY / 2 - Duration::from_secs(1);
    assert!(fixture.make(&token, last).is_ok() && fixture.make(&svid, last).is_ok());
    let over = fixture.make(&token, now() + DAY / 2).unwrap_err();
    assert!(matches!(over, Refusal::Token(error) if error.is_refusal()));
    assert!(fixture.make(&svid, now() + DAY / 2).is_ok());
    let over = fixture.make(&svid, now() + DAY).unwrap_err();
    assert!(
        matches!(over, Refusal::Attestation(NotAttested::Expired { .. })),
        "{over}"
    );
    assert!(over.to_string().contains("compare the clocks"), "{over}");
}

/// What a reusable token brought ends with the token: neither renews it nor makes more.
#[test]
fn gives_nothing_more_for_a_leaf_that_was_made_for_a_reusable_token() {
    let fixture = fixture(2);
    let renewable = StandingProof::Svid(fixture.peer(1));
    for (number, proof, renews) in [
        (0, fixture.stream_proof(0, DAY), false),
        (1, renewable, true),
    ] {
        let leaf = fixture.make(&proof, now()).unwrap().facts;
        assert_eq!(leaf.id, id(number));
        let peer = Arc::new(Peer {
            leaf,
            ..Peer::clone(&fixture.peer(number))
        });
        let renewed = fixture
            .issuance
            .issue(&Credential::Svid(peer.clone()), &asked(), now());
        let made = fixture.make(&StandingProof::Svid(peer), now());
        assert_eq!((renewed.is_ok(), made.is_ok()), (renews, renews));
        for refused in [renewed.err(), made.err()].into_iter().flatten() {
            assert!(refused.to_string().contains("reusable token"), "{refused}");
        }
        // the proof itself goes on
        assert!(fixture.make(&proof, now()).is_ok());
    }
}

#[test]
fn makes_nothing_for_a_token_that_was_taken_back() {
    let fixture = fixture(2);
    let (taken, kept) = (fixture.stream_proof(0, DAY), fixture.stream_proof(1, DAY));
    assert!(fixture.make(&taken, now()).is_ok());
    fixture.take_back(&taken);
    let refused = fixture.make(&taken, now()).unwrap_err();
    assert!(refused.to_string().contains("taken back"), "{refused}");
    assert!(matches!(refused, Refusal::Token(error) if error.is_refusal()));
    assert!(fixture.make(&kept, now()).is_ok());
}

/// SDS-S26
#[test]
fn makes_nothing_for_whom_the_documents_or_the_bundle_no_longer_know() {
    let fixture = fixture(1);
    let token = fixture.stream_proof(0, DAY);
    let svid = StandingProof::Svid(fixture.peer(0));
    let nobody = WorkloadIndex::default().successor(Vec::new(), Vec::new());
    let before = fixture.workloads.send_replace(Arc::new(nobody));
    for proof in [&token, &svid] {
        let refused = fixture.make(proof, now()).unwrap_err();
        assert!(
            matches!(refused, Refusal::Attestation(NotAttested::NoDocument(_))),
            "{refused}"
        );
    }
    fixture.workloads.send_replace(before);
    let other = Root::create(&trust_domain(), 365 * DAY, now()).unwrap();
    fixture.trust.send_replace(trust(&other));
    let refused = fixture.make(&svid, now()).unwrap_err();
    assert!(
        matches!(refused, Refusal::Attestation(NotAttested::RootDropped(_))),
        "{refused}"
    );
    // the token is no certificate: it is as good as before
    assert!(fixture.make(&token, now()).is_ok());
}

/// CSR-C9: keys made here and certificate requests draw from one rate.
#[test]
fn counts_what_is_made_here_and_what_is_requested_together() {
    let fixture = fixture(2);
    let svid = StandingProof::Svid(fixture.peer(0));
    let made = (0..50).take_while(|_| fixture.make(&svid, now()).is_ok());
    assert!(made.count() < 50);
    let renewal = Credential::Svid(fixture.peer(0));
    let refused = fixture.issuance.issue(&renewal, &asked(), now());
    assert!(matches!(refused, Err(Refusal::TooOften(_))));
    let neighbour = Credential::Svid(fixture.peer(1));
    assert!(fixture.issuance.issue(&neighbour, &asked(), now()).is_ok());
    // a first certificate costs a token, and needs no turn of that rate
    let first = Credential::JoinToken(fixture.join_token(0));
    assert!(fixture.issuance.issue(&first, &asked(), now()).is_ok());
}
