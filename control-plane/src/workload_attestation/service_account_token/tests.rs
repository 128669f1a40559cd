//! In `tests/captured`: what a real API server said of real tokens, which ended long ago.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    cell::Cell,
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use mesh_lite_test_support::{
    ApiServer,
    api_server::Trouble,
    service_account_token::{TokenIssuer, TokenOf},
};
use serde_json::{Value, json};

use super::{claims::PodOfToken, token_review::judged_json, *};
use crate::clock::from_unix_seconds;

mod outage;
mod reviews;

const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// In the life of the captured tokens.
const CAPTURED_AT: u64 = 1_795_217_600;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(CAPTURED_AT) };
}

/// Each test has a thread of its own, and its runtime no other.
fn clock() -> SystemTime {
    from_unix_seconds(NOW.get())
}

fn captured(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/workload_attestation/service_account_token/tests/captured")
        .join(name);
    fs::read_to_string(path).unwrap()
}

fn captured_json(name: &str) -> Value {
    serde_json::from_str(&captured(name)).unwrap()
}

fn captured_token(name: &str) -> String {
    captured_json(name)["spec"]["token"]
        .as_str()
        .unwrap()
        .to_owned()
}

struct Cluster {
    server: ApiServer,
    issuer: TokenIssuer,
    tokens: ServiceAccountTokens,
}

impl Cluster {
    async fn new() -> Self {
        // kube's client takes the process's provider
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let server = ApiServer::start();
        let issuer = TokenIssuer::new();
        issuer.publish_at(&server);
        let client = crate::cluster::connect(Some(&server.kubeconfig()))
            .await
            .unwrap();
        let trust_domain = TrustDomain::new("mesh.test").unwrap();
        let tokens = ServiceAccountTokens::new(client, trust_domain, Metrics::new(), clock);
        Self {
            server,
            issuer,
            tokens,
        }
    }

    fn of_pod(name: &str) -> TokenOf {
        TokenOf::pod(("shop", "cart"), (name, &format!("uid-of-{name}")), clock())
    }

    /// A good token that the API server accepts.
    fn good(&self) -> String {
        self.issuer.accepted_at(&self.server, &Self::of_pod("cart"))
    }

    async fn judge(&self, token: &str) -> Verdict {
        let token = Arc::new(ServiceAccountToken::received(token)?);
        self.tokens.attest(&token, Urgency::First).await
    }

