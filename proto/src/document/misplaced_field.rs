//! A field that exists, written where it does not.

/// Where the field belongs, in words.
pub(super) fn belongs(field: &str) -> Option<&'static str> {
    Some(match field {
        "principals" | "notPrincipals" | "serviceAccounts" | "notServiceAccounts"
        | "namespaces" | "notNamespaces" | "trustDomains" | "notTrustDomains" | "ipBlocks"
        | "notIpBlocks" => "it belongs in spec.rules[].from[].source",
        "notPorts" => "it belongs in spec.rules[].to[].operation",
        "matchLabels" => "it belongs in spec.selector",
        _ => return None,
    })
}
