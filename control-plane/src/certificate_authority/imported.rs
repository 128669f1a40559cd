//! What is unusual about a CA that we did not make. Such a CA is used all the same: our own peers
//! take it, and a company's PKI is as it is. (What can't work is refused in `authority_facts` and
//! `trial`.)

use rustls_pki_types::CertificateDer;
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::{OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_KEY_USAGE},
};

use super::authority_facts::{InvalidAuthority, parse};

/// One sentence each, beginning with `name`.
pub(super) fn warnings(
    name: &str,
    der: &CertificateDer<'_>,
) -> Result<Vec<String>, InvalidAuthority> {
    let certificate = parse(der)?;
    let findings = [
        key_usage(&certificate),
        extensions(&certificate),
        names(&certificate),
    ];
    Ok(findings
        .concat()
        .into_iter()
        .map(|finding| format!("{name} {finding}"))
        .collect())
}

/// SPIFFE-A1: a critical key usage with keyCertSign and without digitalSignature.
fn key_usage(certificate: &X509Certificate<'_>) -> Vec<&'static str> {
    let mut found = Vec::new();
    // a CA without any is refused by our own peers, see `trial`
    if let Ok(Some(usage)) = certificate.key_usage() {
        if usage.value.digital_signature() {
            found.push(
                "may also sign data (digitalSignature), which X509-SVID forbids to a CA: strict peers may refuse it",
            );
        }
        if !is_critical(certificate, &OID_X509_EXT_KEY_USAGE) {
            found.push("has a key usage that is not critical: strict peers may refuse it");
        }
    }
    if !is_critical(certificate, &OID_X509_EXT_BASIC_CONSTRAINTS) {
        found.push("has basic constraints that are not critical: OpenSSL's strict mode refuses it");
    }
    found
}

fn extensions(certificate: &X509Certificate<'_>) -> Vec<&'static str> {
    let mut found = Vec::new();
    if matches!(certificate.extended_key_usage(), Ok(Some(_))) {
        found.push(
            "has an extended key usage: peers that demand what it does not name refuse its leaves",
        );
    }
    if matches!(certificate.name_constraints(), Ok(Some(_))) {
        found.push("has name constraints: peers may refuse leaves whose names they do not expect");
    }
    let names_key = certificate.extensions().iter().any(|extension| {
        matches!(
            extension.parsed_extension(),
            ParsedExtension::SubjectKeyIdentifier(_)
        )
    });
    if !names_key {
        found.push("has no subject key identifier: OpenSSL's strict mode refuses it");
    }
    found
}

/// SPIFFE-A2
fn names(certificate: &X509Certificate<'_>) -> Vec<&'static str> {
    let names = match certificate.subject_alternative_name() {
        Ok(Some(names)) => names.value.general_names.as_slice(),
        _ => &[],
    };
    let has_uri = names.iter().any(|name| matches!(name, GeneralName::URI(_)));
    if has_uri {
        Vec::new()
    } else {
        vec![
            "names no trust domain (URI spiffe://<trust domain>), so a mix-up of meshes is not noticed",
        ]
    }
}

fn is_critical(
    certificate: &X509Certificate<'_>,
    oid: &x509_parser::oid_registry::Oid<'_>,
) -> bool {
    certificate
        .get_extension_unique(oid)
        .is_ok_and(|extension| extension.is_some_and(|extension| extension.critical))
}

#[cfg(test)]
mod tests;
