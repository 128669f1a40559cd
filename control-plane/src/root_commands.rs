//! What `mesh-lite root` and `mesh-lite token` do to a data directory.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use mesh_lite_proto::trust_bundle::{InvalidTrustBundle, TrustBundle};
use spiffe::TrustDomain;

use crate::{
    certificate_authority::{
        authority_facts::InvalidAuthority,
        key_store::{DataDirectory, KeyStoreError, RootDirectory},
        root::{Root, RootError},
    },
    cluster::ClusterError,
    lifetime::Lifetime,
    workload_attestation::join_token::{JoinToken, JoinTokenError, JoinTokens, TokenUse},
    workload_index::WorkloadName,
};

mod cluster;
mod import;

pub use crate::certificate_authority::root_mode::{InvalidRootMode, RootMode};
pub use cluster::{ClusterReport, MeshInCluster, When, init_cluster_root, renew_cluster_root};
pub use import::{Import, ImportReport, import_authority};

/// Ten years: a root is replaced by a rotation, not by its end.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Ten minutes.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(600);

/// Where the keys of a mesh lie.
#[derive(Debug, Clone)]
pub struct Places {
    pub data_dir: PathBuf,
    /// `None`: `root` in the data directory.
    pub root_dir: Option<PathBuf>,
}

impl Places {
    fn data(&self) -> DataDirectory {
        DataDirectory::new(self.data_dir.clone())
    }

    fn root(&self) -> RootDirectory {
        let path = self
            .root_dir
            .clone()
            .unwrap_or_else(|| self.data().default_root());
        RootDirectory::new(path)
    }
}

#[derive(Debug, Clone)]
pub struct NewRoot {
    pub trust_domain: TrustDomain,
    pub root_lifetime: Duration,
    /// `None`: as the data directory says; kept in a new one.
    pub mode: Option<RootMode>,
    /// `None`: what the mode says.
    pub issuing_lifetime: Option<Duration>,
}

/// How the next issuing CA is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Renewal {
    /// `None`: as the data directory says.
    pub mode: Option<RootMode>,
    /// `None`: what the mode says.
    pub issuing_lifetime: Option<Duration>,
}

/// What to tell the person who ran the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootReport {
    pub trust_domain: TrustDomain,
    pub root: PathBuf,
    pub root_until: SystemTime,
    pub mode: RootMode,
    pub issuing_authority: PathBuf,
    pub issuing_key_id: String,
    pub issuing_until: SystemTime,
    /// Half of its life: `root renew --if-due` does nothing before.
    pub renewal_due: SystemTime,
    /// Log, readiness and metrics speak of its end from then on.
    pub warns_from: SystemTime,
    pub trust_bundle: PathBuf,
    /// How many roots it holds: more than one while roots change.
    pub roots: usize,
}

/// Makes the root of a new mesh and its first issuing CA.
///
/// # Errors
/// If there is a root already, or files can't be written.
pub fn init_root(
    places: &Places,
    new: &NewRoot,
    now: SystemTime,
) -> Result<RootReport, RootCommandError> {
    let (data, directory) = (places.data(), places.root());
    let terms = Terms::new(&data, new.mode, new.issuing_lifetime)?;
    if terms.lifetime > new.root_lifetime {
        return Err(RootCommandError::Lifetimes {
            root: new.root_lifetime,
            issuing: terms.lifetime,
        });
    }
    data.as_its_owner(|| data.create())?;
    let root = Root::create(&new.trust_domain, new.root_lifetime, now)?;
    directory.write_new(&root)?;
    sign_next(&data, &directory, &root, terms, now)
}

/// Signs the next issuing CA with the root; a running control plane notices.
///
/// # Errors
/// If the root can't be read or has expired, or files can't be written.
pub fn renew_root(
    places: &Places,
    renewal: Renewal,
    now: SystemTime,
) -> Result<RootReport, RootCommandError> {
    let (data, directory) = (places.data(), places.root());
    let terms = Terms::new(&data, renewal.mode, renewal.issuing_lifetime)?;
    let root = directory.read()?;
    data.as_its_owner(|| data.create())?;
    sign_next(&data, &directory, &root, terms, now)
}

