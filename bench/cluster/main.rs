//! What a control plane and a sidecar cost in a cluster whose pods and endpoints change all the
//! time: one real control plane and one real sidecar on this machine, whose application dials
//! every service again and again, and a scripted API server in this process.
//!
//!     cargo bench --bench cluster
//!     cargo bench --bench cluster -- --pods 200 --seconds 10 --json figures.json

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::Parser;
use mesh_lite_test_support::{api_server::ApiServer, eventually};
use serde_json::{Value, json};
use tokio::time::Instant;

#[path = "../streams/figures.rs"]
#[allow(dead_code, reason = "other benches use the rest")]
mod figures;
#[path = "../streams/process.rs"]
#[allow(dead_code, reason = "other benches use the rest")]
mod process;

mod sidecar;

use figures::Figures;
use process::{cpu_seconds, settled_kib};
use sidecar::Sidecar;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");
const SECTION: &str = "cluster";

#[derive(Debug, Parser)]
#[command(about, long_about = None)]
struct Settings {
    #[arg(long, default_value_t = 1000)]
    pods: usize,
    /// Each has its share of the pods.
    #[arg(long, default_value_t = 100)]
    services: usize,
    /// Changes of pods and of EndpointSlices in a second.
    #[arg(long, default_value_t = 50)]
    changes: u32,
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The program to measure, if not the one that was built together with this.
    #[arg(long, default_value = PROGRAM)]
    program: PathBuf,
    /// Writes the figures to this file as well, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// What `cargo bench` says to every bench.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let mut figures = Figures::default();
    let directory = tempfile::tempdir()?;
    let server = ApiServer::start();
    let mut cluster = Pods::new(&server, settings.pods, settings.services);
    let control_plane = ControlPlane::start(&settings.program, &server, directory.path())?;
    control_plane.has(settings.pods);
    let pid = control_plane.child.id();
    server.put(sidecar::pod());
    let all_pods = settings.pods.saturating_add(1);
    control_plane.has(all_pods);
    let place = (control_plane.grpc, directory.path());
    let mut sidecar = Sidecar::start(&settings.program, &server, place, cluster.services)?;
    sidecar.is_ready();
    let caller = sidecar.child.id();
    figures.add(SECTION, "resident, quiet", settled_kib(pid).await?, "KiB");
    let quiet = settled_kib(caller).await?;
    figures.add(SECTION, "sidecar resident, quiet", quiet, "KiB");

