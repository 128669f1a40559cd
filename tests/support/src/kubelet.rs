//! Runs a pod as its spec says, in a network namespace: what a kubelet does, and no more of it
//! than pods of these tests need.
//!
//! Containers start in their order, each with a file system of its own, its volumes, its user,
//! its capabilities and its environment; images stand for programs of this machine. The pod's
//! object in the scripted API server follows what happens. Probes run when a test asks.

mod container_process;
mod environment;
mod probe;
mod volumes;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::eventually::eventually;
use crate::namespace::Namespace;
use crate::network::{NODE_V4, Network, Pod, write_setting};
use crate::process::Process;
use crate::{APPLICATION_UID, ROOT_UID};

pub use self::probe::Probed;
pub use self::volumes::{from_base64, project, secret_files};

/// A node's agent.
#[derive(Debug)]
pub struct Kubelet<'a> {
    network: &'a Network,
    api: &'a ApiServer,
    images: HashMap<String, Vec<String>>,
    /// Names that pods can look up, as lines of `/etc/hosts`.
    hosts: String,
    /// Directories of programs that images stand for, readable in every container.
    programs: Vec<PathBuf>,
}

/// A pod whose containers run. They are killed when it is dropped.
#[derive(Debug)]
pub struct RunningPod<'a> {
    /// As the kubelet has it: spec, and the status it found.
    pub object: Value,
    pub at: &'a Pod,
    node: &'a Namespace,
    api: &'a ApiServer,
    directory: PathBuf,
    /// In the order of their start.
    containers: Vec<Container>,
}

#[derive(Debug)]
struct Container {
    name: String,
    spec: Value,
    role: Role,
    arguments: Vec<String>,
    process: Option<Process>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
    Application,
}

impl<'a> Kubelet<'a> {
    /// `program` is what the image named `image` runs.
    pub fn new(network: &'a Network, api: &'a ApiServer, image: &str, program: &Path) -> Self {
        let directory = program.parent().expect("a path with a directory");
        let mut kubelet = Self {
            network,
            api,
            images: HashMap::new(),
            hosts: "127.0.0.1 localhost\n::1 localhost\n".to_owned(),
            programs: vec![directory.to_owned()],
        };
        kubelet.image(
            image,
            &[program.to_str().expect("a path of our own making")],
        );
        kubelet
    }

    /// What an image's entry point is on this machine.
    pub fn image(&mut self, image: &str, entry_point: &[&str]) {
        let entry_point = entry_point.iter().map(|word| (*word).to_owned()).collect();
        self.images.insert(image.to_owned(), entry_point);
    }

    /// A name that pods can look up.
    pub fn host(&mut self, name: &str, address: impl Into<std::net::IpAddr>) {
        self.hosts.push_str(&format!("{} {name}\n", address.into()));
    }

    /// Admits the pod to the API server and starts its containers, each when the one before it
    /// lets it; fails the test where an init container does.
    pub fn run(&self, pod: Value, at: &'a Pod) -> RunningPod<'a> {
        let mut running = self.admit(pod, at);
        for place in 0..running.containers.len() {
            running.start_next(place);
        }
        running.set_status("Running", true);
        running
    }

    /// As [`Kubelet::run`], with nothing started yet: see [`RunningPod::start_next`].
    pub fn admit(&self, mut pod: Value, at: &'a Pod) -> RunningPod<'a> {
        let metadata = &mut pod["metadata"];
        if metadata["name"].is_null() {
            let prefix = metadata["generateName"].as_str().expect("a name");
            metadata["name"] = json!(format!("{prefix}x2x4x"));
        }
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["spec"]["nodeName"] = json!("node");
        pod["status"] = json!({"phase": "Pending", "hostIP": NODE_V4.to_string()});
        let object = self.api.put(pod);
        let name = object["metadata"]["name"].as_str().unwrap();
        let directory = self.network.directory(&format!("pod-{name}"), ROOT_UID);
        let hosts = directory.join("hosts");
        fs::write(&hosts, &self.hosts).unwrap();
        let sysctls = &object["spec"]["securityContext"]["sysctls"];
        for setting in sysctls.as_array().into_iter().flatten() {
            let name = setting["name"].as_str().unwrap().replace('.', "/");
            at.namespace.run(ROOT_UID, || {
                write_setting(&name, setting["value"].as_str().unwrap())
            });
        }
        let mut running = RunningPod {
            object,
            at,
            node: &self.network.node,
            api: self.api,
            directory,
            containers: Vec::new(),
        };
        running.containers = self.containers(&running);
        running
    }

    fn containers(&self, running: &RunningPod<'_>) -> Vec<Container> {
        let spec = &running.object["spec"];
        let listed = |list: &str| spec[list].as_array().cloned().unwrap_or_default();
        let init = listed("initContainers").into_iter().map(|container| {
            let stays = container["restartPolicy"] == "Always";
            (container, if stays { Role::Sidecar } else { Role::Init })
        });
        let applications = listed("containers").into_iter();
        let applications = applications.map(|container| (container, Role::Application));
        let volumes = volumes::Volumes::new(running);
        init.chain(applications)
            .map(|(spec, role)| {
                let image = spec["image"].as_str().unwrap();
                let entry_point = self.images.get(image);
                let entry_point = entry_point.map(Vec::as_slice).unwrap_or_default();
                let name = spec["name"].as_str().unwrap().to_owned();
                let arguments = container_process::arguments(
                    running,
                    &volumes,
                    &spec,
                    entry_point,
                    &self.programs,
                );
                Container {
                    name,
                    spec,
                    role,
                    arguments,
                    process: None,
                }
            })
            .collect()
    }
}

impl RunningPod<'_> {
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap()
    }

