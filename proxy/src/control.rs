//! The control side of the sidecar: everything that talks to the control plane, on the control
//! runtime. What it learns goes to the data path as whole values.
//!
//! ```text
//!   state file ─▶ restore ─┐                                ┌─▶ identity  (watch)
//!   trust bundle file ─────┼─▶ identity::owner ── channel ──┼─▶ policy    (watch)
//!   token file ────────────┘     issue, renew, rotate       ├─▶ directory (snapshot)
//!                                                           └─▶ state file
//! ```

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_lite_proto::authorization::PolicySnapshot;
use spiffe::TrustDomain;
use tokio::sync::watch;
use tonic::transport::Channel;

use crate::{
    app_files::AppFiles,
    authorization::policy_watch::PolicyWatch,
    back_off::BackOff,
    clock::Clock,
    control_plane_client::{
        ControlPlaneClient, InvalidControlPlane,
        subscription::{Way, keep_open},
    },
    directory::{Directory, DirectoryWatch, pick::Picker},
    identity::{
        Identity,
        owner::{IdentityOwner, OwnerOutputs, OwnerSettings},
        renewal_state::{RenewalReporter, RenewalState},
        secret_stream::{Announced, SecretStream},
        state_file::StateFile,
        token_file::TokenFile,
        trust_bundle_file,
    },
    metrics::Metrics,
};

mod restore;
mod state_writer;
pub mod status;

use restore::{Own, Restored};
use state_writer::StateWriter;
use status::{ControlPart, ControlStatus, Reporter};

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
    tasks: tokio::task::JoinSet<()>,
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
    let client = ControlPlaneClient::new(
        &config.control_plane,
        &config.trust_domain,
        &config.mesh_namespace,
    )?;
    let status = Arc::new(watch::Sender::new(ControlStatus::default()));
    let receiver = status.subscribe();
    let reporter = |part| Reporter::new(&status, part, metrics, clock);
    let file = StateFile::in_directory(&config.data_dir);
    let bundle_file = watch::Sender::new(String::new());
    let restored = restore(
        &config,
        &file,
        &bundle_file,
        &reporter(ControlPart::Issuing),
        clock,
    );

    let (policy_watch, policy) = PolicyWatch::new(
        config.trust_domain.clone(),
        restored.policy,
        reporter(ControlPart::Policy),
        metrics.clone(),
    );
    let (directory_watch, directory) = DirectoryWatch::new(
        restored.directory.as_ref(),
        reporter(ControlPart::Directory),
        metrics.clone(),
    );
    let (announced_sender, announced) = watch::channel(Announced::default());
    let (renewal_reporter, renewal) = RenewalReporter::new(metrics, clock);
    let secrets = SecretStream::new(
        config.trust_domain.clone(),
        config.pod_uid.clone(),
        announced_sender,
        reporter(ControlPart::Trust),
        renewal_reporter.clone(),
    );
    let (identities, identity) = watch::channel(None);
    let (channel_sender, channels) = watch::channel(None);
    let (changes, directory_revisions) = directory.changes();
    let writer = StateWriter {
        file,
        pod_uid: config.pod_uid.clone(),
        identities: identity.clone(),
        policies: policy.clone(),
        bundle_file: bundle_file.subscribe(),
        directory: changes,
        directory_revisions,
    };
    let outputs = OwnerOutputs {
        identities,
        channels: channel_sender,
        bundle_file,
        reporter: reporter(ControlPart::Issuing),
        renewal: renewal_reporter,
        metrics: metrics.clone(),
    };
    let streams = Streams {
        secrets,
        directory: directory_watch,
        policy: policy_watch,
        channels,
        token: match &config.token_file {
            Some(TokenFile::ServiceAccount(path)) => Some(path.as_path().into()),
            Some(TokenFile::Join(_)) | None => None,
        },
        pod_uid: config.pod_uid.clone(),
    };
    let app_files = config.files_dir.clone().map(|directory| AppFiles {
        directory,
        identities: identity.clone(),
        channels: streams.channels.clone(),
        token_file: config.token_file.clone(),
        pod_uid: config.pod_uid.clone(),
        clock,
    });
    let mut owner = IdentityOwner::new(owner_settings(client, config), outputs, announced, clock);
    owner.start_from(restored.trust_bundle, restored.leaf);

    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(owner.run());
    streams.start(&mut tasks);
    tasks.spawn(writer.run());
    if let Some(files) = app_files {
        tasks.spawn(files.run());
    }
    Ok(ControlHandles {
        identity,
        policy,
        directory,
        picker: Picker::default(),
        status: receiver,
        renewal,
        tasks,
    })
}

/// The long streams to the control plane, all on the channel that the identity's owner opens.
struct Streams {
    secrets: SecretStream,
    directory: DirectoryWatch,
    policy: PolicyWatch,
    channels: watch::Receiver<Option<Channel>>,
    /// Shown whenever one is opened.
    token: Option<Arc<Path>>,
    pod_uid: String,
}

impl Streams {
    fn start(self, tasks: &mut tokio::task::JoinSet<()>) {
        let back_off = |part: &str| BackOff::new(&format!("{} {part}", self.pod_uid));
        let [trust, directory, policy] = ["trust", "directory", "policy"].map(back_off);
        let way = Way {
            channels: self.channels,
            token: self.token,
        };
        tasks.spawn(keep_open(self.secrets, way.clone(), trust));
        tasks.spawn(keep_open(self.directory, way.clone(), directory));
        tasks.spawn(keep_open(self.policy, way, policy));
    }
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
