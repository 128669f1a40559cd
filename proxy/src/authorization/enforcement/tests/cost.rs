//! What a pass over all connections takes, printed:
//! `cargo test -p mesh-lite-proxy --profile measure --lib -- --ignored --nocapture cost`.

use mesh_lite_proto::authorization::{PeerMatch, Policy, PolicyAction, Rule};

use super::*;

const CONNECTIONS: usize = 10_000;
const IDENTITIES: usize = 40;

/// Each rule allows one caller of another namespace; as many of each as there are in large meshes.
fn almost_allowing(rules: usize) -> Policy {
    let rule = |number: usize| {
        let principal = format!("a.test/ns/shop-{}/sa/caller-{number}", number % 10);
        Rule {
            line: 7,
            from: vec![PeerMatch {
                principals: vec![principal.parse().unwrap()],
                ..PeerMatch::default()
            }],
            to: Vec::new(),
        }
    };
    Policy {
        source: source(),
        action: PolicyAction::Allow,
        dry_run: false,
        rules: (0..rules).map(rule).collect(),
    }
}

#[tokio::test]
#[ignore = "measures, and asserts nothing"]
async fn cost_of_cutting_everybody() {
    for rules in [1, 256, 1000, 10_000] {
        let mesh = Mesh::new(DefaultAction::Allow);
        let peers: Vec<_> = (0..IDENTITIES)
            .map(|number| mesh.peer(&format!("spiffe://a.test/ns/shop/sa/caller-{number}")))
            .collect();
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|number| {
                let peer = Arc::clone(&peers[number % IDENTITIES]);
                mesh.register(Some(peer), Direction::Inbound, 8080)
            })
            .collect();
        mesh.change(|snapshot| {
            snapshot.policies = Policies::from(vec![almost_allowing(rules)]);
            snapshot.policies.prepare();
        });
        let begin = Instant::now();
        let mut trusted = mesh.tls.borrow().clone();
        mesh.enforcement.judge_all(&mut trusted).await;
        let all = begin.elapsed();
        let cut = |one: &&Registered| one.cut().reason().is_some();
        println!(
            "{rules:>6} rules: {} cut in {all:?}, {:?} before others have their turn",
            connections.iter().filter(cut).count(),
            all * u32::try_from(JUDGED_AT_A_TIME).unwrap() / u32::try_from(CONNECTIONS).unwrap(),
        );
    }
}
