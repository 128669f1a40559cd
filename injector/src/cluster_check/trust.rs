//! Trust bundles: in the mesh's namespace, and in each where pods have a sidecar or will.

use mesh_lite_proto::{
    decision_record::Utc,
    kubernetes::{INJECT_ENABLED, INJECT_LABEL, TRUST_BUNDLE_CONFIG_MAP, TRUST_BUNDLE_KEY},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{
    Finding, name, namespace_of,
    objects::{Kind, Objects},
    text,
};

/// A new root has to reach every sidecar before the old one ends.
const WARN_BEFORE: Duration = Duration::days(60);

/// The roots of a trust bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    pub count: usize,
    /// When the last of them ends.
    pub last_end: OffsetDateTime,
}

/// Of the mesh's own ConfigMap; `None` if there is none with a certificate in it.
pub fn roots(objects: &Objects, mesh: &str) -> Option<Roots> {
    let of_mesh = objects
        .of(Kind::TrustBundles)
        .iter()
        .find(|found| namespace_of(found) == mesh)?;
    let pem = text(of_mesh, &format!("/data/{TRUST_BUNDLE_KEY}"));
    let mut ends = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.ok()?;
        let (_, parsed) = X509Certificate::from_der(&certificate).ok()?;
        ends.push(parsed.validity().not_after.to_datetime());
    }
    let last_end = ends.iter().max().copied()?;
    Some(Roots {
        count: ends.len(),
        last_end,
    })
}

pub(super) fn findings(objects: &Objects, mesh: &str, now: OffsetDateTime) -> Vec<Finding> {
    if !objects.is_known(Kind::TrustBundles) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let subject = format!("ConfigMap {mesh}/{TRUST_BUNDLE_CONFIG_MAP}");
    match roots(objects, mesh) {
        None => findings.push(Finding::problem(
            subject,
            "is not there, or holds no root: nobody could be authenticated",
            format!("the Job makes it: kubectl -n {mesh} get jobs; with an issuing CA of your own, see mesh-lite root --help"),
        )),
        Some(roots) if roots.last_end <= now => findings.push(Finding::problem(
            subject,
            format!("its last root ended at {}", Utc(roots.last_end.into())),
            "mesh-lite root init --help: bring a new root",
        )),
        Some(roots) if roots.last_end - WARN_BEFORE <= now => findings.push(Finding::warning(
            subject,
            format!("its last root ends at {}", Utc(roots.last_end.into())),
            "mesh-lite root init --help: bring a new root in time",
        )),
        Some(_) => {}
    }
    if !objects.is_known(Kind::Namespaces) {
        return findings;
    }
    let label = format!("/metadata/labels/{}", INJECT_LABEL.replace('/', "~1"));
    for namespace in objects.of(Kind::Namespaces) {
        let namespace_name = name(namespace);
        let has = |found: &&serde_json::Value| namespace_of(found) == namespace_name;
        if text(namespace, &label) == INJECT_ENABLED
            && objects.of(Kind::TrustBundles).iter().find(has).is_none()
        {
            findings.push(Finding::problem(
                format!("ConfigMap {namespace_name}/{TRUST_BUNDLE_CONFIG_MAP}"),
                "is not there: pods of the namespace wait for it",
                "the control plane writes it within seconds; if not, its log says why",
            ));
        }
    }
    findings
}
