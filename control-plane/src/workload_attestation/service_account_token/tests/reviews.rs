//! When the API server is asked, and how often.

use super::*;

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
