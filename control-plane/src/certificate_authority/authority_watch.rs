//! Notices a new issuing CA or trust bundle in the data directory and publishes it.

use std::{sync::Arc, time::SystemTime};

use spiffe::TrustDomain;
use tokio::sync::watch;

use super::{
    expiry_warnings::expiry_warnings,
    key_store::{DataDirectory, KeyStoreError},
    plugged_in::DepartingRoots,
    root_mode::RootMode,
    rotation::{Found, Rotation, RotationError, SETTLE_IN_CLUSTER, Step, Trust},
};
use crate::{
    clock::{Clock, readable},
    condition::{Conditions, Part},
    directory_changes::DirectoryChanges,
};

pub(crate) fn read(
    data: &DataDirectory,
    trust_domain: &TrustDomain,
) -> Result<Found, KeyStoreError> {
    data.read_found(trust_domain).map(|(found, _)| found)
}

/// Runs until nobody listens any more.
pub(crate) async fn run(
    data: DataDirectory,
    trust_domain: TrustDomain,
    mut rotation: Rotation,
    published: watch::Sender<Arc<Trust>>,
    conditions: Conditions,
    clock: Clock,
) {
    let mut watched = vec![data.path().to_owned()];
    if data.is_mounted_volume() {
        rotation.settle_for(SETTLE_IN_CLUSTER);
    } else {
        watched.push(data.issuing());
    }
    let changes = DirectoryChanges::watch(&watched);
    let mut departing = DepartingRoots::default();
    let mut waiting_until = None;
    loop {
        let now = clock();
        let mut problems = Vec::new();
        match look(&data, &trust_domain, &mut rotation, &mut departing, now) {
            Ok(step) => {
                report(&step, &rotation, &mut waiting_until);
                if step != Step::Unchanged {
                    publish(&published, &rotation);
                }
            }
            Err(error) => {
                let in_use = rotation.trust().authority.check_time(now);
                let goes_on =
                    in_use.map_or("", |()| ". The issuing CA and trust bundle in use go on");
                problems.push(format!("{error}{goes_on}"));
            }
        }
        let mode = data.read_root_mode().unwrap_or_else(|error| {
            problems.push(error.to_string());
            RootMode::default()
        });
        problems.extend(expiry_warnings(&rotation.trust(), mode, now));
        conditions.set(Part::Authority, problems);
        tokio::select! {
            () = changes.wait() => {}
            () = published.closed() => return,
        }
    }
}

fn publish(published: &watch::Sender<Arc<Trust>>, rotation: &Rotation) {
    published.send_if_modified(|current| {
        let next = rotation.trust();
        let changed =
            next.bundle != current.bundle || !next.authority.chain().eq(current.authority.chain());
        if changed {
            *current = next;
        }
        changed
    });
}

fn look(
    data: &DataDirectory,
    trust_domain: &TrustDomain,
    rotation: &mut Rotation,
    departing: &mut DepartingRoots,
    now: SystemTime,
) -> Result<Step, LookError> {
    let (mut found, plugged_in) = data.read_found(trust_domain)?;
    let trust = rotation.trust();
    let active = trust.authority.root_in(&trust.bundle).ok();
    let lifetime = rotation.leaf_lifetime();
    found.bundle = departing.complete(found.bundle, plugged_in, active, lifetime, now);
    Ok(rotation.look(found, now)?)
}

fn report(step: &Step, rotation: &Rotation, waiting_until: &mut Option<SystemTime>) {
    match step {
        Step::Unchanged => {}
        Step::Announced => tracing::info!("trust bundle changed: sidecars are told"),
        Step::Activated { key_id } => {
            *waiting_until = None;
            tracing::info!(key_id, "issuing CA changed: sidecars are told to renew");
            warn_of_unusual(&rotation.trust());
        }
        Step::Prepared { until } if *waiting_until == Some(*until) => {}
        Step::Prepared { until } => {
            *waiting_until = Some(*until);
            let until = readable(*until);
            tracing::info!(%until, "issuing CA prepared: it signs once its root is known everywhere");
        }
    }
}

/// An imported CA may trouble a peer that ours is not: said when it begins to sign.
pub(crate) fn warn_of_unusual(trust: &Trust) {
    for warning in trust.authority.warnings() {
        tracing::warn!(key_id = trust.authority.facts().key_id, "{warning}");
    }
}

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Files(#[from] KeyStoreError),
    #[error(transparent)]
    Rotation(#[from] RotationError),
}