    let (begun, before, calling) = (Instant::now(), cpu_seconds(pid)?, cpu_seconds(caller)?);
    let pause = Duration::from_secs(1) / settings.changes.max(1);
    let (mut most, mut most_of_caller): (f64, f64) = (0.0, 0.0);
    let mut next = tokio::time::interval(pause);
    while begun.elapsed() < Duration::from_secs(settings.seconds) {
        next.tick().await;
        cluster.change(&server);
        sidecar.dial().await?;
        most = most.max(process::resident(pid)?);
        most_of_caller = most_of_caller.max(process::resident(caller)?);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let cores = (cpu_seconds(pid)? - before) / elapsed;
    figures.add(SECTION, "CPU under change", cores * 100.0, "% of a core");
    figures.add(SECTION, "resident under change, most", most, "KiB");
    let cores = (cpu_seconds(caller)? - calling) / elapsed;
    figures.add(
        SECTION,
        "sidecar CPU under change",
        cores * 100.0,
        "% of a core",
    );
    figures.add(
        SECTION,
        "sidecar resident under change, most",
        most_of_caller,
        "KiB",
    );
    control_plane.has(all_pods);
    ensure!(control_plane.metric("facts{kind=\"address_conflicts\"}") == Some(0.0));
    println!("{figures}");
    if let Some(path) = &settings.json {
        std::fs::write(path, figures.to_json())
            .with_context(|| format!("the figures can't be written to {}", path.display()))?;
    }
    Ok(())
}

struct ControlPlane {
    child: Child,
    grpc: SocketAddr,
    admin: SocketAddr,
}

impl ControlPlane {
    fn start(program: &Path, server: &ApiServer, directory: &Path) -> anyhow::Result<Self> {
        let state = directory.join("state");
        let made = Command::new(program)
            .args(["root", "init", "--data-dir"])
            .arg(&state)
            .stdout(Stdio::null())
            .status()?;
        ensure!(made.success(), "no root was made");
        let grpc = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let admin = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let child = Command::new(program)
            .args([
                "control-plane",
                "--kubernetes",
                "--listen",
                &grpc.to_string(),
            ])
            .args(["--admin-listen", &admin.to_string()])
            .arg("--kubeconfig")
            .arg(server.kubeconfig())
            .arg("--data-dir")
            .arg(&state)
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, grpc, admin })
    }

    /// Waits until it knows so many pods.
    fn has(&self, pods: usize) {
        let wanted = Some(f64::from(u32::try_from(pods).unwrap_or(u32::MAX)));
        eventually("the control plane knows all pods", || {
            (self.metric("facts{kind=\"workloads\"}") == wanted)
                .then_some(())
                .ok_or("not yet")
        });
    }

    fn metric(&self, series: &str) -> Option<f64> {
        let page = Command::new("curl")
            .args(["-s", &format!("http://{}/metrics", self.admin)])
            .output()
            .ok()?;
        let page = String::from_utf8(page.stdout).ok()?;
        let name = format!("mesh_lite_control_plane_{series} ");
        page.lines()
            .find_map(|line| line.strip_prefix(&name))
            .and_then(|value| value.trim().parse().ok())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Pods, their services and slices; pods are replaced one after the other, as rollouts do it.
struct Pods {
    /// The generation of each pod: its name and address go by it.
    generations: Vec<usize>,
    services: usize,
    next: usize,
    slice_is_next: bool,
}

impl Pods {
    fn new(server: &ApiServer, pods: usize, services: usize) -> Self {
        server.put(
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"},
            "spec": {"podCIDRs": ["10.0.0.0/9"]},
            "status": {"addresses": [{"type": "InternalIP", "address": "192.168.0.1"}]}}),
        );
        server.put(
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.255.0.0/16"]}}),
        );
        let all = Self {
            generations: vec![0; pods],
            services: services.max(1),
            next: 0,
            slice_is_next: false,
        };
        for pod in 0..pods {
            server.put(all.pod(pod));
        }
        for service in 0..all.services {
            server.put(json!({"apiVersion": "v1", "kind": "Service",
                "metadata": {"namespace": "shop", "name": format!("s-{service}")},
                "spec": {"clusterIPs": [format!("10.255.{}.{}", service / 250, service % 250 + 1)],
                    "selector": {"app": format!("s-{service}")},
                    "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}));
            server.put(all.slice(service));
        }
        all
    }

    fn name(&self, pod: usize) -> String {
        format!("p-{pod}-{}", self.generations.get(pod).unwrap_or(&0))
    }

    /// Another one for each generation, until they come round.
    fn address(&self, pod: usize) -> String {
        let generation = self.generations.get(pod).copied().unwrap_or(0) % 100;
        format!("10.{generation}.{}.{}", pod / 250, pod % 250 + 1)
    }

    /// With as much beside what is used as a real pod has.
    fn pod(&self, pod: usize) -> Value {
        let name = self.name(pod);
        let fields = json!({"f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {}}}});
        let env: Vec<Value> = (0..40)
            .map(|number| json!({"name": format!("SETTING_{number}"), "value": "x".repeat(40)}))
            .collect();
        json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"namespace": "shop", "name": name, "uid": format!("uid-{name}"),
                "labels": {"app": format!("s-{}", pod % self.services), "version": "v1"},
                "managedFields": [{"manager": "kubelet", "fieldsV1": fields}]},
            "spec": {"serviceAccountName": format!("s-{}", pod % self.services),
                "nodeName": "node-1", "initContainers": [{"name": "mesh-lite-proxy", "env": env}],
                "containers": [{"name": "app", "env": env}]},
            "status": {"phase": "Running", "podIP": self.address(pod),
                "podIPs": [{"ip": self.address(pod)}]}})
    }

    fn slice(&self, service: usize) -> Value {
        let pods = (service..self.generations.len()).step_by(self.services);
        let endpoints: Vec<Value> = pods
            .map(|pod| {
                json!({"addresses": [self.address(pod)], "nodeName": "node-1",
                    "conditions": {"ready": true, "serving": true},
                    "targetRef": {"kind": "Pod", "name": self.name(pod)}})
            })
            .collect();
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"namespace": "shop", "name": format!("s-{service}-1"),
                "labels": {"kubernetes.io/service-name": format!("s-{service}")}},
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]})
    }

    /// A pod goes and another one comes, or its slice says so.
    fn change(&mut self, server: &ApiServer) {
        let pod = self.next;
        if self.slice_is_next {
            server.put(self.slice(pod % self.services));
            self.next = (pod + 7) % self.generations.len().max(1);
        } else {
            server.remove("Pod", "shop", &self.name(pod));
            if let Some(generation) = self.generations.get_mut(pod) {
                *generation += 1;
            }
            server.put(self.pod(pod));
        }
        self.slice_is_next = !self.slice_is_next;
    }
}
