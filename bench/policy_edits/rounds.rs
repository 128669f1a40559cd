//! The edits, round after round, and what they did.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use mesh_lite_test_support::LoopbackMesh;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep},
};

use crate::{
    Settings,
    application::Application,
    crowd, edits,
    figures::Figures,
    process::{cpu_seconds, raise_open_files, settled_kib},
    sidecars::{self, PROGRAM, Sidecar},
    timeline::{Timeline, cpu_of_threads},
};

const SIDECARS: &str = "Sidecars";
const ONE: &str = "An edit that denies one";
const NOTHING: &str = "An edit that changes nothing for anybody";
const AFTERWARDS: &str = "Sidecars, after these edits";
const ALL: &str = "An edit that denies everybody";
const ALMOST: &str = "An edit that denies everybody, whom 300 rules nearly allow";
const OTHERS: &str = "With policies of other workloads: an edit that denies one";
/// An edit and all its work are over by then.
const OVER: Duration = Duration::from_secs(2);

/// CPU seconds of a control plane in [`OVER`] that only holds its streams.
const QUIET: f64 = 0.05;

type Edit = fn(&LoopbackMesh);

/// Everything that lives while edits are made.
struct Bench {
    sidecars: Vec<Sidecar>,
    mesh: LoopbackMesh,
    _application: Application,
    /// Web's.
    webs: Vec<TcpStream>,
    connections: usize,
    rounds: u32,
    /// Seconds of one edit in both of api's sidecars, before there were connections.
    cpu_at_rest: f64,
}

pub(crate) async fn measure(settings: &Settings, figures: &mut Figures) -> anyhow::Result<()> {
    let mut bench = Bench::start(settings, figures).await?;
    bench.deny_one(figures, ONE).await?;
    bench.change_nothing(figures).await?;
    bench
        .memory(figures, AFTERWARDS, "with all connections but guest's")
        .await?;
    let (deny, allow) = (edits::deny_everybody, edits::deny_nobody);
    bench
        .deny_all(figures, ALL, settings.rounds_of_all, (deny, allow))
        .await?;
    let (deny, allow) = (edits::allow_only_others, edits::allow_again);
    bench
        .deny_all(figures, ALMOST, settings.rounds_of_all, (deny, allow))
        .await?;
    if settings.policies > 0 {
        edits::of_others(&bench.mesh, settings.policies)?;
        let count = u32::try_from(settings.policies)?;
        figures.add(OTHERS, "policies of other workloads", f64::from(count), "");
        bench.until_read().await?;
        bench.deny_one(figures, OTHERS).await?;
        let control_plane = bench.control_plane()?;
        let mebibytes = settled_kib(control_plane).await? / 1024.0;
        figures.add(
            OTHERS,
            "control plane's memory afterwards",
            mebibytes,
            "MiB",
        );
    }
    Ok(())
}

impl Bench {
    async fn start(settings: &Settings, figures: &mut Figures) -> anyhow::Result<Self> {
        let connections = usize::try_from(settings.connections)?;
        raise_open_files(connections)?;
        let application = Application::start(connections).await?;
        let policy = edits::allowing("api-callers");
        let mut mesh = LoopbackMesh::start(PROGRAM, application.port(), &policy);
        let sidecars = sidecars::start(&mut mesh, application.port())?;
        let mut bench = Self {
            sidecars,
            mesh,
            _application: application,
            webs: Vec::new(),
            connections,
            rounds: settings.rounds,
            cpu_at_rest: 0.0,
        };
        bench.memory(figures, SIDECARS, "at rest").await?;
        bench.cpu_at_rest = bench.rename("without connections").await?;
        bench.open_webs().await?;
        figures.add(
            SIDECARS,
            "live connections",
            f64::from(settings.connections),
            "",
        );
        bench
            .memory(figures, SIDECARS, "with all connections but guest's")
            .await?;
        Ok(bench)
    }

    fn control_plane(&self) -> anyhow::Result<u32> {
        self.mesh
            .control_plane_pid()
            .context("no control plane runs")
    }

    /// Waits until the control plane has nothing left to do.
    async fn until_read(&self) -> anyhow::Result<()> {
        let pid = self.control_plane()?;
        let mut before = -1.0;
        loop {
            let now = cpu_seconds(pid)?;
            if now - before < QUIET {
                return Ok(());
            }
            before = now;
            sleep(OVER).await;
        }
    }

    fn called(&self, name: &str) -> anyhow::Result<&Sidecar> {
        let mut all = self.sidecars.iter();
        all.find(|sidecar| sidecar.name == name)
            .with_context(|| format!("no sidecar of {name}"))
    }

    async fn open_webs(&mut self) -> anyhow::Result<()> {
        let sides = [
            self.called("web")?.application_side(),
            self.called("web-2")?.application_side(),
        ];
        let all_but_one = self.connections.saturating_sub(1);
        self.webs = crowd::open(&sides, all_but_one)
            .await
            .context("the connections can't all be opened")?;
        Ok(())
    }

    async fn memory(
        &self,
        figures: &mut Figures,
        section: &'static str,
        when: &str,
    ) -> anyhow::Result<()> {
        for sidecar in &self.sidecars {
            let mebibytes = settled_kib(sidecar.pid).await? / 1024.0;
            let name = format!("{}, {when}", sidecar.name);
            figures.add(section, name, mebibytes, "MiB");
        }
        Ok(())
    }

