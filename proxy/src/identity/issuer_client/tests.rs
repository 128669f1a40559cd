use mesh_lite_proto::secret_discovery::{
    BundleForm, VersionedSecret, bundle_secret, chain_secret, stream::single_response,
};

use super::*;
use crate::tls::fixture::Authority;

fn answer(secrets: &[Secret]) -> DiscoveryResponse {
    let secrets: Vec<VersionedSecret> = secrets.iter().cloned().map(VersionedSecret::new).collect();
    single_response(&secrets)
}

fn refusal(answer: DiscoveryResponse) -> InvalidAnswer {
    match chain_of(answer) {
        Err(IssueError::Answer(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_carries_the_csr() {
    let request = request("pod-1", "CSR", false);
    let node = request.node.as_ref().unwrap();
    let csr = mesh_lite_proto::secret_discovery::node_metadata(node, CSR_METADATA_KEY);
    assert_eq!(csr, Some("CSR"));
    assert_eq!(request.resource_names, ["default"]);
}

#[test]
fn a_token_that_is_refused_is_answered_with_what_to_look_at() {
    let words = |file: TokenFile| {
        let status = Status::unauthenticated("not good");
        refused(&status, &Credential::Token(file), crate::clock::now()).to_string()
    };
    let join = words(TokenFile::Join("token".into()));
    assert!(join.contains("mesh-lite token create"), "{join}");
    let of_pod = words(TokenFile::ServiceAccount("token".into()));
    for word in ["audience", "pod", "clocks"] {
        assert!(of_pod.contains(word), "{of_pod}");
    }
    assert!(!of_pod.contains("token create"), "{of_pod}");
}

#[test]
fn an_answer_is_one_chain() {
    let root = Authority::root();
    let pem = root.bundle().to_pem();
    let chain = chain_of(answer(&[chain_secret("default", &pem)])).unwrap();
    assert_eq!(chain, [root.certificate]);
}

#[test]
fn anything_but_one_chain_is_refused() {
    let bundle = Authority::root().bundle();
    let chain = chain_secret("default", &bundle.to_pem());
    assert_eq!(refusal(answer(&[])), InvalidAnswer::Secrets(0));
    assert_eq!(
        refusal(answer(&[chain.clone(), chain.clone()])),
        InvalidAnswer::Secrets(2)
    );
    let other = bundle_secret("default", &[&bundle], BundleForm::TrustedCa);
    assert_eq!(refusal(answer(&[other])), InvalidAnswer::NoCertificate);
    let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    assert!(matches!(
        refusal(answer(&[chain_secret("default", broken)])),
        InvalidAnswer::Pem(_)
    ));
    let mut torn = answer(&[chain]);
    torn.resources[0].value.truncate(20);
    assert!(matches!(refusal(torn), InvalidAnswer::Secret(_)));
}

#[test]
fn an_endless_chain_is_not_read_to_its_end() {
    let pem = Authority::root().bundle().to_pem().repeat(100);
    let chain = chain_of(answer(&[chain_secret("default", &pem)])).unwrap();
    assert_eq!(chain.len(), MAX_CERTIFICATES);
}

#[test]
fn clocks_are_blamed_for_what_clocks_can_do_only() {
    let early = UnusableChain::NotYetValid {
        early: Duration::from_secs(9),
    };
    let skew = Some(ClockSkew { seconds: -300 });
    assert!(clock_hint(&early, skew).contains("5 min behind the control plane's"));
    assert!(clock_hint(&early, None).contains("is the clock of this host right?"));
    let none = Some(ClockSkew { seconds: 1 });
    assert!(!clock_hint(&early, none).contains("set the clock"));
    assert_eq!(clock_hint(&UnusableChain::OtherKey, skew), "");
}

#[test]
fn metrics_tell_refused_from_unreachable() {
    let token = Credential::Token(TokenFile::Join("token".into()));
    let outcome = |status: Status| refused(&status, &token, crate::clock::now()).outcome();
    assert_eq!(outcome(Status::unauthenticated("")), Renewal::Refused);
    assert_eq!(outcome(Status::permission_denied("")), Renewal::Refused);
    assert_eq!(outcome(Status::unavailable("")), Renewal::Unreachable);
    assert_eq!(
        outcome(Status::resource_exhausted("")),
        Renewal::Unreachable
    );
}
