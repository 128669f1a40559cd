use std::{net::IpAddr, time::Duration};

use mesh_lite_proto::{
    wire::mesh_lite::v1::{self as wire, policy_request::Request as PolicyRequest},
    workload_directory::{Answer, Endpoint, Meshed, Name},
};
use tempfile::TempDir;

use super::*;
use crate::{
    metrics::MetricsPrefix,
    tls::fixture::{API, WEB},
};

mod app_files;
mod clock_skew;
mod identity;
mod outage;
mod policy;
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
    metrics: Metrics,
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
        token_file: Some(TokenFile::Join(token)),
        data_dir: files.path().to_owned(),
        pod_uid: "pod-1".to_owned(),
        files_dir: None,
    }
}

fn start_with(config: ControlConfig, files: &Arc<TempDir>) -> Sidecar {
    start_with_clock(config, files, crate::clock::now)
}

fn start_with_clock(config: ControlConfig, files: &Arc<TempDir>, clock: Clock) -> Sidecar {
    let metrics = Metrics::new(&MetricsPrefix::default(), 100);
    let handles = spawn(config, &metrics, clock).unwrap();
    Sidecar {
        handles,
        metrics,
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

    /// A metric's value, without its prefix; labels as they are printed.
    fn metric(&self, name: &str) -> Option<f64> {
        let page = self.metrics.encode(crate::clock::now());
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(&format!("mesh_lite_{name} ")));
        line.map(|value| value.parse().unwrap())
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
        ports: Vec::new(),
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
