//! Every kind of certificate that a peer may show, against every verifier of ours, in real
//! handshakes: the sidecar as server and as client, the control plane as server. What Envoy does
//! with the same table is in `tests/envoy`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use mesh_lite_test_support::certificates::Authority;
use mesh_lite_test_support::peer_certificates::{
    EXPECTED, OTHER, Ours, PeerCertificate, Signers, TRUST_DOMAIN, table,
};

mod control_plane;
mod sidecar;

use control_plane::ControlPlane;
use sidecar::{Judged, as_client, as_server, trusting};

fn signers() -> Signers {
    Signers {
        mesh: Authority::root(TRUST_DOMAIN),
        stranger: Authority::root(TRUST_DOMAIN),
    }
}

/// Holds every line of the table against `judge`, and names all that are judged wrongly.
async fn judged_by(judge: impl AsyncFn(&PeerCertificate) -> Result<(), String>) {
    let mut wrong = Vec::new();
    for line in table() {
        if let Err(how) = judge(&line).await {
            wrong.push(format!("{} ({:?}): {how}", line.name, line.lines));
        }
    }
    assert!(wrong.is_empty(), "judged wrongly:\n{}", wrong.join("\n"));
}

fn compare(found: &Judged, wanted: Option<&str>) -> Result<(), String> {
    match (found, wanted) {
        (Judged::Is(id), Some(wanted)) if id == wanted => Ok(()),
        (Judged::Refused, None) => Ok(()),
        _ => Err(format!("{found:?} where {wanted:?} was due")),
    }
}

/// SPIFFE-V1 to SPIFFE-V15, SPIFFE-V18, SPIFFE-V19, SPIFFE-V20, SPIFFE-A7, E2E-E9
#[tokio::test]
async fn a_sidecar_that_is_dialled_knows_who_may_be_believed() {
    let signers = signers();
    let judge = trusting(&[&signers.mesh]);
    judged_by(async |line| {
        let found = as_client(&line.make(&signers), &judge).await?;
        match line.ours {
            Ours::Expected => compare(&found, Some(EXPECTED)),
            // authenticated as somebody else; what that one may do is policy's to say
            Ours::Other => match &found {
                Judged::Is(id) if id != EXPECTED => Ok(()),
                _ => Err(format!("{found:?}")),
            },
            Ours::Refused => compare(&found, None),
        }
    })
    .await;
}

/// SPIFFE-V1 to SPIFFE-V15, SPIFFE-V18, SPIFFE-V19, SPIFFE-V20, SPIFFE-A7, E2E-E9
#[tokio::test]
async fn a_sidecar_that_dials_believes_the_expected_workload_only() {
    let signers = signers();
    let judge = trusting(&[&signers.mesh]);
    judged_by(async |line| {
        let found = as_server(&line.make(&signers), &judge).await?;
        match line.ours {
            Ours::Expected => compare(&found, Some(EXPECTED)),
            Ours::Other | Ours::Refused => compare(&found, None),
        }
    })
    .await;
}

/// SPIFFE-V1 to SPIFFE-V15, SPIFFE-V18, SPIFFE-V19, SPIFFE-V20, SPIFFE-A7, E2E-E9
#[tokio::test]
async fn the_control_plane_serves_callers_with_a_good_certificate_only() {
    let signers = signers();
    let control_plane = ControlPlane::trusting(&signers.mesh);
    judged_by(async |line| {
        let served = control_plane.serves(&line.make(&signers));
        match (line.ours, served) {
            (Ours::Expected | Ours::Other, true) | (Ours::Refused, false) => Ok(()),
            (_, served) => Err(format!("served: {served}")),
        }
    })
    .await;
}

#[test]
fn the_table_has_a_case_of_every_line_that_is_about_a_certificate() {
    let about_bundles = [16, 17];
    let table = table();
    for number in (1..=20).filter(|number| !about_bundles.contains(number)) {
        let id = format!("SPIFFE-V{number}");
        assert!(
            table.iter().any(|line| line.lines.contains(&id.as_str())),
            "{id}"
        );
    }
}

/// SPIFFE-V10: a missing certificate is not one that may be believed.
#[tokio::test]
async fn a_sidecar_that_is_dialled_wants_a_certificate() {
    let judge = trusting(&[&signers().mesh]);
    assert_eq!(sidecar::without_certificate(&judge).await, Judged::Refused);
}

/// SPIFFE-V17: also a chain that was verified before, and is still in the cache of the old bundle.
#[tokio::test]
async fn a_root_that_is_dropped_takes_its_leaves_with_it_in_both_directions() {
    let (old, new) = (Authority::root(TRUST_DOMAIN), Authority::root(TRUST_DOMAIN));
    let (of_old, of_new) = (old.leaf(EXPECTED, |_| ()), new.leaf(EXPECTED, |_| ()));
    let both = trusting(&[&old, &new]);
    for credential in [&of_old, &of_new] {
        assert_eq!(as_client(credential, &both).await, Ok(Judged::expected()));
        assert_eq!(as_server(credential, &both).await, Ok(Judged::expected()));
    }
    let only_new = both.with_roots(&[&new]);
    assert_eq!(as_client(&of_old, &only_new).await, Ok(Judged::Refused));
    assert_eq!(as_server(&of_old, &only_new).await, Ok(Judged::Refused));
    assert_eq!(as_client(&of_new, &only_new).await, Ok(Judged::expected()));
    assert_eq!(as_server(&of_new, &only_new).await, Ok(Judged::expected()));
}

/// SPIFFE-V16: there is no empty bundle to verify with, and under one that holds no root of
/// theirs all SVIDs of the trust domain are refused, also the ones accepted before.
#[tokio::test]
async fn without_a_root_of_theirs_nobody_is_believed_any_more() {
    let root = Authority::root(TRUST_DOMAIN);
    let credentials = [EXPECTED, OTHER].map(|id| root.leaf(id, |_| ()));
    let before = trusting(&[&root]);
    for credential in &credentials {
        assert_ne!(as_client(credential, &before).await, Ok(Judged::Refused));
    }
    assert!(sidecar::bundle(&[]).is_err());
    let after = before.with_roots(&[&Authority::root(TRUST_DOMAIN)]);
    for credential in &credentials {
        assert_eq!(as_client(credential, &after).await, Ok(Judged::Refused));
        assert_eq!(as_server(credential, &after).await, Ok(Judged::Refused));
    }
}
