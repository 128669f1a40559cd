//! What is answered, and what is borne.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr},
};

use mesh_lite_injector::clock;
use mesh_lite_test_support::{ApiServer, api_server::Trouble, eventually};
use serde_json::json;

use crate::replica::{Replica, Reply, cluster, post, reply, review, trusted};

fn ask(api: &ApiServer, replica: &Replica, path: &str, body: &[u8]) -> Reply {
    let mut stream = replica.connect(&trusted(api)[0]).unwrap();
    post(&mut stream, path, body).unwrap()
}

#[test]
fn a_pod_is_injected_over_a_connection_that_is_used_again() {
    let api = cluster();
    let replica = Replica::ready(&api, clock::now);
    let mut stream = replica.connect(&trusted(&api)[0]).unwrap();
    for _ in 0..3 {
        let reply = post(&mut stream, "/inject?timeout=3s", &review("shop")).unwrap();
        let answer = reply.json();
        assert_eq!(reply.status, 200);
        assert_eq!(answer["response"]["uid"], "u-1");
        assert_eq!(answer["response"]["allowed"], true);
        assert_eq!(answer["response"]["patchType"], "JSONPatch");
        assert!(!reply.head.contains("connection: close"), "{}", reply.head);
    }
    let (_, metrics) = replica.page("/metrics");
    assert!(
        metrics.contains("mesh_lite_injector_decisions_total{decision=\"inject\",reason=\"\"} 3"),
        "{metrics}"
    );
    assert!(
        metrics.contains("mesh_lite_injector_registered 1"),
        "{metrics}"
    );
}

#[test]
fn what_is_no_review_is_refused_and_what_has_a_uid_inside_the_protocol() {
    let api = cluster();
    let replica = Replica::ready(&api, clock::now);
    for (path, body, status) in [
        ("/inject", b"".as_slice(), 400),
        ("/inject", b"{\"request\"", 400),
        ("/inject", b"{}", 400),
        ("/inject", &[0xff; 100], 400),
        ("/other", b"{}", 404),
        ("/inject/", b"{}", 404),
    ] {
        assert_eq!(ask(&api, &replica, path, body).status, status, "{path}");
    }
    let old = json!({"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview",
        "request": {"uid": "u-2"}});
    let answer = ask(&api, &replica, "/inject", old.to_string().as_bytes()).json();
    assert_eq!(answer["response"]["uid"], "u-2");
    assert_eq!(answer["response"]["allowed"], false);

    let long = vec![b' '; 4 * 1024 * 1024 + 1];
    let mut stream = replica.connect(&trusted(&api)[0]).unwrap();
    // cut while it was sent, or answered: never taken
    if let Ok(reply) = post(&mut stream, "/inject", &long) {
        assert_eq!(reply.status, 413);
    }
    let mut stream = replica.connect(&trusted(&api)[0]).unwrap();
    stream
        .write_all(b"GET /inject HTTP/1.1\r\nhost: x\r\n\r\n")
        .unwrap();
    assert_eq!(reply(&mut stream).unwrap().status, 405);
}

#[test]
fn a_namespace_that_is_not_known_is_asked_for_and_never_guessed() {
    let api = cluster();
    let replica = Replica::ready(&api, clock::now);
    let absent = ask(&api, &replica, "/inject", &review("nowhere")).json();
    assert_eq!(absent["response"]["allowed"], false);
    // the watch tells nothing of this one, and the API server nothing at all
    api.trouble("GET", "/api/v1/namespaces/late", Trouble::Hang);
    let silent = ask(&api, &replica, "/inject", &review("late")).json();
    assert_eq!(silent["response"]["allowed"], false);
    let words = silent["response"]["status"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        words.contains("late") && words.contains("Try again"),
        "{words}"
    );
    // a name that would be another path
    let odd = ask(&api, &replica, "/inject", &review("../pods")).json();
    assert_eq!(odd["response"]["allowed"], false);
}

#[test]
fn what_a_namespace_says_now_decides() {
    let api = cluster();
    let replica = Replica::ready(&api, clock::now);
    let allowed =
        || ask(&api, &replica, "/inject", &review("shop")).json()["response"]["allowed"].clone();
    assert_eq!(allowed(), true);
    api.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop",
        "labels": {"mesh-lite.io/inject": "enabled", "pod-security.kubernetes.io/enforce": "baseline"}}}));
    eventually("the new label decides", || match allowed() {
        said if said == false => Ok(()),
        said => Err(said),
    });
}

