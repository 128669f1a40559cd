//! A snapshot, read from its wire form. What can't be read refuses the whole snapshot: a rule
//! without one of its fields is a wider rule, a missing DENY policy is an open door.

use std::{
    collections::BTreeMap,
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use spiffe::TrustDomain;

use super::{
    BrokenDocument, DefaultAction, Eviction, EvictionSubject, InvalidMatch, MutualTls,
    MutualTlsMode, OperationMatch, PeerMatch, Policy, PolicyAction, PolicySnapshot, Rule,
    ServiceAccountMatch, SourceRef,
    pattern::{parse_ip_block, parse_port},
};
use crate::{
    identity::InvalidWorkloadId, sidecar::SCHEMA, svid::InvalidSerial, wire::mesh_lite::v1 as wire,
};

/// Why a snapshot was refused: the text of a NACK.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSnapshot {
    #[error("{place} needs schema {needed}, this build knows {SCHEMA}: upgrade the sidecar")]
    Schema { place: String, needed: u32 },
    #[error("{place} lacks {field}")]
    Missing { place: String, field: &'static str },
    #[error("{place} has the unknown {field} {value}")]
    UnknownValue {
        place: String,
        field: &'static str,
        value: i32,
    },
    #[error("{place} has a {list} entry that states nothing this build knows")]
    EmptyEntry { place: String, list: &'static str },
    #[error("{place}: {reason}")]
    Match { place: String, reason: InvalidMatch },
    #[error("the mutual TLS mode of port {0}: there is no such port")]
    Port(u32),
    #[error("the trust domain {text:?} is invalid: {reason}")]
    TrustDomain { text: String, reason: String },
    #[error("{place}: {reason}")]
    EvictedId {
        place: String,
        reason: InvalidWorkloadId,
    },
    #[error("{place}: {reason}")]
    EvictedSerial {
        place: String,
        reason: InvalidSerial,
    },
    #[error("{place} ends at {until}, which is no time")]
    Until { place: String, until: i64 },
}

impl TryFrom<wire::PolicySnapshot> for PolicySnapshot {
    type Error = InvalidSnapshot;

    fn try_from(snapshot: wire::PolicySnapshot) -> Result<Self, Self::Error> {
        known_schema(snapshot.min_schema, || "the snapshot".to_owned())?;
        let trust_domain = trust_domain(&snapshot.trust_domain)?;
        let default_action = default_action(snapshot.default_action)?
            .map(|action| {
                source_ref(snapshot.default_action_source, "the default action")
                    .map(|source| (action, source))
            })
            .transpose()?;
        Ok(Self {
            revision: snapshot.revision,
            trust_domain,
            mutual_tls: mutual_tls(snapshot.mutual_tls.unwrap_or_default())?,
            default_action,
            policies: each(snapshot.policies, policy)?.into(),
            evictions: each(snapshot.evictions, eviction)?,
            broken: each(snapshot.broken, |broken| {
                Ok(BrokenDocument {
                    source: source_ref(broken.source, "a broken document")?,
                    reason: broken.reason.into(),
                })
            })?,
        })
    }
}

fn each<W, T>(
    wire: Vec<W>,
    read: impl FnMut(W) -> Result<T, InvalidSnapshot>,
) -> Result<Vec<T>, InvalidSnapshot> {
    wire.into_iter().map(read).collect()
}

fn known_schema(needed: u32, place: impl FnOnce() -> String) -> Result<(), InvalidSnapshot> {
    if needed > SCHEMA {
        return Err(InvalidSnapshot::Schema {
            place: place(),
            needed,
        });
    }
    Ok(())
}

fn source_ref(source: Option<wire::SourceRef>, place: &str) -> Result<SourceRef, InvalidSnapshot> {
    let source = source.ok_or_else(|| InvalidSnapshot::Missing {
        place: place.to_owned(),
        field: "source",
    })?;
    Ok(SourceRef {
        document: source.document.into(),
        file: source.file.into(),
        line: source.line,
    })
}

/// Only in canonical form: the parser would also take `CLUSTER.local` and `spiffe://a/b`.
fn trust_domain(text: &str) -> Result<TrustDomain, InvalidSnapshot> {
    let refused = |reason: String| InvalidSnapshot::TrustDomain {
        text: text.to_owned(),
        reason,
    };
    let domain = TrustDomain::new(text).map_err(|error| refused(error.to_string()))?;
    if domain.as_str() != text {
        return Err(refused("it is not in canonical form".to_owned()));
    }
    Ok(domain)
}

fn default_action(value: i32) -> Result<Option<DefaultAction>, InvalidSnapshot> {
    match wire::DefaultAction::try_from(value) {
        Ok(wire::DefaultAction::Unspecified) => Ok(None),
        Ok(wire::DefaultAction::Allow) => Ok(Some(DefaultAction::Allow)),
        Ok(wire::DefaultAction::Deny) => Ok(Some(DefaultAction::Deny)),
        Err(_) => Err(InvalidSnapshot::UnknownValue {
            place: "the snapshot".to_owned(),
            field: "default action",
            value,
        }),
    }
}

fn mutual_tls(mutual_tls: wire::MutualTls) -> Result<MutualTls, InvalidSnapshot> {
    let mut ports = BTreeMap::new();
    for (port, mode) in mutual_tls.ports {
        let number = u16::try_from(port)
            .ok()
            .filter(|number| *number != 0)
            .ok_or(InvalidSnapshot::Port(port))?;
        ports.insert(number, mutual_tls_mode(mode)?);
    }
    Ok(MutualTls {
        mode: mutual_tls_mode(mutual_tls.mode)?,
        ports,
    })
}

fn mutual_tls_mode(value: i32) -> Result<MutualTlsMode, InvalidSnapshot> {
    match wire::MutualTlsMode::try_from(value) {
        Ok(wire::MutualTlsMode::Unspecified | wire::MutualTlsMode::Strict) => {
            Ok(MutualTlsMode::Strict)
        }
        Ok(wire::MutualTlsMode::Permissive) => Ok(MutualTlsMode::Permissive),
        Err(_) => Err(InvalidSnapshot::UnknownValue {
            place: "the snapshot".to_owned(),
            field: "mutual TLS mode",
            value,
        }),
    }
}

fn policy(policy: wire::AuthorizationPolicy) -> Result<Policy, InvalidSnapshot> {
    let source = source_ref(policy.source, "a policy")?;
    known_schema(policy.min_schema, || source.to_string())?;
    let action = match wire::PolicyAction::try_from(policy.action) {
        Ok(wire::PolicyAction::Allow) => PolicyAction::Allow,
        Ok(wire::PolicyAction::Deny) => PolicyAction::Deny,
        Ok(wire::PolicyAction::Audit) => PolicyAction::Audit,
        Ok(wire::PolicyAction::Unspecified) | Err(_) => {
            return Err(InvalidSnapshot::UnknownValue {
                place: source.to_string(),
                field: "action",
                value: policy.action,
            });
        }
    };
    let rules = policy
        .rules
        .into_iter()
        .enumerate()
        .map(|(index, wire)| rule(wire, &format_args!("{source}: rules[{index}]")))
        .collect::<Result<_, _>>()?;
    Ok(Policy {
        source,
        action,
        dry_run: policy.dry_run,
        rules,
    })
}

fn rule(rule: wire::Rule, place: &dyn fmt::Display) -> Result<Rule, InvalidSnapshot> {
    known_schema(rule.min_schema, || place.to_string())?;
    Ok(Rule {
        line: rule.line,
        from: each(rule.from, |peer| peer_match(&peer, place))?,
        to: each(rule.to, |operation| operation_match(&operation, place))?,
    })
}

fn peer_match(
    peer: &wire::PeerMatch,
    place: &dyn fmt::Display,
) -> Result<PeerMatch, InvalidSnapshot> {
    let peer = PeerMatch {
        line: peer.line,
        principals: values(&peer.principals, place)?,
        not_principals: values(&peer.not_principals, place)?,
        service_accounts: parsed(&peer.service_accounts, place, service_account)?,
        not_service_accounts: parsed(&peer.not_service_accounts, place, service_account)?,
        namespaces: values(&peer.namespaces, place)?,
        not_namespaces: values(&peer.not_namespaces, place)?,
        trust_domains: values(&peer.trust_domains, place)?,
        not_trust_domains: values(&peer.not_trust_domains, place)?,
        ip_blocks: parsed(&peer.ip_blocks, place, parse_ip_block)?,
        not_ip_blocks: parsed(&peer.not_ip_blocks, place, parse_ip_block)?,
    };
    // an entry whose only field is newer than this build arrives empty, and would match everybody
    if peer.is_empty() {
        return Err(InvalidSnapshot::EmptyEntry {
            place: place.to_string(),
            list: "from",
        });
    }
    Ok(peer)
}

fn operation_match(
    operation: &wire::OperationMatch,
    place: &dyn fmt::Display,
) -> Result<OperationMatch, InvalidSnapshot> {
    let port = |port: &u32| {
        parse_port(&port.to_string()).map_err(|reason| InvalidSnapshot::Match {
            place: place.to_string(),
            reason,
        })
    };
    let operation = OperationMatch {
        line: operation.line,
        ports: operation.ports.iter().map(port).collect::<Result<_, _>>()?,
        not_ports: operation
            .not_ports
            .iter()
            .map(port)
            .collect::<Result<_, _>>()?,
    };
    if operation.is_empty() {
        return Err(InvalidSnapshot::EmptyEntry {
            place: place.to_string(),
            list: "to",
        });
    }
    Ok(operation)
}

fn values<T: FromStr<Err = InvalidMatch>>(
    texts: &[String],
    place: &dyn fmt::Display,
) -> Result<Vec<T>, InvalidSnapshot> {
    parsed(texts, place, str::parse)
}

fn parsed<T>(
    texts: &[String],
    place: &dyn fmt::Display,
    parse: impl Fn(&str) -> Result<T, InvalidMatch>,
) -> Result<Vec<T>, InvalidSnapshot> {
    texts
        .iter()
        .map(|text| {
            parse(text).map_err(|reason| InvalidSnapshot::Match {
                place: place.to_string(),
                reason,
            })
        })
        .collect()
}

/// On the wire a service account always has its namespace: an empty one is refused.
fn service_account(text: &str) -> Result<ServiceAccountMatch, InvalidMatch> {
    ServiceAccountMatch::parse(text, "")
}

fn eviction(eviction: wire::Eviction) -> Result<Eviction, InvalidSnapshot> {
    use wire::eviction::Subject;
    let source = source_ref(eviction.source, "an eviction")?;
    let place = || source.to_string();
    let subject = match eviction.subject {
        Some(Subject::SpiffeId(id)) => {
            EvictionSubject::Id(id.parse().map_err(|reason| InvalidSnapshot::EvictedId {
                place: place(),
                reason,
            })?)
        }
        Some(Subject::Serial(serial)) => {
            EvictionSubject::Serial(serial.parse().map_err(|reason| {
                InvalidSnapshot::EvictedSerial {
                    place: place(),
                    reason,
                }
            })?)
        }
        None => {
            return Err(InvalidSnapshot::Missing {
                place: place(),
                field: "subject",
            });
        }
    };
    let until = match eviction.until_unix {
        0 => None,
        seconds => Some(
            u64::try_from(seconds)
                .ok()
                .and_then(|seconds| {
                    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
                })
                .ok_or_else(|| InvalidSnapshot::Until {
                    place: place(),
                    until: seconds,
                })?,
        ),
    };
    Ok(Eviction {
        source,
        subject,
        until,
    })
}

#[cfg(test)]
mod tests;
