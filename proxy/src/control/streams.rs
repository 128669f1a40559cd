//! The long streams to the control plane, all on the channel that the identity's owner opens.

use std::{path::Path, sync::Arc};

use mesh_lite_proto::{authorization::PolicySnapshot, wire::mesh_lite::v1 as wire};
use tokio::{sync::watch, task::JoinSet};
use tonic::transport::Channel;

use super::{ControlConfig, ControlPart, Reporter};
use crate::{
    authorization::policy_watch::PolicyWatch,
    back_off::BackOff,
    control_plane_client::subscription::{Way, keep_open},
    directory::{Directory, DirectoryWatch},
    identity::{
        renewal_state::RenewalReporter,
        secret_stream::{Announced, SecretStream},
        token_file::TokenFile,
    },
    metrics::Metrics,
};

pub(super) struct Streams {
    secrets: SecretStream,
    directory: DirectoryWatch,
    policy: PolicyWatch,
    /// Shown whenever one is opened.
    token: Option<Arc<Path>>,
    pod_uid: String,
}

/// What the streams learn.
pub(super) struct Learnt {
    pub(super) announced: watch::Receiver<Announced>,
    pub(super) policy: watch::Receiver<Option<Arc<PolicySnapshot>>>,
    pub(super) directory: Directory,
}

impl Streams {
    /// They go on from the policy and the directory that were saved.
    pub(super) fn new(
        config: &ControlConfig,
        saved_policy: Option<PolicySnapshot>,
        saved_directory: Option<&wire::DirectoryResponse>,
        reporter: impl Fn(ControlPart) -> Reporter,
        renewal: RenewalReporter,
        metrics: &Metrics,
    ) -> (Self, Learnt) {
        let (announced_sender, announced) = watch::channel(Announced::default());
        let secrets = SecretStream::new(
            config.trust_domain.clone(),
            config.pod_uid.clone(),
            announced_sender,
            reporter(ControlPart::Trust),
            renewal,
        );
        let (directory_watch, directory) = DirectoryWatch::new(
            saved_directory,
            reporter(ControlPart::Directory),
            metrics.clone(),
        );
        let (policy_watch, policy) = PolicyWatch::new(
            config.trust_domain.clone(),
            saved_policy,
            reporter(ControlPart::Policy),
            metrics.clone(),
        );
        let streams = Self {
            secrets,
            directory: directory_watch,
            policy: policy_watch,
            token: match &config.token_file {
                Some(TokenFile::ServiceAccount(path)) => Some(path.as_path().into()),
                Some(TokenFile::Join(_)) | None => None,
            },
            pod_uid: config.pod_uid.clone(),
        };
        let learnt = Learnt {
            announced,
            policy,
            directory,
        };
        (streams, learnt)
    }

    pub(super) fn start(self, channels: watch::Receiver<Option<Channel>>, tasks: &mut JoinSet<()>) {
        let back_off = |part: &str| BackOff::new(&format!("{} {part}", self.pod_uid));
        let [trust, directory, policy] = ["trust", "directory", "policy"].map(back_off);
        let way = Way {
            channels,
            token: self.token,
        };
        tasks.spawn(keep_open(self.secrets, way.clone(), trust));
        tasks.spawn(keep_open(self.directory, way.clone(), directory));
        tasks.spawn(keep_open(self.policy, way, policy));
    }
}
