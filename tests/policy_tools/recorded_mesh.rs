//! web, api and guest in the mesh, or guest still outside, and the node, which always is: real
//! capture, real calls, and the sidecars' records of them.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use mesh_lite_test_support::applications::{Client, Ending, MARKER, Server, converse};
use mesh_lite_test_support::mesh::DOCUMENT_FILE;
use mesh_lite_test_support::process::{finish, succeed};
use mesh_lite_test_support::{Mesh, MeshSettings, Namespace, ROOT_UID, eventually};
use serde_json::Value;

/// Ports of api's application. The last one takes plaintext where a test says so.
pub(crate) const PORTS: [u16; 3] = [8080, 9090, 9091];
const POLICY_FILE: &str = "policy.yaml";
const WORKLOADS: &str = "\
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: web-1, namespace: shop}
spec: {serviceAccount: web, addresses: [10.77.0.10, \"fd77::10\"], labels: {app: web}}
---
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: api-1, namespace: shop}
spec: {serviceAccount: api, addresses: [10.77.0.11, \"fd77::11\"], labels: {app: api}}
---
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: guest-1, namespace: shop}
spec: {serviceAccount: guest, addresses: [10.77.0.12, \"fd77::12\"], labels: {app: guest}, meshed: GUEST}
---
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: legacy, namespace: shop}
spec: {serviceAccount: legacy, addresses: [10.77.0.1], labels: {app: legacy}, meshed: false}
";

/// Who calls api.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Caller {
    Web,
    Guest,
    /// On the node, outside the mesh.
    Legacy,
}

/// A caller, and the port of api that it calls.
pub(crate) type Call = (Caller, u16);

pub(crate) struct RecordedMesh {
    pub(crate) mesh: Mesh,
    _servers: Vec<Server>,
    edits: usize,
}

impl RecordedMesh {
    /// Everybody's sidecar is ready, and this is all policy there is. `guest` says whether that
    /// workload is in the mesh.
    pub(crate) fn start(policy: &str, guest: bool) -> Self {
        let program = env!("CARGO_BIN_EXE_mesh-lite");
        let mut mesh = MeshSettings::captured_by(program, "nft").start_control_plane();
        mesh.write_documents(DOCUMENT_FILE, &workloads(guest));
        mesh.write_documents(POLICY_FILE, policy);
        let letters = if guest { "abc" } else { "ab" };
        for letter in letters.chars() {
            mesh.capture(letter);
            mesh.start_sidecar(letter);
        }
        for letter in letters.chars() {
            mesh.sidecar(letter).wait_ready(&mesh.network);
        }
        let _servers = PORTS
            .map(|port| {
                Server::greeting(&mesh.network.b.namespace, (mesh.network.b.v4, port), "api")
            })
            .into();
        let mut this = Self {
            mesh,
            _servers,
            edits: 0,
        };
        this.apply(policy);
        this
    }

    /// guest gets a sidecar.
    pub(crate) fn guest_joins(&mut self) {
        self.mesh.write_documents(DOCUMENT_FILE, &workloads(true));
        self.mesh.capture('c');
        self.mesh.start_sidecar('c');
        self.mesh.sidecar('c').wait_ready(&self.mesh.network);
    }

    pub(crate) fn namespace(&self, caller: Caller) -> &Namespace {
        let network = &self.mesh.network;
        match caller {
            Caller::Web => &network.a.namespace,
            Caller::Guest => &network.c.namespace,
            Caller::Legacy => &network.node,
        }
    }

    fn api(&self, port: u16) -> SocketAddr {
        (self.mesh.network.b.v4, port).into()
    }

    /// A whole conversation; false: it was refused.
    pub(crate) fn reaches(&self, (caller, port): Call) -> bool {
        match converse(self.namespace(caller), self.api(port)) {
            Ok(name) => name == "api",
            Err(error) if is_refusal(&error) => false,
            Err(error) => panic!("{caller:?} to {port}: neither served nor refused: {error}"),
        }
    }

    /// Which of these calls are served.
    pub(crate) fn outcomes(&self, calls: &[Call]) -> Vec<bool> {
        calls.iter().map(|call| self.reaches(*call)).collect()
    }

    /// A conversation that goes on.
    pub(crate) fn holds(&self, (caller, port): Call) -> Client {
        let mut client = Client::connect(self.namespace(caller), self.api(port)).unwrap();
        assert_eq!(client.line().unwrap(), format!("{MARKER} api"));
        client
    }

    /// Puts policy in force, the only one there is, and waits until every sidecar has it.
    pub(crate) fn apply(&mut self, policy: &str) {
        self.edits += 1;
        let mark = format!("edit-{}", self.edits);
        // a DENY policy without rules denies nobody
        let marked = format!(
            "{policy}---\napiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: {mark}, namespace: shop}}\nspec: {{action: DENY, rules: []}}\n"
        );
        self.mesh.write_documents(POLICY_FILE, &marked);
        for letter in "abc".chars() {
            if self.data_of(letter).is_none() {
                continue;
            }
            eventually(&format!("{mark} reaches {letter}"), || {
                let page = self.page(letter, "/policy/snapshot");
                if page.contains(&format!("shop/{mark}")) {
                    Ok(())
                } else {
                    Err(page)
                }
            });
        }
    }

    /// The policy as it would be, in a directory of its own beside the workloads.
    pub(crate) fn edited(&self, name: &str, policy: &str) -> PathBuf {
        let directory = self.mesh.network.home().join(name);
        fs::create_dir(&directory).unwrap();
        for file in [DOCUMENT_FILE, POLICY_FILE] {
            fs::copy(self.mesh.config_dir().join(file), directory.join(file)).unwrap();
        }
        fs::write(directory.join(POLICY_FILE), policy).unwrap();
        directory
    }

    /// As [`Self::apply`], and waits for nobody.
    pub(crate) fn put_in_force(&self, policy: &str) {
        self.mesh.write_documents(POLICY_FILE, policy);
    }

    fn data_of(&self, letter: char) -> Option<PathBuf> {
        let data = self.mesh.network.home().join(format!("sidecar-{letter}"));
        data.exists().then_some(data)
    }

    /// A page of a sidecar's admin server, as a person in the pod asks for it.
    pub(crate) fn page(&self, letter: char, path: &str) -> String {
        let mut curl = self.pod(letter).command(ROOT_UID, "curl");
        succeed(curl.args(["-s", "-f", &format!("http://127.0.0.1:15000{path}")]))
    }

    /// A sidecar's records, saved in a file.
    pub(crate) fn saved_page(&self, letter: char) -> String {
        let path = self
            .mesh
            .network
            .home()
            .join(format!("decisions-{letter}.jsonl"));
        fs::write(&path, self.page(letter, "/decisions")).unwrap();
        path.display().to_string()
    }

    /// A sidecar's access log.
    pub(crate) fn access_log(&self, letter: char) -> String {
        let log = self.data_of(letter).unwrap().join("access.log");
        log.display().to_string()
    }

    /// Waits until api's sidecar says that so many connections came in and are open.
    pub(crate) fn wait_open(&self, open: u64) {
        eventually(&format!("{open} connections are open"), || {
            let page = self.page('b', "/decisions");
            let records = page
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap());
            let inbound = records.filter(|record| record["direction"] == "inbound");
            let sum: u64 = inbound.filter_map(|record| record["open"].as_u64()).sum();
            if sum == open { Ok(()) } else { Err(page) }
        });
    }

    /// A pod's network namespace.
    pub(crate) fn pod(&self, letter: char) -> &Namespace {
        let network = &self.mesh.network;
        match letter {
            'a' => &network.a.namespace,
            'b' => &network.b.namespace,
            _ => &network.c.namespace,
        }
    }

    /// The binary under test, run by a person in api's pod.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Command {
        let program = self.mesh.program().to_str().unwrap();
        let mut command = self.pod('b').command(ROOT_UID, program);
        command.args(arguments);
        command
    }

    /// What a tool says in JSON, and its exit code.
    pub(crate) fn told(&self, arguments: &[&str]) -> (Value, i32) {
        let output = finish(self.tool(arguments).args(["--output", "json"]));
        let text = String::from_utf8(output.stdout).unwrap();
        let value = serde_json::from_str(&text).unwrap_or_else(|error| {
            let complaint = String::from_utf8_lossy(&output.stderr);
            panic!("{arguments:?}: {error}: {text}{complaint}")
        });
        (value, output.status.code().unwrap())
    }

    /// What a tool says to people, and its exit code.
    pub(crate) fn said(&self, arguments: &[&str]) -> (String, i32) {
        let output = finish(&mut self.tool(arguments));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(!text.contains('\x1b'), "colours without a terminal: {text}");
        (text, output.status.code().unwrap())
    }
}

