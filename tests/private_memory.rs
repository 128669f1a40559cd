//! What other processes of the same user learn of a process that holds keys: nothing.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use mesh_lite_test_support::applications::Server;
use mesh_lite_test_support::loopback_mesh::WEB_ONLY;
use mesh_lite_test_support::process::finish;
use mesh_lite_test_support::requirements::not_run;
use mesh_lite_test_support::{LoopbackMesh, NOBODY_UID, eventually};
use rustix::process::{Pid, Signal, geteuid, kill_process};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");

/// Root may read everything: what these tests show is only to be seen as an ordinary user. As
/// root the test runs itself again as one.
fn as_ordinary_user(test: &str, check: fn()) {
    if !geteuid().is_root() {
        return check();
    }
    let own = std::env::current_exe().unwrap();
    let nobody = NOBODY_UID.to_string();
    let mut again = Command::new("setpriv");
    again.args([
        "--reuid",
        &nobody,
        "--regid",
        &nobody,
        "--clear-groups",
        "--",
    ]);
    let readable = finish(
        Command::new("setpriv")
            .args(again.get_args())
            .args(["test", "-x", PROGRAM]),
    );
    if !readable.status.success() {
        return not_run(test, "the user nobody may not read this directory");
    }
    again
        .arg(own)
        .args(["--exact", test, "--nocapture"])
        .env("HOME", "/tmp");
    let output = finish(&mut again);
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

/// What of a process only its own user may read; each with whether it can be read.
fn readable_parts(pid: u32) -> Vec<(&'static str, bool)> {
    let of = |part: &str| format!("/proc/{pid}/{part}");
    let opened = |part: &str| {
        let mut byte = [0];
        fs::File::open(of(part)).and_then(|mut file| file.read_exact(&mut byte))
    };
    // nothing is mapped at 0: reading there fails with EIO, once the file is open
    let memory = fs::File::open(of("mem")).map(drop);
    [
        ("mem", memory),
        ("environ", opened("environ")),
        ("maps", opened("maps")),
        ("auxv", opened("auxv")),
        ("fd", fs::read_dir(of("fd")).map(drop)),
        ("exe", fs::read_link(of("exe")).map(drop)),
    ]
    .into_iter()
    .map(|(part, read): (_, io::Result<()>)| (part, read.is_ok()))
    .collect()
}

fn core_limit(pid: u32) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = line.unwrap().split_whitespace().skip(4).take(2).collect();
    words.join(" ")
}

/// SDS-S29
#[test]
fn a_process_of_the_same_user_reads_nothing_of_one_that_holds_keys() {
    as_ordinary_user(
        "a_process_of_the_same_user_reads_nothing_of_one_that_holds_keys",
        || {
            let server = Server::greeting_here((Ipv4Addr::LOCALHOST, 0).into(), "api");
            let mut mesh = LoopbackMesh::start(PROGRAM, server.address().port(), WEB_ONLY);
            mesh.start_sidecar("web").wait_ready();
            let (sidecar, control_plane) =
                (mesh.sidecar("web").pid(), mesh.control_plane_pid().unwrap());
            let other = Ended::with(Command::new("sleep").arg("600"));
            // the kernel lets the parent go on before the new program's environment is there
            eventually("all of another process can be read", || {
                let all = readable_parts(other.0.id());
                if all.iter().all(|(_, readable)| *readable) {
                    Ok(())
                } else {
                    Err(all)
                }
            });
            for pid in [sidecar, control_plane] {
                let of_ours = readable_parts(pid);
                assert!(of_ours.iter().all(|(_, readable)| !readable), "{of_ours:?}");
                assert_eq!(core_limit(pid), "0 0");
            }
        },
    );
}

/// A process that ends with the test.
struct Ended(Child);

impl Ended {
    fn with(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// Sends `signal` until the process is gone: a handler may let the first one pass.
    fn by(mut self, signal: Signal) -> ExitStatus {
        eventually("it ends by the signal", || {
            let ended = self.0.try_wait().unwrap();
            if ended.is_none() {
                kill_process(Pid::from_child(&self.0), signal).unwrap();
            }
            ended.ok_or("it runs")
        })
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs in `folder` with every limit on core files lifted.
fn with_cores(folder: &Path, program: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -c unlimited && exec \"$@\"", "sh", program])
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn cores(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).unwrap();
    let is_core = |name: &str| name.starts_with("core");
    entries
        .filter(|entry| is_core(&entry.as_ref().unwrap().file_name().to_string_lossy()))
        .count()
}

/// A sidecar that has started: its lock file is there. It finds no control plane.
fn started_sidecar(folder: &Path) -> Ended {
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    let mut command = with_cores(folder, PROGRAM);
    command.args([
        "proxy",
        "--control-plane",
        "127.0.0.1:1",
        "--trust-bundle",
        "absent.pem",
    ]);
    command
        .args(["--capture", "explicit", "--access-log", "off", "--data-dir"])
        .arg(&data);
    for listener in ["tunnel", "admin", "metrics", "health"] {
        command.args([&format!("--{listener}-listen"), "127.0.0.1:0"]);
    }
    let mut sidecar = Ended::with(&mut command);
    eventually("it has started", || {
        assert_eq!(sidecar.0.try_wait().unwrap(), None);
        data.join("sidecar.lock").metadata()
    });
    sidecar
}

/// SDS-S29
#[test]
fn a_crash_leaves_no_core_file() {
    as_ordinary_user("a_crash_leaves_no_core_file", || {
        for signal in [Signal::ABORT, Signal::SEGV] {
            let folder = tempfile::tempdir().unwrap();
            let other = Ended::with(with_cores(folder.path(), "sleep").arg("600"));
            eventually("sleep has taken the shell's place", || {
                let name = fs::read_to_string(format!("/proc/{}/comm", other.0.id())).unwrap();
                if name == "sleep\n" { Ok(()) } else { Err(name) }
            });
            if !other.by(signal).core_dumped() {
                return not_run(
                    "a_crash_leaves_no_core_file",
                    "this kernel writes none for anybody",
                );
            }
            let before = cores(folder.path());
            let ended = started_sidecar(folder.path()).by(signal);
            assert_eq!(ended.signal(), Some(signal.as_raw()), "{ended}");
            assert!(!ended.core_dumped(), "{ended}");
            assert_eq!(cores(folder.path()), before);
        }
    });
}
