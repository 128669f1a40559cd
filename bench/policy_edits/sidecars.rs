//! The sidecars of the bench: those that every loopback mesh has, and a replica each of web and
//! of api, since one sidecar takes no more than 7,500 connections from outside.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use mesh_lite_test_support::{
    LoopbackMesh, Process, applications::http_get_here, eventually, loopback_mesh::WORKLOADS,
};

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");

/// Name and service account; after the addresses that the mesh itself uses in its block.
const REPLICAS: [(&str, &str, u8); 2] = [("web-2", "web", 5), ("api-2", "api", 6)];

/// One that runs, and where its application finds it.
pub(crate) struct Sidecar {
    pub(crate) name: &'static str,
    address: IpAddr,
    pub(crate) pid: u32,
    output: std::path::PathBuf,
    /// Of a replica, which the mesh knows nothing of: ended when dropped.
    _process: Option<Process>,
}

impl Sidecar {
    /// Where its application dials api.
    pub(crate) fn application_side(&self) -> SocketAddr {
        (self.address, 8081).into()
    }

    /// Whether a policy of this name is in force.
    pub(crate) fn has(&self, policy: &str) -> anyhow::Result<bool> {
        let (status, page) = http_get_here((self.address, 15000).into(), "/policy")?;
        ensure!(status == 200, "{}: /policy answers {status}", self.name);
        Ok(page.contains(policy))
    }

    /// What it said so far, lines of JSON.
    pub(crate) fn said(&self) -> anyhow::Result<String> {
        Ok(fs::read_to_string(&self.output)?)
    }
}

/// All five, ready.
pub(crate) fn start(mesh: &mut LoopbackMesh, port: u16) -> anyhow::Result<Vec<Sidecar>> {
    let documents: Vec<String> = REPLICAS
        .iter()
        .map(|(name, account, place)| {
            Ok(format!(
                "apiVersion: mesh-lite.io/v1\nkind: Workload\n\
                 metadata: {{name: {name}, namespace: shop}}\n\
                 spec:\n  serviceAccount: {account}\n  addresses: [\"{}\"]\n  \
                 labels: {{app: {account}}}\n",
                address(mesh, *place)?
            ))
        })
        .collect::<anyhow::Result<_>>()?;
    mesh.write_documents("replicas.yaml", &documents.join("---\n"));
    mesh.start_sidecars();
    let mut all: Vec<Sidecar> = WORKLOADS
        .iter()
        .map(|&name| {
            let sidecar = mesh.sidecar(name);
            Sidecar {
                name,
                address: sidecar.admin().ip(),
                pid: sidecar.pid(),
                output: sidecar.folder().join(format!("sidecar-{name}.output")),
                _process: None,
            }
        })
        .collect();
    for (name, account, place) in REPLICAS {
        let address = address(mesh, place)?;
        all.push(replica(
            mesh,
            name,
            address,
            (account == "api").then_some(port),
        )?);
    }
    Ok(all)
}

/// An address of the mesh's block, which has eight.
fn address(mesh: &LoopbackMesh, place: u8) -> anyhow::Result<IpAddr> {
    let IpAddr::V4(first) = mesh.control_plane_address().ip() else {
        bail!("the mesh is not on IPv4");
    };
    let [a, b, c, d] = first.octets();
    let last = d.checked_add(place).context("the block is full")?;
    Ok(Ipv4Addr::new(a, b, c, last).into())
}

fn replica(
    mesh: &LoopbackMesh,
    name: &'static str,
    address: IpAddr,
    serves: Option<u16>,
) -> anyhow::Result<Sidecar> {
    let folder = mesh.directory().join(name);
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    let token = folder.join("join-token");
    fs::write(&token, mesh.token(name))?;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
    let at = |port: u16| SocketAddr::from((address, port)).to_string();
    let path = |path: &Path| path.display().to_string();
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", PROGRAM, "proxy"]);
    for (setting, value) in [
        ("--control-plane", mesh.control_plane_address().to_string()),
        (
            "--trust-bundle",
            path(&mesh.state().join("trust-bundle.pem")),
        ),
        ("--join-token-file", path(&token)),
        ("--data-dir", path(&folder)),
        ("--capture", "explicit".to_owned()),
        ("--upstreams", format!("{}=shop/api:80", at(8081))),
        ("--tunnel-listen", at(15008)),
        ("--admin-listen", at(15000)),
        ("--metrics-listen", at(15020)),
        ("--health-listen", at(15021)),
        ("--access-log", path(&folder.join("access.log"))),
        ("--drain-delay", "0".to_owned()),
    ] {
        command.args([setting, &value]);
    }
    if let Some(port) = serves {
        command.args(["--inbound-ports", &port.to_string()]);
    }
    let process = Process::start(name, command, &folder);
    eventually(
        &format!("the sidecar of {name} is ready"),
        || match http_get_here((address, 15021).into(), "/readyz") {
            Ok((200, _)) => Ok(()),
            other => Err(format!("{other:?}: {}", process.output())),
        },
    );
    Ok(Sidecar {
        name,
        address,
        pid: process.pid(),
        output: folder.join(format!("{name}.output")),
        _process: Some(process),
    })
}
