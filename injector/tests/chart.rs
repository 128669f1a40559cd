//! The chart is what the code makes, and renders, by Go's own templates, to what `install` prints.
//!
//! `UPDATE_GOLDEN=1` writes `deploy/chart` anew.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use mesh_lite_injector::{
    installation::{Choices, chart::chart, manifests},
    mesh_settings::PullPolicy,
};
use mesh_lite_test_support::requirements;
use serde_json::{Value, json};
use spiffe::TrustDomain;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files_below(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.insert(path);
        }
    }
    found
}

#[test]
fn the_chart_is_what_the_code_makes() {
    let place = root().join("deploy/chart");
    let made = chart();
    for (path, text) in &made {
        let path = place.join(path);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == *text,
            "{} is not what the code makes: UPDATE_GOLDEN=1",
            path.display()
        );
    }
    let expected: BTreeSet<PathBuf> = made.keys().map(|path| place.join(path)).collect();
    assert_eq!(files_below(&place), expected);
}

/// An object, without regard to where it stands.
fn by_name(objects: impl IntoIterator<Item = Value>) -> BTreeMap<String, Value> {
    let named = objects
        .into_iter()
        .filter(|object| !object.is_null())
        .map(|object| {
            let metadata = &object["metadata"];
            (format!("{} {}", object["kind"], metadata["name"]), object)
        });
    named.collect()
}

/// The chart with these values over its own, rendered by Go's text/template; `None` without Go.
fn rendered(test: &str, values: &Value) -> Option<Vec<Value>> {
    let go = root().join("target/manifests/venv/bin/go");
    if !requirements::file(test, "Go", &go) {
        return None;
    }
    let chart = root().join("deploy/chart");
    let output = Command::new(go)
        .arg("run")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chart/render.go"))
        .arg(&chart)
        .arg(with_defaults(values).to_string())
        .env(
            "GOCACHE",
            root()
                .canonicalize()
                .unwrap()
                .join("target/manifests/go-cache"),
        )
        .env("GOFLAGS", "-mod=mod")
        .env("GO111MODULE", "off")
        .env("GOTOOLCHAIN", "local")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut objects: Vec<Value> =
        serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    for definition in files_below(&chart.join("crds")) {
        objects.push(serde_saphyr::from_str(&fs::read_to_string(definition).unwrap()).unwrap());
    }
    Some(objects)
}

/// As Helm does, of values that are one level deep.
fn with_defaults(values: &Value) -> Value {
    let text = fs::read_to_string(root().join("deploy/chart/values.yaml")).unwrap();
    let mut all: Value = serde_saphyr::from_str(&text).unwrap();
    for (key, value) in values.as_object().unwrap() {
        assert!(all.get(key).is_some(), "no such value: {key}");
        all[key] = value.clone();
    }
    all
}

fn same(test: &str, values: &Value, choices: &Choices) {
    let Some(objects) = rendered(test, values) else {
        return;
    };
    let (of_chart, of_install) = (by_name(objects), by_name(manifests(choices)));
    let names = |objects: &BTreeMap<String, Value>| objects.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&of_chart), names(&of_install), "{values}");
    for (name, object) in &of_chart {
        assert_eq!(object, &of_install[name], "{name} with {values}");
    }
}

#[test]
fn the_chart_renders_by_default_to_what_install_prints() {
    let test = "the_chart_renders_by_default_to_what_install_prints";
    same(test, &json!({}), &Choices::default());
}

#[test]
fn each_value_of_the_chart_does_what_its_flag_does() {
    let test = "each_value_of_the_chart_does_what_its_flag_does";
    let strict = Choices {
        strict: true,
        ..Choices::default()
    };
    same(test, &json!({"strict": true}), &strict);
    let ha = Choices {
        ha: true,
        ..Choices::default()
    };
    same(test, &json!({"ha": true}), &ha);
    let everything = Choices {
        mesh_namespace: "mesh".to_owned(),
        image: "images.example/mesh-lite:1.2".to_owned(),
        image_pull_policy: PullPolicy::Always,
        image_pull_secret: Some("pull".to_owned()),
        trust_domain: TrustDomain::new("prod.example").unwrap(),
        strict: true,
        ha: true,
        mesh_cidrs: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        external_cidrs: vec!["10.9.0.0/16".parse().unwrap()],
        issuing_ca_secret: Some("issuer".to_owned()),
        priority_class: Some("urgent".to_owned()),
    };
    let values = json!({
        "meshNamespace": "mesh", "image": "images.example/mesh-lite:1.2", "imagePullPolicy": "Always",
        "imagePullSecret": "pull", "trustDomain": "prod.example", "strict": true, "ha": true,
        "meshCidrs": ["10.0.0.0/8", "fd00::/8"], "externalCidrs": ["10.9.0.0/16"],
        "issuingCaSecret": "issuer", "priorityClass": "urgent",
    });
    same(test, &values, &everything);
    // the Job's name depends on four of them
    let own_root = Choices {
        issuing_ca_secret: None,
        ..everything
    };
    let mut values = values;
    values["issuingCaSecret"] = json!("");
    same(test, &values, &own_root);
}
