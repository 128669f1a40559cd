//! A scripted API server: in memory, over real HTTP, with what the mesh uses of Kubernetes.
//!
//! Lists, watches with bookmarks and 410, versions and conflicts, the status subresource, the
//! four kinds of patch, discovery; TokenReviews by script. A test can make it refuse, hang, stop
//! and come back. It judges no rights and no schema: that is what a real API server is for.

mod answer;
mod failure;
mod kinds;
mod patch;
mod selector;
mod serve;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::kinds::Kind;
use self::store::{Change, Store};

pub use self::store::base64;

/// Calls kept for [`ApiServer::calls`]; a long run forgets the oldest.
const MAX_CALLS: usize = 100_000;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: String,
    pub path: String,
    /// As sent: percent-encoded.
    pub query: String,
    /// Null if there was none, or none in JSON.
    pub body: Value,
    pub authorization: String,
}

/// What a test can make of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Answered with this status code.
    Status(u16),
    /// Never answered.
    Hang,
}

/// A running server; it ends when dropped.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    runtime: Option<Runtime>,
    directory: TempDir,
}

impl ApiServer {
    /// On a free port of loopback.
    pub fn start() -> Self {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
    }

    /// On a listener of the test's own, which may be in another network namespace.
    pub fn on(listener: TcpListener) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let address = listener.local_addr().unwrap();
        let mut server = Self {
            shared: Arc::default(),
            address,
            runtime: None,
            directory,
        };
        write_kubeconfig(&server.kubeconfig(), address);
        server.start_again_on(listener);
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A file for `KUBECONFIG`, which every user may read.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    /// Every connection is cut and new ones are refused; nothing is forgotten.
    pub fn stop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// After [`ApiServer::stop`], at the same address of the test's own network namespace.
    pub fn start_again(&mut self) {
        let address = self.address;
        self.start_again_on(crate::eventually("the address is free", || {
            TcpListener::bind(address)
        }));
    }

