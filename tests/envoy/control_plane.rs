//! Plain Envoys straight at a control plane that may make keys for them: SDS over TLS, a token in
//! a file.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_lite_test_support::LoopbackMesh;
use mesh_lite_test_support::applications::Server;
use mesh_lite_test_support::certificates::Authority;
use mesh_lite_test_support::envoy::{Envoy, filled, installed};
use mesh_lite_test_support::eventually;
use mesh_lite_test_support::eventually::eventually_within;
use mesh_lite_test_support::loopback_mesh::WEB_ONLY;
use rustls::ClientConfig;

use crate::scene::{
    API, Chain, GUEST, RECONNECTS, WEB, application, call, client, is_let_in, replace, wait_changed,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");
const CONTROL_PLANE: &str = "spiffe://cluster.local/ns/mesh-lite-system/sa/mesh-lite-control-plane";

/// A control plane that makes keys for clients, an application, and callers whose certificates
/// the mesh's own root has signed.
pub(crate) struct Scene {
    pub(crate) mesh: LoopbackMesh,
    application: Server,
    program: PathBuf,
    pub(crate) web: Arc<ClientConfig>,
    guest: Arc<ClientConfig>,
}

impl Scene {
    /// `None`, and the test on record as not run, where there is no Envoy.
    pub(crate) fn start(test: &str) -> Option<Self> {
        Self::start_with(test, &["--allow-remote-keys"])
    }

    pub(crate) fn start_with(test: &str, arguments: &[&str]) -> Option<Self> {
        let program = installed(test)?;
        let application = application();
        let port = application.address().port();
        let mut mesh = LoopbackMesh::prepare(PROGRAM, port, WEB_ONLY, arguments);
        let root = fs::read_to_string(mesh.state().join("root/root.pem")).unwrap();
        let root = Authority::read(&root);
        mesh.start_control_plane();
        Some(Self {
            web: client(&root, WEB),
            guest: client(&root, GUEST),
            mesh,
            application,
            program,
        })
    }

    /// A folder with a token of api, good for as long as `lifetime` says, where Envoy looks for it.
    pub(crate) fn token_folder(&self, name: &str, lifetime: &str) -> PathBuf {
        let folder = self.mesh.directory().join(name);
        fs::create_dir(&folder).unwrap();
        self.put_token(&folder, lifetime);
        let file = folder.join("token");
        let text = filled("token", &[("TOKEN_FILE", file.to_str().unwrap())]);
        fs::write(folder.join("token.yaml"), text).unwrap();
        folder
    }

    /// Moves a new token into place, whole.
    fn put_token(&self, folder: &Path, lifetime: &str) {
        let token = self
            .mesh
            .token_with("api", &["--reusable", "--ttl", lifetime]);
        let unfinished = self.mesh.directory().join("unfinished-token");
        fs::write(&unfinished, token.trim()).unwrap();
        fs::rename(unfinished, folder.join("token")).unwrap();
    }

    pub(crate) fn envoy(&self, name: &str, tokens: &Path, values: &[(&str, &str)]) -> Envoy {
        let port = self.application.address().port().to_string();
        let ip = self.mesh.control_plane_address().ip().to_string();
        let token_secret = tokens.join("token.yaml");
        let trust_bundle = self.mesh.state().join("trust-bundle.pem");
        let own = [
            ("TOKEN_SECRET", token_secret.to_str().unwrap()),
            ("TOKEN_DIRECTORY", tokens.to_str().unwrap()),
            ("TRUST_BUNDLE", trust_bundle.to_str().unwrap()),
            ("CONTROL_PLANE", CONTROL_PLANE),
            ("CONTROL_PLANE_IP", &ip),
            ("APPLICATION", &port),
            ("ALLOWED", WEB),
        ];
        let values: Vec<_> = values.iter().copied().chain(own).collect();
        let template = "inbound-control-plane";
        Envoy::start(
            &self.program,
            template,
            name,
            &values,
            self.mesh.directory(),
        )
    }

    /// An inbound Envoy that is served, with what it shows.
    pub(crate) fn served(&self, values: &[(&str, &str)]) -> (Envoy, SocketAddr, Chain) {
        let tokens = self.token_folder("tokens", "1h");
        let mut envoy = self.envoy("inbound", &tokens, values);
        envoy.wait_ready();
        let address = envoy.listener();
        let shown = call(address, &self.web).unwrap();
        (envoy, address, shown)
    }
}

fn lets_the_right_one_in(test: &str, values: &[(&str, &str)]) {
    let Some(scene) = Scene::start(test) else {
        return;
    };
    let (envoy, address, before) = scene.served(values);
    assert!(!is_let_in(address, &scene.guest));
    scene.mesh.renew_root();
    // the next issuing CA, without anybody asking
    let after = wait_changed(address, &scene.web, &before);
    assert_ne!(before.get(1), after.get(1), "the issuing CA is the old one");
    assert_eq!(envoy.rejected(), 0, "{}", envoy.output());
}

/// E2E-E1, E2E-E2, SDS-S24, SDS-S28
#[test]
fn an_envoy_with_a_token_is_served() {
    lets_the_right_one_in(
        concat!(module_path!(), "::an_envoy_with_a_token_is_served"),
        &[],
    );
}

/// E2E-E2
#[test]
fn an_envoy_with_a_token_is_served_by_delta_and_a_list_of_roots() {
    lets_the_right_one_in(
        concat!(
            module_path!(),
            "::an_envoy_with_a_token_is_served_by_delta_and_a_list_of_roots"
        ),
        &[("API_TYPE", "DELTA_GRPC"), ("VALIDATOR", "trusted_ca")],
    );
}

/// E2E-E5: an issuing CA whose key is another's. Nothing that it would sign reaches anybody.
#[test]
fn nothing_is_sent_while_the_store_is_broken() {
    const TEST: &str = concat!(
        module_path!(),
        "::nothing_is_sent_while_the_store_is_broken"
    );
    let Some(scene) = Scene::start(TEST) else {
        return;
    };
    let (envoy, address, before) = scene.served(&[]);
    let path = scene.mesh.state().join("issuing/issuing-ca.pem");
    let good = fs::read_to_string(&path).unwrap();
    let key_of_another = Authority::root("cluster.local").leaf(API, |_| ()).key_pem();
    let (certificate, _) = good.split_once("-----BEGIN PRIVATE KEY").unwrap();
    replace(&path, &format!("{certificate}{key_of_another}"));
    eventually("the control plane says what is wrong", || {
        match scene.mesh.control_plane_readiness() {
            Ok((_, text)) if text.contains("issuing-ca.pem") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    assert_eq!(call(address, &scene.web).unwrap(), before);
    assert_eq!(envoy.rejected(), 0, "{}", envoy.output());
    replace(&path, &good);
    scene.mesh.renew_root();
    wait_changed(address, &scene.web, &before);
    assert_eq!(envoy.rejected(), 0, "{}", envoy.output());
}

/// E2E-E6, SDS-S10, SDS-S11: what is in use stays in use, and what has changed meanwhile is served.
#[test]
fn a_control_plane_that_is_killed_and_comes_back_with_other_content_serves_it() {
    const TEST: &str = concat!(
        module_path!(),
        "::a_control_plane_that_is_killed_and_comes_back_with_other_content_serves_it"
    );
    let Some(mut scene) = Scene::start(TEST) else {
        return;
    };
    let (envoy, address, before) = scene.served(&[]);
    scene.mesh.kill_control_plane();
    eventually("the stream is gone", || match connected(&envoy) {
        0 => Ok(()),
        streams => Err(streams),
    });
    assert_eq!(call(address, &scene.web).unwrap(), before);
    scene.mesh.renew_root();
    scene.mesh.start_control_plane();
    let after = wait_changed(address, &scene.web, &before);
    assert_ne!(before.get(1), after.get(1), "the issuing CA is the old one");
    assert_eq!(envoy.rejected(), 0, "{}", envoy.output());
}

/// E2E-E12, SDS-S27: the stream ends with its token; the next one carries what the file holds now.
/// Where the file still holds the old token, no stream opens, and the old secret stays in use.
#[test]
fn a_new_token_in_the_file_is_what_the_next_stream_carries() {
    const TEST: &str = concat!(
        module_path!(),
        "::a_new_token_in_the_file_is_what_the_next_stream_carries"
    );
    const SHORT: &str = "15s";
    let Some(scene) = Scene::start(TEST) else {
        return;
    };
    let folder = scene.token_folder("replaced-token", SHORT);
    let mut replaced = scene.envoy("replaced", &folder, &[]);
    let mut kept = scene.envoy("kept", &scene.token_folder("kept-token", SHORT), &[]);
    replaced.wait_ready();
    kept.wait_ready();
    let before = [&replaced, &kept].map(|envoy| call(envoy.listener(), &scene.web).unwrap());
    let taken = updates(&kept);
    scene.put_token(&folder, "1h");
    eventually_within(
        RECONNECTS,
        "the old token's streams have ended",
        || match connected(&kept) {
            0 => Ok(()),
            streams => Err(streams),
        },
    );
    wait_changed(replaced.listener(), &scene.web, &before[0]);
    assert_eq!(call(kept.listener(), &scene.web).unwrap(), before[1]);
    assert_eq!(updates(&kept), taken, "an expired token opened a stream");
}

/// How many responses it has taken.
fn updates(envoy: &Envoy) -> u64 {
    envoy.sum("sds.*update_success")
}

/// How many of its streams are open, as far as it knows.
pub(crate) fn connected(envoy: &Envoy) -> u64 {
    envoy.sum("sds.*control_plane.connected_state")
}
