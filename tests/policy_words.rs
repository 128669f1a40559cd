//! `policy plan`, `policy replay`, `strict-ready`: what people and programs read, and the exit code,
//! of recordings in files. That what they say comes true is tested in `policy_tools`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{fs, process::Command, time::Duration};

use mesh_lite_proto::decision_record::Utc;
use mesh_lite_proxy::clock;
use mesh_lite_test_support::process::{finish, succeed};
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");

const SHOP: &str = "\
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: api, namespace: shop}
spec: {serviceAccount: api, addresses: [10.0.0.2], labels: {app: api}}
---
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: legacy, namespace: shop}
spec: {serviceAccount: legacy, addresses: [10.0.0.4], meshed: false}
---
";

const WEB_ONLY: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: api-from-web, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  rules:
  - from:
    - source: {principals: [cluster.local/ns/shop/sa/web]}
---
";

/// A directory with documents, and recordings beside it.
struct Files(tempfile::TempDir);

struct Said {
    code: Option<i32>,
    out: String,
}

impl Files {
    fn of(documents: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("documents.yaml", documents);
        files
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    /// A page of a day, up to now.
    fn page(&self, name: &str, workload: &str, calls: &[Value]) {
        let header = json!({
            "event": "recording", "workload": workload, "since": ago(25 * 60), "until": ago(0),
            "forgotten": 0, "forgotten_let_through": 0, "ends_noted": true,
            "records": calls.len(),
        });
        let lines = [header].into_iter().chain(calls.iter().cloned());
        let text: String = lines.map(|line| format!("{line}\n")).collect();
        self.write(name, &text);
    }

    fn ask(&self, tool: &str, arguments: &[&str]) -> Said {
        let mut command = Command::new(PROGRAM);
        command.current_dir(self.0.path());
        command.args(tool.split(' '));
        command
            .args(["--config-dir", "documents.yaml"])
            .args(arguments);
        let output = finish(&mut command);
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(err, "");
        Said {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
        }
    }

    fn ask_of_page(&self, tool: &str, arguments: &[&str]) -> Said {
        let records = ["--records", "page.jsonl"];
        self.ask(tool, &[&records[..], arguments].concat())
    }
}

fn ago(minutes: u64) -> String {
    Utc(clock::now() - Duration::from_secs(minutes * 60)).to_string()
}

/// Calls to api that were let through, the last one so many minutes ago.
fn calls(caller: Option<&str>, count: u64, last: u64) -> Value {
    let mut calls = json!({
        "event": "decision", "time": ago(last), "first": ago(last + 1), "direction": "inbound",
        "src.addr": "10.0.0.4:4000", "dst.addr": "10.0.0.2:8080", "decision": "allow",
        "count": count, "open": 0, "conn_ids": [],
    });
    if let Some(account) = caller {
        let id = |account: &str| format!("spiffe://cluster.local/ns/shop/sa/{account}");
        calls["src.identity"] = id(account).into();
        calls["dst.identity"] = id("api").into();
    } else {
        calls["plaintext"] = "inbound_permissive".into();
    }
    calls
}

#[test]
fn a_plan_that_denies_the_busiest_caller_is_no_good_answer_though_nothing_is_live() {
    let files = Files::of(&[SHOP, &WEB_ONLY.replace("sa/web", "sa/guest")].concat());
    files.page("page.jsonl", "shop/api", &[calls(Some("web"), 342, 5)]);
    let said = files.ask_of_page("policy plan", &[]);
    let headline = "this change closes 0 of 0 live connections, denies 1 caller that comes and goes, \
                    and opens to nobody who was denied\n";
    assert!(said.out.starts_with(headline), "{}", said.out);
    assert!(said.out.contains("342 connections"), "{}", said.out);
    assert_eq!(said.code, Some(1));
    let said = files.ask_of_page("policy plan", &["--output", "json"]);
    let told: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&told["denied_later"], said.code), (&json!(1), Some(1)));
    // of one that denies nobody a script may go on
    files.write("documents.yaml", &[SHOP, WEB_ONLY].concat());
    assert_eq!(files.ask_of_page("policy plan", &[]).code, Some(0));
}