fn workloads(guest: bool) -> String {
    WORKLOADS.replace("GUEST", &guest.to_string())
}

fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionRefused | Kind::ConnectionReset | Kind::BrokenPipe | Kind::UnexpectedEof
    )
}

/// Who a flip of a tool's JSON is about.
pub(crate) fn call_of(flip: &Value) -> Call {
    let caller = match flip["caller"].as_str() {
        Some(id) if id.ends_with("/sa/web") => Caller::Web,
        Some(id) if id.ends_with("/sa/guest") => Caller::Guest,
        None if flip["sources"][0] == "10.77.0.1" => Caller::Legacy,
        _ => panic!("a flip of nobody: {flip}"),
    };
    assert_eq!(flip["workload"], "shop/api-1", "{flip}");
    let port = flip["port"].as_u64().unwrap();
    (caller, u16::try_from(port).unwrap())
}

/// The calls of these flips, in order.
pub(crate) fn calls_of(flips: &Value) -> Vec<Call> {
    let mut calls: Vec<_> = flips.as_array().unwrap().iter().map(call_of).collect();
    calls.sort_unstable();
    calls
}

/// It was cut, and nothing came before that.
pub(crate) fn is_cut(client: &mut Client) {
    assert_eq!(client.ending(), Ending::Reset(Vec::new()));
}

/// It answers.
pub(crate) fn lives(client: &mut Client) {
    assert_eq!(client.echo("still there").unwrap(), "still there");
}

/// An ALLOW policy for api: who may call which port, by principal or by address.
pub(crate) fn allowing(rules: &[(&str, u16)]) -> String {
    let mut text = "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
                    metadata: {name: api-callers, namespace: shop}\n\
                    spec:\n  selector: {matchLabels: {app: api}}\n  action: ALLOW\n  rules:\n"
        .to_owned();
    for (who, port) in rules {
        let source = if who.starts_with("10.") {
            format!("ipBlocks: [{who}]")
        } else {
            format!("principals: [cluster.local/ns/shop/sa/{who}]")
        };
        text.push_str(&format!(
            "  - from: [{{source: {{{source}}}}}]\n    to: [{{operation: {{ports: [\"{port}\"]}}}}]\n"
        ));
    }
    text
}

/// api takes plaintext on port 9091.
pub(crate) const PLAINTEXT_ON_9091: &str = "\
---
apiVersion: mesh-lite.io/v1
kind: PeerAuthentication
metadata: {name: api-plaintext, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  portLevelMtls: {\"9091\": {mode: PERMISSIVE}}
";
