use std::collections::BTreeMap;

use mesh_lite_proto::workload_directory::{ServiceName, ServicePort};

use super::*;

const REFUSING: MeshSettings = MeshSettings {
    mesh_cidrs: Vec::new(),
    external_cidrs: Vec::new(),
    outbound_unmeshed: OutboundUnmeshed::Refuse,
    outbound_policy: OutboundPolicy::RegistryOnly,
};
const ALLOWING: MeshSettings = MeshSettings {
    outbound_unmeshed: OutboundUnmeshed::Allow,
    outbound_policy: OutboundPolicy::AllowAny,
    mesh_cidrs: Vec::new(),
    external_cidrs: Vec::new(),
};

fn endpoint(is_meshed: bool) -> Endpoint {
    Endpoint {
        address: IpAddr::from([10, 0, 0, 1]),
        meshed: is_meshed.then(|| Meshed {
            id: "spiffe://a.test/ns/shop/sa/api".parse().unwrap(),
            tunnel_port: 15008,
        }),
        namespace: "shop".to_owned(),
        name: "api".to_owned(),
        healthy: true,
        ports: Vec::new(),
    }
}

fn service(namespace: &str, name: &str, endpoint: Endpoint) -> Answer {
    Answer::Service(Service {
        name: ServiceName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
        ports: vec![ServicePort {
            port: 80,
            target_port: 8080,
        }],
        endpoints: BTreeMap::from([(endpoint.address, endpoint)]),
        session_affinity: false,
    })
}

fn go(answer: Answer, settings: &MeshSettings, port: u16) -> Result<Route, Refusal> {
    let name = Name::Address(IpAddr::from([10, 0, 0, 1]));
    route(&Arc::new(answer), settings, &name, port).map_err(refusal)
}

fn plaintext(route: Result<Route, Refusal>) -> Option<Plaintext> {
    match route {
        Ok(Route::One(Hop::Plain { reason, .. })) => Some(reason),
        _ => None,
    }
}

#[test]
fn a_meshed_workload_gets_a_tunnel_whatever_the_settings_and_the_port() {
    for settings in [REFUSING, ALLOWING] {
        for port in [53, 80, 8080] {
            let route = go(Answer::Endpoint(endpoint(true)), &settings, port);
            assert!(
                matches!(route, Ok(Route::One(Hop::Tunnel { .. }))),
                "{route:?}"
            );
        }
    }
}

#[test]
fn an_unmeshed_workload_gets_plaintext_only_where_that_is_allowed() {
    let unmeshed = || Answer::Endpoint(endpoint(false));
    assert_eq!(go(unmeshed(), &REFUSING, 80), Err(Refusal::Unmeshed));
    assert_eq!(
        plaintext(go(unmeshed(), &ALLOWING, 80)),
        Some(Plaintext::OutboundUnmeshed)
    );
    assert_eq!(
        plaintext(go(unmeshed(), &REFUSING, 53)),
        Some(Plaintext::OutboundDns)
    );
}

#[test]
fn the_outside_gets_plaintext_only_where_that_is_allowed() {
    assert_eq!(go(Answer::Outside, &REFUSING, 443), Err(Refusal::Outside));
    assert_eq!(go(Answer::Outside, &REFUSING, 53), Err(Refusal::Outside));
    assert_eq!(
        plaintext(go(Answer::Outside, &ALLOWING, 53)),
        Some(Plaintext::OutboundDns)
    );
    assert_eq!(
        plaintext(go(Answer::Outside, &ALLOWING, 443)),
        Some(Plaintext::OutboundOutside)
    );
}

#[test]
fn what_nobody_knows_gets_nothing_even_where_all_is_allowed() {
    let unknown = || Answer::Unknown {
        reason: "two workloads claim it".to_owned(),
    };
    assert_eq!(
        go(unknown(), &ALLOWING, 80),
        Err(Refusal::UnknownDestination)
    );
    assert_eq!(
        go(unknown(), &ALLOWING, 53),
        Err(Refusal::UnknownDestination),
        "not even DNS"
    );
}

#[test]
fn a_service_is_left_to_the_picker_by_its_own_port() {
    let answer = service("shop", "api", endpoint(true));
    assert!(matches!(
        go(answer.clone(), &REFUSING, 80),
        Ok(Route::Service { port: 80, .. })
    ));
    assert_eq!(go(answer, &ALLOWING, 81), Err(Refusal::UnknownDestination));
}

#[test]
fn the_api_server_always_passes_and_only_the_one_of_that_very_name() {
    let kubernetes = service("default", "kubernetes", endpoint(false));
    assert_eq!(
        plaintext(go(kubernetes, &REFUSING, 80)),
        Some(Plaintext::OutboundKubernetes)
    );
    let other = service("shop", "kubernetes", endpoint(false));
    assert!(matches!(
        go(other, &REFUSING, 80),
        Ok(Route::Service { .. })
    ));
}

#[test]
fn an_endpoint_of_a_service_is_held_to_its_own_rule() {
    assert_eq!(
        hop(&endpoint(false), &REFUSING, 80, None).map_err(refusal),
        Err(Refusal::Unmeshed)
    );
}

fn refusal(refused: Refused) -> Refusal {
    match refused {
        Refused::For(refusal, Some(_)) => refusal,
        other => panic!("a refusal says why: {other:?}"),
    }
}
