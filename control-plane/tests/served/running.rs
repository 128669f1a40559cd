//! A control plane in this process, on ports of its own, with directories of its own.

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use mesh_lite_control_plane::{
    Bound, RunError,
    clock::{self, Clock},
    outbound_rules::OutboundRules,
    policy_index::ShippedDefaults,
    root_commands::{
        NewRoot, Places, ROOT_LIFETIME, Renewal, RootMode, RootReport, create_token, init_root,
        renew_root,
    },
    run_by_clock,
    settings::{DocumentSource, Settings},
};
use mesh_lite_proto::trust_bundle::TrustBundle;
use spiffe::TrustDomain;
use tempfile::TempDir;
use tokio::{
    sync::oneshot,
    task::JoinHandle,
    time::{self, Instant},
};

/// Ten times what any wait here should take at most.
const DEADLINE: Duration = Duration::from_secs(50);

pub(crate) const WORKLOADS: &str = "\
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {serviceAccount: web, addresses: [10.0.0.1]}
---
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: api, namespace: shop, labels: {app: api}}
spec: {serviceAccount: api, addresses: [10.0.0.2, 'fd00::2'], tunnelPort: 25008}
---
apiVersion: mesh-lite.io/v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {addresses: [10.96.0.1], ports: [{port: 80, targetPort: 8080}], selector: {app: api}}
";

pub(crate) struct Running {
    pub(crate) bound: Bound,
    pub(crate) directories: Directories,
    shutdown: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), RunError>>,
}

/// What a control plane leaves behind when it ends.
pub(crate) struct Directories {
    _temporary: TempDir,
    pub(crate) data: PathBuf,
    pub(crate) config: PathBuf,
    /// What everything here goes by.
    pub(crate) clock: Clock,
}

pub(crate) fn trust_domain() -> TrustDomain {
    TrustDomain::new("mesh.test").unwrap()
}

impl Directories {
    /// With a root, an issuing CA, and the workloads above.
    pub(crate) fn new() -> Self {
        Self::made(RootMode::Kept, clock::now)
    }

    pub(crate) fn made(mode: RootMode, clock: Clock) -> Self {
        let temporary = TempDir::new().unwrap();
        let (data, config) = (
            temporary.path().join("state"),
            temporary.path().join("documents"),
        );
        std::fs::create_dir(&config).unwrap();
        let directories = Self {
            _temporary: temporary,
            data,
            config,
            clock,
        };
        directories.init_root_in_mode("root", mode);
        directories.write("workloads.yaml", WORKLOADS);
        directories
    }

    pub(crate) fn places(&self, root: &str) -> Places {
        Places {
            data_dir: self.data.clone(),
            root_dir: Some(self.data.join(root)),
        }
    }

    pub(crate) fn init_root(&self, root: &str) -> RootReport {
        self.init_root_in_mode(root, RootMode::Kept)
    }

    fn init_root_in_mode(&self, root: &str, mode: RootMode) -> RootReport {
        let new = NewRoot {
            trust_domain: trust_domain(),
            root_lifetime: ROOT_LIFETIME,
            mode: Some(mode),
            issuing_lifetime: None,
        };
        init_root(&self.places(root), &new, (self.clock)()).unwrap()
    }

    pub(crate) fn renew_root(&self) -> RootReport {
        renew_root(&self.places("root"), Renewal::default(), (self.clock)()).unwrap()
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            data_dir: self.data.clone(),
            documents: DocumentSource::Directory(self.config.clone()),
            shipped: ShippedDefaults::STRICT,
            trust_domain: trust_domain(),
            mesh_namespace: "mesh-lite-system".to_owned(),
            istio_root_namespace: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            leaf_lifetime: Duration::from_secs(3600),
            outbound: OutboundRules::default(),
            allow_remote_keys: false,
        }
    }

    /// As an editor or a deployment does it: whole, by renaming.
    pub(crate) fn write(&self, file: &str, text: &str) {
        let beside = self.config.join(format!(".{file}"));
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, self.config.join(file)).unwrap();
    }

    pub(crate) fn remove(&self, file: &str) {
        std::fs::remove_file(self.config.join(file)).unwrap();
    }

    pub(crate) fn token(&self, workload: &str) -> String {
        self.token_for(workload, Duration::from_secs(600))
    }

    pub(crate) fn token_for(&self, workload: &str, lifetime: Duration) -> String {
        let workload = workload.parse().unwrap();
        let token = create_token(&self.data, &workload, lifetime, (self.clock)()).unwrap();
        token.as_str().to_owned()
    }

    pub(crate) fn trust_bundle(&self) -> TrustBundle {
        bundle_at(&self.data.join("trust-bundle.pem"))
    }
}

pub(crate) fn bundle_at(path: &Path) -> TrustBundle {
    TrustBundle::from_pem(trust_domain(), &std::fs::read(path).unwrap()).unwrap()
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::start_in(Directories::new()).await
    }

    pub(crate) async fn start_in(directories: Directories) -> Self {
        let settings = directories.settings();
        Self::start_with(directories, settings).await
    }

    pub(crate) async fn start_with(directories: Directories, settings: Settings) -> Self {
        let (shutdown, told) = oneshot::channel();
        let (bound, addresses) = oneshot::channel();
        let clock = directories.clock;
        let task = tokio::spawn(async move {
            let told = async { drop(told.await) };
            let bound = |addresses| bound.send(addresses).unwrap();
            run_by_clock(settings, clock, told, bound).await
        });
        let Ok(bound) = addresses.await else {
            panic!("it did not start: {}", task.await.unwrap().unwrap_err());
        };
        Self {
            bound,
            directories,
            shutdown: Some(shutdown),
            task,
        }
    }

    /// Tells it to end and waits until it has.
    pub(crate) async fn end(mut self) -> Directories {
        self.tell_to_end();
        self.ended().await
    }

    pub(crate) fn tell_to_end(&mut self) {
        let _ = self.shutdown.take().unwrap().send(());
    }

    pub(crate) async fn ended(self) -> Directories {
        in_time("the control plane ends", self.task)
            .await
            .unwrap()
            .unwrap();
        self.directories
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.bound.admin)
            .await
            .unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// The value of one series, 0 if there is none yet.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let (_, text) = self.get("/metrics").await;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    pub(crate) async fn wait_for_metric(&self, series: &str, value: f64) {
        eventually(&format!("{series} is {value}"), async || {
            (self.metric(series).await >= value).then_some(())
        })
        .await;
    }
}

/// Tries until there is a value.
pub(crate) async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    match time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}
