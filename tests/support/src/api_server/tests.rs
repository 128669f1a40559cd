//! The scripted API server as the `kube` client sees it.

use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::{ApiServer, Trouble};

fn client(server: &ApiServer) -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = kube::Config::new(format!("http://{}", server.address()).parse().unwrap());
    Client::try_from(config).unwrap()
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": name}},
        "spec": {"containers": [{"name": "app", "image": "app"}]}})
}

/// Names that a watcher has seen come (`+`) and go (`-`), until `wanted` was seen.
async fn seen(
    events: &mut (impl futures::Stream<Item = watcher::Result<watcher::Event<Pod>>> + Unpin),
    wanted: &str,
) -> Vec<String> {
    let mut names = Vec::new();
    let all = async {
        while let Some(event) = events.next().await {
            let name = match event {
                Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                    format!("+{}", pod.name_any())
                }
                Ok(watcher::Event::Delete(pod)) => format!("-{}", pod.name_any()),
                Ok(watcher::Event::Init) => "init".to_owned(),
                Ok(watcher::Event::InitDone) => "done".to_owned(),
                Err(error) => format!("error {error}"),
            };
            names.push(name);
            if names.iter().any(|name| name == wanted) {
                return;
            }
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(30), all).await;
    assert!(done.is_ok(), "{wanted} was not seen: {names:?}");
    names
}

