//! The mesh in a cluster: what `mesh-lite install` prints, and its roles as processes of this
//! machine, each with the arguments of its Deployment and the rights of its service account.

#![allow(dead_code, reason = "each file of tests uses its part of this")]

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use mesh_lite_test_support::applications::http_get_here;
use mesh_lite_test_support::process::{Process, finish, succeed};
use mesh_lite_test_support::{eventually, requirements};
use serde_json::{Value, json};

use crate::cluster::{Kube, documents, name_of, reference, write_volume};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");
pub(crate) const MESH_NAMESPACE: &str = "mesh-lite-system";
pub(crate) const IMAGE: &str = "mesh-lite.test/mesh-lite:test";
const AUTHORITY_DIR: &str = "/var/run/mesh-lite/authority";
/// What a process says that was refused something.
const REFUSED: [&str; 2] = ["forbidden", "Forbidden"];

/// Dropped in this order: processes, then what is in the cluster.
pub(crate) struct Mesh {
    roles: Vec<Role>,
    /// What `install` printed.
    pub(crate) objects: Vec<Value>,
    pub(crate) kube: Kube,
}

/// A running replica.
pub(crate) struct Role {
    pub(crate) process: Process,
    /// gRPC, or the webhook.
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    account: &'static str,
}

impl Mesh {
    /// Applies what `install` prints with `options`, and makes the root. None where another mesh
    /// is in the cluster: it is not this test's to change.
    pub(crate) fn install(kube: Kube, test: &str, options: &[&str]) -> Option<Self> {
        let webhooks = reference(
            "admissionregistration.k8s.io/v1",
            "MutatingWebhookConfiguration",
            "",
            "mesh-lite-injector",
        );
        if kube.exists(&webhooks) {
            requirements::not_run(test, "a mesh is installed in the cluster");
            return None;
        }
        let mut print = Command::new(PROGRAM);
        print.args(["install", "--image", IMAGE]).args(options);
        let mesh = Self {
            roles: Vec::new(),
            objects: documents(&succeed(&mut print)),
            kube,
        };
        for object in &mesh.objects {
            // A kind that was just defined is served a moment later.
            eventually(&format!("{} {}", object["kind"], name_of(object)), || {
                mesh.kube
                    .apply(&playable(object))
                    .map_err(|error| error.to_string())
            });
        }
        Some(mesh)
    }

    /// What the Job does, as its service account; what it printed.
    pub(crate) fn run_job(&self, kind: &str) -> String {
        let job = self.object(kind);
        let container = job
            .pointer("/spec/template/spec/containers/0")
            .or_else(|| job.pointer("/spec/jobTemplate/spec/template/spec/containers/0"));
        let arguments = strings(&container.unwrap()["args"]);
        let kubeconfig = self.kube.kubeconfig_of(MESH_NAMESPACE, "mesh-lite-root");
        let mut command = Command::new(PROGRAM);
        command.args(arguments).env("KUBECONFIG", kubeconfig);
        let output = finish(&mut command);
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{kind}: {said}");
        said
    }

    /// The first object of a kind that `install` printed.
    pub(crate) fn object(&self, kind: &str) -> &Value {
        let mut objects = self.objects.iter();
        objects.find(|object| object["kind"] == kind).unwrap()
    }

    /// A replica of the control plane that is ready; its number among the roles.
    pub(crate) fn start_control_plane(&mut self, more: &[&str]) -> usize {
        let volume = self.kube.directory.path().join("authority");
        if !volume.exists() {
            write_volume(&volume, &self.authority());
        }
        let role = self.start("mesh-lite-control-plane", &volume, more);
        self.roles.push(role);
        let place = self.roles.len() - 1;
        self.wait_ready(place);
        place
    }

    /// A replica of the injector that is ready, and that the API server asks.
    pub(crate) fn start_injector(&mut self) -> usize {
        let nothing = self.kube.directory.path().to_owned();
        let role = self.start("mesh-lite-injector", &nothing, &[]);
        let port = role.listen.port();
        self.roles.push(role);
        let place = self.roles.len() - 1;
        self.wait_ready(place);
        self.ask_injector_at(port);
        place
    }

