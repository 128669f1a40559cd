//! The control plane at a real API server: who is attested, what becomes of documents, which
//! replica leads, and what an outage of the API server leaves behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "kubernetes/cluster.rs"]
mod cluster;
#[path = "kubernetes/mesh.rs"]
mod mesh;

use std::fs;
use std::process::Command;

use mesh_lite_test_support::applications::http_get_here;
use mesh_lite_test_support::process::{Process, finish};
use mesh_lite_test_support::{eventually, needs_api_server};
use serde_json::{Value, json};

use crate::cluster::{Kube, name_of, reference};
use crate::mesh::{MESH_NAMESPACE, Mesh, PROGRAM, directory, free_addresses};

const TEST: &str = "kubernetes_control_plane::the_control_plane_in_a_cluster";

#[test]
fn the_control_plane_in_a_cluster() {
    let kube = Kube::connect(needs_api_server!(TEST));
    let Some(mut mesh) = Mesh::install(kube, TEST, &["--ha"]) else {
        return;
    };
    mesh.run_job("Job");
    let first = mesh.start_control_plane(&[]);
    let namespace = mesh.kube.namespace(&json!({}));
    documents_say_what_became_of_them(&mesh, &namespace);
    pods_are_attested_by_their_tokens(&mesh, &namespace, first);
    requests_for_certificates_are_judged(&mesh, &namespace);
    the_trust_bundle_is_a_cluster_trust_bundle_too(&mesh);
    another_replica_takes_over(&mut mesh, &namespace, first);
    mesh.assert_no_right_was_missing();
    an_outage_of_the_api_server_passes(&mut mesh, &namespace);
    mesh.kube.delete(&namespace);
}

fn policy(namespace: &Value, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "mesh-lite.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": name_of(namespace)}, "spec": spec})
}

/// The condition `Loaded` of a document, once it is of the generation that is there.
fn loaded(mesh: &Mesh, object: &Value) -> Value {
    eventually(&format!("{} has a status", name_of(object)), || {
        let object = mesh.kube.get(object).map_err(|error| error.to_string())?;
        let conditions = object["status"]["conditions"].as_array();
        let found = conditions.and_then(|conditions| {
            let mut conditions = conditions.iter();
            conditions.find(|condition| condition["type"] == "Loaded")
        });
        let current = |condition: &&Value| {
            let observed = &condition["observedGeneration"];
            let observed = if observed.is_null() {
                &object["status"]["observedGeneration"]
            } else {
                observed
            };
            *observed == object["metadata"]["generation"]
        };
        found
            .filter(current)
            .cloned()
            .ok_or_else(|| object.to_string())
    })
}

fn assert_loaded(mesh: &Mesh, object: &Value) {
    let condition = loaded(mesh, object);
    assert_eq!(condition["status"], "True", "{condition}");
}

fn assert_refused(mesh: &Mesh, object: &Value, words: &[&str]) {
    let condition = loaded(mesh, object);
    assert_eq!(condition["status"], "False", "{condition}");
    let message = condition["message"].as_str().unwrap();
    for word in words {
        assert!(message.contains(word), "{word}: {message}");
    }
}

