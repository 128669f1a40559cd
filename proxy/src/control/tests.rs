use std::{net::IpAddr, path::Path, time::Duration};

use mesh_lite_proto::{
    sidecar::SCHEMA,
    trust_bundle::TrustBundle,
    wire::mesh_lite::v1::{self as wire, policy_request::Request as PolicyRequest},
    workload_directory::{Answer, Endpoint, Meshed, Name},
};
use tempfile::TempDir;

use super::*;
use crate::{
    directory::DirectoryUnavailable,
    identity::issued_chain::issuer_key_id,
    metrics::MetricsPrefix,
    tls::fixture::{API, Authority, WEB},
};

mod scripted_control_plane;

use scripted_control_plane::{Authorities, Event, ScriptedControlPlane, TOKEN};

/// Ten times what the slowest of these takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

async fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within_deadline(look)
        .await
        .unwrap_or_else(|| panic!("never came: {what}"))
}

async fn within_deadline<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let found = tokio::time::timeout(DEADLINE, async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.ok()
}

struct Sidecar {
    handles: ControlHandles,
    _files: Arc<TempDir>,
}

fn config(server: &ScriptedControlPlane, files: &TempDir) -> ControlConfig {
    let token = files.path().join("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    ControlConfig {
        control_plane: format!("localhost:{}", server.address.port()),
        trust_bundle: server.trust_bundle_file(files),
        trust_domain: "a.test".parse().unwrap(),
        mesh_namespace: "mesh-lite-system".to_owned(),
        join_token_file: Some(token),
        data_dir: files.path().to_owned(),
        pod_uid: "pod-1".to_owned(),
    }
}

fn start_with(config: ControlConfig, files: &Arc<TempDir>) -> Sidecar {
    let metrics = Metrics::new(&MetricsPrefix::default(), 100);
    let handles = spawn(config, &metrics, crate::clock::now).unwrap();
    Sidecar {
        handles,
        _files: Arc::clone(files),
    }
}

fn files() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

fn start(server: &ScriptedControlPlane) -> Sidecar {
    let files = files();
    start_with(config(server, &files), &files)
}

impl Sidecar {
    fn identity_now(&self) -> Option<Arc<Identity>> {
        self.handles.identity.borrow().clone()
    }

    async fn identity(&self) -> Arc<Identity> {
        eventually("an identity", || self.identity_now()).await
    }

    async fn another_identity(&self, before: &Identity) -> Arc<Identity> {
        eventually("another identity", || {
            self.identity_now()
                .filter(|now| now.leaf.serial != before.leaf.serial)
        })
        .await
    }

    fn policy_now(&self) -> Option<Arc<PolicySnapshot>> {
        self.handles.policy.borrow().clone()
    }

    async fn policy(&self, revision: u64) -> Arc<PolicySnapshot> {
        eventually("a policy snapshot", || {
            self.policy_now()
                .filter(|policy| policy.revision == revision)
        })
        .await
    }

    fn issuing_error(&self) -> String {
        self.handles
            .status
            .borrow()
            .issuing
            .error
            .clone()
            .unwrap_or_default()
    }

    async fn issuing_error_with(&self, words: &str) -> String {
        within_deadline(|| Some(self.issuing_error()).filter(|error| error.contains(words)))
            .await
            .unwrap_or_else(|| panic!("never said {words:?}, but {:?}", self.issuing_error()))
    }
}

fn policy(revision: u64, allowed: &str) -> wire::PolicySnapshot {
    let source = wire::SourceRef {
        document: "shop/web".to_owned(),
        file: "policies.yaml".to_owned(),
        line: 3,
    };
    let from = wire::PeerMatch {
        line: 5,
        principals: vec![allowed.to_owned()],
        ..Default::default()
    };
    wire::PolicySnapshot {
        revision,
        min_schema: 1,
        trust_domain: "a.test".to_owned(),
        mutual_tls: Some(wire::MutualTls {
            mode: wire::MutualTlsMode::Strict.into(),
            ..Default::default()
        }),
        policies: vec![wire::AuthorizationPolicy {
            min_schema: 1,
            source: Some(source),
            action: wire::PolicyAction::Allow.into(),
            dry_run: false,
            rules: vec![wire::Rule {
                min_schema: 1,
                line: 4,
                from: vec![from],
                to: Vec::new(),
            }],
        }],
        ..Default::default()
    }
}

