//! SPIFFE IDs, and the patterns that policies match them with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_lite_proto::{authorization::Pattern, identity::WorkloadId};
use spiffe::TrustDomain;

fuzz_target!(|text: &str| {
    if let Ok(id) = text.parse::<WorkloadId>() {
        workload_id(text, &id);
    }
    pattern::<WorkloadId>(text);
    pattern::<TrustDomain>(text);
    pattern::<Box<str>>(text);
});

fn workload_id(text: &str, id: &WorkloadId) {
    assert_eq!(id.as_str(), text, "an identity is the very text it was read from");
    assert_eq!(text, format!("spiffe://{}", id.principal()));
    assert!(text.is_ascii());
    assert_eq!(id.principal().split('/').next(), Some(id.trust_domain().as_str()));
    let path = &id.principal()[id.trust_domain().as_str().len()..];
    assert!(path.len() > 1 && !path.ends_with('/') && !path.contains("//"));
    assert!(!path.split('/').any(|segment| segment == "." || segment == ".."));
    assert_eq!(id.namespace().is_some(), id.service_account().is_some());
    if let (Some(namespace), Some(account)) = (id.namespace(), id.service_account()) {
        let again = WorkloadId::new(id.trust_domain(), namespace, account);
        assert_eq!(again.as_ref(), Ok(id));
    }
    // every identity can be named by a policy, with its scheme and without
    for principal in [text, id.principal()] {
        assert_eq!(principal.parse(), Ok(Pattern::Exact(id.clone())));
    }
}

fn pattern<T>(text: &str)
where
    Pattern<T>: std::str::FromStr<Err: std::fmt::Debug> + std::fmt::Display + PartialEq,
    T: std::fmt::Debug,
{
    if let Ok(pattern) = text.parse::<Pattern<T>>() {
        let written = pattern.to_string();
        let again: Pattern<T> = written.parse().expect("what was written can be read");
        assert!(again == pattern, "{text:?} became {written:?}");
    }
}
