//! A network namespace, and how to be in it as some user.

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;

use rustix::process::{Gid, Uid};
use rustix::thread::{
    LinkNameSpaceType, move_into_link_name_space, set_thread_gid, set_thread_groups, set_thread_uid,
};

use crate::process::succeed;

/// Removed when dropped. Sockets made in it keep it alive a little longer.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    handle: File,
}

impl Namespace {
    pub(crate) fn create(name: String) -> Self {
        succeed(Command::new("ip").args(["netns", "add", &name]));
        let handle = File::open(format!("/run/netns/{name}")).unwrap();
        let namespace = Self { name, handle };
        succeed(Command::new("ip").args(["-n", namespace.name(), "link", "set", "lo", "up"]));
        namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` in here as user `uid` without any capability (unless that is root).
    /// Sockets it makes are this user's and stay in here, wherever they are used afterwards.
    pub fn run<T: Send>(&self, uid: u32, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                self.enter(uid);
                work()
            });
            match worker.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// As [`Namespace::run`], for work that goes on until its sockets end.
    pub fn spawn<T: Send + 'static>(
        &self,
        uid: u32,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let handle = self.handle.try_clone().unwrap();
        let inside = Self {
            name: String::new(),
            handle,
        };
        std::thread::spawn(move || {
            inside.enter(uid);
            work()
        })
    }

    /// The calling thread is in here as `uid` from now on.
    fn enter(&self, uid: u32) {
        move_into_link_name_space(self.handle.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        if uid != 0 {
            set_thread_groups(&[]).unwrap();
            set_thread_gid(Gid::from_raw(uid)).unwrap();
            set_thread_uid(Uid::from_raw(uid)).unwrap();
        }
    }

    /// A command in here as user `uid`, with no capability and no way to gain one.
    pub fn command(&self, uid: u32, program: &str) -> Command {
        let mut command = self.command_with(uid, &[]);
        command.arg(program);
        command
    }

    /// As [`Namespace::command`], with the capabilities given, `"net_raw"` say, and no others:
    /// for root as well.
    pub fn command_with_capabilities(&self, uid: u32, given: &[&str], program: &str) -> Command {
        let mut command = self.command_with(uid, given);
        command.arg(program);
        command
    }

    fn command_with(&self, uid: u32, given: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name));
        let kept: String = given.iter().map(|name| format!(",+{name}")).collect();
        let only = format!("-all{kept}");
        // The program must not outlive a test that is killed.
        command.args(["setpriv", "--pdeathsig", "KILL"]);
        if uid != 0 {
            let id = uid.to_string();
            command.args([
                "--reuid",
                &id,
                "--regid",
                &id,
                "--clear-groups",
                "--no-new-privs",
            ]);
            command.args([
                "--bounding-set",
                &only,
                "--inh-caps",
                &only,
                "--ambient-caps",
                &only,
            ]);
        } else if !given.is_empty() {
            // Root gets at exec what its bounding set allows, and nothing more.
            command.args([
                "--no-new-privs",
                "--bounding-set",
                &only,
                "--inh-caps",
                &only,
            ]);
        }
        command.arg("--");
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A worker's view of a namespace has no name to remove.
        if !self.name.is_empty() {
            crate::leftovers::remove_namespace(&self.name);
        }
    }
}
