//! Asking the control plane for a certificate: one call, one key, one leaf.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use mesh_lite_proto::{
    identity::WorkloadId,
    secret_discovery::{DEFAULT_SVID, SECRET_TYPE_URL},
    sidecar::{CSR_METADATA_KEY, DNS_NAMES_METADATA_KEY, DNS_NAMES_OF_SERVICES, MAX_GRPC_MESSAGE},
    svid::LeafFacts,
    trust_bundle::TrustBundle,
    wire::envoy::{
        config::core::v3::{DataSource, Node, data_source::Specifier},
        extensions::transport_sockets::tls::v3::{Secret, secret},
        service::{
            discovery::v3::{DiscoveryRequest, DiscoveryResponse},
            secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
        },
    },
};
use prost::Message;
use prost_types::{Struct, Value, value::Kind};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use tonic::{Code, Request, Status, transport::Channel};

use super::{
    PrivateKey,
    issued_chain::{UnusableChain, check_chain},
    key_and_csr::{KeyAndRequest, KeyError},
    token_file::{TokenFile, UnusableToken, bearer},
    trust_bundle_file::TrustBundleFileError,
};
use crate::{
    clock::Clock, clock::ClockSkew, control_plane_client::in_words, metrics::Renewal,
    tls::context::UnusableIdentity,
};

/// Seconds that rounding and a slow answer explain.
const HONEST_SKEW: u64 = 2;
/// A chain is a leaf, its issuer and perhaps two more; the fifth would be refused anyway.
const MAX_CERTIFICATES: usize = 5;

/// How the caller proves who it is.
#[derive(Debug, Clone)]
pub enum Credential {
    /// The file's content, read anew for each attempt.
    Token(TokenFile),
    /// The client certificate of the channel.
    Svid,
}

impl Credential {
    /// It proves the caller each time, whatever it has.
    pub(crate) fn is_of_pod(&self) -> bool {
        matches!(self, Self::Token(TokenFile::ServiceAccount(_)))
    }
}

/// What must hold of the answer.
pub struct Expected<'a> {
    pub trust_bundle: &'a Arc<TrustBundle>,
    /// Who we were before; `None` at first issuance.
    pub before: Option<&'a WorkloadId>,
}

/// A chain that was checked, and its key.
pub struct Issued {
    pub leaf: LeafFacts,
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKey,
    /// By the date of the answer, where it had one.
    pub clock_skew: Option<ClockSkew>,
}

/// What one attempt asks with.
pub struct Attempt {
    pub credential: Credential,
    /// A new one for each certificate. With a join token the same one until the token has
    /// brought its certificate: the first use binds the token to the key, also if the answer
    /// gets lost.
    pub key: Arc<KeyAndRequest>,
    /// For the control plane's log; proves nothing.
    pub node_id: String,
    pub deadline: Duration,
    /// Whether the leaf is to hold the names of this workload's services.
    pub service_names: bool,
}

/// Has a certificate issued, and checks what comes back.
///
/// # Errors
/// In words, with what to do next. Nothing of a failed attempt's answer is kept.
pub async fn issue(
    channel: Channel,
    attempt: &Attempt,
    expected: Expected<'_>,
    clock: Clock,
) -> Result<Issued, IssueError> {
    let Attempt {
        credential,
        key,
        node_id,
        deadline,
        service_names,
    } = attempt;
    let deadline = *deadline;
    let mut request = Request::new(request(node_id, &key.request, *service_names));
    if let Credential::Token(file) = credential {
        let bearer = bearer(file.path()).await?;
        request.metadata_mut().insert("authorization", bearer);
    }
    let key = &key.key;
    let mut client =
        SecretDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_GRPC_MESSAGE);
    let answer = tokio::time::timeout(deadline, client.fetch_secrets(request))
        .await
        .map_err(|_| IssueError::Timeout { after: deadline })?
        .map_err(|status| refused(&status, credential, clock()))?;
    let now = clock();
    let clock_skew = ClockSkew::measured(answer.metadata(), now);
    let chain = chain_of(answer.into_inner())?;
    let leaf = check_chain(&chain, key, expected.trust_bundle, expected.before, now)
        .map_err(|reason| IssueError::Chain { reason, clock_skew })?;
    Ok(Issued {
        leaf,
        chain,
        key: key.copy(),
        clock_skew,
    })
}

