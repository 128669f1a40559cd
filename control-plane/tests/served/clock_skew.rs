//! Clients whose clock differs: what is refused for that says so, with both times.

use std::time::{Duration, SystemTime};

use mesh_lite_control_plane::clock::{now, readable};
use mesh_lite_proto::{secret_discovery::OWN_BUNDLE, svid::inspect_leaf};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::{
    client::{Svid, request_for},
    log::heard,
    running::Running,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A leaf of the mesh's own issuing CA, as it would be made by another clock.
fn leaf(running: &Running, not_before: SystemTime, not_after: SystemTime) -> Svid {
    let path = running.directories.data.join("issuing/issuing-ca.pem");
    let pem = std::fs::read_to_string(path).unwrap();
    let authority = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let authority_key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let authority_key = KeyPair::try_from(&authority_key).unwrap();
    let issuer = Issuer::from_ca_cert_der(&authority, authority_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.not_before = not_before.into();
    parameters.not_after = not_after.into();
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let uri = "spiffe://mesh.test/ns/shop/sa/web".try_into().unwrap();
    parameters.subject_alt_names = vec![SanType::URI(uri)];
    let certificate = parameters.signed_by(&key, &issuer).unwrap().der().clone();
    let facts = inspect_leaf(&certificate).unwrap();
    let chain = vec![certificate, authority];
    Svid { chain, key, facts }
}

/// The first request finds out what the handshake came to: with TLS 1.3 the client is done first.
async fn is_refused(running: &Running, svid: &Svid) -> bool {
    match running.connect(Some(svid)).await {
        Err(_) => true,
        Ok(channel) => {
            let answer = running.fetch(channel, request_for(&[OWN_BUNDLE])).await;
            answer.is_err()
        }
    }
}

/// SPIFFE-V10
#[tokio::test]
async fn names_both_times_when_only_the_clocks_speak_against_a_certificate() {
    heard();
    let running = Running::start().await;
    // the issuing CA was valid then: it is dated back by ten minutes
    let (from, at) = (now() + HOUR, now() - Duration::from_secs(120));
    let early = leaf(&running, from, from + HOUR);
    let late = leaf(&running, at - HOUR, at);
    for (svid, outcome, date, cure) in [
        (
            &early,
            "certificate_not_yet_valid",
            from,
            "keep both by NTP",
        ),
        (&late, "certificate_expired", at, "mesh-lite token create"),
    ] {
        assert!(is_refused(&running, svid).await, "{outcome}");
        let series = format!("mesh_lite_control_plane_handshakes_total{{outcome=\"{outcome}\"}}");
        running.wait_for_metric(&series, 1.0).await;
        let date = readable(date);
        let said = heard().lines(&["connection refused", &date, "it is ", cure]);
        assert!(!said.is_empty(), "{date}");
    }
    let good = leaf(&running, at, from);
    assert!(!is_refused(&running, &good).await);
}

/// Anybody can make such a certificate: the alarm that one has run out is for those of the mesh.
#[tokio::test]
async fn says_nothing_of_clocks_about_a_certificate_that_another_root_signed() {
    let running = Running::start().await;
    let elsewhere = Running::start().await;
    let at = now() - Duration::from_secs(120);
    for stranger in [
        leaf(&elsewhere, at - HOUR, at),
        leaf(&elsewhere, at - 2 * HOUR, at - HOUR),
        leaf(&elsewhere, now() + HOUR, now() + 2 * HOUR),
    ] {
        assert!(is_refused(&running, &stranger).await);
    }
    let series = |outcome: &str| {
        format!("mesh_lite_control_plane_handshakes_total{{outcome=\"{outcome}\"}}")
    };
    running.wait_for_metric(&series("tls"), 3.0).await;
    for outcome in ["certificate_expired", "certificate_not_yet_valid"] {
        assert!(running.metric(&series(outcome)).await < 1.0, "{outcome}");
    }
}

/// SPIFFE-L9: a peer whose clock is two minutes behind takes a new leaf at once.
#[tokio::test]
async fn dates_a_leaf_back_by_two_minutes() {
    let running = Running::start().await;
    let before = now();
    let svid = running.issue("shop/web").await;
    let backdate = now().duration_since(svid.facts.not_before).unwrap();
    let most = now().duration_since(before).unwrap() + Duration::from_secs(121);
    assert!(backdate >= Duration::from_secs(120), "{backdate:?}");
    assert!(backdate <= most, "{backdate:?}");
}
