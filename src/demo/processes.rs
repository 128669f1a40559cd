//! This very program, started in its other roles.

use std::{
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use tokio::process::{Child, Command as AsyncCommand};

/// Runs a role to its end and gives what it printed.
pub(super) fn run_role<A: AsRef<OsStr>>(arguments: &[A]) -> anyhow::Result<String> {
    let output = Command::new(own_program()?)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("could not start a role of this program")?;
    ensure!(
        output.status.success(),
        "{}: {}",
        arguments
            .iter()
            .map(|part| part.as_ref().to_string_lossy())
            .collect::<Vec<_>>()
            .join(" "),
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A role that runs until it is dropped.
pub(super) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    pub(super) fn start<A: AsRef<OsStr>>(log: &Path, arguments: &[A]) -> anyhow::Result<Self> {
        let file = File::create(log).with_context(|| format!("can't write {}", log.display()))?;
        let child = AsyncCommand::new(own_program()?)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("can't share a log file")?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .context("could not start a role of this program")?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// # Errors
    /// If the role has ended, with the end of its log.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait().context("can't look after a role")? {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(5).collect();
            anyhow::bail!(
                "a role ended early ({status}); the end of {}:\n{}",
                self.log.display(),
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        Ok(())
    }
}

fn own_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("can't find this program itself")
}
