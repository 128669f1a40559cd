//! Pods made from what `mesh-lite inject` prints, on a node without Kubernetes: captured pods get
//! their sidecar, and a small kubelet runs them as their specs say then. Containers, order, ports,
//! environment, volumes and users are those of the patch.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use mesh_lite_test_support::applications::{http_get, refused};
use mesh_lite_test_support::kubelet::{Kubelet, RunningPod, project, secret_files};
use mesh_lite_test_support::mesh::place_program;
use mesh_lite_test_support::network::{NODE_V4, Network};
use mesh_lite_test_support::process::{Process, finish, succeed};
use mesh_lite_test_support::wire_tap::WireTap;
use mesh_lite_test_support::{APPLICATION_UID, ApiServer, ROOT_UID, eventually, needs_namespaces};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");
const IMAGE: &str = "mesh-lite.test/mesh-lite:test";
const PROXY: &str = "mesh-lite-proxy";
/// The control plane's user and the group of its volume.
const CONTROL_PLANE_UID: u32 = 1500;
/// Of the service in front of the pods `cart`, which no interface has.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 11);
/// What every application here answers.
const ANSWER: &str = "from the application, in words that a wire must not show";
/// Serves every path on the ports that come first, until SIGTERM.
const SERVER: &str = "\
import http.server, os, signal, socket, sys, threading
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'ANSWER'
        self.send_response(200)
        self.send_header('content-length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
for port in sys.argv[1].split(','):
    threading.Thread(target=Server(('::', int(port)), Handler).serve_forever).start()
";

/// A node and a scripted API server on it.
struct Node {
    api: ApiServer,
    program: PathBuf,
    authority: PathBuf,
    network: Network,
}

impl Node {
    /// With a control plane that is ready.
    fn start() -> (Self, Process) {
        let network = Network::new();
        let listener = network
            .node
            .run(ROOT_UID, || TcpListener::bind((NODE_V4, 0)).unwrap());
        let api = ApiServer::on(listener);
        for object in cluster_objects() {
            api.put(object);
        }
        let program = place_program(PROGRAM.as_ref());
        let authority = network.directory("authority", ROOT_UID);
        let node = Self {
            api,
            program,
            authority,
            network,
        };
        let mut init = node.command(&["root", "init", "--kubernetes"]);
        succeed(&mut init);
        let secret = secret_files(&node.api, "mesh-lite-system", "mesh-lite-issuing-ca");
        let secret = secret
            .into_iter()
            .map(|(key, content)| (format!("issuing/{key}"), content));
        let bundle = node
            .api
            .get("ConfigMap", "mesh-lite-system", "mesh-lite-trust-bundle");
        let bundle = bundle.unwrap()["data"]["trust-bundle.pem"]
            .as_str()
            .unwrap()
            .to_owned();
        let mut files: Vec<(String, Vec<u8>)> = secret.collect();
        files.push(("trust-bundle.pem".to_owned(), bundle.into_bytes()));
        project(&node.authority, &files, Some(CONTROL_PLANE_UID));
        let control_plane = node.start_control_plane();
        (node, control_plane)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = self.program.to_str().unwrap();
        let mut command = self.network.node.command(CONTROL_PLANE_UID, program);
        command
            .args(arguments)
            .env("KUBECONFIG", self.api.kubeconfig());
        command
    }

    fn start_control_plane(&self) -> Process {
        let mut command = self.command(&["control-plane", "--kubernetes", "--data-dir"]);
        command.arg(&self.authority);
        command.args(["--listen", &format!("{NODE_V4}:15012")]);
        command.args(["--admin-listen", &format!("{NODE_V4}:15014")]);
        let mut process = Process::start("control-plane", command, self.network.home());
        eventually("the control plane is ready", || {
            process.assert_runs();
            match http_get(&self.network.node, (NODE_V4, 15014), "/readyz") {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        process
    }

    fn kubelet(&self) -> Kubelet<'_> {
        let mut kubelet = Kubelet::new(&self.network, &self.api, IMAGE, &self.program);
        kubelet.host("mesh-lite-control-plane.mesh-lite-system.svc", NODE_V4);
        kubelet.host("config.shop.svc", SERVICE);
        let server = SERVER.replace("ANSWER", ANSWER);
        let python = |ports: &'static str| ["python3", "-c", &server, ports].map(str::to_owned);
        for (image, ports) in [
            ("registry.example.com/cart:1.4.2", "8080,9102"),
            ("registry.example.com/shipper:2", "9000"),
        ] {
            let words = python(ports);
            kubelet.image(image, &words.each_ref().map(String::as_str));
        }
        kubelet.image(
            "registry.example.com/fetch:1",
            &["curl", "-fsS", "-m", "20"],
        );
        let report = "curl -fsS -m 20 http://config.shop.svc/report";
        kubelet.image("registry.example.com/report:3", &["sh", "-c", report]);
        kubelet
    }

    /// What `mesh-lite inject` makes of the pod of a captured review.
    fn injected(&self, captured: &str) -> Value {
        let file = format!(
            "{}/injector/tests/golden/{captured}.request.json",
            env!("CARGO_MANIFEST_DIR")
        );
        let review: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let mut pod = review["request"]["object"].clone();
        pod["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("managedFields");
        let manifest = self.network.home().join(format!("{captured}.json"));
        fs::write(&manifest, pod.to_string()).unwrap();
        let mut inject = Command::new(&self.program);
        inject
            .args(["inject", "--image", IMAGE, "-f"])
            .arg(&manifest);
        let text = succeed(&mut inject);
        let mut documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(documents.len(), 1, "{text}");
        documents.remove(0)
    }

    /// Puts the pod behind the service.
    fn endpoint(&self, pod: &RunningPod<'_>) {
        let address = pod.at.v4.to_string();
        self.api.put(
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "config-1", "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "config"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"},
                {"name": "metrics", "port": 9102, "protocol": "TCP"}],
            "endpoints": [{"addresses": [address],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": pod.name(),
                    "uid": pod.uid()}}]}),
        );
    }
}

