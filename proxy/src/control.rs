//! The control side of the sidecar: everything that talks to the control plane, on the control
//! runtime. What it learns goes to the data path as whole values.
//!
//! ```text
//!   state file ─▶ restore ─┐                                ┌─▶ identity  (watch)
//!   trust bundle file ─────┼─▶ identity::owner ── channel ──┼─▶ policy    (watch)
//!   token file ────────────┘     issue, renew, rotate       ├─▶ directory (snapshot)
//!                                                           └─▶ state file
//! ```

use std::{path::PathBuf, sync::Arc};

use mesh_lite_proto::authorization::PolicySnapshot;
use spiffe::TrustDomain;
use tokio::{sync::watch, task::JoinSet};
use tonic::transport::Channel;

use crate::{
    app_files::AppFiles,
    clock::Clock,
    control_plane_client::{ControlPlaneClient, InvalidControlPlane},
    directory::{Directory, pick::Picker},
    identity::{
        Identity,
        owner::{IdentityOwner, OwnerOutputs, OwnerSettings},
        renewal_state::{RenewalReporter, RenewalState},
        state_file::StateFile,
        token_file::TokenFile,
        trust_bundle_file,
    },
    metrics::Metrics,
};

mod restore;
mod state_writer;
pub mod status;
mod streams;

use restore::{Own, Restored};
use state_writer::StateWriter;
use status::{ControlPart, ControlStatus, Reporter};
use streams::{Learnt, Streams};

/// What the control side must be told.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// `host:port`
    pub control_plane: String,
    /// PEM, the roots of the trust domain.
    pub trust_bundle: PathBuf,
    pub trust_domain: TrustDomain,
    pub mesh_namespace: String,
    /// A join token is needed until there is an identity, a service-account token always.
    pub token_file: Option<TokenFile>,
    /// For the state file; nobody else may write there.
    pub data_dir: PathBuf,
    /// Of the pod, or the workload's name without Kubernetes. Spreads renewals, and marks the
    /// state file as ours.
    pub pod_uid: String,
    /// Where key, certificate and trust bundle are kept for the application. `None`: nowhere.
    pub files_dir: Option<PathBuf>,
}

/// What the data path gets. Dropping all of it ends the control side's tasks.
pub struct ControlHandles {
    /// `None` until a certificate is there, and again when it has ended.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// `None` until the first snapshot.
    pub policy: watch::Receiver<Option<Arc<PolicySnapshot>>>,
    pub directory: Directory,
    pub picker: Picker,
    /// Why something is not there yet, in words.
    pub status: watch::Receiver<ControlStatus>,
    pub renewal: watch::Receiver<RenewalState>,
    tasks: JoinSet<()>,
}

impl ControlHandles {
    /// Keeps the tasks running after the handles are gone, until their runtime ends.
    pub fn detach(&mut self) {
        self.tasks.detach_all();
    }
}