fn documents_say_what_became_of_them(mesh: &Mesh, namespace: &Value) {
    let good = json!({"action": "ALLOW",
        "rules": [{"from": [{"source": {"serviceAccounts": ["web"]}}]}]});
    let good = policy(namespace, "good", good);
    mesh.kube.put(&good);
    assert_loaded(mesh, &good);
    // an unknown field reaches us, instead of being dropped and widening the rule
    let typo = json!({"action": "ALLOW",
        "rules": [{"from": [{"source": {"serviceAccounts": ["web"], "notIpBlock": ["10.0.0.1/32"]}}]}]});
    let typo = policy(namespace, "typo", typo);
    mesh.kube.put(&typo);
    assert_refused(mesh, &typo, &["notIpBlock"]);
    // what only the loader can judge: its own tests fail
    let failing = json!({"action": "ALLOW",
        "rules": [{"from": [{"source": {"serviceAccounts": ["web"]}}]}],
        "tests": [{"from": format!("cluster.local/ns/{}/sa/guest", name_of(namespace)),
            "port": 8080, "expect": "ALLOW"}]});
    let failing = policy(namespace, "failing", failing);
    mesh.kube.put(&failing);
    let condition = loaded(mesh, &failing);
    assert_eq!(condition["status"], "False", "{condition}");
    // repaired, it is loaded
    let mut repaired = typo.clone();
    repaired["spec"] = good["spec"].clone();
    let present = mesh.kube.get(&typo).unwrap();
    repaired["metadata"]["resourceVersion"] = present["metadata"]["resourceVersion"].clone();
    mesh.kube.replace(&repaired).unwrap();
    assert_loaded(mesh, &typo);
    let peers = json!({"apiVersion": "mesh-lite.io/v1", "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": name_of(namespace)},
        "spec": {"mtls": {"mode": "STRICT"}}});
    mesh.kube.put(&peers);
    assert_loaded(mesh, &peers);
    for object in [&good, &typo, &failing, &peers] {
        mesh.kube.delete(object);
    }
}

/// A pod with our sidecar in its spec, as the injector would have made it.
fn meshed_pod(mesh: &Mesh, namespace: &Value, name: &str) -> Value {
    let account = reference("v1", "ServiceAccount", name_of(namespace), "web");
    mesh.kube.put(&account);
    let wanted = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": name_of(namespace), "labels": {"app": "web"}},
        "spec": {"serviceAccountName": "web", "terminationGracePeriodSeconds": 1,
            "initContainers": [{"name": "mesh-lite-proxy", "image": "app.test/app:1",
                "restartPolicy": "Always"}],
            "containers": [{"name": "app", "image": "app.test/app:1"}]}});
    let made = mesh.kube.create(&wanted).unwrap();
    if mesh.kube.cluster.is_own() {
        let address = json!({"status": {"podIP": "10.244.0.9",
            "podIPs": [{"ip": "10.244.0.9"}]}});
        mesh.kube.merge(&made, "status", &address).unwrap();
    }
    made
}

/// A sidecar of this machine that shows a token to a replica of the control plane.
fn sidecar(
    mesh: &Mesh,
    name: &str,
    token: &str,
    replica: usize,
) -> (Process, std::net::SocketAddr) {
    let home = directory(&mesh.kube, name);
    let token_file = home.join("token");
    fs::write(&token_file, token).unwrap();
    let bundle = home.join("trust-bundle.pem");
    let map = reference("v1", "ConfigMap", MESH_NAMESPACE, "mesh-lite-trust-bundle");
    let map = mesh.kube.get(&map).unwrap();
    fs::write(&bundle, map["data"]["trust-bundle.pem"].as_str().unwrap()).unwrap();
    let data = home.join("data");
    let [tunnel, admin, metrics, health] = free_addresses();
    let mut command = Command::new(PROGRAM);
    command.args(["proxy", "--capture", "explicit", "--inbound-ports", "8080"]);
    command.args(["--drain-delay", "0", "--access-log", "off"]);
    let control_plane = mesh.role(replica).listen.to_string();
    command.args(["--control-plane", &control_plane]);
    command.arg("--trust-bundle").arg(&bundle);
    command.arg("--service-account-token-file").arg(&token_file);
    command.arg("--data-dir").arg(&data);
    for (flag, address) in [
        ("--tunnel-listen", tunnel),
        ("--admin-listen", admin),
        ("--metrics-listen", metrics),
        ("--health-listen", health),
    ] {
        command.args([flag, &address.to_string()]);
    }
    (Process::start(name, command, &home), admin)
}

