//! The data directory: what lies where, and how it is written.
//!
//! ```text
//! <data-dir>/                    0700
//!   control-plane.lock           held by the one control plane that uses the directory
//!   trust-bundle.pem       0644  the roots that everybody trusts; sidecars get a copy
//!   issuing/               0700
//!     issuing-ca.pem       0600  certificate and key in one file: never a torn pair; then the
//!                                intermediates between it and the root, if it was imported
//!     root-mode            0644  `kept` or `offline`: what is said when it comes to its end
//!   join-tokens/           0700  one file per token, named by the token's hash
//!   root/                  0700  may lie elsewhere (--root-dir); the control plane never opens it
//!     root.pem             0600  certificate and key
//! ```
//!
//! Every file is written beside its place, synced, and renamed into it. In a cluster the directory
//! is a mounted volume, read only (`mounted_volume`); `issuing/` may hold `tls.crt`, `tls.key` and
//! `ca.crt` instead of `issuing-ca.pem` there (`plugged_in`).

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use mesh_lite_proto::trust_bundle::{InvalidTrustBundle, TrustBundle, pem};
use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use spiffe::TrustDomain;
use zeroize::Zeroizing;

use super::{
    authority::IssuingAuthority,
    authority_facts::InvalidAuthority,
    directory_owner::as_owner_of,
    file_replacement::{
        MAX_FILE, PRIVATE_FILE, PUBLIC_FILE, beside, create_private_directory, read, read_named,
        replace, sync_parent,
    },
    mounted_volume::{newest, read_one_version},
    plugged_in::{CERTIFICATE, PluggedIn},
    random::NoRandomNumbers,
    root::{NewIssuingAuthority, Root, RootError},
    root_mode::{InvalidRootMode, RootMode},
    rotation::Found,
};
use crate::cluster_objects::ObjectError;

/// Where a control plane keeps its state.
#[derive(Debug, Clone)]
pub(crate) struct DataDirectory(PathBuf);

impl DataDirectory {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn trust_bundle(&self) -> PathBuf {
        self.0.join("trust-bundle.pem")
    }

    pub(crate) fn issuing(&self) -> PathBuf {
        self.0.join("issuing")
    }

    pub(crate) fn issuing_authority(&self) -> PathBuf {
        self.issuing().join("issuing-ca.pem")
    }

    pub(crate) fn root_mode(&self) -> PathBuf {
        self.issuing().join("root-mode")
    }

    pub(crate) fn join_tokens(&self) -> PathBuf {
        self.0.join("join-tokens")
    }

    pub(crate) fn default_root(&self) -> PathBuf {
        self.0.join("root")
    }

    pub(crate) fn create(&self) -> Result<(), KeyStoreError> {
        create_private_directory(&self.0)?;
        create_private_directory(&self.issuing())?;
        create_private_directory(&self.join_tokens())
    }

