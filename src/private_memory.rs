//! Keeps what is in this process's memory from everybody but root: keys are there.

use anyhow::Context;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// To be called before any key is read. From then on other processes of the same user can't
/// attach to this one, nor read its memory, environment or open files in /proc, and a crash
/// leaves no core file. What the process reads of itself in /proc stays readable.
///
/// # Errors
/// If the kernel refuses: a role that holds keys then does not start.
pub(crate) fn keep() -> anyhow::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .context("this process's memory can't be kept from others (PR_SET_DUMPABLE)")?;
    // a second reason for no core file: it holds for programs that this one starts, too
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none).context("core files can't be switched off (RLIMIT_CORE)")
}