fn api(id: &str) -> (Name, Answer) {
    let address: IpAddr = [10, 0, 0, 7].into();
    let endpoint = Endpoint {
        address,
        meshed: Some(Meshed {
            id: id.parse().unwrap(),
            tunnel_port: 15008,
        }),
        namespace: "shop".to_owned(),
        name: "api-1".to_owned(),
        healthy: true,
    };
    (Name::Address(address), Answer::Endpoint(endpoint))
}

#[tokio::test]
async fn a_join_token_brings_an_identity_a_policy_and_answers() {
    let server = ScriptedControlPlane::start();
    let (name, answer) = api(API);
    server.say(|script| {
        script.policy = Some(policy(1, "a.test/ns/shop/sa/guest"));
        script.answers.insert(name.clone(), answer.clone());
    });
    let sidecar = start(&server);
    let identity = sidecar.identity().await;
    assert_eq!(identity.leaf.id.as_str(), WEB);
    assert_eq!(identity.chain.len(), 2);
    sidecar.policy(1).await;
    assert_eq!(
        *sidecar.handles.directory.resolve(&name).await.unwrap(),
        answer
    );
    assert_eq!(*sidecar.handles.directory.known(&name).unwrap(), answer);
    assert!(server.events().contains(&Event::IssuedByToken));
    eventually("all well", || {
        let status = sidecar.handles.status.borrow().clone();
        let parts = [
            status.issuing,
            status.trust,
            status.directory,
            status.policy,
        ];
        parts
            .iter()
            .all(|part| part.connected && part.error.is_none())
            .then_some(())
    })
    .await;
}

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
    std::fs::write(config.join_token_file.as_ref().unwrap(), "used-up").unwrap();
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
        join_token_file: None,
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
    assert!(error.contains("clock"), "{error}");
    assert!(sidecar.identity_now().is_none());
}

#[tokio::test]
async fn a_leaf_is_renewed_with_itself_and_a_new_key_before_it_ends() {
    let server = ScriptedControlPlane::start();
    server.say(|script| script.leaf_life = Duration::from_secs(4));
    let sidecar = start(&server);
    let first = sidecar.identity().await;
    let second = sidecar.another_identity(&first).await;
    assert!(crate::clock::now() < first.leaf.not_after);
    assert_eq!(second.leaf.id, first.leaf.id);
    assert!(second.revision > first.revision);
    assert_ne!(
        mesh_lite_proto::svid::public_key_of(&first.chain[0]),
        mesh_lite_proto::svid::public_key_of(&second.chain[0])
    );
    assert!(
        server
            .events()
            .contains(&Event::IssuedBySvid(first.leaf.serial.to_string()))
    );
    let third = sidecar.another_identity(&second).await;
    assert!(third.revision > second.revision);
}

#[tokio::test]
async fn a_renewal_that_would_make_it_another_workload_is_refused() {
    let server = ScriptedControlPlane::start();
    server.say(|script| script.leaf_life = Duration::from_secs(6));
    let sidecar = start(&server);
    let first = sidecar.identity().await;
    server.say(|script| script.workload = API.to_owned());
    sidecar.issuing_error_with("this workload is").await;
    assert_eq!(
        sidecar.identity_now().unwrap().leaf.serial,
        first.leaf.serial
    );
}