    /// Nodes play no part here: the Service is a name for this machine, and the port is the
    /// replica's own.
    fn ask_injector_at(&self, port: u16) {
        let service = json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "mesh-lite-injector", "namespace": MESH_NAMESPACE},
            "spec": {"type": "ExternalName", "externalName": "localhost"}});
        let present = self.kube.get(&service).unwrap();
        if present["spec"]["type"] != "ExternalName" {
            self.kube.delete(&service);
            self.kube.create(&service).unwrap();
        }
        let mut webhooks = self.webhooks();
        for entry in webhooks["webhooks"].as_array_mut().unwrap() {
            entry["clientConfig"]["service"]["port"] = json!(port);
        }
        self.kube.replace(&webhooks).unwrap();
    }

    /// The registration, as it is now.
    pub(crate) fn webhooks(&self) -> Value {
        let printed = self.object("MutatingWebhookConfiguration");
        self.kube.get(printed).unwrap()
    }

    /// Runs a Deployment's container here.
    fn start(&self, deployment: &'static str, volume: &Path, more: &[&str]) -> Role {
        let found = self.objects.iter().find(|object| {
            object["kind"] == "Deployment" && object["metadata"]["name"] == deployment
        });
        let pod = &found.unwrap()["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let account = pod["serviceAccountName"].as_str().unwrap();
        let [listen, admin] = free_addresses();
        let mut arguments: Vec<String> = strings(&container["args"])
            .into_iter()
            .filter(|argument| {
                !argument.starts_with("--listen=") && !argument.starts_with("--admin-listen=")
            })
            .map(|argument| argument.replace(AUTHORITY_DIR, volume.to_str().unwrap()))
            .collect();
        arguments.push(format!("--listen={listen}"));
        arguments.push(format!("--admin-listen={admin}"));
        let mut command = Command::new(PROGRAM);
        command.args(arguments).args(more);
        for entry in container["env"].as_array().into_iter().flatten() {
            if let Some(value) = entry["value"].as_str() {
                command.env(entry["name"].as_str().unwrap(), value);
            }
        }
        command.env("POD_NAME", format!("{deployment}-{}", listen.port()));
        command.env(
            "KUBECONFIG",
            self.kube.kubeconfig_of(MESH_NAMESPACE, account),
        );
        let name = format!("{deployment}-{}", listen.port());
        Role {
            process: Process::start(&name, command, self.kube.directory.path()),
            listen,
            admin,
            account: deployment,
        }
    }

    pub(crate) fn role(&self, place: usize) -> &Role {
        &self.roles[place]
    }

    /// The one that was started last.
    pub(crate) fn last_role(&self) -> usize {
        self.roles.len() - 1
    }

    pub(crate) fn role_mut(&mut self, place: usize) -> &mut Role {
        &mut self.roles[place]
    }

    pub(crate) fn wait_ready(&mut self, place: usize) {
        let role = &mut self.roles[place];
        eventually(&format!("{} is ready", role.account), || {
            role.process.assert_runs();
            match http_get_here(role.admin, "/readyz") {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    }

    /// No role was ever refused a right that it asked for: by its own words, and by the API
    /// server's.
    pub(crate) fn assert_no_right_was_missing(&self) {
        for role in &self.roles {
            let output = role.process.output();
            let refused = |line: &&str| REFUSED.iter().any(|word| line.contains(word));
            let lines: Vec<&str> = output.lines().filter(refused).collect();
            assert!(lines.is_empty(), "{}: {lines:#?}", role.account);
        }
        let requests = self.kube.cluster.requests_of(MESH_NAMESPACE);
        assert!(!requests.is_empty() || !self.kube.cluster.is_own());
        for request in requests {
            let code = &request["responseStatus"]["code"];
            assert!(*code != 403 && *code != 401, "{request}");
        }
    }

    /// What the control plane's projected volume holds, by the sources in its Deployment.
    fn authority(&self) -> Vec<(String, Vec<u8>)> {
        let found = self.objects.iter().find(|object| {
            object["kind"] == "Deployment"
                && object["metadata"]["name"] == "mesh-lite-control-plane"
        });
        let sources = found
            .unwrap()
            .pointer("/spec/template/spec/volumes/0/projected/sources");
        let mut files = Vec::new();
        for source in sources.unwrap().as_array().unwrap() {
            let (kind, source) = match source.get("secret") {
                Some(secret) => ("Secret", secret),
                None => ("ConfigMap", &source["configMap"]),
            };
            let name = source["name"].as_str().unwrap();
            let object = reference("v1", kind, MESH_NAMESPACE, name);
            let object = self.kube.get(&object).unwrap();
            for item in source["items"].as_array().unwrap() {
                let text = object["data"][item["key"].as_str().unwrap()]
                    .as_str()
                    .unwrap();
                let content = match kind {
                    "Secret" => mesh_lite_test_support::kubelet::from_base64(text),
                    _ => text.as_bytes().to_vec(),
                };
                files.push((item["path"].as_str().unwrap().to_owned(), content));
            }
        }
        files
    }

    /// A namespace of a test's own whose pods are in the mesh.
    pub(crate) fn labelled_namespace(&self) -> Value {
        self.kube
            .namespace(&json!({"mesh-lite.io/inject": "enabled"}))
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.roles.clear();
        // An API server of the test's own goes with all that it has.
        if !self.kube.cluster.is_own() {
            for object in self.objects.iter().rev() {
                self.kube.delete(object);
            }
        }
    }
}

/// As it can be applied where no image of the mesh is: nothing is run from it.
fn playable(object: &Value) -> Value {
    let mut object = object.clone();
    match object["kind"].as_str() {
        Some("Deployment") => object["spec"]["replicas"] = json!(0),
        Some("Job" | "CronJob") => object["spec"]["suspend"] = json!(true),
        _ => {}
    }
    object
}

fn strings(list: &Value) -> Vec<String> {
    let words = list.as_array().unwrap().iter();
    words
        .map(|word| word.as_str().unwrap().to_owned())
        .collect()
}

pub(crate) fn free_addresses<const N: usize>() -> [SocketAddr; N] {
    let localhost = IpAddr::from(Ipv4Addr::LOCALHOST);
    let listeners = [(); N].map(|()| TcpListener::bind((localhost, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

/// A directory below the cluster's own, made anew.
pub(crate) fn directory(kube: &Kube, name: &str) -> PathBuf {
    let path = kube.directory.path().join(name);
    fs::create_dir_all(&path).unwrap();
    path
}
