use mesh_lite_proto::authorization::{
    MutualTls, MutualTlsMode, Policies, Policy, PolicyAction, SourceRef,
};

use super::*;
use crate::{
    control::status::{ControlPart, ControlStatus},
    metrics::MetricsPrefix,
};

fn snapshot(revision: u64, document: &str) -> PolicySnapshot {
    let policy = Policy {
        source: SourceRef {
            document: document.into(),
            file: "policy.yaml".into(),
            line: 1,
        },
        action: PolicyAction::Allow,
        dry_run: false,
        rules: Vec::new(),
    };
    PolicySnapshot {
        revision,
        trust_domain: "a.test".parse().unwrap(),
        mutual_tls: MutualTls {
            mode: MutualTlsMode::Strict,
            ports: [].into(),
        },
        default_action: None,
        policies: Policies::from(vec![policy]),
        evictions: Vec::new(),
        broken: Vec::new(),
    }
}

fn watching(saved: PolicySnapshot) -> (PolicyWatch, watch::Receiver<Option<Arc<PolicySnapshot>>>) {
    let metrics = Metrics::new(&MetricsPrefix::default(), 10);
    let status = Arc::new(watch::Sender::new(ControlStatus::default()));
    let reporter = Reporter::new(&status, ControlPart::Policy, &metrics, crate::clock::now);
    let domain = saved.trust_domain.clone();
    PolicyWatch::new(domain, Some(saved), reporter, metrics)
}

#[test]
fn no_connection_pays_for_the_making_of_a_snapshot() {
    let (watch, mut policy) = watching(snapshot(1, "shop/a"));
    let in_force = policy.borrow_and_update().clone().unwrap();
    assert!(in_force.policies.is_prepared(), "the saved one");
    watch.publish(snapshot(2, "shop/b"));
    assert!(policy.has_changed().unwrap());
    let in_force = policy.borrow_and_update().clone().unwrap();
    assert_eq!(in_force.revision, 2);
    assert!(in_force.policies.is_prepared(), "one that came");
}

#[test]
fn the_same_under_another_number_judges_nobody_again() {
    let (watch, mut policy) = watching(snapshot(1, "shop/a"));
    policy.borrow_and_update();
    watch.publish(snapshot(2, "shop/a"));
    assert!(!policy.has_changed().unwrap());
    let in_force = policy.borrow().clone().unwrap();
    assert_eq!(in_force.revision, 2, "the one that was acknowledged");
    assert!(in_force.policies.is_prepared());
}