    /// Guest is denied, round after round: its connection ends, web's do not.
    async fn deny_one(
        &mut self,
        figures: &mut Figures,
        section: &'static str,
    ) -> anyhow::Result<()> {
        let guest_side = self.called("guest")?.application_side();
        let control_plane = self.control_plane()?;
        let (mut times, mut read, mut in_force) = (Vec::new(), Vec::new(), Vec::new());
        let mut cpu = 0.0;
        for round in 1..=self.rounds {
            let guest = crowd::call_until_allowed(guest_side).await?;
            crowd::all_live(&mut self.webs).await?;
            // what was taken back is read once more, and that must not hurry this edit
            self.until_read().await?;
            let watched = crowd::watch(guest);
            let before = cpu_seconds(control_plane)?;
            let written = Instant::now();
            edits::deny_guest(&self.mesh);
            let ends = crowd::resets(vec![watched], written).await?;
            sleep(OVER).await;
            cpu += cpu_seconds(control_plane)? - before;
            for end in &ends {
                let name = format!("round {round}, until guest's application sees its reset");
                figures.add(section, name, end.as_secs_f64() * 1000.0, "ms");
            }
            times.extend(ends);
            let parts = Timeline::of(&self.mesh, self.called("api")?, edits::NO_GUEST)?;
            read.push(parts.read);
            in_force.push(parts.in_force);
            crowd::all_live(&mut self.webs)
                .await
                .context("guest was denied, and another's connection ended")?;
            edits::deny_nobody(&self.mesh);
        }
        let kept = f64::from(u32::try_from(self.webs.len())?);
        figures.add(
            section,
            "web's connections, alive after each edit",
            kept,
            "",
        );
        figures.add_times(section, "from the document to the reset", times)?;
        figures.add_times(section, "of it until the control plane has read", read)?;
        figures.add_times(section, "of it from there to the sidecar", in_force)?;
        let name = "control plane's CPU of an edit";
        figures.add(section, name, cpu * 1000.0 / f64::from(self.rounds), "ms");
        Ok(())
    }

    /// The policy is renamed, which is another snapshot and no other verdict.
    async fn change_nothing(&mut self, figures: &mut Figures) -> anyhow::Result<()> {
        let guest_side = self.called("guest")?.application_side();
        self.webs.push(crowd::call_until_allowed(guest_side).await?);
        let cpu = self.rename(NOTHING).await?;
        let all = f64::from(u32::try_from(self.webs.len())?);
        figures.add(NOTHING, "connections, alive after each edit", all, "");
        for (when, cpu) in [
            ("without connections", self.cpu_at_rest),
            ("with all of them", cpu),
        ] {
            let name = format!("CPU of both of api's sidecars, {when}");
            figures.add(NOTHING, name, cpu * 1000.0, "ms");
        }
        // guest's
        self.webs.pop();
        Ok(())
    }

    /// Renames the policy, round after round; CPU seconds of one edit in both sidecars of api.
    async fn rename(&mut self, what: &str) -> anyhow::Result<f64> {
        let pids = [self.called("api")?.pid, self.called("api-2")?.pid];
        let used = || {
            pids.into_iter()
                .map(cpu_of_threads)
                .sum::<anyhow::Result<f64>>()
        };
        let mut cpu = 0.0;
        for round in 1..=self.rounds {
            sleep(OVER).await;
            let (at_first, start) = (used()?, Instant::now());
            sleep(OVER).await;
            let (idle, idle_time) = (used()? - at_first, start.elapsed());
            let (at_first, start) = (used()?, Instant::now());
            let name = format!("api-callers-{round}");
            self.mesh
                .write_documents(edits::POLICY, &edits::allowing(&name));
            sleep(OVER).await;
            let share = start.elapsed().as_secs_f64() / idle_time.as_secs_f64();
            cpu += used()? - at_first - idle * share;
            for sidecar in ["api", "api-2"] {
                ensure!(
                    self.called(sidecar)?.has(&name)?,
                    "{what}: {name} is not in force"
                );
            }
            crowd::all_live(&mut self.webs)
                .await
                .with_context(|| what.to_owned())?;
        }
        Ok(cpu / f64::from(self.rounds))
    }

    /// Everybody is denied, and allowed again.
    async fn deny_all(
        &mut self,
        figures: &mut Figures,
        section: &'static str,
        rounds: u32,
        (deny, allow): (Edit, Edit),
    ) -> anyhow::Result<()> {
        let guest_side = self.called("guest")?.application_side();
        for round in 1..=rounds {
            let mut all = std::mem::take(&mut self.webs);
            all.push(crowd::call_until_allowed(guest_side).await?);
            crowd::all_live(&mut all).await?;
            let count = f64::from(u32::try_from(all.len())?);
            let watched = all.into_iter().map(crowd::watch).collect();
            let written = Instant::now();
            deny(&self.mesh);
            let times = crowd::resets(watched, written).await?;
            let name = format!("round {round}, connections cut");
            figures.add(section, name, count, "");
            let name = format!("round {round}, from the document to the reset");
            figures.add_times(section, &name, times)?;
            allow(&self.mesh);
            drop(crowd::call_until_allowed(guest_side).await?);
            self.open_webs().await?;
        }
        Ok(())
    }
}
