//! Step 3 of issuing: what came out is read again, with another parser than the one that wrote
//! it, and compared with what was meant. A leaf that fails here is never handed out.

use mesh_lite_proto::{
    svid::{InvalidLeaf, LeafFacts, Serial, inspect_leaf},
    trust_bundle::hex,
};
use rcgen::PublicKeyData;
use rustls_pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{
        OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
        OID_X509_EXT_SUBJECT_ALT_NAME, Oid,
    },
    prelude::FromDer,
    x509::SubjectPublicKeyInfo,
};

use super::{authority::IssuingAuthority, svid_template::SvidTemplate};

pub(super) fn inspect(
    leaf: &CertificateDer<'_>,
    template: &SvidTemplate,
    authority: &IssuingAuthority,
) -> Result<LeafFacts, InspectionError> {
    let facts = inspect_leaf(leaf)?;
    compare(&facts, template, authority)?;
    let (_, certificate) =
        X509Certificate::from_der(leaf).map_err(|_| InspectionError::Differs("its encoding"))?;
    if certificate.public_key().raw != template.public_key.info().subject_public_key_info() {
        return Err(InspectionError::Differs("the public key"));
    }
    let (_, issuer_key) = SubjectPublicKeyInfo::from_der(authority.public_key())
        .map_err(|_| InspectionError::Differs("the issuer's key"))?;
    certificate
        .verify_signature(Some(&issuer_key))
        .map_err(|_| InspectionError::Differs("the signature"))?;
    check_extensions(&certificate)?;
    check_names(&certificate, template)?;
    check_authority_key(&certificate, &authority.facts().key_id)?;
    Ok(facts)
}

fn compare(
    facts: &LeafFacts,
    template: &SvidTemplate,
    authority: &IssuingAuthority,
) -> Result<(), InspectionError> {
    let issuer = authority.facts();
    let serial = Serial::new(&template.serial).map_err(|_| InvalidLeaf::Serial)?;
    let checks = [
        (facts.id == template.id, "the SPIFFE ID"),
        (
            facts.id.trust_domain() == authority.trust_domain(),
            "the trust domain",
        ),
        (facts.serial == serial, "the serial"),
        (facts.common_name == template.common_name, "the common name"),
        (
            facts.not_before == template.not_before,
            "the start of validity",
        ),
        (facts.not_after == template.not_after, "the end of validity"),
        (facts.not_before < facts.not_after, "the order of its dates"),
        (
            facts.not_before >= issuer.not_before,
            "a start before its issuer's",
        ),
        (
            facts.not_after <= issuer.not_after,
            "an end after its issuer's",
        ),
    ];
    match checks.into_iter().find(|(holds, _)| !holds) {
        Some((_, what)) => Err(InspectionError::Differs(what)),
        None => Ok(()),
    }
}

/// Present although X509-SVID lets some be absent, so that no peer has to guess.
fn check_extensions(certificate: &X509Certificate<'_>) -> Result<(), InspectionError> {
    let required: [(Oid<'_>, bool, &'static str); 4] = [
        (OID_X509_EXT_BASIC_CONSTRAINTS, true, "basic constraints"),
        (OID_X509_EXT_KEY_USAGE, true, "a critical key usage"),
        (
            OID_X509_EXT_EXTENDED_KEY_USAGE,
            false,
            "an extended key usage",
        ),
        (
            OID_X509_EXT_SUBJECT_ALT_NAME,
            true,
            "a critical subject alternative name",
        ),
    ];
    for (oid, critical, name) in required {
        let present = certificate
            .get_extension_unique(&oid)
            .map_err(|_| InspectionError::Differs("an extension that is there twice"))?;
        if !present.is_some_and(|extension| extension.critical || !critical) {
            return Err(InspectionError::Missing(name));
        }
    }
    Ok(())
}

/// The names that were meant, and no other.
fn check_names(
    certificate: &X509Certificate<'_>,
    template: &SvidTemplate,
) -> Result<(), InspectionError> {
    let names = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .ok_or(InspectionError::Missing("a subject alternative name"))?;
    let dns_names = template.dns_names.iter();
    let meant = std::iter::once(GeneralName::URI(template.id.as_str()))
        .chain(dns_names.map(|name| GeneralName::DNSName(name)));
    if names.value.general_names.iter().cloned().eq(meant) {
        Ok(())
    } else {
        Err(InspectionError::Differs("the subject alternative names"))
    }
}

fn check_authority_key(
    certificate: &X509Certificate<'_>,
    key_id: &str,
) -> Result<(), InspectionError> {
    let mut own = false;
    let mut of_issuer = false;
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(_) => own = true,
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                of_issuer = id
                    .key_identifier
                    .as_ref()
                    .is_some_and(|id| hex(id.0) == key_id);
            }
            _ => {}
        }
    }
    match (own, of_issuer) {
        (true, true) => Ok(()),
        (false, _) => Err(InspectionError::Missing("a subject key identifier")),
        (true, false) => Err(InspectionError::Missing("the issuer's key identifier")),
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectionError {
    #[error(transparent)]
    NotALeaf(#[from] InvalidLeaf),
    #[error("it differs in {0}")]
    Differs(&'static str),
    #[error("it lacks {0}")]
    Missing(&'static str),
}