async fn watches(config: watcher::Config) {
    let mut server = ApiServer::start();
    server.put(pod("web"));
    let pods: Api<Pod> = Api::all(client(&server));
    let mut events = Box::pin(watcher(pods, config));
    assert_eq!(seen(&mut events, "done").await, ["init", "+web", "done"]);
    server.put(pod("api"));
    assert_eq!(seen(&mut events, "+api").await, ["+api"]);
    server.remove("Pod", "shop", "web");
    assert_eq!(seen(&mut events, "-web").await, ["-web"]);
    // a watch that ended goes on where it was
    server.end_watches();
    server.put(pod("late"));
    assert_eq!(seen(&mut events, "+late").await, ["+late"]);
    // one that is too old begins anew
    server.expire_watches();
    let again = seen(&mut events, "done").await;
    assert!(
        again.contains(&"+api".to_owned()) && !again.contains(&"+web".to_owned()),
        "{again:?}"
    );
    // and so does one after an outage
    tokio::task::block_in_place(|| {
        server.stop();
        server.put(pod("unseen"));
        server.start_again();
    });
    let again = seen(&mut events, "+unseen").await;
    assert!(
        again.iter().any(|event| event.starts_with("error")) || again.len() == 1,
        "{again:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_what_comes_goes_expires_and_returns() {
    watches(watcher::Config::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_streams_its_first_list_sees_the_same() {
    watches(watcher::Config::default().streaming_lists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_no_longer_matches_a_selector_goes() {
    let server = ApiServer::start();
    server.put(pod("web"));
    let pods: Api<Pod> = Api::namespaced(client(&server), "shop");
    let config = watcher::Config::default().labels("app in (web, api),app!=api,!gone");
    let mut events = Box::pin(watcher(pods, config));
    assert_eq!(seen(&mut events, "done").await, ["init", "+web", "done"]);
    server.put(pod("api"));
    let mut relabelled = pod("web");
    relabelled["metadata"]["labels"]["gone"] = json!("");
    server.put(relabelled);
    assert_eq!(seen(&mut events, "-web").await, ["-web"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_comes_in_the_pages_asked_for() {
    let server = ApiServer::start();
    for number in 0..5 {
        server.put(pod(&format!("pod-{number}")));
    }
    let pods: Api<Pod> = Api::all(client(&server));
    let first = pods.list(&ListParams::default().limit(3)).await.unwrap();
    let token = first.metadata.continue_.clone().unwrap();
    let rest = ListParams::default().limit(3).continue_token(&token);
    let rest = pods.list(&rest).await.unwrap();
    assert_eq!((first.items.len(), rest.items.len()), (3, 2));
    assert_eq!(rest.metadata.continue_, None);
    let one = ListParams::default().fields("metadata.name=pod-4");
    assert_eq!(pods.list(&one).await.unwrap().items.len(), 1);
    let bare = pods.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(bare.items.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_over_another_version_is_a_conflict() {
    let server = ApiServer::start();
    let maps: Api<ConfigMap> = Api::namespaced(client(&server), "shop");
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "m"}})).unwrap();
    let mut first = maps.create(&PostParams::default(), &map).await.unwrap();
    let code = |result: kube::Result<ConfigMap>| match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(maps.create(&PostParams::default(), &map).await), 409);
    first.data = Some([("a".to_owned(), "1".to_owned())].into());
    maps.replace("m", &PostParams::default(), &first)
        .await
        .unwrap();
    assert_eq!(
        code(maps.replace("m", &PostParams::default(), &first).await),
        409
    );
    assert_eq!(code(maps.get("other").await), 404);
    maps.delete("m", &kube::api::DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(code(maps.get("m").await), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_the_rest_of_an_object_are_written_apart() {
    let server = ApiServer::start();
    server.put(
        json!({"apiVersion": "mesh-lite.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "shop"}, "spec": {"action": "ALLOW"}}),
    );
    let kind = ApiResource {
        group: "mesh-lite.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "mesh-lite.io/v1".to_owned(),
        kind: "AuthorizationPolicy".to_owned(),
        plural: "authorizationpolicies".to_owned(),
    };
    let policies: Api<DynamicObject> = Api::namespaced_with(client(&server), "shop", &kind);
    let condition = |value: &str| {
        json!({"apiVersion": "mesh-lite.io/v1", "kind": "AuthorizationPolicy",
            "spec": {"action": "DENY"},
            "status": {"conditions": [{"type": "Loaded", "status": value}]}})
    };
    let by = PatchParams::apply("test");
    for value in ["False", "True"] {
        let patch = Patch::Apply(condition(value));
        policies.patch_status("p", &by, &patch).await.unwrap();
    }
    let stored = server.get("AuthorizationPolicy", "shop", "p").unwrap();
    assert_eq!(stored["spec"]["action"], "ALLOW");
    assert_eq!(stored["metadata"]["generation"], 1);
    assert_eq!(
        stored["status"]["conditions"],
        json!([{"type": "Loaded", "status": "True"}])
    );
    let patch = Patch::Merge(json!({"spec": {"action": "AUDIT"}, "status": null}));
    policies
        .patch("p", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let stored = server.get("AuthorizationPolicy", "shop", "p").unwrap();
    assert_eq!(stored["spec"]["action"], "AUDIT");
    assert_eq!(stored["metadata"]["generation"], 2);
    assert_eq!(stored["status"]["conditions"][0]["status"], "True");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_what_the_script_says_for_its_audience_alone() {
    let server = ApiServer::start();
    server.pod_token("bound", ("shop", "web"), ("web-1", "uid-1"));
    let reviews: Api<TokenReview> = Api::all(client(&server));
    let review = async |token: &str, audience: &str| {
        let asked = json!({"metadata": {}, "spec": {"token": token, "audiences": [audience]}});
        let asked: TokenReview = serde_json::from_value(asked).unwrap();
        let answer = reviews
            .create(&PostParams::default(), &asked)
            .await
            .unwrap();
        answer.status.unwrap()
    };
    let good = review("bound", "mesh-lite").await;
    assert_eq!(good.authenticated, Some(true));
    let user = good.user.unwrap();
    assert_eq!(
        user.username.as_deref(),
        Some("system:serviceaccount:shop:web")
    );
    for (token, audience) in [("bound", "other"), ("garbage", "mesh-lite")] {
        let bad = review(token, audience).await;
        assert_eq!(bad.authenticated, None, "{token} {audience}");
        assert!(bad.error.is_some());
    }
    server.forget_token("bound");
    assert_eq!(review("bound", "mesh-lite").await.authenticated, None);
    assert_eq!(server.calls().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_is_where_the_script_puts_it() {
    let server = ApiServer::start();
    let client = client(&server);
    let pods: Api<Pod> = Api::all(client.clone());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    server.trouble("GET", "/api/v1/pods", Trouble::Status(403));
    server.trouble("*", "/api/v1/namespaces", Trouble::Hang);
    let refused = pods.list(&ListParams::default()).await.unwrap_err();
    assert!(refused.to_string().contains("forbidden"), "{refused}");
    let list = ListParams::default();
    let hangs = tokio::time::timeout(Duration::from_millis(300), namespaces.list(&list)).await;
    assert!(hangs.is_err());
    server.heal();
    pods.list(&ListParams::default()).await.unwrap();
    namespaces.list(&list).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kind_that_is_not_served_is_in_no_discovery() {
    let server = ApiServer::start();
    let client = client(&server);
    let groups = client.list_api_groups().await.unwrap();
    assert!(
        groups
            .groups
            .iter()
            .any(|group| group.name == "mesh-lite.io")
    );
    let beta = "certificates.k8s.io/v1beta1";
    client.list_api_group_resources(beta).await.unwrap();
    server.unserve("clustertrustbundles");
    client.list_api_group_resources(beta).await.unwrap_err();
    assert!(client.apiserver_version().await.is_ok());
}

#[test]
fn captured_lists_and_objects_are_loaded_with_their_kind() {
    let server = ApiServer::start();
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut list = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList",
        "items": [{"metadata": {"name": "a", "namespace": "shop"}},
            {"metadata": {"name": "b", "namespace": "shop"}}]});
    std::fs::write(file.path(), list.to_string()).unwrap();
    server.load(file.path());
    assert_eq!(server.list("EndpointSlice", "").len(), 2);
    list = pod("web");
    std::fs::write(file.path(), list.to_string()).unwrap();
    server.load(file.path());
    assert_eq!(
        server.get("Pod", "shop", "web").unwrap()["metadata"]["generation"],
        1
    );
}

#[test]
fn text_of_a_secret_becomes_data() {
    for (plain, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v")] {
        assert_eq!(super::base64(plain.as_bytes()), encoded);
    }
}
