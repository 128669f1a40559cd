//! What `mesh-lite root --kubernetes` does: the same as in a data directory, with the keys in
//! Secrets. Every step looks first, so that what a broken-off run left out is made by the next.
//!
//! ```text
//! root (created, never replaced) ─▶ trust bundle (added to) ─▶ issuing CA (replaced by version)
//! ```

use std::{path::PathBuf, time::SystemTime};

use kube::Client;
use mesh_lite_proto::trust_bundle::TrustBundle;
use rustls_pki_types::CertificateDer;
use spiffe::TrustDomain;

use super::{NewRoot, Renewal, RootCommandError, RootMode, Terms};
use crate::{
    certificate_authority::{
        authority_facts::AuthorityFacts,
        cluster_store::{ClusterStore, KeptBy, StoredAuthority, Written},
        key_store::{KeyStoreError, RootDirectory},
        root::Root,
    },
    cluster::connect,
    cluster_objects::{ClusterObjects, Failure, ObjectError},
    workload_index::is_name,
};

/// Two Jobs at once settle it in one more look; who changes it this often is no Job.
const LOOKS: u32 = 5;

/// A mesh whose keys lie in a cluster.
#[derive(Clone)]
pub struct MeshInCluster {
    client: Client,
    mesh_namespace: String,
    /// The root's key is here and not in a Secret: a person brings it. `None`: in its Secret.
    root_dir: Option<PathBuf>,
}

impl MeshInCluster {
    /// # Errors
    /// If nothing says where the API server is, or the namespace is none. Whether it answers is
    /// not asked.
    pub async fn connect(
        mesh_namespace: String,
        root_dir: Option<PathBuf>,
    ) -> Result<Self, RootCommandError> {
        if !is_name(&mesh_namespace) {
            return Err(RootCommandError::Namespace(mesh_namespace));
        }
        Ok(Self {
            client: connect(None).await?,
            mesh_namespace,
            root_dir,
        })
    }
}

/// What to tell the person who ran the command, or the log of its Job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterReport {
    pub trust_domain: TrustDomain,
    /// Secret or directory. `None`: the root is not within reach.
    pub root: Option<String>,
    pub root_until: Option<SystemTime>,
    pub root_made: bool,
    pub issuing_authority: String,
    pub issuing_key_id: String,
    pub issuing_until: SystemTime,
    pub issuing_made: bool,
    pub mode: RootMode,
    /// Another program keeps the issuing CA.
    pub plugged_in: bool,
    /// Half of its life: `root renew` does nothing before.
    pub renewal_due: SystemTime,
    pub warns_from: SystemTime,
    pub trust_bundle: String,
    pub roots: usize,
    pub bundle_written: bool,
}

/// When `root renew` signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// From half of the issuing CA's life on, as a timer does.
    Due,
    Now,
}

/// Makes what is missing of root, trust bundle and issuing CA, and leaves what is there.
///
/// # Errors
/// If the API server refuses, or what is there is of another mesh or lacks its root.
pub async fn init_cluster_root(
    cluster: &MeshInCluster,
    new: &NewRoot,
    now: SystemTime,
) -> Result<ClusterReport, RootCommandError> {
    let places = ClusterPlaces::new(cluster);
    let terms = Terms::of(new.mode.unwrap_or_default(), new.issuing_lifetime)?;
    if terms.lifetime > new.root_lifetime {
        return Err(RootCommandError::Lifetimes {
            root: new.root_lifetime,
            issuing: terms.lifetime,
        });
    }
    let stored = places
        .store
        .read_issuing_authority(&new.trust_domain)
        .await?;
    let mut done = Done::default();
    let root = match places.read_root().await? {
        Some(root) => Some(root),
        None if stored.is_some() => None,
        None => Some(places.make_root(new, now, &mut done).await?),
    };
    check_trust_domain(&places, root.as_ref(), &new.trust_domain)?;
    places
        .finish(
            root.as_ref(),
            &new.trust_domain,
            When::Due,
            Asked::Init(terms),
            done,
            now,
        )
        .await
}

/// Signs the next issuing CA if it is time, and repairs the trust bundle.
///
/// # Errors
/// As [`init_cluster_root`]; and if a person renews this issuing CA, and none does now.
pub async fn renew_cluster_root(
    cluster: &MeshInCluster,
    renewal: Renewal,
    when: When,
    trust_domain: &TrustDomain,
    now: SystemTime,
) -> Result<ClusterReport, RootCommandError> {
    let places = ClusterPlaces::new(cluster);
    let root = places.read_root().await?;
    check_trust_domain(&places, root.as_ref(), trust_domain)?;
    let asked = Asked::Renew(renewal);
    places
        .finish(
            root.as_ref(),
            trust_domain,
            when,
            asked,
            Done::default(),
            now,
        )
        .await
}

