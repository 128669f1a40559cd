//! Policies that only record: they say whom they would cut, and cut nobody.

use mesh_lite_proto::authorization::{Policy, PolicyAction, RecordedEffect, Rule};

use super::*;

const GUEST: &str = "spiffe://a.test/ns/shop/sa/guest";
/// Evicted by each edit: once it is cut, all are being judged.
const WATCHED: &str = "spiffe://a.test/ns/shop/sa/watched";

fn policy(action: PolicyAction, dry_run: bool, rules: Vec<Rule>) -> Arc<Policy> {
    Arc::new(Policy {
        source: source(),
        action,
        dry_run,
        rules,
    })
}

fn everybody() -> Vec<Rule> {
    vec![Rule {
        line: 7,
        from: Vec::new(),
        to: Vec::new(),
    }]
}

/// Changes the policies and waits until everybody has been judged by them.
async fn change(mesh: &Mesh, turn: usize, policies: &[Arc<Policy>]) {
    let id = format!("{WATCHED}-{turn}");
    let watched = mesh.register(Some(mesh.peer(&id)), Direction::Outbound, 1);
    mesh.change(|snapshot| {
        snapshot.revision += 1;
        snapshot.policies = policies.iter().cloned().collect();
        let evicted = EvictionSubject::Id(id.parse().unwrap());
        snapshot.evictions = vec![evict(evicted)];
    });
    assert!(is_cut(&watched).await, "nobody was judged");
    // a pass judges all of a chunk before it gives its turn away, and these are one chunk
    yield_now().await;
}

#[tokio::test]
async fn what_only_records_cuts_nobody_whatever_it_says_until_it_is_enforced() {
    let mesh = Mesh::new(DefaultAction::Allow);
    let live = [
        (Some(mesh.peer(WEB)), 8080),
        (Some(mesh.peer(GUEST)), 8080),
        (None, 9090),
    ]
    .map(|(peer, port)| mesh.register(peer, Direction::Inbound, port));
    for one in &live {
        assert!(mesh.enforcement.permit(one).is_ok());
    }
    mesh.hold().await;
    let would_allow_nobody = policy(PolicyAction::Allow, true, Vec::new());
    let would_deny = policy(PolicyAction::Deny, true, everybody());
    let audit = policy(PolicyAction::Audit, false, everybody());
    let edits = [
        vec![Arc::clone(&would_allow_nobody)],
        vec![Arc::clone(&would_allow_nobody), would_deny, audit],
        vec![policy(PolicyAction::Allow, true, everybody())],
        Vec::new(),
        vec![would_allow_nobody],
    ];
    for (turn, policies) in edits.iter().enumerate() {
        change(&mesh, turn, policies).await;
        for one in &live {
            assert!(one.cut().reason().is_none(), "{policies:?}");
        }
    }
    for one in &live {
        let permit = mesh.enforcement.permit(one).unwrap();
        let [recorded] = &permit.decision().recorded[..] else {
            panic!("{:?}", permit.decision());
        };
        assert_eq!(recorded.effect(), RecordedEffect::WouldDeny);
    }
    let enforced = policy(PolicyAction::Allow, false, Vec::new());
    change(&mesh, edits.len(), &[enforced]).await;
    for one in &live {
        assert!(is_cut(one).await, "what it said it would");
    }
}
