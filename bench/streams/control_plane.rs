//! The control plane that is measured: the real program, started as an operator would.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use mesh_lite_test_support::{LoopbackMesh, loopback_mesh::WEB_ONLY};

use crate::process::cpu_seconds;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");

/// Documents in one file; it may have 1,024.
const DOCUMENTS: usize = 1000;

pub(crate) struct ControlPlane {
    mesh: LoopbackMesh,
    pid: u32,
    /// Roots that are not in the trust bundle yet, PEM.
    more_roots: Vec<String>,
}

impl ControlPlane {
    /// `changes`: how often the trust bundle will change.
    pub(crate) fn start(identities: usize, changes: usize) -> anyhow::Result<Self> {
        let mut mesh = LoopbackMesh::prepare(PROGRAM, 1, WEB_ONLY, &[]);
        write_workloads(&mesh, identities)?;
        mesh.start_control_plane();
        let pid = mesh.control_plane_pid().context("no control plane runs")?;
        let more_roots = (0..changes)
            .map(|number| new_root(&mesh.directory().join(format!("root-{number}"))))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            mesh,
            pid,
            more_roots,
        })
    }

    pub(crate) fn mesh(&self) -> &LoopbackMesh {
        &self.mesh
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        cpu_seconds(self.pid)
    }

    /// The trust bundle with one root more than there are, and how many those are then; nothing
    /// is written yet.
    pub(crate) fn longer_bundle(&self, change: usize) -> anyhow::Result<NewBundle> {
        let path = trust_bundle(&self.mesh);
        let mut text = fs::read_to_string(&path)?;
        let root = self.more_roots.get(change).context("no root is left")?;
        text.push_str(root);
        let roots = text.matches("-----BEGIN CERTIFICATE-----").count();
        let beside = path.with_extension("pem.new");
        fs::write(&beside, text)?;
        Ok(NewBundle {
            beside,
            path,
            roots,
        })
    }
}

/// The name of a caller's workload, in namespace shop.
pub(crate) fn workload(number: usize) -> String {
    format!("caller-{number}")
}

fn write_workloads(mesh: &LoopbackMesh, count: usize) -> anyhow::Result<()> {
    for first in (0..count).step_by(DOCUMENTS) {
        let documents = (first..count.min(first + DOCUMENTS)).map(|number| {
            let [_, one, two, three] = u32::try_from(number + 1)?.to_be_bytes();
            let name = workload(number);
            Ok(format!(
                "apiVersion: mesh-lite.io/v1\nkind: Workload\n\
                 metadata: {{name: {name}, namespace: shop}}\n\
                 spec: {{serviceAccount: {name}, addresses: [10.{one}.{two}.{three}]}}\n---\n"
            ))
        });
        let text = documents.collect::<anyhow::Result<String>>()?;
        mesh.write_documents(&format!("callers-{first}.yaml"), &text);
    }
    Ok(())
}

/// Written beside its place, as every tool that replaces a file should.
pub(crate) struct NewBundle {
    beside: PathBuf,
    path: PathBuf,
    pub(crate) roots: usize,
}

impl NewBundle {
    pub(crate) fn put_in_place(&self) -> anyhow::Result<()> {
        Ok(fs::rename(&self.beside, &self.path)?)
    }
}

pub(crate) fn trust_bundle(mesh: &LoopbackMesh) -> PathBuf {
    mesh.state().join("trust-bundle.pem")
}

/// A root of the same trust domain, as its own directory has it.
fn new_root(directory: &Path) -> anyhow::Result<String> {
    let made = Command::new(PROGRAM)
        .args(["root", "init", "--data-dir"])
        .arg(directory)
        .output()?;
    ensure!(
        made.status.success(),
        "no further root: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    Ok(fs::read_to_string(directory.join("trust-bundle.pem"))?)
}