#[derive(Clone, Copy)]
enum Asked {
    Init(Terms),
    Renew(Renewal),
}

impl Asked {
    /// `before`: the mode of the issuing CA that is there.
    fn terms(self, before: Option<RootMode>) -> Result<Terms, RootCommandError> {
        match self {
            Self::Init(terms) => Ok(terms),
            Self::Renew(renewal) => {
                let mode = renewal.mode.or(before).unwrap_or_default();
                Terms::of(mode, renewal.issuing_lifetime)
            }
        }
    }
}

/// What this run made.
#[derive(Default, Clone, Copy)]
struct Done {
    root: bool,
    bundle: bool,
    issuing: bool,
}

struct ClusterPlaces {
    store: ClusterStore,
    root_dir: Option<RootDirectory>,
}

impl ClusterPlaces {
    fn new(cluster: &MeshInCluster) -> Self {
        let objects = ClusterObjects::new(cluster.client.clone());
        Self {
            store: ClusterStore::new(objects, &cluster.mesh_namespace),
            root_dir: cluster.root_dir.clone().map(RootDirectory::new),
        }
    }

    fn root_place(&self) -> String {
        match &self.root_dir {
            Some(directory) => directory.path().display().to_string(),
            None => self.store.root_place(),
        }
    }

    async fn read_root(&self) -> Result<Option<Root>, KeyStoreError> {
        match &self.root_dir {
            None => self.store.read_root().await,
            Some(directory) => match directory.read() {
                Ok(root) => Ok(Some(root)),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// Whoever is second takes what the first one made: a mesh never gets two roots by accident.
    async fn make_root(
        &self,
        new: &NewRoot,
        now: SystemTime,
        done: &mut Done,
    ) -> Result<Root, RootCommandError> {
        if self
            .store
            .read_trust_bundle(&new.trust_domain)
            .await?
            .is_some()
        {
            return Err(RootCommandError::BundleWithoutRoot {
                bundle: self.store.bundle_place(),
                root: self.root_place(),
            });
        }
        let root = Root::create(&new.trust_domain, new.root_lifetime, now)?;
        let written = match &self.root_dir {
            None => self.store.create_root(&root).await?,
            Some(directory) => match directory.write_new(&root) {
                Ok(()) => Written::Done,
                Err(KeyStoreError::RootExists(_)) => Written::Outrun,
                Err(error) => return Err(error.into()),
            },
        };
        if written == Written::Done {
            done.root = true;
            return Ok(root);
        }
        self.read_root()
            .await?
            .ok_or_else(|| RootCommandError::NoRoot(self.root_place()))
    }

    async fn finish(
        &self,
        root: Option<&Root>,
        trust_domain: &TrustDomain,
        when: When,
        asked: Asked,
        mut done: Done,
        now: SystemTime,
    ) -> Result<ClusterReport, RootCommandError> {
        for _ in 0..LOOKS {
            let stored = self.store.read_issuing_authority(trust_domain).await?;
            let known = root.map(Root::certificate).into_iter().cloned();
            let roots = self
                .announce(
                    known.chain(plugged_in_roots(stored.as_ref())).collect(),
                    trust_domain,
                    &mut done,
                )
                .await?;
            let Some(stored) = stored else {
                let root = root.ok_or_else(|| RootCommandError::NoRoot(self.root_place()))?;
                done.issuing = self.sign(root, asked.terms(None)?, None, now).await?;
                continue;
            };
            let due = !done.issuing && self.is_due(&stored, when, asked, now)?;
            if let (true, KeptBy::Us { mode, .. }) = (due, &stored.kept_by) {
                let root = root.ok_or_else(|| RootCommandError::NoRoot(self.root_place()))?;
                let terms = asked.terms(Some(*mode))?;
                done.issuing = self.sign(root, terms, Some(&stored.version), now).await?;
                continue;
            }
            return Ok(self.report(root, trust_domain, &stored, roots, done));
        }
        let place = self.store.issuing_place();
        let contended = ObjectError::new("write", place, Failure::Contended(LOOKS));
        Err(KeyStoreError::from(contended).into())
    }

    fn is_due(
        &self,
        stored: &StoredAuthority,
        when: When,
        asked: Asked,
        now: SystemTime,
    ) -> Result<bool, RootCommandError> {
        let KeptBy::Us { authority, mode } = &stored.kept_by else {
            return match when {
                When::Now => Err(RootCommandError::PluggedIn(self.store.issuing_place())),
                When::Due => Ok(false),
            };
        };
        match (asked, when, mode) {
            (Asked::Init(_), ..) => Ok(false),
            (Asked::Renew(_), When::Now, _) => Ok(true),
            (Asked::Renew(_), When::Due, RootMode::Offline) => Err(
                RootCommandError::RenewedByAPerson(PathBuf::from(self.store.issuing_place())),
            ),
            (Asked::Renew(_), When::Due, RootMode::Kept) => {
                Ok(now >= authority.facts().half_life())
            }
        }
    }

    /// Answers whether it was we who wrote it.
    async fn sign(
        &self,
        root: &Root,
        terms: Terms,
        before: Option<&str>,
        now: SystemTime,
    ) -> Result<bool, RootCommandError> {
        let issuing = root.sign_issuing_authority(terms.lifetime, now)?;
        let written = self
            .store
            .write_issuing_authority(&issuing, terms.mode, before)
            .await?;
        Ok(written == Written::Done)
    }

    /// Answers how many roots the trust bundle then holds. It is only added to.
    async fn announce(
        &self,
        roots: Vec<CertificateDer<'static>>,
        trust_domain: &TrustDomain,
        done: &mut Done,
    ) -> Result<usize, RootCommandError> {
        for _ in 0..LOOKS {
            let stored = self.store.read_trust_bundle(trust_domain).await?;
            let (mut all, version) = match stored {
                Some(stored) => (stored.bundle.authorities().to_vec(), Some(stored.version)),
                None if roots.is_empty() => {
                    return Err(RootCommandError::NoBundle(self.store.bundle_place()));
                }
                None => (Vec::new(), None),
            };
            let before = all.len();
            for root in &roots {
                if !all.contains(root) {
                    all.push(root.clone());
                }
            }
            if all.len() == before {
                return Ok(before);
            }
            let bundle = TrustBundle::new(trust_domain.clone(), all)?;
            let written = self.store.write_trust_bundle(&bundle, version.as_deref());
            if written.await? == Written::Done {
                done.bundle = true;
                return Ok(bundle.authorities().len());
            }
        }
        let place = self.store.bundle_place();
        let contended = ObjectError::new("write", place, Failure::Contended(LOOKS));
        Err(KeyStoreError::from(contended).into())
    }

    fn report(
        &self,
        root: Option<&Root>,
        trust_domain: &TrustDomain,
        stored: &StoredAuthority,
        roots: usize,
        done: Done,
    ) -> ClusterReport {
        let (authority, mode, plugged_in) = match &stored.kept_by {
            KeptBy::Us { authority, mode } => (authority, *mode, false),
            KeptBy::Another { authority, .. } => (authority, RootMode::Offline, true),
        };
        let facts: &AuthorityFacts = authority.facts();
        ClusterReport {
            trust_domain: trust_domain.clone(),
            root: root.map(|_| self.root_place()),
            root_until: root.map(|root| root.facts().not_after),
            root_made: done.root,
            issuing_authority: self.store.issuing_place(),
            issuing_key_id: facts.key_id.clone(),
            issuing_until: facts.not_after,
            issuing_made: done.issuing,
            mode,
            plugged_in,
            renewal_due: facts.half_life(),
            warns_from: mode.warns_from(facts),
            trust_bundle: self.store.bundle_place(),
            roots,
            bundle_written: done.bundle,
        }
    }
}

fn plugged_in_roots(stored: Option<&StoredAuthority>) -> Vec<CertificateDer<'static>> {
    match stored.map(|stored| &stored.kept_by) {
        Some(KeptBy::Another { roots, .. }) => roots.clone(),
        _ => Vec::new(),
    }
}

fn check_trust_domain(
    places: &ClusterPlaces,
    root: Option<&Root>,
    trust_domain: &TrustDomain,
) -> Result<(), RootCommandError> {
    match root {
        Some(root) if root.trust_domain() != trust_domain => Err(RootCommandError::OtherMesh {
            data_dir: PathBuf::from(places.root_place()),
            mesh: root.trust_domain().to_string(),
            imported: trust_domain.to_string(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