#[test]
fn where_the_shipped_default_decides_it_is_asked_whether_it_is_right_unless_it_was_said() {
    let files = Files::of(SHOP);
    files.page(
        "page.jsonl",
        "shop/api",
        &[calls(Some("web"), 3, 5), calls(None, 4, 5)],
    );
    let question = "is --shipped right? 7 connections flip by the shipped default alone.";
    for tool in ["policy plan", "policy replay"] {
        let said = files.ask_of_page(tool, &[]);
        let second = said.out.lines().nth(1).unwrap();
        assert!(second.starts_with(question), "{}", said.out);
        assert!(second.contains("--shipped permissive"), "{}", said.out);
        let told = |arguments: &[&str]| {
            let said = files.ask_of_page(tool, &[arguments, &["--output", "json"]].concat());
            serde_json::from_str::<Value>(&said.out).unwrap()
        };
        let shipped = &told(&[])["shipped"];
        assert_eq!(
            (&shipped["assumed"], &shipped["decides"]),
            (&json!(true), &json!(7))
        );
        assert!(
            shipped["hint"]
                .as_str()
                .unwrap()
                .contains("--shipped permissive")
        );
        let said_so = &told(&["--shipped", "strict"])["shipped"];
        assert_eq!(
            (&said_so["assumed"], &said_so["hint"]),
            (&json!(false), &Value::Null)
        );
        for shipped in ["strict", "permissive"] {
            let said = files.ask_of_page(tool, &["--shipped", shipped]);
            assert!(!said.out.contains("is --shipped right"), "{}", said.out);
            assert_eq!(
                said.code,
                Some(i32::from(shipped == "strict")),
                "{}",
                said.out
            );
        }
    }
    // where documents decide, nobody asks
    let strict = "apiVersion: mesh-lite.io/v1\nkind: PeerAuthentication\n\
                  metadata: {name: default, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n";
    files.write("documents.yaml", &[SHOP, WEB_ONLY, strict].concat());
    for tool in ["policy plan", "policy replay"] {
        let said = files.ask_of_page(tool, &[]);
        assert!(!said.out.contains("is --shipped right"), "{}", said.out);
        assert_eq!(said.code, Some(1), "plaintext flips: {}", said.out);
    }
}

#[test]
fn replay_looks_as_far_back_as_it_is_asked() {
    let files = Files::of(&[SHOP, WEB_ONLY].concat());
    files.page(
        "page.jsonl",
        "shop/api",
        &[calls(Some("web"), 3, 5), calls(None, 4, 50)],
    );
    let said = files.ask_of_page("policy replay", &[]);
    assert!(said.out.starts_with("4 of 7 connections"), "{}", said.out);
    let said = files.ask_of_page("policy replay", &["--since", "30m"]);
    let headline = "0 of 3 connections (0 of 1 distinct) would flip, since 2";
    assert!(said.out.starts_with(headline), "{}", said.out);
    assert_eq!(said.code, Some(0), "{}", said.out);
}

#[test]
fn who_is_ready_is_told_what_to_put_in_force_and_it_loads() {
    let files = Files::of(&[SHOP, WEB_ONLY].concat());
    files.page("page.jsonl", "shop/api", &[calls(Some("web"), 3, 5)]);
    let said = files.ask_of_page("strict-ready", &["--shipped", "permissive"]);
    assert_eq!(said.code, Some(0), "{}", said.out);
    let expected = "\nNext, put this in force: the whole mesh is STRICT then\n  \
                    apiVersion: mesh-lite.io/v1\n  kind: PeerAuthentication\n  \
                    metadata: {name: default, namespace: mesh-lite-system}\n  spec:\n    \
                    mtls: {mode: STRICT}\n";
    assert!(said.out.contains(expected), "{}", said.out);
    let arguments = ["--shipped", "permissive", "--output", "json"];
    let told: Value =
        serde_json::from_str(&files.ask_of_page("strict-ready", &arguments).out).unwrap();
    files.write("strict.yaml", told["next"]["document"].as_str().unwrap());
    let mut lint = Command::new(PROGRAM);
    lint.current_dir(files.0.path());
    let said = succeed(lint.args(["policy", "lint", "strict.yaml"]));
    assert!(
        said.ends_with("1 file: 0 errors, 0 warnings, 0 notes\n"),
        "{said}"
    );
    // nothing is proposed to who isn't
    files.page("page.jsonl", "shop/api", &[calls(None, 3, 5)]);
    let arguments = ["--shipped", "permissive", "--output", "json"];
    let said = files.ask_of_page("strict-ready", &arguments);
    let told: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((&told["next"], said.code), (&Value::Null, Some(1)));
}

