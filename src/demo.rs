//! `mesh-lite demo`: the mesh at work on this machine, with real processes, for an ordinary user.
//!
//! ```text
//! web   ─ plaintext ─▶ sidecar ══ mutual TLS ══ (wire) ══▶ sidecar ─ plaintext ─▶ api
//! guest ─ plaintext ─▶ sidecar ══ mutual TLS ══════════════▶ refused, with the reason
//! ```

use std::{io, process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use tokio::signal::unix::{SignalKind, signal};

mod application;
mod processes;
mod scene;
mod wire;

use application::Call;
use scene::Scene;
use wire::Seen;

use crate::terminal::Paint;

/// Runs in seconds; the leaves of a real mesh live for a day.
const LEAF_LIFETIME: Duration = Duration::from_secs(10);
/// What the application says; nobody on the wire may see it.
const MARKER: &str = "the-secret-recipe";

const EXAMPLES: &str = "\
Examples:
  mesh-lite demo           show everything, then stay up to be tried
  mesh-lite demo --once    show everything and end; exit code 0 if all of it held";

/// Show the mesh at work: identities, an allowed call, a denied call with its reason, what the
/// wire sees, a rotation under traffic.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// End after the show instead of staying up.
    #[arg(long)]
    once: bool,
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    runtime.block_on(show(&args))?;
    Ok(ExitCode::SUCCESS)
}

async fn show(args: &Args) -> anyhow::Result<()> {
    let paint = Paint::for_stdout();
    title(
        paint,
        "Starting a control plane, three applications and their sidecars",
    );
    let scene = Scene::start(LEAF_LIFETIME).await?;
    println!("  everything is in {}", scene.directory().display());
    println!("  (removed at the end; certificates live for 10 s here, a day by default)");

    title(
        paint,
        "1. Identities: issued over gRPC, for join tokens that work once",
    );
    for sidecar in scene.sidecars() {
        let identity = sidecar.identity().await?;
        println!(
            "  {:<6} {}",
            sidecar.name(),
            paint.good(&identity.spiffe_id)
        );
        println!(
            "         serial {}, ends in {} s",
            identity.serial, identity.seconds_left
        );
    }

    allowed(&scene, paint).await?;
    // looked at before anybody else's call passes
    let seen = scene.wire_seen();
    denied(&scene, paint).await?;
    wire_view(&seen, paint)?;
    rotation(&scene, paint).await?;

    if args.once {
        println!("\n{}", paint.good("All of it held."));
        return Ok(());
    }
    stay(&scene, paint).await
}

async fn allowed(scene: &Scene, paint: Paint) -> anyhow::Result<()> {
    title(
        paint,
        "2. An allowed call: web asks api, both speak plaintext HTTP and know of nothing",
    );
    println!("  web$ curl http://{}/", scene.web().upstream());
    let call = application::call(scene.web().upstream(), "web", MARKER).await;
    let Call::Answered(answer) = call else {
        anyhow::bail!("web should have been answered, but: {call:?}");
    };
    println!("  {}", paint.good(answer.trim_end()));
    let line = scene.api().access_log_line(r#""decision":"allow""#).await?;
    println!("  api's sidecar logged: {}", scene::summary(&line));
    Ok(())
}

async fn denied(scene: &Scene, paint: Paint) -> anyhow::Result<()> {
    title(paint, "3. A denied call: guest asks api");
    println!("  guest$ curl http://{}/", scene.guest().upstream());
    let call = application::call(scene.guest().upstream(), "guest", MARKER).await;
    let Call::Reset(error) = call else {
        anyhow::bail!("guest should have been refused, but: {call:?}");
    };
    println!("  {}", paint.bad(&error));
    let explanation = scene.explain_denial(paint).await?;
    println!("  $ {}", scene.explain_command().await?);
    for line in explanation.lines() {
        println!("  {line}");
    }
    ensure!(
        scene.requests_of_guest() == 0,
        "the application saw the denied caller"
    );
    println!("  the application itself never saw the call");
    Ok(())
}

fn wire_view(seen: &Seen, paint: Paint) -> anyhow::Result<()> {
    title(paint, "4. What the wire saw of the allowed call");
    for line in seen.describe() {
        println!("  {line}");
    }
    ensure!(!seen.contains(MARKER), "the wire saw {MARKER:?}");
    ensure!(seen.is_tls13(), "the wire did not see TLS 1.3");
    println!(
        "  {}",
        paint.good(&format!(
            "web's request carried {MARKER:?} in plaintext; it is nowhere in it"
        ))
    );
    Ok(())
}

async fn rotation(scene: &Scene, paint: Paint) -> anyhow::Result<()> {
    title(paint, "5. Certificates rotate under traffic");
    let before = scene.serials().await?;
    println!("  web calls api all the time: new connections, and one that stays open");
    let traffic = application::Traffic::start(scene.web().upstream(), MARKER).await?;
    let after = scene.rotated(&before).await?;
    let counts = traffic.stop().await;
    for ((name, old), new) in before.iter().zip(after.values()) {
        println!("  {name:<6} {old} -> {}", paint.good(new));
    }
    println!(
        "  {} new connections and {} requests on the open one: {}",
        counts.connections,
        counts.requests,
        match &counts.failures[..] {
            [] => paint.good("0 failures"),
            failures => paint.bad(&format!("{} failures: {failures:?}", failures.len())),
        }
    );
    ensure!(
        counts.failures.is_empty(),
        "requests failed while certificates rotated"
    );
    ensure!(
        counts.connections > 0 && counts.requests > 0,
        "there was no traffic"
    );
    Ok(())
}

async fn stay(scene: &Scene, paint: Paint) -> anyhow::Result<()> {
    title(paint, "It stays up: try it");
    println!(
        "  curl http://{}/          as web, allowed",
        scene.web().upstream()
    );
    println!(
        "  curl http://{}/          as guest, denied",
        scene.guest().upstream()
    );
    println!(
        "  curl http://{}/identity   what the sidecar of api says of itself",
        scene.api().admin()
    );
    println!(
        "  curl http://{}/policy     the policy in force",
        scene.api().admin()
    );
    println!("  {}", scene.explain_command().await?);
    println!("                             why guest was denied; change the policy and ask again");
    println!(
        "  edit {}   the change holds at once",
        scene.policy_file().display()
    );
    println!("  tail -f {}", scene.api().access_log().display());
    println!(
        "  Ctrl-C ends everything and removes {}",
        scene.directory().display()
    );
    asked_to_end().await.context("can't wait for signals")
}

/// Whichever way somebody ends it, the folder with its keys goes.
async fn asked_to_end() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
        _ = hang_up.recv() => Ok(()),
    }
}

fn title(paint: Paint, text: &str) {
    println!("\n{}", paint.title(text));
}
