//! What a certificate costs.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use mesh_lite_proxy::identity::key_and_csr::KeyAndRequest;
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tonic::transport::Channel;

use crate::{
    caller::{Caller, Site, renew as renew_one},
    control_plane::{ControlPlane, workload},
    figures::Figures,
};

const FIRST: &str = "First certificate: a join token, on a connection of its own";
const RENEWAL: &str = "Renewal: mutual TLS on an open connection, a new key each time";
/// Requests in flight.
const AT_ONCE: usize = 32;

/// A caller for each identity.
pub(crate) async fn first(
    control_plane: &ControlPlane,
    site: &Site,
    identities: usize,
    figures: &mut Figures,
) -> anyhow::Result<Vec<Caller>> {
    eprintln!("making {identities} join tokens");
    let mesh = control_plane.mesh();
    let tokens: Vec<String> = (0..identities)
        .map(|number| mesh.token(&workload(number)).trim().to_owned())
        .collect();
    let cpu = control_plane.cpu_seconds()?;
    let (room, mut tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for (pod, token) in tokens.into_iter().enumerate() {
        let (site, room) = (site.clone(), Arc::clone(&room));
        let key = KeyAndRequest::generate()?;
        tasks.spawn(async move {
            let _turn = room.acquire().await?;
            site.first_certificate(pod, key, &token).await
        });
    }
    let mut callers = Vec::new();
    while let Some(caller) = tasks.join_next().await {
        callers.push(caller??);
    }
    per_thousand(
        figures,
        FIRST,
        control_plane.cpu_seconds()? - cpu,
        callers.len(),
    )?;
    Ok(callers)
}

/// `renewals` certificates, on the channels in turn.
pub(crate) async fn renew(
    control_plane: &ControlPlane,
    identities: &[Caller],
    channels: &[Channel],
    renewals: usize,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    // channels are of identities in turn, and each may renew five times at once
    let renewals = renewals.min(identities.len().saturating_mul(5));
    let keys = (0..renewals)
        .map(|_| KeyAndRequest::generate())
        .collect::<Result<Vec<_>, _>>()?;
    let (cpu, start) = (control_plane.cpu_seconds()?, Instant::now());
    let (room, mut tasks) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for (key, channel) in keys.into_iter().zip(channels.iter().cycle()) {
        let (channel, room) = (channel.clone(), Arc::clone(&room));
        tasks.spawn(async move {
            let _turn = room.acquire().await?;
            let asked = Instant::now();
            renew_one(channel, &key).await?;
            anyhow::Ok(asked.elapsed())
        });
    }
    let mut times: Vec<Duration> = Vec::new();
    while let Some(time) = tasks.join_next().await {
        times.push(time??);
    }
    let (cpu, elapsed) = (control_plane.cpu_seconds()? - cpu, start.elapsed());
    per_thousand(figures, RENEWAL, cpu, times.len())?;
    let rate = f64::from(u32::try_from(times.len())?) / elapsed.as_secs_f64();
    let label = format!("rate, {AT_ONCE} at once, callers on the same processors");
    figures.add(RENEWAL, label, rate, "certificates/s");
    figures.add_times(RENEWAL, "answer", times)
}

fn per_thousand(
    figures: &mut Figures,
    section: &'static str,
    cpu: f64,
    certificates: usize,
) -> anyhow::Result<()> {
    let count = f64::from(u32::try_from(certificates).context("that many certificates")?);
    figures.add(section, "certificates", count, "");
    figures.add(
        section,
        "control plane, CPU per 1,000",
        cpu / count * 1000.0,
        "s",
    );
    Ok(())
}
