//! What `mesh-lite install` prints, in a real API server: every object is taken, and the mesh's
//! roles do their work with exactly the rights that it names.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "kubernetes/cluster.rs"]
mod cluster;
#[path = "kubernetes/mesh.rs"]
mod mesh;

use std::process::Command;

use mesh_lite_test_support::process::succeed;
use mesh_lite_test_support::{eventually, needs_api_server};
use serde_json::{Value, json};

use crate::cluster::{Kube, documents, name_of, reference};
use crate::mesh::{MESH_NAMESPACE, Mesh, PROGRAM};

const TEST: &str = "kubernetes_install::the_mesh_runs_on_what_install_prints";

#[test]
fn the_mesh_runs_on_what_install_prints() {
    let kube = Kube::connect(needs_api_server!(TEST));
    every_variant_is_taken(&kube);
    let Some(mut mesh) = Mesh::install(kube, TEST, &[]) else {
        return;
    };
    applying_again_changes_nothing(&mesh);
    the_root_is_made_once(&mesh);
    mesh.start_control_plane(&[]);
    labelled_namespaces_get_the_trust_bundle(&mesh);
    mesh.start_injector();
    the_registration_is_completed(&mesh);
    mesh.assert_no_right_was_missing();
}

/// A real server's dry run finds what a schema does not say: CEL, structural schemas, names.
fn every_variant_is_taken(kube: &Kube) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": MESH_NAMESPACE}});
    let ours = !kube.exists(&namespace);
    if ours {
        kube.put(&namespace);
    }
    let variants: [&[&str]; 5] = [
        &[],
        &["--strict"],
        &["--ha"],
        &["--issuing-ca-secret", "mesh-issuer"],
        &[
            "--mesh-cidrs",
            "10.0.0.0/8,fd00::/8",
            "--external-cidrs",
            "10.9.0.0/16",
        ],
    ];
    for options in variants {
        let text = succeed(Command::new(PROGRAM).arg("install").args(options));
        for object in documents(&text) {
            if let Err(error) = kube.apply_dry(&object) {
                panic!(
                    "{options:?}: {} {}: {error}",
                    object["kind"],
                    name_of(&object)
                );
            }
        }
    }
}

fn applying_again_changes_nothing(mesh: &Mesh) {
    for object in &mesh.objects {
        if ["Deployment", "Job", "CronJob"]
            .map(Value::from)
            .contains(&object["kind"])
        {
            continue; // not as printed: see `playable`
        }
        let before = mesh.kube.get(object).unwrap();
        let after = mesh.kube.put(object);
        assert_eq!(
            before["metadata"]["resourceVersion"],
            after["metadata"]["resourceVersion"],
            "{} {}",
            object["kind"],
            name_of(object)
        );
    }
}

fn the_root_is_made_once(mesh: &Mesh) {
    mesh.run_job("Job");
    let secrets = ["mesh-lite-root", "mesh-lite-issuing-ca"];
    let secrets = secrets.map(|name| reference("v1", "Secret", MESH_NAMESPACE, name));
    let made = secrets
        .each_ref()
        .map(|secret| mesh.kube.get(secret).unwrap());
    mesh.run_job("Job");
    mesh.run_job("CronJob");
    let after = secrets
        .each_ref()
        .map(|secret| mesh.kube.get(secret).unwrap());
    for (made, after) in made.iter().zip(&after) {
        assert!(
            made["data"] == after["data"],
            "{} was made again",
            name_of(made)
        );
    }
    // the control plane's account may read neither
    for secret in &secrets {
        let may = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "metadata": {},
            "spec": {"user": format!("system:serviceaccount:{MESH_NAMESPACE}:mesh-lite-control-plane"),
                "resourceAttributes": {"namespace": MESH_NAMESPACE, "verb": "get",
                    "resource": "secrets", "name": name_of(secret)}}});
        let answer = mesh.kube.create(&may).unwrap();
        assert_eq!(answer["status"]["allowed"], false, "{answer}");
    }
}

fn labelled_namespaces_get_the_trust_bundle(mesh: &Mesh) {
    let source = reference("v1", "ConfigMap", MESH_NAMESPACE, "mesh-lite-trust-bundle");
    let source = mesh.kube.get(&source).unwrap();
    let namespace = mesh.labelled_namespace();
    let unlabelled = mesh.kube.namespace(&json!({}));
    let published = |namespace: &Value| {
        reference(
            "v1",
            "ConfigMap",
            name_of(namespace),
            "mesh-lite-trust-bundle",
        )
    };
    let has_bundle = || {
        let present = mesh.kube.get(&published(&namespace));
        let present = present.map_err(|error| error.to_string())?;
        if present["data"] == source["data"] {
            Ok(())
        } else {
            Err(present.to_string())
        }
    };
    eventually("the labelled namespace has the trust bundle", has_bundle);
    // edited and deleted, it is there again
    let wrong = json!({"data": {"trust-bundle.pem": "nobody"}});
    mesh.kube.merge(&published(&namespace), "", &wrong).unwrap();
    eventually("an edited trust bundle is repaired", has_bundle);
    mesh.kube.delete(&published(&namespace));
    eventually("a deleted trust bundle is there again", has_bundle);
    assert!(!mesh.kube.exists(&published(&unlabelled)));
    mesh.kube.delete(&namespace);
    mesh.kube.delete(&unlabelled);
}

fn the_registration_is_completed(mesh: &Mesh) {
    let complete = || {
        let webhooks = mesh.webhooks();
        let entries = webhooks["webhooks"].as_array().unwrap().clone();
        let bundles = entries
            .iter()
            .map(|entry| &entry["clientConfig"]["caBundle"]);
        if bundles
            .clone()
            .all(|bundle| bundle.as_str().is_some_and(|text| !text.is_empty()))
        {
            Ok(webhooks)
        } else {
            Err(webhooks.to_string())
        }
    };
    let mut webhooks = eventually("caBundle is there", complete);
    // what `kubectl replace` with the printed manifest does
    for entry in webhooks["webhooks"].as_array_mut().unwrap() {
        entry["clientConfig"]
            .as_object_mut()
            .unwrap()
            .remove("caBundle");
    }
    mesh.kube.replace(&webhooks).unwrap();
    eventually("caBundle is there again", complete);
}