fn cluster_objects() -> Vec<Value> {
    let namespace = |name: &str, labels: Value| {
        json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": labels}})
    };
    vec![
        namespace("mesh-lite-system", json!({})),
        namespace("shop", json!({"mesh-lite.io/inject": "enabled"})),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"},
            "spec": {"podCIDR": "10.77.0.0/24", "podCIDRs": ["10.77.0.0/24", "fd77::/64"]},
            "status": {"addresses": [{"type": "InternalIP", "address": NODE_V4.to_string()}]}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.96.0.0/16"]}}),
        json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "config", "namespace": "shop"},
        "spec": {"type": "ClusterIP", "clusterIP": SERVICE.to_string(),
            "clusterIPs": [SERVICE.to_string()], "selector": {"app": "cart"},
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
                {"name": "metrics", "port": 9102, "targetPort": "metrics", "protocol": "TCP"}
            ]}}),
        json!({"apiVersion": "mesh-lite.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"selector": {"matchLabels": {"app": "cart"}}, "action": "ALLOW",
                "rules": [{"from": [{"source": {"serviceAccounts": ["default"]}}],
                    "to": [{"operation": {"ports": ["8080"]}}]}]}}),
    ]
}

/// GET as a process of the pod's application would.
fn get(pod: &RunningPod<'_>, url: &str) -> Result<String, String> {
    let output = finish(pod.command("curl").args(["-sS", "-m", "20", url]));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() && text == ANSWER {
        Ok(text)
    } else {
        Err(format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// Until a sidecar has saved what it was told of an identity: what it was never told can't be there
/// after a restart.
fn wait_saved(pod: &RunningPod<'_>, id: &str) {
    let directory = pod.volume("mesh-lite-state").join("sidecar");
    eventually("the sidecar saved what it knows", || {
        let files = fs::read_dir(&directory).unwrap();
        let texts = files.filter_map(|file| fs::read(file.unwrap().path()).ok());
        let texts: Vec<String> = texts
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .collect();
        let found = texts.iter().any(|text| text.contains(id));
        if found { Ok(()) } else { Err(texts.len()) }
    });
}

/// A Deployment's pod answers one whose init container needs the network, and nobody else.
#[test]
fn injected_pods_call_each_other_under_policy() {
    needs_namespaces!("injected_pods::injected_pods_call_each_other_under_policy");
    let (node, _control_plane) = Node::start();
    let Node { network, .. } = &node;
    let wire = WireTap::start(network);
    let kubelet = node.kubelet();
    let mut cart = kubelet.run(node.injected("pod-from-deployment"), &network.b);
    cart.wait_ready();
    cart.wait_listening(8080);
    node.endpoint(&cart);
    // its init container `fetch-config` must get an answer before the application starts, and
    // `log-shipper`'s startup probe goes through the sidecar
    let mut caller = kubelet.run(node.injected("pod-native-sidecars"), &network.a);
    caller.wait_ready();
    assert!(caller.output("fetch-config").contains(ANSWER));
    cart.wait_for_access(
        PROXY,
        &[
            ("event", "open"),
            ("direction", "inbound"),
            ("decision", "allow"),
            ("src.identity", "spiffe://cluster.local/ns/shop/sa/default"),
            ("policy", "shop/cart"),
        ],
    );
    for url in [
        "http://10.96.0.11/",
        "http://10.77.0.11:8080/",
        "http://[fd77::11]:8080/",
    ] {
        get(&caller, url).unwrap();
    }
    // denied: another port; the other way round; without a sidecar
    get(&caller, "http://10.96.0.11:9102/").unwrap_err();
    cart.wait_for_access(PROXY, &[("direction", "inbound"), ("decision", "deny")]);
    get(&cart, "http://10.77.0.10:8080/").unwrap_err();
    for address in network.b.sockets(8080) {
        refused(&network.c.namespace, APPLICATION_UID, address);
    }
    let seen = wire.stop();
    assert!(!seen.shows(ANSWER), "an answer crossed the wire readably");
    assert!(seen.tls13_handshakes(15008) > 0);
    // STRICT: the node reaches no port of the application, and yet its probe is answered
    let shipper = SocketAddr::from((network.a.v4, 9000));
    refused(&network.node, ROOT_UID, shipper);
    assert_eq!(caller.probe("log-shipper", "startupProbe").good(), Ok(()));
    caller.process("log-shipper").kill();
    caller
        .probe("log-shipper", "startupProbe")
        .good()
        .unwrap_err();
    caller.restart("log-shipper");
    let ends = caller.delete();
    assert!(ends.iter().all(|(_, status)| status.success()), "{ends:?}");
    let names: Vec<&str> = ends.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["app", "log-shipper", PROXY]);
    let ends = cart.delete();
    assert!(ends.iter().all(|(_, status)| status.success()), "{ends:?}");
}

/// Without a control plane what runs goes on, also through a restart of the sidecar alone; what
/// is new waits for it.
#[test]
fn injected_pods_outlive_their_control_plane() {
    needs_namespaces!("injected_pods::injected_pods_outlive_their_control_plane");
    let (node, mut control_plane) = Node::start();
    let kubelet = node.kubelet();
    let mut cart = kubelet.run(node.injected("pod-from-deployment"), &node.network.b);
    cart.wait_ready();
    cart.wait_listening(8080);
    node.endpoint(&cart);
    let mut caller = kubelet.run(node.injected("pod-native-sidecars"), &node.network.a);
    caller.wait_ready();
    let url = "http://10.96.0.11/";
    get(&caller, url).unwrap();
    wait_saved(&caller, "spiffe://cluster.local/ns/shop/sa/cart");
    control_plane.kill();
    get(&caller, url).unwrap();
    // a crash of the sidecar alone, on either side
    caller.restart(PROXY);
    eventually("calls after the caller's sidecar came back", || {
        get(&caller, url)
    });
    cart.restart(PROXY);
    eventually("calls after the other sidecar came back", || {
        get(&caller, url)
    });
    // it is back: who comes new gets a certificate, and is answered
    let _control_plane = node.start_control_plane();
    let mut job = kubelet.run(node.injected("pod-from-job-never"), &node.network.c);
    let ends = job.complete();
    assert!(ends.iter().all(|(_, status)| status.success()), "{ends:?}");
    get(&caller, url).unwrap();
}

/// A Job's pod ends by itself, its sidecar after it, both with 0.
#[test]
fn an_injected_job_completes() {
    needs_namespaces!("injected_pods::an_injected_job_completes");
    let (node, _control_plane) = Node::start();
    let kubelet = node.kubelet();
    let mut cart = kubelet.run(node.injected("pod-from-deployment"), &node.network.b);
    cart.wait_ready();
    cart.wait_listening(8080);
    node.endpoint(&cart);
    let mut job = kubelet.run(node.injected("pod-from-job-never"), &node.network.a);
    let ends = job.complete();
    let codes: Vec<(&str, Option<i32>)> = ends
        .iter()
        .map(|(name, status)| (name.as_str(), status.code()))
        .collect();
    assert_eq!(
        codes,
        [("report", Some(0)), (PROXY, Some(0))],
        "{}",
        job.output("report")
    );
    assert!(job.output("report").contains(ANSWER));
    let stored = node.api.get("Pod", "shop", job.name()).unwrap();
    assert_eq!(stored["status"]["phase"], "Succeeded");
}
