use super::*;

/// SPIFFE-I1, SPIFFE-I10
#[test]
fn accepts_what_the_standard_allows_and_keeps_the_text() {
    for text in [
        "spiffe://a.test/x",
        "spiffe://a_b-1.test/A.b_c-9/z",
        "spiffe://10.0.0.1/x",
        "spiffe://cluster.local/ns/shop/sa/web",
    ] {
        assert_eq!(text.parse::<WorkloadId>().unwrap().as_str(), text);
    }
    assert_ne!(
        "spiffe://a.test/Web".parse::<WorkloadId>(),
        "spiffe://a.test/web".parse::<WorkloadId>()
    );
}

/// SPIFFE-I2 to SPIFFE-I8, SPIFFE-I11
#[test]
fn refuses_everything_else() {
    for text in [
        "",
        "http://a.test/x",
        "spiffe:/a/x",
        "a.test/x",
        "spiffe://",
        "spiffe:///x",
        "spiffe://u@a.test/x",
        "spiffe://a.test:8/x",
        "spiffe://[::1]/x",
        "spiffe://A.test/x",
        "SPIFFE://a.test/x",
        "spiffe://a%2etest/x",
        "spiffe://a.test/%41",
        "spiffe://ä.test/x",
        "spiffe://a.test/ü",
        "spiffe://a.test/a b",
        "spiffe://a.test/a:b",
        "spiffe://a.test/a~b",
        "spiffe://a.test/",
        "spiffe://a.test/x/",
        "spiffe://a.test/x//y",
        "spiffe://a.test/.",
        "spiffe://a.test/x/../y",
        "spiffe://a.test/x?q",
        "spiffe://a.test/x#f",
        "spiffe://a.test",
        "spiffe://a.test/x\0",
    ] {
        assert!(text.parse::<WorkloadId>().is_err(), "{text:?}");
    }
}

/// SPIFFE-I9
#[test]
fn counts_the_length_of_the_whole_uri_in_bytes() {
    let longest = format!("spiffe://a.test/{}", "x".repeat(2048 - 16));
    assert_eq!(longest.len(), 2048);
    assert!(longest.parse::<WorkloadId>().is_ok());
    assert_eq!(
        format!("{longest}x").parse::<WorkloadId>(),
        Err(InvalidWorkloadId::TooLong(2049))
    );
}

#[test]
fn a_namespace_cannot_smuggle_a_path() {
    let domain = TrustDomain::new("a.test").unwrap();
    assert!(WorkloadId::new(&domain, "shop/sa/admin", "web").is_err());
    assert!(WorkloadId::new(&domain, "", "web").is_err());
    let id = WorkloadId::new(&domain, "shop", "web").unwrap();
    assert_eq!(id.as_str(), "spiffe://a.test/ns/shop/sa/web");
    assert_eq!(id.principal(), "a.test/ns/shop/sa/web");
    assert_eq!(
        (id.namespace(), id.service_account()),
        (Some("shop"), Some("web"))
    );
}

#[test]
fn only_the_exact_form_has_a_namespace() {
    for text in [
        "spiffe://a.test/ns/shop",
        "spiffe://a.test/ns/shop/sa/web/x",
        "spiffe://a.test/x/shop/sa/web",
        "spiffe://a.test/ns/shop/as/web",
    ] {
        assert_eq!(
            text.parse::<WorkloadId>().unwrap().namespace(),
            None,
            "{text}"
        );
    }
}

#[test]
fn a_trust_domain_is_taken_as_it_is_written_or_not_at_all() {
    for text in ["cluster.local", "a_b-1.test", "10.0.0.1"] {
        assert_eq!(parse_trust_domain(text).unwrap().to_string(), text);
    }
    for text in [
        "Cluster.Local",
        "spiffe://cluster.local",
        "spiffe://cluster.local/ns/y",
        "cluster.local/ns/y",
        " cluster.local",
    ] {
        assert!(parse_trust_domain(text).is_err(), "{text}");
    }
    let refused = parse_trust_domain("spiffe://x/ns/y").unwrap_err();
    assert!(
        refused.to_string().contains("did you mean \"x\"?"),
        "{refused}"
    );
    for text in ["", "a b", "a:1"] {
        let refused = parse_trust_domain(text).unwrap_err();
        assert!(
            matches!(refused, InvalidTrustDomain::Malformed { .. }),
            "{refused}"
        );
    }
}
