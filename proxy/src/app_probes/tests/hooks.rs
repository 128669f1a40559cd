//! Who may have a hook run, and what comes of one.

use std::{collections::BTreeMap, net::IpAddr};

use mesh_lite_proto::workload_directory::{NODE_NAMESPACE, Service, ServiceName};

use tokio::io::AsyncWriteExt;

use super::*;
use crate::admin::{AdminServer, Pages};

/// A node that the directory knows, as the control plane answers for its InternalIP.
const KNOWN_NODE: [u8; 4] = [192, 168, 1, 10];
const POD: [u8; 4] = [10, 0, 0, 2];
const SERVICE: [u8; 4] = [10, 0, 0, 3];
const NOBODY: [u8; 4] = [10, 0, 0, 4];
/// In a namespace that somebody called after nodes.
const NODE_LIKE: [u8; 4] = [10, 0, 0, 5];
const NO_ANSWER: [u8; 4] = [10, 0, 0, 6];

fn facts() -> Directory {
    let service = Answer::Service(Service {
        name: ServiceName {
            namespace: "shop".to_owned(),
            name: "api".to_owned(),
        },
        ports: Vec::new(),
        endpoints: BTreeMap::new(),
        session_affinity: false,
    });
    let nobody = Answer::Unknown {
        reason: "nobody".to_owned(),
    };
    directory(&[
        (KNOWN_NODE, unmeshed(KNOWN_NODE, NODE_NAMESPACE, "node-1")),
        (POD, unmeshed(POD, "shop", "guest")),
        (SERVICE, service),
        (NOBODY, nobody),
        (NODE_LIKE, unmeshed(NODE_LIKE, "node", "node-1")),
    ])
}

fn hook(application: SocketAddr) -> AppProber {
    let mut prober = prober(ProbeKind::PreStop, get(Scheme::Http, application, "/quit"));
    prober.directory = facts();
    prober
}

async fn ask_from(prober: &AppProber, by: impl Into<IpAddr>) -> Result<Outcome, NotAsked> {
    let asked = Asked {
        at: "127.0.0.1:15021".parse().unwrap(),
        by: (by, 40000).into(),
    };
    let path = name(ProbeKind::PreStop).to_string();
    prober.ask(&path, asked).await
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn a_hook_is_run_for_a_node_at_the_address_that_the_cluster_names() {
    let mut application = Application::answering(OK).await;
    let prober = hook(application.address);
    assert_eq!(
        ask_from(&prober, KNOWN_NODE).await.unwrap().status.as_u16(),
        200
    );
    let request = application.request().await;
    assert!(request.contains("user-agent: kube-lifecycle/"), "{request}");
}

/// The directory of the test answers nobody it does not know: as in an outage.
#[tokio::test]
async fn a_hook_is_run_for_the_pods_node_also_while_the_control_plane_is_away() {
    let application = Application::answering(OK).await;
    let prober = hook(application.address);
    let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
    let v6: IpAddr = "fd77::1".parse().unwrap();
    for node in [NODE.into(), mapped, v6] {
        let outcome = ask_from(&prober, node).await;
        assert_eq!(outcome.unwrap().status.as_u16(), 200, "{node}");
    }
}

#[tokio::test]
async fn a_hook_is_run_for_no_pod_no_service_and_nobody_whom_the_directory_has_no_answer_for() {
    for capture in [Listening::OnThePod, Listening::OnLoopback] {
        let application = Application::answering(OK).await;
        let mut prober = hook(application.address);
        prober.listening = capture;
        for (by, who) in [
            (POD, "shop/guest"),
            (SERVICE, "shop/api"),
            (NODE_LIKE, "node/node-1"),
            (NOBODY, "nobody that the directory knows"),
        ] {
            let refused = ask_from(&prober, by).await.unwrap_err();
            assert!(
                matches!(&refused, NotAsked::NotThePodsNode(_, name) if name == who),
                "{refused:?}"
            );
        }
        let unanswered = ask_from(&prober, NO_ANSWER).await;
        assert!(
            matches!(unanswered, Err(NotAsked::HookFailed(_))),
            "{unanswered:?}"
        );
        assert_eq!(application.requests(), 0);
    }
}

#[tokio::test]
async fn every_answer_of_the_application_is_a_success_of_the_hook() {
    let application = Application::answering("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").await;
    let prober = hook(application.address);
    assert_eq!(ask_from(&prober, NODE).await.unwrap().status.as_u16(), 200);
}

#[tokio::test]
async fn a_hook_that_nobody_listens_for_has_failed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let failed = ask_from(&hook(address), NODE).await;
    assert!(matches!(failed, Err(NotAsked::HookFailed(_))), "{failed:?}");
}

#[test]
fn addresses_of_the_node_are_a_short_list_of_addresses() {
    assert_eq!("".parse(), Ok(NodeAddresses::default()));
    assert_eq!("\n".parse(), Ok(NodeAddresses::default()));
    let both: NodeAddresses = "192.168.1.10,fd00::10".parse().unwrap();
    assert!(both.contains("::ffff:192.168.1.10".parse().unwrap()));
    assert!(both.contains("fd00::10".parse().unwrap()));
    assert!(!both.contains("192.168.1.1".parse().unwrap()));
    for text in [
        "node-1",
        "10.0.0.0/8",
        "10.0.0.1,",
        ",",
        "10.0.0.1 10.0.0.2",
    ] {
        assert!(text.parse::<NodeAddresses>().is_err(), "{text}");
    }
    assert!("10.0.0.1,".repeat(17).parse::<NodeAddresses>().is_err());
}

/// Over HTTP the kubelet takes every answer for a success.
#[tokio::test]
async fn a_hook_that_is_not_run_gets_no_answer_at_all() {
    let application = Application::answering(OK).await;
    let mut prober = hook(application.address);
    // the test asks from 127.0.0.1
    prober.directory = directory(&[([127, 0, 0, 1], unmeshed([127, 0, 0, 1], "shop", "guest"))]);
    let address = served(prober).await;
    assert_eq!(answer(address, "/app-probes/web/pre-stop").await, "");
    assert_eq!(answer(address, "/app-probes/other/pre-stop").await, "");
    let probe = answer(address, "/app-probes/web/liveness").await;
    assert!(probe.starts_with("HTTP/1.1 404 "), "{probe}");
    assert_eq!(application.requests(), 0);
}

async fn served(prober: AppProber) -> SocketAddr {
    let metrics = Metrics::new(&MetricsPrefix::default(), 10);
    let at = "127.0.0.1:0".parse().unwrap();
    let server = AdminServer::bind(at, Pages::default(), &metrics).await;
    let server = server.unwrap().with_app_probes(&Arc::new(prober));
    let address = server.local_addr().unwrap();
    tokio::spawn(server.serve());
    address
}

async fn answer(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
