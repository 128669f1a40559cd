use spiffe::TrustDomain;

use super::*;
use crate::wire::envoy::extensions::transport_sockets::tls::v3::Secret;

pub(super) mod store;

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

/// SDS-S5, SDS-S6
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

/// SDS-S5
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

/// SDS-S10
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

/// SDS-S6
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

/// Lines of a PEM key that nothing else would hold by chance.
fn key_lines(pem: &str) -> Vec<&str> {
    pem.lines().filter(|line| line.len() > 20).skip(1).collect()
}

/// SDS-S28, SDS-S30
#[test]
fn sends_a_chain_and_its_key_in_one_secret() {
    let key = Zeroizing::new(rcgen::KeyPair::generate().unwrap().serialize_pem());
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"));
    let any = svid_secret(DEFAULT_SVID, "chain", &key).to_any();
    let secret = Secret::decode(&*any.value).unwrap();
    assert_eq!(secret.name, DEFAULT_SVID);
    let Some(secret::Type::TlsCertificate(certificate)) = secret.r#type else {
        panic!()
    };
    assert_eq!(certificate.certificate_chain, Some(inline("chain")));
    assert_eq!(certificate.private_key, Some(inline(&key)));
}

/// SDS-S29
#[test]
fn shows_no_key_whatever_is_printed() {
    use crate::wire::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
    let key = Zeroizing::new(rcgen::KeyPair::generate().unwrap().serialize_pem());
    let versioned = svid_secret(DEFAULT_SVID, "chain", &key);
    let any = versioned.to_any();
    let bytes = format!("{:?}", &any.value[60..80]);
    let bytes = bytes.trim_matches(['[', ']']);
    let shown = [
        format!("{versioned:?}"),
        format!("{:?}", Secret::decode(&*any.value).unwrap()),
        format!("{:?}", stream::single_response(&[versioned])),
        format!(
            "{:?}",
            DeltaDiscoveryResponse {
                resources: vec![Resource {
                    resource: Some(any),
                    ..Resource::default()
                }],
                ..DeltaDiscoveryResponse::default()
            }
        ),
    ];
    let escaped = format!("{:?}", inline(&key));
    for text in shown {
        assert!(!text.is_empty() && !text.contains(bytes), "{text}");
        assert!(!text.contains(&escaped), "{text}");
        for line in key_lines(&key) {
            assert!(!text.contains(line), "{text}");
        }
    }
}

/// SDS-S29
#[test]
fn wipes_the_key_of_a_message_that_became_a_secret() {
    let certificate = TlsCertificate {
        certificate_chain: None,
        private_key: Some(inline("key")),
    };
    let mut secret = named("x", secret::Type::TlsCertificate(certificate));
    wipe_key(&mut secret);
    let Some(secret::Type::TlsCertificate(certificate)) = secret.r#type else {
        panic!()
    };
    assert_eq!(certificate.private_key, Some(inline("")));
}
