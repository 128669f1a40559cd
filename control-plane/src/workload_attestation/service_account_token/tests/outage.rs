//! While the API server is away, its signing keys say whom it would attest.

use super::*;

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