#[test]
fn an_api_server_that_is_away_takes_nothing_from_a_replica_that_runs() {
    let mut api = cluster();
    let replica = Replica::ready(&api, clock::now);
    let roots = trusted(&api)[0].clone();
    api.stop();
    let mut stream = replica.connect(&roots).unwrap();
    let answer = post(&mut stream, "/inject", &review("shop"))
        .unwrap()
        .json();
    assert_eq!(answer["response"]["allowed"], true);
    assert_eq!(replica.page("/readyz").0, 200);
    // and one that starts then waits for it
    let second = Replica::start(&api, clock::now);
    let (status, text) = second.page("/readyz");
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("namespaces"), "{text}");
    assert!(second.connect(&roots).is_err());
    assert_eq!(second.page("/livez").0, 200);
    api.start_again();
    eventually("the second is ready", || match second.page("/readyz") {
        (200, _) => Ok(()),
        other => Err(other),
    });
    second.connect(&roots).unwrap();
}

#[test]
fn a_flood_from_one_source_keeps_nobody_else_out() {
    let api = cluster();
    let replica = Replica::ready(&api, clock::now);
    let roots = trusted(&api)[0].clone();
    let flood = IpAddr::from(Ipv4Addr::new(127, 0, 0, 2));
    // handshakes that are never finished, heads that never end, and bodies that never come
    let mut open: Vec<_> = (0..300).map(|_| replica.tcp_from(flood).unwrap()).collect();
    for stream in &mut open {
        // one that was closed at once says so by an error
        let _ = stream.write_all(&[22, 3, 1]);
    }
    let mut slow: Vec<_> = (0..20).map(|_| replica.connect(&roots).unwrap()).collect();
    for (index, stream) in slow.iter_mut().enumerate() {
        let part: &[u8] = match index % 2 {
            0 => b"POST /inj",
            _ => b"POST /inject HTTP/1.1\r\nhost: x\r\ncontent-length: 4000000\r\n\r\n{",
        };
        stream.write_all(part).unwrap();
    }
    let answer = ask(&api, &replica, "/inject", &review("shop")).json();
    assert_eq!(answer["response"]["allowed"], true);
    let (_, metrics) = replica.page("/metrics");
    assert!(
        metrics.contains("handshakes_total{outcome=\"no_place\"}"),
        "{metrics}"
    );
    // what never comes is answered and closed within a bounded time
    let late = reply(&mut slow[1]).unwrap();
    assert_eq!(late.status, 408);
    let mut rest = Vec::new();
    let _ = slow[1].read_to_end(&mut rest);
    assert!(rest.is_empty());
    // handshakes too
    let mut unfinished = open.remove(0);
    let mut rest = Vec::new();
    let _ = unfinished.read_to_end(&mut rest);
}

#[test]
fn the_end_answers_what_is_asked_and_sends_callers_elsewhere() {
    let api = cluster();
    let mut replica = Replica::ready(&api, clock::now);
    let roots = trusted(&api)[0].clone();
    let mut idle = replica.connect(&roots).unwrap();
    let mut half = replica.connect(&roots).unwrap();
    let body = review("shop");
    let head = format!(
        "POST /inject HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    half.write_all(head.as_bytes()).unwrap();
    half.write_all(&body[..10]).unwrap();
    replica.terminate();
    eventually("it is not ready any more", || {
        match replica.page("/readyz") {
            (503, text) if text.contains("ending") => Ok(()),
            other => Err(other),
        }
    });
    half.write_all(&body[10..]).unwrap();
    let answer = reply(&mut half).unwrap();
    assert_eq!(answer.json()["response"]["allowed"], true);
    assert!(answer.head.contains("connection: close"), "{}", answer.head);
    replica.wait();
    assert_eq!(idle.read(&mut [0]).unwrap_or(0), 0);
    assert!(replica.tcp_from(Ipv4Addr::LOCALHOST.into()).is_err());
}

#[test]
fn tls_1_2_and_strangers_to_the_ca_get_nothing() {
    let api = cluster();
    let replica = Replica::ready(&api, clock::now);
    let other = cluster();
    let _other = Replica::ready(&other, clock::now);
    assert!(replica.connect(&trusted(&other)[0]).is_err());
    let url = format!("https://{}/inject", replica.bound.webhook);
    let curl = |more: &[&str]| {
        let curl = std::process::Command::new("curl")
            .args(["-sk", "-o", "/dev/null", "-w", "%{http_code}", "-d", "{}"])
            .args(more)
            .arg(&url)
            .output()
            .unwrap();
        String::from_utf8(curl.stdout).unwrap()
    };
    assert_eq!(curl(&[]), "400");
    assert_eq!(curl(&["--tls-max", "1.2"]), "000");
}
