//! `mesh-lite explain`: the reason of connections that were made, and of calls that were not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
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

#[test]
fn the_caller_s_side_says_who_decided_and_where_to_ask() {
    let server = application();
    let mesh = mesh(&server);
    reset(mesh.sidecar("guest").call());
    let line = denied(&mesh, "guest");
    let said = explain(&[text(&line, "conn_id"), "--admin", &admin(&mesh, "guest")]);
    said.has(&[
        "DENIED",
        "the other side's sidecar denied it by shop/api-from-web (policy.yaml:",
        &format!("mesh-lite explain --from {GUEST} --to NAMESPACE/NAME --port"),
    ]);
    assert_eq!(said.code, Some(1));
    // whom the policy names instead is not for the caller to know
    assert!(!said.out.contains("sa/web"), "{}", said.out);
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

#[test]
fn what_is_said_of_a_call_by_documents_and_by_the_sidecar_is_the_same_and_comes_true() {
    let server = application();
    let mesh = mesh(&server);
    let port = server.address().port().to_string();
    let other = if port == "81" { "82" } else { "81" };
    let (directory, api) = (documents(&mesh), admin(&mesh, "api"));
    let ask = |from: &str, port: &str, by: [&str; 2]| {
        let call = [
            "--from",
            from,
            "--to",
            "shop/api",
            "--port",
            port,
            "--from-address",
            "127.0.0.9",
        ];
        let said = explain(&[&call[..], &by, &["--output", "json"]].concat());
        let json = said.json()[0].clone();
        let verdict = text(&json, "verdict").to_owned();
        assert_eq!(said.code, Some(i32::from(verdict != "allow")));
        (
            verdict,
            text(&json, "reason").to_owned(),
            text(&json, "step").to_owned(),
        )
    };
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
            let by_documents = ask(from, port, ["--config-dir", &directory]);
            let by_sidecar = ask(from, port, ["--admin", &api]);
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
        let (verdict, reason, _) = ask(from, &port, ["--config-dir", &directory]);
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

const WORKLOADS: &str = "\
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: web, namespace: shop}
spec: {serviceAccount: web, addresses: [10.0.0.1, 10.9.0.1]}
---
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: api, namespace: shop}
spec: {serviceAccount: api, addresses: [10.0.0.2], labels: {app: api}}
---
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: old, namespace: shop}
spec: {serviceAccount: old, addresses: [10.0.0.3], meshed: false}
---
";

/// A directory with the workloads and a policy.
fn directory(file: &str, policy: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("workloads.yaml"), WORKLOADS).unwrap();
    fs::write(directory.path().join(file), policy).unwrap();
    directory
}

fn ask(directory: &Path, more: &[&str]) -> Said {
    let directory = directory.display().to_string();
    let to = [
        "--to",
        "shop/api",
        "--port",
        "80",
        "--config-dir",
        &directory,
    ];
    explain(&[more, &to].concat())
}

#[test]
fn evictions_dry_runs_and_denials_are_told_of_in_their_order() {
    let policy = format!(
        "{WEB_ONLY}---\napiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: trial, namespace: shop}}\n\
         spec: {{action: DENY, dryRun: true, rules: [{{to: [{{operation: {{ports: [80]}}}}]}}]}}\n"
    );
    let directory = directory("policy.yaml", &policy);
    let said = ask(directory.path(), &["--from", "shop/web"]);
    said.has(&[
        "ALLOWED",
        "shop/trial (policy.yaml:14), rules[0]: would DENY this call if it were enforced",
    ]);
    let eviction = "apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: {name: out, namespace: mesh-lite-system}\n\
                    spec: {spiffeId: spiffe://cluster.local/ns/shop/sa/web}\n";
    fs::write(directory.path().join("evictions.yaml"), eviction).unwrap();
    let said = ask(directory.path(), &["--from", "shop/web"]);
    said.has(&[
        "DENIED",
        "the peer is evicted by mesh-lite-system/out (evictions.yaml:1)",
        "not asked",
    ]);
    assert_eq!(said.code, Some(1));
    assert!(!said.out.contains("matches, and decides"), "{}", said.out);
}

#[test]
fn documents_lie_in_several_directories_and_files() {
    let whole = directory("policy.yaml", WEB_ONLY);
    let apart = tempfile::tempdir().unwrap();
    fs::rename(
        whole.path().join("policy.yaml"),
        apart.path().join("policy.yaml"),
    )
    .unwrap();
    let policy = apart.path().join("policy.yaml").display().to_string();
    ask(
        whole.path(),
        &["--from", "shop/web", "--config-dir", &policy],
    )
    .has(&["ALLOWED"]);
    let said = ask(whole.path(), &["--from", "shop/web"]);
    assert_eq!(
        said.code,
        Some(1),
        "the policy lies elsewhere: {}",
        said.out
    );
}

