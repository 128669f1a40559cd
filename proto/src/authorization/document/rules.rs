//! The spec of an `AuthorizationPolicy`.

use std::str::FromStr;

use super::{
    super::{
        DefaultAction, FieldName, InvalidMatch, OperationMatch, PeerMatch, Policy, PolicyAction,
        Rule, ServiceAccountMatch, SourceRef, pattern::parse_ip_block,
    },
    AuthorizationPolicy, Selector,
};
use crate::document::{
    Node, Position, RefusalClass, Value,
    fields::{Fields, Path},
};

const SPEC: [&str; 6] = [
    "selector",
    "action",
    "dryRun",
    "defaultAction",
    "rules",
    "tests",
];

/// What the document says beside its spec.
pub(super) struct Header<'a> {
    pub(super) source: &'a SourceRef,
    pub(super) namespace: &'a str,
    /// Where an annotation says that it is a dry run.
    pub(super) dry_run: Option<Position>,
}

pub(super) fn read(
    spec: &Node,
    header: &Header<'_>,
    selector: Option<&Selector>,
    fields: &mut Fields<'_>,
) -> AuthorizationPolicy {
    let (path, source) = (Path::root("spec"), header.source);
    fields.map(spec, &path, &SPEC);
    let default_action = spec.entry("defaultAction").and_then(|entry| {
        let action = default_action(&entry.value, fields)?;
        Some((
            action,
            SourceRef {
                line: entry.at.line,
                ..source.clone()
            },
        ))
    });
    let action = match spec.entry("action") {
        Some(entry) => action(&entry.value, fields).unwrap_or(PolicyAction::Deny),
        None => PolicyAction::Allow,
    };
    let dry_run = dry_run(spec, header.dry_run, fields);
    let rules = match spec.entry("rules") {
        Some(entry) => rules(&entry.value, header.namespace, fields),
        None => Vec::new(),
    };
    // a document that states a default and nothing else must not be a policy without rules,
    // which allows nobody
    let only_default =
        default_action.is_some() && spec.entry("rules").is_none() && spec.entry("action").is_none();
    let policy = (!only_default).then(|| Policy {
        source: source.clone(),
        action,
        dry_run,
        rules,
    });
    AuthorizationPolicy {
        selector: selector.cloned().unwrap_or_default(),
        policy,
        default_action,
    }
}

/// `annotated`: where Istio's annotation says so, which is the same as `dryRun: true`.
fn dry_run(spec: &Node, annotated: Option<Position>, fields: &mut Fields<'_>) -> bool {
    let path = Path::root("spec.dryRun");
    let entry = spec.entry("dryRun");
    let stated = entry.and_then(|entry| fields.boolean(&entry.value, &path));
    if let (Some(_), Some(false), Some(entry)) = (annotated, stated, entry) {
        let problem = "spec.dryRun is false, and the annotation istio.io/dry-run says true";
        let remedy = "remove one of the two";
        fields.error(RefusalClass::Contradiction, entry.value.at, problem, remedy);
    }
    let dry_run = annotated.is_some() || stated == Some(true);
    if let (true, Some(default)) = (dry_run, spec.entry("defaultAction")) {
        let problem = "spec.defaultAction can't be tried by a dry run";
        let remedy = "put defaultAction into a document of its own";
        fields.error(RefusalClass::NoDryRun, default.at, problem, remedy);
    }
    dry_run
}

fn action(node: &Node, fields: &mut Fields<'_>) -> Option<PolicyAction> {
    if matches!(&node.value, Value::Text(text) if text == "CUSTOM") {
        let problem = "spec.action CUSTOM is of layer 7";
        let remedy = "use ALLOW, DENY or AUDIT; external authorizers judge requests";
        fields.error(RefusalClass::CustomAction, node.at, problem, remedy);
        return None;
    }
    let words = [
        ("ALLOW", PolicyAction::Allow),
        ("DENY", PolicyAction::Deny),
        ("AUDIT", PolicyAction::Audit),
    ];
    fields.one_of(node, &Path::root("spec.action"), &words)
}

fn default_action(node: &Node, fields: &mut Fields<'_>) -> Option<DefaultAction> {
    let words = [
        ("ALLOW", DefaultAction::Allow),
        ("DENY", DefaultAction::Deny),
    ];
    fields.one_of(node, &Path::root("spec.defaultAction"), &words)
}

