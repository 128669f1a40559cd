//! A sidecar of a pod: started, asked, killed, started again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::access_log::AccessLog;
use crate::applications::http_get;
use crate::eventually::eventually_within;
use crate::network::Network;
use crate::process::Process;

use super::METRICS_PORT;

/// A sidecar that can be killed and started again.
#[derive(Debug)]
pub struct Sidecar {
    pub(super) process: Option<Process>,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) health: SocketAddr,
    pub(super) log: AccessLog,
    pub(super) home: PathBuf,
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) uid: u32,
}

impl Sidecar {
    /// What it was started with: same user, same directories.
    pub fn start(&mut self, network: &Network) {
        let pod = network
            .pods()
            .into_iter()
            .find(|pod| pod.namespace.name() == self.namespace);
        let namespace = &pod.expect("a pod of this network").namespace;
        let program = self.program.to_str().expect("a path of our own making");
        let mut command = namespace.command(self.uid, program);
        command.args(&self.arguments);
        self.process = Some(Process::start(&self.name, command, &self.home));
    }

    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the sidecar runs")
    }

    /// SIGKILL, without a chance to say anything to anybody.
    pub fn kill(&mut self) {
        self.process = None;
    }

    pub fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// As [`Process::stop`].
    pub fn stop(&self) {
        self.process().stop();
    }

    /// Waits for a sidecar that ends by itself, or was told to.
    pub fn ended(&mut self) -> std::process::ExitStatus {
        self.process
            .as_mut()
            .expect("the sidecar was started")
            .ended()
    }

    pub fn output(&self) -> String {
        self.process().output()
    }

    /// Key, certificate and state lie here.
    pub fn data_dir(&self) -> &Path {
        self.log
            .path
            .parent()
            .expect("the log is in the data directory")
    }

    pub fn log(&self) -> &AccessLog {
        &self.log
    }

    /// What `/readyz` says: status and text.
    pub fn readiness(&self, network: &Network) -> std::io::Result<(u16, String)> {
        http_get(&network.node, self.health, "/readyz")
    }

    pub fn wait_ready(&self, network: &Network) {
        eventually_within(
            Duration::from_secs(60),
            &format!("{} is ready", self.name),
            || match self.readiness(network) {
                Ok((200, _)) => Ok(()),
                other => Err(format!("{other:?}")),
            },
        );
    }

    /// The metrics page.
    pub fn metrics(&self, network: &Network) -> String {
        let address = SocketAddr::new(self.health.ip(), METRICS_PORT);
        let (status, page) = http_get(&network.node, address, "/metrics").unwrap();
        assert_eq!(status, 200, "{page}");
        page
    }

    /// Sum of a counter over all its labels that contain `label`.
    pub fn counter(&self, network: &Network, name: &str, label: &str) -> f64 {
        let page = self.metrics(network);
        page.lines()
            .filter(|line| line.starts_with(name) && line.contains(label))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}
