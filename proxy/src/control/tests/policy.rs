//! Policy snapshots over the wire.

use mesh_lite_proto::sidecar::SCHEMA;

use super::*;

#[tokio::test]
async fn a_snapshot_of_the_next_schema_is_refused_and_the_last_good_one_stays() {
    let server = ScriptedControlPlane::start();
    server.say(|script| script.policy = Some(policy(1, "a.test/ns/shop/sa/guest")));
    let sidecar = start(&server);
    let good = sidecar.policy(1).await;
    let mut next = policy(2, "*");
    next.policies[0].rules[0].min_schema = SCHEMA + 1;
    server.say(|script| script.policy = Some(next));
    let reason = eventually("a refusal", || {
        server.events().into_iter().find_map(|event| match event {
            Event::Policy(PolicyRequest::Nack(nack)) if nack.revision == 2 => Some(nack.reason),
            _ => None,
        })
    })
    .await;
    assert!(reason.contains("schema"), "{reason}");
    assert_eq!(sidecar.policy_now().unwrap(), good);
    let status = sidecar.handles.status.borrow().policy.clone();
    assert!(status.error.unwrap().contains("snapshot 2"));

    server.say(|script| script.policy = Some(policy(3, "a.test/ns/shop/sa/other")));
    sidecar.policy(3).await;
    eventually("its acknowledgement", || {
        let ack = Event::Policy(PolicyRequest::Ack(wire::Ack { revision: 3 }));
        server.events().contains(&ack).then_some(())
    })
    .await;
    assert_eq!(sidecar.handles.status.borrow().policy.error, None);
}

#[tokio::test]
async fn equal_content_under_another_number_is_acknowledged_and_not_sent_on() {
    let server = ScriptedControlPlane::start();
    server.say(|script| script.policy = Some(policy(1, "a.test/ns/shop/sa/guest")));
    let mut sidecar = start(&server);
    sidecar.policy(1).await;
    sidecar.handles.policy.mark_unchanged();
    server.say(|script| script.policy = Some(policy(2, "a.test/ns/shop/sa/guest")));
    eventually("its acknowledgement", || {
        let ack = Event::Policy(PolicyRequest::Ack(wire::Ack { revision: 2 }));
        server.events().contains(&ack).then_some(())
    })
    .await;
    assert!(!sidecar.handles.policy.has_changed().unwrap());
}