/// Unlike the lists below it, `rules: []` says what it means: no rule, nothing matches.
fn rules(node: &Node, namespace: &str, fields: &mut Fields<'_>) -> Vec<Rule> {
    let path = Path::root("spec.rules");
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        return Vec::new();
    }
    let items = fields.list_of(node, &path, "{from: [...], to: [...]}");
    items
        .iter()
        .enumerate()
        .map(|(index, item)| rule(item, &path.index(index), namespace, fields))
        .collect()
}

fn rule(node: &Node, path: &Path<'_>, namespace: &str, fields: &mut Fields<'_>) -> Rule {
    fields.map(node, path, &["from", "to"]);
    let mut from = Vec::new();
    if let Some(entry) = node.entry("from") {
        let path = path.key("from");
        let items = fields.list_of(&entry.value, &path, "{source: {namespaces: [shop]}}");
        for (index, item) in items.iter().enumerate() {
            let path = path.index(index);
            if let Some(source) = only_entry(item, &path, "source", fields) {
                from.push(peer_match(
                    source,
                    item,
                    &path.key("source"),
                    namespace,
                    fields,
                ));
            }
        }
    }
    let mut to = Vec::new();
    if let Some(entry) = node.entry("to") {
        let path = path.key("to");
        let items = fields.list_of(&entry.value, &path, "{operation: {ports: [8080]}}");
        for (index, item) in items.iter().enumerate() {
            let path = path.index(index);
            if let Some(operation) = only_entry(item, &path, "operation", fields) {
                to.push(operation_match(
                    operation,
                    item,
                    &path.key("operation"),
                    fields,
                ));
            }
        }
    }
    Rule {
        line: node.at.line,
        from,
        to,
    }
}

/// The map under the one key that an item of `from` or `to` has. An item that states nothing
/// would match everything.
fn only_entry<'n>(
    item: &'n Node,
    path: &Path<'_>,
    key: &str,
    fields: &mut Fields<'_>,
) -> Option<&'n Node> {
    fields.map(item, path, &[key]);
    let Some(entry) = item.entry(key) else {
        // whatever else is in it was refused already
        if matches!(&item.value, Value::Map(others) if others.is_empty()) {
            let remedy = format!("state a {key} or remove the entry");
            let problem = format!("{path}.{key} is missing");
            fields.error(RefusalClass::MissingField, item.at, problem, remedy);
        }
        return None;
    };
    if matches!(&entry.value.value, Value::Map(entries) if entries.is_empty())
        || entry.value.value == Value::Null
    {
        let remedy = "state a field, or leave from or to out if it shall match everything";
        let problem = format!("{path}.{key} is empty");
        fields.error(RefusalClass::EmptyEntry, entry.value.at, problem, remedy);
        return None;
    }
    Some(&entry.value)
}

const SOURCE: [&str; 10] = [
    FieldName::Principals.as_str(),
    FieldName::NotPrincipals.as_str(),
    FieldName::ServiceAccounts.as_str(),
    FieldName::NotServiceAccounts.as_str(),
    FieldName::Namespaces.as_str(),
    FieldName::NotNamespaces.as_str(),
    FieldName::TrustDomains.as_str(),
    FieldName::NotTrustDomains.as_str(),
    FieldName::IpBlocks.as_str(),
    FieldName::NotIpBlocks.as_str(),
];

fn peer_match(
    source: &Node,
    item: &Node,
    path: &Path<'_>,
    namespace: &str,
    fields: &mut Fields<'_>,
) -> PeerMatch {
    use FieldName as F;
    fields.map(source, path, &SOURCE);
    let account = |text: &str| ServiceAccountMatch::parse(text, namespace);
    PeerMatch {
        line: item.at.line,
        principals: patterns(source, path, F::Principals, fields),
        not_principals: patterns(source, path, F::NotPrincipals, fields),
        service_accounts: values(source, path, F::ServiceAccounts, fields, account),
        not_service_accounts: values(source, path, F::NotServiceAccounts, fields, account),
        namespaces: patterns(source, path, F::Namespaces, fields),
        not_namespaces: patterns(source, path, F::NotNamespaces, fields),
        trust_domains: patterns(source, path, F::TrustDomains, fields),
        not_trust_domains: patterns(source, path, F::NotTrustDomains, fields),
        ip_blocks: values(source, path, F::IpBlocks, fields, parse_ip_block),
        not_ip_blocks: values(source, path, F::NotIpBlocks, fields, parse_ip_block),
    }
}

