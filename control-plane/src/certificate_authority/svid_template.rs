//! Step 1 of issuing: what we intend to say about a workload. Nothing here comes from the
//! caller's certificate request but its public key.

use std::time::{Duration, SystemTime};

use mesh_lite_proto::identity::WorkloadId;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SerialNumber,
};
use spiffe::TrustDomain;

use super::{
    certificate_request::PublicKey,
    random::{NoRandomNumbers, SerialBytes, serial},
};
use crate::clock::whole_seconds;

/// Peers' clocks differ; more than this is not worth a certificate that looks older than it is.
const MAX_BACKDATE: Duration = Duration::from_secs(120);
/// X.520's upper bound for a common name, in characters.
pub(crate) const MAX_COMMON_NAME: usize = 64;
/// RFC 5280 §4.2.1.6
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];

/// Names of services in one leaf. A pod behind more services than this has the first ones.
pub(crate) const MAX_DNS_NAMES: usize = 32;
/// Their bytes together: the chain must stay one that peers look at, see `MAX_CHAIN_BYTES`.
pub(crate) const MAX_DNS_BYTES: usize = 4096;
/// RFC 1035 §2.3.4
const MAX_DNS_NAME: usize = 253;
const MAX_DNS_LABEL: usize = 63;

/// Whose leaf it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) id: WorkloadId,
    /// Name of the pod or Workload document. Renewal finds the workload by it: a leaf without one
    /// can't be renewed.
    pub(crate) common_name: Option<String>,
    /// For applications that are servers of TLS themselves.
    pub(crate) dns_names: Vec<String>,
}

impl Subject {
    /// By the SPIFFE ID alone.
    pub(crate) fn of(id: WorkloadId) -> Self {
        Self {
            id,
            common_name: None,
            dns_names: Vec::new(),
        }
    }
}

/// What a leaf may not go beyond.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IssuerLimits<'a> {
    pub(crate) trust_domain: &'a TrustDomain,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// One leaf as we want it.
#[derive(Debug, Clone)]
pub(crate) struct SvidTemplate {
    pub(crate) id: WorkloadId,
    pub(crate) common_name: Option<String>,
    pub(crate) dns_names: Vec<String>,
    pub(crate) public_key: PublicKey,
    pub(crate) serial: SerialBytes,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl SvidTemplate {
    /// Valid from a little before `now`, for `lifetime` and never longer than the issuer.
    pub(crate) fn new(
        subject: Subject,
        public_key: PublicKey,
        lifetime: Duration,
        issuer: IssuerLimits<'_>,
        now: SystemTime,
    ) -> Result<Self, TemplateError> {
        let Subject {
            id,
            common_name,
            dns_names,
        } = subject;
        if id.trust_domain() != issuer.trust_domain {
            let issuer = issuer.trust_domain.to_string();
            return Err(TemplateError::TrustDomain { id, issuer });
        }
        if let Some(name) = &common_name
            && !(1..=MAX_COMMON_NAME).contains(&name.chars().count())
        {
            return Err(TemplateError::CommonName(name.clone()));
        }
        check_dns_names(&dns_names)?;
        if now >= issuer.not_after {
            return Err(TemplateError::IssuerExpired);
        }
        // An issuing CA made a moment ago on a machine with a faster clock is not valid yet.
        if whole_seconds(now) < issuer.not_before {
            return Err(TemplateError::IssuerNotYetValid);
        }
        let backdate = MAX_BACKDATE.min(lifetime / 10);
        let not_before = now
            .checked_sub(backdate)
            .unwrap_or(now)
            .max(issuer.not_before);
        let not_after = now
            .checked_add(lifetime)
            .unwrap_or(now)
            .min(issuer.not_after);
        Ok(Self {
            id,
            common_name,
            dns_names,
            public_key,
            serial: serial()?,
            not_before: whole_seconds(not_before),
            not_after: whole_seconds(not_after),
        })
    }

    pub(super) fn parameters(&self) -> Result<CertificateParams, TemplateError> {
        let mut parameters = CertificateParams::default();
        parameters.serial_number = Some(SerialNumber::from_slice(&self.serial));
        parameters.not_before = self.not_before.into();
        parameters.not_after = self.not_after.into();
        parameters.distinguished_name = DistinguishedName::new();
        if let Some(name) = &self.common_name {
            parameters
                .distinguished_name
                .push(DnType::CommonName, name.as_str());
        }
        parameters.is_ca = IsCa::ExplicitNoCa;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        parameters.use_authority_key_identifier_extension = true;
        parameters.custom_extensions = vec![critical_names(self.id.as_str(), &self.dns_names)];
        Ok(parameters)
    }
}

fn check_dns_names(names: &[String]) -> Result<(), TemplateError> {
    let is_label = |label: &str| {
        (1..=MAX_DNS_LABEL).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    let is_name = |name: &String| name.len() <= MAX_DNS_NAME && name.split('.').all(is_label);
    if let Some(name) = names.iter().find(|name| !is_name(name)) {
        return Err(TemplateError::DnsName(name.clone()));
    }
    let bytes: usize = names.iter().map(String::len).sum();
    if names.len() > MAX_DNS_NAMES || bytes > MAX_DNS_BYTES {
        return Err(TemplateError::DnsNames(names.len()));
    }
    Ok(())
}

/// The one URI name and what DNS names there are, critical although there may be a subject: nobody
/// may read the subject alone. (rcgen marks its own extension critical only if the subject is empty.)
fn critical_names(uri: &str, dns_names: &[String]) -> CustomExtension {
    const URI: u8 = 0x86; // [6] IMPLICIT IA5String
    const DNS: u8 = 0x82; // [2] IMPLICIT IA5String
    const SEQUENCE: u8 = 0x30;
    let dns_names = dns_names
        .iter()
        .flat_map(|name| der(DNS, name.as_bytes().to_vec()));
    let names = der(URI, uri.as_bytes().to_vec())
        .into_iter()
        .chain(dns_names);
    let content = der(SEQUENCE, names.collect());
    let mut extension = CustomExtension::from_oid_content(SUBJECT_ALT_NAME, content);
    extension.set_criticality(true);
    extension
}

/// One DER element: tag, definite length in the shortest form, content.
fn der(tag: u8, content: Vec<u8>) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant: Vec<u8> = length
        .iter()
        .copied()
        .skip_while(|byte| *byte == 0)
        .collect();
    let mut element = vec![tag];
    match (content.len(), u8::try_from(significant.len())) {
        (short @ 0..=127, _) => element.push(u8::try_from(short).unwrap_or_default()),
        (_, Ok(count)) => {
            element.push(0x80 | count);
            element.extend(significant);
        }
        // a length of more than 255 bytes does not fit into any machine word
        (_, Err(_)) => {}
    }
    element.extend(content);
    element
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    #[error("{id} is not of the trust domain {issuer} that this control plane issues for")]
    TrustDomain { id: WorkloadId, issuer: String },
    #[error("{0:?} can't be a certificate's common name: it has 1 to {MAX_COMMON_NAME} characters")]
    CommonName(String),
    #[error("{0:?} can't be a DNS name in a certificate")]
    DnsName(String),
    #[error("{0} DNS names are more than a certificate has room for")]
    DnsNames(usize),
    #[error("the issuing CA has expired: sign the next one with `mesh-lite root renew`")]
    IssuerExpired,
    #[error(
        "the issuing CA is not valid yet: compare this machine's clock with the one that ran `mesh-lite root`"
    )]
    IssuerNotYetValid,
    #[error(transparent)]
    Random(#[from] NoRandomNumbers),
}
