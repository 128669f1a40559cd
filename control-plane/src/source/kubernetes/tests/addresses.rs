//! Who has an address, and who never has.

use super::*;

const API: &str = "spiffe://mesh.test/ns/shop/sa/api";

#[test]
fn an_address_is_its_pods_as_long_as_the_pod_has_it() {
    let mut cluster = Stated::with_networks();
    cluster.put(pod("shop/api", "10.244.0.5"));
    assert_eq!(cluster.at("10.244.0.5"), API);
    cluster.remove(&pod("shop/api", "10.244.0.5"));
    assert!(cluster.at("10.244.0.5").starts_with("unknown"));
}

#[test]
fn two_pods_with_one_address_leave_it_to_nobody() {
    let mut cluster = Stated::with_networks();
    cluster.put(pod("shop/api", "10.244.0.5"));
    cluster.put(pod("shop/thief", "10.244.0.5"));
    let answer = cluster.at("10.244.0.5");
    assert!(
        answer.contains("Pod shop/api and by Pod shop/thief"),
        "{answer}"
    );
    assert_eq!(cluster.index.conflicts().len(), 1);
}

#[test]
fn a_pod_in_its_nodes_network_never_lends_it_an_identity() {
    let mut cluster = Stated::with_networks();
    let agent = pod("shop/agent", "192.168.1.10");
    cluster.put(with(agent, &[("/spec/hostNetwork", json!(true))]));
    assert_eq!(cluster.at("192.168.1.10"), "unmeshed Node/node-1");
    // of a node that is not known yet
    let other = pod("shop/other", "192.168.1.11");
    cluster.put(with(other, &[("/spec/hostNetwork", json!(true))]));
    assert_eq!(cluster.at("192.168.1.11"), "unmeshed Node/node-1");
    let workload = cluster.index.workload(&"shop/agent".parse().unwrap());
    assert_eq!(workload, None, "it has no place in the mesh either");
}

#[test]
fn a_pod_that_says_it_has_a_nodes_address_gets_nothing() {
    let mut cluster = Stated::with_networks();
    cluster.put(pod("shop/thief", "192.168.1.10"));
    assert!(cluster.at("192.168.1.10").starts_with("unknown"));
}

/// The address of a finished Job is given to the next pod, which must not be taken for the Job.
#[test]
fn a_pod_that_has_ended_gives_up_its_address() {
    for phase in ["Succeeded", "Failed"] {
        let mut cluster = Stated::with_networks();
        let job = pod("shop/job", "10.244.0.5");
        cluster.put(job.clone());
        cluster.put(with(job, &[("/status/phase", json!(phase))]));
        assert!(cluster.at("10.244.0.5").starts_with("unknown"), "{phase}");
        cluster.put(pod("shop/api", "10.244.0.5"));
        assert_eq!(cluster.at("10.244.0.5"), API, "{phase}");
    }
}

#[test]
fn a_pod_that_ends_keeps_its_address_to_the_end() {
    let mut cluster = Stated::with_networks();
    let ending = json!("2026-11-20T23:40:00Z");
    let api = pod("shop/api", "10.244.0.5");
    cluster.put(with(api, &[("/metadata/deletionTimestamp", ending)]));
    assert_eq!(cluster.at("10.244.0.5"), API);
}

#[test]
fn only_a_pod_whose_spec_has_our_sidecar_is_meshed() {
    let mut cluster = Stated::with_networks();
    let none = json!([]);
    let plain = pod("shop/plain", "10.244.0.6");
    cluster.put(with(plain, &[("/spec/initContainers", none.clone())]));
    assert_eq!(cluster.at("10.244.0.6"), "unmeshed shop/plain");
    let other = json!([{"name": "istio-proxy"}]);
    let foreign = pod("shop/foreign", "10.244.0.7");
    cluster.put(with(foreign, &[("/spec/initContainers", other)]));
    assert_eq!(cluster.at("10.244.0.7"), "unmeshed shop/foreign");
    let classic = json!([{"name": "app"}, {"name": "mesh-lite-proxy"}]);
    let api = pod("shop/api", "10.244.0.8");
    let changes = [
        ("/spec/initContainers", none),
        ("/spec/containers", classic),
    ];
    cluster.put(with(api, &changes));
    assert_eq!(cluster.at("10.244.0.8"), API);
}

#[test]
fn a_pod_has_all_its_addresses_of_both_families() {
    let mut cluster = Stated::with_networks();
    let both = json!([{"ip": "10.244.0.5"}, {"ip": "fd00::5"}]);
    let api = pod("shop/api", "10.244.0.5");
    cluster.put(with(api, &[("/status/podIPs", both)]));
    assert_eq!(cluster.at("fd00::5"), API);
    assert_eq!(cluster.at("::ffff:10.244.0.5"), API);
}

/// A lost sandbox: the same pod, another address.
#[test]
fn a_new_sandbox_moves_the_identity_and_leaves_nothing_behind() {
    let mut cluster = Stated::with_networks();
    cluster.put(pod("shop/api", "10.244.0.5"));
    cluster.put(pod("shop/api", "10.244.0.9"));
    assert_eq!(cluster.at("10.244.0.9"), API);
    assert!(cluster.at("10.244.0.5").starts_with("unknown"));
}

#[test]
fn what_nobody_has_is_outside_only_beyond_all_known_networks() {
    let mut cluster = Stated::with_networks();
    assert!(cluster.at("10.244.0.77").starts_with("unknown"));
    assert!(cluster.at("10.96.3.4").starts_with("unknown"));
    assert_eq!(cluster.at("10.1.1.1"), "outside");
    // a node that does not say where its pods are makes every private address suspect
    cluster.put(node("node-2", "192.168.1.12", &[]));
    assert!(cluster.at("10.1.1.1").starts_with("unknown"));
    assert!(cluster.at("10.96.3.4").starts_with("unknown"));
    assert_eq!(cluster.at("203.0.113.7"), "outside");
}

#[test]
fn a_cluster_without_nodes_or_service_networks_is_not_taken_for_known() {
    let mut cluster = Stated::new();
    assert!(cluster.at("10.1.1.1").starts_with("unknown"));
    cluster.put(node("node-1", "192.168.1.10", &["10.244.0.0/24"]));
    assert!(cluster.at("10.1.1.1").starts_with("unknown"));
}

#[test]
fn a_pod_without_an_identity_is_never_plaintexts_goal() {
    let mut cluster = Stated::with_networks();
    let odd = pod("shop/odd", "10.244.0.5");
    cluster.put(with(odd, &[("/spec/serviceAccountName", json!("a/b"))]));
    assert!(cluster.at("10.244.0.5").starts_with("unknown"));
    assert_eq!(cluster.state.problems().len(), 1);
}
