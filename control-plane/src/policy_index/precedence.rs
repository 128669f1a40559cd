//! Which of several documents counts where only one can.

use std::collections::BTreeMap;

use mesh_lite_proto::authorization::{
    DefaultAction, MutualTls, MutualTlsMode, PeerAuthentication, SourceRef,
};

use super::{held::Held, in_force::InForce, scope::Level};

/// Of the documents that cover a workload: its ports, the workload, its namespace, the mesh; of
/// two at one level the stricter.
pub(super) fn mutual_tls<'a>(
    covering: impl Iterator<Item = &'a Held>,
    shipped: MutualTlsMode,
) -> MutualTls {
    let mut modes: BTreeMap<Level, MutualTlsMode> = BTreeMap::new();
    let mut ports: BTreeMap<u16, MutualTlsMode> = BTreeMap::new();
    for (level, document) in covering.filter_map(peer_authentication) {
        if let Some(mode) = document.mode {
            stricter(&mut modes, level, mode);
        }
        for (port, mode) in &document.ports {
            stricter(&mut ports, *port, *mode);
        }
    }
    let narrowest = modes.into_values().next();
    MutualTls {
        mode: narrowest.unwrap_or(shipped),
        ports,
    }
}

fn peer_authentication(held: &Held) -> Option<(Level, &PeerAuthentication)> {
    match held.state.in_force()? {
        InForce::PeerAuthentication(document) => Some((held.scope.level(), document)),
        InForce::AuthorizationPolicy { .. } | InForce::Eviction(_) => None,
    }
}

fn stricter<K: Ord>(modes: &mut BTreeMap<K, MutualTlsMode>, key: K, mode: MutualTlsMode) {
    let strictest = modes.entry(key).or_insert(mode);
    *strictest = mode.max(*strictest);
}

/// The default action of the narrowest scope that states one. Two of them contradict each other,
/// now or after the next edit: DENY.
pub(super) fn default_action<'a>(
    covering: impl Iterator<Item = &'a Held>,
) -> Option<(DefaultAction, SourceRef)> {
    let mut by_level: BTreeMap<Level, Vec<&(DefaultAction, SourceRef)>> = BTreeMap::new();
    for held in covering {
        if let Some(InForce::AuthorizationPolicy {
            default_action: Some(default),
            ..
        }) = held.state.in_force()
        {
            by_level
                .entry(held.scope.level())
                .or_default()
                .push(default);
        }
    }
    match by_level.into_values().next()?.as_slice() {
        [] => None,
        [only] => Some((*only).clone()),
        [(_, first), (_, second), more @ ..] => {
            let (one, two) = (&first.document, &second.document);
            // it goes into every decision, however many there are
            let all = match more.len() {
                0 => format!("{one} and {two}"),
                more => format!("{one}, {two} and {more} more"),
            };
            let document = format!("{all}, which contradict each other").into();
            Some((
                DefaultAction::Deny,
                SourceRef {
                    document,
                    ..first.clone()
                },
            ))
        }
    }
}
