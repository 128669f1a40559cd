use super::*;

/// None of these is a workload's SPIFFE ID.
fn refused(texts: &[&str]) {
    for text in texts {
        let parsed = text.parse::<WorkloadId>();
        assert!(parsed.is_err(), "{text:?} was taken for {parsed:?}");
    }
}

/// SPIFFE-I1
#[test]
fn accepts_what_the_standard_allows_and_keeps_the_text() {
    for text in [
        "spiffe://a.test/x",
        "spiffe://a_b-1.test/A.b_c-9/z",
        "spiffe://10.0.0.1/x",
        "spiffe://cluster.local/ns/shop/sa/web",
        "spiffe://a.test/...",
        "spiffe://a.test/.x/x..",
    ] {
        assert_eq!(text.parse::<WorkloadId>().unwrap().as_str(), text);
    }
}

/// SPIFFE-I2
#[test]
fn refuses_every_other_scheme() {
    refused(&[
        "",
        "http://a.test/x",
        "spiffe:/a/x",
        "spiffe:a/x",
        "a.test/x",
        "//a.test/x",
        "spiffes://a.test/x",
        "SPIFFE://a.test/x",
        "Spiffe://a.test/x",
        " spiffe://a.test/x",
    ]);
}

/// SPIFFE-I3
#[test]
fn refuses_an_empty_trust_domain() {
    refused(&["spiffe://", "spiffe:///", "spiffe:///x"]);
    assert!(parse_trust_domain("").is_err());
}

/// SPIFFE-I4
#[test]
fn refuses_user_port_and_brackets_in_the_trust_domain() {
    for domain in [
        "u@a.test",
        "u:p@a.test",
        "a.test:8",
        "a.test:",
        "[::1]",
        "::1",
    ] {
        refused(&[&format!("spiffe://{domain}/x")]);
        assert!(parse_trust_domain(domain).is_err(), "{domain}");
    }
}

/// SPIFFE-I5
#[test]
fn refuses_a_trust_domain_in_upper_case_and_so_never_makes_one() {
    refused(&["spiffe://A.test/x", "spiffe://a.TEST/x"]);
    assert!(parse_trust_domain("A.test").is_err());
    // taken by the library, in lower case: what is made of it is lower case
    if let Ok(domain) = TrustDomain::new("A.test") {
        let id = WorkloadId::new(&domain, "shop", "web").unwrap();
        assert_eq!(id.as_str(), "spiffe://a.test/ns/shop/sa/web");
    }
}

/// SPIFFE-I6
#[test]
fn refuses_percent_signs_and_every_character_that_is_not_listed() {
    refused(&[
        "spiffe://a%2etest/x",
        "spiffe://a.test/%41",
        "spiffe://a.test/%2e%2e/x",
        "spiffe://\u{e4}.test/x",
        "spiffe://a.test/\u{fc}",
        "spiffe://a.test/x\0",
        "spiffe://a.test/x\n",
        "spiffe://a.test/x ",
    ]);
    let listed = |c: char| c.is_ascii_alphanumeric() || "./-_".contains(c);
    for c in (0..=127_u8).map(char::from).filter(|c| !listed(*c)) {
        refused(&[
            &format!("spiffe://a.test/x{c}y"),
            &format!("spiffe://a{c}b.test/x"),
        ]);
    }
    for c in ('A'..='Z').chain(['%', 'ä']) {
        assert!(parse_trust_domain(&format!("a{c}")).is_err(), "{c}");
    }
}

/// SPIFFE-I7
#[test]
fn refuses_empty_segments_and_those_that_walk() {
    refused(&[
        "spiffe://a.test/",
        "spiffe://a.test//",
        "spiffe://a.test/x/",
        "spiffe://a.test/x//y",
        "spiffe://a.test//x",
        "spiffe://a.test/.",
        "spiffe://a.test/..",
        "spiffe://a.test/./x",
        "spiffe://a.test/x/.",
        "spiffe://a.test/x/../y",
    ]);
}

/// SPIFFE-I8
#[test]
fn refuses_query_and_fragment() {
    refused(&[
        "spiffe://a.test/x?q",
        "spiffe://a.test/x?",
        "spiffe://a.test/x#f",
        "spiffe://a.test/x#",
        "spiffe://a.test?q",
        "spiffe://a.test#f",
    ]);
}

/// SPIFFE-I9
#[test]
fn counts_the_length_of_the_whole_uri_in_bytes() {
    let longest = format!("spiffe://a.test/{}", "x".repeat(2048 - 16));
    assert_eq!(longest.len(), 2048);
    assert_eq!(longest.parse::<WorkloadId>().unwrap().as_str(), longest);
    assert_eq!(
        format!("{longest}x").parse::<WorkloadId>(),
        Err(InvalidWorkloadId::TooLong(2049))
    );
    let domain = TrustDomain::new("a.test").unwrap();
    let around = "spiffe://a.test/ns/shop/sa/".len();
    let account = "x".repeat(2048 - around);
    assert!(WorkloadId::new(&domain, "shop", &account).is_ok());
    let made = WorkloadId::new(&domain, "shop", &format!("{account}x"));
    assert_eq!(made, Err(InvalidWorkloadId::TooLong(2049)));
}

/// SPIFFE-I9
#[test]
fn a_trust_domain_has_at_most_255_bytes() {
    let longest = "a".repeat(255);
    assert!(parse_trust_domain(&longest).is_ok());
    assert!(
        format!("spiffe://{longest}/x")
            .parse::<WorkloadId>()
            .is_ok()
    );
    assert!(parse_trust_domain(&format!("{longest}a")).is_err());
    refused(&[&format!("spiffe://{longest}a/x")]);
}

/// SPIFFE-I10
#[test]
fn paths_that_differ_in_case_are_different_workloads() {
    let (upper, lower) = ["spiffe://a.test/Web", "spiffe://a.test/web"]
        .map(|text| text.parse::<WorkloadId>().unwrap())
        .into();
    assert_ne!(upper, lower);
    assert_ne!(upper.cmp(&lower), Ordering::Equal);
}

/// SPIFFE-I11
#[test]
fn a_trust_domain_alone_names_no_workload() {
    refused(&["spiffe://a.test"]);
    assert_eq!(
        "spiffe://a.test".parse::<WorkloadId>(),
        Err(InvalidWorkloadId::NoPath("spiffe://a.test".to_owned()))
    );
    assert_eq!(parse_trust_domain("a.test").unwrap().to_string(), "a.test");
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
