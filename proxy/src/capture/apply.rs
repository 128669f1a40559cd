//! Hands rules to the kernel's own tools, whole or not at all.
//!
//! nft takes one transaction for both families. iptables has one per family and table: every
//! text is tested before the first is committed, and what was committed is taken back (or put
//! back as it was) when a later one fails.

use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::rules::{Family, JumpsPresent, NFT_TABLE, RuleSet, Table};

/// The tools answer within milliseconds; iptables waits up to 5 s for another iptables.
const TOOL_TIMEOUT: Duration = Duration::from_secs(20);
/// Seconds that iptables may wait for the lock of another iptables.
const XTABLES_WAIT: &str = "5";
/// Of a tool's complaint, this much is shown.
const SHOWN_COMPLAINT: usize = 2048;
/// Tools are looked for here and nowhere else, whatever the caller's environment says.
const TOOL_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";

/// The kernel interface that holds the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Nft,
    /// The system's `iptables-restore`, whichever it is.
    Iptables,
    /// For kernels without nf_tables.
    IptablesLegacy,
}

impl Backend {
    pub const ALL: [Self; 3] = [Self::Nft, Self::Iptables, Self::IptablesLegacy];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Iptables => "iptables",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }

    /// nft where it is installed, else iptables: the first that answers at all.
    ///
    /// # Errors
    /// Neither is installed, or one of them cannot be started.
    pub async fn detect() -> Result<Self, ApplyError> {
        for (backend, program) in [(Self::Nft, "nft"), (Self::Iptables, "iptables-restore")] {
            match run(program, &["--version"], None).await {
                Ok(_) => return Ok(backend),
                Err(ApplyError::Missing { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Err(ApplyError::NoBackend)
    }

    fn programs(self, family: Family) -> IptablesPrograms {
        match (self, family) {
            (Self::IptablesLegacy, Family::V4) => IptablesPrograms {
                check: "iptables-legacy",
                save: "iptables-legacy-save",
                restore: "iptables-legacy-restore",
            },
            (Self::IptablesLegacy, Family::V6) => IptablesPrograms {
                check: "ip6tables-legacy",
                save: "ip6tables-legacy-save",
                restore: "ip6tables-legacy-restore",
            },
            (_, Family::V4) => IptablesPrograms {
                check: "iptables",
                save: "iptables-save",
                restore: "iptables-restore",
            },
            (_, Family::V6) => IptablesPrograms {
                check: "ip6tables",
                save: "ip6tables-save",
                restore: "ip6tables-restore",
            },
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Backend {
    type Err = UnknownBackend;

    fn from_str(text: &str) -> Result<Self, UnknownBackend> {
        Self::ALL
            .into_iter()
            .find(|backend| backend.as_str() == text)
            .ok_or_else(|| UnknownBackend(text.to_owned()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no backend; take nft, iptables or iptables-legacy")]
pub struct UnknownBackend(String);

/// What the kernel has after a successful [`apply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Rules of ours were there before and were replaced.
    pub replaced: bool,
    /// SHA-256 of the rule texts, lower-case hex: the same settings give the same.
    pub digest: String,
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    #[error(
        "neither nft nor iptables-restore is installed (looked in {TOOL_PATH}); install the \
         package nftables"
    )]
    NoBackend,
    #[error(
        "{program} is not installed (looked in {TOOL_PATH}); install it or name another --backend"
    )]
    Missing { program: &'static str },
    #[error("could not run {program}")]
    Start {
        program: &'static str,
        source: io::Error,
    },
    #[error("{program} did not answer within {} s", TOOL_TIMEOUT.as_secs())]
    TimedOut { program: &'static str },
    #[error(
        "{program} {arguments} failed ({status}): {complaint}{}",
        rights(program)
    )]
    Failed {
        program: &'static str,
        arguments: String,
        status: ExitStatus,
        complaint: String,
    },
    #[error("{cause}; and what was installed before that could not be taken back: {rollback}")]
    HalfInstalled {
        cause: Box<Self>,
        rollback: Box<Self>,
    },
}

/// The older interface complains of tables when it lacks a right.
fn rights(program: &str) -> &'static str {
    if program.contains("legacy") {
        "; this interface needs NET_RAW besides NET_ADMIN"
    } else {
        ""
    }
}

/// Installs `rules`, replacing ours if they are there, leaving everybody else's alone.
///
/// # Errors
/// The kernel's tool refused: then nothing of this call is installed.
pub async fn apply(rules: &RuleSet, backend: Backend) -> Result<Applied, ApplyError> {
    match backend {
        Backend::Nft => apply_nft(rules).await,
        Backend::Iptables | Backend::IptablesLegacy => apply_iptables(rules, backend).await,
    }
}

async fn apply_nft(rules: &RuleSet) -> Result<Applied, ApplyError> {
    let listed = run("nft", &["list", "table", "inet", NFT_TABLE], None).await;
    let replaced = answered_yes(listed)?;
    let text = rules.nft();
    run("nft", &["-f", "-"], Some(&text)).await?;
    Ok(Applied {
        replaced,
        digest: digest(&[&text]),
    })
}

async fn apply_iptables(rules: &RuleSet, backend: Backend) -> Result<Applied, ApplyError> {
    let mut before = Vec::new();
    for family in Family::BOTH {
        before.push(Before::read(backend.programs(family)).await?);
    }
    let steps: Vec<_> = Family::BOTH
        .into_iter()
        .zip(&before)
        .map(|(family, before)| {
            (
                backend.programs(family),
                rules.iptables(family, before.jumps),
                before,
            )
        })
        .collect();
    for (programs, text, _) in &steps {
        let test = ["--test", "--noflush", "-w", XTABLES_WAIT];
        run(programs.restore, &test, Some(text)).await?;
    }
    for (index, (programs, text, _)) in steps.iter().enumerate() {
        let commit = ["--noflush", "-w", XTABLES_WAIT];
        let Err(cause) = run(programs.restore, &commit, Some(text)).await else {
            continue;
        };
        // Tables commit one by one, so the failing text may be half in as well.
        for (programs, _, before) in steps.iter().take(index + 1) {
            if let Err(rollback) = before.put_back(*programs).await {
                return Err(ApplyError::HalfInstalled {
                    cause: Box::new(cause),
                    rollback: Box::new(rollback),
                });
            }
        }
        return Err(cause);
    }
    let texts = Family::BOTH.map(|family| rules.iptables(family, JumpsPresent::default()));
    Ok(Applied {
        replaced: before.iter().any(|before| before.jumps.any()),
        digest: digest(&texts.each_ref().map(String::as_str)),
    })
}

/// The programs of one family.
#[derive(Debug, Clone, Copy)]
struct IptablesPrograms {
    check: &'static str,
    save: &'static str,
    restore: &'static str,
}

/// Our part of one family's tables before this call.
struct Before {
    jumps: JumpsPresent,
    /// Rules inside our chains, as `iptables-save` writes them; empty if there were none.
    filter: Vec<String>,
    nat: Vec<String>,
}

impl Before {
    async fn read(programs: IptablesPrograms) -> Result<Self, ApplyError> {
        let jumps = jumps_present(programs).await?;
        let (mut filter, mut nat) = (Vec::new(), Vec::new());
        if jumps.any() {
            filter = own_rules(programs, Table::Filter).await?;
            nat = own_rules(programs, Table::Nat).await?;
        }
        Ok(Self { jumps, filter, nat })
    }

    async fn put_back(&self, programs: IptablesPrograms) -> Result<(), ApplyError> {
        let now = jumps_present(programs).await?;
        let mut text = String::new();
        for (table, there_now, there_before, rules) in [
            (Table::Filter, now.filter, self.jumps.filter, &self.filter),
            (Table::Nat, now.nat, self.jumps.nat, &self.nat),
        ] {
            text.push_str(&restoration(table, there_now, there_before, rules));
        }
        run(
            programs.restore,
            &["--noflush", "-w", XTABLES_WAIT],
            Some(&text),
        )
        .await?;
        Ok(())
    }
}

/// Text that brings one table's part of ours back to what it was.
fn restoration(table: Table, now: [bool; 2], before: [bool; 2], rules: &[String]) -> String {
    let mut lines = vec![format!("*{}", table.name())];
    lines.extend(table.chains().map(|chain| format!(":{chain} - [0:0]")));
    for (jump, _) in table.jumps().iter().zip(now).filter(|(_, now)| *now) {
        lines.push(format!("-D {}", jump.rule));
    }
    lines.extend(rules.iter().cloned());
    for (jump, _) in table
        .jumps()
        .iter()
        .zip(before)
        .filter(|(_, before)| *before)
    {
        lines.push(format!("-I {}", jump.rule));
    }
    if before == [false; 2] {
        lines.extend(table.chains().map(|chain| format!("-X {chain}")));
    }
    lines.push("COMMIT\n".to_owned());
    lines.join("\n")
}

async fn jumps_present(programs: IptablesPrograms) -> Result<JumpsPresent, ApplyError> {
    let mut present = JumpsPresent::default();
    for (table, present) in [
        (Table::Filter, &mut present.filter),
        (Table::Nat, &mut present.nat),
    ] {
        for (jump, present) in table.jumps().iter().zip(present) {
            let mut arguments = vec!["-w", XTABLES_WAIT, "-t", jump.table, "-C"];
            arguments.extend(jump.rule.split(' '));
            *present = answered_yes(run(programs.check, &arguments, None).await)?;
        }
    }
    Ok(present)
}

async fn own_rules(programs: IptablesPrograms, table: Table) -> Result<Vec<String>, ApplyError> {
    let saved = run(programs.save, &["-t", table.name()], None).await?;
    let ours = table.chains().map(|chain| format!("-A {chain} "));
    let is_ours = |line: &&str| ours.iter().any(|start| line.starts_with(start.as_str()));
    Ok(saved.lines().filter(is_ours).map(str::to_owned).collect())
}

/// Questions are asked by exit status. A tool that cannot answer for want of rights says no
/// here, and fails with its own words when the rules are handed to it.
fn answered_yes(answer: Result<String, ApplyError>) -> Result<bool, ApplyError> {
    match answer {
        Ok(_) => Ok(true),
        Err(ApplyError::Failed { .. }) => Ok(false),
        Err(other) => Err(other),
    }
}

/// Runs a tool to its end; what it printed.
async fn run(
    program: &'static str,
    arguments: &[&str],
    input: Option<&str>,
) -> Result<String, ApplyError> {
    let start = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ApplyError::Missing { program },
        _ => ApplyError::Start { program, source },
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", TOOL_PATH)
        .env("LC_ALL", "C")
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(start)?;
    let stdin = child.stdin.take();
    let talk = async {
        if let (Some(mut stdin), Some(input)) = (stdin, input) {
            // A tool that refuses early closes its end; its exit status tells why.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(TOOL_TIMEOUT, talk)
        .await
        .map_err(|_| ApplyError::TimedOut { program })?
        .map_err(start)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(ApplyError::Failed {
        program,
        arguments: arguments.join(" "),
        status: output.status,
        complaint: complaint.trim().chars().take(SHOWN_COMPLAINT).collect(),
    })
}

fn digest(texts: &[&str]) -> String {
    let mut context = Context::new(&SHA256);
    for text in texts {
        context.update(text.as_bytes());
    }
    context
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_backends_are_refused_by_name() {
        for text in ["", "auto", "NFT", "nftables", "ipfw"] {
            let refused = text.parse::<Backend>().unwrap_err();
            assert!(
                refused.to_string().contains("take nft, iptables"),
                "{refused}"
            );
        }
    }

    #[test]
    fn a_restoration_to_nothing_leaves_no_chain_and_no_jump() {
        let text = restoration(Table::Nat, [true, false], [false; 2], &[]);
        assert_eq!(
            text,
            "*nat\n:ML_OUT - [0:0]\n:ML_IN - [0:0]\n-D OUTPUT -p tcp -j ML_OUT\n-X ML_OUT\n-X ML_IN\nCOMMIT\n"
        );
    }

    #[test]
    fn a_restoration_to_earlier_rules_keeps_them_and_their_jumps() {
        let rules = ["-A ML_GOUT -o lo -j RETURN".to_owned()];
        let text = restoration(Table::Filter, [true, true], [true, true], &rules);
        assert_eq!(
            text,
            "*filter\n:ML_GOUT - [0:0]\n:ML_GIN - [0:0]\n\
             -D OUTPUT -p tcp --syn -j ML_GOUT\n-D INPUT -p tcp --syn -j ML_GIN\n\
             -A ML_GOUT -o lo -j RETURN\n\
             -I OUTPUT -p tcp --syn -j ML_GOUT\n-I INPUT -p tcp --syn -j ML_GIN\nCOMMIT\n"
        );
    }

    #[tokio::test]
    async fn a_tool_that_is_not_installed_is_named() {
        let error = run("mesh-lite-no-such-tool", &[], None).await.unwrap_err();
        assert!(matches!(
            error,
            ApplyError::Missing {
                program: "mesh-lite-no-such-tool"
            }
        ));
    }

    #[tokio::test]
    async fn a_tool_that_fails_is_quoted() {
        let error = run("sh", &["-c", "echo no such table >&2; exit 3"], None)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("no such table"), "{error}");
    }
}
