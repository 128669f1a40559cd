use std::collections::BTreeMap;

use mesh_lite_proto::workload_directory::ServiceName;

use super::*;
use crate::workload_index::{ServicePortDocument, TargetPort, Workload};

fn workload(name: &str, app: &str) -> Workload {
    let name: WorkloadName = name.parse().unwrap();
    Workload {
        id: format!("spiffe://mesh.test/ns/{}/sa/x", name.namespace)
            .parse()
            .unwrap(),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        labels: BTreeMap::from([("app".to_owned(), app.to_owned())]),
        ports: BTreeMap::new(),
        tunnel_port: Some(15008),
        uid: None,
        node: None,
        name,
    }
}

fn service(name: &str, app: Option<&str>, address: Option<&str>) -> ServiceDocument {
    let (namespace, name) = name.split_once('/').unwrap();
    let selector = app.map(|app| ("app".to_owned(), app.to_owned()));
    ServiceDocument {
        name: ServiceName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
        addresses: address.iter().map(|it| it.parse().unwrap()).collect(),
        ports: vec![ServicePortDocument {
            port: 80,
            target: TargetPort::Number(8080),
        }],
        selector: selector.into_iter().collect(),
        listed: None,
        session_affinity: false,
        same_node_only: false,
    }
}

fn names(services: Vec<ServiceDocument>, of: &str) -> Option<Vec<String>> {
    let workloads = vec![workload("shop/db-0", "db"), workload("shop/web-1", "web")];
    let index = WorkloadIndex::default().successor(workloads, services);
    service_names(&index, &of.parse().unwrap())
}

#[test]
fn a_workload_has_the_names_of_the_services_that_select_it_and_no_others() {
    let services = vec![
        service("shop/db", Some("db"), Some("10.1.0.1")),
        service("shop/web", Some("web"), Some("10.1.0.2")),
        service("other/db", Some("db"), Some("10.1.0.3")),
        service("shop/anybody", None, Some("10.1.0.4")),
    ];
    let found = names(services, "shop/db-0").unwrap();
    assert_eq!(
        found,
        ["db.shop.svc", "db.shop", "db.shop.svc.cluster.local"]
    );
}

#[test]
fn behind_a_headless_service_a_pod_has_its_own_name_too() {
    let found = names(vec![service("shop/db", Some("db"), None)], "shop/db-0").unwrap();
    assert!(found.contains(&"db-0.db.shop.svc".to_owned()), "{found:?}");
    assert!(
        found.contains(&"db-0.db.shop.svc.cluster.local".to_owned()),
        "{found:?}"
    );
    assert_eq!(found.len(), 6);
}

#[test]
fn who_is_behind_no_service_has_no_names_and_who_is_not_known_is_no_workload() {
    assert_eq!(names(Vec::new(), "shop/web-1"), Some(Vec::new()));
    assert_eq!(names(Vec::new(), "shop/nobody"), None);
}

#[test]
fn a_workload_behind_very_many_services_gets_as_many_names_as_there_is_room_for() {
    let services = |length: usize| -> Vec<_> {
        let service_of = |number: usize| {
            let name = format!("shop/{}{number:03}", "s".repeat(length));
            service(&name, Some("db"), Some("10.1.0.1"))
        };
        (0..100).map(service_of).collect()
    };
    let many = names(services(1), "shop/db-0").unwrap();
    assert_eq!(many.len(), MAX_DNS_NAMES);
    assert!(many.iter().all(|name| name.starts_with('s')));
    let long = names(services(60), "shop/db-0").unwrap();
    let bytes: usize = long.iter().map(String::len).sum();
    assert!(bytes <= MAX_DNS_BYTES, "{bytes}");
    // a label that DNS has no room for can't be in a certificate
    assert_eq!(names(services(70), "shop/db-0"), Some(Vec::new()));
}
