//! `mesh-lite explain`: the reason of connections that were made, and of calls that were not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "explain/by_documents.rs"]
mod by_documents;
#[path = "explain/by_recordings.rs"]
mod by_recordings;

use std::{
    fs,
    net::Ipv4Addr,
    process::{Command, Output},
};

use mesh_lite_test_support::{
    LoopbackMesh,
    applications::{Client, Ending, MARKER, Server},
    eventually,
    loopback_mesh::WEB_ONLY,
    mesh::{API_ID, WEB_ID},
    process::finish,
};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");
const GUEST: &str = "cluster.local/ns/shop/sa/guest";
const WEB: &str = "cluster.local/ns/shop/sa/web";

/// What was printed, and the exit code.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn explain(arguments: &[&str]) -> Said {
    let mut command = Command::new(PROGRAM);
    let Output {
        status,
        stdout,
        stderr,
    } = finish(command.arg("explain").args(arguments));
    Said {
        code: status.code(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

impl Said {
    fn has(&self, parts: &[&str]) -> &Self {
        for part in parts {
            assert!(
                self.out.contains(part),
                "{part:?} is not in:\n{}\n{}",
                self.out,
                self.err
            );
        }
        self
    }

    fn json(&self) -> Value {
        let whole: Value = serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.out, self.err));
        whole["answers"].clone()
    }

    /// No answer, and why.
    fn refuses(&self, parts: &[&str]) {
        assert_eq!((self.code, &*self.out), (Some(2), ""), "{}", self.err);
        for part in parts {
            assert!(self.err.contains(part), "{part:?} is not in:\n{}", self.err);
        }
    }
}

fn mesh(server: &Server) -> LoopbackMesh {
    let mut mesh = LoopbackMesh::start(PROGRAM, server.address().port(), WEB_ONLY);
    mesh.start_sidecars();
    mesh
}

fn application() -> Server {
    Server::greeting_here((Ipv4Addr::LOCALHOST, 0).into(), "api")
}

fn reset(client: std::io::Result<Client>) {
    let Ok(mut client) = client else { return };
    assert_eq!(client.ending_after_hello(), Ending::Reset(Vec::new()));
}

/// The connection of guest that api's sidecar denied: its line in the log of either end.
fn denied(mesh: &LoopbackMesh, sidecar: &str) -> Value {
    mesh.sidecar(sidecar)
        .log
        .wait_for(&[("event", "open"), ("decision", "deny")])
}

fn text<'a>(line: &'a Value, field: &str) -> &'a str {
    line[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field}: {line}"))
}

fn admin(mesh: &LoopbackMesh, sidecar: &str) -> String {
    mesh.sidecar(sidecar).admin().to_string()
}

fn documents(mesh: &LoopbackMesh) -> String {
    mesh.directory().join("documents").display().to_string()
}

#[test]
fn a_denied_connection_is_explained_by_its_id_in_the_words_of_the_access_log() {
    let server = application();
    let mesh = mesh(&server);
    reset(mesh.sidecar("guest").call());
    let line = denied(&mesh, "api");
    let (id, reason, api) = (
        text(&line, "conn_id"),
        text(&line, "reason"),
        admin(&mesh, "api"),
    );
    let said = explain(&[id, "--admin", &api]);
    said.has(&[
        "DENIED  spiffe://cluster.local/ns/shop/sa/guest",
        &format!("why         {reason}\n"),
        "step        3 of 5",
        "policy      shop/api-from-web (policy.yaml:1)",
        "rules[0].from[0].source.principals (policy.yaml:9)",
        "was        cluster.local/ns/shop/sa/guest\n",
        "should be  cluster.local/ns/shop/sa/web\n",
        "now         the same, by",
        "considered, in this order",
        id,
    ]);
    assert_eq!(said.code, Some(1));
    let json = explain(&[id, "--admin", &api, "--output", "json"]).json();
    assert_eq!(json[0]["reason"], reason);
    assert_eq!(json[0]["now"]["reason"], reason);
    assert_eq!(json[0]["changed_since"], false);
    let failed = &json[0]["now"]["nearest"]["failed"][0];
    assert_eq!(
        (&failed["was"], &failed["should_be"]),
        (&GUEST.into(), &WEB.into())
    );
    let nearest = &json[0]["now"]["nearest"];
    assert_eq!(nearest["policy"], "shop/api-from-web");
    let source = text(nearest, "policy_source");
    assert!(source.starts_with("policy.yaml:"), "{source}");

    // the log itself is a record; what holds now is not in it
    let log = mesh
        .sidecar("api")
        .folder()
        .join("access.log")
        .display()
        .to_string();
    let by_log = explain(&[id, "--records", &log]);
    by_log.has(&[
        "DENIED",
        &format!("why         {reason}\n"),
        "name --config-dir",
    ]);
    assert_eq!(by_log.code, Some(1));
    let with_documents = explain(&[id, "--records", &log, "--config-dir", &documents(&mesh)]);
    with_documents.has(&[
        "now         the same, by",
        "should be  cluster.local/ns/shop/sa/web\n",
        "principals: [",
    ]);
}

