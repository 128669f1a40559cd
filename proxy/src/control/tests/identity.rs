//! Issuing, renewing, rotating, and whom the sidecar believes.

use mesh_lite_proto::trust_bundle::TrustBundle;

use super::*;
use crate::{identity::issued_chain::issuer_key_id, tls::fixture::Authority};

#[tokio::test]
async fn a_control_plane_that_comes_later_is_waited_for() {
    let mut server = ScriptedControlPlane::start();
    server.kill();
    let sidecar = start(&server);
    sidecar.issuing_error_with("can't connect to").await;
    assert!(sidecar.identity_now().is_none());
    server.revive().await;
    sidecar.identity().await;
    assert_eq!(sidecar.issuing_error(), "");
}

/// A join token is bound to the key it was first used with: a new key would be refused.
#[tokio::test]
async fn an_answer_that_gets_lost_does_not_cost_the_join_token() {
    let server = ScriptedControlPlane::start();
    server.say(|script| script.lose_answer = true);
    let sidecar = start(&server);
    sidecar.issuing_error_with("the answer got lost").await;
    sidecar.identity().await;
}

#[tokio::test]
async fn a_used_up_token_is_replaced_by_putting_a_new_one_in_its_place() {
    let server = ScriptedControlPlane::start();
    start(&server).identity().await;
    let sidecar = start(&server);
    sidecar.issuing_error_with("used with another key").await;
    server.renew_token();
    sidecar.identity().await;
}

#[tokio::test]
async fn a_server_that_is_not_the_control_plane_gets_no_token() {
    let server = ScriptedControlPlane::start_as(Authorities::new(), API);
    let sidecar = start(&server);
    sidecar.issuing_error_with("who must answer there").await;
    assert!(sidecar.identity_now().is_none());
    assert!(server.events().is_empty());
}

#[tokio::test]
async fn a_server_of_another_root_gets_no_token() {
    let server = ScriptedControlPlane::start();
    let files = files();
    let config = config(&server, &files);
    std::fs::write(&config.trust_bundle, Authority::root().bundle().to_pem()).unwrap();
    let sidecar = start_with(config, &files);
    sidecar.issuing_error_with("no TLS connection").await;
    assert!(server.events().is_empty());
}

#[tokio::test]
async fn a_bundle_that_comes_or_is_corrected_later_is_used() {
    let server = ScriptedControlPlane::start();
    let files = files();
    let config = config(&server, &files);
    let path = config.trust_bundle.clone();
    let right = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let sidecar = start_with(config, &files);
    sidecar
        .issuing_error_with("trust-bundle.pem can't be read")
        .await;
    std::fs::write(&path, Authority::root().bundle().to_pem()).unwrap();
    sidecar.issuing_error_with("no TLS connection").await;
    std::fs::write(&path, right).unwrap();
    sidecar.identity().await;
}

#[tokio::test]
async fn a_wrong_token_is_named_with_what_to_do() {
    let server = ScriptedControlPlane::start();
    let files = files();
    let config = config(&server, &files);
    std::fs::write(config.token_file.as_ref().unwrap().path(), "used-up").unwrap();
    let sidecar = start_with(config, &files);
    let error = sidecar.issuing_error_with("no such token").await;
    assert!(error.contains("mesh-lite token create"), "{error}");
    assert!(
        !error.contains("used-up"),
        "the token itself is not repeated: {error}"
    );
}

#[tokio::test]
async fn without_token_and_state_it_says_what_is_missing() {
    let server = ScriptedControlPlane::start();
    let files = files();
    let config = ControlConfig {
        token_file: None,
        ..config(&server, &files)
    };
    let sidecar = start_with(config, &files);
    sidecar
        .issuing_error_with("no token to ask for one with")
        .await;
}

#[tokio::test]
async fn a_leaf_from_the_future_is_refused_and_the_clocks_are_compared() {
    let server = ScriptedControlPlane::start();
    server.say(|script| script.clock_ahead = Duration::from_secs(300));
    let sidecar = start(&server);
    let error = sidecar.issuing_error_with("valid only in").await;
    assert!(error.contains("control plane's, so look at"), "{error}");
    assert!(sidecar.identity_now().is_none());
}