fn request(node_id: &str, csr: &str, service_names: bool) -> DiscoveryRequest {
    let text = |text: &str| Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    };
    let mut fields = BTreeMap::from([(CSR_METADATA_KEY.to_owned(), text(csr))]);
    if service_names {
        let services = text(DNS_NAMES_OF_SERVICES);
        fields.insert(DNS_NAMES_METADATA_KEY.to_owned(), services);
    }
    let metadata = Struct { fields };
    let node = Node {
        id: node_id.to_owned(),
        metadata: Some(metadata),
        ..Node::default()
    };
    DiscoveryRequest {
        node: Some(node),
        resource_names: vec![DEFAULT_SVID.to_owned()],
        type_url: SECRET_TYPE_URL.to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn refused(status: &Status, credential: &Credential, now: SystemTime) -> IssueError {
    let words = in_words(status);
    let clock_skew = ClockSkew::measured(status.metadata(), now);
    match (status.code(), credential) {
        (Code::Unauthenticated, Credential::Token(file)) => IssueError::TokenRefused {
            file: file.clone(),
            words,
            clock_skew,
        },
        (Code::Unauthenticated | Code::PermissionDenied | Code::InvalidArgument, _) => {
            IssueError::Refused { words, clock_skew }
        }
        _ => IssueError::Unreachable { words, clock_skew },
    }
}

fn chain_of(answer: DiscoveryResponse) -> Result<Vec<CertificateDer<'static>>, IssueError> {
    let [resource] = answer.resources.as_slice() else {
        return Err(IssueError::Answer(InvalidAnswer::Secrets(
            answer.resources.len(),
        )));
    };
    let secret = Secret::decode(resource.value.as_slice())
        .map_err(|error| IssueError::Answer(InvalidAnswer::Secret(error.to_string())))?;
    let Some(secret::Type::TlsCertificate(certificate)) = secret.r#type else {
        return Err(IssueError::Answer(InvalidAnswer::NoCertificate));
    };
    let Some(DataSource {
        specifier: Some(Specifier::InlineBytes(pem)),
    }) = certificate.certificate_chain
    else {
        return Err(IssueError::Answer(InvalidAnswer::NoCertificate));
    };
    CertificateDer::pem_slice_iter(&pem)
        .take(MAX_CERTIFICATES)
        .collect::<Result<_, _>>()
        .map_err(|error| IssueError::Answer(InvalidAnswer::Pem(error.to_string())))
}

/// For a chain that can't be used.
fn clock_hint(reason: &UnusableChain, skew: Option<ClockSkew>) -> String {
    match skew {
        _ if !reason.is_about_time() => String::new(),
        Some(skew) if skew.seconds.unsigned_abs() <= HONEST_SKEW => {
            format!(" ({skew}, so look at what the control plane issues)")
        }
        Some(skew) => format!(" ({skew}: set the clock of this host)"),
        None => " (is the clock of this host right?)".to_owned(),
    }
}

/// For whatever else goes wrong: a clock that is far off may be why.
fn skew_note(skew: Option<ClockSkew>) -> String {
    match skew.filter(ClockSkew::is_notable) {
        Some(skew) => format!(" ({skew}: set the clock of this host)"),
        None => String::new(),
    }
}

/// What to look at when a token is not accepted.
fn remedy(file: &TokenFile) -> &'static str {
    match file {
        TokenFile::Join(_) => {
            "a join token works once and not for long: make a new one with `mesh-lite token create NAMESPACE/NAME`"
        }
        TokenFile::ServiceAccount(_) => {
            "the volume it is projected by must say the audience that the control plane expects, its pod must still \
             be there, and the clocks must agree; the kubelet renews it by itself"
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Token(#[from] UnusableToken),
    #[error(
        "no identity yet, and no token to ask for one with: make one with \
         `mesh-lite token create NAMESPACE/NAME` and name its file; in a pod name that of its \
         service-account token"
    )]
    NoCredential,
    #[error("the control plane did not answer within {after:?}")]
    Timeout { after: Duration },
    #[error("the control plane can't issue now: {words}{}", skew_note(*clock_skew))]
    Unreachable {
        words: String,
        clock_skew: Option<ClockSkew>,
    },
    #[error(
        "the control plane does not accept the token in {}: {words}; {}{}",
        file.path().display(),
        remedy(file),
        skew_note(*clock_skew)
    )]
    TokenRefused {
        file: TokenFile,
        words: String,
        clock_skew: Option<ClockSkew>,
    },
    #[error("the control plane refuses to issue: {words}{}", skew_note(*clock_skew))]
    Refused {
        words: String,
        clock_skew: Option<ClockSkew>,
    },
    #[error("the control plane's answer can't be used: {0}")]
    Answer(#[from] InvalidAnswer),
    #[error("the issued chain can't be used: {reason}{}", clock_hint(reason, *clock_skew))]
    Chain {
        reason: UnusableChain,
        clock_skew: Option<ClockSkew>,
    },
    #[error(transparent)]
    TrustBundle(#[from] TrustBundleFileError),
    #[error("no connection with the control plane can be made: {reason}")]
    Tls { reason: UnusableIdentity },
}

impl IssueError {
    /// By the date of the answer that it tells of, where it had one.
    pub fn clock_skew(&self) -> Option<ClockSkew> {
        match self {
            Self::Unreachable { clock_skew, .. }
            | Self::TokenRefused { clock_skew, .. }
            | Self::Refused { clock_skew, .. }
            | Self::Chain { clock_skew, .. } => *clock_skew,
            _ => None,
        }
    }

    /// How metrics count it.
    pub fn outcome(&self) -> Renewal {
        match self {
            Self::Timeout { .. } | Self::Unreachable { .. } => Renewal::Unreachable,
            Self::TokenRefused { .. } | Self::Refused { .. } => Renewal::Refused,
            Self::Key(_)
            | Self::Token(_)
            | Self::NoCredential
            | Self::Answer(_)
            | Self::Chain { .. }
            | Self::TrustBundle(_)
            | Self::Tls { .. } => Renewal::Invalid,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAnswer {
    #[error("it holds {0} secrets; one was asked for")]
    Secrets(usize),
    #[error("its secret can't be parsed: {0}")]
    Secret(String),
    #[error("its secret holds no certificate chain")]
    NoCertificate,
    #[error("its certificate chain is not PEM: {0}")]
    Pem(String),
}

#[cfg(test)]
mod tests;
