//! What a killed run leaves behind: namespaces, processes in them, directories.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// Everything of ours begins with this and the id of the process that made it.
const PREFIX: &str = "ml-test-";

/// A name that no other test has, now or in a run beside this one.
pub(crate) fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{PREFIX}{}-{number}", std::process::id())
}

/// A name that all tests of one run share: they have one parent, which ends with the run.
pub(crate) fn name_of_the_run() -> String {
    format!("{PREFIX}{}-run", std::os::unix::process::parent_id())
}

/// Removes what processes that are no more have left. Once per process.
pub(crate) fn sweep() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for path in ours(Path::new("/run/netns")) {
            if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                remove_namespace(name);
            }
        }
        for path in ours(&std::env::temp_dir()) {
            let _ = fs::remove_dir_all(path);
        }
    });
}

/// Entries of `directory` whose maker is no more.
fn ours(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let maker = path
                .file_name()
                .and_then(|name| {
                    name.to_str()?
                        .strip_prefix(PREFIX)?
                        .split('-')
                        .next()?
                        .parse()
                        .ok()
                })
                .and_then(Pid::from_raw);
            maker.is_some_and(|maker| test_kill_process(maker).is_err())
        })
        .collect()
}

/// Ends every process in a namespace and removes it.
pub(crate) fn remove_namespace(name: &str) {
    if let Ok(listed) = Command::new("ip").args(["netns", "pids", name]).output() {
        for pid in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
            let pid = pid.parse().ok().and_then(Pid::from_raw);
            // A thread of this very process may still be inside.
            if let Some(pid) =
                pid.filter(|pid| pid.as_raw_nonzero().get().cast_unsigned() != std::process::id())
            {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
    let _ = Command::new("ip").args(["netns", "delete", name]).output();
}