#[tokio::test]
async fn a_leaf_is_renewed_with_itself_and_a_new_key_before_it_ends() {
    let server = ScriptedControlPlane::start();
    server.say(|script| script.leaf_life = Duration::from_secs(4));
    let sidecar = start(&server);
    let first = sidecar.identity().await;
    let second = sidecar.another_identity(&first).await;
    assert_eq!(second.leaf.id, first.leaf.id);
    assert!(second.revision > first.revision);
    assert_ne!(
        mesh_lite_proto::svid::public_key_of(&first.chain[0]),
        mesh_lite_proto::svid::public_key_of(&second.chain[0])
    );
    assert!(
        server
            .events()
            .contains(&Event::IssuedBySvid(first.leaf.serial.to_string())),
        "shown while it was valid"
    );
    let third = sidecar.another_identity(&second).await;
    assert!(third.revision > second.revision);
}

#[tokio::test]
async fn streams_move_to_the_new_certificate_and_miss_nothing() {
    let server = ScriptedControlPlane::start();
    let (name, answer) = api(API);
    server.say(|script| {
        script.leaf_life = Duration::from_secs(4);
        script.policy = Some(policy(1, "a.test/ns/shop/sa/guest"));
        script.answers.insert(name.clone(), answer.clone());
    });
    let sidecar = start(&server);
    let first = sidecar.identity().await;
    sidecar.policy(1).await;
    sidecar.handles.directory.resolve(&name).await.unwrap();
    let second = sidecar.another_identity(&first).await;
    let serial = second.leaf.serial.to_string();
    eventually("streams with the new certificate", || {
        let opened = server
            .events()
            .into_iter()
            .filter(|event| matches!(event, Event::Opened(by) if *by == serial))
            .count();
        (opened == 3).then_some(())
    })
    .await;
    let (_, changed) = api("spiffe://a.test/ns/shop/sa/new");
    server.say(|script| {
        script.policy = Some(policy(2, "a.test/ns/shop/sa/other"));
        script.answers.insert(name.clone(), changed.clone());
    });
    sidecar.policy(2).await;
    eventually("the change", || {
        let known = sidecar.handles.directory.known(&name);
        known.filter(|known| **known == changed)
    })
    .await;
}

#[tokio::test]
async fn metrics_tell_of_certificates_and_of_failures_to_renew_them() {
    let server = ScriptedControlPlane::start();
    server.say(|script| script.leaf_life = Duration::from_secs(6));
    let sidecar = start(&server);
    let identity = sidecar.identity().await;
    let count = |result: &str| {
        let name = format!("cert_renewals_total{{result=\"{result}\"}}");
        sidecar.metric(&name).unwrap_or_default()
    };
    assert!(count("issued") >= 1.0);
    let ends = sidecar
        .metric("cert_expiry_timestamp_seconds{kind=\"leaf\"}")
        .unwrap();
    let since = identity
        .leaf
        .not_after
        .duration_since(std::time::SystemTime::UNIX_EPOCH);
    assert_eq!(ends, since.unwrap().as_secs_f64());
    server.say(|script| script.refuse = Some(tonic::Status::permission_denied("evicted")));
    eventually("a refusal", || (count("refused") >= 1.0).then_some(())).await;
}

#[tokio::test]
async fn a_renewal_that_would_make_it_another_workload_is_refused() {
    let server = ScriptedControlPlane::start();
    server.say(|script| script.leaf_life = Duration::from_secs(6));
    let sidecar = start(&server);
    let first = sidecar.identity().await;
    server.say(|script| script.workload = API.to_owned());
    sidecar.issuing_error_with("this workload is").await;
    assert_stays(&sidecar, &first);
}

/// No other identity took this one's place, and it is there unless it has ended.
fn assert_stays(sidecar: &Sidecar, identity: &Identity) {
    match sidecar.identity_now() {
        Some(now) => assert_eq!(now.leaf.serial, identity.leaf.serial),
        None => assert!(crate::clock::now() >= identity.leaf.not_after),
    }
}

