//! Programs that run beside a test: their output is kept, shown if the test fails, and they end
//! with it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::eventually::eventually;

/// Of a program's output, this much is shown when a test fails.
const SHOWN: usize = 6000;

/// A program that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts `command`; what it prints goes to a file named after it in `directory`.
    pub fn start(name: &str, mut command: Command, directory: &Path) -> Self {
        let output = directory.join(format!("{name}.output"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&output)
            .unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {command:?}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            output,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn output(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(pid_of(&self.child), signal)
            .unwrap_or_else(|error| panic!("{}: {signal:?}: {error}", self.name));
    }

    /// SIGSTOP, and waits until every thread of it stands still: the signal alone returns before.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.child.id());
        eventually(&format!("{} stands still", self.name), || {
            let mut states = Vec::new();
            for task in fs::read_dir(&tasks).unwrap() {
                let stat =
                    fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
                let state = stat
                    .rsplit(") ")
                    .next()
                    .and_then(|rest| rest.chars().next());
                states.push(state.unwrap_or('?'));
            }
            if states.iter().all(|state| *state == 'T') {
                Ok(())
            } else {
                Err(states)
            }
        });
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits for the program to end by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let name = self.name.clone();
        eventually(&format!("{name} ends"), || {
            self.child.try_wait().unwrap().ok_or("it runs")
        })
    }

    /// Fails the test if the program has ended.
    pub fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} ended ({status}): {}", self.name, self.output());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!(
                "--- {} (last {SHOWN} bytes)\n{}",
                self.name,
                tail(&self.output())
            );
        }
    }
}

/// The end of a long text, for a failing test's report.
pub fn tail(text: &str) -> &str {
    let start = text.len().saturating_sub(SHOWN);
    let start = (start..=text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0);
    &text[start..]
}

/// Runs a command that must succeed; what it printed.
pub fn succeed(command: &mut Command) -> String {
    let output = finish(command);
    assert!(
        output.status.success(),
        "{command:?} ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail; what it complained.
pub fn fail(command: &mut Command) -> String {
    let output = finish(command);
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success(),
        "{command:?} succeeded:\n{}{complaint}",
        String::from_utf8_lossy(&output.stdout)
    );
    complaint
}

/// Runs a command to its end, however that is.
pub fn finish(command: &mut Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Where a program is installed, looking where root would.
pub fn find(program: &str) -> Option<PathBuf> {
    [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
    .iter()
    .map(|directory| Path::new(directory).join(program))
    .find(|path| path.is_file())
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}
