use rcgen::{CertificateParams, KeyPair, SanType};
use time::OffsetDateTime;

use super::*;
use crate::tls::fixture::{API, Authority, WEB};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000)
}

fn hour_around(now: SystemTime) -> impl Fn(&mut CertificateParams) {
    move |params| {
        params.not_before = OffsetDateTime::from(now - Duration::from_secs(1800));
        params.not_after = OffsetDateTime::from(now + Duration::from_secs(1800));
    }
}

struct Made {
    root: Authority,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKey,
}

fn private(key: &KeyPair) -> PrivateKey {
    PrivateKey::from_pkcs8(key.serialize_der())
}

fn made(change: impl FnOnce(&mut CertificateParams)) -> Made {
    let root = Authority::root();
    let issuer = root.intermediate(|_| ());
    let (leaf, key) = issuer.leaf(WEB, |params| {
        hour_around(now())(params);
        change(params);
    });
    Made {
        chain: vec![leaf, issuer.certificate.clone()],
        key: private(&key),
        root,
    }
}

impl Made {
    fn check(&self, before: Option<&str>, now: SystemTime) -> Result<LeafFacts, UnusableChain> {
        let before: Option<WorkloadId> = before.map(|id| id.parse().unwrap());
        check_chain(
            &self.chain,
            &self.key,
            &self.root.bundle(),
            before.as_ref(),
            now,
        )
    }
}

#[test]
fn takes_a_chain_that_holds() {
    let made = made(|_| ());
    assert_eq!(made.check(None, now()).unwrap().id.as_str(), WEB);
    assert_eq!(made.check(Some(WEB), now()).unwrap().id.as_str(), WEB);
}

#[test]
fn refuses_no_chain_and_a_chain_that_does_not_begin_with_the_leaf() {
    let mut made = made(|_| ());
    made.chain.reverse();
    assert!(matches!(
        made.check(None, now()),
        Err(UnusableChain::Leaf(
            InvalidLeaf::IsAuthority | InvalidLeaf::UriSans(0)
        ))
    ));
    made.chain.clear();
    assert!(matches!(made.check(None, now()), Err(UnusableChain::Empty)));
}

#[test]
fn refuses_a_leaf_with_another_key() {
    let mut made = made(|_| ());
    made.key = private(&KeyPair::generate().unwrap());
    assert!(matches!(
        made.check(None, now()),
        Err(UnusableChain::OtherKey)
    ));
}

#[test]
fn refuses_to_become_another_workload() {
    let made = made(|_| ());
    let error = made.check(Some(API), now()).unwrap_err();
    assert!(matches!(error, UnusableChain::OtherWorkload { .. }));
    let words = error.to_string();
    assert!(words.contains(API) && words.contains(WEB), "{words}");
}

#[test]
fn refuses_a_leaf_of_two_names() {
    let two = made(|params| {
        params
            .subject_alt_names
            .push(SanType::URI(API.try_into().unwrap()));
    });
    assert!(matches!(
        two.check(None, now()),
        Err(UnusableChain::Leaf(InvalidLeaf::UriSans(2)))
    ));
}

#[test]
fn refuses_a_leaf_that_is_not_valid_now_and_says_by_how_much() {
    let made = made(|_| ());
    let early = made
        .check(None, now() - Duration::from_secs(1810))
        .unwrap_err();
    assert!(
        early.is_about_time() && early.to_string().contains("in 10 s"),
        "{early}"
    );
    let late = made
        .check(None, now() + Duration::from_secs(1815))
        .unwrap_err();
    assert!(
        late.is_about_time() && late.to_string().contains("15 s ago"),
        "{late}"
    );
}

#[test]
fn a_leaf_is_over_at_the_second_it_ends() {
    let made = made(|_| ());
    assert!(made.check(None, now() + Duration::from_secs(1799)).is_ok());
    assert!(made.check(None, now() + Duration::from_secs(1800)).is_err());
}

#[test]
fn refuses_a_chain_that_our_own_bundle_does_not_prove() {
    let mut made = made(|_| ());
    made.root = Authority::root();
    assert!(matches!(
        made.check(None, now()),
        Err(UnusableChain::Untrusted(_))
    ));
}

#[test]
fn refuses_a_chain_without_its_issuer() {
    let mut made = made(|_| ());
    made.chain.truncate(1);
    assert!(matches!(
        made.check(None, now()),
        Err(UnusableChain::Untrusted(_))
    ));
}

#[test]
fn refuses_a_leaf_of_another_trust_domain() {
    let foreign = made(|params| {
        params.subject_alt_names = vec![SanType::URI(
            "spiffe://b.test/ns/shop/sa/web".try_into().unwrap(),
        )];
    });
    assert!(matches!(
        foreign.check(None, now()),
        Err(UnusableChain::Untrusted(PeerRefused::ForeignTrustDomain(_)))
    ));
}

#[test]
fn names_the_key_of_the_authority_that_signed() {
    let root = Authority::root();
    let (one, other) = (root.intermediate(|_| ()), root.intermediate(|_| ()));
    let id = |authority: &Authority| issuer_key_id(&authority.leaf(WEB, |_| ()).0).unwrap();
    assert_eq!(id(&one), id(&one));
    assert_ne!(id(&one), id(&other));
    let unnamed = one
        .leaf(WEB, |p| p.use_authority_key_identifier_extension = false)
        .0;
    assert_eq!(issuer_key_id(&unnamed), None);
}
