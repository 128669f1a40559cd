use proptest::prelude::*;

use super::{wire_conversion::InvalidAnswer, *};
use crate::{sidecar::SCHEMA, wire::mesh_lite::v1 as wire};

fn endpoint(last: u8, meshed: bool) -> Endpoint {
    Endpoint {
        address: IpAddr::from([10, 0, 0, last]),
        meshed: meshed.then(|| Meshed {
            id: "spiffe://a.test/ns/shop/sa/api".parse().unwrap(),
            tunnel_port: 15008,
        }),
        namespace: "shop".to_owned(),
        name: format!("api-{last}"),
        healthy: true,
        ports: Vec::new(),
    }
}

fn service(lasts: &[(u8, bool)]) -> Service {
    Service {
        name: ServiceName {
            namespace: "shop".to_owned(),
            name: "api".to_owned(),
        },
        ports: vec![ServicePort {
            port: 80,
            target_port: 8080,
        }],
        endpoints: lasts
            .iter()
            .map(|(last, meshed)| endpoint(*last, *meshed))
            .map(|endpoint| (endpoint.address, endpoint))
            .collect(),
        session_affinity: false,
    }
}

proptest! {
    #[test]
    fn changes_to_a_service_add_up_to_the_whole(
        steps in proptest::collection::vec(
            proptest::collection::vec((0u8..12, any::<bool>()), 0..8), 1..6)
    ) {
        let name = Name::Address(IpAddr::from([10, 96, 0, 1]));
        let (mut sent, mut kept): (Option<Answer>, Option<Answer>) = (None, None);
        for step in steps {
            let now = Answer::Service(service(&step));
            let message = now.to_wire_after(&name, sent.as_ref());
            kept = Some(Answer::from_wire(&message, kept.as_ref()).unwrap());
            sent = Some(now);
            prop_assert_eq!(&kept, &sent);
        }
    }
}

fn refused(change: impl FnOnce(&mut wire::DirectoryAnswer)) -> InvalidAnswer {
    let name = Name::Address(IpAddr::from([10, 0, 0, 1]));
    let mut answer = Answer::Endpoint(endpoint(1, true)).to_wire(&name);
    assert!(Answer::from_wire(&answer, None).is_ok());
    change(&mut answer);
    Answer::from_wire(&answer, None).unwrap_err()
}

fn in_endpoint(change: impl FnOnce(&mut wire::Endpoint)) -> InvalidAnswer {
    refused(|answer| match &mut answer.answer {
        Some(wire::directory_answer::Answer::Endpoint(endpoint)) => change(endpoint),
        _ => unreachable!(),
    })
}

#[test]
fn an_answer_of_a_newer_schema_is_refused_whole() {
    let needed = SCHEMA + 1;
    assert_eq!(
        refused(|a| a.min_schema = needed),
        InvalidAnswer::Schema { needed }
    );
    assert_eq!(
        in_endpoint(|e| e.min_schema = needed),
        InvalidAnswer::Schema { needed }
    );
}

#[test]
fn an_endpoint_without_a_clear_identity_is_refused_and_never_unmeshed() {
    let meshed = |e: &mut wire::Endpoint, id: &str, port: u32| {
        e.meshed = Some(wire::Meshed {
            spiffe_id: id.to_owned(),
            tunnel_port: port,
        });
    };
    for id in [
        "",
        "spiffe://a.test",
        "a.test/ns/shop/sa/api",
        "spiffe://A.test/x",
    ] {
        assert!(
            matches!(in_endpoint(|e| meshed(e, id, 15008)), InvalidAnswer::Id(_)),
            "{id}"
        );
    }
    for port in [0, 65_536] {
        let error = in_endpoint(|e| meshed(e, "spiffe://a.test/x", port));
        assert_eq!(error, InvalidAnswer::Port(port));
    }
    assert_eq!(
        in_endpoint(|e| e.address = vec![1, 2, 3]),
        InvalidAnswer::Address(3)
    );
    assert_eq!(
        refused(|a| a.answer = None),
        InvalidAnswer::Missing { field: "answer" }
    );
}

#[test]
fn a_change_to_a_service_never_seen_is_refused() {
    let name = Name::Address(IpAddr::from([10, 96, 0, 1]));
    let before = Answer::Service(service(&[(1, true)]));
    let change = Answer::Service(service(&[(2, true)])).to_wire_after(&name, Some(&before));
    assert_eq!(
        Answer::from_wire(&change, None),
        Err(InvalidAnswer::ChangeWithoutWhole)
    );
    assert_eq!(
        Answer::from_wire(&change, Some(&Answer::Outside)),
        Err(InvalidAnswer::ChangeWithoutWhole)
    );
}

#[test]
fn private_ranges_are_inside_unless_the_ranges_are_known() {
    let unknown = MeshSettings::default();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    for inside in [
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "fd77::1",
        "fe80::1",
        "::ffff:10.0.0.1",
    ] {
        assert!(unknown.is_inside(address(inside)), "{inside}");
    }
    for outside in ["8.8.8.8", "2001:db8::1", "100.128.0.1", "::ffff:8.8.8.8"] {
        assert!(!unknown.is_inside(address(outside)), "{outside}");
    }
    let known = MeshSettings {
        mesh_cidrs: vec!["10.0.0.0/8".parse().unwrap()],
        external_cidrs: vec!["10.9.0.0/16".parse().unwrap()],
        ..MeshSettings::default()
    };
    assert!(known.is_inside(address("10.1.0.1")));
    assert!(!known.is_inside(address("10.9.0.1")));
    assert!(!known.is_inside(address("192.168.1.1")));
}

#[test]
fn settings_survive_the_wire_and_unknown_values_do_not() {
    let settings = MeshSettings {
        mesh_cidrs: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        external_cidrs: vec![],
        outbound_unmeshed: OutboundUnmeshed::Allow,
        outbound_policy: OutboundPolicy::AllowAny,
    };
    let mut message = wire::MeshSettings::from(&settings);
    assert_eq!(MeshSettings::try_from(&message), Ok(settings));
    message.outbound_unmeshed = 7;
    assert!(MeshSettings::try_from(&message).is_err());
    assert_eq!(
        MeshSettings::try_from(&wire::MeshSettings::default()),
        Ok(MeshSettings::default()),
        "what is not stated must be the strictest"
    );
}
