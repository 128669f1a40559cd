//! Join tokens: how a workload proves itself the first time where there is no Kubernetes.
//!
//! Printed once, kept as a hash. Redeeming one binds it to the key it was redeemed with: the
//! same key may ask again for a while, and gets the same certificate, in case the first answer
//! was lost. Everybody else learns that the token is used up.
//!
//! A reusable one is for clients that bring no certificate request and send the same file at each
//! start: it opens SDS streams until it expires, and never signs a request.

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
        file_replacement::{create_private_directory, read, replace_private},
        key_store::KeyStoreError,
        random::{NoRandomNumbers, random_bytes},
    },
    clock::{from_unix_seconds, readable, unix_seconds},
    workload_index::WorkloadName,
};

mod refusal;

pub use refusal::JoinTokenError;

/// How long the key that redeemed a token may ask again.
const RETRY: Duration = Duration::from_secs(300);
/// Expired tokens are kept this long, so that a late caller is told "expired", not "unknown".
const REMEMBER: Duration = Duration::from_secs(24 * 3600);
/// A directory that grows without end is a script gone wrong.
const MAX_TOKENS: usize = 10_000;
/// Marks the text as what it is, for those who find it in a log or a repository.
const PREFIX: &str = "mesh-lite-join-";
const REUSABLE_PREFIX: &str = "mesh-lite-stream-";
/// Of a token's hash, as the audit log names it: 64 bits tell 10,000 tokens apart.
const PRINT_DIGITS: usize = 16;

/// A token in the clear. It exists twice: printed by the one who made it, sent by the one who
/// redeems it. No `Debug`.
pub struct JoinToken(Zeroizing<String>);

impl JoinToken {
    fn new(purpose: TokenUse) -> Result<Self, NoRandomNumbers> {
        let secret = Zeroizing::new(random_bytes::<32>()?);
        let hex = Zeroizing::new(mesh_lite_proto::trust_bundle::hex(secret.as_ref()));
        let prefix = match purpose {
            TokenUse::Once => PREFIX,
            TokenUse::Streams => REUSABLE_PREFIX,
        };
        Ok(Self(Zeroizing::new(format!("{prefix}{}", *hex))))
    }

    pub(crate) fn received(text: &str) -> Self {
        Self(Zeroizing::new(text.trim().to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn print(&self) -> KeyPrint {
        KeyPrint::of(self.0.as_bytes())
    }

    pub(crate) fn short_print(&self) -> String {
        short_print(self.print())
    }
}

/// The beginning of a token's hash: finds its file in the data directory, and gives nothing away.
fn short_print(print: KeyPrint) -> String {
    let mut print = print.to_hex();
    print.truncate(PRINT_DIGITS);
    print
}

/// What a token is made for. Decided when it is made, not when it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenUse {
    /// Signs one certificate request.
    Once,
    /// Opens SDS streams until it expires.
    Streams,
}

/// A reusable token that was good when its stream opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamToken {
    pub(crate) workload: WorkloadName,
    pub(crate) expires: SystemTime,
    /// Of the token, as its record is found by.
    pub(crate) print: KeyPrint,
}

impl StreamToken {
    pub(crate) fn short_print(&self) -> String {
        short_print(self.print)
    }

