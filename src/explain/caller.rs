//! Who calls, as a person names it.

use std::str::FromStr;

use mesh_lite_control_plane::WorkloadName;
use mesh_lite_proto::identity::WorkloadId;

const SCHEME: &str = "spiffe://";
const PLAINTEXT: &str = "plaintext";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CallerName {
    Plaintext,
    Identity(WorkloadId),
    /// Of a Workload document.
    Workload(WorkloadName),
}

impl FromStr for CallerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == PLAINTEXT {
            return Ok(Self::Plaintext);
        }
        let principal = text.strip_prefix(SCHEME);
        // no principal that mesh-lite issues has two parts only
        if principal.is_none() && text.matches('/').count() == 1 {
            return text
                .parse()
                .map(Self::Workload)
                .map_err(|error| format!("{error}; or a principal, or {PLAINTEXT}"));
        }
        let id = format!("{SCHEME}{}", principal.unwrap_or(text));
        id.parse().map(Self::Identity).map_err(|error| {
            format!(
                "{error}; write NAMESPACE/NAME of a workload, a principal such as \
                 cluster.local/ns/shop/sa/web, or {PLAINTEXT}"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> Result<CallerName, String> {
        text.parse()
    }

    #[test]
    fn a_caller_is_a_workload_a_principal_or_plaintext() {
        let web: WorkloadId = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        assert_eq!(named("plaintext"), Ok(CallerName::Plaintext));
        assert!(matches!(named("shop/web"), Ok(CallerName::Workload(_))));
        for text in [
            "cluster.local/ns/shop/sa/web",
            "spiffe://cluster.local/ns/shop/sa/web",
        ] {
            assert_eq!(named(text), Ok(CallerName::Identity(web.clone())));
        }
        assert!(matches!(
            named("spiffe://cluster.local/gateway"),
            Ok(CallerName::Identity(_))
        ));
    }

    #[test]
    fn what_names_nobody_is_refused() {
        for text in [
            "",
            "web",
            "shop/",
            "/web",
            "Shop/web",
            "cluster.local/ns/*",
            "spiffe://",
            "a b/ns/x/sa/y",
        ] {
            assert!(named(text).is_err(), "{text:?}");
        }
    }
}
