//! One CA and the one certificate that it signed.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::{
    RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::SecretData;
use crate::clock::{from_unix_seconds, unix_seconds};

const AUTHORITY: &str = "ca.crt";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
/// An API server whose clock is this far behind still takes a certificate made just now.
const BACKDATE: Duration = Duration::from_secs(600);
/// RFC 5280 §4.1.2.2: at most 20 octets; 16 of them random are enough for one of a kind.
const SERIAL_LENGTH: usize = 16;
/// HTTP/1.1 only, as the API server asks for.
const ALPN: &[u8] = b"http/1.1";

/// The name under which the API server calls the webhook: its Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerName {
    service: String,
    namespace: String,
}

impl ServerName {
    pub(crate) fn new(service: &str, namespace: &str) -> Self {
        Self {
            service: service.to_owned(),
            namespace: namespace.to_owned(),
        }
    }

    /// What the API server asks for.
    pub(crate) fn called(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    fn all(&self) -> [String; 2] {
        let called = self.called();
        [format!("{called}.cluster.local"), called]
    }
}

#[derive(Clone)]
pub(crate) struct Generation {
    authority: String,
    certificate: String,
    key: Zeroizing<String>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl PartialEq for Generation {
    /// By what is public: a certificate has one key.
    fn eq(&self, other: &Self) -> bool {
        self.authority == other.authority && self.certificate == other.certificate
    }
}

impl Eq for Generation {}

impl fmt::Debug for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generation")
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

impl Generation {
    /// A new CA, a certificate signed by it, and no more key of the CA.
    pub(super) fn create(
        name: &ServerName,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Self, GenerationError> {
        let authority_key = KeyPair::generate()?;
        let authority = authority_parameters(lifetime, now)?;
        let authority_certificate = authority.self_signed(&authority_key)?;
        let key = KeyPair::generate()?;
        let issuer = Issuer::new(authority, authority_key);
        let certificate = leaf_parameters(name, lifetime, now)?.signed_by(&key, &issuer)?;
        Self::checked(
            authority_certificate.pem(),
            certificate.pem(),
            Zeroizing::new(key.serialize_pem()),
            name,
        )
    }

    pub(super) fn read(
        data: &SecretData,
        prefix: &str,
        name: &ServerName,
    ) -> Result<Self, GenerationError> {
        let text = |key: &str| {
            let key = format!("{prefix}{key}");
            match data.get(&key).map(|bytes| String::from_utf8(bytes.clone())) {
                Some(Ok(text)) => Ok(text),
                _ => Err(GenerationError::Missing(key)),
            }
        };
        let key = Zeroizing::new(text(KEY)?);
        Self::checked(text(AUTHORITY)?, text(CERTIFICATE)?, key, name)
    }

    pub(super) fn write(&self, prefix: &str, data: &mut SecretData) {
        for (key, text) in [
            (AUTHORITY, self.authority.as_str()),
            (CERTIFICATE, self.certificate.as_str()),
            (KEY, self.key.as_str()),
        ] {
            data.insert(format!("{prefix}{key}"), text.as_bytes().to_vec());
        }
    }

    /// Only what an API server would accept is a generation: whatever else the Secret holds is
    /// replaced.
    fn checked(
        authority: String,
        certificate: String,
        key: Zeroizing<String>,
        name: &ServerName,
    ) -> Result<Self, GenerationError> {
        let leaf = one_certificate(CERTIFICATE, &certificate)?;
        let (_, facts) = X509Certificate::from_der(&leaf)
            .map_err(|error| GenerationError::Unreadable(CERTIFICATE, error.to_string()))?;
        let seconds = |time: i64| from_unix_seconds(u64::try_from(time).unwrap_or_default());
        let not_before = seconds(facts.validity().not_before.timestamp());
        let not_after = seconds(facts.validity().not_after.timestamp());
        if !is_authority(&authority) {
            return Err(GenerationError::NoAuthority);
        }
        verify(&authority, &leaf, name, not_before, not_after)?;
        let generation = Self {
            authority,
            certificate,
            key,
            not_before,
            not_after,
        };
        // refuses a key that is another certificate's
        generation.server_config()?;
        Ok(generation)
    }

    /// PEM.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    pub(crate) fn not_after(&self) -> SystemTime {
        self.not_after
    }

    pub(super) fn is_valid(&self, now: SystemTime) -> bool {
        (self.not_before..self.not_after).contains(&now)
    }

    /// When the next one is made.
    pub(super) fn half_life(&self) -> SystemTime {
        let life = self
            .not_after
            .duration_since(self.not_before)
            .unwrap_or_default();
        self.not_after
            .checked_sub(life / 2)
            .unwrap_or(self.not_before)
    }

