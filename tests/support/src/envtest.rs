//! A real API server of Kubernetes, as the envtest convention has it: the directory that
//! `KUBEBUILDER_ASSETS` names holds `etcd` and `kube-apiserver`, and perhaps
//! `kube-controller-manager`. There is no kubelet: pods are admitted and stay pending.
//!
//! With `USE_EXISTING_CLUSTER=true` the cluster that `KUBECONFIG` names is used instead, which
//! may have nodes and objects of its own.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api_server::base64;
use crate::eventually::eventually_within;
use crate::process::{Process, finish};
use crate::requirements::not_run;

/// An API server under load on two cores took 20 s.
const START: Duration = Duration::from_secs(120);
const NETWORKS: &str = "10.96.0.0/16";

/// At the head of a test that needs a real API server: returns from it where there is none.
#[macro_export]
macro_rules! needs_api_server {
    ($test:expr) => {
        match $crate::envtest::Cluster::start($test) {
            Some(cluster) => cluster,
            None => return,
        }
    };
}

/// A cluster, until it is dropped.
#[derive(Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    own: Option<OwnCluster>,
}

/// Processes end before their directory goes.
#[derive(Debug)]
struct OwnCluster {
    controllers: Option<Process>,
    api_server: Option<Process>,
    _etcd: Process,
    assets: PathBuf,
    etcd_port: u16,
    port: u16,
    directory: TempDir,
}

impl Cluster {
    /// None, and the test is on record as not run, where no cluster can be had.
    pub fn start(test: &str) -> Option<Self> {
        if variable("USE_EXISTING_CLUSTER").is_some_and(|value| value == "true") {
            let kubeconfig = variable("KUBECONFIG").expect("USE_EXISTING_CLUSTER needs KUBECONFIG");
            return Some(Self {
                kubeconfig: kubeconfig.into(),
                own: None,
            });
        }
        let assets = variable("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let programs = ["etcd", "kube-apiserver"];
        let has_all = |assets: &PathBuf| programs.iter().all(|name| assets.join(name).is_file());
        let Some(assets) = assets.filter(has_all) else {
            not_run(
                test,
                "KUBEBUILDER_ASSETS names no directory with etcd and kube-apiserver",
            );
            return None;
        };
        let own = OwnCluster::start(assets);
        Some(Self {
            kubeconfig: own.path("admin.kubeconfig"),
            own: Some(own),
        })
    }

    /// Of somebody with every right.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Whether Deployments become pods, service accounts are made, and namespaces go away.
    pub fn has_controllers(&self) -> bool {
        self.own
            .as_ref()
            .is_none_or(|own| own.controllers.is_some())
    }

    /// Whether the API server is the test's own, to be killed and started again.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Requests of a namespace's service accounts that have been answered so far, as the API
    /// server's audit has them; none of a cluster that is not the test's own.
    pub fn requests_of(&self, namespace: &str) -> Vec<Value> {
        let Some(own) = &self.own else {
            return Vec::new();
        };
        let account = format!("system:serviceaccount:{namespace}:");
        let text = fs::read_to_string(own.path("audit.log")).unwrap_or_default();
        let events = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        events
            .filter(|event: &Value| {
                let user = event["user"]["username"].as_str();
                user.is_some_and(|user| user.starts_with(&account))
            })
            .collect()
    }

    /// SIGKILL: connections are cut, new ones are refused.
    pub fn kill_api_server(&mut self) {
        self.own_mut().api_server = None;
    }

    /// On the port it had, with what it had stored.
    pub fn start_api_server_again(&mut self) {
        self.own_mut().start_api_server();
    }

    fn own_mut(&mut self) -> &mut OwnCluster {
        self.own.as_mut().expect("an API server of the test's own")
    }
}

impl OwnCluster {
    fn start(assets: PathBuf) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [etcd_port, peer_port, port] = free_ports();
        write_credentials(directory.path(), port);
        let mut etcd = Command::new(assets.join("etcd"));
        let [own, peers] = [etcd_port, peer_port].map(|port| format!("http://127.0.0.1:{port}"));
        etcd.arg("--data-dir").arg(directory.path().join("etcd"));
        etcd.args([
            "--listen-client-urls",
            &own,
            "--advertise-client-urls",
            &own,
        ]);
        etcd.args([
            "--listen-peer-urls",
            &peers,
            "--initial-advertise-peer-urls",
            &peers,
        ]);
        etcd.args(["--initial-cluster", &format!("default={peers}")]);
        etcd.args(["--unsafe-no-fsync", "--log-level", "error"]);
        let etcd = Process::start("etcd", etcd, directory.path());
        let mut cluster = Self {
            controllers: None,
            api_server: None,
            _etcd: etcd,
            assets,
            etcd_port,
            port,
            directory,
        };
        cluster.start_api_server();
        cluster.start_controllers();
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start_api_server(&mut self) {
        let mut command = Command::new(self.assets.join("kube-apiserver"));
        for (flag, file) in [
            ("--tls-cert-file", "server.crt"),
            ("--tls-private-key-file", "server.key"),
            ("--client-ca-file", "ca.crt"),
            ("--service-account-key-file", "accounts.pub"),
            ("--service-account-signing-key-file", "accounts.key"),
            ("--cert-dir", "certificates"),
            ("--audit-policy-file", "audit.policy"),
            ("--audit-log-path", "audit.log"),
        ] {
            command.arg(flag).arg(self.path(file));
        }
        command.args([
            &format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port),
            &format!("--secure-port={}", self.port),
            "--bind-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            &format!("--service-cluster-ip-range={NETWORKS}"),
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--feature-gates=ClusterTrustBundle=true",
            "--runtime-config=certificates.k8s.io/v1beta1/clustertrustbundles=true",
        ]);
        let mut server = Process::start("kube-apiserver", command, self.directory.path());
        eventually_within(START, "the API server is ready", || {
            server.assert_runs();
            let mut ask = Command::new("curl");
            ask.args(["-sS", "-m", "5"]);
            for (flag, file) in [
                ("--cacert", "ca.crt"),
                ("--cert", "admin.crt"),
                ("--key", "admin.key"),
            ] {
                ask.arg(flag).arg(self.path(file));
            }
            ask.arg(format!("https://127.0.0.1:{}/readyz", self.port));
            let output = finish(&mut ask);
            match output.stdout.as_slice() {
                b"ok" => Ok(()),
                other => Err(String::from_utf8_lossy(other).into_owned()),
            }
        });
        self.api_server = Some(server);
    }

