//! Services: addresses from the API server, endpoints from slices, identities from pods.

use super::*;

fn http() -> Value {
    json!([{"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"}])
}

fn http_at(port: u16) -> Value {
    json!([{"name": "http", "port": port, "protocol": "TCP"}])
}

fn shop() -> Stated {
    let mut cluster = Stated::with_networks();
    cluster.put(service("shop/api", &["10.96.0.10"], http()));
    cluster.put(pod("shop/api", "10.244.0.5"));
    cluster
}

#[test]
fn a_service_has_the_endpoints_that_are_ready_with_their_pods_identities() {
    let mut cluster = shop();
    let endpoints = json!([endpoint("10.244.0.5", true), endpoint("10.244.0.6", false)]);
    cluster.put(slice("shop/api-1", "api", http_at(8080), endpoints));
    cluster.put(pod("shop/other", "10.244.0.6"));
    assert_eq!(cluster.at("10.96.0.10"), "service shop/api");
    assert_eq!(cluster.endpoints("shop/api", 80), ["10.244.0.5:8080*"]);
}

#[test]
fn a_slice_never_makes_a_pod_that_is_not_known_into_one_without_a_sidecar() {
    let mut cluster = shop();
    let endpoints = json!([endpoint("10.244.0.99", true)]);
    cluster.put(slice("shop/api-1", "api", http_at(8080), endpoints));
    assert!(cluster.endpoints("shop/api", 80).is_empty());
    // also where the slice does not say that it is a pod's
    let by_hand = json!([{"addresses": ["10.244.0.98"]}]);
    cluster.put(slice("shop/api-2", "api", http_at(8080), by_hand));
    assert!(cluster.endpoints("shop/api", 80).is_empty());
}

#[test]
fn while_all_endpoints_end_those_that_still_serve_are_used() {
    let mut cluster = shop();
    let ending = |serving: bool| {
        with(
            endpoint("10.244.0.5", false),
            &[(
                "/conditions",
                json!({"ready": false, "serving": serving, "terminating": true}),
            )],
        )
    };
    let put = |cluster: &mut Stated, endpoints| {
        cluster.put(slice("shop/api-1", "api", http_at(8080), endpoints));
    };
    put(&mut cluster, json!([ending(true)]));
    assert_eq!(cluster.endpoints("shop/api", 80), ["10.244.0.5:8080*"]);
    put(&mut cluster, json!([ending(false)]));
    assert!(cluster.endpoints("shop/api", 80).is_empty());
    cluster.put(pod("shop/new", "10.244.0.6"));
    put(
        &mut cluster,
        json!([ending(true), endpoint("10.244.0.6", true)]),
    );
    assert_eq!(cluster.endpoints("shop/api", 80), ["10.244.0.6:8080*"]);
}

#[test]
fn what_a_slice_does_not_say_counts_as_ready() {
    let mut cluster = shop();
    let silent = json!([{"addresses": ["10.244.0.5"], "conditions": {}}]);
    cluster.put(slice("shop/api-1", "api", http_at(8080), silent));
    assert_eq!(cluster.endpoints("shop/api", 80), ["10.244.0.5:8080*"]);
}

#[test]
fn a_named_port_may_be_another_number_in_each_slice() {
    let mut cluster = shop();
    cluster.put(pod("shop/new", "10.244.0.6"));
    cluster.put(pod("shop/newer", "10.244.0.7"));
    let old = json!([endpoint("10.244.0.5", true), endpoint("10.244.0.7", true)]);
    cluster.put(slice("shop/api-1", "api", http_at(8080), old));
    let new = json!([endpoint("10.244.0.6", true)]);
    cluster.put(slice("shop/api-2", "api", http_at(9090), new));
    let expected = ["10.244.0.5:8080*", "10.244.0.6:9090*", "10.244.0.7:8080*"];
    assert_eq!(cluster.endpoints("shop/api", 80), expected);
    let service = cluster.service("shop/api");
    let own: Vec<bool> = service
        .endpoints
        .values()
        .map(|endpoint| endpoint.ports.is_empty())
        .collect();
    assert_eq!(own, [true, false, true], "only where they differ");
}