/// Starts the control side on the runtime that this is called on.
///
/// A state file that can't be used, a trust bundle that is not there yet, a control plane that
/// is away: all of them are waited out, and [`ControlHandles::status`] says so.
///
/// # Errors
/// If the configuration itself is wrong.
pub fn spawn(
    config: ControlConfig,
    metrics: &Metrics,
    clock: Clock,
) -> Result<ControlHandles, InvalidControlPlane> {
    let client = client(&config)?;
    let status = Arc::new(watch::Sender::new(ControlStatus::default()));
    let receiver = status.subscribe();
    let reporter = |part| Reporter::new(&status, part, metrics, clock);
    let file = StateFile::in_directory(&config.data_dir);
    let bundle_file = watch::Sender::new(String::new());
    let issuing = reporter(ControlPart::Issuing);
    let restored = restore(&config, &file, &bundle_file, &issuing, clock);

    let (renewal_reporter, renewal) = RenewalReporter::new(metrics, clock);
    let (streams, learnt) = Streams::new(
        &config,
        restored.policy,
        restored.directory.as_ref(),
        reporter,
        renewal_reporter.clone(),
        metrics,
    );
    let (identities, identity) = watch::channel(None);
    let (channel_sender, channels) = watch::channel(None);
    let writer = state_writer(file, &config, &identity, &learnt, bundle_file.subscribe());
    let outputs = OwnerOutputs {
        identities,
        channels: channel_sender,
        bundle_file,
        reporter: issuing,
        renewal: renewal_reporter,
        metrics: metrics.clone(),
    };
    let app_files = app_files(&config, &identity, &channels, clock);
    let settings = owner_settings(client, config);
    let mut owner = IdentityOwner::new(settings, outputs, learnt.announced, clock);
    owner.start_from(restored.trust_bundle, restored.leaf);

    let mut tasks = JoinSet::new();
    tasks.spawn(owner.run());
    streams.start(channels, &mut tasks);
    tasks.spawn(writer.run());
    if let Some(files) = app_files {
        tasks.spawn(files.run());
    }
    Ok(ControlHandles {
        identity,
        policy: learnt.policy,
        directory: learnt.directory,
        picker: Picker::default(),
        status: receiver,
        renewal,
        tasks,
    })
}

fn client(config: &ControlConfig) -> Result<ControlPlaneClient, InvalidControlPlane> {
    ControlPlaneClient::new(
        &config.control_plane,
        &config.trust_domain,
        &config.mesh_namespace,
    )
}

/// All that a restart goes on from, on its way to the disk.
fn state_writer(
    file: StateFile,
    config: &ControlConfig,
    identities: &watch::Receiver<Option<Arc<Identity>>>,
    learnt: &Learnt,
    bundle_file: watch::Receiver<String>,
) -> StateWriter {
    let (directory, directory_revisions) = learnt.directory.changes();
    StateWriter {
        file,
        pod_uid: config.pod_uid.clone(),
        identities: identities.clone(),
        policies: learnt.policy.clone(),
        bundle_file,
        directory,
        directory_revisions,
    }
}

/// For an application that wants files.
fn app_files(
    config: &ControlConfig,
    identities: &watch::Receiver<Option<Arc<Identity>>>,
    channels: &watch::Receiver<Option<Channel>>,
    clock: Clock,
) -> Option<AppFiles> {
    Some(AppFiles {
        directory: config.files_dir.clone()?,
        identities: identities.clone(),
        channels: channels.clone(),
        token_file: config.token_file.clone(),
        pod_uid: config.pod_uid.clone(),
        clock,
    })
}

fn owner_settings(client: ControlPlaneClient, config: ControlConfig) -> OwnerSettings {
    OwnerSettings {
        client,
        trust_domain: config.trust_domain,
        trust_bundle_file: config.trust_bundle,
        token_file: config.token_file,
        pod_uid: config.pod_uid,
    }
}

fn restore(
    config: &ControlConfig,
    file: &StateFile,
    bundle_file: &watch::Sender<String>,
    reporter: &Reporter,
    clock: Clock,
) -> Restored {
    let bundle = match trust_bundle_file::read(&config.trust_bundle, &config.trust_domain) {
        Ok(bundle) => {
            bundle_file.send_replace(bundle.digest());
            Some(bundle)
        }
        Err(error) => {
            reporter.wrong(&error.to_string());
            None
        }
    };
    let own = Own {
        pod_uid: &config.pod_uid,
        trust_domain: &config.trust_domain,
        bundle_file: bundle.clone(),
    };
    let restored = match file.read() {
        Ok(Some(state)) => Restored::from_state(state, own, clock()),
        Ok(None) => Restored::nothing(bundle),
        Err(error) => {
            tracing::warn!(%error, "starting without the state of before");
            Restored::nothing(bundle)
        }
    };
    for left_out in &restored.left_out {
        tracing::warn!(%left_out, "not used from the state file");
    }
    restored
}

#[cfg(test)]
mod tests;
