//! The whole of it against an API server: lists, watches, outages, rights.

use std::time::Duration;

use mesh_lite_proto::authorization::MutualTlsMode;
use mesh_lite_test_support::api_server::{ApiServer, Trouble};

use tokio::task::block_in_place;

use super::*;
use crate::{
    cluster::connect,
    condition::Conditions,
    policy_index::{PolicyIndex, Selected, ShippedDefaults},
};

const DEADLINE: Duration = Duration::from_secs(40);

struct Running {
    server: ApiServer,
    workloads: watch::Receiver<Arc<WorkloadIndex>>,
    policies: watch::Receiver<PolicyIndex>,
    outbound: watch::Receiver<Arc<OutboundRules>>,
    known: watch::Receiver<bool>,
    verdicts: watch::Receiver<Arc<Vec<Verdict>>>,
    conditions: Conditions,
    _tasks: JoinSet<()>,
}

impl Running {
    async fn on(server: ApiServer) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = connect(Some(&server.kubeconfig())).await.unwrap();
        let conditions = Conditions::new();
        let defaults = ShippedDefaults::STRICT;
        let policies = PolicyIndex::new(trust_domain(), "mesh-lite-system", defaults);
        let published = Published {
            workloads: watch::Sender::default(),
            policies: watch::Sender::new(policies),
            conditions: conditions.clone(),
        };
        let (workloads, policies) = (
            published.workloads.subscribe(),
            published.policies.subscribe(),
        );
        let metrics = Metrics::new();
        let rules = OutboundRules::default();
        let objects = KubernetesObjects::new(client, trust_domain(), rules, published, metrics);
        let (outbound, known, verdicts) = (objects.outbound(), objects.known(), objects.verdicts());
        let mut tasks = JoinSet::new();
        tasks.spawn(objects.follow());
        Self {
            server,
            workloads,
            policies,
            outbound,
            known,
            verdicts,
            conditions,
            _tasks: tasks,
        }
    }

    async fn is_known(&mut self) {
        let known = self.known.wait_for(|known| *known);
        time::timeout(DEADLINE, known).await.unwrap().unwrap();
    }

    async fn eventually(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "never: {what}");
            time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn has(&self, pod: &str) -> bool {
        let name = pod.parse().unwrap();
        self.workloads.borrow().workload(&name).is_some()
    }

    fn mode(&self) -> MutualTlsMode {
        let labels = BTreeMap::new();
        let selected = Selected {
            namespace: "shop",
            labels: &labels,
        };
        let now = crate::clock::now();
        let snapshot = self.policies.borrow().snapshot_for(selected, now);
        snapshot.mutual_tls.mode
    }

    fn says(&self, part: Part, text: &str) -> bool {
        self.conditions.of(part).concat().contains(text)
    }
}