#[test]
fn an_endpoint_without_the_port_is_none_of_it() {
    let mut cluster = Stated::with_networks();
    let ports = json!([{"name": "http", "port": 80}, {"name": "admin", "port": 81}]);
    cluster.put(service("shop/api", &["10.96.0.10"], ports));
    cluster.put(pod("shop/a", "10.244.0.5"));
    cluster.put(pod("shop/b", "10.244.0.6"));
    let both = json!([{"name": "http", "port": 8080}, {"name": "admin", "port": 9000}]);
    let first = json!([endpoint("10.244.0.5", true)]);
    cluster.put(slice("shop/api-1", "api", both, first));
    let second = json!([endpoint("10.244.0.6", true)]);
    cluster.put(slice("shop/api-2", "api", http_at(8080), second));
    assert_eq!(cluster.endpoints("shop/api", 81), ["10.244.0.5:9000*"]);
    assert_eq!(cluster.endpoints("shop/api", 80).len(), 2);
}

#[test]
fn only_tcp_is_carried() {
    let mut cluster = Stated::with_networks();
    let ports = json!([{"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"}, {"name": "quic", "port": 443, "protocol": "UDP"}]);
    cluster.put(service("kube-system/dns", &["10.96.0.10"], ports));
    let service = cluster.service("kube-system/dns");
    assert!(service.has_port(53) && !service.has_port(443));
}

#[test]
fn a_headless_service_has_a_name_and_no_address() {
    let mut cluster = shop();
    let headless = service("shop/headless", &["None"], http());
    cluster.put(headless);
    let endpoints = json!([endpoint("10.244.0.5", true)]);
    cluster.put(slice(
        "shop/headless-1",
        "headless",
        http_at(8080),
        endpoints,
    ));
    assert_eq!(cluster.endpoints("shop/headless", 80), ["10.244.0.5:8080*"]);
    assert_eq!(
        cluster.at("10.244.0.5"),
        "spiffe://mesh.test/ns/shop/sa/api"
    );
}

#[test]
fn a_name_for_something_outside_is_no_service_of_the_mesh() {
    let mut cluster = Stated::with_networks();
    let outside = service("shop/db", &[""], http());
    let changes = [
        ("/spec/type", json!("ExternalName")),
        ("/spec/externalName", json!("db.example.org")),
    ];
    cluster.put(with(outside, &changes));
    let name = Name::Service(ServiceName {
        namespace: "shop".to_owned(),
        name: "db".to_owned(),
    });
    assert!(matches!(cluster.answer(&name), Answer::Unknown { .. }));
}

/// CVE-2020-8554: whoever may make a service could name any address as its own.
#[test]
fn external_and_load_balancer_addresses_are_not_believed() {
    let mut cluster = Stated::with_networks();
    let greedy = service("shop/greedy", &["10.96.0.10"], http());
    let greedy = with(greedy, &[("/spec/externalIPs", json!(["203.0.113.7"]))]);
    cluster.put(with(
        greedy,
        &[(
            "/status",
            json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.8"}]}}),
        )],
    ));
    assert_eq!(cluster.at("203.0.113.7"), "outside");
    assert_eq!(cluster.at("203.0.113.8"), "outside");
}

#[test]
fn a_service_without_a_selector_may_list_who_is_no_pod() {
    let mut cluster = Stated::with_networks();
    let db = service("shop/db", &["10.96.0.20"], http());
    cluster.put(with(db, &[("/spec/selector", json!({}))]));
    let outside = json!([{"addresses": ["203.0.113.7"]}, {"addresses": ["192.168.1.10"]}]);
    cluster.put(slice("shop/db-1", "db", http_at(5432), outside));
    let expected = ["192.168.1.10:5432", "203.0.113.7:5432"];
    assert_eq!(cluster.endpoints("shop/db", 80), expected, "none is meshed");
    // of a pod, the pod's identity counts, whoever lists its address
    cluster.put(pod("shop/api", "10.244.0.5"));
    let listed = json!([{"addresses": ["10.244.0.5"]}]);
    cluster.put(slice("shop/db-2", "db", http_at(5432), listed));
    assert_eq!(
        cluster.endpoints("shop/db", 80).first().unwrap(),
        "10.244.0.5:5432*"
    );
}

