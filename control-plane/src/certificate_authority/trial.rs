//! A leaf that nobody gets: signed by an issuing CA before it serves, and judged as the peers of
//! the mesh judge each other. A CA whose leaves they would refuse must not replace one that works.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::{
    identity::{MAX_SPIFFE_ID, WorkloadId},
    svid::{check_chain_size, issuer_end},
    trust_bundle::TrustBundle,
};
use rcgen::{KeyPair, PublicKeyData};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use super::{
    authority::IssuingAuthority,
    authority_facts::InvalidAuthority,
    certificate_request::PublicKey,
    svid_inspection,
    svid_template::{MAX_COMMON_NAME, Subject, SvidTemplate},
};

/// Any will do: no peer looks at it.
const LIFETIME: Duration = Duration::from_secs(3600);

/// # Errors
/// If peers would refuse what it signs, as a client's or as a server's.
pub(crate) fn check_as_peers_do(
    authority: &IssuingAuthority,
    bundle: &TrustBundle,
    now: SystemTime,
) -> Result<(), InvalidAuthority> {
    let leaf = sign(authority, now)?;
    let issuers: Vec<_> = authority.chain().cloned().collect();
    let chain = [vec![leaf.clone()], issuers.clone()].concat();
    check_chain_size(&chain).map_err(refused)?;
    let anchors: Vec<TrustAnchor<'_>> = bundle
        .authorities()
        .iter()
        .filter_map(|root| anchor_from_trusted_cert(root).ok())
        .collect();
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH);
    let now = UnixTime::since_unix_epoch(since_1970.unwrap_or_default());
    let provider = aws_lc_rs::default_provider();
    let algorithms = provider.signature_verification_algorithms.all;
    let leaf = EndEntityCert::try_from(&leaf).map_err(refused)?;
    for usage in [KeyUsage::client_auth(), KeyUsage::server_auth()] {
        let path = leaf
            .verify_for_usage(algorithms, &anchors, &issuers, now, usage, None, None)
            .map_err(refused)?;
        for issuer in path.intermediate_certificates() {
            issuer_end(&issuer.der()).map_err(refused)?;
        }
    }
    Ok(())
}

/// As large as a leaf can be, so that none has a chain that is too long.
fn sign(
    authority: &IssuingAuthority,
    now: SystemTime,
) -> Result<CertificateDer<'static>, InvalidAuthority> {
    let mut id = format!("spiffe://{}/trial/", authority.trust_domain());
    let room = MAX_SPIFFE_ID.saturating_sub(id.len());
    id.push_str(&"x".repeat(room));
    let id: WorkloadId = id.parse().map_err(refused)?;
    let name = "x".repeat(MAX_COMMON_NAME);
    let key = KeyPair::generate().map_err(refused)?;
    let key = PublicKey::from_der(&key.subject_public_key_info()).map_err(refused)?;
    let limits = authority.limits();
    let subject = Subject {
        common_name: Some(name),
        ..Subject::of(id)
    };
    let template = SvidTemplate::new(subject, key, LIFETIME, limits, now).map_err(refused)?;
    let leaf = authority.sign(&template).map_err(refused)?;
    svid_inspection::inspect(&leaf, &template, authority).map_err(refused)?;
    Ok(leaf)
}

fn refused(reason: impl fmt::Display) -> InvalidAuthority {
    InvalidAuthority::RefusedByPeers(reason.to_string())
}
