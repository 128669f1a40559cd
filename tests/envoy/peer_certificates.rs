//! The table of peers' certificates against Envoy's two validators: what it wrongly accepts is
//! what issuance and our own verifiers must refuse (`tests/peer_certificates`).

use mesh_lite_test_support::certificates::Authority;
use mesh_lite_test_support::credulous_tls::client_config;
use mesh_lite_test_support::envoy::installed;
use mesh_lite_test_support::peer_certificates::{Envoy, Ours, Signers, TRUST_DOMAIN, table};

use crate::scene::{API, Scene, is_let_in};

/// The trust domain of the root that is not ours, where bundles are federated.
const OTHER_MESH: &str = "other.mesh";

fn holds_the_table(test: &str, values: &[(&str, &str)], column: fn(Envoy) -> bool) {
    let Some(program) = installed(test) else {
        return;
    };
    let scene = Scene::new(program);
    let signers = Signers {
        mesh: Authority::root(TRUST_DOMAIN),
        stranger: Authority::root(OTHER_MESH),
    };
    scene.server.set_bundles(&[
        (TRUST_DOMAIN, &[&signers.mesh]),
        (OTHER_MESH, &[&signers.stranger]),
    ]);
    scene
        .server
        .set_svid("default", &signers.mesh.leaf(API, |_| ()));
    let mut envoy = scene.inbound("inbound", "inbound", values);
    envoy.wait_ready();
    let address = envoy.listener();
    let mut wrong = Vec::new();
    for line in table() {
        let config = client_config(Some(&line.make(&signers)), &[]);
        let let_in = is_let_in(address, &config);
        if let_in != column(line.envoy) {
            wrong.push(format!(
                "{} ({:?}): let in: {let_in}",
                line.name, line.lines
            ));
        }
    }
    assert!(wrong.is_empty(), "not as measured:\n{}", wrong.join("\n"));
    assert!(!is_let_in(address, &client_config(None, &[])));
    assert_eq!(envoy.rejected(), 0);
}

/// E2E-E9
#[test]
fn a_list_of_roots_with_a_match_on_the_uri() {
    holds_the_table(
        concat!(module_path!(), "::a_list_of_roots_with_a_match_on_the_uri"),
        &[("VALIDATOR", "trusted_ca")],
        |envoy| envoy.trusted_ca,
    );
}

/// E2E-E9
#[test]
fn the_spiffe_validator_with_a_match_on_the_uri() {
    holds_the_table(
        concat!(
            module_path!(),
            "::the_spiffe_validator_with_a_match_on_the_uri"
        ),
        &[],
        |envoy| envoy.spiffe_validator,
    );
}

/// E2E-E9, SPIFFE-V12: a root of another trust domain vouches for nobody in ours.
#[test]
fn the_spiffe_validator_with_the_bundles_of_two_trust_domains() {
    holds_the_table(
        concat!(
            module_path!(),
            "::the_spiffe_validator_with_the_bundles_of_two_trust_domains"
        ),
        &[("BUNDLE", "ALL")],
        |envoy| envoy.spiffe_validator,
    );
}

/// E2E-E9: each of these is let in by a validator of Envoy's and refused by all of ours.
#[test]
fn the_table_holds_what_envoy_wrongly_accepts() {
    let table = table();
    let wrongly: Vec<_> = table
        .iter()
        .filter(|line| line.ours == Ours::Refused)
        .filter(|line| line.envoy.trusted_ca || line.envoy.spiffe_validator)
        .map(|line| line.name.as_str())
        .collect();
    for name in [
        "two URIs, the right one first",
        "two URIs, the right one last",
        "a CA",
        "a key that may sign certificates",
        "no key usage",
    ] {
        assert!(wrongly.contains(&name), "{name} is not in {wrongly:?}");
    }
}