    /// For the webhook's listener: TLS 1.3 only, which every API server from 1.33 on speaks.
    pub(crate) fn server_config(&self) -> Result<Arc<ServerConfig>, GenerationError> {
        let leaf = one_certificate(CERTIFICATE, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|error| GenerationError::Unreadable(KEY, error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![leaf], key)?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // a resumed session would outlive a rotation, and API servers keep their connections
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

/// Whether this is one certificate, and of a CA.
pub(super) fn is_authority(pem: &str) -> bool {
    let Ok(der) = one_certificate(AUTHORITY, pem) else {
        return false;
    };
    X509Certificate::from_der(&der).is_ok_and(|(_, certificate)| certificate.is_ca())
}

/// The Secret's text goes into the registration: nothing but one certificate may be in it.
fn one_certificate(
    key: &'static str,
    pem: &str,
) -> Result<CertificateDer<'static>, GenerationError> {
    let unreadable = |reason: String| GenerationError::Unreadable(key, reason);
    let mut found = CertificateDer::pem_slice_iter(pem.as_bytes());
    let first = found
        .next()
        .ok_or_else(|| unreadable("no certificate in it".to_owned()))?
        .map_err(|error| unreadable(error.to_string()))?;
    match found.next() {
        None => Ok(first),
        Some(_) => Err(unreadable("more than one certificate in it".to_owned())),
    }
}

/// As an API server would judge it, in the middle of its life.
fn verify(
    authority: &str,
    leaf: &CertificateDer<'_>,
    name: &ServerName,
    not_before: SystemTime,
    not_after: SystemTime,
) -> Result<(), GenerationError> {
    let mut roots = RootCertStore::empty();
    roots.add(one_certificate(AUTHORITY, authority)?)?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider())
        .build()
        .map_err(|error| GenerationError::Unreadable(AUTHORITY, error.to_string()))?;
    let called = rustls_pki_types::ServerName::try_from(name.called())
        .map_err(|_| GenerationError::Name(name.called()))?;
    let life = not_after.duration_since(not_before).unwrap_or_default();
    let middle = Duration::from_secs(unix_seconds(not_before)).saturating_add(life / 2);
    let at = UnixTime::since_unix_epoch(middle);
    verifier.verify_server_cert(leaf, &[], &called, &[], at)?;
    Ok(())
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn authority_parameters(
    lifetime: Duration,
    now: SystemTime,
) -> Result<CertificateParams, GenerationError> {
    let mut parameters = parameters(lifetime, now)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters
        .distinguished_name
        .push(DnType::CommonName, "mesh-lite injector CA");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(parameters)
}

fn leaf_parameters(
    name: &ServerName,
    lifetime: Duration,
    now: SystemTime,
) -> Result<CertificateParams, GenerationError> {
    let mut parameters = parameters(lifetime, now)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    parameters.use_authority_key_identifier_extension = true;
    for name in name.all() {
        let dns = SanType::DnsName(
            name.clone()
                .try_into()
                .map_err(|_| GenerationError::Name(name))?,
        );
        parameters.subject_alt_names.push(dns);
    }
    Ok(parameters)
}

/// CA and leaf live equally long: the CA can't sign anything else.
fn parameters(lifetime: Duration, now: SystemTime) -> Result<CertificateParams, GenerationError> {
    let mut serial = [0; SERIAL_LENGTH];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| GenerationError::NoRandomNumbers)?;
    // positive, and not shorter than it should be
    if let Some(first) = serial.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    let whole = |time: SystemTime| from_unix_seconds(unix_seconds(time));
    let mut parameters = CertificateParams::default();
    parameters.serial_number = Some(SerialNumber::from_slice(&serial));
    parameters.not_before = whole(now.checked_sub(BACKDATE).unwrap_or(now)).into();
    parameters.not_after = whole(now.checked_add(lifetime).unwrap_or(now)).into();
    Ok(parameters)
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum GenerationError {
    #[error("{0:?} is not there or is no text")]
    Missing(String),
    #[error("{0} can't be read: {1}")]
    Unreadable(&'static str, String),
    #[error("{AUTHORITY} is not one certificate of a CA")]
    NoAuthority,
    #[error("{0:?} can't be a server's name")]
    Name(String),
    #[error("no API server would accept it: {0}")]
    Refused(#[from] rustls::Error),
    #[error("the certificate can't be made: {0}")]
    Signing(#[from] rcgen::Error),
    #[error("no random numbers")]
    NoRandomNumbers,
}
