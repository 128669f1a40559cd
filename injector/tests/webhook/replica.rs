//! A replica of the injector in this process, and a client that trusts what the API server would.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::ByteString;
use mesh_lite_injector::{
    clock::Clock,
    mesh_settings::MeshSettings,
    webhook::{Bound, Pace, Settings, run},
};
use mesh_lite_test_support::{ApiServer, eventually};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::oneshot, task::JoinHandle};

pub(crate) const SECRET: &str = "mesh-lite-injector-serving";
pub(crate) const MESH: &str = "mesh-lite-system";
const REGISTRATION: &str = "MutatingWebhookConfiguration";
const CALLED: &str = "mesh-lite-injector.mesh-lite-system.svc";

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A cluster with the mesh's registration, as installed, and a labelled namespace.
pub(crate) fn cluster() -> ApiServer {
    let api = ApiServer::start();
    api.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata":
        {"name": "shop", "labels": {"mesh-lite.io/inject": "enabled"}}}));
    api.put(registration());
    api
}

/// As `mesh-lite install` prints it: without caBundle.
pub(crate) fn registration() -> Value {
    let webhook = |name: &str| {
        json!({"name": name, "failurePolicy": "Fail", "clientConfig":
            {"service": {"name": "mesh-lite-injector", "namespace": MESH, "path": "/inject"}}})
    };
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": REGISTRATION,
        "metadata": {"name": "mesh-lite-injector"},
        "webhooks": [webhook("namespaces.inject.mesh-lite.io"), webhook("pods.inject.mesh-lite.io")]})
}

/// What the API server trusts of each webhook, PEM; empty where nothing.
pub(crate) fn trusted(api: &ApiServer) -> [String; 2] {
    let registration = api.get(REGISTRATION, "", "mesh-lite-injector").unwrap();
    [0, 1].map(|index| {
        let bundle = &registration["webhooks"][index]["clientConfig"]["caBundle"];
        if bundle.is_null() {
            return String::new();
        }
        let bytes: ByteString = serde_json::from_value(bundle.clone()).unwrap();
        String::from_utf8(bytes.0).unwrap()
    })
}

pub(crate) struct Replica {
    pub(crate) bound: Bound,
    runtime: Runtime,
    end: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
}

impl Replica {
    pub(crate) fn start(api: &ApiServer, clock: Clock) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let settings = Settings {
            listen: loopback,
            admin_listen: loopback,
            mesh: MeshSettings::with_image("mesh-lite:test").unwrap(),
            drain: Duration::from_millis(300),
            pace: Pace {
                poll: Duration::from_millis(200),
                settling: Duration::from_millis(500),
            },
        };
        let url = format!("http://{}", api.address()).parse().unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let (tell, bound) = std::sync::mpsc::channel();
        let running = runtime.spawn(async move {
            let client = kube::Client::try_from(kube::Config::new(url)).unwrap();
            let ended = async {
                let _ = ended.await;
            };
            run(settings, client, clock, ended, |bound| {
                tell.send(bound).unwrap()
            })
            .await
            .unwrap();
        });
        Self {
            bound: bound.recv().unwrap(),
            runtime,
            end: Some(end),
            running: Some(running),
        }
    }

    pub(crate) fn ready(api: &ApiServer, clock: Clock) -> Self {
        let replica = Self::start(api, clock);
        eventually("the replica is ready and trusted", || {
            match replica.page("/readyz") {
                (200, text) if text == "ok\n" => Ok(()),
                other => Err(other),
            }
        });
        replica
    }

    /// Of the plain listener.
    pub(crate) fn page(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.bound.admin).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    /// As the API server connects: it trusts `roots` and asks for the Service's name.
    pub(crate) fn connect(&self, roots: &str) -> io::Result<Tls> {
        self.connect_from(Ipv4Addr::LOCALHOST.into(), roots)
    }

    pub(crate) fn connect_from(&self, source: IpAddr, roots: &str) -> io::Result<Tls> {
        let mut store = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
            store.add(root.unwrap()).unwrap();
        }
        let config = ClientConfig::builder()
            .with_root_certificates(store)
            .with_no_client_auth();
        let name = ServerName::try_from(CALLED).unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(client, self.tcp_from(source)?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(stream)
    }

    pub(crate) fn tcp_from(&self, source: IpAddr) -> io::Result<TcpStream> {
        let socket = self.runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4()?;
            socket.bind((source, 0).into())?;
            socket.connect(self.bound.webhook).await
        })?;
        let socket = socket.into_std()?;
        socket.set_nonblocking(false)?;
        socket.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(socket)
    }

    /// SIGTERM, in effect; returns at once.
    pub(crate) fn terminate(&mut self) {
        self.end.take().unwrap().send(()).unwrap();
    }

    pub(crate) fn wait(&mut self) {
        let running = self.running.take().unwrap();
        self.runtime.block_on(running).unwrap();
    }
}

/// A status, the head and the body.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

pub(crate) fn post(stream: &mut Tls, path: &str, body: &[u8]) -> io::Result<Reply> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    reply(stream)
}

pub(crate) fn reply(stream: &mut Tls) -> io::Result<Reply> {
    let mut bytes = Vec::new();
    let end = loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        bytes.extend(byte);
        if bytes.ends_with(b"\r\n\r\n") {
            break bytes.len();
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec())
        .unwrap()
        .to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Reply {
        status: head[9..12].parse().unwrap(),
        head,
        body: String::from_utf8(body).unwrap(),
    })
}

/// A review of a pod in this namespace.
pub(crate) fn review(namespace: &str) -> Vec<u8> {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u-1", "operation": "CREATE", "namespace": namespace,
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "object": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"},
            "spec": {"containers": [{"name": "app", "image": "app:1"}]}}}})
    .to_string()
    .into_bytes()
}
