//! `mesh-lite policy lint`: what its user sees, and what a script does. What is odd, each kind of
//! it, is tested where it is found.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use mesh_lite_test_support::process::finish;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");

const GOOD: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: api-from-web, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  rules:
  - from:
    - source: {principals: [cluster.local/ns/shop/sa/web]}
";

/// Of two rules, the second changes nothing.
const SHADOWED: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: twice, namespace: shop}
spec:
  rules:
  - from:
    - source: {namespaces: [shop]}
  - from:
    - source: {principals: [cluster.local/ns/shop/sa/web]}
";

/// It allows nobody, which may be what is meant.
const NOBODY: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody, namespace: pay}
spec: {}
";

fn lint(directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(PROGRAM);
    command
        .current_dir(directory)
        .args(["policy", "lint"])
        .args(arguments);
    let Output {
        status,
        stdout,
        stderr,
    } = finish(&mut command);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

fn files(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

#[test]
fn documents_without_a_fault_are_counted_and_nothing_is_said_of_them() {
    let directory = files(&[("good.yaml", GOOD)]);
    let (code, out, _) = lint(directory.path(), &["good.yaml"]);
    assert_eq!(
        (code, &*out),
        (Some(0), "1 file: 0 errors, 0 warnings, 0 notes\n")
    );
}

#[test]
fn an_oddity_is_shown_with_its_line_a_mark_and_what_to_do() {
    let directory = files(&[("p.yaml", SHADOWED)]);
    let (code, out, _) = lint(directory.path(), &["p.yaml"]);
    let expected = "\
warning[shadowed-rule]: rules[1] changes nothing: shop/twice rules[0] (p.yaml:6) matches everybody
    whom it matches
 --> p.yaml:8:5
  |
8 |   - from:
  |     ^^^^
  = help: remove it, or narrow the other one

1 file: 0 errors, 1 warning, 0 notes
";
    assert_eq!((code, &*out), (Some(1), expected));
}

#[test]
fn notes_alone_are_no_fault() {
    let directory = files(&[("p.yaml", NOBODY)]);
    let (code, out, _) = lint(directory.path(), &["p.yaml"]);
    assert!(
        out.contains("note[allows-nobody]") && out.ends_with("0 errors, 0 warnings, 1 note\n"),
        "{out}"
    );
    assert_eq!(code, Some(0));
}

#[test]
fn all_errors_of_all_files_come_first_and_together_with_what_is_odd() {
    let broken = GOOD
        .replace("selector", "selectr")
        .replace("principals", "princpals");
    let directory = files(&[
        ("a.yaml", SHADOWED),
        ("b.yaml", &broken),
        ("ignored.txt", "x"),
    ]);
    let (code, out, _) = lint(directory.path(), &["."]);
    assert_eq!(code, Some(1));
    let at = |part: &str| {
        out.find(part)
            .unwrap_or_else(|| panic!("{part:?} is not in:\n{out}"))
    };
    assert!(at("spec.selectr") < at("princpals"), "{out}");
    assert!(at("princpals") < at("warning[shadowed-rule]"), "{out}");
    assert!(
        out.ends_with("2 files: 2 errors, 1 warning, 0 notes\n"),
        "{out}"
    );
}

#[test]
fn documents_of_several_paths_are_read_together() {
    let wide = SHADOWED.replace("twice", "wide");
    let narrow = GOOD.replace("api-from-web", "narrow");
    let directory = files(&[
        (
            "wide.yaml",
            &wide
                .lines()
                .take(7)
                .map(|line| format!("{line}\n"))
                .collect::<String>(),
        ),
        ("narrow.yaml", &narrow),
    ]);
    assert_eq!(lint(directory.path(), &["narrow.yaml"]).0, Some(0));
    let (code, out, _) = lint(directory.path(), &["narrow.yaml", "wide.yaml"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("shop/wide rules[0] (wide.yaml:6)"), "{out}");
}

#[test]
fn a_workload_that_is_defined_twice_is_an_error_as_the_control_plane_has_it() {
    let workload = "apiVersion: mesh-lite.io/v1\nkind: Workload\nmetadata: {name: web, namespace: shop}\n\
                    spec: {serviceAccount: web, addresses: [10.0.0.1]}\n";
    let directory = files(&[("a.yaml", workload), ("b.yaml", &format!("\n{workload}"))]);
    let (code, out, _) = lint(directory.path(), &["a.yaml", "b.yaml"]);
    assert!(
        out.contains("Workload shop/web is defined twice, first at a.yaml:1"),
        "{out}"
    );
    assert!(out.contains("--> b.yaml:2:1"), "{out}");
    assert_eq!(code, Some(1));
}

#[test]
fn a_program_gets_everything_as_json() {
    let broken = GOOD.replace("principals", "princpals");
    let directory = files(&[("a.yaml", SHADOWED), ("b.yaml", &broken)]);
    let (code, out, _) = lint(directory.path(), &["a.yaml", "b.yaml", "--output", "json"]);
    assert_eq!(code, Some(1));
    let json: Value = serde_json::from_str(&out).unwrap();
    let findings = json["findings"].as_array().unwrap();
    let told: Vec<_> = findings
        .iter()
        .map(|one| {
            (
                one["severity"].as_str().unwrap(),
                one["class"].as_str().unwrap(),
                one["line"].as_u64().unwrap(),
                one["column"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("error", "unknown-field", 8, 16),
            ("warning", "shadowed-rule", 8, 5)
        ],
        "{out}"
    );
    assert_eq!(
        (&findings[0]["file"], &findings[1]["file"]),
        (&"b.yaml".into(), &"a.yaml".into())
    );
}

#[test]
fn a_path_that_can_t_be_read_is_neither_good_nor_bad() {
    let directory = files(&[("good.yaml", GOOD)]);
    for paths in [
        &["nowhere.yaml"][..],
        &["good.yaml", "nowhere"],
        &["/dev/zero"],
        &[],
    ] {
        let (code, out, err) = lint(directory.path(), paths);
        assert_eq!((code, &*out), (Some(2), ""), "{paths:?}: {err}");
        assert!(!err.is_empty());
    }
}

#[test]
fn the_settings_of_the_control_plane_are_those_of_lint() {
    let wide = SHADOWED
        .lines()
        .take(7)
        .map(|line| format!("{line}\n"))
        .collect::<String>();
    let mesh = wide
        .replace("namespace: shop", "namespace: root")
        .replace("[shop]", "[\"*\"]");
    let directory = files(&[("mesh.yaml", &mesh), ("narrow.yaml", GOOD)]);
    assert_eq!(lint(directory.path(), &["."]).0, Some(0));
    let (code, out, _) = lint(directory.path(), &[".", "--mesh-namespace", "root"]);
    assert_eq!(
        code,
        Some(1),
        "a policy in the mesh's own namespace is for all: {out}"
    );
}

/// As `policy lint … | head -1` does it.
#[test]
fn a_reader_who_goes_away_is_no_error() {
    let many: Vec<String> = (0..2_000)
        .map(|number| NOBODY.replace("nobody", &format!("nobody-{number}")))
        .collect();
    for tool in ["lint", "test", "schema"] {
        let directory = tempfile::tempdir().unwrap();
        for (number, some) in many.chunks(500).enumerate() {
            let path = directory.path().join(format!("{number}.yaml"));
            fs::write(path, some.join("---\n")).unwrap();
        }
        let mut command = Command::new(PROGRAM);
        command.args(["policy", tool]).stderr(Stdio::piped());
        if tool != "schema" {
            command.arg(directory.path());
        }
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = command.stdout(writer).spawn().unwrap();
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), &*said), (Some(0), ""), "{tool}");
    }
}

#[test]
fn a_directory_without_documents_is_no_clean_bill() {
    let directory = files(&[("good.yaml", GOOD)]);
    fs::create_dir(directory.path().join("documnets")).unwrap();
    for paths in [&["documnets"][..], &["good.yaml", "documnets"]] {
        let (code, out, err) = lint(directory.path(), paths);
        assert_eq!((code, &*out), (Some(2), ""));
        assert!(
            err.contains("no .yaml or .yml file is in \"documnets\""),
            "{err}"
        );
    }
    for path in [".", "./"] {
        assert_eq!(lint(directory.path(), &[path]).0, Some(0), "{path}");
    }
}

#[test]
fn of_hundreds_of_findings_the_first_are_shown_and_all_are_counted() {
    let many: Vec<String> = (0..250)
        .map(|number| NOBODY.replace("nobody", &format!("nobody-{number}")))
        .collect();
    let directory = files(&[("notes.yaml", &many.join("---\n"))]);
    let (code, out, _) = lint(directory.path(), &["notes.yaml"]);
    assert_eq!(out.matches("note[allows-nobody]").count(), 200);
    let end =
        "and 50 more findings: see --output json\n\n1 file: 0 errors, 0 warnings, 250 notes\n";
    assert!(out.ends_with(end), "{out}");
    assert_eq!(code, Some(0));
    // of ten documents: of one, so many are not told
    let fields: String = (0..25).map(|number| format!("  x{number}: 1\n")).collect();
    let wrong = GOOD.replace("  rules", &format!("{fields}  rules"));
    let wrong: Vec<String> = (0..10)
        .map(|number| wrong.replace("api-from-web", &format!("wrong-{number}")))
        .collect();
    let directory = files(&[("errors.yaml", &wrong.join("---\n"))]);
    let (code, out, _) = lint(directory.path(), &["errors.yaml"]);
    assert_eq!(out.matches("error[unknown-field]").count(), 200);
    assert!(out.contains("and 50 more errors: see"), "{out}");
    assert_eq!(code, Some(1));
}

#[test]
fn what_can_t_be_read_is_said_once_in_a_line_of_its_own() {
    let directory = files(&[("good.yaml", GOOD)]);
    let forged = "nowhere\nmesh-lite: all documents are good";
    for tool in [
        &["policy", "lint", forged][..],
        &[
            "policy",
            "replay",
            "--config-dir",
            forged,
            "--records",
            "none",
        ],
        &[
            "policy",
            "replay",
            "--config-dir",
            "good.yaml",
            "--records",
            forged,
        ],
        &["explain", "0123456789abcdef", "--records", forged],
        &["explain", "0123456789abcdef", "--records", "."],
        &["explain", "0123456789abcdef", "--admin", "127.0.0.1:1"],
    ] {
        let mut command = Command::new(PROGRAM);
        command.current_dir(directory.path()).args(tool);
        let Output { status, stderr, .. } = finish(&mut command);
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(2), "{tool:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{tool:?}: {said}");
        assert_eq!(said.matches("(os error").count(), 1, "{tool:?}: {said}");
    }
}

#[test]
fn a_link_out_of_the_directory_shows_nothing_of_where_it_leads() {
    let elsewhere = files(&[("secret.txt", "PRIVATE KEY: {unknown\n")]);
    let directory = files(&[("broken.txt", "PRIVATE KEY: {unknown\n")]);
    let secret = elsewhere.path().join("secret.txt");
    std::os::unix::fs::symlink(&secret, directory.path().join("out.yaml")).unwrap();
    let (code, out, _) = lint(directory.path(), &["."]);
    assert_eq!(code, Some(1), "{out}");
    assert!(
        out.contains("out.yaml") && !out.contains("PRIVATE"),
        "{out}"
    );
    // as Kubernetes mounts a ConfigMap
    std::os::unix::fs::symlink("broken.txt", directory.path().join("in.yaml")).unwrap();
    let (_, out, _) = lint(directory.path(), &["."]);
    assert_eq!(out.matches("PRIVATE").count(), 1, "{out}");
    // whoever names it wants to see it
    let (_, out, _) = lint(directory.path(), &["out.yaml"]);
    assert!(out.contains("PRIVATE"), "{out}");
}