    /// What follows is done with the rights of the one whose directory it is, no more.
    pub(crate) fn as_its_owner<T, E>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send,
    ) -> Result<T, E>
    where
        T: Send,
        E: From<KeyStoreError> + Send,
    {
        as_owner_of(&self.0, work)
    }

    /// Held until dropped, and let go by the kernel if the process dies: two control planes on
    /// one directory could each redeem the same join token.
    pub(crate) fn lock(&self) -> Result<fs::File, KeyStoreError> {
        let path = self.0.join("control-plane.lock");
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(PRIVATE_FILE)
            .open(&path)
            .map_err(KeyStoreError::io("open", &path))?;
        let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        match rustix::fs::flock(&file, exclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(KeyStoreError::InUse(self.0.clone())),
            Err(error) => Err(KeyStoreError::io("lock", &path)(error.into())),
        }
    }

    pub(crate) fn write_issuing_authority(
        &self,
        authority: &NewIssuingAuthority,
        mode: RootMode,
    ) -> Result<(), KeyStoreError> {
        create_private_directory(&self.issuing())?;
        // the mode first: a control plane that sees the new authority knows how it is renewed
        let word = format!("{mode}\n");
        replace(&self.root_mode(), word.as_bytes(), PUBLIC_FILE)?;
        let text = authority_file(
            &authority.certificate,
            &authority.key,
            &authority.intermediates,
        );
        replace(&self.issuing_authority(), text.as_bytes(), PRIVATE_FILE)
    }

    /// What the control plane serves by, and the roots in it that come with a plugged-in CA.
    pub(crate) fn read_found(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<(Found, Vec<CertificateDer<'static>>), KeyStoreError> {
        read_one_version(&self.0, |version| {
            let data = Self(version.to_owned());
            let Some(plugged_in) = data.read_plugged_in(trust_domain)? else {
                let found = Found {
                    bundle: data.read_trust_bundle(trust_domain)?,
                    authority: data.read_issuing_authority(trust_domain)?,
                };
                return Ok((found, Vec::new()));
            };
            let bundle = data.bundle_with(&plugged_in.roots, trust_domain)?;
            let authority = plugged_in.authority;
            Ok((Found { bundle, authority }, plugged_in.roots))
        })
    }

    /// Whether the kubelet keeps it.
    pub(crate) fn is_mounted_volume(&self) -> bool {
        newest(&self.0).is_ok_and(|version| version != self.0)
    }

    fn read_plugged_in(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<Option<PluggedIn>, KeyStoreError> {
        let plugged_in = PluggedIn::read(&self.issuing(), trust_domain)?;
        let ours = self.issuing_authority();
        if plugged_in.is_some() && fs::symlink_metadata(&ours).is_ok() {
            return Err(KeyStoreError::TwoAuthorities {
                ours,
                theirs: self.issuing().join(CERTIFICATE),
            });
        }
        Ok(plugged_in)
    }

    /// `ca.crt` alone will do: whoever plugs a CA in may have no other roots to name.
    fn bundle_with(
        &self,
        roots: &[CertificateDer<'static>],
        trust_domain: &TrustDomain,
    ) -> Result<TrustBundle, KeyStoreError> {
        let path = self.trust_bundle();
        let mut all = match self.read_trust_bundle(trust_domain) {
            Ok(bundle) => bundle.authorities().to_vec(),
            Err(error) if error.is_not_found() && !roots.is_empty() => Vec::new(),
            Err(error) => return Err(error),
        };
        all.extend(roots.iter().cloned());
        TrustBundle::new(trust_domain.clone(), all)
            .map_err(|error| KeyStoreError::TrustBundle { path, error })
    }

    pub(crate) fn read_issuing_authority(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<IssuingAuthority, KeyStoreError> {
        let path = self.issuing_authority();
        let file = AuthorityFile::parse(&path, &read(&path)?)?;
        IssuingAuthority::with_intermediates(
            file.certificate,
            file.intermediates,
            file.key,
            trust_domain,
        )
        .map_err(|error| KeyStoreError::Authority { path, error })
    }

    /// Kept, if nothing was written: the mode of every mesh that was made without a word on it.
    pub(crate) fn read_root_mode(&self) -> Result<RootMode, KeyStoreError> {
        if let Ok(version) = newest(&self.0)
            && version != self.0
        {
            return Self(version).read_root_mode();
        }
        let path = self.root_mode();
        let text = match read(&path) {
            // another program renews it, as a person would
            Err(error) if error.is_not_found() && self.issuing().join(CERTIFICATE).exists() => {
                return Ok(RootMode::Offline);
            }
            Ok(text) => text,
            Err(error) if error.is_not_found() => return Ok(RootMode::default()),
            Err(error) => return Err(error),
        };
        String::from_utf8_lossy(&text)
            .trim_end()
            .parse()
            .map_err(|error| KeyStoreError::RootMode { path, error })
    }

    pub(crate) fn write_trust_bundle(&self, bundle: &TrustBundle) -> Result<(), KeyStoreError> {
        replace(
            &self.trust_bundle(),
            bundle.to_pem().as_bytes(),
            PUBLIC_FILE,
        )
    }

    pub(crate) fn read_trust_bundle(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<TrustBundle, KeyStoreError> {
        let path = self.trust_bundle();
        let text = read(&path)?;
        TrustBundle::from_pem(trust_domain.clone(), &text)
            .map_err(|error| KeyStoreError::TrustBundle { path, error })
    }
}

/// Where the root lies, for those who may read it.
#[derive(Debug, Clone)]
pub(crate) struct RootDirectory(PathBuf);

impl RootDirectory {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the whole directory at once under another name and renames it into place, which the
    /// kernel refuses if something is there: a root is never overwritten.
    pub(crate) fn write_new(&self, root: &Root) -> Result<(), KeyStoreError> {
        let beside = beside(&self.0)?;
        create_private_directory(&beside)?;
        let text = authority_file(root.certificate(), root.key(), &[]);
        let written =
            replace(&beside.join(ROOT_FILE), text.as_bytes(), PRIVATE_FILE).and_then(|()| {
                match fs::rename(&beside, &self.0) {
                    Ok(()) => sync_parent(&self.0),
                    Err(error) if is_occupied(&error) => {
                        Err(KeyStoreError::RootExists(self.0.clone()))
                    }
                    Err(error) => Err(KeyStoreError::io("rename into place", &self.0)(error)),
                }
            });
        if written.is_err() {
            // best effort: the reason to report is the first one
            let _ = fs::remove_dir_all(&beside);
        }
        written
    }

    pub(crate) fn read(&self) -> Result<Root, KeyStoreError> {
        let path = self.0.join(ROOT_FILE);
        let AuthorityFile {
            certificate, key, ..
        } = AuthorityFile::parse(&path, &read_named(&path)?)?;
        Root::load(certificate, key).map_err(|error| KeyStoreError::Root { path, error })
    }
}

const ROOT_FILE: &str = "root.pem";

fn is_occupied(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::DirectoryNotEmpty
            | io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotADirectory
    )
}

/// The whole is as long as it gets from the beginning: a buffer that was outgrown would leave the
/// key behind in memory.
pub(crate) fn authority_file(
    certificate: &CertificateDer<'_>,
    key: &KeyPair,
    intermediates: &[CertificateDer<'_>],
) -> Zeroizing<String> {
    let certificate = pem("CERTIFICATE", certificate);
    let key = Zeroizing::new(pem("PRIVATE KEY", key.serialized_der()));
    let intermediates: String = intermediates
        .iter()
        .map(|intermediate| pem("CERTIFICATE", intermediate))
        .collect();
    let parts = [certificate.as_str(), &key, &intermediates];
    let length = parts.iter().map(|part| part.len()).sum();
    let mut text = Zeroizing::new(String::with_capacity(length));
    parts.iter().for_each(|part| text.push_str(part));
    text
}

/// A CA certificate, its key, and the certificates that follow, in one PEM file.
pub(crate) struct AuthorityFile {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) intermediates: Vec<CertificateDer<'static>>,
    pub(crate) key: KeyPair,
}

impl AuthorityFile {
    pub(crate) fn parse(path: &Path, text: &[u8]) -> Result<Self, KeyStoreError> {
        let (certificate, intermediates) = parse_chain(path, text)?;
        Ok(Self {
            certificate,
            intermediates,
            key: parse_key(path, text)?,
        })
    }
}

/// The certificates of a file: the first, and those after it.
pub(crate) fn parse_chain(
    path: &Path,
    text: &[u8],
) -> Result<(CertificateDer<'static>, Vec<CertificateDer<'static>>), KeyStoreError> {
    let not_pem = |_| KeyStoreError::not_pem(path, "CERTIFICATE");
    let mut certificates = CertificateDer::pem_slice_iter(text);
    let first = certificates
        .next()
        .ok_or_else(|| KeyStoreError::not_pem(path, "CERTIFICATE"))?
        .map_err(not_pem)?;
    let others = certificates.collect::<Result<_, _>>().map_err(not_pem)?;
    Ok((first, others))
}

pub(crate) fn parse_key(path: &Path, text: &[u8]) -> Result<KeyPair, KeyStoreError> {
    const WHAT: &str =
        "PRIVATE KEY (PKCS#8; `openssl pkcs8 -topk8 -nocrypt` makes one of other forms)";
    let not_pem = || KeyStoreError::not_pem(path, WHAT);
    let key = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| not_pem())?;
    KeyPair::try_from(&key).map_err(|_| not_pem())
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyStoreError {
    #[error("can't {what} {path}: {error}")]
    Io {
        what: &'static str,
        path: PathBuf,
        error: io::Error,
    },
    #[error("{0} has more than the {MAX_FILE} bytes that such a file may have")]
    TooLong(PathBuf),
    #[error(
        "{0} is a link, or something else than a plain file, and is not read: put the file itself there"
    )]
    NotAPlainFile(PathBuf),
    #[error(
        "{ours} and {theirs} are both there, and only one can be the issuing CA: take issuing-ca.pem away if another program \
         (cert-manager) keeps the CA, or tls.crt if `mesh-lite root` does"
    )]
    TwoAuthorities { ours: PathBuf, theirs: PathBuf },
    #[error(transparent)]
    Cluster(#[from] ObjectError),
    #[error("{path} holds no readable {what} in PEM")]
    NotPem { path: PathBuf, what: &'static str },
    #[error("{path}: {error}")]
    Authority {
        path: PathBuf,
        error: InvalidAuthority,
    },
    #[error("{path}: {error}")]
    Root { path: PathBuf, error: RootError },
    #[error("{path}: {error}")]
    RootMode {
        path: PathBuf,
        error: InvalidRootMode,
    },
    #[error("{path}: {error}")]
    TrustBundle {
        path: PathBuf,
        error: InvalidTrustBundle,
    },
    #[error(
        "{0} holds a root already; a root is never overwritten. `mesh-lite root renew` signs its next issuing CA; for another mesh name another --data-dir"
    )]
    RootExists(PathBuf),
    #[error(
        "another control plane uses the data directory {0}: stop it, or name another --data-dir"
    )]
    InUse(PathBuf),
    #[error(transparent)]
    Random(#[from] NoRandomNumbers),
}

impl KeyStoreError {
    pub(crate) fn io<'a>(
        what: &'static str,
        path: &'a Path,
    ) -> impl Fn(io::Error) -> Self + use<'a> {
        move |error| Self::Io {
            what,
            path: path.to_owned(),
            error,
        }
    }

    pub(crate) fn not_pem(path: &Path, what: &'static str) -> Self {
        Self::NotPem {
            path: path.to_owned(),
            what,
        }
    }

    /// Nothing is there: the question is then whether `root init` was run.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

#[cfg(test)]
mod tests;