fn operation_match(
    operation: &Node,
    item: &Node,
    path: &Path<'_>,
    fields: &mut Fields<'_>,
) -> OperationMatch {
    fields.map(
        operation,
        path,
        &[FieldName::Ports.as_str(), FieldName::NotPorts.as_str()],
    );
    let mut ports = |field: FieldName| -> Vec<u16> {
        let Some(entry) = operation.entry(field.as_str()) else {
            return Vec::new();
        };
        let path = path.key(field.as_str());
        let items = fields.list(&entry.value, &path).iter().enumerate();
        items
            .filter_map(|(index, item)| fields.port(item, &path.index(index)))
            .collect()
    };
    OperationMatch {
        line: item.at.line,
        ports: ports(FieldName::Ports),
        not_ports: ports(FieldName::NotPorts),
    }
}

fn patterns<T: FromStr<Err = InvalidMatch>>(
    source: &Node,
    path: &Path<'_>,
    field: FieldName,
    fields: &mut Fields<'_>,
) -> Vec<T> {
    values(source, path, field, fields, str::parse)
}

fn values<T>(
    source: &Node,
    path: &Path<'_>,
    field: FieldName,
    fields: &mut Fields<'_>,
    parse: impl Fn(&str) -> Result<T, InvalidMatch>,
) -> Vec<T> {
    let Some(entry) = source.entry(field.as_str()) else {
        return Vec::new();
    };
    let path = path.key(field.as_str());
    let mut values = Vec::new();
    for (index, item) in fields.list(&entry.value, &path).iter().enumerate() {
        let path = path.index(index);
        let Some(text) = fields.text(item, &path) else {
            continue;
        };
        match parse(text) {
            Ok(value) => values.push(value),
            Err(error) => {
                let (class, remedy) = refusal(&error, field);
                fields.error(class, item.at, format!("{path}: {error}"), remedy);
            }
        }
    }
    values
}

/// What kind of mistake a value is, and what to do.
const fn refusal(error: &InvalidMatch, field: FieldName) -> (RefusalClass, &'static str) {
    use FieldName as F;
    match error {
        InvalidMatch::Star(_) => (
            RefusalClass::StarInTheMiddle,
            "leave one star at one end, or list the values",
        ),
        InvalidMatch::Empty => (
            RefusalClass::EmptyValue,
            "remove the entry, or write what it shall match",
        ),
        InvalidMatch::IpBlock(_) => (
            RefusalClass::BadIpBlock,
            "write a network with its length, or one address",
        ),
        InvalidMatch::Port(_) => (RefusalClass::BadPort, "write a number from 1 to 65535"),
        InvalidMatch::TrustDomain { .. } => (RefusalClass::BadTrustDomain, TRUST_DOMAIN),
        InvalidMatch::ServiceAccountPattern(_) => (RefusalClass::BadServiceAccount, ACCOUNT),
        InvalidMatch::Scheme(_) | InvalidMatch::Principal(_) => {
            (RefusalClass::BadPrincipal, PRINCIPAL)
        }
        InvalidMatch::Character { .. } => match field {
            F::Namespaces | F::NotNamespaces => (
                RefusalClass::BadNamespace,
                "write the name of a namespace; a whole identity goes into principals",
            ),
            F::ServiceAccounts | F::NotServiceAccounts => {
                (RefusalClass::BadServiceAccount, ACCOUNT)
            }
            F::TrustDomains | F::NotTrustDomains => (RefusalClass::BadTrustDomain, TRUST_DOMAIN),
            _ => (RefusalClass::BadPrincipal, PRINCIPAL),
        },
    }
}

const PRINCIPAL: &str = "write it as cluster.local/ns/<namespace>/sa/<service account>";
const ACCOUNT: &str = "write <service account> or <namespace>/<service account>";
const TRUST_DOMAIN: &str = "write its name in lower-case letters, as cluster.local";
