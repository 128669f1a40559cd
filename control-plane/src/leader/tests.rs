use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use kube::client::Body;
use mesh_lite_test_support::api_server::ApiServer;
use serde_json::Value;
use tokio::task::JoinSet;

use super::*;
use crate::{clock, cluster::connect};

fn lease(holder: &str, version: &str) -> DynamicObject {
    let mut lease = DynamicObject::new(CONTROL_PLANE_LEASE, &lease_resource());
    lease.metadata.resource_version = Some(version.to_owned());
    lease.data = json!({"spec": {"holderIdentity": holder, "leaseTransitions": 4}});
    lease
}

#[tokio::test]
async fn nobody_takes_a_lease_that_is_renewed_and_anybody_one_that_is_not() {
    let mut election = Election::new("me".to_owned());
    let start = Instant::now();
    assert_eq!(election.step(Some(&lease("other", "1")), start), Step::Wait);
    let almost = start + LEASE - Duration::from_millis(1);
    assert_eq!(
        election.step(Some(&lease("other", "1")), almost),
        Step::Wait
    );
    assert_eq!(
        election.step(Some(&lease("other", "2")), almost),
        Step::Wait
    );
    assert_eq!(
        election.step(Some(&lease("other", "2")), start + LEASE),
        Step::Wait
    );
    assert_eq!(
        election.step(Some(&lease("other", "2")), almost + LEASE),
        Step::Write
    );
    assert!(!election.leads(almost + LEASE), "not before it is written");
}

#[tokio::test]
async fn a_lease_without_holder_and_none_at_all_are_taken_at_once() {
    let now = Instant::now();
    let mut election = Election::new("me".to_owned());
    assert_eq!(election.step(None, now), Step::Write);
    assert_eq!(election.step(Some(&lease("", "1")), now), Step::Write);
}

#[tokio::test]
async fn who_cannot_renew_leads_no_more_before_anybody_else_may() {
    let mut election = Election::new("me".to_owned());
    let start = Instant::now();
    election.held(start);
    assert!(election.leads(start + RENEW_WITHIN - Duration::from_millis(1)));
    assert!(!election.leads(start + RENEW_WITHIN));
    assert!(RENEW_WITHIN + ANSWER <= LEASE);
}

#[tokio::test]
async fn who_sees_another_holder_leads_no_more() {
    let mut election = Election::new("me".to_owned());
    let now = Instant::now();
    election.held(now);
    assert_eq!(election.step(Some(&lease("other", "9")), now), Step::Wait);
    assert!(!election.leads(now));
}

#[test]
fn a_taken_lease_counts_one_more_transition_and_a_renewed_one_none() {
    let election = Election::new("me".to_owned());
    let now = clock::now();
    let taken = election.lease(Some(lease("other", "1")), now);
    assert_eq!(taken.data["spec"]["leaseTransitions"], 5);
    assert_eq!(taken.metadata.resource_version.as_deref(), Some("1"));
    let renewed = election.lease(Some(taken.clone()), now + LEASE);
    assert_eq!(renewed.data["spec"]["leaseTransitions"], 5);
    assert_eq!(
        renewed.data["spec"]["acquireTime"],
        taken.data["spec"]["acquireTime"]
    );
}

#[test]
fn times_are_as_kubernetes_writes_them() {
    let time = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_042);
    assert_eq!(micro_time(time), "2023-11-14T22:13:20.000042Z");
}

/// An API server with one Lease, without a socket: so that the clock of the test may be a paused one.
#[derive(Clone, Default)]
struct OneLease {
    lease: Arc<Mutex<Option<Value>>>,
    hangs: Arc<AtomicBool>,
    last_write: Arc<Mutex<Option<Instant>>>,
}

impl OneLease {
    fn client(&self) -> Client {
        let of = self.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let of = of.clone();
            async move { Ok::<_, std::convert::Infallible>(of.answer(request).await) }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, request: http::Request<Body>) -> http::Response<Body> {
        if self.hangs.load(SeqCst) {
            return std::future::pending().await;
        }
        if request.method() != http::Method::GET {
            let body = request.into_body().collect_bytes().await.unwrap();
            let mut lease: Value = serde_json::from_slice(&body).unwrap();
            lease["metadata"]["resourceVersion"] = json!("1");
            *self.lease.lock().unwrap() = Some(lease);
            *self.last_write.lock().unwrap() = Some(Instant::now());
        }
        let (code, body) = match &*self.lease.lock().unwrap() {
            Some(lease) => (200, lease.clone()),
            None => (
                404,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
                       "reason": "NotFound", "message": "no such Lease"}),
            ),
        };
        let body = Body::from(serde_json::to_vec(&body).unwrap());
        let response = http::Response::builder().status(code);
        response.body(body).unwrap()
    }
}

/// Whatever the replica waits for meanwhile: the pause between looks, or an answer.
#[tokio::test(start_paused = true)]
async fn a_leader_that_the_api_server_does_not_answer_says_at_once_that_its_time_is_over() {
    for hangs_after in [0, 1, 2_499, 2_501, 4_000] {
        let server = OneLease::default();
        let (leads, mut seen) = watch::channel(false);
        let mut task = JoinSet::new();
        let (namespace, conditions) = ("mesh-lite-system".to_owned(), Conditions::new());
        task.spawn(run(
            server.client(),
            namespace,
            clock::now,
            conditions,
            leads,
        ));
        seen.wait_for(|leads| *leads).await.unwrap();
        time::sleep(Duration::from_millis(hangs_after)).await;
        assert!(*seen.borrow());
        server.hangs.store(true, SeqCst);
        seen.wait_for(|leads| !*leads).await.unwrap();
        let held = server.last_write.lock().unwrap().unwrap().elapsed();
        let exactly = RENEW_WITHIN..RENEW_WITHIN + Duration::from_millis(10);
        assert!(exactly.contains(&held), "{held:?} after the last write");
        // and once it is back it leads again
        server.hangs.store(false, SeqCst);
        seen.wait_for(|leads| *leads).await.unwrap();
    }
}

/// Two replicas, one of which dies: exactly one leads, and the other one follows.
#[tokio::test]
async fn one_of_two_replicas_leads_and_the_other_one_after_its_end() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let server = ApiServer::start();
    let mut replicas = Vec::new();
    for _ in 0..2 {
        let client = connect(Some(&server.kubeconfig())).await.unwrap();
        let (leads, seen) = watch::channel(false);
        let mut task = JoinSet::new();
        let (namespace, conditions) = ("mesh-lite-system".to_owned(), Conditions::new());
        task.spawn(run(client, namespace, clock::now, conditions, leads));
        replicas.push((task, seen));
    }
    let (mut second, mut first) = (replicas.pop().unwrap(), replicas.pop().unwrap());
    let deadline = Duration::from_secs(30);
    let leader = time::timeout(deadline, async {
        tokio::select! {
            Ok(_) = first.1.wait_for(|leads| *leads) => true,
            Ok(_) = second.1.wait_for(|leads| *leads) => false,
        }
    });
    let first_leads = leader.await.unwrap();
    let (mut leader, mut other) = if first_leads {
        (first, second)
    } else {
        (second, first)
    };
    assert!(!*other.1.borrow());
    leader.0.abort_all();
    let taken_over = other.1.wait_for(|leads| *leads);
    time::timeout(deadline, taken_over).await.unwrap().unwrap();
}