    pub fn uid(&self) -> &str {
        self.object["metadata"]["uid"].as_str().unwrap()
    }

    /// How many containers there are to start.
    pub fn len(&self) -> usize {
        self.containers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.containers.is_empty()
    }

    /// Starts the container at `place` of the order, and waits for what the next one waits for:
    /// an init container's end, a sidecar's startup probe. Hooks after the start are asked.
    pub fn start_next(&mut self, place: usize) {
        self.start_at(place);
        if place == 0 {
            // The address reaches the API only now (kubernetes.md, fact 28).
            self.set_status("Pending", false);
        }
        let container = &mut self.containers[place];
        let name = container.name.clone();
        if container.role == Role::Init {
            let process = container.process.as_mut().unwrap();
            let status = process.ended();
            assert!(status.success(), "{name} ({status}): {}", process.output());
            return;
        }
        if container.role == Role::Sidecar && !container.spec["startupProbe"].is_null() {
            self.wait_probe(&name, "startupProbe");
        }
        let hook = &self.containers[place].spec["lifecycle"]["postStart"];
        if !hook.is_null() {
            let hook = hook.clone();
            let spec = self.containers[place].spec.clone();
            eventually(&format!("{name}: the hook after its start"), || {
                probe::run(self, &spec, &hook).good()
            });
        }
    }

    fn start_at(&mut self, place: usize) {
        let container = &mut self.containers[place];
        let mut command = Command::new("nsenter");
        command.args(&container.arguments);
        // A command of our own making: a variable of this test must not reach a pod.
        command.env_clear().env("PATH", container_process::PATH);
        let name = format!(
            "{}-{}",
            self.object["metadata"]["name"].as_str().unwrap(),
            container.name
        );
        container.process = Some(Process::start(&name, command, &self.directory));
    }

    /// SIGKILL to one container, which is started again with what it had.
    pub fn restart(&mut self, container: &str) {
        let place = self.place(container);
        self.containers[place].process = None;
        self.start_next(place);
    }

    pub fn process(&mut self, container: &str) -> &mut Process {
        let place = self.place(container);
        self.containers[place]
            .process
            .as_mut()
            .expect("the container runs")
    }

    /// All that a container printed.
    pub fn output(&self, container: &str) -> String {
        let process = self.containers[self.place(container)].process.as_ref();
        process.expect("the container was started").output()
    }

    /// Lines of the access log that a sidecar prints, among others, of which all `fields` say
    /// what is given.
    pub fn access_log(&self, container: &str, fields: &[(&str, &str)]) -> Vec<Value> {
        let output = self.output(container);
        let documents = output
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let says = |line: &Value| {
            let value = |field: &str| field.split('.').fold(line, |value, part| &value[part]);
            line.is_object()
                && fields
                    .iter()
                    .all(|(field, wanted)| line[field] == *wanted || value(field) == wanted)
        };
        documents.filter(says).collect()
    }

