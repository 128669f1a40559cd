//! `mesh-lite redirect`: install the rules, make the kernel forget what it decided before them,
//! prove that they work, leave a record.

use std::path::{Path, PathBuf};

use super::apply::{Applied, ApplyError, Backend, apply};
use super::conntrack::{self, FlushError};
use super::record::{Record, RecordError, own_network_namespace};
use super::rules::RuleSet;
use super::self_test::{CaptureUnproved, Witness};

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InstallError {
    #[error(
        "capture was not installed, and nothing was changed: this process lacks the capability \
         NET_ADMIN; run it as root, or give it that capability"
    )]
    Unprivileged,
    #[error("capture was not installed")]
    Prepare(#[source] CaptureUnproved),
    #[error("capture was not installed")]
    PrepareRecord(#[source] RecordError),
    #[error("capture was not installed")]
    Apply(#[source] ApplyError),
    #[error("capture is installed, but connections from before it may go by it")]
    Flush(#[source] FlushError),
    #[error(
        "capture is installed, but it is not proved (the guard stays: connections are refused)"
    )]
    Prove(#[source] CaptureUnproved),
    #[error("capture is installed and works, but the sidecar will not know")]
    Record(#[source] RecordError),
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub record: Record,
    /// Where the record was written.
    pub path: PathBuf,
    /// Rules of ours were there before.
    pub replaced: bool,
    /// The kernel was made to forget tracked connections.
    pub flushed: bool,
}

/// Installs and proves capture in this network namespace. Nothing is installed unless all is;
/// once it is, it stays even where the proof fails, because the guard then refuses connections
/// that would otherwise leave in plaintext.
///
/// # Errors
/// Which of the steps failed, and what is in place now.
pub async fn install(
    rules: &RuleSet,
    backend: Option<Backend>,
    state_dir: &Path,
) -> Result<Installed, InstallError> {
    // before the record of an earlier call is removed, which still holds
    if !may_change_rules() {
        return Err(InstallError::Unprivileged);
    }
    let witness =
        Witness::listen_or_find_sidecar(rules.proxy_uid()).map_err(InstallError::Prepare)?;
    Record::make_room(state_dir).map_err(InstallError::PrepareRecord)?;
    let namespace = own_network_namespace().map_err(InstallError::PrepareRecord)?;
    let backend = match backend {
        Some(backend) => backend,
        None => Backend::detect().await.map_err(InstallError::Apply)?,
    };
    let Applied { replaced, digest } = apply(rules, backend).await.map_err(InstallError::Apply)?;
    // Rules of ours were there and a sidecar serves: every tracked connection was decided by
    // rules, and forgetting it would reset those in flight.
    let flushed = !(replaced && witness.is_running_sidecar());
    if flushed {
        conntrack::flush().map_err(InstallError::Flush)?;
    }
    let seen = witness
        .prove_captured(rules.captured_outbound_port())
        .await
        .map_err(InstallError::Prove)?;
    let record = Record::new(namespace, backend.as_str(), rules.proxy_uid(), digest, seen);
    let path = record.write(state_dir).map_err(InstallError::Record)?;
    Ok(Installed {
        record,
        path,
        replaced,
        flushed,
    })
}

/// Where the kernel does not say, the attempt will tell.
fn may_change_rules() -> bool {
    rustix::thread::capabilities(None).map_or(true, |sets| {
        sets.effective
            .contains(rustix::thread::CapabilitySet::NET_ADMIN)
    })
}