/// Whether the issuing CA is past half of its life, as a timer asks before it renews. Without an
/// issuing CA it is.
///
/// # Errors
/// If it is there and can't be read, or if a person renews it: a timer would replace an imported
/// issuing CA with one of another root.
pub fn renewal_is_due(
    places: &Places,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<bool, RootCommandError> {
    let data = places.data();
    if data.as_its_owner(|| data.read_root_mode())? == RootMode::Offline {
        return Err(RootCommandError::RenewedByAPerson(data.path().to_owned()));
    }
    match data.as_its_owner(|| data.read_issuing_authority(trust_domain)) {
        Ok(authority) => Ok(now >= authority.facts().half_life()),
        Err(error) if error.is_not_found() => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// The trust domain that the root was made for.
///
/// # Errors
/// If the root can't be read.
pub fn root_trust_domain(places: &Places) -> Result<TrustDomain, RootCommandError> {
    Ok(places.root().read()?.trust_domain().clone())
}

/// A join token for one workload, good once. The only time it is in the clear here.
///
/// # Errors
/// If the data directory can't be written.
pub fn create_token(
    data_dir: &Path,
    workload: &WorkloadName,
    lifetime: Duration,
    now: SystemTime,
) -> Result<JoinToken, RootCommandError> {
    make_token(data_dir, workload, TokenUse::Once, lifetime, now)
}

/// A token that opens SDS streams of one workload until it expires, and signs nothing.
///
/// # Errors
/// If the data directory can't be written.
pub fn create_stream_token(
    data_dir: &Path,
    workload: &WorkloadName,
    lifetime: Duration,
    now: SystemTime,
) -> Result<JoinToken, RootCommandError> {
    make_token(data_dir, workload, TokenUse::Streams, lifetime, now)
}

fn make_token(
    data_dir: &Path,
    workload: &WorkloadName,
    purpose: TokenUse,
    lifetime: Duration,
    now: SystemTime,
) -> Result<JoinToken, RootCommandError> {
    let data = DataDirectory::new(data_dir.to_owned());
    data.as_its_owner(|| {
        if !data.issuing_authority().exists() {
            return Err(RootCommandError::NoMesh(data_dir.to_owned()));
        }
        let tokens = JoinTokens::new(data.join_tokens());
        Ok(tokens.create(workload, purpose, lifetime, now)?)
    })
}

/// A mode and a lifetime that fits it.
#[derive(Clone, Copy)]
struct Terms {
    mode: RootMode,
    lifetime: Duration,
}

impl Terms {
    fn new(
        data: &DataDirectory,
        mode: Option<RootMode>,
        lifetime: Option<Duration>,
    ) -> Result<Self, RootCommandError> {
        let mode = match mode {
            Some(mode) => mode,
            None => data.as_its_owner(|| data.read_root_mode())?,
        };
        Self::of(mode, lifetime)
    }

    fn of(mode: RootMode, lifetime: Option<Duration>) -> Result<Self, RootCommandError> {
        let lifetime = lifetime.unwrap_or_else(|| mode.issuing_lifetime());
        let longest = mode.longest_issuing_lifetime();
        if lifetime > longest {
            return Err(RootCommandError::LivesTooLong {
                mode,
                lifetime: lifetime.into(),
                longest: longest.into(),
            });
        }
        Ok(Self { mode, lifetime })
    }
}

fn sign_next(
    data: &DataDirectory,
    directory: &RootDirectory,
    root: &Root,
    terms: Terms,
    now: SystemTime,
) -> Result<RootReport, RootCommandError> {
    let trust_domain = root.trust_domain();
    let issuing = root.sign_issuing_authority(terms.lifetime, now)?;
    let roots = data.as_its_owner(|| {
        let roots = announce(data, root)?;
        data.write_issuing_authority(&issuing, terms.mode)?;
        Ok::<_, RootCommandError>(roots)
    })?;
    Ok(RootReport {
        trust_domain: trust_domain.clone(),
        root: directory.path().to_owned(),
        root_until: root.facts().not_after,
        mode: terms.mode,
        renewal_due: issuing.facts.half_life(),
        warns_from: terms.mode.warns_from(&issuing.facts),
        roots,
        issuing_authority: data.issuing_authority(),
        issuing_key_id: issuing.facts.key_id,
        issuing_until: issuing.facts.not_after,
        trust_bundle: data.trust_bundle(),
    })
}

/// Answers how many roots the trust bundle then holds. One that is there may hold more than this:
/// it is only added to.
fn announce(data: &DataDirectory, root: &Root) -> Result<usize, RootCommandError> {
    let trust_domain = root.trust_domain();
    let mut authorities = match data.read_trust_bundle(trust_domain) {
        Ok(bundle) => bundle.authorities().to_vec(),
        Err(error) if error.is_not_found() => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    if !authorities.contains(root.certificate()) {
        authorities.push(root.certificate().clone());
        let bundle = TrustBundle::new(trust_domain.clone(), authorities.clone())?;
        data.write_trust_bundle(&bundle)?;
    }
    Ok(authorities.len())
}

/// Why a command did nothing, or not all of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootCommandError {
    #[error(transparent)]
    Store(#[from] KeyStoreError),
    #[error(transparent)]
    Root(#[from] RootError),
    #[error(transparent)]
    Token(#[from] JoinTokenError),
    #[error(transparent)]
    TrustBundle(#[from] InvalidTrustBundle),
    #[error(
        "{0} holds no issuing CA: run `mesh-lite root init` first, or name the --data-dir of the control plane"
    )]
    NoMesh(PathBuf),
    #[error(
        "the issuing CA in {0} was imported or has an offline root: a person renews it, and --if-due, which is for timers, \
         leaves it alone. Stop the timer; or give the mesh back to its own root with `mesh-lite root renew --root-mode kept`"
    )]
    RenewedByAPerson(PathBuf),
    #[error(
        "the mesh in {data_dir} is of trust domain {mesh}, not {imported}: nothing is written. Import a CA of {mesh} with \
         --trust-domain {mesh}, or use another --data-dir"
    )]
    OtherMesh {
        data_dir: PathBuf,
        mesh: String,
        imported: String,
    },
    #[error(transparent)]
    Authority(#[from] InvalidAuthority),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("--mesh-namespace {0:?}: use 1 to 63 lower-case letters, digits, dashes and dots")]
    Namespace(String),
    #[error(
        "there is no root in {0}: run `mesh-lite root init --kubernetes` first; if its key is kept offline, bring it and \
         name its directory with --root-dir"
    )]
    NoRoot(String),
    #[error(
        "{0} is missing, and the root that would belong into it is not within reach: bring the root and name its directory \
         with --root-dir, or make the ConfigMap with `kubectl create configmap --from-file=trust-bundle.pem`"
    )]
    NoBundle(String),
    #[error(
        "{bundle} is there, but neither {root} nor an issuing CA: nothing is made, because a second root would part this mesh. \
         Bring back the root or the issuing CA; for a new mesh delete the ConfigMap"
    )]
    BundleWithoutRoot { bundle: String, root: String },
    #[error(
        "{0} holds tls.crt: another program (cert-manager) keeps this issuing CA and renews it, and nothing is signed here"
    )]
    PluggedIn(String),
    #[error(
        "in root mode {mode} an issuing CA lives {longest} at most, not {lifetime}: lower --issuing-lifetime{}",
        match mode {
            RootMode::Kept => ", or say --root-mode offline if no timer can reach the root",
            RootMode::Offline => "",
        }
    )]
    LivesTooLong {
        mode: RootMode,
        lifetime: Lifetime,
        longest: Lifetime,
    },
    #[error(
        "an issuing CA can't live longer ({issuing:?}) than its root ({root:?}): lower --issuing-lifetime or raise --root-lifetime"
    )]
    Lifetimes { root: Duration, issuing: Duration },
}

#[cfg(test)]
mod tests;
