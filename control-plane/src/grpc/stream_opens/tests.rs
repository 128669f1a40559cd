use std::{net::Ipv6Addr, sync::Arc};

use mesh_lite_proto::svid::LeafFacts;
use tokio::time;
use tonic::Code;

use super::*;
use crate::{
    caller::Peer, clock::from_unix_seconds, workload_attestation::join_token::StreamToken,
};

fn svid(key: &[u8]) -> StandingProof {
    let leaf = LeafFacts {
        id: "spiffe://mesh.test/ns/shop/sa/web".parse().unwrap(),
        serial: "01".parse().unwrap(),
        not_before: from_unix_seconds(0),
        not_after: from_unix_seconds(1),
        common_name: None,
    };
    StandingProof::Svid(Arc::new(Peer {
        leaf,
        key: KeyPrint::of(key),
        root: KeyPrint::of(b"root"),
    }))
}

fn token(text: &[u8]) -> StandingProof {
    StandingProof::StreamToken(StreamToken {
        workload: "shop/web".parse().unwrap(),
        expires: from_unix_seconds(1),
        print: KeyPrint::of(text),
    })
}

fn opens(opens: &StreamOpens, proof: &StandingProof, count: u32) -> u32 {
    let admitted = |_: &u32| match opens.admit(proof) {
        Ok(()) => true,
        Err(status) => {
            assert_eq!(status.code(), Code::ResourceExhausted);
            false
        }
    };
    u32::try_from((0..count).filter(admitted).count()).unwrap()
}

/// How many tries without a good proof are told why they fail.
fn tries(opens: &StreamOpens, address: impl Into<IpAddr>, count: u32) -> u32 {
    let address = address.into();
    let told = |_: &u32| {
        let status = opens.refuse(address, Status::unauthenticated("unknown token"));
        assert!(status.message().contains("unknown token"), "{status}");
        match status.code() {
            Code::Unauthenticated => true,
            code => {
                assert_eq!(code, Code::ResourceExhausted);
                false
            }
        }
    };
    u32::try_from((0..count).filter(told).count()).unwrap()
}

/// SDS-S21
#[tokio::test(start_paused = true)]
async fn lets_a_caller_open_all_its_streams_at_once_and_then_ten_a_second() {
    let limits = StreamOpens::default();
    for proof in [svid(b"web"), token(b"web")] {
        assert_eq!(opens(&limits, &proof, 300), OPEN_BURST);
        time::advance(Duration::from_secs(2)).await;
        assert_eq!(opens(&limits, &proof, 300), 20);
    }
}

/// SDS-S21: many workloads have one identity, and one of them must not starve the others.
#[tokio::test(start_paused = true)]
async fn counts_each_key_and_each_token_by_itself() {
    let limits = StreamOpens::default();
    for proof in [svid(b"web"), svid(b"other"), token(b"web"), token(b"other")] {
        assert_eq!(opens(&limits, &proof, 300), OPEN_BURST);
    }
}

/// SDS-S21
#[tokio::test(start_paused = true)]
async fn counts_who_proves_nothing_by_its_network() {
    let limits = StreamOpens::default();
    assert_eq!(tries(&limits, [10, 0, 0, 1], 300), OPEN_BURST);
    assert_eq!(tries(&limits, [10, 0, 0, 1], 1), 0);
    assert_eq!(tries(&limits, [10, 0, 0, 2], 1), 1);
    let v6 = |network, host| Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host);
    assert_eq!(tries(&limits, v6(1, 1), 300), OPEN_BURST);
    assert_eq!(tries(&limits, v6(1, 2), 1), 0);
    assert_eq!(tries(&limits, v6(2, 1), 1), 1);
}

#[tokio::test(start_paused = true)]
async fn remembers_no_more_than_there_is_room_for_and_keeps_nobody_out_that_proved_itself() {
    let limits = StreamOpens::default();
    let address = |number: u32| IpAddr::from(number.to_be_bytes());
    let key = |number: u32| svid(&number.to_be_bytes());
    let room = u32::try_from(MAX_CALLERS).unwrap();
    for number in 0..room {
        assert_eq!(tries(&limits, address(number), 1), 1);
        assert_eq!(opens(&limits, &key(number), 1), 1);
    }
    assert_eq!(tries(&limits, address(room), 1), 0);
    assert_eq!(opens(&limits, &key(room), 1), 1);
    assert_eq!(lock(&limits.proved).allowances.len(), MAX_CALLERS);
    // who is known is not in the way
    assert_eq!(tries(&limits, address(0), 1), 1);
    time::advance(FULL_AFTER).await;
    assert_eq!(tries(&limits, address(room), 1), 1);
    assert_eq!(opens(&limits, &key(room), 1), 1);
    assert_eq!(lock(&limits.strangers).allowances.len(), 1);
    assert_eq!(lock(&limits.proved).allowances.len(), 1);
}