#[test]
fn an_allowed_connection_is_explained_by_the_rule_that_allowed_it() {
    let server = application();
    let mesh = mesh(&server);
    let mut client = mesh.sidecar("web").call().unwrap();
    assert_eq!(client.line().unwrap(), format!("{MARKER} api"));
    let line = mesh.sidecar("api").log.wait_for(&[
        ("event", "open"),
        ("src.identity", WEB_ID),
        ("dst.identity", API_ID),
    ]);
    let said = explain(&[text(&line, "conn_id"), "--admin", &admin(&mesh, "api")]);
    said.has(&[
        "ALLOWED",
        text(&line, "reason"),
        "step        2 of 5",
        "matches, and decides",
    ]);
    assert_eq!(said.code, Some(0));
}

/// The access log of a sidecar.
fn log_of(mesh: &LoopbackMesh, sidecar: &str) -> String {
    let log = mesh.sidecar(sidecar).folder().join("access.log");
    log.display().to_string()
}

#[test]
fn the_caller_s_side_says_who_decided_and_what_to_ask_next() {
    let server = application();
    let mesh = mesh(&server);
    reset(mesh.sidecar("guest").call());
    let line = denied(&mesh, "guest");
    let (id, own) = (text(&line, "conn_id"), admin(&mesh, "guest"));
    let alone = explain(&[id, "--admin", &own]);
    let next = format!("mesh-lite explain {id} --admin {own} --config-dir DOCUMENTS\n");
    alone.has(&[
        "DENIED",
        "the other side's sidecar denied it by shop/api-from-web (policy.yaml:",
        "ask there",
        "spiffe://cluster.local/ns/shop/sa/api at 127.",
        &next,
    ]);
    assert_eq!(alone.code, Some(1));
    // whom the policy names instead is not for the caller to know
    assert!(!alone.out.contains("sa/web"), "{}", alone.out);
    // a sidecar that was not called knows nothing of it
    let other = explain(&[id, "--admin", &own, "--admin", &admin(&mesh, "web")]);
    other.has(&["ask there", &next]);
    assert!(!other.out.contains("sa/web"), "{}", other.out);

    // the documents, or the sidecar that was called, know it whole
    let (documents, api) = (documents(&mesh), admin(&mesh, "api"));
    let by_documents = ["--config-dir", &documents];
    for (how, what) in [
        (
            by_documents,
            format!("now         the same, by the documents in {documents}"),
        ),
        (
            ["--admin", &api],
            format!("now         the same, by the policy that the sidecar at {api}"),
        ),
    ] {
        let said = explain(&[&[id, "--admin", &own][..], &how].concat());
        said.has(&[
            &what,
            "should be  cluster.local/ns/shop/sa/web\n",
            "considered",
        ]);
        assert!(!said.out.contains("ask there"), "{}", said.out);
        assert_eq!(said.code, Some(1));
    }
}

