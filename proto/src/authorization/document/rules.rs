//! The spec of an `AuthorizationPolicy`.

use std::str::FromStr;

use super::{
    super::{
        DefaultAction, FieldName, InvalidMatch, OperationMatch, PeerMatch, Policy, PolicyAction,
        Rule, ServiceAccountMatch, SourceRef, pattern::parse_ip_block,
    },
    AuthorizationPolicy,
    fields::{Fields, Path},
};
use crate::document::{Node, Value};

const SPEC: [&str; 6] = [
    "selector",
    "action",
    "dryRun",
    "defaultAction",
    "rules",
    "tests",
];

pub(super) fn read(
    spec: &Node,
    source: &SourceRef,
    namespace: &str,
    fields: &mut Fields<'_>,
) -> AuthorizationPolicy {
    let path = Path::root("spec");
    fields.map(spec, &path, &SPEC);
    let selector = fields.read_selector(spec);
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
    let dry_run = match spec.entry("dryRun") {
        Some(entry) => fields
            .boolean(&entry.value, &path.key("dryRun"))
            .unwrap_or_default(),
        None => false,
    };
    if let (true, Some(default)) = (dry_run, spec.entry("defaultAction")) {
        let remedy = "put defaultAction into a document of its own";
        fields.error(
            default.at,
            "spec.defaultAction can't be tried by dryRun",
            remedy,
        );
    }
    let rules = match spec.entry("rules") {
        Some(entry) => rules(&entry.value, namespace, fields),
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
        selector,
        policy,
        default_action,
    }
}

fn action(node: &Node, fields: &mut Fields<'_>) -> Option<PolicyAction> {
    let path = Path::root("spec.action");
    match fields.text(node, &path)? {
        "ALLOW" => Some(PolicyAction::Allow),
        "DENY" => Some(PolicyAction::Deny),
        "AUDIT" => Some(PolicyAction::Audit),
        "CUSTOM" => {
            let remedy = "use ALLOW, DENY or AUDIT; external authorizers judge requests";
            fields.error(node.at, "spec.action CUSTOM is of layer 7", remedy);
            None
        }
        other => {
            let problem = format!("unknown spec.action {other:?}");
            fields.error(node.at, problem, "use ALLOW, DENY or AUDIT");
            None
        }
    }
}

fn default_action(node: &Node, fields: &mut Fields<'_>) -> Option<DefaultAction> {
    match fields.text(node, &Path::root("spec.defaultAction"))? {
        "ALLOW" => Some(DefaultAction::Allow),
        "DENY" => Some(DefaultAction::Deny),
        other => {
            let problem = format!("unknown spec.defaultAction {other:?}");
            fields.error(node.at, problem, "use ALLOW or DENY");
            None
        }
    }
}

/// Unlike the lists below it, `rules: []` says what it means: no rule, nothing matches.
fn rules(node: &Node, namespace: &str, fields: &mut Fields<'_>) -> Vec<Rule> {
    let path = Path::root("spec.rules");
    if matches!(&node.value, Value::List(items) if items.is_empty()) {
        return Vec::new();
    }
    let items = fields.list(node, &path);
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
        for (index, item) in fields.list(&entry.value, &path).iter().enumerate() {
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
        for (index, item) in fields.list(&entry.value, &path).iter().enumerate() {
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
        let remedy = format!("state a {key} or remove the entry");
        fields.error(item.at, format!("{path}.{key} is missing"), remedy);
        return None;
    };
    if matches!(&entry.value.value, Value::Map(entries) if entries.is_empty())
        || entry.value.value == Value::Null
    {
        let remedy = "state a field, or leave from or to out if it shall match everything";
        fields.error(entry.value.at, format!("{path}.{key} is empty"), remedy);
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
            Err(error) => fields.error(item.at, format!("{path}: {error}"), "correct the value"),
        }
    }
    values
}
