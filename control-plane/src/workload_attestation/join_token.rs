//! Join tokens: how a workload proves itself the first time where there is no Kubernetes.
//!
//! Printed once, kept as a hash. Redeeming one binds it to the key it was redeemed with: the
//! same key may ask again for a while, and gets the same certificate, in case the first answer
//! was lost. Everybody else learns that the token is used up.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    certificate_authority::{
        certificate_request::KeyPrint,
        key_store::{KeyStoreError, create_private_directory, read, replace_private},
        random::{NoRandomNumbers, random_bytes},
    },
    clock::{from_unix_seconds, readable, unix_seconds},
    workload_index::WorkloadName,
};

/// How long the key that redeemed a token may ask again.
const RETRY: Duration = Duration::from_secs(300);
/// Expired tokens are kept this long, so that a late caller is told "expired", not "unknown".
const REMEMBER: Duration = Duration::from_secs(24 * 3600);
/// A directory that grows without end is a script gone wrong.
const MAX_TOKENS: usize = 10_000;
/// Marks the text as what it is, for those who find it in a log or a repository.
const PREFIX: &str = "mesh-lite-join-";

/// A token in the clear. It exists twice: printed by the one who made it, sent by the one who
/// redeems it. No `Debug`.
pub struct JoinToken(Zeroizing<String>);

impl JoinToken {
    fn new() -> Result<Self, NoRandomNumbers> {
        let secret = Zeroizing::new(random_bytes::<32>()?);
        let hex = Zeroizing::new(mesh_lite_proto::trust_bundle::hex(secret.as_ref()));
        Ok(Self(Zeroizing::new(format!("{PREFIX}{}", *hex))))
    }

