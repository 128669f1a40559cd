//! What a test needs of the machine. A test that cannot run says so, loudly and countably.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// File to which tests that cannot run append a line; `tests/run` prints and counts them.
const NOT_RUN_FILE: &str = "MESH_LITE_NOT_RUN";
/// Names the binary of the release before this one.
const PREVIOUS: &str = "MESH_LITE_PREVIOUS";

/// Whether this process may make network namespaces and be several users. If not, the test
/// named is put on record as not run, and must return.
pub fn namespaces(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    not_run(
        test,
        "network namespaces with several users in them need root",
    );
    false
}

/// Whether `program` is installed; if not, the test is put on record as not run.
/// As root nothing is forgiven: `tests/run` installs what is needed.
pub fn program(test: &str, program: &str) -> bool {
    if crate::process::find(program).is_some() {
        return true;
    }
    assert!(
        !rustix::process::geteuid().is_root(),
        "{program} is not installed; tests/run installs it"
    );
    not_run(test, &format!("{program} is not installed"));
    false
}

/// As [`program`], for what is not in the usual places.
pub fn file(test: &str, what: &str, path: &Path) -> bool {
    if path.is_file() {
        return true;
    }
    assert!(
        !rustix::process::geteuid().is_root(),
        "{what} is not at {}; tests/run installs it",
        path.display()
    );
    not_run(test, &format!("{what} is not installed"));
    false
}

/// The release before this one, which `tests/run` has built by `tests/previous_release`; if there
/// is none, the test is put on record as not run: a copy without history can't build it.
pub fn previous_release(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os(PREVIOUS).map(PathBuf::from);
    if let Some(path) = &path {
        assert!(path.is_file(), "{PREVIOUS} names {}", path.display());
    } else {
        let reason = format!("{PREVIOUS} is not set: tests/previous_release makes and names it");
        not_run(test, &reason);
    }
    path
}

/// Puts the test named on record as not run, or not run in part.
pub fn not_run(test: &str, reason: &str) {
    let line = format!("not run: {test}: {reason}\n");
    eprint!("{line}");
    let file: Option<OsString> = std::env::var_os(NOT_RUN_FILE);
    if let Some(path) = file {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// At the head of a test that needs network namespaces: returns from it where there are none.
#[macro_export]
macro_rules! needs_namespaces {
    ($test:expr) => {
        if !$crate::requirements::namespaces($test) {
            return;
        }
    };
}

/// One `#[test]` per backend of capture for each scenario, in a module of its name.
/// The doc line above a scenario names what it proves and is put above each of its tests.
#[macro_export]
macro_rules! on_each_backend {
    ($($(#[doc = $doc:literal])+ fn $name:ident($backend:ident) $body:block)+) => {$(
        mod $name {
            #[allow(unused_imports, reason = "not every scenario needs all of its file's names")]
            use super::*;

            pub(super) fn scenario($backend: &'static str) $body

            $(#[doc = $doc])+
            #[test]
            fn nft() {
                $crate::needs_namespaces!(concat!(module_path!(), "::nft"));
                scenario("nft");
            }

            $(#[doc = $doc])+
            #[test]
            fn iptables() {
                $crate::needs_namespaces!(concat!(module_path!(), "::iptables"));
                scenario("iptables");
            }
        }
    )+};
}
