//! What a sidecar keeps over its own restart, so that it can serve while the control plane is
//! away: key, chain, trust bundle, policy, and the directory's answers. One file, 0600, written
//! whole (aside, synced, renamed) and read whole: never half of it is used.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use mesh_lite_proto::wire::mesh_lite::v1 as wire;
use prost::Message;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use super::PrivateKey;

const FILE_NAME: &str = "sidecar-state";
const TEMPORARY_NAME: &str = "sidecar-state.new";

/// First bytes of the file; the digit is the version of what follows.
const MAGIC: &[u8; 16] = b"mesh-lite state1";
const HEADER: usize = MAGIC.len() + SHA256_OUTPUT_LEN + size_of::<u32>();

/// The file lies in memory in Kubernetes, where the sidecar's limit is 256 MiB.
const MAX_FILE: usize = 8 * 1024 * 1024;
/// A P-256 key in PKCS#8 has 138 bytes.
const MAX_KEY: usize = 4096;

/// The file's content. Key and chain are there together or not at all.
#[derive(Default)]
pub struct SavedState {
    pub key: Option<PrivateKey>,
    pub rest: SavedFacts,
}

/// All but the key: none of it is secret.
#[derive(Clone, PartialEq, Message)]
pub struct SavedFacts {
    /// Whose state it is: another pod's or workload's is not ours.
    #[prost(string, tag = "1")]
    pub pod_uid: String,
    /// DER, leaf first.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub chain: Vec<Vec<u8>>,
    /// DER, in the order of the bundle.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub trust_bundle: Vec<Vec<u8>>,
    /// Digest of the bundle in the trust bundle file when this was written: a file that was
    /// changed since is newer than what is kept here.
    #[prost(string, tag = "4")]
    pub trust_bundle_file: String,
    #[prost(message, optional, tag = "5")]
    pub policy: Option<wire::PolicySnapshot>,
    #[prost(message, optional, tag = "6")]
    pub directory: Option<wire::DirectoryResponse>,
}

/// Where the state lies.
#[derive(Debug, Clone)]
pub struct StateFile {
    directory: PathBuf,
}

impl StateFile {
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.join(FILE_NAME)
    }

    /// Replaces the file. Directory answers are left out if they do not fit: they can be asked
    /// for again, the rest can't.
    ///
    /// # Errors
    /// If it can't be written; the file before stays as it was.
    pub fn write(&self, state: &SavedState) -> Result<(), StateFileError> {
        let bytes = match encode(state) {
            Ok(bytes) => bytes,
            Err(StateFileError::TooLarge { .. }) if state.rest.directory.is_some() => {
                let rest = SavedFacts {
                    directory: None,
                    ..state.rest.clone()
                };
                encode_parts(state.key.as_ref(), &rest)?
            }
            Err(error) => return Err(error),
        };
        self.replace(&bytes)
            .map_err(|source| StateFileError::Write {
                path: self.path(),
                source,
            })
    }

    fn replace(&self, bytes: &[u8]) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.directory)?;
        let temporary = self.directory.join(TEMPORARY_NAME);
        // a left-over of a killed process; anything else there makes `create_new` fail
        match std::fs::remove_file(&temporary) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, self.path())?;
        File::open(&self.directory)?.sync_all()
    }

    /// Reads the file. `Ok(None)`: there is none, as at the first start.
    ///
    /// # Errors
    /// If it is not our own, or others may read it, or it is not whole; in words. The caller
    /// starts as if there were none.
    pub fn read(&self) -> Result<Option<SavedState>, StateFileError> {
        let path = self.path();
        let no_follow = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits());
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(no_follow.unwrap_or_default())
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateFileError::Read { path, source }),
        };
        let read = |source| StateFileError::Read {
            path: path.clone(),
            source,
        };
        let metadata = file.metadata().map_err(read)?;
        if !metadata.is_file() {
            return Err(StateFileError::NotAFile { path });
        }
        let (owner, own) = (metadata.uid(), rustix::process::geteuid().as_raw());
        if owner != own {
            return Err(StateFileError::Owner { path, owner, own });
        }
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(StateFileError::Mode { path, mode });
        }
        let limit = MAX_FILE.saturating_add(1);
        let size = usize::try_from(metadata.len())
            .unwrap_or(usize::MAX)
            .min(limit);
        // room for all of it at once: growing would leave copies of the key behind
        let mut bytes = Zeroizing::new(Vec::with_capacity(size.saturating_add(1)));
        file.take(limit as u64)
            .read_to_end(&mut bytes)
            .map_err(read)?;
        decode(&bytes)
            .map(Some)
            .map_err(|reason| StateFileError::Content { path, reason })
    }
}

