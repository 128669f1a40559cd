//! Key, certificate and trust bundle as files, for an application that is a server or client of TLS
//! itself. A key and a certificate of their own: the sidecar's never leaves it this way, and names of
//! services are in this certificate alone.
//!
//! Issued anew whenever the sidecar's own certificate is, so one schedule renews both.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use mesh_lite_proto::{svid::Serial, trust_bundle::pem};
use tokio::sync::watch;
use tonic::transport::Channel;
use zeroize::Zeroizing;

use crate::{
    back_off::BackOff,
    clock::Clock,
    identity::{
        Identity,
        issuer_client::{Attempt, Credential, Expected, IssueError, issue},
        key_and_csr::{KeyAndRequest, KeyError},
        token_file::TokenFile,
    },
};

mod volume;

use volume::replace_all;

const KEY: &str = "tls.key";
const CERTIFICATE: &str = "tls.crt";
const TRUST_BUNDLE: &str = "ca.crt";

/// As for the sidecar's own certificate while there is time.
const DEADLINE: Duration = Duration::from_secs(10);

/// Keeps the files current.
pub(crate) struct AppFiles {
    pub(crate) directory: PathBuf,
    pub(crate) identities: watch::Receiver<Option<Arc<Identity>>>,
    pub(crate) channels: watch::Receiver<Option<Channel>>,
    pub(crate) token_file: Option<TokenFile>,
    pub(crate) pod_uid: String,
    pub(crate) clock: Clock,
}

/// What lies in the directory.
struct Written {
    /// Of the sidecar's certificate that they were made beside.
    beside: Serial,
    bundle: String,
    pair: Pair,
}

/// PEM.
#[derive(Clone)]
struct Pair {
    key: Zeroizing<String>,
    chain: String,
}

impl AppFiles {
    /// Runs until there are no identities any more, which is when the sidecar ends. The files stay:
    /// the application may still be ending.
    pub(crate) async fn run(mut self) {
        let mut back_off = BackOff::new(&format!("{} files", self.pod_uid));
        let mut written = None;
        loop {
            let identity = self.identities.borrow_and_update().clone();
            let mut retry = None;
            if let Some(identity) = identity {
                match self.refresh(&identity, &mut written).await {
                    Ok(()) => back_off.succeeded(),
                    Err(error) => {
                        let after = back_off.after_failure();
                        let directory = self.directory.display();
                        tracing::warn!(%error, %directory, ?after, "the application's certificate files are not renewed yet");
                        retry = Some(after);
                    }
                }
            }
            let pause = async {
                match retry {
                    Some(after) => tokio::time::sleep(after).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.identities.changed() => if changed.is_err() { return },
                () = pause => {}
            }
        }
    }

    async fn refresh(
        &self,
        identity: &Arc<Identity>,
        written: &mut Option<Written>,
    ) -> Result<(), FilesError> {
        let beside = identity.leaf.serial.clone();
        let bundle = identity.trust_bundle.to_pem();
        let pair = match written {
            Some(before) if before.beside == beside && before.bundle == bundle => return Ok(()),
            Some(before) if before.beside == beside => before.pair.clone(),
            _ => self.issue(identity).await?,
        };
        self.write(&pair, &bundle).await?;
        tracing::info!(directory = %self.directory.display(), "the application's certificate files are current");
        *written = Some(Written {
            beside,
            bundle,
            pair,
        });
        Ok(())
    }

    async fn issue(&self, identity: &Arc<Identity>) -> Result<Pair, FilesError> {
        let channel = self.channels.borrow().clone();
        let channel = channel.ok_or(FilesError::NoChannel)?;
        let credential = match &self.token_file {
            Some(file @ TokenFile::ServiceAccount(_)) => Credential::Token(file.clone()),
            Some(TokenFile::Join(_)) | None => Credential::Svid,
        };
        let attempt = Attempt {
            credential,
            key: Arc::new(KeyAndRequest::generate()?),
            node_id: self.pod_uid.clone(),
            deadline: DEADLINE,
            service_names: true,
        };
        let expected = Expected {
            trust_bundle: &identity.trust_bundle,
            before: Some(&identity.leaf.id),
        };
        let issued = issue(channel, &attempt, expected, self.clock).await?;
        let certificates = issued.chain.iter();
        Ok(Pair {
            key: issued.key.to_pem(),
            chain: certificates.map(|it| pem("CERTIFICATE", it)).collect(),
        })
    }

    async fn write(&self, pair: &Pair, bundle: &str) -> Result<(), FilesError> {
        let (directory, pair) = (self.directory.clone(), pair.clone());
        let bundle = bundle.to_owned();
        let written = tokio::task::spawn_blocking(move || {
            let files = [
                (KEY, pair.key.as_str()),
                (CERTIFICATE, &pair.chain),
                (TRUST_BUNDLE, &bundle),
            ];
            replace_all(&directory, &files)
        });
        written
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the writing was broken off")))
            .map_err(|error| FilesError::Write {
                directory: self.directory.clone(),
                error,
            })
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    #[error("there is no connection to the control plane")]
    NoChannel,
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error(
        "certificate files can't be written to {}: {error}. Make it a directory that the sidecar's user may write",
        directory.display()
    )]
    Write {
        directory: PathBuf,
        error: io::Error,
    },
}
