//! The data directory: what lies where, and how it is written.
//!
//! ```text
//! <data-dir>/                    0700
//!   control-plane.lock           held by the one control plane that uses the directory
//!   trust-bundle.pem       0644  the roots that everybody trusts; sidecars get a copy
//!   issuing/               0700
//!     issuing-ca.pem       0600  certificate and key in one file: never a torn pair
//!   join-tokens/           0700  one file per token, named by the token's hash
//!   root/                  0700  may lie elsewhere (--root-dir); the control plane never opens it
//!     root.pem             0600  certificate and key
//! ```
//!
//! Every file is written beside its place, synced, and renamed into it.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use mesh_lite_proto::trust_bundle::{InvalidTrustBundle, TrustBundle, hex, pem};
use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject};
use spiffe::TrustDomain;
use zeroize::Zeroizing;

use super::{
    authority::{InvalidAuthority, IssuingAuthority},
    random::{NoRandomNumbers, random_bytes},
    root::{NewIssuingAuthority, Root, RootError},
};

/// Certificates and keys are a few KiB; a larger file is not one of ours.
const MAX_FILE: u64 = 256 * 1024;
const PRIVATE_DIRECTORY: u32 = 0o700;
const PRIVATE_FILE: u32 = 0o600;
const PUBLIC_FILE: u32 = 0o644;

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

    pub(crate) fn join_tokens(&self) -> PathBuf {
        self.0.join("join-tokens")
    }

    pub(crate) fn default_root(&self) -> PathBuf {
        self.0.join("root")
    }

    pub(crate) fn create(&self) -> Result<(), KeyStoreError> {
        for directory in [self.0.clone(), self.issuing(), self.join_tokens()] {
            create_private_directory(&directory)?;
        }
        Ok(())
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
    ) -> Result<(), KeyStoreError> {
        create_private_directory(&self.issuing())?;
        let text = certificate_and_key(&authority.certificate, &authority.key);
        replace(&self.issuing_authority(), text.as_bytes(), PRIVATE_FILE)
    }

    pub(crate) fn read_issuing_authority(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<IssuingAuthority, KeyStoreError> {
        let path = self.issuing_authority();
        let (certificate, key) = read_certificate_and_key(&path)?;
        IssuingAuthority::new(certificate, key, trust_domain)
            .map_err(|error| KeyStoreError::Authority { path, error })
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
        let text = certificate_and_key(root.certificate(), root.key());
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
        let (certificate, key) = read_certificate_and_key(&path)?;
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

fn certificate_and_key(certificate: &CertificateDer<'_>, key: &KeyPair) -> Zeroizing<String> {
    let mut text = Zeroizing::new(pem("CERTIFICATE", certificate));
    let key = Zeroizing::new(pem("PRIVATE KEY", key.serialized_der()));
    text.push_str(&key);
    text
}

fn read_certificate_and_key(
    path: &Path,
) -> Result<(CertificateDer<'static>, KeyPair), KeyStoreError> {
    let text = read(path)?;
    let not_pem = |what: &'static str| KeyStoreError::NotPem {
        path: path.to_owned(),
        what,
    };
    let certificate = CertificateDer::from_pem_slice(&text).map_err(|_| not_pem("CERTIFICATE"))?;
    let key = PrivatePkcs8KeyDer::from_pem_slice(&text).map_err(|_| not_pem("PRIVATE KEY"))?;
    let key = KeyPair::try_from(&key).map_err(|_| not_pem("PRIVATE KEY"))?;
    Ok((certificate, key))
}

pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
    let length = fs::metadata(path)
        .map_err(KeyStoreError::io("read", path))?
        .len();
    if length > MAX_FILE {
        return Err(KeyStoreError::TooLong {
            path: path.to_owned(),
            length,
        });
    }
    fs::read(path)
        .map(Zeroizing::new)
        .map_err(KeyStoreError::io("read", path))
}

pub(crate) fn create_private_directory(path: &Path) -> Result<(), KeyStoreError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIRECTORY)
        .create(path)
        .map_err(KeyStoreError::io("create", path))?;
    let mode = fs::metadata(path)
        .map_err(KeyStoreError::io("read", path))?
        .permissions()
        .mode();
    // a directory that was there before may be open to others
    if mode & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(PRIVATE_DIRECTORY))
        .map_err(KeyStoreError::io("close to others", path))
}

/// Writes a private file so that readers see the old content or the new, never a part.
pub(crate) fn replace_private(path: &Path, content: &[u8]) -> Result<(), KeyStoreError> {
    replace(path, content, PRIVATE_FILE)
}

fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), KeyStoreError> {
    let beside = beside(path)?;
    let written = write_and_sync(&beside, content, mode)
        .and_then(|()| fs::rename(&beside, path).map_err(KeyStoreError::io("rename to", path)))
        .and_then(|()| sync_parent(path));
    if written.is_err() {
        // best effort: the reason to report is the first one
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_and_sync(path: &Path, content: &[u8], mode: u32) -> Result<(), KeyStoreError> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(KeyStoreError::io("create", path))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .map_err(KeyStoreError::io("write", path))
}

fn sync_parent(path: &Path) -> Result<(), KeyStoreError> {
    let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    else {
        return Ok(());
    };
    fs::File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(KeyStoreError::io("sync", parent))
}

/// A name in the same directory, hidden from those who list documents or tokens.
fn beside(path: &Path) -> Result<PathBuf, KeyStoreError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(path.with_file_name(format!(".{name}.{}", hex(&random_bytes::<8>()?))))
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
    #[error("{path} has {length} bytes, more than the {MAX_FILE} that such a file may have")]
    TooLong { path: PathBuf, length: u64 },
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

    /// Nothing is there: the question is then whether `root init` was run.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }
}

#[cfg(test)]
mod tests;
