//! What a stream holds on to while its client takes nothing.

use std::{net::IpAddr, sync::Weak};

use super::*;

/// Each is some 50 KiB of answers; together they are more than a client's window of 2 MiB.
const CHANGES: usize = 90;
const NAMES: u8 = 250;
/// Longer than changes are put together. The clock is a paused one.
const A_WHILE: Duration = Duration::from_millis(500);

/// Every workload has the port; so another port changes every answer.
fn workloads(tunnel_port: u16) -> Vec<Workload> {
    let pod = |number: u8| Workload {
        name: format!("{}/{}-{number}", "n".repeat(60), "x".repeat(50))
            .parse()
            .unwrap(),
        addresses: vec![IpAddr::from([10, 0, 0, number])],
        tunnel_port: Some(tunnel_port),
        ..web(None)
    };
    let pods = (0..NAMES).map(pod);
    std::iter::once(web(None)).chain(pods).collect()
}

fn every_address() -> wire::DirectoryRequest {
    let name = |number: u8| wire::DirectoryName {
        name: Some(wire::directory_name::Name::Address(vec![10, 0, 0, number])),
    };
    wire::DirectoryRequest {
        subscribe: (0..NAMES).map(name).collect(),
        ..wire::DirectoryRequest::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_client_takes_nothing_holds_no_old_snapshot() {
    let trust = trust(&[&root()]);
    let peer = peer(&trust);
    let served = served(trust, Some(peer)).await;
    let mut stalled = WorkloadDirectoryClient::new(served.channel.clone())
        .watch(saying(every_address()))
        .await
        .unwrap()
        .into_inner();
    stalled.message().await.unwrap().unwrap();
    let mut old: Vec<Weak<WorkloadIndex>> = Vec::new();
    for change in 0..CHANGES {
        let before = Arc::clone(&served.workloads.borrow());
        old.push(Arc::downgrade(&before));
        let next = before.successor(workloads(2000 + u16::try_from(change).unwrap()), Vec::new());
        served.publish_workloads(next);
        drop(before);
        time::sleep(A_WHILE).await;
    }
    let held = old.iter().filter(|index| index.strong_count() > 0).count();
    assert_eq!(held, 0, "snapshots that nobody needs");
    // and it does arrive at the newest one
    let newest = served.workloads.borrow().revision();
    let mut revision = 0;
    while revision < newest {
        revision = stalled.message().await.unwrap().unwrap().revision;
    }
}
