//! A snapshot in its wire form.

use std::{fmt, time::SystemTime};

use prost::{Message, length_delimiter_len};

use super::{
    BrokenDocument, DefaultAction, Eviction, EvictionSubject, MutualTls, MutualTlsMode,
    OperationMatch, PeerMatch, Policy, PolicyAction, PolicySnapshot, Rule, SourceRef,
};
use crate::wire::mesh_lite::v1 as wire;

/// The schema that brought the fields written here. A field that comes later raises it for the
/// policies and rules that state that field. A sidecar of before refuses the whole snapshot that
/// holds one of them, and keeps to the one it has: before the first such field comes, whoever
/// sends must leave out such policies for it, and name each as a broken document, which denies.
const FIELDS_SCHEMA: u32 = 1;
/// Bytes of the tag of a field with a number below 16, as `policies` has.
const POLICIES_TAG: usize = 1;

impl PolicySnapshot {
    /// Bytes of its wire form.
    #[must_use]
    pub fn wire_size(&self) -> usize {
        wire::PolicySnapshot::from(self).encoded_len()
    }
}

impl Policy {
    /// Bytes it adds to a snapshot's wire form.
    #[must_use]
    pub fn wire_size(&self) -> usize {
        let message = wire::AuthorizationPolicy::from(self).encoded_len();
        POLICIES_TAG
            .saturating_add(length_delimiter_len(message))
            .saturating_add(message)
    }
}

impl From<&PolicySnapshot> for wire::PolicySnapshot {
    fn from(snapshot: &PolicySnapshot) -> Self {
        let (action, source) = match &snapshot.default_action {
            None => (wire::DefaultAction::Unspecified, None),
            Some((DefaultAction::Allow, source)) => (wire::DefaultAction::Allow, Some(source)),
            Some((DefaultAction::Deny, source)) => (wire::DefaultAction::Deny, Some(source)),
        };
        Self {
            revision: snapshot.revision,
            min_schema: FIELDS_SCHEMA,
            trust_domain: snapshot.trust_domain.to_string(),
            mutual_tls: Some((&snapshot.mutual_tls).into()),
            default_action: action.into(),
            default_action_source: source.map(Into::into),
            policies: snapshot
                .policies
                .iter()
                .map(|policy| (&**policy).into())
                .collect(),
            evictions: snapshot.evictions.iter().map(Into::into).collect(),
            broken: snapshot.broken.iter().map(Into::into).collect(),
        }
    }
}

impl From<&SourceRef> for wire::SourceRef {
    fn from(source: &SourceRef) -> Self {
        Self {
            document: source.document.to_string(),
            file: source.file.to_string(),
            line: source.line,
        }
    }
}

impl From<&MutualTls> for wire::MutualTls {
    fn from(mutual_tls: &MutualTls) -> Self {
        Self {
            mode: mode_to_wire(mutual_tls.mode),
            ports: mutual_tls
                .ports
                .iter()
                .map(|(port, mode)| (u32::from(*port), mode_to_wire(*mode)))
                .collect(),
        }
    }
}

fn mode_to_wire(mode: MutualTlsMode) -> i32 {
    match mode {
        MutualTlsMode::Strict => wire::MutualTlsMode::Strict,
        MutualTlsMode::Permissive => wire::MutualTlsMode::Permissive,
    }
    .into()
}

impl From<&Policy> for wire::AuthorizationPolicy {
    fn from(policy: &Policy) -> Self {
        let action = match policy.action {
            PolicyAction::Allow => wire::PolicyAction::Allow,
            PolicyAction::Deny => wire::PolicyAction::Deny,
            PolicyAction::Audit => wire::PolicyAction::Audit,
        };
        Self {
            min_schema: FIELDS_SCHEMA,
            source: Some((&policy.source).into()),
            action: action.into(),
            dry_run: policy.dry_run,
            rules: policy.rules.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Rule> for wire::Rule {
    fn from(rule: &Rule) -> Self {
        Self {
            min_schema: FIELDS_SCHEMA,
            line: rule.line,
            from: rule.from.iter().map(Into::into).collect(),
            to: rule.to.iter().map(Into::into).collect(),
        }
    }
}

fn texts<T: fmt::Display>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

impl From<&PeerMatch> for wire::PeerMatch {
    fn from(peer: &PeerMatch) -> Self {
        Self {
            line: peer.line,
            principals: texts(&peer.principals),
            not_principals: texts(&peer.not_principals),
            service_accounts: texts(&peer.service_accounts),
            not_service_accounts: texts(&peer.not_service_accounts),
            namespaces: texts(&peer.namespaces),
            not_namespaces: texts(&peer.not_namespaces),
            trust_domains: texts(&peer.trust_domains),
            not_trust_domains: texts(&peer.not_trust_domains),
            ip_blocks: texts(&peer.ip_blocks),
            not_ip_blocks: texts(&peer.not_ip_blocks),
        }
    }
}

impl From<&OperationMatch> for wire::OperationMatch {
    fn from(operation: &OperationMatch) -> Self {
        Self {
            line: operation.line,
            ports: operation.ports.iter().copied().map(Into::into).collect(),
            not_ports: operation
                .not_ports
                .iter()
                .copied()
                .map(Into::into)
                .collect(),
        }
    }
}

impl From<&Eviction> for wire::Eviction {
    fn from(eviction: &Eviction) -> Self {
        use wire::eviction::Subject;
        let until = eviction.until.map_or(0, |until| {
            let since = until
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            // 0 on the wire is "for good": a time before 1970 is long over
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX).max(1)
        });
        Self {
            source: Some((&eviction.source).into()),
            subject: Some(match &eviction.subject {
                EvictionSubject::Id(id) => Subject::SpiffeId(id.to_string()),
                EvictionSubject::Serial(serial) => Subject::Serial(serial.to_string()),
            }),
            until_unix: until,
        }
    }
}

impl From<&BrokenDocument> for wire::BrokenDocument {
    fn from(broken: &BrokenDocument) -> Self {
        Self {
            source: Some((&broken.source).into()),
            reason: broken.reason.to_string(),
        }
    }
}
