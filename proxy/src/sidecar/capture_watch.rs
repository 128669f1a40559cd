//! Not ready before capture is proved; with explicit capture also not when it stops to hold.
//! (The rules of transparent capture are the guard's to hold: without them nothing passes.)

use std::{path::Path, sync::Arc, time::Duration};

use mesh_lite_proto::authorization::{MutualTlsMode, PolicySnapshot};
use tokio::{
    runtime::Runtime,
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{Addresses, Capture, listeners};
use crate::{
    capture::{
        listening::{CHECK_INTERVAL, confined},
        self_test::prove,
    },
    control::ControlHandles,
    data_path::DataPath,
    metrics::Metrics,
    readiness::{BlockReady, Part, Readiness},
};

/// `redirect` may still be at work, or be repaired.
const PROVE_AGAIN: Duration = Duration::from_secs(1);

pub(super) fn spawn(
    capture: Capture,
    addresses: Addresses,
    path: DataPath,
    handles: &ControlHandles,
    data: &Runtime,
    readiness: &Readiness,
) {
    let guard = readiness.block(Part::Capture);
    match capture {
        Capture::Transparent { state_dir } => {
            let outbound = listeners::outbound(&path, handles);
            let data = data.handle().clone();
            tokio::spawn(async move {
                until_proved(&state_dir, &guard, &path.metrics).await;
                match listeners::open_outbound(&addresses, &path, &outbound, &data) {
                    Ok(()) => guard.ready(),
                    Err(error) => guard.not_ready(error.to_string()),
                }
                // the guard's last word stands for the process's life
                std::future::pending::<()>().await;
            });
        }
        Capture::Explicit { inbound_ports, .. } => {
            tokio::spawn(stay_confined(
                inbound_ports,
                guard,
                path.metrics,
                handles.policy.clone(),
            ));
        }
    }
}

async fn until_proved(state_dir: &Path, guard: &BlockReady, metrics: &Metrics) {
    let mut said = None;
    loop {
        match prove(state_dir).await {
            Ok(_) => return metrics.capture_proved(true),
            Err(error) => {
                metrics.capture_proved(false);
                let text = error.to_string();
                if is_news(&mut said, &text) {
                    tracing::warn!(error = text, "capture is not proved");
                }
                guard.not_ready(text);
            }
        }
        sleep(PROVE_AGAIN).await;
    }
}

/// Explicit capture holds only while nothing but loopback leads to the application.
async fn stay_confined(
    inbound_ports: Vec<u16>,
    guard: BlockReady,
    metrics: Metrics,
    policy: watch::Receiver<Option<Arc<PolicySnapshot>>>,
) {
    let mut again = interval(CHECK_INTERVAL);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = None;
    loop {
        again.tick().await;
        match confined(&inbound_ports).await {
            Ok(()) => {
                said = None;
                metrics.capture_proved(true);
                guard.ready();
            }
            Err(error) => {
                metrics.capture_proved(false);
                let text = error.to_string();
                if is_news(&mut said, &text) {
                    tracing::warn!(
                        error = text,
                        "the application can be reached without the sidecar"
                    );
                }
                if is_strict(policy.borrow().as_deref(), &inbound_ports) {
                    guard.not_ready(text);
                } else {
                    guard.ready();
                }
            }
        }
    }
}

/// A failure that stays is logged once; readiness and the metric go on saying it.
fn is_news(said: &mut Option<String>, text: &str) -> bool {
    if said.as_deref() == Some(text) {
        return false;
    }
    *said = Some(text.to_owned());
    true
}

fn is_strict(snapshot: Option<&PolicySnapshot>, inbound_ports: &[u16]) -> bool {
    snapshot.is_none_or(|snapshot| {
        inbound_ports
            .iter()
            .any(|port| snapshot.mutual_tls.mode(*port) == MutualTlsMode::Strict)
    })
}