#[test]
fn of_a_large_mesh_people_read_what_matters_first_and_programs_everything() {
    const MESH: usize = 120;
    let workload = |number: usize| {
        SHOP.split("---")
            .next()
            .unwrap()
            .replace("name: api", &format!("name: w-{number}"))
            .replace("10.0.0.2", &format!("10.0.1.{number}"))
            + "---\n"
    };
    let documents: String = (0..MESH).map(workload).collect();
    let files = Files::of(&[SHOP, WEB_ONLY, &documents].concat());
    let mut strangers = vec![calls(Some("web"), 3, 5)];
    strangers.extend((0..MESH).map(|number| {
        let mut calls = calls(None, 1, 5);
        calls["src.addr"] = format!("192.0.2.{number}:1").into();
        calls
    }));
    files.page("page.jsonl", "shop/api", &strangers);
    let said = files.ask_of_page("strict-ready", &["--shipped", "permissive"]);
    assert_eq!(said.code, Some(1));
    let headline = "not ready: 120 callers in plaintext, 120 things not known (121 workloads, ";
    assert!(said.out.starts_with(headline), "{}", said.out);
    let more = "\n  and 70 more (--output json has all)\n";
    assert_eq!(said.out.matches(more).count(), 2, "{}", said.out);
    assert!(said.out.lines().count() < 120, "{}", said.out);
    let last = said.out.lines().last().unwrap();
    assert!(
        last.starts_with("recorded: shop/api by page.jsonl"),
        "{}",
        said.out
    );

    for number in 0..30 {
        files.page(&format!("{number}.jsonl"), &format!("shop/w-{number}"), &[]);
    }
    let names: Vec<String> = (0..30).map(|number| format!("{number}.jsonl")).collect();
    let mut arguments = vec!["--records", "page.jsonl"];
    for name in &names {
        arguments.extend(["--records", name]);
    }
    for tool in ["policy plan", "policy replay"] {
        let said = files.ask(tool, &arguments);
        let (first, lists) = said.out.split_once("\nrecorded: ").unwrap();
        assert!(first.contains(more), "{}", said.out);
        assert_eq!(lists.lines().count(), 11, "{lists}");
        assert!(
            lists.ends_with("and by 21 more (--output json has all)\n"),
            "{lists}"
        );
        let json = files.ask(tool, &[&arguments[..], &["--output", "json"]].concat());
        let told: Value = serde_json::from_str(&json.out).unwrap();
        assert_eq!(told["recordings"].as_array().unwrap().len(), 31);
    }
}

#[test]
fn what_was_refused_before_policy_was_asked_is_counted() {
    let files = Files::of(&[SHOP, WEB_ONLY].concat());
    let refused = |count: u64| {
        let mut refused = calls(None, count, 5);
        refused["decision"] = "refuse".into();
        refused["reason"] = "handshake_timeout".into();
        refused.as_object_mut().unwrap().remove("plaintext");
        refused
    };
    for (count, words) in [
        (1, "\n1 connection refused before"),
        (2, "\n2 connections refused before"),
    ] {
        files.page(
            "page.jsonl",
            "shop/api",
            &[calls(Some("web"), 3, 5), refused(count)],
        );
        let said = files.ask_of_page("policy replay", &[]);
        assert!(said.out.contains(words), "{}", said.out);
    }
}

/// What stands in the text itself is not wrapped again by a terminal of so many columns.
#[test]
fn help_fits_a_terminal() {
    const COLUMNS: usize = 80;
    let tools = ["lint", "test", "plan", "replay", "suggest", "documents"];
    let policy = tools.map(|tool| vec!["policy", tool]);
    for mut tool in [&policy[..], &[vec!["policy"], vec!["strict-ready"]]].concat() {
        tool.push("--help");
        let help = succeed(Command::new(PROGRAM).args(&tool));
        let (_, examples) = help.split_once("\nExamples:\n").unwrap();
        for line in examples.lines() {
            assert!(line.chars().count() <= COLUMNS, "{tool:?}: {line}");
        }
    }
}