#[test]
fn the_other_side_s_log_knows_a_connection_by_what_its_caller_claims() {
    let server = application();
    let mesh = mesh(&server);
    reset(mesh.sidecar("guest").call());
    let (line, its) = (denied(&mesh, "guest"), denied(&mesh, "api"));
    let id = text(&line, "conn_id");
    let logs = [log_of(&mesh, "guest"), log_of(&mesh, "api")];
    let [of_guest, of_api] = &logs;
    let claims = format!("its caller claims that it is {id} on its side");
    let alone = explain(&[id, "--records", of_api]);
    alone.has(&[
        text(&its, "conn_id"),
        text(&its, "reason"),
        &format!("{claims}; a caller may say so of any connection"),
    ]);
    let both = explain(&[id, "--records", of_guest, "--records", of_api]);
    both.has(&[
        text(&its, "reason"),
        &format!("{claims}, and that side's record is of the same caller and port"),
    ]);
    assert!(!both.out.contains("ask there"), "{}", both.out);
    let asked = [id, "--records", of_guest, "--records", of_api];
    let json = explain(&[&asked[..], &["--output", "json"]].concat()).json();
    assert_eq!(json[0]["claimed"], Value::Null);
    assert_eq!(json[1]["claimed"]["conn_id"], id);
    assert_eq!(json[1]["claimed"]["borne_out"], true);
    // of somebody else's connection
    let forged = mesh.directory().join("forged.log");
    let log = fs::read_to_string(of_api).unwrap();
    fs::write(&forged, log.replace("sa/guest\",\"src", "sa/web\",\"src")).unwrap();
    let forged = forged.display().to_string();
    explain(&[id, "--records", of_guest, "--records", &forged])
        .has(&["and that side's record is of another caller or port"]);
}

#[test]
fn a_connection_that_was_cut_is_told_of_with_what_cut_it() {
    let server = application();
    let mesh = mesh(&server);
    let mut client = mesh.sidecar("web").call().unwrap();
    assert_eq!(client.line().unwrap(), format!("{MARKER} api"));
    mesh.write_documents("policy.yaml", &WEB_ONLY.replace("sa/web", "sa/other"));
    assert_eq!(client.ending(), Ending::Reset(Vec::new()));
    let closed = mesh
        .sidecar("api")
        .log
        .wait_for(&[("event", "close"), ("end", "policy_changed")]);
    let (id, error) = (text(&closed, "conn_id"), text(&closed, "error"));
    let log = log_of(&mesh, "api");
    let said = explain(&[id, "--records", &log, "--config-dir", &documents(&mesh)]);
    said.has(&[
        "ALLOWED, then CUT  spiffe://cluster.local/ns/shop/sa/web",
        &format!(
            "ended       {}: cut, policy_changed: {error}\n",
            text(&closed, "time")
        ),
        "now         the same, by the documents",
    ]);
    assert_eq!(said.code, Some(1));
    let json = explain(&[id, "--records", &log, "--output", "json"]).json();
    assert_eq!(json[0]["verdict"], "allow");
    let ended = &json[0]["ended"];
    assert_eq!((&ended["cut"], text(ended, "error")), (&true.into(), error));
    assert_eq!(text(ended, "end"), "policy_changed");
    // the page says when, and who knows how
    explain(&[id, "--admin", &admin(&mesh, "api")])
        .has(&["ended", "how, its access log says: give it by --records"]);
}

#[test]
fn an_unknown_connection_is_no_answer_and_it_is_said_how_far_the_records_go() {
    let server = application();
    let mesh = mesh(&server);
    let said = explain(&["0123456789abcdef", "--admin", &admin(&mesh, "api")]);
    assert!(!said.err.contains("\\n"), "{}", said.err);
    said.refuses(&[
        "no record of the connection 0123456789abcdef\n",
        "  127.",
        "records of shop/api, from 20",
        "--records",
    ]);
    for wrong in ["123", "0123456789ABCDEF", "xyz", ""] {
        let said = explain(&[wrong, "--admin", &admin(&mesh, "api")]);
        assert_eq!(said.code, Some(2), "{wrong:?}: {}", said.err);
    }
    // the other side's id
    reset(mesh.sidecar("guest").call());
    let line = denied(&mesh, "guest");
    let nobody =
        fs::read_to_string(mesh.sidecar("web").folder().join("access.log")).unwrap_or_default();
    assert_eq!(nobody, "", "web has no connection");
    explain(&[text(&line, "conn_id"), "--admin", &admin(&mesh, "web")]).refuses(&["no record"]);
}

