//! Envoys beside sidecars: secrets over the sidecar's Unix socket, keys that never left the
//! workload.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use mesh_lite_test_support::LoopbackMesh;
use mesh_lite_test_support::applications::Server;
use mesh_lite_test_support::certificates::Authority;
use mesh_lite_test_support::envoy::{Envoy, installed};
use mesh_lite_test_support::eventually;
use mesh_lite_test_support::eventually::eventually_within;
use mesh_lite_test_support::loopback_mesh::{WEB_ONLY, WORKLOADS};

use crate::scene::{
    API, GUEST, WEB, application, call, client, converse, is_let_in, replace, wait_changed,
};
use crate::traffic::Traffic;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");

/// Far more than the 35 s for which a new root settles, and the life of a leaf after it.
const SETTLES: Duration = Duration::from_secs(120);

struct Scene {
    mesh: LoopbackMesh,
    application: Server,
    program: PathBuf,
}

impl Scene {
    /// A control plane with these arguments; `None`, and the test on record as not run, where
    /// there is no Envoy.
    fn start(test: &str, arguments: &[&str]) -> Option<Self> {
        let program = installed(test)?;
        let application = application();
        let port = application.address().port();
        let mut mesh = LoopbackMesh::prepare(PROGRAM, port, WEB_ONLY, arguments);
        mesh.start_control_plane();
        Some(Self {
            mesh,
            application,
            program,
        })
    }

    /// The root in a folder of the control plane's data directory.
    fn root(&self, folder: &str) -> Authority {
        let path = self.mesh.state().join(folder).join("root.pem");
        Authority::read(&std::fs::read_to_string(path).unwrap())
    }

    fn socket(&self, workload: &str) -> String {
        let path = self.mesh.directory().join(format!("{workload}.sock"));
        path.to_str().unwrap().to_owned()
    }

    fn start_sidecar(&mut self, workload: &'static str) {
        let (token, socket) = (self.mesh.token(workload), self.socket(workload));
        let arguments = ["--workload-socket", &socket];
        self.mesh.start_sidecar_told(workload, &token, &arguments);
    }

    fn start_sidecars(&mut self) {
        for workload in WORKLOADS {
            self.start_sidecar(workload);
        }
        for workload in WORKLOADS {
            self.mesh.sidecar(workload).wait_ready();
        }
    }

    /// In front of the application, with api's identity; lets web in.
    fn inbound(&self, values: &[(&str, &str)]) -> Envoy {
        self.inbound_from("inbound", values)
    }

    fn inbound_from(&self, template: &str, values: &[(&str, &str)]) -> Envoy {
        let (socket, port) = (self.socket("api"), self.application.address().port());
        let port = port.to_string();
        let own = [
            ("SECRETS", socket.as_str()),
            ("APPLICATION", &port),
            ("ALLOWED", WEB),
        ];
        let values: Vec<_> = values.iter().copied().chain(own).collect();
        self.envoy(template, "inbound", &values)
    }

    /// With a workload's identity, to an inbound Envoy at which `peer` is expected. Ready.
    fn outbound(&self, workload: &str, to: SocketAddr, peer: &str) -> Envoy {
        let (socket, port) = (self.socket(workload), to.port().to_string());
        let values = [
            ("SECRETS", socket.as_str()),
            ("PEER_PORT", &port),
            ("PEER", peer),
        ];
        let name = format!("outbound-{workload}-{}", peer.rsplit('/').next().unwrap());
        let mut envoy = self.envoy("outbound", &name, &values);
        envoy.wait_ready();
        envoy
    }

    fn envoy(&self, template: &str, name: &str, values: &[(&str, &str)]) -> Envoy {
        Envoy::start(&self.program, template, name, values, self.mesh.directory())
    }
}

/// E2E-E1, SDS-S28
#[test]
fn two_envoys_between_two_applications_know_each_other() {
    const TEST: &str = concat!(
        module_path!(),
        "::two_envoys_between_two_applications_know_each_other"
    );
    let Some(mut scene) = Scene::start(TEST, &[]) else {
        return;
    };
    scene.start_sidecars();
    let mut inbound = scene.inbound(&[]);
    inbound.wait_ready();
    let to = inbound.listener();
    let right = scene.outbound("web", to, API);
    converse(right.listener()).unwrap();
    let of_guest = scene.outbound("guest", to, API);
    assert!(converse(of_guest.listener()).is_err(), "guest was let in");
    let expects_guest = scene.outbound("web", to, GUEST);
    let called = converse(expects_guest.listener());
    assert!(called.is_err(), "api was taken for guest");
    for envoy in [&inbound, &right, &of_guest, &expects_guest] {
        assert_eq!(envoy.rejected(), 0, "{}", envoy.output());
    }
    let refused = inbound.sum("ssl.fail_verify_san");
    assert!(refused > 0, "guest was refused for another reason");
}

/// E2E-E2, SDS-S2, SDS-S4, SDS-S5, SDS-S6: whatever an Envoy's way to ask is.
#[test]
fn a_sidecar_serves_every_form_and_every_name() {
    const TEST: &str = concat!(
        module_path!(),
        "::a_sidecar_serves_every_form_and_every_name"
    );
    let Some(mut scene) = Scene::start(TEST, &[]) else {
        return;
    };
    scene.start_sidecars();
    let [web, guest] = [WEB, GUEST].map(|id| client(&scene.root("root"), id));
    let forms: [(&str, &[(&str, &str)]); 4] = [
        ("inbound", &[("VALIDATOR", "trusted_ca")]),
        ("inbound", &[("SVID", API), ("BUNDLE", "ALL")]),
        ("inbound-ads", &[]),
        (
            "inbound-ads",
            &[
                ("API_TYPE", "DELTA_GRPC"),
                ("BUNDLE", "spiffe://cluster.local"),
            ],
        ),
    ];
    for (template, values) in forms {
        let mut inbound = scene.inbound_from(template, values);
        inbound.wait_ready();
        let to = inbound.listener();
        assert!(is_let_in(to, &web), "{template} {values:?}");
        assert!(!is_let_in(to, &guest), "{template} {values:?}");
        assert_eq!(inbound.rejected(), 0, "{}", inbound.output());
    }
}

