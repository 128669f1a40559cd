use std::{collections::BTreeMap, time::Duration};

use super::*;
use crate::{
    certificate_authority::{certificate_request::KeyPrint, root::Root},
    clock::from_unix_seconds,
    workload_index::Workload,
};

fn now() -> SystemTime {
    from_unix_seconds(1_800_000_000)
}

fn index() -> WorkloadIndex {
    let web = Workload {
        name: "shop/web".parse().unwrap(),
        id: "spiffe://mesh.test/ns/shop/sa/frontend".parse().unwrap(),
        addresses: Vec::new(),
        labels: BTreeMap::new(),
        ports: BTreeMap::new(),
        tunnel_port: None,
        uid: None,
        node: None,
        host: None,
    };
    WorkloadIndex::default().successor(vec![web], Vec::new())
}

fn leaf(id: &str, common_name: Option<&str>) -> LeafFacts {
    LeafFacts {
        id: id.parse().unwrap(),
        serial: "01".parse().unwrap(),
        not_before: now(),
        not_after: now() + Duration::from_secs(60),
        common_name: common_name.map(ToOwned::to_owned),
    }
}

/// What its peer is told, whose root is trusted.
fn renewing(leaf: LeafFacts, at: SystemTime) -> Result<Attested, NotAttested> {
    let domain = "mesh.test".parse().unwrap();
    let root = Root::create(&domain, Duration::from_secs(86_400), now()).unwrap();
    let anchor = webpki::anchor_from_trusted_cert(root.certificate()).unwrap();
    let peer = Peer {
        leaf,
        key: KeyPrint::of(b""),
        root: KeyPrint::of(&anchor.subject_public_key_info),
    };
    let bundle = TrustBundle::new(domain, vec![root.certificate().clone()]).unwrap();
    by_svid(&peer, &bundle, &index(), at)
}

const FRONTEND: &str = "spiffe://mesh.test/ns/shop/sa/frontend";

#[test]
fn finds_the_workload_that_a_leaf_names() {
    let attested = renewing(leaf(FRONTEND, Some("web")), now()).unwrap();
    assert_eq!(attested.workload.to_string(), "shop/web");
    assert_eq!(attested.id.as_str(), FRONTEND);
}

#[test]
fn refuses_a_leaf_from_its_last_second_on() {
    let leaf = leaf(FRONTEND, Some("web"));
    let refused = renewing(leaf.clone(), leaf.not_after).unwrap_err();
    assert!(refused.is_about_the_credential(), "{refused}");
    // a stream that it opened goes on: evictions end it, not time
    assert!(by_document(&leaf, &index()).is_ok());
}

#[test]
fn refuses_leaves_that_name_no_workload_another_one_or_another_identity() {
    for (id, name) in [
        (FRONTEND, None),
        (FRONTEND, Some("")),
        (FRONTEND, Some("api")),
        ("spiffe://mesh.test/ns/shop/sa/other", Some("web")),
        ("spiffe://mesh.test/ns/elsewhere/sa/frontend", Some("web")),
        ("spiffe://other.test/ns/shop/sa/frontend", Some("web")),
        ("spiffe://mesh.test/shop/web", Some("web")),
    ] {
        let refused = renewing(leaf(id, name), now());
        assert!(refused.is_err(), "{id} {name:?}");
    }
}