fn encode(state: &SavedState) -> Result<Zeroizing<Vec<u8>>, StateFileError> {
    encode_parts(state.key.as_ref(), &state.rest)
}

/// `MAGIC, SHA-256 of what follows, length of the key, key, facts`
fn encode_parts(
    key: Option<&PrivateKey>,
    rest: &SavedFacts,
) -> Result<Zeroizing<Vec<u8>>, StateFileError> {
    let key = key.map_or(&[][..], PrivateKey::secret_bytes);
    let rest = rest.encode_to_vec();
    let size = HEADER.saturating_add(key.len()).saturating_add(rest.len());
    if size > MAX_FILE || key.len() > MAX_KEY {
        return Err(StateFileError::TooLarge { size });
    }
    let mut body = Zeroizing::new(Vec::with_capacity(size));
    body.extend_from_slice(&u32::try_from(key.len()).unwrap_or_default().to_be_bytes());
    body.extend_from_slice(key);
    body.extend_from_slice(&rest);
    let mut bytes = Zeroizing::new(Vec::with_capacity(size));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(digest(&SHA256, &body).as_ref());
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<SavedState, InvalidState> {
    if bytes.len() > MAX_FILE {
        return Err(InvalidState::TooLarge);
    }
    let (magic, bytes) = bytes
        .split_at_checked(MAGIC.len())
        .ok_or(InvalidState::Torn)?;
    if magic != MAGIC {
        return Err(InvalidState::OtherVersion);
    }
    let (sum, body) = bytes
        .split_at_checked(SHA256_OUTPUT_LEN)
        .ok_or(InvalidState::Torn)?;
    if digest(&SHA256, body).as_ref() != sum {
        return Err(InvalidState::Torn);
    }
    let (length, body) = body.split_first_chunk().ok_or(InvalidState::Torn)?;
    let length = u32::from_be_bytes(*length) as usize;
    let (key, rest) = body.split_at_checked(length).ok_or(InvalidState::Torn)?;
    let rest = SavedFacts::decode(rest).map_err(|error| InvalidState::Facts(error.to_string()))?;
    if key.is_empty() != rest.chain.is_empty() {
        return Err(InvalidState::KeyWithoutChain);
    }
    let key = (!key.is_empty()).then(|| PrivateKey::from_pkcs8(key.to_vec()));
    Ok(SavedState { key, rest })
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateFileError {
    #[error("the state file {} can't be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("the state file {} can't be written: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("the state would have {size} bytes, more than {MAX_FILE}")]
    TooLarge { size: usize },
    #[error("the state file {} is not a plain file", path.display())]
    NotAFile { path: PathBuf },
    #[error(
        "the state file {} belongs to user {owner}, not to {own}, as which this runs: not used",
        path.display()
    )]
    Owner { path: PathBuf, owner: u32, own: u32 },
    #[error(
        "the state file {} has mode {mode:o}, so others may have read its key: not used; delete it",
        path.display()
    )]
    Mode { path: PathBuf, mode: u32 },
    #[error("the state file {} is not used: {reason}", path.display())]
    Content { path: PathBuf, reason: InvalidState },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidState {
    #[error("it is torn, or was changed by something else")]
    Torn,
    #[error("it has more than {MAX_FILE} bytes")]
    TooLarge,
    #[error("another version of mesh-lite wrote it, or something else did")]
    OtherVersion,
    #[error("its facts can't be parsed: {0}")]
    Facts(String),
    #[error("it has a key without a chain, or a chain without a key")]
    KeyWithoutChain,
}

#[cfg(test)]
mod tests;