#[test]
fn both_verdicts_are_said_if_policy_has_changed_since() {
    let server = application();
    let mesh = mesh(&server);
    reset(mesh.sidecar("guest").call());
    let line = denied(&mesh, "api");
    mesh.write_documents("policy.yaml", &WEB_ONLY.replace("sa/web", "sa/*"));
    let (id, api) = (text(&line, "conn_id"), admin(&mesh, "api"));
    let said = eventually("the sidecar has the new policy", || {
        let said = explain(&[id, "--admin", &api]);
        if said.out.contains("has changed") {
            Ok(said)
        } else {
            Err(said.out)
        }
    });
    said.has(&[
        "DENIED",
        text(&line, "reason"),
        "policy has changed since: now it would be ALLOWED",
        "allowed by shop/api-from-web",
    ]);
    assert_eq!(said.code, Some(1), "of then");
}

/// The verdict, its reason and its step, of a call to api.
fn said_of_call(from: &str, port: &str, by: [&str; 2]) -> (String, String, String) {
    let call = ["--from", from, "--to", "shop/api", "--port", port];
    let more = ["--from-address", "127.0.0.9", "--output", "json"];
    let said = explain(&[&call[..], &by, &more].concat());
    let json = said.json()[0].clone();
    let [verdict, reason, step] = ["verdict", "reason", "step"].map(|field| text(&json, field));
    assert_eq!(said.code, Some(i32::from(verdict != "allow")));
    // a sidecar knows documents by the names of their files alone
    let [kind, path] = by;
    let folder = format!("{path}/");
    let reason = match kind {
        "--config-dir" => reason.replace(&folder, ""),
        _ => reason.to_owned(),
    };
    (verdict.to_owned(), reason, step.to_owned())
}

#[test]
fn what_is_said_of_a_call_by_documents_and_by_the_sidecar_is_the_same_and_comes_true() {
    let server = application();
    let mesh = mesh(&server);
    let port = server.address().port().to_string();
    let other = if port == "81" { "82" } else { "81" };
    let (directory, api) = (documents(&mesh), admin(&mesh, "api"));
    for from in [
        WEB_ID,
        WEB,
        GUEST,
        "cluster.local/ns/shop/sa/api",
        "other.org/ns/shop/sa/web",
        "spiffe://cluster.local/gateway",
        "plaintext",
    ] {
        for port in [&*port, other] {
            let by_documents = said_of_call(from, port, ["--config-dir", &directory]);
            let by_sidecar = said_of_call(from, port, ["--admin", &api]);
            assert_eq!(by_documents, by_sidecar, "{from} to {port}");
            let expected = if from.ends_with("cluster.local/ns/shop/sa/web") {
                "allow"
            } else {
                "deny"
            };
            assert_eq!(by_sidecar.0, expected, "{from} to {port}");
        }
    }
    drop(mesh.sidecar("web").call().unwrap());
    reset(mesh.sidecar("guest").call());
    for (name, from, sidecar_says) in [("web", WEB, "allow"), ("guest", GUEST, "deny")] {
        let id = format!("spiffe://{from}");
        let line = mesh
            .sidecar("api")
            .log
            .wait_for(&[("event", "open"), ("src.identity", &id)]);
        let (verdict, reason, _) = said_of_call(from, &port, ["--config-dir", &directory]);
        assert_eq!(
            (&*verdict, &*reason),
            (sidecar_says, text(&line, "reason")),
            "{name}"
        );
    }
    let workload = explain(&[
        "--from",
        "shop/guest",
        "--to",
        "shop/api",
        "--port",
        &port,
        "--config-dir",
        &directory,
    ]);
    workload.has(&["DENIED  shop/guest (spiffe://cluster.local/ns/shop/sa/guest) from 127."]);
}

#[test]
fn a_sidecar_of_another_workload_is_not_asked_for_an_answer() {
    let server = application();
    let mesh = mesh(&server);
    let api = admin(&mesh, "api");
    let ask = |from: &str, to: &str| {
        explain(&["--from", from, "--to", to, "--port", "80", "--admin", &api])
    };
    ask(WEB, "shop/web").refuses(&["is of shop/api, not of shop/web"]);
    // which identity a workload has, only documents say
    ask("shop/web", "shop/api").refuses(&["--config-dir", "cluster.local/ns/shop/sa/web"]);
    explain(&[
        "--from",
        WEB,
        "--to",
        "shop/api",
        "--port",
        "80",
        "--admin",
        "127.0.0.1:1",
    ])
    .refuses(&["no sidecar answers at 127.0.0.1:1"]);
}
