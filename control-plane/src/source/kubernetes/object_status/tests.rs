use mesh_lite_test_support::api_server::Trouble;

use super::*;
use crate::cluster_fixture::Fixture;

const DEADLINE: Duration = Duration::from_secs(20);

fn wanted(message: &str) -> Told {
    Told {
        loaded: false,
        reason: "UnknownField".to_owned(),
        message: message.into(),
        observed_generation: 2,
    }
}

fn verdict_of(told: Option<Told>, message: &str) -> Arc<Vec<Verdict>> {
    Arc::new(vec![Verdict {
        kind: WatchedKind::AuthorizationPolicy,
        name: ObjectName {
            namespace: "shop".to_owned(),
            name: "api".to_owned(),
        },
        uid: "uid-1".to_owned(),
        told,
        wanted: wanted(message),
        found: Found::default(),
        told_last: None,
        wanted_last: None,
    }])
}

struct Kept {
    fixture: Fixture,
    verdicts: watch::Sender<Arc<Vec<Verdict>>>,
    _task: tokio::task::JoinSet<()>,
}

impl Kept {
    async fn new(leads: bool) -> Self {
        let fixture = Fixture::new().await;
        fixture.leads.send_replace(leads);
        fixture.server.put(json!({
            "apiVersion": "mesh-lite.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"namespace": "shop", "name": "api", "uid": "uid-1"}, "spec": {},
        }));
        let (verdicts, seen) = watch::channel(Arc::default());
        let mut task = tokio::task::JoinSet::new();
        task.spawn(keep(fixture.cluster.clone(), seen));
        Self {
            fixture,
            verdicts,
            _task: task,
        }
    }

    fn told(&self) -> Option<Told> {
        let object = self
            .fixture
            .server
            .get("AuthorizationPolicy", "shop", "api");
        Told::of_object(&object.unwrap())
    }

    fn patches(&self) -> usize {
        let calls = self.fixture.server.calls();
        calls.iter().filter(|call| call.method == "PATCH").count()
    }

    async fn eventually(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn the_leader_writes_what_differs_and_nothing_twice() {
    let kept = Kept::new(true).await;
    kept.verdicts.send_replace(verdict_of(None, "line 3"));
    let expected = wanted("line 3");
    kept.eventually("written", |it| it.told().as_ref() == Some(&expected))
        .await;
    // nothing changed but that somebody looked
    kept.verdicts.send_replace(verdict_of(None, "line 3"));
    let told = Some(wanted("line 3"));
    kept.verdicts.send_replace(verdict_of(told, "line 3"));
    kept.verdicts
        .send_replace(verdict_of(Some(wanted("line 3")), "line 4"));
    let expected = wanted("line 4");
    kept.eventually("written", |it| it.told().as_ref() == Some(&expected))
        .await;
    assert_eq!(kept.patches(), 2);
}

#[tokio::test]
async fn a_replica_that_does_not_lead_writes_nothing_until_it_does() {
    let kept = Kept::new(false).await;
    kept.verdicts.send_replace(verdict_of(None, "line 3"));
    time::sleep(Duration::from_millis(300)).await;
    assert_eq!(kept.patches(), 0);
    kept.fixture.leads.send_replace(true);
    kept.eventually("written", |it| it.told().is_some()).await;
}

#[tokio::test]
async fn without_the_right_the_rule_is_named() {
    let kept = Kept::new(true).await;
    kept.fixture
        .server
        .trouble("PATCH", "/apis/mesh-lite.io/", Trouble::Status(403));
    kept.verdicts.send_replace(verdict_of(None, "line 3"));
    let rule = "resources [authorizationpolicies/status], verbs [patch]";
    kept.eventually("the rule", |it| {
        let texts = it.fixture.cluster.conditions.of(Part::ObjectStatus);
        texts.concat().contains(rule)
    })
    .await;
}

#[test]
fn the_time_is_that_of_the_last_change_and_conditions_of_others_stay() {
    let others = json!({"type": "Reviewed", "status": "True", "by": "somebody"});
    let own = |status: &str| {
        json!({"status": {"conditions": [
            {"type": "Loaded", "status": status, "lastTransitionTime": "2026-01-02T03:04:05Z"},
            others,
        ]}})
    };
    let now = crate::clock::from_unix_seconds(1_800_000_000);
    let written = |object: &Value| Found::of_object(object).with(&wanted("line 3"), now);
    let of = |conditions: &[Value]| {
        assert_eq!(conditions.len(), 2);
        assert_eq!(conditions[0], others);
        conditions[1]["lastTransitionTime"].clone()
    };
    assert_eq!(of(&written(&own("False"))), "2026-01-02T03:04:05Z");
    assert_eq!(of(&written(&own("True"))), readable(now));
    let first = written(&json!({"spec": {}}));
    assert_eq!(first.len(), 1);
    assert_eq!(first[0]["lastTransitionTime"], readable(now));
}

#[tokio::test]
async fn a_status_that_is_refused_is_told_and_holds_up_no_other() {
    let kept = Kept::new(true).await;
    let path = "/apis/mesh-lite.io/v1/namespaces/shop/authorizationpolicies/broken";
    kept.fixture
        .server
        .trouble("PATCH", path, Trouble::Status(422));
    let mut verdicts = Vec::clone(&verdict_of(None, "line 3"));
    let mut broken = verdicts[0].clone();
    broken.name.name = "broken".to_owned();
    verdicts.insert(0, broken);
    kept.verdicts.send_replace(Arc::new(verdicts));
    kept.eventually("written", |it| it.told().is_some()).await;
    kept.eventually("the refusal", |it| {
        let texts = it.fixture.cluster.conditions.of(Part::ObjectStatus);
        texts.concat().contains("AuthorizationPolicy shop/broken")
    })
    .await;
}

#[test]
fn reasons_are_words_that_conditions_take() {
    for class in RefusalClass::ALL {
        let reason = as_reason(class);
        assert!(
            reason.starts_with(|first: char| first.is_ascii_uppercase()),
            "{reason}"
        );
        assert!(
            reason.chars().all(|char| char.is_ascii_alphanumeric()),
            "{reason}"
        );
    }
    assert_eq!(as_reason(RefusalClass::UnknownField), "UnknownField");
}

#[test]
fn a_message_is_never_longer_than_a_condition_may_be() {
    for text in ["é".repeat(MAX_MESSAGE), "a".repeat(MAX_MESSAGE + 1)] {
        let short = shortened(text);
        assert!(short.len() <= MAX_MESSAGE && short.ends_with('…'));
    }
    let fits = "a".repeat(MAX_MESSAGE);
    assert_eq!(shortened(fits.clone()), fits);
}
