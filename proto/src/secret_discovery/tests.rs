use spiffe::TrustDomain;

use super::*;
use crate::wire::envoy::extensions::transport_sockets::tls::v3::Secret;

fn bundle(name: &str) -> TrustBundle {
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = parameters
        .self_signed(&rcgen::KeyPair::generate().unwrap())
        .unwrap();
    TrustBundle::new(TrustDomain::new(name).unwrap(), vec![certificate.into()]).unwrap()
}

fn context(secret: Secret) -> CertificateValidationContext {
    match secret.r#type {
        Some(secret::Type::ValidationContext(context)) => context,
        other => panic!("no bundle: {other:?}"),
    }
}

#[test]
fn dresses_a_bundle_in_the_form_asked_for() {
    let own = bundle("a.test");
    let plain = context(bundle_secret(OWN_BUNDLE, &[&own], BundleForm::TrustedCa));
    assert_eq!(plain.trusted_ca, Some(inline(&own.to_pem())));
    assert_eq!(plain.custom_validator_config, None);
    let validator = context(bundle_secret(
        OWN_BUNDLE,
        &[&own],
        BundleForm::SpiffeValidator,
    ));
    assert_eq!(validator.trusted_ca, None);
    assert_eq!(
        validator.custom_validator_config.unwrap().name,
        SPIFFE_VALIDATOR
    );
}

#[test]
fn keeps_bundles_of_several_trust_domains_apart() {
    let (own, other) = (bundle("a.test"), bundle("b.test"));
    let secret = bundle_secret(ALL_BUNDLES, &[&own, &other], BundleForm::SpiffeValidator);
    let config = context(secret)
        .custom_validator_config
        .unwrap()
        .typed_config
        .unwrap();
    assert_eq!(config.type_url, SPIFFE_VALIDATOR_TYPE_URL);
    let config = SpiffeCertValidatorConfig::decode(&*config.value).unwrap();
    let entries: Vec<_> = config
        .trust_domains
        .into_iter()
        .map(|entry| (entry.name, entry.trust_bundle))
        .collect();
    let expected = [&own, &other].map(|bundle| {
        (
            bundle.trust_domain().to_string(),
            Some(inline(&bundle.to_pem())),
        )
    });
    assert_eq!(entries, expected);
}

#[test]
fn names_content_by_itself() {
    let versioned = |text: &str| VersionedSecret::new(active_authority_secret(text)).version;
    assert_eq!(versioned("ab"), versioned("ab"));
    assert_ne!(versioned("ab"), versioned("ac"));
    let renamed = VersionedSecret::new(chain_secret("default", "x")).version;
    assert_ne!(
        renamed,
        VersionedSecret::new(chain_secret("other", "x")).version
    );
}

#[test]
fn sends_a_chain_without_a_key() {
    let secret = chain_secret(DEFAULT_SVID, "chain");
    let Some(secret::Type::TlsCertificate(certificate)) = secret.r#type else {
        panic!()
    };
    assert_eq!(certificate.certificate_chain, Some(inline("chain")));
    assert_eq!(certificate.private_key, None);
}

#[test]
fn reads_only_text_from_the_nodes_metadata() {
    use prost_types::{Struct, Value, value::Kind};
    let node = |kind: Option<Kind>| Node {
        metadata: Some(Struct {
            fields: [("key".to_owned(), Value { kind })].into(),
        }),
        ..Node::default()
    };
    let text = node(Some(Kind::StringValue("value".to_owned())));
    assert_eq!(node_metadata(&text, "key"), Some("value"));
    assert_eq!(node_metadata(&text, "other"), None);
    assert_eq!(
        node_metadata(&node(Some(Kind::BoolValue(true))), "key"),
        None
    );
    assert_eq!(node_metadata(&node(None), "key"), None);
    assert_eq!(node_metadata(&Node::default(), "key"), None);
}
