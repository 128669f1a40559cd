use mesh_lite_test_support::{api_server::Trouble, eventually};
use serde_json::Value;

use super::*;
use crate::cluster_fixture::{Fixture, trust};

const NAME: &str = "mesh-lite-trust-bundle";

fn text_in(fixture: &Fixture, namespace: &str) -> Option<String> {
    let map = fixture.server.get("ConfigMap", namespace, NAME)?;
    map["data"]["trust-bundle.pem"].as_str().map(str::to_owned)
}

fn current(fixture: &Fixture) -> String {
    fixture.trust.borrow().bundle.to_pem()
}

fn wait_for_bundle(fixture: &Fixture, namespace: &str) {
    eventually(&format!("the trust bundle in {namespace}"), || {
        let found = text_in(fixture, namespace);
        if found == Some(current(fixture)) {
            Ok(())
        } else {
            Err(found)
        }
    });
}

fn writes(fixture: &Fixture) -> usize {
    let calls = fixture.server.calls();
    calls.iter().filter(|call| call.method != "GET").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_namespace_of_the_mesh_has_the_bundle_and_no_other_has() {
    let fixture = Fixture::new().await;
    fixture.set_namespaces(&[
        ("shop", true),
        ("bystander", false),
        ("mesh-lite-system", true),
    ]);
    fixture.set_meshed_pods(&["single/web"]);
    tokio::spawn(run(fixture.cluster.clone()));
    wait_for_bundle(&fixture, "shop");
    wait_for_bundle(&fixture, "single");
    // one that gets the label while we run
    fixture.set_namespaces(&[("shop", true), ("bank", true), ("mesh-lite-system", true)]);
    wait_for_bundle(&fixture, "bank");
    assert_eq!(text_in(&fixture, "bystander"), None);
    assert_eq!(
        text_in(&fixture, "mesh-lite-system"),
        None,
        "that one is the source"
    );
    assert_eq!(writes(&fixture), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_edited_or_deleted_is_put_right_and_what_others_added_stays() {
    let fixture = Fixture::new().await;
    fixture.set_namespaces(&[("shop", true)]);
    tokio::spawn(run(fixture.cluster.clone()));
    wait_for_bundle(&fixture, "shop");
    let mut map = fixture.server.get("ConfigMap", "shop", NAME).unwrap();
    map["data"]["trust-bundle.pem"] = json!("nobody");
    map["data"]["note"] = json!("kept");
    map["metadata"]["annotations"] = json!({"owner": "me"});
    fixture.server.put(map);
    wait_for_bundle(&fixture, "shop");
    let map: Value = fixture.server.get("ConfigMap", "shop", NAME).unwrap();
    assert_eq!(map["data"]["note"], "kept");
    assert_eq!(map["metadata"]["annotations"]["owner"], "me");
    fixture.server.remove("ConfigMap", "shop", NAME);
    wait_for_bundle(&fixture, "shop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_announced_root_is_published_and_a_namespace_that_left_keeps_what_it_has() {
    let fixture = Fixture::new().await;
    fixture.set_namespaces(&[("shop", true), ("bank", true)]);
    tokio::spawn(run(fixture.cluster.clone()));
    wait_for_bundle(&fixture, "shop");
    wait_for_bundle(&fixture, "bank");
    let before = current(&fixture);
    fixture.set_namespaces(&[("shop", true), ("bank", false)]);
    fixture.trust.send_replace(trust());
    wait_for_bundle(&fixture, "shop");
    assert_eq!(text_in(&fixture, "bank"), Some(before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_replica_that_leads_writes() {
    let fixture = Fixture::new().await;
    fixture.leads.send_replace(false);
    fixture.set_namespaces(&[("shop", true)]);
    let mut leader = fixture.cluster.clone();
    let leads = watch::Sender::new(true);
    leader.leads = leads.subscribe();
    tokio::spawn(run(fixture.cluster.clone()));
    tokio::spawn(run(leader));
    wait_for_bundle(&fixture, "shop");
    assert_eq!(writes(&fixture), 1);
    // the other takes over
    leads.send_replace(false);
    fixture.leads.send_replace(true);
    fixture.server.remove("ConfigMap", "shop", NAME);
    wait_for_bundle(&fixture, "shop");
    assert_eq!(writes(&fixture), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_refuses_is_named_and_holds_up_no_other() {
    let fixture = Fixture::new().await;
    let path = "/api/v1/namespaces/broken/configmaps";
    fixture.server.trouble("PATCH", path, Trouble::Status(403));
    fixture.set_namespaces(&[("broken", true), ("shop", true)]);
    tokio::spawn(run(fixture.cluster.clone()));
    wait_for_bundle(&fixture, "shop");
    let told = eventually("the condition", || {
        let text = fixture.problems(Part::TrustObjects);
        if text.is_empty() {
            Err("none")
        } else {
            Ok(text)
        }
    });
    assert!(
        told.contains("ConfigMap broken/mesh-lite-trust-bundle"),
        "{told}"
    );
    assert!(told.contains("mesh-lite install"), "{told}");
    fixture.server.heal();
    wait_for_bundle(&fixture, "broken");
    eventually("no condition", || {
        let text = fixture.problems(Part::TrustObjects);
        if text.is_empty() { Ok(()) } else { Err(text) }
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_refuses_is_not_asked_at_each_change_elsewhere() {
    const CHANGES: usize = 15;
    let fixture = Fixture::new().await;
    let path = "/api/v1/namespaces/broken/configmaps";
    fixture.server.trouble("PATCH", path, Trouble::Status(403));
    tokio::spawn(run(fixture.cluster.clone()));
    let mut pods = vec!["broken/pod".to_owned()];
    for change in 0..CHANGES {
        pods.push(format!("team-{change}/pod"));
        let names: Vec<&str> = pods.iter().map(String::as_str).collect();
        fixture.set_meshed_pods(&names);
        wait_for_bundle(&fixture, &format!("team-{change}"));
    }
    let calls = fixture.server.calls();
    let asked = calls.iter().filter(|call| call.path.starts_with(path));
    let asked = asked.count();
    assert!((1..=4).contains(&asked), "asked {asked} times");
}

#[test]
fn each_failure_in_a_row_is_waited_for_longer_up_to_a_bound() {
    let waits: Vec<u64> = (1..=6).map(|failures| pause(failures).as_secs()).collect();
    assert_eq!(waits, [5, 10, 20, 40, 40, 40]);
    assert_eq!(pause(u32::MAX), LONGEST_RETRY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_of_the_api_server_what_is_missing_is_written() {
    let mut fixture = Fixture::new().await;
    fixture.set_namespaces(&[("shop", true)]);
    tokio::spawn(run(fixture.cluster.clone()));
    wait_for_bundle(&fixture, "shop");
    tokio::task::block_in_place(|| fixture.server.stop());
    fixture.trust.send_replace(trust());
    fixture.set_namespaces(&[("shop", true), ("bank", true)]);
    fixture.server.start_again();
    wait_for_bundle(&fixture, "shop");
    wait_for_bundle(&fixture, "bank");
}

#[test]
fn nothing_is_made_in_a_namespace_that_is_being_deleted() {
    let mut namespaces = Namespaces::default();
    for (name, ending) in [("shop", false), ("gone", true)] {
        let namespace = crate::source::kubernetes::namespaces::Namespace {
            injected: true,
            ending,
            ..Default::default()
        };
        namespaces.0.insert(name.to_owned(), namespace);
    }
    let wanted = wanted(&namespaces, &WorkloadIndex::default(), "mesh");
    assert_eq!(wanted, BTreeSet::from(["shop".to_owned()]));
}
