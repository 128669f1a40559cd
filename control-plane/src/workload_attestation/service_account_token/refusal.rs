//! Why a service-account token attests no pod: because it is not good, or because nobody can say.

use mesh_lite_proto::kubernetes::TOKEN_AUDIENCE;

use crate::issuance::turns::NoTurn;

/// Cheap to clone: everybody who asked about one token is told the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotReviewed {
    #[error(
        "the bearer token is no service-account token of Kubernetes: the sidecar sends the file of \
         --service-account-token-file, which the injector mounts; send the projected token of the pod"
    )]
    NoToken,
    #[error(
        "the service-account token is for the audience {0:?}, not for {TOKEN_AUDIENCE:?}: mount one with \
         `audience: {TOKEN_AUDIENCE}`, as the injector does; the token of the application is no substitute"
    )]
    Audience(String),
    #[error(
        "the service-account token is of no pod: one that the kubelet projects into a pod names it; one from \
         `kubectl create token` does not, unless bound to a pod by --bound-object-kind Pod"
    )]
    NotOfPod,
    #[error(
        "the service-account token expired at {at}, and it is {now} here: the kubelet renews the file long before that, \
         so read it anew each time; if it is new, compare the clocks"
    )]
    Expired { at: String, now: String },
    #[error(
        "the service-account token is not valid before {at}, and it is {now} here: compare the clocks of this host \
         and of the API server's"
    )]
    NotYet { at: String, now: String },
    #[error(
        "the API server does not accept the service-account token: {0}. Look at its audience ({TOKEN_AUDIENCE}), at \
         whether its pod is still there, and at the clocks"
    )]
    Refused(String),
    #[error(
        "the API server refused this service-account token before, and can't be asked again now"
    )]
    RefusedBefore,
    #[error(
        "the API server can't be reached ({why}), and its signing keys don't vouch for the service-account token"
    )]
    NotSigned { why: String },
    #[error(
        "the API server can't be reached ({0}), and nothing else can say whether the service-account token is good: \
         try again"
    )]
    Unreachable(String),
    #[error("the API server does not review tokens for the control plane: {0}")]
    Failed(String),
    #[error(
        "too many service-account tokens are to be reviewed at once: try again in a few seconds"
    )]
    Busy,
    #[error("reviewing the token failed, a defect; the control plane's log says where")]
    Defect,
}

impl From<NoTurn> for NotReviewed {
    fn from(_: NoTurn) -> Self {
        Self::Busy
    }
}

impl NotReviewed {
    /// About the token, rather than about what happens here.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::NoToken
            | Self::Audience(_)
            | Self::NotOfPod
            | Self::Expired { .. }
            | Self::NotYet { .. }
            | Self::Refused(_)
            | Self::RefusedBefore
            | Self::NotSigned { .. } => true,
            Self::Unreachable(_) | Self::Failed(_) | Self::Busy | Self::Defect => false,
        }
    }

    /// One word for the metric.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Failed(_) | Self::Defect => "failed",
            Self::Busy => "busy",
            _ => "refused",
        }
    }
}
