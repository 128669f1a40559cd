//! Two replicas, one of which starts after a policy broke.

use std::time::Duration;

use mesh_lite_proto::authorization::PolicySnapshot;
use serde_json::{Value, json};
use tokio::{sync::watch, task::JoinSet, time};

use super::*;
use crate::{
    cluster::Cluster,
    cluster_fixture::{Fixture, trust_domain},
    metrics::Metrics,
    outbound_rules::OutboundRules,
    policy_index::{Selected, ShippedDefaults},
    source::{
        directory_of_files::Published,
        kubernetes::{KubernetesObjects, object_status},
    },
};

mod turns;

const DEADLINE: Duration = Duration::from_secs(40);

struct Replica {
    policies: watch::Receiver<PolicyIndex>,
    known: watch::Receiver<bool>,
    _tasks: JoinSet<()>,
}

impl Replica {
    /// That knows all there is.
    async fn of(cluster: &Cluster) -> Self {
        let index = PolicyIndex::new(trust_domain(), "mesh-lite-system", ShippedDefaults::STRICT);
        let published = Published {
            workloads: watch::Sender::default(),
            policies: watch::Sender::new(index),
            conditions: cluster.conditions.clone(),
        };
        let policies = published.policies.subscribe();
        let workloads = published.workloads.subscribe();
        let objects = KubernetesObjects::new(
            cluster.client.clone(),
            trust_domain(),
            OutboundRules::default(),
            published,
            Metrics::new(),
        );
        let (mut known, verdicts) = (objects.known(), objects.verdicts());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let _workloads = workloads;
            objects.follow().await;
        });
        tasks.spawn(object_status::keep(cluster.clone(), verdicts));
        let all = known.wait_for(|known| *known);
        time::timeout(DEADLINE, all).await.unwrap().unwrap();
        Self {
            policies,
            known,
            _tasks: tasks,
        }
    }

    fn effects(&self) -> Vec<Effect> {
        assert!(*self.known.borrow());
        let index = self.policies.borrow();
        index.problems().map(|problem| problem.effect).collect()
    }

    fn snapshot(&self) -> PolicySnapshot {
        let labels = BTreeMap::new();
        let selected = Selected {
            namespace: "shop",
            labels: &labels,
        };
        self.policies
            .borrow()
            .snapshot_for(selected, crate::clock::now())
    }
}

async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        time::sleep(Duration::from_millis(20)).await;
    }
}

fn object(kind: &str, generation: i64, spec: Value) -> Value {
    json!({
        "apiVersion": "mesh-lite.io/v1", "kind": kind,
        "metadata": {"namespace": "shop", "name": "it", "uid": "u", "generation": generation},
        "spec": spec,
    })
}