#[tokio::test]
async fn the_last_good_identity_stays_until_it_ends_and_then_there_is_none() {
    let server = ScriptedControlPlane::start();
    server.say(|script| script.leaf_life = Duration::from_secs(4));
    let sidecar = start(&server);
    let first = sidecar.identity().await;
    server.say(|script| script.refuse = Some(tonic::Status::permission_denied("evicted")));
    sidecar.issuing_error_with("evicted").await;
    assert_stays(&sidecar, &first);
    eventually("the end", || sidecar.identity_now().is_none().then_some(())).await;
    assert!(crate::clock::now() >= first.leaf.not_after);
    server.renew_token();
    server.say(|script| script.refuse = None);
    sidecar.identity().await;
}

#[tokio::test]
async fn another_active_authority_is_followed_and_the_one_in_use_is_not() {
    let server = ScriptedControlPlane::start();
    server.say(|script| script.leaf_life = Duration::from_secs(40));
    let sidecar = start(&server);
    let first = sidecar.identity().await;
    let ours = issuer_key_id(&first.chain[0]).unwrap();
    server.forget_events();
    server.say(|script| script.active_authority(&ours));
    eventually("its acknowledgement", || {
        server
            .events()
            .iter()
            .any(|e| matches!(e, Event::Secrets { accepted: true, .. }))
            .then_some(())
    })
    .await;
    assert!(
        !server
            .events()
            .iter()
            .any(|event| matches!(event, Event::IssuedBySvid(_)))
    );
    server.authorities.rotate();
    let next = server.authorities.issuing().leaf(API, |_| ()).0;
    let next = issuer_key_id(&next).unwrap();
    server.say(|script| script.active_authority(&next));
    let second = sidecar.another_identity(&first).await;
    assert_eq!(issuer_key_id(&second.chain[0]).unwrap(), next);
}

#[tokio::test]
async fn a_bundle_that_grows_and_shrinks_is_followed_and_a_bad_one_is_not() {
    let server = ScriptedControlPlane::start();
    let sidecar = start(&server);
    let first = sidecar.identity().await;
    let ours = server.authorities.root.certificate.clone();
    let both = TrustBundle::new(
        "a.test".parse().unwrap(),
        vec![ours, Authority::root().certificate],
    )
    .unwrap();
    server.say(|script| script.bundle(&both));
    let bundle_is = |wanted: TrustBundle| {
        let sidecar = &sidecar;
        async move {
            eventually("the bundle", || {
                sidecar
                    .identity_now()
                    .filter(|it| *it.trust_bundle == wanted)
            })
            .await
        }
    };
    let grown = bundle_is(both.clone()).await;
    assert_eq!(grown.leaf.serial, first.leaf.serial, "the leaf is the same");
    assert!(grown.revision > first.revision);

    for bad in [
        "",
        "garbage",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        server.forget_events();
        server.say(|script| {
            script.secrets = vec![secret_with(bad)];
        });
        let words = eventually("a refusal", || {
            server.events().into_iter().find_map(|event| match event {
                Event::Secrets {
                    accepted: false,
                    words,
                } => Some(words),
                _ => None,
            })
        })
        .await;
        assert!(words.contains("trust bundle"), "{words}");
        assert_eq!(*sidecar.identity_now().unwrap().trust_bundle, both);
    }
    let one = (*server.authorities.root.bundle()).clone();
    server.say(|script| script.bundle(&one));
    bundle_is(one).await;
}

fn secret_with(
    pem: &str,
) -> mesh_lite_proto::wire::envoy::extensions::transport_sockets::tls::v3::Secret {
    use mesh_lite_proto::wire::envoy::{
        config::core::v3::{DataSource, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{CertificateValidationContext, Secret, secret},
    };
    let ca = DataSource {
        specifier: Some(Specifier::InlineBytes(pem.as_bytes().to_vec())),
    };
    let context = CertificateValidationContext {
        trusted_ca: Some(ca),
        ..Default::default()
    };
    Secret {
        name: "ROOTCA".to_owned(),
        r#type: Some(secret::Type::ValidationContext(context)),
    }
}
