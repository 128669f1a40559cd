//! How long what is no longer allowed lives on: from the document in its place to the reset that
//! the application sees.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use mesh_lite_test_support::{LoopbackMesh, mesh::WEB_ID};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{control_plane::PROGRAM, figures::Figures};

const EVICTED: &str = "An eviction cuts live connections";
const FORBIDDEN: &str = "A policy cuts live connections";
/// Handshakes in flight; a sidecar takes so many strangers of one address.
const AT_ONCE: usize = 16;
/// Thirty times the aim.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between attempts while a document is on its way.
const AGAIN: Duration = Duration::from_millis(50);

const EVICTION: &str = "eviction.yaml";
const POLICY: &str = "policy.yaml";

/// Live connections of web are cut `rounds` times by an eviction, then by a policy; guest's stay.
pub(crate) async fn measure(
    figures: &mut Figures,
    connections: usize,
    rounds: usize,
) -> anyhow::Result<()> {
    let application = echo().await?;
    let mut mesh = LoopbackMesh::start(PROGRAM, application.port(), &policy(&["web", "guest"]));
    mesh.start_sidecars();
    let web = application_side(&mesh, "web");
    let guest = application_side(&mesh, "guest");
    let mut untouched = open(guest, connections).await?;
    for (section, by) in [(EVICTED, Cut::Eviction), (FORBIDDEN, Cut::Policy)] {
        let mut times = Vec::new();
        for _ in 0..rounds {
            until_allowed(web).await?;
            let live = open(web, connections).await?;
            let waiting = ends_of(live);
            let written = Instant::now();
            by.forbid(&mesh);
            let ends = timeout(PATIENCE, waiting.join_all())
                .await
                .context("connections live on")?;
            for end in ends {
                times.push(end?.duration_since(written));
            }
            for stream in &mut untouched {
                echoes(stream)
                    .await
                    .context("another's connection was touched")?;
            }
            by.allow(&mesh)?;
        }
        let (cut, kept) = (u32::try_from(times.len())?, u32::try_from(untouched.len())?);
        figures.add(section, "connections cut", f64::from(cut), "");
        figures.add_times(
            section,
            "from the document to the application's reset",
            times,
        )?;
        let name = "connections of another identity, alive after each cut";
        figures.add(section, name, f64::from(kept), "");
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
enum Cut {
    Eviction,
    Policy,
}

impl Cut {
    fn forbid(self, mesh: &LoopbackMesh) {
        match self {
            Self::Eviction => mesh.write_documents(
                EVICTION,
                &format!(
                    "apiVersion: mesh-lite.io/v1\nkind: Eviction\n\
                     metadata: {{name: web, namespace: shop}}\n\
                     spec: {{spiffeId: \"{WEB_ID}\"}}\n"
                ),
            ),
            Self::Policy => mesh.write_documents(POLICY, &policy(&["guest"])),
        }
    }

    fn allow(self, mesh: &LoopbackMesh) -> anyhow::Result<()> {
        match self {
            Self::Eviction => {
                fs::remove_file(mesh.directory().join("documents").join(EVICTION))?;
            }
            Self::Policy => mesh.write_documents(POLICY, &policy(&["web", "guest"])),
        }
        Ok(())
    }
}

/// Only these may call api.
fn policy(callers: &[&str]) -> String {
    let principals: Vec<String> = callers
        .iter()
        .map(|caller| format!("\"cluster.local/ns/shop/sa/{caller}\""))
        .collect();
    format!(
        "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: api, namespace: shop}}\n\
         spec:\n  selector: {{matchLabels: {{app: api}}}}\n  action: ALLOW\n  rules:\n  \
         - from:\n    - source: {{principals: [{}]}}\n",
        principals.join(", ")
    )
}

/// Where a workload's application dials api: its sidecar's listener.
fn application_side(mesh: &LoopbackMesh, workload: &str) -> SocketAddr {
    (mesh.sidecar(workload).admin().ip(), 8081).into()
}

/// An application that gives back what it gets.
async fn echo() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    });
    Ok(address)
}

/// Connections that have all been through to the application and back.
async fn open(to: SocketAddr, count: usize) -> anyhow::Result<Vec<TcpStream>> {
    let (room, mut tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for _ in 0..count {
        let room = Arc::clone(&room);
        tasks.spawn(async move {
            let _turn = room.acquire().await?;
            call(to).await
        });
    }
    tasks.join_all().await.into_iter().collect()
}

async fn call(to: SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(to).await?;
    echoes(&mut stream).await?;
    Ok(stream)
}

async fn echoes(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut answer = [0; 4];
    timeout(PATIENCE, async {
        stream.write_all(b"ping").await?;
        stream.read_exact(&mut answer).await
    })
    .await??;
    ensure!(&answer == b"ping", "echoed {answer:?}");
    Ok(())
}

async fn until_allowed(to: SocketAddr) -> anyhow::Result<()> {
    let allowed = async {
        while call(to).await.is_err() {
            sleep(AGAIN).await;
        }
    };
    timeout(PATIENCE, allowed)
        .await
        .context("not allowed again")
}

/// When each connection is reset; anything else is an error.
fn ends_of(live: Vec<TcpStream>) -> JoinSet<anyhow::Result<Instant>> {
    let mut tasks = JoinSet::new();
    for mut stream in live {
        tasks.spawn(async move {
            match stream.read_u8().await {
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    Ok(Instant::now())
                }
                other => bail!("neither alive nor reset: {other:?}"),
            }
        });
    }
    tasks
}
