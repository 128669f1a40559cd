use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

use crate::eventually;

#[test]
fn a_real_api_server_starts_ends_and_starts_again() {
    let mut cluster = crate::needs_api_server!("a_real_api_server_starts_ends_and_starts_again");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
        let options = KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
        kube::Client::try_from(config.unwrap()).unwrap()
    });
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let wanted = json!({"metadata": {"generateName": "mesh-lite-envtest-"}});
    let wanted: Namespace = serde_json::from_value(wanted).unwrap();
    let made = runtime.block_on(namespaces.create(&PostParams::default(), &wanted));
    let name = made.unwrap().metadata.name.unwrap();
    if cluster.has_controllers() {
        let accounts: Api<ServiceAccount> = Api::namespaced(client, &name);
        eventually("the namespace has its service account", || {
            runtime.block_on(accounts.get("default"))
        });
    }
    if cluster.is_own() {
        let list = ListParams::default();
        cluster.kill_api_server();
        runtime.block_on(namespaces.list(&list)).unwrap_err();
        cluster.start_api_server_again();
        runtime.block_on(namespaces.get(&name)).unwrap();
    }
    let options = kube::api::DeleteParams::default();
    runtime
        .block_on(namespaces.delete(&name, &options))
        .unwrap();
}