    pub(crate) fn received(text: &str) -> Self {
        Self(Zeroizing::new(text.trim().to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn print(&self) -> KeyPrint {
        KeyPrint::of(self.0.as_bytes())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Record {
    workload: WorkloadName,
    expires_unix: u64,
    redeemed: Option<Redeemed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Redeemed {
    key_sha256: String,
    at_unix: u64,
    chain_pem: String,
}

/// What a token is good for at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Nobody redeemed it yet.
    Fresh(WorkloadName),
    /// The same key asks again: it gets what it got.
    Again {
        workload: WorkloadName,
        chain_pem: String,
    },
}

/// The tokens of one data directory. One caller at a time: whoever issues holds a lock around
/// [`JoinTokens::claim`] and [`JoinTokens::redeem`].
#[derive(Debug, Clone)]
pub(crate) struct JoinTokens(PathBuf);

impl JoinTokens {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    pub(crate) fn create(
        &self,
        workload: &WorkloadName,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<JoinToken, JoinTokenError> {
        create_private_directory(&self.0)?;
        if self.forget_old(now)? >= MAX_TOKENS {
            return Err(JoinTokenError::TooMany(self.0.clone()));
        }
        let token = JoinToken::new()?;
        let expires = now.checked_add(lifetime).ok_or(JoinTokenError::Lifetime)?;
        let record = Record {
            workload: workload.clone(),
            expires_unix: unix_seconds(expires),
            redeemed: None,
        };
        self.write(&token, &record)?;
        Ok(token)
    }

    pub(crate) fn claim(
        &self,
        token: &JoinToken,
        key: KeyPrint,
        now: SystemTime,
    ) -> Result<Claim, JoinTokenError> {
        let record = self.read(token)?;
        let Some(redeemed) = record.redeemed else {
            let expires = from_unix_seconds(record.expires_unix);
            return if now < expires {
                Ok(Claim::Fresh(record.workload))
            } else {
                Err(JoinTokenError::Expired {
                    at: readable(expires),
                    workload: record.workload,
                })
            };
        };
        let at = from_unix_seconds(redeemed.at_unix);
        let until = at.checked_add(RETRY).unwrap_or(at);
        if redeemed.key_sha256 == key.to_hex() && now < until {
            return Ok(Claim::Again {
                workload: record.workload,
                chain_pem: redeemed.chain_pem,
            });
        }
        Err(JoinTokenError::Redeemed {
            at: readable(at),
            workload: record.workload,
        })
    }

    /// Binds the token to the key, before the certificate is handed out.
    pub(crate) fn redeem(
        &self,
        token: &JoinToken,
        key: KeyPrint,
        chain_pem: String,
        now: SystemTime,
    ) -> Result<(), JoinTokenError> {
        let mut record = self.read(token)?;
        let at_unix = unix_seconds(now);
        record.redeemed = Some(Redeemed {
            key_sha256: key.to_hex(),
            at_unix,
            chain_pem,
        });
        self.write(token, &record)
    }

    fn path(&self, token: &JoinToken) -> PathBuf {
        self.0.join(format!("{}.json", token.print().to_hex()))
    }

    fn read(&self, token: &JoinToken) -> Result<Record, JoinTokenError> {
        read_record(&self.path(token)).map_err(|error| match error {
            JoinTokenError::Store(error) if error.is_not_found() => JoinTokenError::Unknown,
            error => error,
        })
    }

    fn write(&self, token: &JoinToken, record: &Record) -> Result<(), JoinTokenError> {
        let path = self.path(token);
        let text = serde_json::to_vec(record).map_err(|error| JoinTokenError::Record {
            path: path.clone(),
            error,
        })?;
        Ok(replace_private(&path, &text)?)
    }

    /// Removes what expired long ago and answers how many are left.
    fn forget_old(&self, now: SystemTime) -> Result<usize, JoinTokenError> {
        let entries = fs::read_dir(&self.0).map_err(KeyStoreError::io("list", &self.0))?;
        let mut left = 0_usize;
        for entry in entries {
            let path = entry.map_err(KeyStoreError::io("list", &self.0))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let old = read_record(&path).is_ok_and(|record| {
                let forgotten = from_unix_seconds(record.expires_unix).checked_add(REMEMBER);
                forgotten.is_some_and(|forgotten| forgotten < now)
            });
            if old {
                fs::remove_file(&path).map_err(KeyStoreError::io("remove", &path))?;
            } else {
                left = left.saturating_add(1);
            }
        }
        Ok(left)
    }
}

fn read_record(path: &Path) -> Result<Record, JoinTokenError> {
    let text = read(path)?;
    serde_json::from_slice(&text).map_err(|error| JoinTokenError::Record {
        path: path.to_owned(),
        error,
    })
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinTokenError {
    #[error(
        "this join token is not known here: it was mistyped, made with another --data-dir, or expired more than a day ago. Make one with `mesh-lite token create NAMESPACE/NAME`"
    )]
    Unknown,
    #[error(
        "this join token expired at {at}: make a new one with `mesh-lite token create {workload}`"
    )]
    Expired { at: String, workload: WorkloadName },
    #[error(
        "this join token was redeemed at {at} and is good for one workload once: make a new one with `mesh-lite token create {workload}`, and find out who used it if it was not you"
    )]
    Redeemed { at: String, workload: WorkloadName },
    #[error(
        "{0} holds {MAX_TOKENS} join tokens that have not expired: wait for some to expire, or remove their files"
    )]
    TooMany(PathBuf),
    #[error("the lifetime is too long to be a date")]
    Lifetime,
    #[error("the record {path} of a join token can't be read or written: {error}")]
    Record {
        path: PathBuf,
        error: serde_json::Error,
    },
    #[error(transparent)]
    Store(#[from] KeyStoreError),
    #[error(transparent)]
    Random(#[from] NoRandomNumbers),
}

impl JoinTokenError {
    /// The caller's token is at fault, not this machine.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Unknown | Self::Expired { .. } | Self::Redeemed { .. }
        )
    }
}

#[cfg(test)]
mod tests;
