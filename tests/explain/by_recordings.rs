//! Connections whose record lies in a file.

use std::{fs, path::Path};

use mesh_lite_test_support::loopback_mesh::WEB_ONLY;

use super::{
    by_documents::{ask, directory},
    explain,
};

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
        "why         plaintext came to a port that takes mutual TLS only (STRICT)\n",
        "plaintext to port 80, which takes mutual TLS only",
        "(the access log says plaintext_to_strict)",
        "next        put the caller into the mesh",
        "now         the same, by",
    ]);
    assert_eq!(said.code, Some(1));
    // policy was never asked: what it would say is nobody's business here
    let said = ask(&refused("bad_header", "no such version"));
    said.has(&[
        "DENIED",
        "(the access log says bad_header)",
        "no such version",
        "the documents have no say in this",
    ]);
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
        "it would be DENIED, for another reason",
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
        &format!("by the documents in {documents} it would be ALLOWED\n"),
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

#[test]
fn a_refusal_says_where_to_it_was_and_what_to_do() {
    let directory = directory("policy.yaml", WEB_ONLY);
    let line = "{\"time\":\"2026-11-21T13:00:00.000Z\",\"event\":\"open\",\"conn_id\":\"0123456789abcdef\",\
        \"direction\":\"outbound\",\"src.addr\":\"10.0.0.1:1\",\"original_dst\":\"10.0.0.4:8080\",\
        \"decision\":\"refuse\",\"reason\":\"unknown_destination\",\"error\":\"nobody in the mesh\"}\n";
    let log = directory.path().join("access.log");
    fs::write(&log, line).unwrap();
    let log = log.display().to_string();
    let said = explain(&["0123456789abcdef", "--records", &log]);
    said.has(&[
        "DENIED  plaintext from 10.0.0.1 -> 10.0.0.4:8080\n",
        "why         nobody is known who must answer there\n",
        "nobody in the mesh\n",
        "(the access log says unknown_destination)",
        "next        write a Workload with that address, meshed: false",
    ]);
    let json = explain(&["0123456789abcdef", "--records", &log, "--output", "json"]).json();
    assert_eq!(json[0]["reason"], "unknown_destination");
    assert_eq!(json[0]["original_dst"], "10.0.0.4:8080");
    assert!(json[0]["refusal"]["next"].is_string(), "{json}");
    // one that this version does not know keeps its name
    fs::write(&log, line.replace("unknown_destination", "tired")).unwrap();
    explain(&["0123456789abcdef", "--records", &log]).has(&["why         tired\n"]);
}

#[test]
fn what_documents_say_of_the_other_side_is_of_who_answered_there() {
    let directory = directory("policy.yaml", WEB_ONLY);
    let documents = directory.path().display().to_string();
    let ask = |id: &str, address: &str| {
        let peer = format!(
            "\"direction\":\"outbound\",\"src.identity\":\"spiffe://cluster.local/ns/shop/sa/web\",\
             \"dst.identity\":\"spiffe://cluster.local/ns/shop/sa/{id}\",\"decision\":\"allow\",\
             \"decided_by\":\"peer\",\"answer\":\"ok\""
        );
        let log = log(directory.path(), &peer);
        let text = fs::read_to_string(&log).unwrap();
        fs::write(&log, text.replace("10.0.0.2:80", address)).unwrap();
        let with = ["--records", &log, "--config-dir", &documents];
        explain(&[&["0123456789abcdef"][..], &with].concat())
    };
    ask("api", "10.0.0.2:80").has(&["now         the same, by", "matches, and decides"]);
    for (id, address, why) in [
        (
            "api",
            "10.0.0.77:80",
            "no Workload document has that address",
        ),
        ("old", "10.0.0.3:80", "is outside the mesh"),
        (
            "db",
            "10.0.0.2:80",
            "it was spiffe://cluster.local/ns/shop/sa/db that answered",
        ),
    ] {
        let said = ask(id, address);
        said.has(&[why, "ask there"]);
        assert!(!said.out.contains("considered"), "{}", said.out);
    }
}

#[test]
fn what_a_container_writes_is_read_as_its_access_log() {
    let directory = directory("policy.yaml", WEB_ONLY);
    let deny = "\"direction\":\"inbound\",\"decision\":\"deny\",\"step\":\"default-action\",\"reason\":\"default\"";
    let log = log(directory.path(), deny);
    let lines = fs::read_to_string(&log).unwrap();
    let own = "{\"timestamp\":\"2026-11-21T20:13:42.678454Z\",\"level\":\"INFO\",\
               \"fields\":{\"message\":\"ready\"},\"target\":\"mesh_lite_proxy::readiness\"}\n";
    fs::write(&log, format!("{own}{lines}{own}")).unwrap();
    explain(&["0123456789abcdef", "--records", &log]).has(&["DENIED", "default"]);
    // half a line may have been any: what to do is said
    let half = lines.get(..60).unwrap();
    fs::write(&log, format!("{own}{half}\n{lines}")).unwrap();
    explain(&["0123456789abcdef", "--records", &log]).refuses(&[
        "access.log:2: it is no line",
        "kubectl logs",
        "grep '\"event\":' FILE",
    ]);
}

#[test]
fn a_record_that_only_the_shipped_default_contradicts_asks_whether_it_is_right() {
    let other = WEB_ONLY.replace("app: api", "app: other");
    let directory = directory("policy.yaml", &other);
    let documents = directory.path().display().to_string();
    let log = log(
        directory.path(),
        "\"direction\":\"inbound\",\"src.identity\":\"spiffe://cluster.local/ns/shop/sa/web\",\
         \"decision\":\"allow\",\"step\":\"mutual-tls-mode\",\
         \"reason\":\"no rule matches; PERMISSIVE allows by default\"",
    );
    let ask = |more: &[&str]| {
        let with = [
            "0123456789abcdef",
            "--records",
            &log,
            "--config-dir",
            &documents,
        ];
        explain(&[&with[..], more].concat())
    };
    ask(&[]).has(&[
        &format!("by the documents in {documents} it would be DENIED\n"),
        "is --shipped right?",
        "--shipped permissive",
    ]);
    let right = ask(&["--shipped", "permissive"]);
    right.has(&["now         the same, by"]);
    assert!(!right.out.contains("is --shipped right?"), "{}", right.out);
}

#[test]
fn what_dry_runs_said_then_is_told_from_what_they_say_now() {
    let directory = directory("policy.yaml", WEB_ONLY);
    let log = log(
        directory.path(),
        "\"direction\":\"inbound\",\"src.identity\":\"spiffe://cluster.local/ns/shop/sa/web\",\
         \"decision\":\"allow\",\"step\":\"mutual-tls-mode\",\"reason\":\"x\",\
         \"recorded\":[{\"action\":\"ALLOW\",\"policy\":\"shop/t\",\"policy_source\":\"t.yaml:1\",\
         \"dry_run\":true,\"effect\":\"would_deny\"}]",
    );
    let said = explain(&["0123456789abcdef", "--records", &log]);
    said.has(&[
        "dry runs and audits of then, which decided nothing\n",
        "shop/t (t.yaml:1): would DENY this call if it were enforced: none of its rules matches\n",
    ]);
    let json = explain(&["0123456789abcdef", "--records", &log, "--output", "json"]).json();
    assert_eq!(json[0]["recorded"][0]["effect"], "would_deny");
}
