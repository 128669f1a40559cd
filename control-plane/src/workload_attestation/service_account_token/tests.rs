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

#[tokio::test]
async fn a_review_is_believed_for_five_minutes_and_never_past_the_tokens_end() {
    let cluster = Cluster::new().await;
    let token = cluster.good();
    cluster.judge(&token).await.unwrap();
    cluster.after(Duration::from_secs(290)).await;
    cluster.judge(&token).await.unwrap();
    assert_eq!(cluster.reviews(), 1);
    cluster.server.forget_token(&token);
    cluster.after(Duration::from_secs(11)).await;
    cluster.refused(&token).await;
    assert_eq!(cluster.reviews(), 2);

    let short = TokenOf {
        ends: clock() + Duration::from_secs(60),
        ..Cluster::of_pod("short")
    };
    let short = cluster.issuer.accepted_at(&cluster.server, &short);
    cluster.judge(&short).await.unwrap();
    NOW.set(CAPTURED_AT + 60);
    assert!(cluster.refused(&short).await.contains("expired"));
}

#[tokio::test]
async fn a_certificate_rests_on_what_was_said_just_now() {
    let cluster = Cluster::new().await;
    let token = cluster.good();
    let certify = || async {
        let token = Arc::new(ServiceAccountToken::received(&token)?);
        let tokens = &cluster.tokens;
        tokens.attest_for_certificate(&token, Urgency::First).await
    };
    // the streams and the certificate of a pod that starts are one review
    cluster.judge(&token).await.unwrap();
    cluster.after(Duration::from_secs(8)).await;
    certify().await.unwrap();
    assert_eq!(cluster.reviews(), 1);
    cluster.after(Duration::from_secs(3)).await;
    certify().await.unwrap();
    assert_eq!(cluster.reviews(), 2);
    // a review that fails says nothing: no certificate, and streams have what they had
    cluster.after(Duration::from_secs(11)).await;
    cluster
        .server
        .trouble("POST", REVIEWS, Trouble::Status(500));
    assert!(!certify().await.unwrap_err().is_refusal());
    cluster.judge(&token).await.unwrap();
    cluster.server.heal();
    cluster.after(LEFT_ALONE).await;
    cluster.server.forget_token(&token);
    cluster.judge(&token).await.unwrap();
    assert!(certify().await.unwrap_err().is_refusal());
    cluster.refused(&token).await;
}

#[tokio::test]
async fn one_token_is_reviewed_once_however_many_ask() {
    let cluster = Cluster::new().await;
    let token = cluster.good();
    let asking: Vec<_> = (0..100)
        .map(|_| {
            let token = Arc::new(ServiceAccountToken::received(&token).unwrap());
            let tokens = cluster.tokens.clone();
            async move { tokens.attest(&token, Urgency::First).await }
        })
        .collect();
    for verdict in futures::future::join_all(asking).await {
        verdict.unwrap();
    }
    assert_eq!(cluster.reviews(), 1);
}

#[tokio::test]
async fn whoever_gives_up_waiting_loses_nothing() {
    let cluster = Cluster::new().await;
    let token = cluster.good();
    let asked = time::timeout(Duration::ZERO, cluster.judge(&token)).await;
    assert!(asked.is_err());
    cluster.judge(&token).await.unwrap();
    assert_eq!(cluster.reviews(), 1);
}

/// One at a time: the rest waits, and more than can wait are told to come back.
#[tokio::test]
async fn no_more_than_fifty_reviews_are_under_way() {
    let cluster = Cluster::new().await;
    cluster.server.trouble("POST", REVIEWS, Trouble::Hang);
    let tokens: Vec<_> = (0..80)
        .map(|number| {
            let of = Cluster::of_pod(&format!("cart-{number}"));
            cluster.issuer.accepted_at(&cluster.server, &of)
        })
        .collect();
    let all = futures::future::join_all(tokens.iter().map(|token| cluster.judge(token)));
    let most = async {
        eventually_async(|| cluster.reviews() == 50).await;
        for _ in 0..20 {
            time::sleep(Duration::from_millis(10)).await;
            assert_eq!(cluster.reviews(), 50);
        }
    };
    let (verdicts, ()) = tokio::join!(all, most);
    for verdict in verdicts {
        let error = verdict.unwrap_err();
        assert!(!error.is_refusal(), "{error}");
    }
    // the others did not wait for an API server that does not answer
    assert_eq!(cluster.reviews(), 50);
}

