//! Whether a CertificateSigningRequest asks for exactly the identity of who made it. Pure.

use std::time::Duration;

use mesh_lite_proto::identity::{InvalidWorkloadId, WorkloadId};
use rustls_pki_types::{CertificateSigningRequestDer, pem::PemObject};
use spiffe::TrustDomain;
use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension},
    prelude::FromDer,
};

use super::standing::Spec;
use crate::{
    certificate_authority::certificate_request::{CertificateRequest, InvalidRequest},
    workload_index::is_name,
};

const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
/// What a leaf of ours may be used for: no request may name more.
const USAGES: [&str; 3] = ["digital signature", "client auth", "server auth"];
/// Kubernetes takes no less; nor would there be room to renew.
const SHORTEST: Duration = Duration::from_secs(600);
const SHOWN: usize = 200;

/// What will be signed.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) id: WorkloadId,
    pub(super) request: CertificateRequest,
    pub(super) lifetime: Duration,
    pub(super) pod: Option<String>,
    pub(super) pod_uid: String,
}

/// # Errors
/// What is wrong, for whoever made the request.
pub(super) fn judge(
    spec: &Spec,
    trust_domain: &TrustDomain,
    leaf_lifetime: Duration,
) -> Result<Accepted, Refused> {
    let id = identity(spec, trust_domain)?;
    let pod_uid = only(spec, POD_UID)?.ok_or(Refused::NoPod)?;
    let pod = only(spec, POD_NAME)?;
    let lifetime = lifetime(spec, leaf_lifetime)?;
    if let Some(usage) = spec
        .usages
        .iter()
        .find(|usage| !USAGES.contains(&usage.as_str()))
    {
        return Err(Refused::Usage(shown(usage)));
    }
    let pem = &spec.request.0;
    let request = CertificateRequest::from_pem(pem)?;
    let asked = asked_uri(pem)?;
    if asked != id.as_str() {
        let asked = shown(&asked);
        return Err(Refused::OtherUri { asked, id });
    }
    Ok(Accepted {
        id,
        request,
        lifetime,
        pod,
        pod_uid,
    })
}

fn identity(spec: &Spec, trust_domain: &TrustDomain) -> Result<WorkloadId, Refused> {
    let not_one = || Refused::NotAServiceAccount(shown(&spec.username));
    let (namespace, account) = spec
        .username
        .strip_prefix("system:serviceaccount:")
        .and_then(|rest| rest.split_once(':'))
        .ok_or_else(not_one)?;
    // an account's name may be longer than a label
    let is_account = |name: &str| name.split('.').all(is_name);
    if !is_name(namespace) || !is_account(account) {
        return Err(not_one());
    }
    Ok(format!("spiffe://{trust_domain}/ns/{namespace}/sa/{account}").parse()?)
}

fn only(spec: &Spec, key: &'static str) -> Result<Option<String>, Refused> {
    match spec.extra.get(key).map(Vec::as_slice) {
        None | Some([]) => Ok(None),
        Some([value]) if !value.is_empty() => Ok(Some(shown(value))),
        Some(_) => Err(Refused::Extra(key)),
    }
}

fn lifetime(spec: &Spec, leaf_lifetime: Duration) -> Result<Duration, Refused> {
    let Some(seconds) = spec.expiration_seconds else {
        return Ok(leaf_lifetime);
    };
    let refused = Refused::Lifetime {
        seconds,
        longest: leaf_lifetime,
    };
    match u64::try_from(seconds).map(Duration::from_secs) {
        Ok(lifetime) if (SHORTEST..=leaf_lifetime).contains(&lifetime) => Ok(lifetime),
        _ => Err(refused),
    }
}

/// The one name that is asked for, if nothing else is.
fn asked_uri(pem: &[u8]) -> Result<String, Refused> {
    let unreadable = || Refused::Asked("something that can't be read".to_owned());
    let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|_| unreadable())?;
    let (_, request) = X509CertificationRequest::from_der(&der).map_err(|_| unreadable())?;
    let info = &request.certification_request_info;
    if info.subject.iter_attributes().next().is_some() {
        return Err(Refused::Asked("a subject".to_owned()));
    }
    let mut uri = None;
    for attribute in info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(extensions) = attribute.parsed_attribute() else {
            return Err(Refused::Asked(format!("the attribute {}", attribute.oid)));
        };
        for extension in &extensions.extensions {
            match extension.parsed_extension() {
                ParsedExtension::SubjectAlternativeName(names) => {
                    match names.general_names.as_slice() {
                        [GeneralName::URI(name)] if uri.is_none() => uri = Some((*name).to_owned()),
                        _ => return Err(Refused::Asked("names beside one URI".to_owned())),
                    }
                }
                ParsedExtension::KeyUsage(usage) if is_leafs(usage) => {}
                ParsedExtension::ExtendedKeyUsage(usage) if is_peers(usage) => {}
                ParsedExtension::BasicConstraints(constraints) if !constraints.ca => {}
                ParsedExtension::KeyUsage(_) => {
                    return Err(Refused::Asked(
                        "a key usage other than digitalSignature".to_owned(),
                    ));
                }
                ParsedExtension::ExtendedKeyUsage(_) => {
                    let other = "an extended key usage other than clientAuth and serverAuth";
                    return Err(Refused::Asked(other.to_owned()));
                }
                ParsedExtension::BasicConstraints(_) => {
                    return Err(Refused::Asked("to be a CA".to_owned()));
                }
                _ => return Err(Refused::Asked(format!("the extension {}", extension.oid))),
            }
        }
    }
    uri.ok_or(Refused::NoUri)
}

/// The first bit is digitalSignature.
fn is_leafs(usage: &KeyUsage) -> bool {
    usage.flags == 1
}

fn is_peers(usage: &ExtendedKeyUsage<'_>) -> bool {
    let others = usage.any
        || usage.code_signing
        || usage.email_protection
        || usage.time_stamping
        || usage.ocsp_signing
        || !usage.other.is_empty();
    !others
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

/// Why a request is denied. Kubernetes shows it to whoever made it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error(
        "{0:?} made this request, and only a service account (system:serviceaccount:NAMESPACE:NAME) has an identity in the mesh"
    )]
    NotAServiceAccount(String),
    #[error(transparent)]
    Identity(#[from] InvalidWorkloadId),
    #[error(
        "the token that this request was made with is bound to no pod ({POD_UID} is missing): make it from inside the pod, with \
         its projected token"
    )]
    NoPod,
    #[error("{0} does not have one value")]
    Extra(&'static str),
    #[error(
        "the usage {0:?} is asked for, and such a certificate has only \"digital signature\", \"client auth\" and \"server auth\""
    )]
    Usage(String),
    #[error(
        "expirationSeconds is {seconds}, and certificates here live between {} and {} seconds: change it, or leave it out",
        SHORTEST.as_secs(), longest.as_secs()
    )]
    Lifetime { seconds: i32, longest: Duration },
    #[error(transparent)]
    Request(#[from] InvalidRequest),
    #[error(
        "the certificate request names no URI: put the SPIFFE ID in it, as its only subject alternative name"
    )]
    NoUri,
    #[error(
        "the certificate request asks for {0}: put the SPIFFE ID in it, as its only subject alternative name, with no subject and \
         nothing else"
    )]
    Asked(String),
    #[error("the certificate request asks for {asked:?}, but whoever made it is {id}")]
    OtherUri { asked: String, id: WorkloadId },
    #[error("this identity is evicted by {0}")]
    Evicted(String),
}

#[cfg(test)]
mod tests;