    async fn refused(&self, token: &str) -> String {
        match self.judge(token).await {
            Err(error) if error.is_refusal() => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn reviews(&self) -> usize {
        let calls = self.server.calls();
        calls.iter().filter(|call| call.path == REVIEWS).count()
    }

    /// Its runtime may not end within ours.
    fn stop(&mut self) {
        std::thread::scope(|scope| {
            scope.spawn(|| self.server.stop());
        });
    }

    fn start_again(&mut self) {
        std::thread::scope(|scope| {
            scope.spawn(|| self.server.start_again());
        });
    }

    /// What was believed so far is believed no more.
    async fn after(&self, time: Duration) {
        time::pause();
        time::advance(time).await;
        time::resume();
    }
}

fn cart() -> PodOfToken {
    PodOfToken {
        namespace: "shop".to_owned(),
        service_account: "cart".to_owned(),
        name: "cart".to_owned(),
        uid: "731f477c-81d3-4d1f-8141-e0cd4b00d672".to_owned(),
    }
}

#[test]
fn what_a_real_api_server_says_is_understood() {
    let judged = |name: &str| judged_json(&captured(name));
    assert_eq!(
        judged("token-review-authenticated.json"),
        Reviewed::Yes(cart())
    );
    for (name, words) in [
        ("token-review-not-bound-to-pod.json", "not bound to a pod"),
        (
            "token-review-wrong-audience.json",
            "is invalid for the target audiences",
        ),
        (
            "token-review-api-server-token.json",
            "is invalid for the target audiences",
        ),
        ("token-review-garbage.json", "invalid bearer token"),
        (
            "token-review-pod-deleted.json",
            "service account token has been invalidated",
        ),
    ] {
        let Reviewed::No(said) = judged(name) else {
            panic!("{name} was accepted");
        };
        assert!(said.contains(words), "{name}: {said}");
    }
}

/// Each of them is a yes of the API server that says less than is needed.
#[test]
fn a_yes_that_leaves_something_open_is_a_no() {
    let good = captured_json("token-review-authenticated.json");
    let pod_name = "authentication.kubernetes.io/pod-name";
    let pod_uid = "authentication.kubernetes.io/pod-uid";
    type Edit = fn(&mut Value);
    let cases: [(&str, Edit); 11] = [
        ("authenticated", |status| {
            status["authenticated"] = json!(false)
        }),
        ("no audiences", |status| status["audiences"] = json!([])),
        ("other audience", |status| {
            status["audiences"] = json!(["mesh-lite-2"])
        }),
        ("a person", |status| {
            status["user"]["username"] = json!("admin")
        }),
        ("a node", |status| {
            status["user"]["username"] = json!("system:node:node1")
        }),
        ("no name", |status| {
            status["user"]["username"] = json!("system:serviceaccount:shop:")
        }),
        ("no namespace", |status| {
            status["user"]["username"] = json!("system:serviceaccount::cart")
        }),
        ("too much", |status| {
            status["user"]["username"] = json!("system:serviceaccount:shop:cart:x")
        }),
        ("no extra", |status| status["user"]["extra"] = json!({})),
        ("two pods", |status| {
            status["user"]["extra"]["authentication.kubernetes.io/pod-name"] = json!(["a", "b"])
        }),
        ("no uid", |status| {
            status["user"]["extra"]["authentication.kubernetes.io/pod-uid"] = json!([""])
        }),
    ];
    assert!(good["status"]["user"]["extra"][pod_name].is_array());
    assert!(good["status"]["user"]["extra"][pod_uid].is_array());
    for (what, change) in cases {
        let mut review = good.clone();
        change(&mut review["status"]);
        let judged = judged_json(&review.to_string());
        assert!(matches!(judged, Reviewed::No(_)), "{what}: {judged:?}");
    }
}

#[tokio::test]
async fn a_pod_is_attested_by_its_token() {
    let cluster = Cluster::new().await;
    let pod = cluster.judge(&cluster.good()).await.unwrap();
    assert_eq!(pod.id.as_str(), "spiffe://mesh.test/ns/shop/sa/cart");
    assert_eq!(pod.workload.to_string(), "shop/cart");
    assert_eq!(&*pod.uid, "uid-of-cart");
    let call = &cluster.server.calls()[0];
    assert_eq!(call.body["spec"]["audiences"], json!(["mesh-lite"]));
}

/// In words that say what to look at, and without a question to the API server.
#[tokio::test]
async fn a_token_that_cannot_be_right_is_refused_without_asking() {
    let cluster = Cluster::new().await;
    let (good, issuer) = (Cluster::of_pod("cart"), &cluster.issuer);
    let over = TokenOf {
        ends: clock(),
        ..good.clone()
    };
    let of_nobody = TokenOf {
        pod: None,
        ..good.clone()
    };
    let for_others = TokenOf {
        audience: "https://kubernetes.default.svc".to_owned(),
        ..good
    };
    let long = format!("{}.a", "a".repeat(20_000));
    for (token, words) in [
        (issuer.token(&over), "compare the clocks"),
        (issuer.token(&of_nobody), "of no pod"),
        (issuer.token(&for_others), "not for \"mesh-lite\""),
        ("not.a.token".to_owned(), "no service-account token"),
        (String::new(), "no service-account token"),
        (long, "no service-account token"),
        (
            captured_token("token-review-not-bound-to-pod.json"),
            "of no pod",
        ),
        (
            captured_token("token-review-api-server-token.json"),
            "https://kubernetes.default.svc.cluster.local",
        ),
    ] {
        let said = cluster.refused(&token).await;
        assert!(said.contains(words), "{said}");
        assert!(token.is_empty() || !said.contains(&token), "{said}");
    }
    assert_eq!(cluster.reviews(), 0);
}

#[tokio::test]
async fn a_token_that_the_api_server_refuses_is_refused_in_its_words() {
    let cluster = Cluster::new().await;
    let token = captured_token("token-review-pod-deleted.json");
    let review = captured_json("token-review-pod-deleted.json");
    cluster.server.token(&token, review);
    let said = cluster.refused(&token).await;
    assert!(said.contains("has been invalidated"), "{said}");
    // its no is asked for anew after a moment, not each time
    cluster.refused(&token).await;
    assert_eq!(cluster.reviews(), 1);
    cluster.after(Duration::from_secs(4)).await;
    cluster.refused(&token).await;
    assert_eq!(cluster.reviews(), 2);
}

#[test]
fn a_token_is_not_shown_by_debug() {
    let token = captured_token("token-review-authenticated.json");
    let received = ServiceAccountToken::received(&token).unwrap();
    assert_eq!(format!("{received:?}"), "ServiceAccountToken");
}