    /// # Errors
    /// If it has expired since the stream opened (SDS-S27).
    pub(crate) fn check_time(&self, now: SystemTime) -> Result<(), JoinTokenError> {
        if now < self.expires {
            return Ok(());
        }
        Err(JoinTokenError::StreamTokenExpired {
            at: readable(self.expires),
            now: readable(now),
            workload: self.workload.clone(),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Record {
    workload: WorkloadName,
    expires_unix: u64,
    #[serde(default)]
    reusable: bool,
    redeemed: Option<Redeemed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Redeemed {
    key_sha256: String,
    at_unix: u64,
    chain_pem: String,
}

impl Redeemed {
    fn refusal(&self, workload: WorkloadName) -> JoinTokenError {
        JoinTokenError::Redeemed {
            at: readable(from_unix_seconds(self.at_unix)),
            workload,
        }
    }
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

/// The tokens of one data directory. One caller for each token at a time: whoever issues holds it
/// from [`JoinTokens::claim`] to [`JoinTokens::redeem`].
#[derive(Debug, Clone)]
pub(crate) struct JoinTokens(PathBuf);

impl JoinTokens {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    pub(crate) fn create(
        &self,
        workload: &WorkloadName,
        purpose: TokenUse,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<JoinToken, JoinTokenError> {
        create_private_directory(&self.0)?;
        if self.forget_old(now)? >= MAX_TOKENS {
            return Err(JoinTokenError::TooMany(self.0.clone()));
        }
        let token = JoinToken::new(purpose)?;
        let expires = now.checked_add(lifetime).ok_or(JoinTokenError::Lifetime)?;
        let record = Record {
            workload: workload.clone(),
            expires_unix: unix_seconds(expires),
            reusable: purpose == TokenUse::Streams,
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
        let record = self.claimable(token.print(), now)?;
        match record.redeemed {
            None => Ok(Claim::Fresh(record.workload)),
            Some(redeemed) if redeemed.key_sha256 == key.to_hex() => Ok(Claim::Again {
                workload: record.workload,
                chain_pem: redeemed.chain_pem,
            }),
            Some(redeemed) => Err(redeemed.refusal(record.workload)),
        }
    }

    /// # Errors
    /// If no key can claim the token: that is known before a certificate request is looked at.
    pub(crate) fn check_claimable(
        &self,
        token: KeyPrint,
        now: SystemTime,
    ) -> Result<(), JoinTokenError> {
        self.claimable(token, now).map(drop)
    }

    fn claimable(&self, token: KeyPrint, now: SystemTime) -> Result<Record, JoinTokenError> {
        let record = self.read(token)?;
        if record.reusable {
            return Err(JoinTokenError::SignsNothing(record.workload));
        }
        let Some(redeemed) = &record.redeemed else {
            let expires = from_unix_seconds(record.expires_unix);
            return if now < expires {
                Ok(record)
            } else {
                Err(JoinTokenError::Expired {
                    at: readable(expires),
                    now: readable(now),
                    workload: record.workload,
                })
            };
        };
        let at = from_unix_seconds(redeemed.at_unix);
        if now < at.checked_add(RETRY).unwrap_or(at) {
            return Ok(record);
        }
        Err(redeemed.refusal(record.workload.clone()))
    }

    /// Whose streams a reusable token opens. Nothing is used up.
    pub(crate) fn open(
        &self,
        token: &JoinToken,
        now: SystemTime,
    ) -> Result<StreamToken, JoinTokenError> {
        self.opened(token.print(), now)
    }

    /// # Errors
    /// If a token whose stream is open has expired since, or was taken back: removing its record
    /// is how.
    pub(crate) fn check_open(
        &self,
        token: &StreamToken,
        now: SystemTime,
    ) -> Result<(), JoinTokenError> {
        match self.opened(token.print, now) {
            Ok(_) => Ok(()),
            Err(JoinTokenError::Unknown) => Err(JoinTokenError::TakenBack(token.workload.clone())),
            Err(error) => Err(error),
        }
    }

    fn opened(&self, print: KeyPrint, now: SystemTime) -> Result<StreamToken, JoinTokenError> {
        let record = self.read(print)?;
        if !record.reusable {
            return Err(JoinTokenError::OpensNothing(record.workload));
        }
        let opened = StreamToken {
            workload: record.workload,
            expires: from_unix_seconds(record.expires_unix),
            print,
        };
        opened.check_time(now)?;
        Ok(opened)
    }

    /// Binds the token to the key, before the certificate is handed out.
    pub(crate) fn redeem(
        &self,
        token: &JoinToken,
        key: KeyPrint,
        chain_pem: String,
        now: SystemTime,
    ) -> Result<(), JoinTokenError> {
        let mut record = self.read(token.print())?;
        let at_unix = unix_seconds(now);
        record.redeemed = Some(Redeemed {
            key_sha256: key.to_hex(),
            at_unix,
            chain_pem,
        });
        self.write(token, &record)
    }

    fn path(&self, print: KeyPrint) -> PathBuf {
        self.0.join(format!("{}.json", print.to_hex()))
    }

    fn read(&self, print: KeyPrint) -> Result<Record, JoinTokenError> {
        read_record(&self.path(print)).map_err(|error| match error {
            JoinTokenError::Store(error) if error.is_not_found() => JoinTokenError::Unknown,
            error => error,
        })
    }

    fn write(&self, token: &JoinToken, record: &Record) -> Result<(), JoinTokenError> {
        let path = self.path(token.print());
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

#[cfg(test)]
mod tests;