/// E2E-E3, SDS-S30: short leaves, so that sidecars renew all the time.
#[test]
fn what_sidecars_renew_reaches_envoys_under_traffic() {
    const TEST: &str = concat!(
        module_path!(),
        "::what_sidecars_renew_reaches_envoys_under_traffic"
    );
    let Some(mut scene) = Scene::start(TEST, &["--leaf-lifetime", "20s"]) else {
        return;
    };
    scene.start_sidecars();
    let mut inbound = scene.inbound(&[("API_TYPE", "DELTA_GRPC")]);
    inbound.wait_ready();
    let to = inbound.listener();
    let outbound = scene.outbound("web", to, API);
    let from = outbound.listener();
    let web = client(&scene.root("root"), WEB);
    let traffic = Traffic::start(move || converse(from));
    let mut shown = call(to, &web).unwrap();
    for _ in 0..2 {
        shown = wait_changed(to, &web, &shown);
        traffic.wait_served(5);
    }
    traffic.assert_no_failure();
    for envoy in [&inbound, &outbound] {
        assert_eq!(envoy.rejected(), 0, "{}", envoy.output());
    }
}

/// E2E-E4, SDS-S17, with all of the mesh: the next root is announced, settles for 35 s, its issuing
/// CA signs, and the old root goes once nothing in use comes from it.
#[test]
fn a_root_change_of_the_whole_mesh_costs_no_connection() {
    const TEST: &str = concat!(
        module_path!(),
        "::a_root_change_of_the_whole_mesh_costs_no_connection"
    );
    let Some(mut scene) = Scene::start(TEST, &["--leaf-lifetime", "20s"]) else {
        return;
    };
    scene.start_sidecars();
    let mut inbound = scene.inbound(&[]);
    inbound.wait_ready();
    let to = inbound.listener();
    let outbound = scene.outbound("web", to, API);
    let from = outbound.listener();
    let old = scene.root("root");
    let old_web = client(&old, WEB);
    let issuer = call(to, &old_web).unwrap()[1].clone();
    let traffic = Traffic::start(move || converse(from));
    scene.mesh.init_root("next-root");
    let web = client(&scene.root("next-root"), WEB);
    eventually_within(SETTLES, "the next issuing CA signs", || {
        match call(to, &web).map(|shown| shown[1] == issuer) {
            Ok(false) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    // whatever web gets from now on comes from the next root
    let serials = outbound.serials();
    eventually_within(SETTLES, "web has renewed", || {
        if outbound.serials() == serials {
            Err("not yet")
        } else {
            Ok(())
        }
    });
    let bundle = scene.mesh.state().join("trust-bundle.pem");
    let both = std::fs::read_to_string(&bundle).unwrap();
    replace(&bundle, &both.replace(&old.pem, ""));
    eventually("the old root is gone", || {
        if is_let_in(to, &old_web) {
            Err("believed")
        } else {
            Ok(())
        }
    });
    traffic.wait_served(20);
    traffic.assert_no_failure();
    for envoy in [&inbound, &outbound] {
        assert_eq!(envoy.rejected(), 0, "{}", envoy.output());
    }
}

/// E2E-E7
#[test]
fn an_envoy_that_was_there_first_is_served_when_the_sidecar_comes() {
    const TEST: &str = concat!(
        module_path!(),
        "::an_envoy_that_was_there_first_is_served_when_the_sidecar_comes"
    );
    let Some(mut scene) = Scene::start(TEST, &[]) else {
        return;
    };
    let mut inbound = scene.inbound(&[]);
    eventually("Envoy has tried", || {
        match inbound.sum("sds.*update_failure") {
            0 => Err("not yet"),
            _ => Ok(()),
        }
    });
    assert!(!inbound.is_ready());
    scene.start_sidecar("api");
    scene.start_sidecar("web");
    inbound.wait_ready();
    let outbound = scene.outbound("web", inbound.listener(), API);
    converse(outbound.listener()).unwrap();
}

/// E2E-E6 at the sidecar: killed, and back with another key.
#[test]
fn a_sidecar_that_is_killed_and_comes_back_serves_its_new_certificate() {
    const TEST: &str = concat!(
        module_path!(),
        "::a_sidecar_that_is_killed_and_comes_back_serves_its_new_certificate"
    );
    let Some(mut scene) = Scene::start(TEST, &[]) else {
        return;
    };
    scene.start_sidecar("api");
    let mut inbound = scene.inbound(&[]);
    inbound.wait_ready();
    let to = inbound.listener();
    let web = client(&scene.root("root"), WEB);
    let before = call(to, &web).unwrap();
    scene.mesh.sidecar_mut("api").kill();
    assert_eq!(call(to, &web).unwrap(), before);
    scene.start_sidecar("api");
    wait_changed(to, &web, &before);
    assert_eq!(inbound.rejected(), 0, "{}", inbound.output());
}
