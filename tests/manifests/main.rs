//! What `mesh-lite install` prints is what the API takes; the files of `deploy/` name what exists.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Output},
};

use mesh_lite_test_support::requirements;

/// The oldest version that we take, and the newest that kubernetes-validate knows.
const VERSIONS: [&str; 2] = ["1.33.0", "1.37.0"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn mesh_lite(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mesh-lite"))
        .args(arguments)
        .env("KUBECONFIG", "/nonexistent")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output()
        .unwrap()
}

#[test]
fn whatever_is_chosen_the_manifests_are_what_the_api_takes() {
    let test = "whatever_is_chosen_the_manifests_are_what_the_api_takes";
    let program = root().join("target/manifests/venv/bin/kubernetes-validate");
    if !requirements::file(test, "kubernetes-validate", &program) {
        return;
    }
    let choices: [&[&str]; 4] = [
        &[],
        &["--strict"],
        &["--ha"],
        &[
            "--strict",
            "--ha",
            "--mesh-cidrs=10.0.0.0/8,fd00::/8",
            "--external-cidrs=10.9.0.0/16",
            "--issuing-ca-secret=issuer",
            "--image=images.example/mesh-lite:1",
            "--image-pull-policy=Always",
            "--image-pull-secret=pull",
            "--priority-class=urgent",
            "--mesh-namespace=mesh",
            "--trust-domain=prod.example",
        ],
    ];
    for choice in choices {
        let printed = mesh_lite(&[&["install"], choice].concat());
        assert!(printed.status.success());
        let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        file.write_all(&printed.stdout).unwrap();
        for version in VERSIONS {
            let judged = Command::new(&program)
                .args(["--strict", "--kubernetes-version", version])
                .arg(file.path())
                .output()
                .unwrap();
            let said = [judged.stdout, judged.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(judged.status.success(), "{choice:?} {version}: {said}");
            let of_version = format!(
                "mutatingwebhookconfiguration/mesh-lite-injector against version {}",
                version.rsplit_once('.').unwrap().0
            );
            assert!(said.contains(&of_version), "not judged: {said}");
        }
    }
}

#[test]
fn choices_that_make_no_sense_are_refused() {
    for wrong in [
        &["--mesh-namespace=A"][..],
        &["--mesh-namespace=a.b"],
        &["--image=a b"],
        &["--image-pull-policy=Sometimes"],
        &["--trust-domain=Cluster.Local"],
        &["--mesh-cidrs=10.0.0.0/33"],
        &["--stric"],
    ] {
        let printed = mesh_lite(&[&["install"], wrong].concat());
        assert_eq!(printed.status.code(), Some(2), "{wrong:?}");
        assert!(printed.stdout.is_empty(), "{wrong:?}");
    }
}

#[test]
fn without_a_cluster_nothing_is_blessed() {
    for command in [&["check"][..], &["check", "-n", "shop"], &["status"]] {
        let asked = mesh_lite(command);
        assert_eq!(asked.status.code(), Some(2), "{command:?}");
        assert!(asked.stdout.is_empty(), "{command:?}");
        let said = String::from_utf8(asked.stderr).unwrap();
        assert!(said.contains("set KUBECONFIG"), "{said}");
    }
}

/// Each name is looked for where the metrics of its role are registered.
#[test]
fn every_metric_of_the_alerts_exists() {
    let rules = fs::read_to_string(root().join("deploy/alerts.yaml")).unwrap();
    let _: serde_json::Value = serde_saphyr::from_str(&rules).unwrap();
    let mut found = 0;
    for line in rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "))
    {
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("mesh_lite_")) {
            found += 1;
            let roles = [
                ("mesh_lite_control_plane_", "control-plane/src/metrics.rs"),
                ("mesh_lite_injector_", "injector/src/metrics.rs"),
                ("mesh_lite_", "proxy/src/metrics/registered.rs"),
            ];
            let exists = roles.iter().any(|(prefix, file)| {
                let source = fs::read_to_string(root().join(file)).unwrap();
                name.strip_prefix(prefix).is_some_and(|rest| {
                    let rest = rest.strip_suffix("_total").unwrap_or(rest);
                    source.contains(&format!("\"{rest}\","))
                })
            });
            assert!(exists, "no role has a metric {name}");
        }
    }
    assert!(found >= 8, "{found}");
}