#[test]
fn the_api_servers_service_has_its_endpoints_wherever_they_are() {
    let mut cluster = Stated::with_networks();
    let ports = json!([{"name": "https", "port": 443, "targetPort": 6443}]);
    let kubernetes = service("default/kubernetes", &["10.96.0.1"], ports);
    cluster.put(with(kubernetes, &[("/spec/selector", Value::Null)]));
    let at = json!([{"name": "https", "port": 6443}]);
    for address in ["192.168.1.10", "10.244.0.200", "203.0.113.7"] {
        let endpoints = json!([{"addresses": [address]}]);
        cluster.put(slice(
            "default/kubernetes",
            "kubernetes",
            at.clone(),
            endpoints,
        ));
        let expected = format!("{address}:6443");
        assert_eq!(cluster.endpoints("default/kubernetes", 443), [expected]);
    }
}

#[test]
fn internal_traffic_policy_local_keeps_a_caller_to_its_node() {
    let mut cluster = Stated::with_networks();
    let local = service("shop/api", &["10.96.0.10"], http());
    cluster.put(with(
        local,
        &[("/spec/internalTrafficPolicy", json!("Local"))],
    ));
    cluster.put(pod("shop/a", "10.244.0.5"));
    cluster.put(pod("shop/b", "10.244.0.6"));
    let there = with(
        endpoint("10.244.0.6", true),
        &[("/nodeName", json!("node-2"))],
    );
    let endpoints = json!([endpoint("10.244.0.5", true), there]);
    cluster.put(slice("shop/api-1", "api", http_at(8080), endpoints));
    let mut on = |node| match cluster.answer_on(&address("10.96.0.10"), node) {
        Answer::Service(service) => service.endpoints.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((on(Some("node-1")), on(Some("node-2"))), (1, 1));
    assert_eq!((on(Some("node-3")), on(None)), (0, 0));
}

#[test]
fn both_cluster_addresses_and_session_affinity_are_taken() {
    let mut cluster = Stated::with_networks();
    let dual = service("shop/api", &["10.96.0.10", "fd00:96::10"], http());
    cluster.put(with(dual, &[("/spec/sessionAffinity", json!("ClientIP"))]));
    assert_eq!(cluster.at("10.96.0.10"), "service shop/api");
    assert_eq!(cluster.at("fd00:96::10"), "service shop/api");
    assert!(cluster.service("shop/api").session_affinity);
}

#[test]
fn slices_of_another_namespace_are_none_of_a_services() {
    let mut cluster = shop();
    let endpoints = json!([endpoint("10.244.0.5", true)]);
    cluster.put(slice("evil/api-1", "api", http_at(6666), endpoints));
    assert!(cluster.endpoints("shop/api", 80).is_empty());
    assert!(
        cluster.service("shop/api").has_port(80),
        "it is there, without endpoints"
    );
}

#[test]
fn a_pods_services_are_those_of_its_namespace_that_select_it() {
    let mut cluster = shop();
    cluster.put(service("evil/api", &["10.96.0.66"], http()));
    let all = service("shop/all", &["10.96.0.67"], http());
    cluster.put(with(all, &[("/spec/selector", json!({}))]));
    cluster.at("10.96.0.10");
    let name = "shop/api".parse().unwrap();
    let names: Vec<String> = cluster
        .index
        .services_selecting(&name)
        .map(|service| service.name.to_string())
        .collect();
    assert_eq!(names, ["shop/api"]);
}
