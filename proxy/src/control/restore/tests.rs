use std::time::Duration;

use super::*;
use crate::tls::fixture::{Authority, WEB};

struct Kept {
    root: Authority,
    state: SavedState,
    ends: SystemTime,
}

fn trust_domain() -> TrustDomain {
    "a.test".parse().unwrap()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000)
}

fn kept() -> Kept {
    let root = Authority::root();
    let ends = now() + Duration::from_secs(60);
    let (leaf, key) = root.leaf(WEB, |params| {
        params.not_before = (now() - Duration::from_secs(60)).into();
        params.not_after = ends.into();
    });
    let rest = SavedFacts {
        pod_uid: "pod-1".to_owned(),
        chain: vec![leaf.to_vec()],
        trust_bundle: root
            .bundle()
            .authorities()
            .iter()
            .map(|it| it.to_vec())
            .collect(),
        trust_bundle_file: root.bundle().digest(),
        policy: Some(wire::PolicySnapshot {
            revision: 4,
            min_schema: 1,
            trust_domain: "a.test".to_owned(),
            mutual_tls: Some(wire::MutualTls::default()),
            ..Default::default()
        }),
        directory: Some(wire::DirectoryResponse::default()),
    };
    let key = Some(PrivateKey::from_pkcs8(key.serialize_der()));
    Kept {
        root,
        state: SavedState { key, rest },
        ends,
    }
}

fn restore_at(kept: Kept, now: SystemTime) -> Restored {
    let bundle_file = Some((*kept.root.bundle()).clone());
    restore(kept.state, bundle_file, now)
}

fn restore(state: SavedState, bundle_file: Option<TrustBundle>, now: SystemTime) -> Restored {
    let own = Own {
        pod_uid: "pod-1",
        trust_domain: &trust_domain(),
        bundle_file,
    };
    Restored::from_state(state, own, now)
}

#[test]
fn all_of_a_good_state_is_used() {
    let restored = restore_at(kept(), now());
    assert_eq!(restored.left_out, Vec::<String>::new());
    assert_eq!(restored.leaf.unwrap().leaf.id.as_str(), WEB);
    assert_eq!(restored.policy.unwrap().revision, 4);
    assert!(restored.directory.is_some());
}

#[test]
fn an_ended_leaf_is_not_used_and_the_rest_is() {
    let kept = kept();
    let ends = kept.ends;
    let restored = restore_at(kept, ends);
    assert!(restored.leaf.is_none());
    assert!(
        restored.left_out[0].contains("ended"),
        "{:?}",
        restored.left_out
    );
    assert!(restored.policy.is_some() && restored.trust_bundle.is_some());
}

#[test]
fn a_leaf_that_the_bundle_does_not_prove_is_not_used() {
    let mut kept = kept();
    let other = Authority::root().bundle();
    kept.state.rest.trust_bundle = other.authorities().iter().map(|it| it.to_vec()).collect();
    assert!(restore_at(kept, now()).leaf.is_none());
}

#[test]
fn a_key_that_is_not_the_leafs_is_not_used() {
    let mut kept = kept();
    let other = rcgen::KeyPair::generate().unwrap();
    kept.state.key = Some(PrivateKey::from_pkcs8(other.serialize_der()));
    assert!(restore_at(kept, now()).leaf.is_none());
}

#[test]
fn nothing_of_another_pods_state_is_used() {
    let mut kept = kept();
    kept.state.rest.pod_uid = "pod-2".to_owned();
    let restored = restore_at(kept, now());
    assert!(restored.leaf.is_none() && restored.policy.is_none() && restored.directory.is_none());
    assert!(restored.trust_bundle.is_some(), "the file's");
    assert!(restored.left_out[0].contains("pod-2"));
}

#[test]
fn a_kept_bundle_is_newer_than_the_file_it_was_written_beside() {
    let mut kept = kept();
    let pushed = Authority::root().certificate;
    kept.state.rest.trust_bundle.push(pushed.to_vec());
    let restored = restore_at(kept, now());
    assert!(
        restored
            .trust_bundle
            .unwrap()
            .authorities()
            .contains(&pushed)
    );
    assert!(restored.leaf.is_some());
}

#[test]
fn a_bundle_file_that_was_changed_since_is_believed_instead() {
    let kept = kept();
    let changed = Authority::root().bundle();
    let restored = restore(kept.state, Some((*changed).clone()), now());
    assert_eq!(restored.trust_bundle.unwrap(), changed);
    assert!(
        restored.leaf.is_none(),
        "the leaf is of a root that is no longer believed"
    );
}

#[test]
fn without_a_bundle_file_the_kept_bundle_serves() {
    let restored = restore(kept().state, None, now());
    assert!(restored.trust_bundle.is_some() && restored.leaf.is_some());
}

#[test]
fn a_broken_kept_bundle_gives_way_to_the_file() {
    let mut kept = kept();
    kept.state.rest.trust_bundle = vec![b"garbage".to_vec()];
    let restored = restore_at(kept, now());
    assert!(restored.left_out[0].contains("trust bundle"));
    assert!(restored.leaf.is_some(), "the file has the same root");
}

#[test]
fn a_policy_of_a_later_schema_or_another_domain_is_not_used() {
    let mut newer = kept();
    newer.state.rest.policy.as_mut().unwrap().min_schema = 99;
    let restored = restore_at(newer, now());
    assert!(restored.policy.is_none() && restored.leaf.is_some());
    let mut foreign = kept();
    foreign.state.rest.policy.as_mut().unwrap().trust_domain = "b.test".to_owned();
    assert!(restore_at(foreign, now()).policy.is_none());
}