#[test]
fn an_answer_that_hangs_on_the_address_is_not_guessed() {
    let policy = WEB_ONLY.replace("{principals:", "{ipBlocks: [\"10.0.0.0/16\"], principals:");
    let directory = directory("policy.yaml", &policy);
    ask(directory.path(), &["--from", "shop/web"])
        .refuses(&["several addresses", "--from-address"]);
    ask(directory.path(), &["--from", "plaintext"]).refuses(&["--from-address"]);
    let said = ask(
        directory.path(),
        &["--from", "shop/web", "--from-address", "10.0.0.1"],
    );
    assert_eq!(said.code, Some(0), "{}", said.out);
    let said = ask(
        directory.path(),
        &["--from", "shop/web", "--from-address", "10.9.0.1"],
    );
    said.has(&["was        10.9.0.1", "should be  10.0.0.0/16"]);
}

#[test]
fn what_can_t_be_answered_is_neither_yes_nor_no() {
    let directory = directory("policy.yaml", WEB_ONLY);
    let at = directory.path().display().to_string();
    ask(directory.path(), &["--from", "shop/wbe"]).refuses(&["no Workload document", "shop/web"]);
    let to = |to: &str, port: &str| {
        explain(&[
            "--from",
            "shop/web",
            "--to",
            to,
            "--port",
            port,
            "--config-dir",
            &at,
        ])
    };
    to("shop/apl", "80").refuses(&["no Workload document", "shop/api"]);
    to("shop/old", "80").refuses(&["outside the mesh"]);
    to("shop/api", "15006").refuses(&["one of the sidecar's own"]);
    for wrong in ["0", "http", "65536", ""] {
        to("shop/api", wrong).refuses(&["a number from 1 to 65535"]);
    }
    explain(&[
        "--from",
        "shop/web",
        "--to",
        "shop/api",
        "--port",
        "80",
        "--config-dir",
        "/nowhere",
    ])
    .refuses(&["/nowhere"]);
    for usage in [
        &["--from", "shop/web"][..],
        &[],
        &["0123456789abcdef", "--from", "shop/web"],
    ] {
        assert_eq!(explain(usage).code, Some(2), "{usage:?}");
    }
}

#[test]
fn a_document_that_can_t_be_loaded_denies_in_the_answer_too() {
    let directory = directory("policy.yaml", &WEB_ONLY.replace("principals", "princpals"));
    let said = ask(directory.path(), &["--from", "shop/web"]);
    said.has(&[
        "DENIED",
        "can't be loaded",
        "1 error in them",
        "policy lint",
    ]);
    assert_eq!(said.code, Some(1));
}

/// An access log of api with one open line; `more` is what was decided.
fn log(directory: &Path, more: &str) -> String {
    let line = format!(
        "{{\"time\":\"2026-11-21T13:00:00.000Z\",\"event\":\"open\",\"conn_id\":\"0123456789abcdef\",\
         \"src.addr\":\"10.0.0.3:4000\",\"dst.addr\":\"10.0.0.2:80\",{more}}}\n"
    );
    let log = directory.join("access.log");
    fs::write(&log, line).unwrap();
    log.display().to_string()
}

#[test]
fn what_no_policy_decided_is_told_as_what_it_was() {
    let directory = directory("policy.yaml", WEB_ONLY);
    let documents = directory.path().display().to_string();
    let ask = |more: &str| {
        let log = log(directory.path(), more);
        explain(&[
            "0123456789abcdef",
            "--records",
            &log,
            "--config-dir",
            &documents,
        ])
    };
    let refused = |reason: &str, error: &str| {
        format!(
            "\"direction\":\"inbound\",\"decision\":\"refuse\",\"reason\":\"{reason}\",\"error\":\"{error}\""
        )
    };
    let said = ask(&refused(
        "plaintext_to_strict",
        "plaintext to port 80, which takes mutual TLS only",
    ));
    said.has(&[
        "DENIED  plaintext from 10.0.0.3",
        "plaintext_to_strict",
        "takes mutual TLS only",
        "now         the same, by",
    ]);
    assert_eq!(said.code, Some(1));
    // policy was never asked: what it would say is nobody's business here
    let said = ask(&refused("bad_header", "no such version"));
    said.has(&["DENIED", "bad_header", "no such version"]);
    assert!(!said.out.contains("considered"), "{}", said.out);
    let outbound = |more: &str| format!("\"direction\":\"outbound\",{more}");
    let said = ask(&outbound("\"decision\":\"unanswered\",\"error\":\"reset\""));
    said.has(&["DENIED", "the other side's sidecar never answered", "reset"]);
    assert_eq!(said.code, Some(1));
    let said = ask(&outbound("\"decision\":\"pass\",\"plaintext\":\"outside\""));
    said.has(&[
        "ALLOWED",
        "went out in plaintext, where nobody decides: outside",
    ]);
    assert_eq!(said.code, Some(0));
    // now it would come to policy, which does not know it either
    let permissive = "apiVersion: mesh-lite.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: shop}\nspec: {mtls: {mode: PERMISSIVE}}\n";
    fs::write(directory.path().join("peers.yaml"), permissive).unwrap();
    let said = ask(&refused("plaintext_to_strict", "plaintext to port 80"));
    said.has(&[
        "policy has changed since: now it would be DENIED",
        "no ALLOW rule matches",
        "was        no identity (plaintext)",
    ]);
}

