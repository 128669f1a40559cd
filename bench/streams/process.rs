//! What a process used so far, as the kernel counts it.

use std::{fs, time::Duration};

use anyhow::{Context as _, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::sleep;

/// Beside the connections themselves.
const OTHER_FILES: u64 = 256;
/// What the kernel counts time in for users, on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;
/// Memory is settled when it moved by no more than this within a second.
const SETTLED_KIB: u64 = 512;
/// Or when so many seconds have passed.
const MAX_SECONDS: u32 = 15;

/// The callers' sockets are this process's, and so is their limit; the control plane inherits it.
pub(crate) fn raise_open_files(connections: usize) -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    )?;
    let needed = u64::try_from(connections)?.saturating_add(OTHER_FILES);
    ensure!(
        limit.maximum.is_none_or(|maximum| maximum >= needed),
        "{connections} connections need {needed} open files and {:?} are allowed: raise the hard \
         limit (ulimit -Hn), or open fewer",
        limit.maximum
    );
    Ok(())
}

/// CPU seconds of all threads, in user and system mode.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // the program's name, in parentheses, may hold spaces
    let (_, fields) = stat
        .rsplit_once(") ")
        .context("/proc/PID/stat has no name")?;
    let mut fields = fields.split(' ').skip(11);
    let mut ticks = 0_u64;
    for _ in 0..2 {
        let field = fields.next().context("/proc/PID/stat is short")?;
        ticks = ticks.saturating_add(field.parse()?);
    }
    Ok(f64::from(u32::try_from(ticks)?) / TICKS_PER_SECOND)
}

/// Resident memory, once it does not move any more.
pub(crate) async fn settled_kib(pid: u32) -> anyhow::Result<f64> {
    let mut before = resident_kib(pid)?;
    for _ in 0..MAX_SECONDS {
        sleep(Duration::from_secs(1)).await;
        let now = resident_kib(pid)?;
        if now.abs_diff(before) <= SETTLED_KIB {
            break;
        }
        before = now;
    }
    Ok(f64::from(u32::try_from(resident_kib(pid)?)?))
}

/// Resident memory at this moment, in KiB.
#[allow(dead_code, reason = "not every bench asks")]
pub(crate) fn resident(pid: u32) -> anyhow::Result<f64> {
    Ok(f64::from(u32::try_from(resident_kib(pid)?)?))
}

fn resident_kib(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("/proc/PID/status has no VmRSS")?;
    let number = line.trim().trim_end_matches(" kB");
    Ok(number.trim().parse()?)
}
