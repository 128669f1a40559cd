use mesh_lite_proto::secret_discovery::{
    BundleForm, VersionedSecret, bundle_secret, chain_secret, stream::single_response,
};

use super::*;
use crate::tls::fixture::Authority;

fn token(content: &[u8]) -> Result<String, IssueError> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, content).unwrap();
    read_token(&path).map(|token| token.to_string())
}

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
fn a_token_is_the_one_word_of_its_file() {
    assert_eq!(token(b"abc.def-123\n").unwrap(), "abc.def-123");
}

#[test]
fn a_file_without_one_word_is_no_token() {
    for content in [
        &b""[..],
        b"\n",
        b"two words",
        b"line\nline",
        b"tab\there",
        b"\x00",
    ] {
        assert!(
            matches!(token(content), Err(IssueError::TokenText { .. })),
            "{content:?}"
        );
    }
    assert!(matches!(
        token(&[b'x'; 20_000]),
        Err(IssueError::TokenText { .. })
    ));
    assert!(matches!(
        token(b"\xff\xfe"),
        Err(IssueError::TokenFile { .. })
    ));
    let missing = read_token(Path::new("/nowhere/token"))
        .unwrap_err()
        .to_string();
    assert!(missing.contains("/nowhere/token"), "{missing}");
}

#[test]
fn a_request_carries_the_csr_and_hides_the_token_from_logs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    std::fs::write(&path, "secret-token").unwrap();
    let token = Some(read_token(&path).unwrap());
    let request = request("pod-1", "CSR", &Credential::TokenFile(path), token).unwrap();
    assert!(!format!("{request:?}").contains("secret-token"));
    assert_eq!(
        request.metadata().get("authorization").unwrap(),
        "Bearer secret-token"
    );
    let node = request.get_ref().node.as_ref().unwrap();
    let csr = mesh_lite_proto::secret_discovery::node_metadata(node, CSR_METADATA_KEY);
    assert_eq!(csr, Some("CSR"));
    assert_eq!(request.get_ref().resource_names, ["default"]);
}

#[test]
fn with_our_own_certificate_no_token_is_sent() {
    let request = request("pod-1", "CSR", &Credential::Svid, None).unwrap();
    assert!(request.metadata().get("authorization").is_none());
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
    let token = Credential::TokenFile("token".into());
    let outcome = |status: Status| refused(&status, &token, crate::clock::now()).outcome();
    assert_eq!(outcome(Status::unauthenticated("")), Renewal::Refused);
    assert_eq!(outcome(Status::permission_denied("")), Renewal::Refused);
    assert_eq!(outcome(Status::unavailable("")), Renewal::Unreachable);
    assert_eq!(
        outcome(Status::resource_exhausted("")),
        Renewal::Unreachable
    );
}
