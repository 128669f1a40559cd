use mesh_lite_proto::secret_discovery::{
    BundleForm, VersionedSecret, active_authority_secret, bundle_secret, stream::single_response,
};

use super::*;
use crate::{
    control::status::{ControlPart, ControlStatus},
    metrics::{Metrics, MetricsPrefix},
    tls::fixture::Authority,
};

struct Stream {
    stream: SecretStream,
    announced: watch::Receiver<Announced>,
    status: watch::Receiver<ControlStatus>,
}

fn stream() -> Stream {
    let (sender, announced) = watch::channel(Announced::default());
    let status = Arc::new(watch::Sender::new(ControlStatus::default()));
    let metrics = Metrics::new(&MetricsPrefix::default(), 100);
    let reporter = Reporter::new(&status, ControlPart::Trust, &metrics, crate::clock::now);
    let (renewal, _) = RenewalReporter::new(&metrics, crate::clock::now);
    let domain = "a.test".parse().unwrap();
    Stream {
        status: status.subscribe(),
        stream: SecretStream::new(domain, "pod-1".to_owned(), sender, reporter, renewal),
        announced,
    }
}

fn response(nonce: &str, secrets: &[Secret]) -> DiscoveryResponse {
    let secrets: Vec<VersionedSecret> = secrets.iter().cloned().map(VersionedSecret::new).collect();
    DiscoveryResponse {
        nonce: nonce.to_owned(),
        ..single_response(&secrets)
    }
}

fn bundle(bundle: &TrustBundle) -> Secret {
    bundle_secret(OWN_BUNDLE, &[bundle], BundleForm::TrustedCa)
}

fn error(requests: &[DiscoveryRequest]) -> Option<&str> {
    assert_eq!(requests.len(), 1);
    requests[0]
        .error_detail
        .as_ref()
        .map(|error| error.message.as_str())
}

#[test]
fn begins_with_both_names_and_the_plain_form_and_no_nonce() {
    let first = stream().stream.first_requests();
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].resource_names, [OWN_BUNDLE, ACTIVE_AUTHORITY]);
    assert_eq!(first[0].response_nonce, "");
    let node = first[0].node.as_ref().unwrap();
    assert_eq!(BundleForm::asked_by(node), BundleForm::TrustedCa);
}

#[test]
fn acknowledges_what_it_takes_with_its_version_and_nonce() {
    let mut it = stream();
    let root = Authority::root().bundle();
    let sent = response("7", &[bundle(&root), active_authority_secret("ab12")]);
    let answer = it.stream.received(sent.clone());
    assert_eq!(error(&answer), None);
    assert_eq!(answer[0].response_nonce, "7");
    assert_eq!(answer[0].version_info, sent.version_info);
    let announced = it.announced.borrow().clone();
    assert_eq!(announced.trust_bundle, Some(root));
    assert_eq!(announced.active_authority.as_deref(), Some("ab12"));
}

#[test]
fn a_bundle_that_trusts_nobody_is_refused_and_the_last_good_one_stays() {
    let mut it = stream();
    let root = Authority::root().bundle();
    let first = response("1", &[bundle(&root)]);
    it.stream.received(first.clone());
    let mut empty = bundle(&root);
    if let Some(secret::Type::ValidationContext(context)) = &mut empty.r#type {
        context.trusted_ca = Some(DataSource {
            specifier: Some(Specifier::InlineBytes(Vec::new())),
        });
    }
    let answer = it.stream.received(response("2", &[empty]));
    assert!(error(&answer).unwrap().contains("trust nobody"));
    assert_eq!(answer[0].response_nonce, "2");
    assert_eq!(
        answer[0].version_info, first.version_info,
        "the last accepted one"
    );
    assert_eq!(it.announced.borrow().trust_bundle, Some(root));
    assert!(it.status.borrow().trust.error.is_some());
}

#[test]
fn refuses_secrets_of_the_wrong_kind() {
    let root = Authority::root().bundle();
    let swapped = |mut secret: Secret, name: &str| {
        secret.name = name.to_owned();
        secret
    };
    for wrong in [
        swapped(active_authority_secret("ab12"), OWN_BUNDLE),
        swapped(bundle(&root), ACTIVE_AUTHORITY),
        bundle_secret(OWN_BUNDLE, &[&root], BundleForm::SpiffeValidator),
        active_authority_secret(""),
        active_authority_secret("AB12"),
        active_authority_secret("no hex"),
        active_authority_secret(&"a".repeat(200)),
    ] {
        let mut it = stream();
        assert!(error(&it.stream.received(response("1", &[wrong]))).is_some());
        assert_eq!(*it.announced.borrow(), Announced::default());
    }
}

#[test]
fn a_bad_secret_does_not_take_a_good_one_with_it() {
    let mut it = stream();
    let root = Authority::root().bundle();
    let answer = it.stream.received(response(
        "1",
        &[active_authority_secret("?"), bundle(&root)],
    ));
    assert!(error(&answer).unwrap().contains("key id"));
    assert_eq!(it.announced.borrow().trust_bundle, Some(root));
}

#[test]
fn bytes_that_are_no_secret_are_refused() {
    let mut it = stream();
    let mut torn = response("1", &[bundle(&Authority::root().bundle())]);
    torn.resources[0].value.truncate(30);
    assert!(error(&it.stream.received(torn)).unwrap().contains("parsed"));
}

#[test]
fn equal_content_is_announced_once_and_a_name_nobody_asked_for_is_skipped() {
    let mut it = stream();
    let root = Authority::root().bundle();
    it.stream.received(response("1", &[bundle(&root)]));
    it.announced.mark_unchanged();
    let unasked = bundle_secret("spiffe://b.test", &[&root], BundleForm::TrustedCa);
    assert_eq!(
        error(&it.stream.received(response("2", &[bundle(&root), unasked]))),
        None
    );
    assert!(!it.announced.has_changed().unwrap());
}
