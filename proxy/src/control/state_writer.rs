//! The one writer of the state file.

use std::{sync::Arc, time::Duration};

use mesh_lite_proto::authorization::PolicySnapshot;
use tokio::{sync::watch, time::Instant};

use crate::{
    directory::DirectoryChanges,
    identity::{
        Identity,
        state_file::{SavedFacts, SavedState, StateFile},
    },
};

/// A certificate may have cost the only join token: it is on disk before anything else happens.
const AT_ONCE: Duration = Duration::ZERO;
/// A new policy is on disk soon after; several at once are one write.
const SOON: Duration = Duration::from_millis(200);
/// The directory changes with every name asked for, and can be asked for again.
const LATER: Duration = Duration::from_secs(5);

pub(crate) struct StateWriter {
    pub(crate) file: StateFile,
    pub(crate) pod_uid: String,
    pub(crate) identities: watch::Receiver<Option<Arc<Identity>>>,
    pub(crate) policies: watch::Receiver<Option<Arc<PolicySnapshot>>>,
    pub(crate) bundle_file: watch::Receiver<String>,
    pub(crate) directory: DirectoryChanges,
    pub(crate) directory_revisions: watch::Receiver<u64>,
}

impl StateWriter {
    /// Runs until the identity's owner is gone.
    pub(crate) async fn run(mut self) {
        let mut write_at: Option<Instant> = None;
        let mut last_error = None;
        loop {
            let due = async {
                match write_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let delay = tokio::select! {
                changed = self.identities.changed() => match changed {
                    Ok(()) => AT_ONCE,
                    Err(_) => return,
                },
                Ok(()) = self.policies.changed() => SOON,
                Ok(()) = self.bundle_file.changed() => SOON,
                Ok(()) = self.directory_revisions.changed() => LATER,
                () = due => {
                    write_at = None;
                    last_error = self.write(last_error).await;
                    continue;
                }
            };
            let at = Instant::now() + delay;
            write_at = Some(write_at.map_or(at, |before| before.min(at)));
        }
    }

    /// Returns what went wrong, if anything did; logs it when it is something new.
    async fn write(&mut self, last_error: Option<String>) -> Option<String> {
        let state = self.state();
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || file.write(&state)).await;
        let error = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("writing was broken off".to_owned()),
        };
        if let Some(error) = &error
            && last_error.as_ref() != Some(error)
        {
            tracing::warn!(%error, "a restart while the control plane is away would not work");
        }
        error
    }

    fn state(&mut self) -> SavedState {
        let identity = self.identities.borrow_and_update().clone();
        let der = |certificate: &rustls_pki_types::CertificateDer<'_>| certificate.to_vec();
        let rest = SavedFacts {
            pod_uid: self.pod_uid.clone(),
            chain: identity.iter().flat_map(|it| &it.chain).map(der).collect(),
            trust_bundle: identity
                .iter()
                .flat_map(|it| it.trust_bundle.authorities())
                .map(der)
                .collect(),
            trust_bundle_file: self.bundle_file.borrow_and_update().clone(),
            policy: self.policies.borrow_and_update().as_deref().map(Into::into),
            directory: Some(self.directory.to_wire()),
        };
        SavedState {
            key: identity.map(|it| it.key.copy()),
            rest,
        }
    }
}