    /// As [`ApiServer::start_again`], on a listener made elsewhere, at the same address.
    pub fn start_again_on(&mut self, listener: TcpListener) {
        assert_eq!(listener.local_addr().unwrap(), self.address);
        assert!(self.runtime.is_none(), "the API server runs");
        listener.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let shared = Arc::clone(&self.shared);
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            serve::accept(shared, listener).await;
        });
        self.runtime = Some(runtime);
    }

    /// Stores an object, whatever was there, status and all; as it is stored.
    pub fn put(&self, object: Value) -> Value {
        let kind = kinds::of_object(&object);
        let (stored, _) = self.shared.change(|state| state.store.put(kind, object));
        (*stored).clone()
    }

    /// Stores what a file of captured objects holds: one object, or a list of them.
    pub fn load(&self, file: &Path) {
        let text = fs::read_to_string(file).unwrap();
        let mut document: Value = serde_json::from_str(&text).unwrap();
        let Value::Array(items) = document["items"].take() else {
            if let Some(fields) = document.as_object_mut() {
                fields.remove("items");
            }
            self.put(document);
            return;
        };
        let kind = document["kind"].as_str().unwrap().trim_end_matches("List");
        for mut item in items {
            item["apiVersion"] = document["apiVersion"].clone();
            item["kind"] = json!(kind);
            self.put(item);
        }
    }

    /// Removes an object without waiting for anything. `namespace` is empty for objects of the
    /// cluster; `kind` is as in `"Pod"`.
    pub fn remove(&self, kind: &str, namespace: &str, name: &str) {
        let key = (named(kind), namespace.to_owned(), name.to_owned());
        let (removed, _) = self.shared.change(|state| state.store.remove(&key));
        assert!(removed.is_some(), "there is no {kind} {namespace}/{name}");
    }

    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let key = (named(kind), namespace.to_owned(), name.to_owned());
        let object = self.shared.state().store.get(&key)?;
        Some((*object).clone())
    }

    /// All objects of a kind in a namespace; of all namespaces if it is empty.
    pub fn list(&self, kind: &str, namespace: &str) -> Vec<Value> {
        let objects = self.shared.state().store.list(named(kind), namespace);
        objects.iter().map(|object| (**object).clone()).collect()
    }

    /// What a TokenReview of `token` says: its status, or a whole captured TokenReview.
    pub fn token(&self, token: &str, review: Value) {
        let mut state = self.shared.state();
        state.tokens.insert(token.to_owned(), review);
    }

    /// A token bound to a pod, for the audience of the mesh.
    pub fn pod_token(&self, token: &str, account: (&str, &str), pod: (&str, &str)) {
        let (namespace, account) = account;
        let (pod, uid) = pod;
        self.token(
            token,
            json!({"authenticated": true, "audiences": ["mesh-lite"], "user": {
                "username": format!("system:serviceaccount:{namespace}:{account}"),
                "uid": "00000000-0000-4000-9000-000000000001",
                "groups": ["system:serviceaccounts",
                    format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
                "extra": {"authentication.kubernetes.io/pod-name": [pod],
                    "authentication.kubernetes.io/pod-uid": [uid]}}}),
        );
    }

    /// The token is none any more: what a deleted pod's becomes.
    pub fn forget_token(&self, token: &str) {
        self.shared.state().tokens.remove(token);
    }

    /// A page at a path of its own: `/openid/v1/jwks`.
    pub fn page(&self, path: &str, document: Value) {
        self.shared.state().pages.insert(path.to_owned(), document);
    }

    /// Kinds of this plural are not served, nor named in discovery.
    pub fn unserve(&self, plural: &str) {
        self.shared.state().unserved.push(plural.to_owned());
    }

    /// Requests of `method` (`"*"`: any; `"WATCH"`: watches alone) whose path begins with `path`,
    /// from now on.
    /// Watches that run go on: see [`ApiServer::end_watches`].
    pub fn trouble(&self, method: &str, path: &str, trouble: Trouble) {
        let rule = (method.to_owned(), path.to_owned(), trouble);
        self.shared.state().troubles.push(rule);
    }

    /// No trouble any more. Requests that hang stay so.
    pub fn heal(&self) {
        self.shared.state().troubles.clear();
    }

    /// Every running watch ends, as it does after its time.
    pub fn end_watches(&self) {
        self.shared.signal(|signal| signal.ended += 1);
    }

    /// Every running watch ends with 410, and so does a watch from any version until now.
    pub fn expire_watches(&self) {
        self.shared.change(|state| state.store.forget());
        self.shared.signal(|signal| signal.expired += 1);
    }

    /// A bookmark to every watch that takes them.
    pub fn bookmark(&self) {
        self.shared.signal(|signal| signal.bookmarks += 1);
    }

    /// All calls so far, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.state().calls.iter().cloned().collect()
    }

    pub fn forget_calls(&self) {
        self.shared.state().calls.clear();
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The row of a kind by its name alone; the first group that has it.
fn named(kind: &str) -> Kind {
    let mut rows = kinds::all().into_iter();
    rows.find(|row| row.kind == kind)
        .unwrap_or_else(|| panic!("the scripted API server has no {kind}"))
}

fn write_kubeconfig(path: &Path, address: SocketAddr) {
    let document = json!({"apiVersion": "v1", "kind": "Config", "current-context": "scripted",
        "clusters": [{"name": "scripted", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "scripted", "user": {"token": "scripted"}}],
        "contexts": [{"name": "scripted",
            "context": {"cluster": "scripted", "user": "scripted"}}]});
    fs::write(path, document.to_string()).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
}

/// All that requests and the test change.
#[derive(Debug, Default)]
struct State {
    store: Store,
    tokens: HashMap<String, Value>,
    pages: HashMap<String, Value>,
    unserved: Vec<String>,
    troubles: Vec<(String, String, Trouble)>,
    calls: VecDeque<Call>,
}

/// What wakes watches.
#[derive(Debug, Clone, Default)]
struct Signal {
    revision: u64,
    bookmarks: u64,
    ended: u64,
    expired: u64,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: tokio::sync::watch::Sender<Signal>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Does `work` and wakes watches; what they wait with, as of now.
    fn change<T>(
        &self,
        work: impl FnOnce(&mut State) -> T,
    ) -> (T, tokio::sync::watch::Receiver<Signal>) {
        let (done, revision) = {
            let mut state = self.state();
            let done = work(&mut state);
            (done, state.store.revision)
        };
        let receiver = self.wake.subscribe();
        self.wake.send_if_modified(|signal| {
            let newer = revision > signal.revision;
            signal.revision = signal.revision.max(revision);
            newer
        });
        (done, receiver)
    }

    fn signal(&self, work: impl FnOnce(&mut Signal)) {
        self.wake.send_modify(work);
    }

    fn record(&self, call: Call) -> Option<Trouble> {
        let mut state = self.state();
        let trouble = state.troubles.iter().find(|(method, path, _)| {
            let is_watch = method == "WATCH" && call.query.contains("watch=true");
            (method == "*" || is_watch || *method == call.method) && call.path.starts_with(path)
        });
        let trouble = trouble.map(|(_, _, trouble)| *trouble);
        if state.calls.len() == MAX_CALLS {
            state.calls.pop_front();
        }
        state.calls.push_back(call);
        trouble
    }

    /// Changes, the newest revision that is forgotten, the newest there is.
    fn changes_since(&self, revision: u64) -> (Vec<Change>, u64, u64) {
        let state = self.state();
        let changes = state.store.changes_since(revision);
        (changes, state.store.forgotten, state.store.revision)
    }

    fn present(&self, kind: Kind, namespace: &str) -> (Vec<Arc<Value>>, u64) {
        let state = self.state();
        (state.store.list(kind, namespace), state.store.revision)
    }
}