/// Of each kind, a spec that loads and one that does not.
fn specs() -> [(&'static str, Value, Value); 3] {
    let subject = "spiffe://mesh.test/ns/shop/sa/web";
    [
        (
            "AuthorizationPolicy",
            json!({"rules": [{}]}),
            json!({"rulez": [{}]}),
        ),
        (
            "PeerAuthentication",
            json!({"mtls": {"mode": "PERMISSIVE"}}),
            json!({"mtls": {"mode": "PERMISIVE"}}),
        ),
        (
            "Eviction",
            json!({"spiffeId": subject}),
            json!({"spiffeId": subject, "untill": "2030-12-31T23:59:59Z"}),
        ),
    ]
}

fn status_of(fixture: &Fixture, kind: &str) -> Value {
    let object = fixture.server.get(kind, "shop", "it").unwrap();
    object.get("status").cloned().unwrap_or_default()
}

/// As an author's change of the spec leaves it.
fn change(fixture: &Fixture, kind: &str, generation: i64, spec: Value) {
    let mut changed = object(kind, generation, spec);
    changed["status"] = status_of(fixture, kind);
    fixture.server.put(changed);
}

async fn written(fixture: &Fixture, kind: &str, generation: i64) {
    let at = "/lastLoaded/generation";
    eventually("lastLoaded is written", || {
        status_of(fixture, kind).pointer(at) == Some(&json!(generation))
    })
    .await;
}

async fn condition(fixture: &Fixture, kind: &str, words: &str) {
    eventually(words, || {
        let status = status_of(fixture, kind);
        let message = status.pointer("/conditions/0/message");
        message.is_some_and(|text| text.as_str().unwrap().contains(words))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_starts_after_the_break_serves_what_the_others_serve() {
    for (kind, good, broken) in specs() {
        let fixture = Fixture::new().await;
        fixture.server.put(object(kind, 1, good));
        let first = Replica::of(&fixture.cluster).await;
        written(&fixture, kind, 1).await;
        change(&fixture, kind, 2, broken);
        condition(&fixture, kind, "last good version stays in force").await;
        let second = Replica::of(&fixture.cluster).await;
        for replica in [&first, &second] {
            assert_eq!(replica.effects(), [Effect::LastGood], "{kind}");
        }
        assert_eq!(first.snapshot(), second.snapshot(), "{kind}");
        assert!(second.snapshot().broken.is_empty(), "{kind}");
        // nobody's status is written over again: both say the same
        written(&fixture, kind, 1).await;
        // a repair takes its place
        let (_, good, _) = specs().into_iter().find(|(of, _, _)| *of == kind).unwrap();
        change(&fixture, kind, 3, good);
        written(&fixture, kind, 3).await;
        eventually("repaired", || second.effects().is_empty()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_good_denies_in_every_replica() {
    for (kind, _, broken) in specs() {
        let fixture = Fixture::new().await;
        fixture.server.put(object(kind, 1, broken));
        let first = Replica::of(&fixture.cluster).await;
        condition(&fixture, kind, "DENIES").await;
        let second = Replica::of(&fixture.cluster).await;
        for replica in [&first, &second] {
            assert_eq!(replica.effects(), [Effect::Denies], "{kind}");
        }
        assert_eq!(status_of(&fixture, kind).get("lastLoaded"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_good_version_that_does_not_load_or_is_of_another_object_denies() {
    let document = |name: &str, spec: &str| {
        format!(
            "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"
        )
    };
    let good = "{rules: [{}]}";
    for last in [
        document("it", "{rulez: [{}]}"),
        document("other", good),
        document("it", good) + "---\n" + &document("other", good),
        document("it", good).replace("Authorization", "Any"),
        String::new(),
        "[".to_owned(),
    ] {
        let fixture = Fixture::new().await;
        let mut broken = object("AuthorizationPolicy", 2, json!({"rulez": []}));
        broken["status"] = json!({"lastLoaded": {"generation": 1, "document": last}});
        fixture.server.put(broken);
        let replica = Replica::of(&fixture.cluster).await;
        assert_eq!(replica.effects(), [Effect::Denies], "{last}");
        assert_eq!(replica.snapshot().broken.len(), 1, "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_was_made_anew_has_no_last_good_version() {
    let fixture = Fixture::new().await;
    let kind = "AuthorizationPolicy";
    fixture.server.put(object(kind, 1, json!({"rules": [{}]})));
    let replica = Replica::of(&fixture.cluster).await;
    written(&fixture, kind, 1).await;
    let mut anew = object(kind, 1, json!({"rulez": []}));
    anew["metadata"]["uid"] = json!("another");
    fixture.server.remove(kind, "shop", "it");
    fixture.server.put(anew);
    eventually("it denies", || replica.effects() == [Effect::Denies]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_to_be_kept_is_said_and_an_older_version_is_not_left() {
    let fixture = Fixture::new().await;
    let kind = "AuthorizationPolicy";
    fixture.server.put(object(kind, 1, json!({"rules": [{}]})));
    let _replica = Replica::of(&fixture.cluster).await;
    written(&fixture, kind, 1).await;
    let principals: Vec<String> = (0..5000)
        .map(|number| format!("mesh.test/ns/shop/sa/{}-{number}", "a".repeat(100)))
        .collect();
    let large = json!({"rules": [{"from": [{"source": {"principals": principals}}]}]});
    change(&fixture, kind, 2, large);
    condition(&fixture, kind, "too large to be kept").await;
    eventually("the older one is taken away", || {
        status_of(&fixture, kind).get("lastLoaded").is_none()
    })
    .await;
}
