//! Envoy's SDS API: names, secrets, and what one stream owes its client.
//!
//! ```text
//! request ──▶ machine.receive ─┐
//!                              ├─▶ machine.respond(secrets) ──▶ at most one response
//! secrets changed ─────────────┘
//! ```
//! The machines know no I/O; [`service`] drives them for gRPC, wherever the secrets come from.
//! The contract is what Envoy 1.40 really does; rules are cited as SDS-S1 to S30.

use std::{fmt, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use prost::Message as _;
use prost_types::Any;
use zeroize::{Zeroize as _, Zeroizing};

use crate::{
    trust_bundle::{TrustBundle, hex},
    wire::envoy::{
        config::core::v3::{DataSource, Node, TypedExtensionConfig, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{
            CertificateValidationContext, GenericSecret, Secret, SpiffeCertValidatorConfig,
            TlsCertificate, secret, spiffe_cert_validator_config,
        },
    },
};

pub mod delta;
pub mod intake;
mod redaction;
pub mod request_rate;
pub mod service;
pub mod stream;
mod told_rejections;

pub use delta::DeltaStream;
pub use intake::{NamedVersion, Received, Rejection, Secrets, Violation};
pub use stream::SecretStream;
pub use told_rejections::ToldRejections;

/// The only type this API speaks of (SDS-S3).
pub const SECRET_TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const SPIFFE_VALIDATOR_TYPE_URL: &str =
    "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig";
const SPIFFE_VALIDATOR: &str = "envoy.tls.cert_validator.spiffe";

/// The caller's own SVID.
pub const DEFAULT_SVID: &str = "default";
/// The bundle of the caller's own trust domain.
pub const OWN_BUNDLE: &str = "ROOTCA";
/// All bundles; only a SPIFFE validator can hold them.
pub const ALL_BUNDLES: &str = "ALL";
/// Key id of the issuing CA in use: when it changes, sidecars renew.
pub const ACTIVE_AUTHORITY: &str = "mesh-lite.io/active-authority";

/// A SPIFFE ID and what may stand around it (SDS-S21).
pub const MAX_SECRET_NAME: usize = 2048 + 16;

/// How a bundle is dressed. The client's node says so once per stream; it decides the form and
/// nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BundleForm {
    /// Envoy's SPIFFE validator: picks the bundle by the peer's trust domain.
    #[default]
    SpiffeValidator,
    /// A plain list of roots.
    TrustedCa,
}

impl BundleForm {
    /// What the node asks for; anything but `trusted_ca` means the SPIFFE validator (SDS-S6).
    #[must_use]
    pub fn asked_by(node: &Node) -> Self {
        match node_metadata(node, crate::sidecar::VALIDATOR_METADATA_KEY) {
            Some("trusted_ca") => Self::TrustedCa,
            _ => Self::SpiffeValidator,
        }
    }
}

/// A text in the node's metadata.
#[must_use]
pub fn node_metadata<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    let value = node.metadata.as_ref()?.fields.get(key)?;
    match value.kind.as_ref()? {
        prost_types::value::Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

/// A secret, and a name for its content: equal content has an equal version, also after a
/// restart, and unequal content never has (SDS-S10). Cheap to clone; the content may be a private
/// key, so it is wiped when the last clone goes, and never shown (SDS-S29).
#[derive(Clone, PartialEq, Eq)]
pub struct VersionedSecret {
    pub version: String,
    encoded: Arc<Zeroizing<Vec<u8>>>,
}

impl VersionedSecret {
    /// Also takes what holds a private key: the version is a hash and gives nothing away.
    #[must_use]
    pub fn new(mut secret: Secret) -> Self {
        // made at its full length at once: no half of a key stays behind where it grew from
        let encoded = Zeroizing::new(secret.encode_to_vec());
        wipe_key(&mut secret);
        Self {
            version: version_of(&encoded),
            encoded: Arc::new(encoded),
        }
    }

    /// As it travels in a response.
    #[must_use]
    pub fn to_any(&self) -> Any {
        Any {
            type_url: SECRET_TYPE_URL.to_owned(),
            value: self.encoded.to_vec(),
        }
    }
}

impl fmt::Debug for VersionedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VersionedSecret")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

fn wipe_key(secret: &mut Secret) {
    let Some(secret::Type::TlsCertificate(certificate)) = &mut secret.r#type else {
        return;
    };
    let key = certificate.private_key.as_mut();
    match key.and_then(|key| key.specifier.as_mut()) {
        Some(Specifier::InlineBytes(bytes)) => bytes.zeroize(),
        Some(Specifier::InlineString(text)) => text.zeroize(),
        _ => {}
    }
}

pub(crate) fn version_of(content: &[u8]) -> String {
    const LENGTH: usize = 16;
    hex(digest(&SHA256, content)
        .as_ref()
        .get(..LENGTH)
        .unwrap_or_default())
}

/// A chain without its key, for a client that made the key itself.
#[must_use]
pub fn chain_secret(name: &str, chain_pem: &str) -> Secret {
    let certificate = TlsCertificate {
        certificate_chain: Some(inline(chain_pem)),
        private_key: None,
    };
    named(name, secret::Type::TlsCertificate(certificate))
}

/// A chain with its key, for a client that has neither: both in one secret, so that no client ever
/// pairs one with another's (SDS-S30). `key_pem` is PKCS#8 (SDS-S28).
#[must_use]
pub fn svid_secret(name: &str, chain_pem: &str, key_pem: &Zeroizing<String>) -> VersionedSecret {
    let certificate = TlsCertificate {
        certificate_chain: Some(inline(chain_pem)),
        private_key: Some(inline(key_pem)),
    };
    VersionedSecret::new(named(name, secret::Type::TlsCertificate(certificate)))
}

#[must_use]
pub fn bundle_secret(name: &str, bundles: &[&TrustBundle], form: BundleForm) -> Secret {
    let mut context = CertificateValidationContext::default();
    match form {
        BundleForm::TrustedCa => {
            let pem: String = bundles.iter().map(|bundle| bundle.to_pem()).collect();
            context.trusted_ca = Some(inline(&pem));
        }
        BundleForm::SpiffeValidator => {
            let config = SpiffeCertValidatorConfig {
                trust_domains: bundles
                    .iter()
                    .map(|bundle| validator_entry(bundle))
                    .collect(),
            };
            context.custom_validator_config = Some(TypedExtensionConfig {
                name: SPIFFE_VALIDATOR.to_owned(),
                typed_config: Some(Any {
                    type_url: SPIFFE_VALIDATOR_TYPE_URL.to_owned(),
                    value: config.encode_to_vec(),
                }),
            });
        }
    }
    named(name, secret::Type::ValidationContext(context))
}

/// `key_id` is the lower-case hex of the issuing CA's subject key identifier.
#[must_use]
pub fn active_authority_secret(key_id: &str) -> Secret {
    let secret = DataSource {
        specifier: Some(Specifier::InlineString(key_id.to_owned())),
    };
    let secret = GenericSecret {
        secret: Some(secret),
    };
    named(ACTIVE_AUTHORITY, secret::Type::GenericSecret(secret))
}

fn validator_entry(bundle: &TrustBundle) -> spiffe_cert_validator_config::TrustDomain {
    spiffe_cert_validator_config::TrustDomain {
        name: bundle.trust_domain().to_string(),
        trust_bundle: Some(inline(&bundle.to_pem())),
    }
}

fn named(name: &str, content: secret::Type) -> Secret {
    Secret {
        name: name.to_owned(),
        r#type: Some(content),
    }
}

fn inline(pem: &str) -> DataSource {
    DataSource {
        specifier: Some(Specifier::InlineBytes(pem.as_bytes().to_vec())),
    }
}

#[cfg(test)]
mod tests;