    /// Waits for such a line.
    pub fn wait_for_access(&self, container: &str, fields: &[(&str, &str)]) -> Value {
        eventually(&format!("{container} logs {fields:?}"), || {
            let mut lines = self.access_log(container, fields);
            lines.pop().ok_or_else(|| self.output(container))
        })
    }

    /// Runs a probe of a container (`"readinessProbe"`) once, from the node.
    pub fn probe(&self, container: &str, probe: &str) -> Probed {
        let spec = &self.containers[self.place(container)].spec;
        assert!(!spec[probe].is_null(), "{container} has no {probe}");
        probe::run(self, spec, &spec[probe])
    }

    pub fn wait_probe(&self, container: &str, probe: &str) {
        eventually(&format!("{container}: {probe}"), || {
            self.probe(container, probe).good()
        });
    }

    /// Until every container's readiness probe is good; then the pod is Ready in the API.
    pub fn wait_ready(&mut self) {
        for container in &self.containers {
            if container.role != Role::Init && !container.spec["readinessProbe"].is_null() {
                self.wait_probe(&container.name, "readinessProbe");
            }
        }
        self.set_status("Running", true);
    }

    /// The application's containers have ended by themselves: their sidecars are told to. What
    /// everybody ended with, in the order of their ends.
    pub fn complete(&mut self) -> Vec<(String, ExitStatus)> {
        let mut ends = self.ends(Role::Application);
        ends.extend(self.end(Role::Sidecar));
        let good = ends.iter().all(|(_, status)| status.success());
        self.set_status(if good { "Succeeded" } else { "Failed" }, false);
        ends
    }

    /// `kubectl delete`: the application is told to end, then the sidecars, last one first
    /// (kubernetes.md, fact 26); then the object goes. What everybody ended with.
    pub fn delete(mut self) -> Vec<(String, ExitStatus)> {
        self.object["metadata"]["deletionTimestamp"] = json!("2026-11-21T12:00:00Z");
        self.set_status("Running", false);
        let mut ends = self.end(Role::Application);
        ends.extend(self.end(Role::Sidecar));
        let metadata = &self.object["metadata"];
        let text = |name: &str| metadata[name].as_str().unwrap();
        self.api.remove("Pod", text("namespace"), text("name"));
        ends
    }

    /// Where a volume of the pod lies on the node.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.directory.join("volumes").join(name)
    }

    /// Waits until the application listens: without a probe nobody else does.
    pub fn wait_listening(&self, port: u16) {
        eventually(&format!("{} listens on {port}", self.name()), || {
            let to = (std::net::Ipv4Addr::LOCALHOST, port);
            self.at
                .namespace
                .run(APPLICATION_UID, || std::net::TcpStream::connect(to))
        });
    }

    /// A process beside the containers, in their network: `kubectl exec` and `kubectl debug`.
    pub fn command(&self, program: &str) -> Command {
        self.at.namespace.command(APPLICATION_UID, program)
    }

    /// SIGTERM to one container after the other, the last one first.
    fn end(&mut self, role: Role) -> Vec<(String, ExitStatus)> {
        let mut ends = Vec::new();
        let of_role = |container: &&mut Container| container.role == role;
        for container in self.containers.iter_mut().rev().filter(of_role) {
            if let Some(process) = container.process.as_mut() {
                process.signal(Signal::TERM);
                ends.push((container.name.clone(), process.ended()));
            }
        }
        ends
    }

    fn ends(&mut self, role: Role) -> Vec<(String, ExitStatus)> {
        let of_role = |container: &&mut Container| container.role == role;
        let containers = self.containers.iter_mut().filter(of_role);
        containers
            .filter_map(|container| {
                let process = container.process.as_mut()?;
                Some((container.name.clone(), process.ended()))
            })
            .collect()
    }

    fn place(&self, container: &str) -> usize {
        let mut names = self
            .containers
            .iter()
            .map(|container| container.name.as_str());
        names
            .position(|name| name == container)
            .unwrap_or_else(|| panic!("{} has no container {container}", self.name()))
    }

    fn set_status(&mut self, phase: &str, ready: bool) {
        let (v4, v6) = (self.at.v4.to_string(), self.at.v6.to_string());
        self.object["status"] = json!({"phase": phase, "hostIP": NODE_V4.to_string(),
            "podIP": v4, "podIPs": [{"ip": v4}, {"ip": v6}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]});
        self.api.put(self.object.clone());
    }
}
