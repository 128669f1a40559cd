//! Where the time of an edit goes, by the times in the logs: document, control plane, sidecar.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use mesh_lite_test_support::LoopbackMesh;
use prost_types::Timestamp;
use serde_json::Value;

use crate::sidecars::Sidecar;

/// The parts of one edit, one after the other.
pub(crate) struct Timeline {
    /// Until the control plane has read the directory and split it into documents.
    pub(crate) read: Duration,
    /// Until the sidecar has the snapshot: documents loaded, snapshot made, sent, decoded.
    pub(crate) in_force: Duration,
}

impl Timeline {
    /// Of the edit that put `file` in its place last.
    pub(crate) fn of(mesh: &LoopbackMesh, sidecar: &Sidecar, file: &str) -> anyhow::Result<Self> {
        let written = modified(&mesh.directory().join("documents").join(file))?;
        let read = last(&mesh.control_plane_output(), "documents read")?;
        let in_force = last(&sidecar.said()?, "policy")?;
        Ok(Self {
            read: read.duration_since(written).unwrap_or_default(),
            in_force: in_force.duration_since(read).unwrap_or_default(),
        })
    }
}

fn modified(path: &Path) -> anyhow::Result<SystemTime> {
    Ok(fs::metadata(path)?.modified()?)
}

/// When a program last logged this message.
fn last(log: &str, message: &str) -> anyhow::Result<SystemTime> {
    let lines = log.lines().rev();
    let mut lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line = lines
        .find(|line| line.pointer("/fields/message").and_then(Value::as_str) == Some(message))
        .with_context(|| format!("nothing logged {message:?}"))?;
    let time = line.get("timestamp").and_then(Value::as_str);
    let time: Timestamp = time.context("a line without a time")?.parse()?;
    Ok(time.try_into()?)
}

/// CPU seconds of all threads that live, to the nanosecond: one edit is less than a tick.
pub(crate) fn cpu_of_threads(pid: u32) -> anyhow::Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let on_cpu = text.split(' ').next().context("schedstat is empty")?;
        nanoseconds += on_cpu.parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}