    fn start_controllers(&mut self) {
        let program = self.assets.join("kube-controller-manager");
        if !program.is_file() {
            return;
        }
        let mut command = Command::new(program);
        for (flag, file) in [
            ("--kubeconfig", "admin.kubeconfig"),
            ("--service-account-private-key-file", "accounts.key"),
            ("--root-ca-file", "ca.crt"),
            ("--cert-dir", "certificates"),
        ] {
            command.arg(flag).arg(self.path(file));
        }
        command.args(["--leader-elect=false", "--secure-port=0"]);
        // Token requests are signed by the API server; what is left of it has to be quick here.
        command.args(["--kube-api-qps=200", "--kube-api-burst=400"]);
        let process = Process::start("kube-controller-manager", command, self.directory.path());
        self.controllers = Some(process);
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        // In this order nobody logs that another went.
        for process in [&mut self.controllers, &mut self.api_server]
            .into_iter()
            .flatten()
        {
            process.signal(Signal::KILL);
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the convention is this variable")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

/// The authority, the API server's certificate, an administrator's with a kubeconfig, and the key
/// of service-account tokens.
fn write_credentials(directory: &Path, port: u16) {
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.distinguished_name
        .push(DnType::CommonName, "test cluster");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let signed = |mut params: CertificateParams, usage: ExtendedKeyUsagePurpose| {
        let key = KeyPair::generate().unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"].map(str::to_owned);
    let server = CertificateParams::new(names).unwrap();
    let (server, server_key) = signed(server, ExtendedKeyUsagePurpose::ServerAuth);
    let mut admin = CertificateParams::new(Vec::new()).unwrap();
    admin.distinguished_name.push(DnType::CommonName, "admin");
    admin
        .distinguished_name
        .push(DnType::OrganizationName, "system:masters");
    let (admin, admin_key) = signed(admin, ExtendedKeyUsagePurpose::ClientAuth);
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority-data": base64(ca_pem.as_bytes())}}],
        "users": [{"name": "admin", "user": {
            "client-certificate-data": base64(admin.as_bytes()),
            "client-key-data": base64(admin_key.as_bytes())}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}]});
    write("ca.crt", &ca_pem);
    write("server.crt", &server);
    write("server.key", &server_key);
    write("admin.crt", &admin);
    write("admin.key", &admin_key);
    write("admin.kubeconfig", &kubeconfig.to_string());
    let audit = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}]});
    write("audit.policy", &audit.to_string());
    let accounts = KeyPair::generate().unwrap();
    write("accounts.key", &accounts.serialize_pem());
    write("accounts.pub", &accounts.public_key_pem());
}

#[cfg(test)]
mod tests;