async fn eventually_async(mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never held");
        time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn signing_keys_are_asked_only_while_the_api_server_is_away() {
    let mut cluster = Cluster::new().await;
    cluster.tokens.0.keys.read().await.unwrap();
    let signed = cluster.issuer.token(&Cluster::of_pod("cart"));
    // signed well, and yet: the API server says no
    cluster.refused(&signed).await;
    let other = cluster.issuer.token(&Cluster::of_pod("other"));
    let stranger = TokenIssuer::new().token(&Cluster::of_pod("cart"));

    cluster.stop();
    let pod = cluster.judge(&other).await.unwrap();
    assert_eq!(&*pod.uid, "uid-of-other");
    assert!(pod.until <= Instant::now() + BELIEVED_OFFLINE);
    // its no holds
    cluster.after(Duration::from_secs(4)).await;
    let said = cluster.refused(&signed).await;
    assert!(
        said.contains("refused this service-account token before"),
        "{said}"
    );
    let said = cluster.refused(&stranger).await;
    assert!(said.contains("don't vouch"), "{said}");

    // it is asked as soon as it is back
    cluster.start_again();
    cluster.after(LEFT_ALONE.max(BELIEVED_OFFLINE)).await;
    let said = cluster.refused(&other).await;
    assert!(said.contains("invalid bearer token"), "{said}");
}

#[tokio::test]
async fn without_signing_keys_nobody_is_attested_while_the_api_server_is_away() {
    let mut cluster = Cluster::new().await;
    let token = cluster.good();
    cluster.stop();
    let error = cluster.judge(&token).await.unwrap_err();
    assert!(!error.is_refusal(), "{error}");
    assert!(error.to_string().contains("can't be reached"), "{error}");
    cluster.start_again();
    cluster.after(LEFT_ALONE).await;
    cluster.judge(&token).await.unwrap();
}

/// An API server that is there and does not do what it is asked is not away.
#[tokio::test]
async fn a_missing_right_is_no_outage() {
    let cluster = Cluster::new().await;
    cluster.tokens.0.keys.read().await.unwrap();
    let token = cluster.good();
    for status in [401, 403, 404] {
        cluster
            .server
            .trouble("POST", REVIEWS, Trouble::Status(status));
        let error = cluster.judge(&token).await.unwrap_err();
        assert!(matches!(error, NotReviewed::Failed(_)), "{status}: {error}");
        cluster.server.heal();
    }
    // one that is not well is
    cluster
        .server
        .trouble("POST", REVIEWS, Trouble::Status(500));
    cluster.judge(&token).await.unwrap();
}

/// As the API server would judge them, by keys alone.
#[tokio::test]
async fn signing_keys_vouch_for_nothing_that_the_api_server_would_refuse() {
    let mut cluster = Cluster::new().await;
    cluster.tokens.0.keys.read().await.unwrap();
    cluster.stop();
    let good = Cluster::of_pod("cart");
    let issuer = &cluster.issuer;
    let later = TokenOf {
        begins: clock() + Duration::from_secs(61),
        ..good.clone()
    };
    let elsewhere = TokenOf {
        issuer: "https://other.test".to_owned(),
        ..good.clone()
    };
    let unknown_key = TokenOf {
        key_id: "other".to_owned(),
        ..good.clone()
    };
    let mut forged = issuer.token(&good);
    let last = if forged.pop() == Some('A') { 'Q' } else { 'A' };
    forged.insert(forged.len() - 10, last);
    let unsigned = {
        let token = issuer.token(&good);
        let (message, _) = token.rsplit_once('.').unwrap();
        let (_, claims) = message.split_once('.').unwrap();
        // {"alg":"none"}
        format!("eyJhbGciOiJub25lIn0.{claims}.")
    };
    for token in [
        issuer.token(&later),
        issuer.token(&elsewhere),
        issuer.token(&unknown_key),
        forged,
        unsigned,
    ] {
        cluster.refused(&token).await;
    }
    cluster.judge(&issuer.token(&good)).await.unwrap();
}

/// RS256, as API servers sign by default.
#[tokio::test]
async fn a_real_token_verifies_against_the_real_keys() {
    let mut cluster = Cluster::new().await;
    for (path, name) in [
        ("/openid/v1/jwks", "jwks.json"),
        (
            "/.well-known/openid-configuration",
            "openid-configuration.json",
        ),
    ] {
        cluster.server.page(path, captured_json(name));
    }
    cluster.tokens.0.keys.read().await.unwrap();
    cluster.stop();
    let token = captured_token("token-review-authenticated.json");
    let pod = cluster.judge(&token).await.unwrap();
    assert_eq!(&*pod.uid, cart().uid);
    // it is long over by now
    NOW.set(CAPTURED_AT + 3_600);
    assert!(cluster.refused(&token).await.contains("expired"));
}

/// A key that is no public one would let whoever knows the published set sign.
#[tokio::test]
async fn a_published_secret_is_no_signing_key() {
    let cluster = Cluster::new().await;
    let secret = json!({"keys": [{"kty": "oct", "kid": "test", "alg": "HS256", "k": "c2VjcmV0"}]});
    cluster.server.page("/openid/v1/jwks", secret);
    let error = cluster.tokens.0.keys.read().await.unwrap_err();
    assert!(error.to_string().contains("no RSA or P-256 key"), "{error}");
}

#[test]
fn so_many_refusals_that_not_all_are_remembered_are_no_permission() {
    let mut verdicts = Verdicts::default();
    let print = |number: u32| KeyPrint::of(&number.to_be_bytes());
    let (now, ends) = (from_unix_seconds(0), from_unix_seconds(10));
    for number in 0..64 * 1024 {
        verdicts.refused_for_good(print(number), ends, now);
    }
    assert_eq!(verdicts.was_refused(print(0)), Ok(true));
    assert_eq!(verdicts.was_refused(print(u32::MAX)), Ok(false));
    for number in 0..10 {
        verdicts.refused_for_good(print(100_000 + number), ends, now);
    }
    assert!(verdicts.was_refused(print(u32::MAX)).is_err());
    // the tokens are over: there is room again
    verdicts.refused_for_good(print(200_000), from_unix_seconds(20), ends);
    assert_eq!(verdicts.was_refused(print(u32::MAX)), Ok(false));
}

#[test]
fn a_token_is_not_shown_by_debug() {
    let token = captured_token("token-review-authenticated.json");
    let received = ServiceAccountToken::received(&token).unwrap();
    assert_eq!(format!("{received:?}"), "ServiceAccountToken");
}