#[test]
fn an_evicted_caller_is_told_so_as_long_as_it_is_evicted() {
    let directory = directory("policy.yaml", WEB_ONLY);
    let documents = directory.path().display().to_string();
    let log = log(
        directory.path(),
        "\"direction\":\"inbound\",\"src.identity\":\"spiffe://cluster.local/ns/shop/sa/web\",\
         \"decision\":\"refuse\",\"reason\":\"evicted\",\"error\":\"the peer is evicted by m/out (e.yaml:1)\"",
    );
    let ask = || {
        explain(&[
            "0123456789abcdef",
            "--records",
            &log,
            "--config-dir",
            &documents,
        ])
    };
    ask().has(&[
        "DENIED",
        "evicted by m/out",
        "policy has changed since: now it would be ALLOWED",
    ]);
    let eviction = "apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: {name: out, namespace: mesh-lite-system}\n\
                    spec: {spiffeId: spiffe://cluster.local/ns/shop/sa/web}\n";
    fs::write(directory.path().join("e.yaml"), eviction).unwrap();
    ask().has(&["DENIED", "now         the same, by"]);
}

#[test]
fn an_id_that_several_sidecars_gave_is_told_of_once_for_each() {
    let (one, other) = (
        directory("policy.yaml", WEB_ONLY),
        directory("policy.yaml", WEB_ONLY),
    );
    let deny = "\"direction\":\"inbound\",\"decision\":\"deny\",\"step\":\"default-action\",\"reason\":\"default\"";
    let one = log(one.path(), deny);
    let other = log(other.path(), deny);
    let said = explain(&["0123456789abcdef", "--records", &one, "--records", &other]);
    said.has(&[
        "2 recordings have a connection 0123456789abcdef",
        &one,
        &other,
    ]);
    assert_eq!(said.out.matches("DENIED").count(), 2, "{}", said.out);
    let alone = explain(&["0123456789abcdef", "--records", &one]);
    assert!(!alone.out.contains("recordings have"), "{}", alone.out);
}

#[test]
fn a_record_that_is_not_one_is_named_with_its_line() {
    let directory = directory("policy.yaml", WEB_ONLY);
    let log = log(directory.path(), "\"direction\":\"sideways\"");
    explain(&["0123456789abcdef", "--records", &log]).refuses(&["access.log:1"]);
}

#[test]
fn no_file_name_and_no_record_steers_the_terminal() {
    let hostile = directory("p\u{1b}[2J\u{202e}.yaml", WEB_ONLY);
    for form in ["text", "json"] {
        let said = ask(hostile.path(), &["--from", "shop/old", "--output", form]);
        assert_eq!(said.code, Some(1), "{}", said.err);
        assert!(
            !said.out.contains(['\u{1b}', '\u{202e}', '\u{9b}']),
            "{:?}",
            said.out
        );
    }
    let record = "{\"time\":\"2026-11-21T13:00:00.000Z\",\"event\":\"open\",\"conn_id\":\"0123456789abcdef\",\
        \"direction\":\"inbound\",\"src.addr\":\"10.0.0.1:1\",\"dst.addr\":\"10.0.0.2:80\",\"decision\":\"deny\",\
        \"step\":\"deny-rule\",\"policy\":\"shop/p\",\"policy_source\":\"p\\u001b[2J.yaml:3\",\"rule\":0,\
        \"reason\":\"denied by \\u001b]0;owned\\u0007 \\u202e\"}\n";
    let log = hostile.path().join("access.log");
    fs::write(&log, record).unwrap();
    for form in ["text", "json"] {
        let said = explain(&[
            "0123456789abcdef",
            "--records",
            &log.display().to_string(),
            "--output",
            form,
        ]);
        assert_eq!(said.code, Some(1), "{}", said.err);
        assert!(
            !said.out.contains(['\u{1b}', '\u{7}', '\u{202e}']),
            "{:?}",
            said.out
        );
    }
}
