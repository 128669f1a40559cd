//! Notices a new issuing CA or trust bundle in the data directory and publishes it.

use std::{sync::Arc, time::SystemTime};

use spiffe::TrustDomain;
use tokio::sync::watch;

use super::{
    key_store::{DataDirectory, KeyStoreError},
    rotation::{Found, Rotation, RotationError, Step, Trust},
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
    Ok(Found {
        bundle: data.read_trust_bundle(trust_domain)?,
        authority: data.read_issuing_authority(trust_domain)?,
    })
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
    let changes = DirectoryChanges::watch(&[data.path().to_owned(), data.issuing()]);
    let mut waiting_until = None;
    loop {
        let now = clock();
        match look(&data, &trust_domain, &mut rotation, now) {
            Ok(step) => {
                let warning = rotation.warning(now);
                conditions.set(Part::Authority, warning.into_iter().collect());
                report(&step, &mut waiting_until);
                if step != Step::Unchanged {
                    publish(&published, &rotation);
                }
            }
            Err(error) => {
                let text = format!("{error}. The issuing CA and trust bundle in use go on");
                conditions.set(Part::Authority, vec![text]);
            }
        }
        tokio::select! {
            () = changes.wait() => {}
            () = published.closed() => return,
        }
    }
}

fn publish(published: &watch::Sender<Arc<Trust>>, rotation: &Rotation) {
    published.send_if_modified(|current| {
        let next = rotation.trust();
        let changed = next.bundle != current.bundle
            || next.authority.certificate() != current.authority.certificate();
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
    now: SystemTime,
) -> Result<Step, LookError> {
    Ok(rotation.look(read(data, trust_domain)?, now)?)
}

fn report(step: &Step, waiting_until: &mut Option<SystemTime>) {
    match step {
        Step::Unchanged => {}
        Step::Announced => tracing::info!("trust bundle changed: sidecars are told"),
        Step::Activated { key_id } => {
            *waiting_until = None;
            tracing::info!(key_id, "issuing CA changed: sidecars are told to renew");
        }
        Step::Prepared { until } if *waiting_until == Some(*until) => {}
        Step::Prepared { until } => {
            *waiting_until = Some(*until);
            let until = readable(*until);
            tracing::info!(%until, "issuing CA prepared: it signs once its root is known everywhere");
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Files(#[from] KeyStoreError),
    #[error(transparent)]
    Rotation(#[from] RotationError),
}
