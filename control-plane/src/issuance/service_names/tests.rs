use std::collections::BTreeMap;

use mesh_lite_proto::workload_directory::ServiceName;
use proptest::prelude::*;

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
        host: None,
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

/// Of a pod in the namespace whose spec says these, behind the service.
fn names_of_host(pod: &str, host: (&str, &str), service: ServiceDocument) -> Vec<String> {
    let name = WorkloadName {
        namespace: service.name.namespace.clone(),
        name: pod.to_owned(),
    };
    let mut workload = workload("shop/db-0", "db");
    workload.name = name.clone();
    workload.host = Some(Box::new(PodHost {
        hostname: host.0.to_owned(),
        subdomain: host.1.to_owned(),
    }));
    let index = WorkloadIndex::default().successor(vec![workload], vec![service]);
    service_names(&index, &name).unwrap()
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
    assert_eq!(found, ["db.shop.svc", "db.shop.svc.cluster.local"]);
}

#[test]
fn names_that_are_those_of_foreign_services_or_hosts_are_in_no_certificate() {
    for (namespace, service_name, pod, foreign) in [
        // the service `api` of `shop`
        ("svc", "shop", "api", "api.shop.svc"),
        (
            "local",
            "cluster",
            "api.shop.svc",
            "api.shop.svc.cluster.local",
        ),
        ("com", "google", "www", "www.google.com"),
        ("shop.svc", "api", "x", "api.shop.svc"),
        ("shop", "api.other", "x", "api.other.shop.svc"),
    ] {
        let headless = service(&format!("{namespace}/{service_name}"), Some("db"), None);
        let found = names_of_host(pod, (pod, service_name), headless);
        let is_wrong = |name: &String| name == foreign || name.ends_with(&format!(".{foreign}"));
        assert!(!found.iter().any(is_wrong), "{found:?}");
    }
}

#[test]
fn a_pod_has_the_name_that_dns_has_for_it_behind_a_headless_service_and_no_other() {
    let headless = || service("shop/db", Some("db"), None);
    let of_service = ["db.shop.svc", "db.shop.svc.cluster.local"];
    let found = names_of_host("db-0", ("primary", "db"), headless());
    let own = ["primary.db.shop.svc", "primary.db.shop.svc.cluster.local"];
    assert_eq!(found, [of_service, own].concat());
    for (hostname, subdomain) in [
        ("primary", "other"),
        ("a.b", "db"),
        ("Primary", "db"),
        ("*", "db"),
        ("-a", "db"),
        ("", "db"),
        (&"h".repeat(64), "db"),
    ] {
        let found = names_of_host("db-0", (hostname, subdomain), headless());
        assert_eq!(found, of_service, "{hostname} {subdomain}");
    }
    let with_address = service("shop/db", Some("db"), Some("10.1.0.1"));
    assert_eq!(
        names_of_host("db-0", ("primary", "db"), with_address),
        of_service
    );
    // a pod's own name is none that DNS knows
    assert_eq!(names(vec![headless()], "shop/db-0").unwrap(), of_service);
}

proptest! {
    /// Of words that are parts of others' names. Whose a name is, its own end says: what stands
    /// before `.svc`, or before `.svc.cluster.local`.
    #[test]
    fn no_name_is_that_of_another_service(
        namespace in part(), service_name in part(), hostname in part(), subdomain in part(),
        of_foreign in (label(), label(), label()),
    ) {
        let headless = service_of(&namespace, &service_name);
        let found = names_of_host(&hostname, (&hostname, &subdomain), headless);
        let (host, foreign, of) = of_foreign;
        if (&foreign, &of) != (&service_name, &namespace) {
            for end in ["svc", "svc.cluster.local"] {
                for theirs in [format!("{foreign}.{of}.{end}"), format!("{host}.{foreign}.{of}.{end}")] {
                    prop_assert!(!found.contains(&theirs), "{theirs} in {found:?}");
                }
            }
        }
        for name in found {
            let rest = name.strip_suffix(".svc").or_else(|| name.strip_suffix(".svc.cluster.local"));
            let rest = rest.unwrap_or_else(|| panic!("{name}"));
            let own = format!("{service_name}.{namespace}");
            prop_assert!(rest == own || rest == format!("{hostname}.{own}"), "{name}");
            prop_assert!(rest.matches('.').count() <= 2, "{name}");
        }
    }
}

fn label() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &["svc", "cluster", "local", "shop", "api", "com", "a"];
    prop::sample::select(WORDS).prop_map(str::to_owned)
}

/// One label, or what should be one.
fn part() -> impl Strategy<Value = String> {
    let dotted = prop::collection::vec(label(), 2..4).prop_map(|labels| labels.join("."));
    prop_oneof![4 => label(), 1 => dotted]
}

fn service_of(namespace: &str, name: &str) -> ServiceDocument {
    let mut headless = service("shop/db", Some("db"), None);
    headless.name.namespace = namespace.to_owned();
    headless.name.name = name.to_owned();
    headless
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