#[tokio::test]
async fn the_last_good_identity_stays_until_it_ends_and_then_there_is_none() {
    let server = ScriptedControlPlane::start();
    server.say(|script| script.leaf_life = Duration::from_secs(4));
    let sidecar = start(&server);
    let first = sidecar.identity().await;
    server.say(|script| script.refuse = Some(tonic::Status::permission_denied("evicted")));
    sidecar.issuing_error_with("evicted").await;
    assert_eq!(
        sidecar.identity_now().unwrap().leaf.serial,
        first.leaf.serial
    );
    eventually("the end", || sidecar.identity_now().is_none().then_some(())).await;
    assert!(crate::clock::now() >= first.leaf.not_after);
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

#[tokio::test]
async fn answers_stay_while_the_control_plane_is_away_and_are_asked_for_again() {
    let mut server = ScriptedControlPlane::start();
    let (name, answer) = api(API);
    server.say(|script| drop(script.answers.insert(name.clone(), answer.clone())));
    let sidecar = start(&server);
    sidecar.identity().await;
    let directory = &sidecar.handles.directory;
    directory.resolve(&name).await.unwrap();
    server.kill();
    eventually("the loss", || {
        (!sidecar.handles.status.borrow().directory.connected).then_some(())
    })
    .await;
    assert_eq!(*directory.known(&name).unwrap(), answer);
    let unknown = Name::Address([10, 0, 0, 99].into());
    assert_eq!(
        directory.resolve(&unknown).await,
        Err(DirectoryUnavailable::NoAnswer {
            name: unknown.clone()
        })
    );
    let (_, changed) = api("spiffe://a.test/ns/shop/sa/new");
    server.forget_events();
    server.say(|script| drop(script.answers.insert(name.clone(), changed.clone())));
    server.revive().await;
    eventually("the change", || {
        directory.known(&name).filter(|it| **it == changed)
    })
    .await;
    let asked = server.events().into_iter().find_map(|event| match event {
        Event::Subscribed(names) => Some(names),
        _ => None,
    });
    let asked = asked.unwrap();
    assert!(
        asked.contains(&name) && asked.contains(&unknown),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_restart_while_the_control_plane_is_away_serves_what_it_knew() {
    let mut server = ScriptedControlPlane::start();
    let (name, answer) = api(API);
    server.say(|script| {
        script.policy = Some(policy(5, "a.test/ns/shop/sa/guest"));
        script.answers.insert(name.clone(), answer.clone());
        script.settings.mesh_cidrs = vec!["10.0.0.0/8".parse().unwrap()];
    });
    let files = files();
    let sidecar = start_with(config(&server, &files), &files);
    let before = sidecar.identity().await;
    let policy_before = sidecar.policy(5).await;
    sidecar.handles.directory.resolve(&name).await.unwrap();
    saved(files.path(), |facts| {
        facts.policy.is_some()
            && facts
                .directory
                .as_ref()
                .is_some_and(|it| !it.answers.is_empty())
    })
    .await;
    drop(sidecar);
    server.kill();

    let token_is_used_up = ControlConfig {
        join_token_file: None,
        ..config(&server, &files)
    };
    let sidecar = start_with(token_is_used_up, &files);
    let identity = sidecar
        .identity_now()
        .expect("at once, without the control plane");
    assert_eq!(identity.leaf, before.leaf);
    assert_eq!(sidecar.policy_now().unwrap(), policy_before);
    assert_eq!(*sidecar.handles.directory.known(&name).unwrap(), answer);
    assert_eq!(sidecar.handles.directory.settings().mesh_cidrs.len(), 1);
    server.revive().await;
    eventually("the streams", || {
        let status = sidecar.handles.status.borrow().clone();
        (status.policy.connected && status.directory.connected).then_some(())
    })
    .await;
}

/// Waits until the state file holds what is looked for.
async fn saved(directory: &Path, look: impl Fn(&crate::identity::state_file::SavedFacts) -> bool) {
    let file = StateFile::in_directory(directory);
    eventually("the state file", || {
        let state = file.read().ok().flatten()?;
        (state.key.is_some() && look(&state.rest)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_state_of_another_pod_is_not_used() {
    let mut server = ScriptedControlPlane::start();
    let files = files();
    let sidecar = start_with(config(&server, &files), &files);
    sidecar.identity().await;
    saved(files.path(), |_| true).await;
    drop(sidecar);
    server.kill();
    let other = ControlConfig {
        pod_uid: "pod-2".to_owned(),
        ..config(&server, &files)
    };
    let sidecar = start_with(other, &files);
    assert!(sidecar.identity_now().is_none());
    sidecar.issuing_error_with("can't connect to").await;
}

#[tokio::test]
async fn a_wrong_address_is_refused_at_start() {
    let server = ScriptedControlPlane::start();
    let files = files();
    let metrics = Metrics::new(&MetricsPrefix::default(), 100);
    for address in [
        "",
        "host",
        "host:",
        "host:0",
        "host:99999",
        ":15012",
        "user@host:1",
        "a b:1",
    ] {
        let config = ControlConfig {
            control_plane: address.to_owned(),
            ..config(&server, &files)
        };
        assert!(
            spawn(config, &metrics, crate::clock::now).is_err(),
            "{address:?}"
        );
    }
}
