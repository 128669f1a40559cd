//! Thousands of streams, and a change that has to reach all of them.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use mesh_lite_proto::wire::envoy::service::{
    discovery::v3::DiscoveryRequest,
    secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::{
    caller::{Caller, Site, acknowledgement, roots_in, subscription},
    control_plane::ControlPlane,
    figures::Figures,
    process::settled_kib,
};

const CONNECTIONS: &str = "Connections and SDS streams";
const CHANGE: &str = "A change of the trust bundle";
/// Handshakes, and streams without an answer yet.
const AT_ONCE: usize = 32;
/// Ten times what a change should take, and more.
const PATIENCE: Duration = Duration::from_secs(60);
/// After a change has arrived everywhere: acknowledgements are still on their way.
const ACKNOWLEDGED: Duration = Duration::from_secs(1);

/// That a stream has a trust bundle of so many roots.
struct Arrived {
    stream: usize,
    roots: usize,
    at: Instant,
}

pub(crate) struct Streams {
    channels: Vec<Channel>,
    arrived: mpsc::Receiver<Arrived>,
    /// Ends the streams when dropped.
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Streams {
    pub(crate) fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// When each stream had this bundle.
    async fn all_have(&mut self, roots: usize) -> anyhow::Result<Vec<Instant>> {
        let mut waiting: HashSet<usize> = (0..self.channels.len()).collect();
        let mut times = Vec::with_capacity(waiting.len());
        while !waiting.is_empty() {
            let arrived = tokio::select! {
                arrived = timeout(PATIENCE, self.arrived.recv()) => arrived
                    .with_context(|| format!("{} streams still wait", waiting.len()))?
                    .context("nobody listens to the streams")?,
                Some(ended) = self.tasks.join_next() => {
                    ended?.context("a stream failed")?;
                    bail!("the control plane ended a stream");
                }
            };
            if arrived.roots == roots && waiting.remove(&arrived.stream) {
                times.push(arrived.at);
            }
        }
        Ok(times)
    }
}

/// `count` connections, and a stream on each.
pub(crate) async fn open(
    control_plane: &ControlPlane,
    site: &Site,
    callers: &[Caller],
    count: usize,
    figures: &mut Figures,
) -> anyhow::Result<Streams> {
    let pid = control_plane.pid();
    let number = f64::from(u32::try_from(count)?);
    let (memory, cpu) = (settled_kib(pid).await?, control_plane.cpu_seconds()?);
    let channels = connect(site, callers, count).await?;
    let cpu_connected = control_plane.cpu_seconds()?;
    let connected = settled_kib(pid).await?;
    let cpu_before = control_plane.cpu_seconds()?;
    let (told, arrived) = mpsc::channel(count.max(1));
    let (room, mut tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for (stream, channel) in channels.iter().cloned().enumerate() {
        tasks.spawn(follow(channel, stream, Arc::clone(&room), told.clone()));
    }
    let mut streams = Streams {
        channels,
        arrived,
        tasks,
    };
    streams.all_have(1).await?;
    let streaming = settled_kib(pid).await?;
    let cpu_streaming = control_plane.cpu_seconds()?;
    for (name, value, unit) in [
        ("connections, each with one stream", number, ""),
        ("control plane at rest before", memory / 1024.0, "MiB"),
        ("control plane with all of them", streaming / 1024.0, "MiB"),
        (
            "memory of a connection",
            (connected - memory) / number,
            "KiB",
        ),
        (
            "memory of its stream",
            (streaming - connected) / number,
            "KiB",
        ),
        (
            "CPU of 1,000 connections (mutual TLS 1.3)",
            (cpu_connected - cpu) / number * 1000.0,
            "s",
        ),
        (
            "CPU of 1,000 streams, with the first answer",
            (cpu_streaming - cpu_before) / number * 1000.0,
            "s",
        ),
    ] {
        figures.add(CONNECTIONS, name, value, unit);
    }
    Ok(streams)
}

async fn connect(site: &Site, callers: &[Caller], count: usize) -> anyhow::Result<Vec<Channel>> {
    let (room, mut tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for (pod, caller) in callers.iter().cycle().take(count).enumerate() {
        let (site, caller, room) = (site.clone(), caller.clone(), Arc::clone(&room));
        tasks.spawn(async move {
            let _turn = room.acquire().await?;
            site.connect(pod, &caller).await
        });
    }
    let mut channels = Vec::with_capacity(count);
    while let Some(channel) = tasks.join_next().await {
        channels.push(channel??);
    }
    Ok(channels)
}

/// One stream, as a sidecar has it: everything that comes is acknowledged.
async fn follow(
    channel: Channel,
    stream: usize,
    room: Arc<Semaphore>,
    told: mpsc::Sender<Arrived>,
) -> anyhow::Result<()> {
    // until the first answer; all at once would be a request's deadline against this machine
    let mut turn = Some(room.acquire_owned().await?);
    let (requests, sent) = mpsc::channel::<DiscoveryRequest>(4);
    requests.send(subscription()).await?;
    let mut responses = SecretDiscoveryServiceClient::new(channel)
        .stream_secrets(ReceiverStream::new(sent))
        .await?
        .into_inner();
    while let Some(response) = responses.message().await? {
        let at = Instant::now();
        drop(turn.take());
        if let Some(roots) = roots_in(&response)? {
            told.send(Arrived { stream, roots, at }).await?;
        }
        requests.send(acknowledgement(&response)).await?;
    }
    Ok(())
}

/// Appends a root to the bundle's file, again and again.
pub(crate) async fn change(
    control_plane: &ControlPlane,
    streams: &mut Streams,
    rounds: usize,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let (mut times, mut last, mut used) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let bundle = control_plane.longer_bundle(round)?;
        let (cpu, written) = (control_plane.cpu_seconds()?, Instant::now());
        bundle.put_in_place()?;
        let arrived = streams.all_have(bundle.roots).await?;
        let took: Vec<Duration> = arrived
            .iter()
            .map(|at| at.duration_since(written))
            .collect();
        last.push(took.iter().max().copied().context("no stream")?);
        times.extend(took);
        sleep(ACKNOWLEDGED).await;
        used.push(control_plane.cpu_seconds()? - cpu);
    }
    ensure!(!used.is_empty(), "a change needs at least one round");
    used.sort_by(f64::total_cmp);
    let median = used.get(used.len() / 2).copied().unwrap_or_default();
    figures.add_times(CHANGE, "from the file to a stream", times)?;
    figures.add_times(CHANGE, "from the file to all streams", last)?;
    let name = "control plane, CPU of one change, acknowledgements included";
    figures.add(CHANGE, name, median, "s");
    Ok(())
}
