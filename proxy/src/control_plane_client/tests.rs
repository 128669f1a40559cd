use super::*;

fn client(address: &str) -> Result<ControlPlaneClient, InvalidControlPlane> {
    ControlPlaneClient::new(address, &"a.test".parse().unwrap(), "mesh-lite-system")
}

#[test]
fn takes_names_and_addresses_with_a_port() {
    for address in [
        "control-plane.mesh-lite-system.svc:15012",
        "10.0.0.1:1",
        "[fd00::1]:15012",
    ] {
        assert!(client(address).is_ok(), "{address}");
    }
}

#[test]
fn refuses_what_is_no_address_and_says_how_to_write_one() {
    for address in [
        "",
        ":1",
        "host",
        "host:",
        "host:0",
        "host:65536",
        "https://host:1",
        "a@b:1",
    ] {
        let words = client(address).unwrap_err().to_string();
        assert!(words.contains("HOST:PORT"), "{address:?}: {words}");
    }
}

#[test]
fn refuses_a_namespace_that_would_change_the_expected_identity() {
    let domain = "a.test".parse().unwrap();
    for namespace in ["", "a/b", "../x"] {
        assert!(matches!(
            ControlPlaneClient::new("host:1", &domain, namespace),
            Err(InvalidControlPlane::Namespace(_))
        ));
    }
}

#[test]
fn expects_the_control_planes_own_identity() {
    let expected = client("host:1").unwrap().expected;
    assert_eq!(
        expected.as_str(),
        "spiffe://a.test/ns/mesh-lite-system/sa/mesh-lite-control-plane"
    );
}

#[test]
fn words_are_bounded_and_on_one_line() {
    let status = Status::unavailable(format!("first\nsecond\u{1b}[31m {}", "x".repeat(10_000)));
    let words = in_words(&status);
    assert!(words.starts_with("first second"));
    assert!(words.len() <= MAX_WORDS && !words.contains(['\n', '\u{1b}']));
    assert!(!in_words(&Status::unavailable("")).is_empty());
}

#[test]
fn words_name_the_cause_below_the_status() {
    let cause = ConnectError::NoAddress {
        host: "nowhere".into(),
    };
    let status = Status::from_error(Box::new(cause));
    assert!(
        in_words(&status).contains("nowhere"),
        "{}",
        in_words(&status)
    );
}

/// What rustls says of a server's certificate.
fn told(error: CertificateError) -> String {
    tls_words(&io::Error::other(rustls::Error::InvalidCertificate(error)))
}

#[test]
fn a_control_plane_from_the_future_means_that_our_clock_is_behind() {
    let at = |seconds| rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let early = told(CertificateError::NotValidYetContext {
        time: at(1000),
        not_before: at(1000 + 3 * 3600),
    });
    assert!(
        early.contains("begins in 3 h") && early.contains("set the clock"),
        "{early}"
    );
    let late = told(CertificateError::ExpiredContext {
        time: at(1000 + 3 * 3600),
        not_after: at(1000),
    });
    assert!(
        late.contains("ended 3 h ago") && late.contains("our clock is ahead"),
        "{late}"
    );
}
