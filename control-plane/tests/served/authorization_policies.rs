use std::{collections::BTreeMap, net::IpAddr};

use mesh_lite_proto::{
    authorization::{Caller, Facts, PolicySnapshot, Verdict, decide},
    identity::WorkloadId,
    wire::mesh_lite::v1::{
        self as wire, Ack, Hello, Nack, PolicyRequest,
        authorization_policies_client::AuthorizationPoliciesClient, policy_request::Request,
    },
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::running::{Directories, Running, WORKLOADS, in_time};

const ALLOW_WEB: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: api, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  action: ALLOW
  rules:
  - from: [{source: {principals: [mesh.test/ns/shop/sa/web]}}]
    to: [{operation: {ports: ['8080']}}]
";

struct Stream {
    requests: mpsc::Sender<PolicyRequest>,
    responses: Streaming<wire::PolicySnapshot>,
}

fn request(request: Request) -> PolicyRequest {
    PolicyRequest {
        request: Some(request),
    }
}

impl Stream {
    async fn open(channel: Channel) -> Result<Self, Status> {
        Self::open_with(channel, request(Request::Hello(Hello { schema: 1 }))).await
    }

    async fn open_with(channel: Channel, first: PolicyRequest) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(256);
        requests.send(first).await.unwrap();
        let mut client = AuthorizationPoliciesClient::new(channel);
        let opening = client.watch(ReceiverStream::new(receiver));
        let responses = in_time("the stream opens", opening).await?.into_inner();
        Ok(Self {
            requests,
            responses,
        })
    }

    async fn next(&mut self) -> Result<PolicySnapshot, Status> {
        let next = in_time("a response", self.responses.message()).await?;
        Ok(next
            .expect("the stream ended without a status")
            .try_into()
            .unwrap())
    }

    async fn send(&self, message: Request) {
        self.requests.send(request(message)).await.unwrap();
    }
}

fn verdict(snapshot: &PolicySnapshot, caller: &str, port: u16) -> Verdict {
    let id: WorkloadId = format!("spiffe://mesh.test/ns/shop/sa/{caller}")
        .parse()
        .unwrap();
    let source: IpAddr = "10.0.0.1".parse().unwrap();
    decide(
        snapshot,
        &Facts {
            caller: Caller::Authenticated(&id),
            source,
            port,
        },
    )
    .verdict
}

#[tokio::test]
async fn sends_each_workload_the_policy_that_selects_it_and_every_change() {
    let directories = Directories::new();
    directories.write("policy.yaml", ALLOW_WEB);
    let running = Running::start_in(directories).await;
    let mut web = Stream::open(running.workload("shop/web").await)
        .await
        .unwrap();
    let mut api = Stream::open(running.workload("shop/api").await)
        .await
        .unwrap();
    assert_eq!(web.next().await.unwrap().policies.len(), 0);
    let first = api.next().await.unwrap();
    assert_eq!(verdict(&first, "web", 8080), Verdict::Allow);
    assert_eq!(verdict(&first, "web", 8081), Verdict::Deny);
    assert_eq!(verdict(&first, "guest", 8080), Verdict::Deny);
    api.send(Request::Ack(Ack {
        revision: first.revision,
    }))
    .await;
    running
        .wait_for_metric(
            "mesh_lite_control_plane_acknowledged_total{stream=\"policies\"}",
            1.0,
        )
        .await;

    running
        .directories
        .write("policy.yaml", &ALLOW_WEB.replace("sa/web", "sa/guest"));
    let second = api.next().await.unwrap();
    assert!(second.revision > first.revision);
    assert_eq!(verdict(&second, "web", 8080), Verdict::Deny);
    assert_eq!(verdict(&second, "guest", 8080), Verdict::Allow);
}

#[tokio::test]
async fn sends_nothing_when_nothing_of_its_content_changed() {
    let directories = Directories::new();
    directories.write("policy.yaml", ALLOW_WEB);
    let running = Running::start_in(directories).await;
    let mut api = Stream::open(running.workload("shop/api").await)
        .await
        .unwrap();
    let first = api.next().await.unwrap();
    // other documents change, and this one's end
    running
        .directories
        .write("policy.yaml", &format!("{ALLOW_WEB}# a comment\n"));
    running.directories.write(
        "other.yaml",
        &ALLOW_WEB.replace("namespace: shop", "namespace: other"),
    );
    running.directories.write(
        "evictions.yaml",
        "apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: {name: x, namespace: mesh-lite-system}\n\
         spec: {serial: 'abcdef'}\n",
    );
    // so the eviction, which is for everybody, is the next thing that comes
    let mut second = api.next().await.unwrap();
    assert_eq!(second.evictions.len(), 1);
    second.evictions.clear();
    second.revision = first.revision;
    assert_eq!(second, first);
}

