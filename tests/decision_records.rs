//! What a sidecar remembers of its decisions, as its page shows it and as its access log is read:
//! both must say the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, SystemTime};

use mesh_lite_proto::authorization::{Caller, Facts, PolicySnapshot, decide};
use mesh_lite_proto::decision_record::{
    DecisionRecord, Direction, InvalidRecording, Outcome, Recording, Utc,
};
use mesh_lite_proxy::clock;
use mesh_lite_test_support::access_log::AccessLog;
use mesh_lite_test_support::applications::{
    Client, Ending, MARKER, Server, http_get, http_get_here, refused,
};
use mesh_lite_test_support::loopback_mesh::WEB_ONLY;
use mesh_lite_test_support::mesh::{API_ID, WEB_ID};
use mesh_lite_test_support::process::finish;
use mesh_lite_test_support::{
    APPLICATION_UID, LoopbackMesh, Mesh, MeshSettings, eventually, on_each_backend,
};

#[path = "decision_records/dry_runs.rs"]
mod dry_runs;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");
const GUEST_ID: &str = "spiffe://cluster.local/ns/shop/sa/guest";
const EVICTION: &str = "\
apiVersion: mesh-lite.io/v1
kind: Eviction
metadata: {name: stolen, namespace: mesh-lite-system}
spec: {spiffeId: spiffe://cluster.local/ns/shop/sa/web}
";

fn mesh(server: &Server) -> LoopbackMesh {
    let mut mesh = LoopbackMesh::start(PROGRAM, server.address().port(), WEB_ONLY);
    mesh.start_sidecars();
    mesh
}

fn application() -> Server {
    Server::greeting_here((Ipv4Addr::LOCALHOST, 0).into(), "api")
}

fn greeted(mesh: &LoopbackMesh, caller: &str) -> Client {
    let mut client = mesh.sidecar(caller).call().unwrap();
    assert_eq!(client.line().unwrap(), format!("{MARKER} api"));
    client
}

fn reset(client: std::io::Result<Client>) {
    let Ok(mut client) = client else { return };
    assert_eq!(client.ending_after_hello(), Ending::Reset(Vec::new()));
}

fn body((status, answer): (u16, String)) -> String {
    assert_eq!(status, 200, "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn page(admin: SocketAddr) -> Recording {
    let page = body(http_get_here(admin, "/decisions").unwrap());
    Recording::read("the page", page.as_bytes()).unwrap()
}

/// Of a log that says something.
fn log(log: &AccessLog) -> Result<Recording, InvalidRecording> {
    let bytes = std::fs::read(log.path()).unwrap();
    Recording::read("access.log", bytes.as_slice())
}

/// The facts and the outcome of a record, in words, and how many connections it stands for.
fn told(record: &DecisionRecord) -> (String, Option<String>, Option<String>, u64, u64) {
    let text = |it: &Option<Box<str>>| it.as_deref().map(str::to_owned);
    let facts = format!(
        "{:?} {:?} {:?} {} {:?} {:?} {:?} {} {:?} {:?}",
        record.direction,
        record.source.identity,
        record.destination,
        record.outcome,
        record.step,
        record.policy,
        record.rule,
        record.decided_by_peer,
        record.connections,
        (&record.recorded, record.recorded_more),
    );
    let (reason, error) = (text(&record.reason), text(&record.error));
    (facts, reason, error, record.count, record.open)
}

/// What the page and the log have of what came in or went out, once they say the same of so many
/// connections, so many of them open.
fn agreed(
    what: &str,
    ask: impl Fn() -> (Recording, Result<Recording, InvalidRecording>),
    direction: Direction,
    (connections, open): (u64, u64),
) -> (Recording, Vec<DecisionRecord>) {
    eventually(what, || {
        let (page, log) = ask();
        let log = log.map_err(|error| (vec![], vec![], error.to_string()))?;
        let of = |recording: &Recording| {
            let records = recording.records.iter().cloned();
            let mut records: Vec<_> = records.filter(|it| it.direction == direction).collect();
            records.sort_by_key(|record| record.connections.clone());
            records
        };
        let (shown, logged) = (of(&page), of(&log));
        let texts = |records: &[DecisionRecord]| records.iter().map(told).collect::<Vec<_>>();
        let count: u64 = shown.iter().map(|record| record.count).sum();
        let open_now: u64 = shown.iter().map(|record| record.open).sum();
        if texts(&shown) == texts(&logged) && (count, open_now) == (connections, open) {
            // every connection has its line: one that is missing would be a hole
            assert_eq!((log.forgotten, log.begins_late), (0, false));
            Ok((page, shown))
        } else {
            Err((texts(&shown), texts(&logged), String::new()))
        }
    })
}

fn agreed_of(
    mesh: &LoopbackMesh,
    sidecar: &str,
    direction: Direction,
    (connections, open): (u64, u64),
) -> (Recording, Vec<DecisionRecord>) {
    let sidecar = mesh.sidecar(sidecar);
    let ask = || (page(sidecar.admin()), log(&sidecar.log));
    agreed(
        "the page and the log agree",
        ask,
        direction,
        (connections, open),
    )
}

#[test]
fn allowed_and_denied_callers_are_on_record_as_in_the_access_log() {
    let server = application();
    let mesh = mesh(&server);
    let open = greeted(&mesh, "web");
    let ended = greeted(&mesh, "web");
    ended.finish().unwrap();
    reset(mesh.sidecar("guest").call());
    reset(mesh.sidecar("guest").call());
    let (page, records) = agreed_of(&mesh, "api", Direction::Inbound, (4, 1));
    assert_eq!(page.workload.as_deref(), Some("shop/api"));
    assert_eq!(page.identity.as_ref().unwrap().as_str(), API_ID);
    assert!(page.since < page.until);
    assert_eq!((page.forgotten, page.forgotten_let_through), (0, 0));
    let [web, guest] = records.as_slice() else {
        panic!("{records:#?}");
    };
    assert_eq!(web.source.identity.as_ref().unwrap().as_str(), WEB_ID);
    assert_eq!((web.outcome, web.count, web.open), (Outcome::Allow, 2, 1));
    assert_eq!(guest.source.identity.as_ref().unwrap().as_str(), GUEST_ID);
    assert_eq!(
        (guest.outcome, guest.count, guest.open),
        (Outcome::Deny, 2, 0)
    );
    let reason = guest.reason.as_deref().unwrap();
    assert!(
        reason.contains("shop/api-from-web (policy.yaml:"),
        "{reason}"
    );
    drop(open);
    agreed_of(&mesh, "api", Direction::Inbound, (4, 0));

    // the caller's own sidecar heard who decided
    let (_, records) = agreed_of(&mesh, "guest", Direction::Outbound, (2, 0));
    let [denied] = records.as_slice() else {
        panic!("{records:#?}");
    };
    assert!(denied.decided_by_peer && denied.facts().is_none());
    assert_eq!(
        denied.policy.as_ref().unwrap().document,
        "shop/api-from-web".into()
    );
}

#[test]
fn what_is_recorded_is_judged_the_same_by_the_snapshot_that_is_shown() {
    let server = application();
    let mesh = mesh(&server);
    drop(greeted(&mesh, "web"));
    reset(mesh.sidecar("guest").call());
    let (_, records) = agreed_of(&mesh, "api", Direction::Inbound, (2, 0));
    let admin = mesh.sidecar("api").admin();
    let json = body(http_get_here(admin, "/policy/snapshot").unwrap());
    let snapshot = PolicySnapshot::from_json(json.as_bytes()).unwrap();
    for record in records {
        let decision = decide(&snapshot, &record.facts().unwrap());
        assert_eq!(Some(&*decision.reason()), record.reason.as_deref());
        assert_eq!(decision.is_allowed(), record.is_let_through());
        assert_eq!(decision.policy, record.policy);
    }
}

#[test]
fn an_evicted_caller_is_on_record_with_the_document_that_evicts_it() {
    let server = application();
    let mesh = mesh(&server);
    let mut web = greeted(&mesh, "web");
    mesh.write_documents("evictions.yaml", EVICTION);
    assert_eq!(web.ending(), Ending::Reset(Vec::new()));
    reset(mesh.sidecar("web").call());
    // web's own sidecar may have been told first, and then api is not called
    let (page, records) = eventually("the refusal is on record", || {
        let sidecar = mesh.sidecar("api");
        let page = page(sidecar.admin());
        let records: Vec<_> = page.records.clone();
        let refused = records.iter().any(|it| it.outcome == Outcome::Refuse);
        if !refused {
            reset(mesh.sidecar("web").call());
        }
        refused.then_some((page, records)).ok_or("not yet")
    });
    assert_eq!(page.forgotten, 0);
    let refused = records.iter().find(|it| it.outcome == Outcome::Refuse);
    let refused = refused.unwrap();
    assert_eq!(refused.reason.as_deref(), Some("evicted"));
    let error = refused.error.as_deref().unwrap();
    assert!(
        error.contains("mesh-lite-system/stolen (evictions.yaml:1)"),
        "{error}"
    );
    // policy did not decide on it
    assert_eq!(refused.facts(), None);
    let count = records.iter().map(|it| it.count).sum();
    agreed_of(&mesh, "api", Direction::Inbound, (count, 0));
}

#[test]
fn a_sidecar_without_a_policy_shows_none_and_records_what_it_refuses() {
    let server = application();
    let mut mesh = LoopbackMesh::start(PROGRAM, server.address().port(), WEB_ONLY);
    let token = mesh.token("web");
    mesh.kill_control_plane();
    mesh.start_sidecar_with("web", &token);
    let admin = mesh.sidecar("web").admin();
    let (status, page_text) = eventually("the page is there", || {
        http_get_here(admin, "/policy/snapshot")
    });
    assert_eq!(status, 503, "{page_text}");
    eventually("the upstream's listener is there", || {
        mesh.sidecar("web").call().map(|client| reset(Ok(client)))
    });
    let recording = eventually("a refusal is on record", || {
        let recording = page(admin);
        let any = !recording.records.is_empty();
        any.then_some(recording).ok_or("nothing yet")
    });
    assert_eq!((&recording.workload, &recording.identity), (&None, &None));
    let refused = &recording.records[0];
    assert_eq!(refused.outcome, Outcome::Refuse);
    assert_eq!(refused.direction, Direction::Outbound);
    assert!(refused.reason.is_some());
}

/// An access log of a day, of api: web calls it all the time, a stranger in plaintext for an hour.
fn day(now: SystemTime) -> Vec<String> {
    let line = |number: u64, who: &str| {
        let time = now - Duration::from_secs(25 * 3600) + Duration::from_secs(180 * number);
        let facts = format!(
            "\"conn_id\":\"abc0000{number:09x}\",\"direction\":\"inbound\",{who}\"dst.addr\":\"10.0.0.11:8080\",\
             \"dst.identity\":\"{API_ID}\",\"decision\":\"allow\",\"step\":\"allow-rule\",\
             \"policy\":\"shop/a\",\"policy_source\":\"w.yaml:6\",\"rule\":0,\"reason\":\"allowed\""
        );
        let (open, close) = (Utc(time), Utc(time + Duration::from_secs(1)));
        format!(
            "{{\"time\":\"{open}\",\"event\":\"open\",{facts}}}\n\
             {{\"time\":\"{close}\",\"event\":\"close\",\"conn_id\":\"abc0000{number:09x}\"}}\n"
        )
    };
    let web = format!("\"src.addr\":\"10.0.0.10:4000\",\"src.identity\":\"{WEB_ID}\",");
    let stranger = "\"src.addr\":\"10.0.0.12:4000\",\"plaintext\":\"inbound_permissive\",";
    (0..500)
        .map(|number| match number {
            200..220 => line(number, stranger),
            _ => line(number, &web),
        })
        .collect()
}

#[test]
fn no_tool_vouches_for_a_log_of_which_a_piece_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let documents = write(
        "w.yaml",
        "apiVersion: mesh-lite.io/v1\nkind: Workload\nmetadata: {name: api-1, namespace: shop}\n\
         spec: {serviceAccount: api, addresses: [10.0.0.11]}\n---\n\
         apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: shop}\n\
         spec: {rules: [{from: [{source: {namespaces: [shop]}}]}, {from: [{source: {ipBlocks: [10.0.0.12]}}]}]}\n---\n\
         apiVersion: mesh-lite.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: shop}\n\
         spec: {mtls: {mode: PERMISSIVE}}\n",
    );
    let day = day(clock::now());
    let told = |tool: &[&str], log: &str| {
        let mut command = Command::new(PROGRAM);
        let with = ["--config-dir", &documents, "--records", log];
        let output = finish(command.args(tool).args(with));
        let text = String::from_utf8(output.stdout).unwrap();
        (text, output.status.code())
    };
    let whole = write("whole.log", &day.concat());
    let (text, code) = told(&["strict-ready"], &whole);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("20 connections"), "{text}");
    // the piece with the stranger was rotated away; nothing else says that it was there
    let (before, after) = (day.get(..190).unwrap(), day.get(230..).unwrap());
    let lost = write("lost.log", &[before.concat(), after.concat()].concat());
    let (text, code) = told(&["strict-ready"], &lost);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("lost 40 records"), "{text}");
    for tool in ["replay", "plan", "suggest"] {
        let (text, _) = told(&["policy", tool], &lost);
        assert!(
            text.contains("40 records of it were lost"),
            "{tool}: {text}"
        );
        let (text, _) = told(&["policy", tool], &whole);
        assert!(!text.contains("were lost"), "{tool}: {text}");
    }
    // its parts put together in another order are whole
    let (late, early) = (after.concat(), day.get(..230).unwrap().concat());
    let turned = write("turned.log", &format!("{late}{early}"));
    let (text, _) = told(&["strict-ready"], &turned);
    assert!(!text.contains("lost"), "{text}");
}

