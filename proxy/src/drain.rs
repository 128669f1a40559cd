//! Ending without anybody noticing: say so first, then wait, then cut what is left.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::live_connections::{CutReason, LiveConnections};

/// How often the wait for the last connection looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// After the cut: how long the connections' tasks have to write their last log lines.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// Not ready, but still accepting: others may not have heard yet.
    Announced,
    /// New inbound connections are answered with status draining.
    Draining,
}

/// How long each part may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From not ready to the first refusal.
    pub delay: Duration,
    /// From the signal to the cut.
    pub grace: Duration,
}

#[derive(Debug)]
pub struct Drain(watch::Sender<Phase>);

impl Default for Drain {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Serving))
    }
}

impl Drain {
    pub fn watch(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }

    /// Runs from the first signal to the moment the process may exit. `open` counts connections,
    /// those that are being set up included; `hurry` resolves when somebody asks a second time.
    pub async fn run(
        &self,
        live: &LiveConnections,
        open: impl Fn() -> usize,
        patience: Patience,
        hurry: impl Future<Output = ()>,
    ) {
        let end = Instant::now() + patience.grace;
        self.0.send_replace(Phase::Announced);
        tokio::select! {
            () = self.finish(&open, patience.delay.min(patience.grace)) => {}
            () = sleep_until(end) => {}
            () = hurry => {}
        }
        self.0.send_replace(Phase::Draining);
        for connection in live.all() {
            connection.cut.cut(CutReason::Draining);
        }
        let last = Instant::now() + LAST_WORDS;
        while open() > 0 && Instant::now() < last {
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn finish(&self, open: impl Fn() -> usize, delay: Duration) {
        sleep(delay).await;
        self.0.send_replace(Phase::Draining);
        while open() > 0 {
            sleep(LOOK_AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    fn patience(delay: u64, grace: u64) -> Patience {
        Patience {
            delay: Duration::from_secs(delay),
            grace: Duration::from_secs(grace),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn accepts_until_the_delay_is_over_and_then_drains() {
        let drain = Drain::default();
        let mut phase = drain.watch();
        let started = Instant::now();
        let live = LiveConnections::default();
        let run = drain.run(&live, || 0, patience(5, 30), pending());
        let watch = async {
            phase
                .wait_for(|phase| *phase == Phase::Draining)
                .await
                .unwrap();
            assert_eq!(started.elapsed().as_secs(), 5);
        };
        tokio::join!(run, watch);
        assert_eq!(
            started.elapsed().as_secs(),
            5,
            "nobody was left to wait for"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_second_signal_ends_the_wait() {
        let drain = Drain::default();
        let started = Instant::now();
        drain
            .run(
                &LiveConnections::default(),
                || 0,
                patience(5, 30),
                sleep(Duration::from_secs(1)),
            )
            .await;
        assert_eq!(started.elapsed().as_secs(), 1);
        assert_eq!(*drain.watch().borrow(), Phase::Draining);
    }

    #[tokio::test(start_paused = true)]
    async fn a_grace_shorter_than_the_delay_is_obeyed() {
        let drain = Drain::default();
        let started = Instant::now();
        drain
            .run(
                &LiveConnections::default(),
                || 0,
                patience(60, 2),
                pending(),
            )
            .await;
        assert_eq!(started.elapsed().as_secs(), 2);
    }
}