fn pods_are_attested_by_their_tokens(mesh: &Mesh, namespace: &Value, replica: usize) {
    let pod = meshed_pod(mesh, namespace, "web-1");
    let account = (name_of(namespace), "web");
    let token = mesh.kube.token(account, &["mesh-lite"], Some(&pod));
    let (mut process, admin) = sidecar(mesh, "attested", &token, replica);
    let id = format!("spiffe://cluster.local/ns/{}/sa/web", name_of(namespace));
    eventually("the sidecar has its certificate", || {
        process.assert_runs();
        let mut ask = Command::new(PROGRAM);
        let output = finish(ask.args([
            "identity",
            "--admin",
            &admin.to_string(),
            "--output",
            "json",
        ]));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains(&id) {
            Ok(())
        } else {
            Err(text)
        }
    });
    // another audience, no pod, a deleted pod: none
    let other = mesh.kube.token(account, &["other"], Some(&pod));
    let unbound = mesh.kube.token(account, &["mesh-lite"], None);
    let gone = meshed_pod(mesh, namespace, "web-gone");
    let of_gone = mesh.kube.token(account, &["mesh-lite"], Some(&gone));
    mesh.kube.delete(&gone);
    eventually("the pod is gone", || {
        if mesh.kube.exists(&gone) {
            Err("it is there")
        } else {
            Ok(())
        }
    });
    for (name, token) in [
        ("other-audience", other),
        ("no-pod", unbound),
        ("pod-gone", of_gone),
    ] {
        let (mut process, admin) = sidecar(mesh, name, &token, replica);
        eventually(&format!("{name} is refused"), || {
            process.assert_runs();
            let output = process.output();
            if output.contains("token") && (output.contains("WARN") || output.contains("ERROR")) {
                Ok(())
            } else {
                Err(output)
            }
        });
        let page = http_get_here(admin, "/identity");
        assert!(!format!("{page:?}").contains(&id), "{name}: {page:?}");
    }
    mesh.kube.delete(&pod);
}

/// A CertificateSigningRequest of a pod's own service account, for the URI given.
fn request_certificate(mesh: &Mesh, token: &str, name: &str, uri: &str) -> Value {
    let key = directory(&mesh.kube, "requests").join(format!("{name}.key"));
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
    ]);
    openssl.args([
        "-subj",
        "/",
        "-addext",
        &format!("subjectAltName=URI:{uri}"),
        "-keyout",
    ]);
    let csr = mesh_lite_test_support::process::succeed(openssl.arg(&key));
    let wanted = json!({"apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"generateName": format!("mesh-lite-test-{name}-")},
        "spec": {"signerName": "mesh-lite.io/spiffe", "expirationSeconds": 3600,
            "usages": ["digital signature", "client auth", "server auth"],
            "request": mesh_lite_test_support::api_server::base64(csr.as_bytes())}});
    mesh.kube.create_as(token, &wanted).unwrap()
}

/// The signer `mesh-lite.io/spiffe`: a pod gets a certificate of its own identity, and of no other.
fn requests_for_certificates_are_judged(mesh: &Mesh, namespace: &Value) {
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "mesh-lite-test-requester"},
        "rules": [{"apiGroups": ["certificates.k8s.io"], "verbs": ["create"],
            "resources": ["certificatesigningrequests"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding", "metadata": {"name": "mesh-lite-test-requester"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "mesh-lite-test-requester"},
        "subjects": [{"kind": "ServiceAccount", "namespace": name_of(namespace), "name": "web"}]});
    mesh.kube.put(&role);
    mesh.kube.put(&binding);
    let pod = meshed_pod(mesh, namespace, "requester");
    let account = (name_of(namespace), "web");
    let of_pod = mesh.kube.token(account, &[], Some(&pod));
    let of_nobody = mesh.kube.token(account, &[], None);
    let own = format!("spiffe://cluster.local/ns/{}/sa/web", name_of(namespace));
    let other = format!("spiffe://cluster.local/ns/{}/sa/admin", name_of(namespace));
    let cases = [
        ("own", &of_pod, &own, "Approved"),
        ("other", &of_pod, &other, "Denied"),
        ("podless", &of_nobody, &own, "Denied"),
    ];
    for (name, token, uri, wanted) in cases {
        let request = request_certificate(mesh, token, name, uri);
        let judged = eventually(&format!("the request {name} is judged"), || {
            let now = mesh.kube.get(&request).map_err(|error| error.to_string())?;
            let condition = &now["status"]["conditions"][0]["type"];
            let issued = !now["status"]["certificate"].is_null();
            if *condition == wanted && issued == (wanted == "Approved") {
                Ok(now)
            } else {
                Err(now.to_string())
            }
        });
        mesh.kube.delete(&judged);
    }
    for object in [&binding, &role, &pod] {
        mesh.kube.delete(object);
    }
}