/// The admin page inside the pod, where loopback is the pod's own.
fn page_of_b(mesh: &Mesh) -> Recording {
    let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 15000));
    let page = body(http_get(&mesh.network.b.namespace, admin, "/decisions").unwrap());
    Recording::read("the page", page.as_bytes()).unwrap()
}

on_each_backend! {
    /// Plaintext to a STRICT port is on record as what policy may be asked about.
    fn plaintext_to_a_strict_port_is_on_record_as_in_the_access_log(backend) {
        let mesh = MeshSettings::captured_by(PROGRAM, backend).start();
        let address = SocketAddr::from((mesh.network.b.v4, 8080));
        let _server = Server::greeting(&mesh.network.b.namespace, address, "from b");
        refused(&mesh.network.c.namespace, APPLICATION_UID, address);
        let ask = || (page_of_b(&mesh), log(mesh.b().log()));
        let (_, records) = agreed("the page and the log agree", ask, Direction::Inbound, (1, 0));
        let [record] = records.as_slice() else { panic!("{records:#?}") };
        assert!(record.is_plaintext_to_strict() && !record.is_let_through());
        let facts = Facts {
            caller: Caller::Plaintext,
            source: mesh.network.c.address_like(address.ip()),
            port: 8080,
        };
        assert_eq!(record.facts(), Some(facts));
    }
}