fn permissive(name: &str) -> Value {
    policy(
        "PeerAuthentication",
        name,
        json!({"mtls": {"mode": "PERMISSIVE"}}),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn follows_what_is_there_what_comes_and_what_goes() {
    let server = ApiServer::start();
    server.put(pod("shop/api", "10.244.0.5"));
    let mut running = Running::on(server).await;
    running.is_known().await;
    assert!(running.has("shop/api"));
    running.server.put(pod("shop/new", "10.244.0.6"));
    running
        .eventually("a new pod", |it| it.has("shop/new"))
        .await;
    running.server.remove("Pod", "shop", "api");
    running.eventually("gone", |it| !it.has("shop/api")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_come_change_and_go() {
    let mut running = Running::on(ApiServer::start()).await;
    running.is_known().await;
    assert_eq!(running.mode(), MutualTlsMode::Strict);
    running.server.put(permissive("shop/all"));
    let is = |mode| move |it: &Running| it.mode() == mode;
    running
        .eventually("it holds", is(MutualTlsMode::Permissive))
        .await;
    running.server.remove("PeerAuthentication", "shop", "all");
    running
        .eventually("it is gone", is(MutualTlsMode::Strict))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_policy_denies_in_its_scope_and_is_told_with_its_line() {
    let mut running = Running::on(ApiServer::start()).await;
    running.is_known().await;
    let broken = json!({"rules": [{}], "selectr": {"matchLabels": {"app": "api"}}});
    running
        .server
        .put(policy("AuthorizationPolicy", "shop/typo", broken));
    running
        .eventually("it is told", |it| it.says(Part::Documents, "selectr"))
        .await;
    let text = running.conditions.of(Part::Documents).concat();
    assert!(
        text.contains("kubernetes:AuthorizationPolicy/shop/typo:13:3"),
        "{text}"
    );
    let policies = running.policies.borrow();
    let labels = BTreeMap::new();
    let broken_for = |namespace| {
        let selected = Selected {
            namespace,
            labels: &labels,
        };
        policies
            .snapshot_for(selected, crate::clock::now())
            .broken
            .len()
    };
    assert_eq!((broken_for("shop"), broken_for("other")), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_read_a_kind_nothing_is_known_and_the_rule_is_named() {
    let server = ApiServer::start();
    server.trouble(
        "GET",
        "/apis/mesh-lite.io/v1/evictions",
        Trouble::Status(403),
    );
    let running = Running::on(server).await;
    let rule = "apiGroups [mesh-lite.io], resources [evictions], verbs [list, watch]";
    running
        .eventually("the rule", |it| it.says(Part::ApiServer, rule))
        .await;
    assert!(!*running.known.borrow());
    running.server.heal();
    running.eventually("known", |it| *it.known.borrow()).await;
    running
        .eventually("no trouble", |it| {
            it.conditions.of(Part::ApiServer).is_empty()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_leaves_what_is_known_and_ends() {
    let server = ApiServer::start();
    server.put(pod("shop/api", "10.244.0.5"));
    server.put(permissive("shop/all"));
    let mut running = Running::on(server).await;
    running.is_known().await;
    block_in_place(|| running.server.stop());
    running
        .eventually("said", |it| {
            it.says(Part::ApiServer, "what is known is served")
        })
        .await;
    assert!(running.has("shop/api"));
    assert_eq!(running.mode(), MutualTlsMode::Permissive);
    // what changed meanwhile is taken in at once
    running.server.put(pod("shop/new", "10.244.0.6"));
    running.server.remove("Pod", "shop", "api");
    block_in_place(|| running.server.start_again());
    running
        .eventually("news", |it| it.has("shop/new") && !it.has("shop/api"))
        .await;
    running
        .eventually("no trouble", |it| {
            it.conditions.of(Part::ApiServer).is_empty()
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_api_server_at_the_start_nothing_is_known() {
    let mut server = ApiServer::start();
    block_in_place(|| server.stop());
    let mut running = Running::on(server).await;
    running
        .eventually("said", |it| {
            it.says(Part::ApiServer, "nothing is served before they are known")
        })
        .await;
    assert!(!*running.known.borrow());
    block_in_place(|| running.server.start_again());
    running.is_known().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_that_end_or_expire_lose_nothing() {
    let mut running = Running::on(ApiServer::start()).await;
    running.is_known().await;
    for (round, trouble) in [ApiServer::end_watches, ApiServer::expire_watches]
        .into_iter()
        .enumerate()
    {
        trouble(&running.server);
        let name = format!("shop/new-{round}");
        running
            .server
            .put(pod(&name, &format!("10.244.0.{}", 10 + round)));
        running.eventually(&name, |it| it.has(&name)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rule_for_plaintext_comes_from_the_namespace() {
    let server = ApiServer::start();
    let namespace = |name: &str, rule: &str| {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name,
            "annotations": {"config.mesh-lite.io/outbound-unmeshed": rule}}})
    };
    server.put(namespace("shop", "allow"));
    server.put(namespace("typo", "alow"));
    let mut running = Running::on(server).await;
    running.is_known().await;
    let rules = Arc::clone(&running.outbound.borrow());
    let of = |name: &str| rules.settings_for(name).outbound_unmeshed;
    use mesh_lite_proto::workload_directory::OutboundUnmeshed::{Allow, Refuse};
    assert_eq!(
        (of("shop"), of("typo"), of("other")),
        (Allow, Refuse, Refuse)
    );
    assert!(running.says(Part::Documents, "neither refuse nor allow"));
    drop(rules);
    running.server.put(namespace("shop", "refuse"));
    running
        .eventually("taken back", |it| {
            it.outbound.borrow().settings_for("shop").outbound_unmeshed == Refuse
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_too_large_denies_in_its_own_namespace_alone() {
    let mut running = Running::on(ApiServer::start()).await;
    running.is_known().await;
    let principal = format!("cluster.local/ns/shop/sa/{}", "a".repeat(1_100_000));
    let spec = json!({"rules": [{"from": [{"source": {"principals": [principal]}}]}]});
    running
        .server
        .put(policy("AuthorizationPolicy", "shop/huge", spec));
    running
        .eventually("said", |it| {
            it.says(Part::Documents, "bytes that are allowed")
        })
        .await;
    let policies = running.policies.borrow();
    let labels = BTreeMap::new();
    let broken_for = |namespace| {
        let selected = Selected {
            namespace,
            labels: &labels,
        };
        policies
            .snapshot_for(selected, crate::clock::now())
            .broken
            .len()
    };
    assert_eq!((broken_for("shop"), broken_for("other")), (1, 0));
    assert_eq!(running.verdicts.borrow().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_that_work_do_not_hide_that_watches_are_refused() {
    let server = ApiServer::start();
    server.put(pod("shop/api", "10.244.0.5"));
    server.trouble("WATCH", "/api/v1/pods", Trouble::Status(500));
    let mut running = Running::on(server).await;
    running.is_known().await;
    running
        .eventually("said", |it| it.says(Part::ApiServer, "pods"))
        .await;
    assert!(running.has("shop/api"));
    running.server.heal();
    running
        .eventually("no trouble", |it| {
            it.conditions.of(Part::ApiServer).is_empty()
        })
        .await;
}

/// A smaller cluster than the bench's, whose pods are replaced all the time: in the end, and for
/// each pod that is there, the directory says what the objects say.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_right_after_very_many_changes() {
    const PODS: usize = 60;
    let address =
        |pod: usize, round: usize| format!("10.{}.0.{}", 1 + (pod + round) % 200, pod + 1);
    let name = |pod: usize, round: usize| format!("p{pod}-{round}");
    let made = |pod, round| pod_of(&name(pod, round), &address(pod, round));
    let server = ApiServer::start();
    for pod in 0..PODS {
        server.put(made(pod, 0));
    }
    let mut running = Running::on(server).await;
    running.is_known().await;
    let mut rounds = [0; PODS];
    for step in 0..600 {
        let pod = (step * 37) % PODS;
        let round = rounds.get_mut(pod).unwrap();
        running.server.remove("Pod", "shop", &name(pod, *round));
        *round += 1;
        running.server.put(made(pod, *round));
        if step % 50 == 0 {
            // an answer in between is that of some moment: never two claimants, never too many
            assert!(running.workloads.borrow().conflicts().is_empty());
            time::sleep(Duration::from_millis(20)).await;
        }
    }
    let last = rounds
        .iter()
        .enumerate()
        .map(|(pod, round)| (name(pod, *round), address(pod, *round)));
    let last: Vec<(String, String)> = last.collect();
    running
        .eventually("the last of them", |it| {
            let index = it.workloads.borrow();
            let all = |(name, _): &(String, String)| {
                index
                    .workload(&format!("shop/{name}").parse().unwrap())
                    .is_some()
            };
            index.workloads().count() == PODS && last.iter().all(all)
        })
        .await;
    let index = Arc::clone(&running.workloads.borrow());
    let settings = OutboundRules::default().settings_for("shop");
    for (name, text) in &last {
        match &*index.answer(&address_name(text), &settings) {
            Answer::Endpoint(endpoint) => assert_eq!(&endpoint.name, name),
            other => panic!("{text}: {other:?}"),
        }
    }
    for (pod, round) in rounds.iter().enumerate() {
        let before = address(pod, round - 1);
        let answer = index.answer(&address_name(&before), &settings);
        assert!(matches!(&*answer, Answer::Unknown { .. }), "{before}");
    }
}

fn pod_of(name: &str, address: &str) -> Value {
    pod(&format!("shop/{name}"), address)
}

fn address_name(text: &str) -> Name {
    address(text)
}
