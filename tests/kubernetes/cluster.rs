//! A cluster as the tests talk to it: objects as JSON values, and nothing of the mesh's own code.

#![allow(dead_code, reason = "each file of tests uses its part of this")]

use std::fs;
use std::path::{Path, PathBuf};

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch};
use kube::api::{PatchParams, PostParams};
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::discovery::{Scope, pinned_kind};
use mesh_lite_test_support::envtest::Cluster;
use mesh_lite_test_support::eventually;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Who owns the fields that the tests apply.
const MANAGER: &str = "mesh-lite-tests";

/// Calls of somebody with every right.
pub(crate) struct Kube {
    pub(crate) cluster: Cluster,
    /// For kubeconfigs and volumes; removed with the cluster.
    pub(crate) directory: TempDir,
    runtime: Runtime,
    client: Client,
}

impl Kube {
    pub(crate) fn connect(cluster: Cluster) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = Runtime::new().unwrap();
        let client = runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            Client::try_from(config.unwrap()).unwrap()
        });
        Self {
            cluster,
            directory: tempfile::tempdir().unwrap(),
            runtime,
            client,
        }
    }

    /// The address of an object's kind; its namespace is ignored where the kind has none.
    fn api(&self, object: &Value) -> kube::Result<Api<DynamicObject>> {
        self.api_by(&self.client, object)
    }

    fn api_by(&self, client: &Client, object: &Value) -> kube::Result<Api<DynamicObject>> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let api_version = text(&object["apiVersion"]);
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let kind = GroupVersionKind::gvk(group, version, &text(&object["kind"]));
        let found = self.runtime.block_on(pinned_kind(&self.client, &kind));
        let (resource, capabilities) = found?;
        let namespace = text(&object["metadata"]["namespace"]);
        Ok(match capabilities.scope {
            Scope::Namespaced if !namespace.is_empty() => {
                Api::namespaced_with(client.clone(), &namespace, &resource)
            }
            _ => Api::all_with(client.clone(), &resource),
        })
    }

    /// Server-side apply; as it is then.
    pub(crate) fn apply(&self, object: &Value) -> kube::Result<Value> {
        self.apply_with(object, PatchParams::apply(MANAGER).force())
    }

    /// Server-side apply that changes nothing.
    pub(crate) fn apply_dry(&self, object: &Value) -> kube::Result<Value> {
        self.apply_with(object, PatchParams::apply(MANAGER).force().dry_run())
    }

    fn apply_with(&self, object: &Value, how: PatchParams) -> kube::Result<Value> {
        let api = self.api(object)?;
        let name = object["metadata"]["name"].as_str().unwrap();
        let applied = self
            .runtime
            .block_on(api.patch(name, &how, &Patch::Apply(object)));
        applied.map(value)
    }

    /// As [`Kube::apply`], of what must be taken.
    pub(crate) fn put(&self, object: &Value) -> Value {
        self.apply(object)
            .unwrap_or_else(|error| panic!("{error}\n{object}"))
    }

    pub(crate) fn create(&self, object: &Value) -> kube::Result<Value> {
        self.create_with(object, &PostParams::default())
    }

    pub(crate) fn create_dry(&self, object: &Value) -> kube::Result<Value> {
        let how = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        self.create_with(object, &how)
    }

    fn create_with(&self, object: &Value, how: &PostParams) -> kube::Result<Value> {
        let wanted: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let api = self.api(object)?;
        self.runtime.block_on(api.create(how, &wanted)).map(value)
    }

    /// What `kubectl replace` does.
    pub(crate) fn replace(&self, object: &Value) -> kube::Result<Value> {
        let wanted: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        let how = PostParams::default();
        let api = self.api(object)?;
        self.runtime
            .block_on(api.replace(name, &how, &wanted))
            .map(value)
    }

    /// A merge patch of the object's subresource, or of itself if that is empty.
    pub(crate) fn merge(
        &self,
        object: &Value,
        subresource: &str,
        patch: &Value,
    ) -> kube::Result<Value> {
        let api = self.api(object)?;
        let name = object["metadata"]["name"].as_str().unwrap();
        let how = PatchParams::default();
        let patch = Patch::Merge(patch);
        let patched = match subresource {
            "" => self.runtime.block_on(api.patch(name, &how, &patch)),
            "status" => self.runtime.block_on(api.patch_status(name, &how, &patch)),
            other => panic!("{other}"),
        };
        patched.map(value)
    }

    /// The object of the same kind, namespace and name, as it is now.
    pub(crate) fn get(&self, object: &Value) -> kube::Result<Value> {
        let api = self.api(object)?;
        let name = object["metadata"]["name"].as_str().unwrap();
        self.runtime.block_on(api.get(name)).map(value)
    }

    pub(crate) fn exists(&self, object: &Value) -> bool {
        self.get(object).is_ok()
    }

    /// Objects of a kind in a namespace whose labels match.
    pub(crate) fn list(&self, kind: &Value, labels: &str) -> Vec<Value> {
        let api = self.api(kind).unwrap();
        let list = ListParams::default().labels(labels);
        let found = self.runtime.block_on(api.list(&list)).unwrap();
        found.items.into_iter().map(value).collect()
    }

    pub(crate) fn delete(&self, object: &Value) {
        let Ok(api) = self.api(object) else { return };
        let name = object["metadata"]["name"].as_str().unwrap();
        // Pods that no kubelet runs go at once this way, and so do those that one runs.
        let how = DeleteParams {
            grace_period_seconds: Some(0),
            ..DeleteParams::background()
        };
        let _ = self.runtime.block_on(api.delete(name, &how));
    }

    /// A token of a service account, for the audiences given (none: the API server's), bound to a
    /// pod if one is given.
    pub(crate) fn token(
        &self,
        account: (&str, &str),
        audiences: &[&str],
        pod: Option<&Value>,
    ) -> String {
        let (namespace, name) = account;
        let named = reference("v1", "ServiceAccount", namespace, name);
        let bound = pod.map(|pod| {
            json!({"kind": "Pod", "apiVersion": "v1",
                "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]})
        });
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"audiences": audiences, "expirationSeconds": 3600,
                "boundObjectRef": bound}});
        let api = self.api(&named).unwrap();
        eventually(&format!("a token of {namespace}/{name}"), || {
            let how = PostParams::default();
            let made = api.create_subresource::<Value, Value>("token", name, &how, &request);
            let made = self
                .runtime
                .block_on(made)
                .map_err(|error| error.to_string())?;
            let token = made["status"]["token"].as_str().map(str::to_owned);
            token.ok_or_else(|| made.to_string())
        })
    }

    /// A kubeconfig of a service account: whoever uses it has that account's rights alone.
    pub(crate) fn kubeconfig_of(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.token((namespace, account), &[], None);
        let path = self.directory.path().join(format!("{account}.kubeconfig"));
        fs::write(&path, self.kubeconfig_with(&token).to_string()).unwrap();
        path
    }

    fn kubeconfig_with(&self, token: &str) -> Value {
        let admin = Kubeconfig::read_from(self.cluster.kubeconfig()).unwrap();
        let mut document = serde_json::to_value(&admin).unwrap();
        for user in document["users"].as_array_mut().unwrap() {
            user["user"] = json!({"token": token});
        }
        document
    }

    /// As [`Kube::create`], by whoever has this token.
    pub(crate) fn create_as(&self, token: &str, object: &Value) -> kube::Result<Value> {
        let kubeconfig = serde_json::from_value(self.kubeconfig_with(token)).unwrap();
        let client = self.runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
            Client::try_from(config.unwrap()).unwrap()
        });
        let wanted: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let api = self.api_by(&client, object)?;
        let how = PostParams::default();
        self.runtime.block_on(api.create(&how, &wanted)).map(value)
    }

    /// A namespace of this test's own, with labels.
    pub(crate) fn namespace(&self, labels: &Value) -> Value {
        let made = self.create(&json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"generateName": "mesh-lite-test-", "labels": labels}}));
        let made = made.unwrap();
        if self.cluster.has_controllers() {
            // Pods of a namespace are refused until its service account is there.
            let account = reference("v1", "ServiceAccount", name_of(&made), "default");
            eventually("the namespace has its service account", || {
                self.get(&account).map_err(|error| error.to_string())
            });
        }
        made
    }
}

fn value(object: DynamicObject) -> Value {
    serde_json::to_value(object).unwrap()
}

/// An object of which only kind and name are known.
pub(crate) fn reference(api_version: &str, kind: &str, namespace: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind,
        "metadata": {"namespace": namespace, "name": name}})
}

pub(crate) fn name_of(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// The documents of a YAML text.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap()
}

/// Text of a refusal: what `kubectl` shows.
pub(crate) fn refusal(result: kube::Result<Value>) -> String {
    match result {
        Err(kube::Error::Api(status)) => status.message.clone(),
        other => panic!("no refusal: {other:?}"),
    }
}

/// Writes what a projected volume would hold.
pub(crate) fn write_volume(directory: &Path, files: &[(String, Vec<u8>)]) {
    fs::create_dir_all(directory).unwrap();
    mesh_lite_test_support::kubelet::project(directory, files, None);
}
