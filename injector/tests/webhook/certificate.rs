//! The serving certificate and the registration, with several replicas.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use mesh_lite_injector::clock;
use mesh_lite_test_support::{ApiServer, eventually};
use serde_json::{Value, json};

use crate::replica::{MESH, Replica, SECRET, cluster, post, registration, review, trusted};

const DAY: u64 = 86_400;
const BEGIN: u64 = 1_800_000_000;
static NOW: AtomicU64 = AtomicU64::new(BEGIN);

fn set_by_hand() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW.load(Ordering::SeqCst))
}

fn secret(api: &ApiServer) -> Value {
    api.get("Secret", MESH, SECRET).unwrap()["data"].clone()
}

fn cas(api: &ApiServer) -> usize {
    let [first, second] = trusted(api);
    assert_eq!(first, second);
    first.matches("BEGIN CERTIFICATE").count()
}

fn answers(api: &ApiServer, replica: &Replica) -> Result<(), String> {
    // the client judges the certificate by the clock on the wall: only that it is sent is asked
    let roots = trusted(api)[1].clone();
    let mut stream = replica.connect(&roots).map_err(|error| error.to_string())?;
    let reply = post(&mut stream, "/inject", &review("shop")).map_err(|error| error.to_string())?;
    assert_eq!(reply.json()["response"]["allowed"], true);
    Ok(())
}

#[test]
fn replicas_that_start_together_share_one_secret() {
    let api = cluster();
    let replicas: Vec<Replica> = (0..3).map(|_| Replica::start(&api, clock::now)).collect();
    for replica in &replicas {
        eventually("it answers with what the API server trusts", || {
            answers(&api, replica)
        });
    }
    assert_eq!(cas(&api), 1);
    let made = api
        .calls()
        .into_iter()
        .filter(|call| call.method == "PUT" && call.path.contains("/secrets/"));
    assert_eq!(made.count(), 0, "a Secret was replaced");
}

#[test]
fn a_restart_finds_the_same_certificate_again() {
    let api = cluster();
    let first = Replica::ready(&api, clock::now);
    let before = secret(&api);
    drop(first);
    let second = Replica::ready(&api, clock::now);
    answers(&api, &second).unwrap();
    assert_eq!(secret(&api), before);
}

#[test]
fn a_registration_that_lost_its_cas_gets_them_back() {
    let api = cluster();
    let replica = Replica::ready(&api, clock::now);
    let good = trusted(&api);
    // as `kubectl replace` of the manifest does
    api.put(registration());
    eventually("the registration is repaired", || {
        (trusted(&api) == good).then_some(()).ok_or("not yet")
    });
    let mut other = registration();
    other["webhooks"][0]["clientConfig"]["caBundle"] = json!("b3RoZXI=");
    other["webhooks"].as_array_mut().unwrap().swap(0, 1);
    other["metadata"]["labels"] = json!({"kept": "yes"});
    api.put(other);
    eventually("also another's CA", || {
        (trusted(&api) == good).then_some(()).ok_or("not yet")
    });
    let after = api
        .get("MutatingWebhookConfiguration", "", "mesh-lite-injector")
        .unwrap();
    assert_eq!(after["metadata"]["labels"]["kept"], "yes");
    assert_eq!(after["webhooks"][0]["failurePolicy"], "Fail");
    answers(&api, &replica).unwrap();
}

#[test]
fn nobody_makes_a_registration() {
    let api = cluster();
    let replica = Replica::ready(&api, clock::now);
    api.remove("MutatingWebhookConfiguration", "", "mesh-lite-injector");
    eventually("it is said", || match replica.page("/readyz") {
        (200, text) if text.contains("no MutatingWebhookConfiguration") => Ok(()),
        other => Err(other),
    });
    assert!(api.list("MutatingWebhookConfiguration", "").is_empty());
    api.put(registration());
    eventually("it is found again", || answers(&api, &replica));
}

#[test]
fn a_secret_that_cannot_be_used_is_made_anew() {
    let api = cluster();
    api.put(
        json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": SECRET, "namespace": MESH, "labels": {"kept": "yes"}},
        "data": {"tls.crt": "eA==", "tls.key": "eA=="}}),
    );
    let replica = Replica::ready(&api, clock::now);
    answers(&api, &replica).unwrap();
    let secret = api.get("Secret", MESH, SECRET).unwrap();
    assert_eq!(secret["metadata"]["labels"]["kept"], "yes");
}

/// How many CAs each change of the registration carried.
fn cas_registered_so_far(api: &ApiServer) -> Vec<usize> {
    let patches = api
        .calls()
        .into_iter()
        .filter(|call| call.method == "PATCH" && call.path.contains("mutatingwebhook"));
    patches
        .filter_map(|call| {
            let bundle = call.body.as_array()?.iter().find_map(|op| {
                op["value"]
                    .as_str()
                    .filter(|_| op["op"] == "add")
                    .map(str::to_owned)
            })?;
            let bytes: k8s_openapi::ByteString = serde_json::from_value(json!(bundle)).unwrap();
            Some(String::from_utf8(bytes.0).unwrap().matches("BEGIN").count())
        })
        .collect()
}

fn serves_a_certificate_of_30_days(replica: &Replica) {
    eventually("both serve the next one", || {
        let (_, metrics) = replica.page("/metrics");
        let line = metrics
            .lines()
            .find(|line| line.starts_with("mesh_lite_injector_time_to_breakage_seconds"))
            .unwrap()
            .to_owned();
        let left: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        // 30 days again, not the 14 that were left
        if left > 29.0 * 86_400.0 {
            Ok(())
        } else {
            Err(line)
        }
    });
}

/// Two replicas, and a clock that is set to the half of the certificate's life, and to its end.
#[test]
fn the_certificate_rotates_by_the_clock_and_the_new_ca_is_trusted_first() {
    let api = cluster();
    let replicas = [
        Replica::ready(&api, set_by_hand),
        Replica::ready(&api, set_by_hand),
    ];
    let first = secret(&api);
    assert_eq!(cas(&api), 1);
    NOW.store(BEGIN + 16 * DAY, Ordering::SeqCst);
    eventually("the next one is served", || {
        let now = secret(&api);
        if now["tls.crt"] == first["tls.crt"] {
            return Err("not yet");
        }
        assert_eq!(now["previous-ca.crt"], first["ca.crt"]);
        Ok(())
    });
    // at no time was there a registration without the CA of what was served
    let carried = cas_registered_so_far(&api);
    assert!(
        carried.starts_with(&[1]) && carried[1..].contains(&2),
        "{carried:?}"
    );
    assert_eq!(cas(&api), 2);
    for replica in &replicas {
        serves_a_certificate_of_30_days(replica);
    }
    let second = secret(&api);
    NOW.store(BEGIN + 60 * DAY, Ordering::SeqCst);
    eventually("what expired is replaced at once", || {
        (secret(&api)["tls.crt"] != second["tls.crt"])
            .then_some(())
            .ok_or("not yet")
    });
}