#[tokio::test]
async fn counts_a_rejection_and_keeps_the_stream() {
    let directories = Directories::new();
    directories.write("policy.yaml", ALLOW_WEB);
    let running = Running::start_in(directories).await;
    let mut api = Stream::open(running.workload("shop/api").await)
        .await
        .unwrap();
    let first = api.next().await.unwrap();
    let nack = |revision| {
        Request::Nack(Nack {
            revision,
            reason: "schema 2\nforged".to_owned(),
        })
    };
    // of another revision it says nothing about this one
    api.send(nack(first.revision - 1)).await;
    api.send(nack(first.revision)).await;
    let series = "mesh_lite_control_plane_rejected_total{stream=\"policies\"}";
    running.wait_for_metric(series, 1.0).await;
    running
        .directories
        .write("policy.yaml", &ALLOW_WEB.replace("8080", "9090"));
    assert_eq!(
        verdict(&api.next().await.unwrap(), "web", 9090),
        Verdict::Allow
    );
    assert!(running.metric(series).await < 1.5);
}

/// A document that broke before the control plane ever read it might have been the one that denies.
#[tokio::test]
async fn denies_in_the_scope_of_a_policy_broken_at_start() {
    let directories = Directories::new();
    directories.write("policy.yaml", ALLOW_WEB);
    directories.write(
        "broken.yaml",
        "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {name: broken, namespace: shop}\n\
         spec: {selector: {matchLabels: {app: api}}, action: DENY, rules: [{form: []}]}\n",
    );
    let running = Running::start_in(directories).await;
    let mut api = Stream::open(running.workload("shop/api").await)
        .await
        .unwrap();
    let mut web = Stream::open(running.workload("shop/web").await)
        .await
        .unwrap();
    let denied = api.next().await.unwrap();
    assert_eq!(denied.broken.len(), 1);
    assert_eq!(verdict(&denied, "web", 8080), Verdict::Deny);
    assert_eq!(web.next().await.unwrap().broken.len(), 0);
    running.directories.remove("broken.yaml");
    assert_eq!(
        verdict(&api.next().await.unwrap(), "web", 8080),
        Verdict::Allow
    );
}

#[tokio::test]
async fn keeps_the_last_good_policy_when_its_document_breaks_later() {
    let directories = Directories::new();
    directories.write("policy.yaml", ALLOW_WEB);
    let running = Running::start_in(directories).await;
    let mut api = Stream::open(running.workload("shop/api").await)
        .await
        .unwrap();
    let first = api.next().await.unwrap();
    running
        .directories
        .write("policy.yaml", &ALLOW_WEB.replace("rules:", "rulse:"));
    let (_, text) = super::running::eventually("the fault is seen", async || {
        let ready = running.get("/readyz").await;
        ready.1.contains("rulse").then_some(ready)
    })
    .await;
    assert!(
        text.contains("its last good version stays in force"),
        "{text}"
    );
    running
        .directories
        .write("policy.yaml", &ALLOW_WEB.replace("8080", "9090"));
    // nothing was sent while it was broken: this is the second snapshot
    let second = api.next().await.unwrap();
    assert_eq!(verdict(&second, "web", 9090), Verdict::Allow);
    assert_eq!(verdict(&first, "web", 8080), Verdict::Allow);
}

#[tokio::test]
async fn follows_the_labels_of_the_workload() {
    let directories = Directories::new();
    directories.write("policy.yaml", ALLOW_WEB);
    let running = Running::start_in(directories).await;
    let mut web = Stream::open(running.workload("shop/web").await)
        .await
        .unwrap();
    assert_eq!(web.next().await.unwrap().policies.len(), 0);
    running.directories.write(
        "workloads.yaml",
        &WORKLOADS.replace("{app: web}", "{app: api}"),
    );
    assert_eq!(web.next().await.unwrap().policies.len(), 1);
}

#[tokio::test]
async fn ends_the_stream_of_a_workload_without_a_document() {
    let running = Running::start().await;
    let mut web = Stream::open(running.workload("shop/web").await)
        .await
        .unwrap();
    web.next().await.unwrap();
    running.directories.remove("workloads.yaml");
    let refused = web.next().await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("shop/web"), "{refused}");
}

#[tokio::test]
async fn refuses_strangers_and_streams_that_do_not_begin_with_hello() {
    let running = Running::start().await;
    let refused = Stream::open(running.anonymous().await).await.err().unwrap();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let channel = running.workload("shop/web").await;
    for first in [
        request(Request::Ack(Ack { revision: 1 })),
        PolicyRequest { request: None },
    ] {
        let mut stream = Stream::open_with(channel.clone(), first).await.unwrap();
        assert_eq!(
            stream.next().await.unwrap_err().code(),
            Code::InvalidArgument
        );
    }
    let mut stream = Stream::open(channel).await.unwrap();
    stream.next().await.unwrap();
    stream.send(Request::Hello(Hello { schema: 1 })).await;
    assert_eq!(
        stream.next().await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

/// Sidecars keep the last snapshot over a restart of theirs, and compare.
#[tokio::test]
async fn numbers_snapshots_upwards_over_a_restart() {
    let running = Running::start().await;
    let mut web = Stream::open(running.workload("shop/web").await)
        .await
        .unwrap();
    let before = web.next().await.unwrap();
    let running = Running::start_in(running.end().await).await;
    let mut web = Stream::open(running.workload("shop/web").await)
        .await
        .unwrap();
    let after = web.next().await.unwrap();
    assert!(after.revision > before.revision);
    assert_eq!(after.mutual_tls.ports, BTreeMap::new());
}
