//! Whoever can reach the port may open connections and leave them: reviews are answered all the
//! same.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpStream},
};

use mesh_lite_injector::clock;
use mesh_lite_test_support::eventually;
use serde_json::json;

use crate::replica::{Replica, Tls, cluster, post, reply, review, trusted};

/// As many sources as it takes to hold everything, each with its share.
const FLOODING: u8 = 5;

fn flooding() -> impl Iterator<Item = IpAddr> {
    (0..FLOODING).map(|host| Ipv4Addr::new(127, 0, 1, host).into())
}

/// Whether the other side ended the connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    match stream.read(&mut [0; 64]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

#[test]
fn connections_of_many_sources_that_never_ask_keep_no_review_out() {
    let api = cluster();
    let replica = Replica::ready(&api, clock::now);
    let roots = trusted(&api)[0].clone();
    let mut served = replica.connect(&roots).unwrap();
    post(&mut served, "/inject", &review("shop")).unwrap();

    // who never asks is closed after some seconds: on a loaded machine the first have gone before
    // the last come, so it goes on until there was no place
    let mut flood: Vec<TcpStream> = Vec::new();
    eventually("all places are taken", || {
        flood.retain_mut(|stream| !is_closed(stream));
        flood.extend(
            flooding()
                .flat_map(|source| std::iter::repeat_n(source, 256))
                .map(|source| replica.tcp_from(source).unwrap()),
        );
        let (_, metrics) = replica.page("/metrics");
        let full = metrics.contains("handshakes_total{outcome=\"no_place\"}");
        full.then_some(()).ok_or(metrics)
    });
    // at once, while all of these are there
    let mut new = replica.connect(&roots).unwrap();
    eventually("the oldest went", || {
        is_closed(&mut flood[0]).then_some(()).ok_or("open")
    });
    for stream in [&mut new, &mut served] {
        let answer = post(stream, "/inject", &review("shop")).unwrap().json();
        assert_eq!(answer["response"]["allowed"], true);
    }
}

#[test]
fn a_connection_that_asks_nothing_soon_is_closed_and_one_that_did_is_kept() {
    let api = cluster();
    let replica = Replica::ready(&api, clock::now);
    let roots = trusted(&api)[0].clone();
    let mut served = replica.connect(&roots).unwrap();
    post(&mut served, "/inject", &review("shop")).unwrap();
    let mut silent = replica.connect(&roots).unwrap();
    let mut begun = replica.connect(&roots).unwrap();
    begun.write_all(b"POST /inj").unwrap();
    for stream in [&mut silent, &mut begun] {
        // an end, with or without TLS's word for it; the test's own patience would be another error
        match stream.read(&mut [0; 64]) {
            Ok(read) => assert_eq!(read, 0),
            Err(error) => assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
        }
    }
    let answer = post(&mut served, "/inject", &review("shop")).unwrap();
    assert_eq!(answer.json()["response"]["allowed"], true);
}

#[test]
fn what_is_answered_but_no_review_keeps_no_connection() {
    let api = cluster();
    let replica = Replica::ready(&api, clock::now);
    let mut stream = replica.connect(&trusted(&api)[0]).unwrap();
    let body = json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview",
        "request": {"uid": "u-2"}});
    let answer = post(&mut stream, "/inject", body.to_string().as_bytes()).unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("connection: close"), "{}", answer.head);
}

#[test]
fn bodies_of_many_sources_that_never_end_keep_no_review_out() {
    let api = cluster();
    let replica = Replica::ready(&api, clock::now);
    let roots = trusted(&api)[0].clone();
    let mut oldest: Vec<Tls> = Vec::new();
    let mut newer: Vec<Tls> = Vec::new();
    for source in flooding() {
        for index in 0..3 {
            let mut stream = replica.connect_from(source, &roots).unwrap();
            unfinished(&mut stream);
            if index == 0 {
                oldest.push(stream);
            } else {
                newer.push(stream);
            }
        }
    }
    let mut stream = replica.connect(&roots).unwrap();
    let answer = post(&mut stream, "/inject", &review("shop")).unwrap();
    assert_eq!(answer.json()["response"]["allowed"], true);
    for stream in &mut oldest {
        // the deadline of a request that is not here whole says 408
        match reply(stream) {
            Ok(reply) => assert_eq!(reply.status, 503, "{}", reply.body),
            Err(error) => assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "{error}"),
        }
    }
}

/// All but the last of a body that is not too long.
fn unfinished(stream: &mut Tls) {
    const LENGTH: usize = 4 * 1024 * 1024 - 16;
    let head = format!("POST /inject HTTP/1.1\r\nhost: x\r\ncontent-length: {LENGTH}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    // what was given up meanwhile says so by an error
    let _ = stream.write_all(&vec![b' '; LENGTH - 1]);
}