fn the_trust_bundle_is_a_cluster_trust_bundle_too(mesh: &Mesh) {
    let bundle = reference(
        "certificates.k8s.io/v1beta1",
        "ClusterTrustBundle",
        "",
        "mesh-lite.io:spiffe:cluster.local",
    );
    if matches!(mesh.kube.get(&bundle), Err(kube::Error::Discovery(_))) {
        return; // the API server has no such kind
    }
    let map = reference("v1", "ConfigMap", MESH_NAMESPACE, "mesh-lite-trust-bundle");
    let map = mesh.kube.get(&map).unwrap();
    eventually("the ClusterTrustBundle holds the trust bundle", || {
        let now = mesh.kube.get(&bundle).map_err(|error| error.to_string())?;
        if now["spec"]["trustBundle"] == map["data"]["trust-bundle.pem"] {
            Ok(())
        } else {
            Err(now.to_string())
        }
    });
}

fn holder(mesh: &Mesh) -> String {
    let lease = reference(
        "coordination.k8s.io/v1",
        "Lease",
        MESH_NAMESPACE,
        "mesh-lite-control-plane",
    );
    let lease = mesh.kube.get(&lease).unwrap();
    lease["spec"]["holderIdentity"].as_str().unwrap().to_owned()
}

/// Statuses are written by one replica; the other one goes on with it when that is gone.
fn another_replica_takes_over(mesh: &mut Mesh, namespace: &Value, first: usize) {
    mesh.start_control_plane(&[]);
    let before = holder(mesh);
    mesh.role_mut(first).process.kill();
    eventually("the other replica holds the Lease", || {
        let now = holder(mesh);
        if now == before { Err(now) } else { Ok(()) }
    });
    let spec = json!({"action": "ALLOW", "rules": [{}]});
    let written = policy(namespace, "after-failover", spec);
    mesh.kube.put(&written);
    assert_loaded(mesh, &written);
    mesh.kube.delete(&written);
}

fn an_outage_of_the_api_server_passes(mesh: &mut Mesh, namespace: &Value) {
    if !mesh.kube.cluster.is_own() {
        return;
    }
    mesh.kube.cluster.kill_api_server();
    mesh.kube.cluster.start_api_server_again();
    let spec = json!({"action": "ALLOW", "rules": [{}]});
    let written = policy(namespace, "after-outage", spec);
    eventually("the API server takes writes", || {
        mesh.kube.apply(&written).map_err(|error| error.to_string())
    });
    assert_loaded(mesh, &written);
    let pod = meshed_pod(mesh, namespace, "after-outage");
    let token = mesh
        .kube
        .token((name_of(namespace), "web"), &["mesh-lite"], Some(&pod));
    let replica = mesh.last_role();
    let (mut process, admin) = sidecar(mesh, "after-outage", &token, replica);
    eventually("a sidecar has its certificate after the outage", || {
        process.assert_runs();
        let mut ask = Command::new(PROGRAM);
        let output = finish(ask.args([
            "identity",
            "--admin",
            &admin.to_string(),
            "--output",
            "json",
        ]));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if text.contains("spiffe://") {
            Ok(())
        } else {
            Err(text)
        }
    });
}
