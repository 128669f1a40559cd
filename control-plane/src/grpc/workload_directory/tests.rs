use std::net::{IpAddr, Ipv4Addr};

use mesh_lite_proto::workload_directory::{Endpoint, ServiceName};

use super::*;

fn service(addresses: std::ops::Range<u32>, healthy: bool) -> Arc<Answer> {
    let endpoint = |number: u32| Endpoint {
        address: IpAddr::V4(Ipv4Addr::from(number)),
        meshed: None,
        ports: Vec::new(),
        namespace: "shop".to_owned(),
        name: "x".to_owned(),
        healthy,
    };
    let endpoints = addresses
        .map(endpoint)
        .map(|found| (found.address, found))
        .collect();
    let name = ServiceName {
        namespace: "shop".to_owned(),
        name: "api".to_owned(),
    };
    Arc::new(Answer::Service(Service {
        name,
        ports: Vec::new(),
        endpoints,
        session_affinity: false,
    }))
}

fn count(answer: &Answer) -> usize {
    match answer {
        Answer::Service(service) => service.endpoints.len(),
        _ => 0,
    }
}

#[test]
fn reaches_every_target_in_steps_that_fit() {
    for (before, target) in [
        (None, service(1..1001, true)),
        (Some(service(1..1001, true)), service(501..2001, true)),
        (Some(service(1..1001, true)), service(1..1001, false)),
        (Some(service(1..1001, true)), service(5..6, true)),
        (Some(Arc::new(Answer::Outside)), service(1..1001, true)),
        (Some(service(1..10, true)), Arc::new(Answer::Outside)),
    ] {
        let mut current = before;
        let mut steps = 0;
        while current.as_ref() != Some(&target) {
            let (next, taken) = step_towards(&target, current.as_deref(), 100);
            assert!((1..=100).contains(&taken));
            assert!(
                count(&next) <= count(&target),
                "nothing that is gone is kept"
            );
            current = Some(next);
            steps += 1;
            assert!(steps <= 20, "it never arrives");
        }
    }
}
