use std::{net::SocketAddr, sync::Arc};

use mesh_lite_proto::svid::LeafFacts;
use tokio::{sync::watch, time};
use tonic::Code;

use super::*;
use crate::{
    caller::{Peer, Standing},
    clock::from_unix_seconds,
};

fn caller(address: [u8; 4], key: Option<&[u8]>) -> Caller {
    let leaf = LeafFacts {
        id: "spiffe://mesh.test/ns/shop/sa/web".parse().unwrap(),
        serial: "01".parse().unwrap(),
        not_before: from_unix_seconds(0),
        not_after: from_unix_seconds(1),
        common_name: None,
    };
    let peer = |key: &[u8]| {
        Arc::new(Peer {
            leaf,
            key: KeyPrint::of(key),
            root: KeyPrint::of(b"root"),
        })
    };
    Caller {
        address: SocketAddr::from((address, 40_000)),
        peer: key.map(peer),
        closing: watch::channel(false).1,
        proved: watch::Sender::new(Standing::Unproved),
    }
}

fn opens(opens: &StreamOpens, caller: &Caller, count: u32) -> u32 {
    let admitted = |_: &u32| match opens.admit(caller) {
        Ok(()) => true,
        Err(status) => {
            assert_eq!(status.code(), Code::ResourceExhausted);
            false
        }
    };
    u32::try_from((0..count).filter(admitted).count()).unwrap()
}

/// SDS-S21
#[tokio::test(start_paused = true)]
async fn lets_a_caller_open_all_its_streams_at_once_and_then_ten_a_second() {
    let limits = StreamOpens::default();
    let web = caller([10, 0, 0, 1], Some(b"web"));
    assert_eq!(opens(&limits, &web, 300), OPEN_BURST);
    time::advance(Duration::from_secs(2)).await;
    assert_eq!(opens(&limits, &web, 300), 20);
    // the same key from elsewhere is the same caller
    let moved = caller([10, 0, 0, 2], Some(b"web"));
    assert_eq!(opens(&limits, &moved, 1), 0);
}

/// SDS-S21: many workloads have one identity, and one of them must not starve the others.
#[tokio::test(start_paused = true)]
async fn counts_each_key_by_itself_and_callers_without_one_by_address() {
    let limits = StreamOpens::default();
    assert_eq!(
        opens(&limits, &caller([10, 0, 0, 1], Some(b"web")), 300),
        256
    );
    assert_eq!(
        opens(&limits, &caller([10, 0, 0, 1], Some(b"other")), 300),
        256
    );
    assert_eq!(opens(&limits, &caller([10, 0, 0, 1], None), 300), 256);
    assert_eq!(opens(&limits, &caller([10, 0, 0, 1], None), 1), 0);
    assert_eq!(opens(&limits, &caller([10, 0, 0, 2], None), 1), 1);
}

#[tokio::test(start_paused = true)]
async fn remembers_no_more_callers_than_there_is_room_for() {
    let limits = StreamOpens::default();
    let numbered = |number: usize| caller([10, 0, 0, 1], Some(&number.to_be_bytes()));
    for number in 0..MAX_CALLERS {
        assert_eq!(opens(&limits, &numbered(number), 1), 1);
    }
    let one_more = numbered(MAX_CALLERS);
    assert_eq!(opens(&limits, &one_more, 1), 0);
    // who is known is not in the way
    assert_eq!(opens(&limits, &numbered(0), 1), 1);
    time::advance(FULL_AFTER).await;
    assert_eq!(opens(&limits, &one_more, 1), 1);
    assert_eq!(limits.allowances.lock().unwrap().len(), 1);
}
