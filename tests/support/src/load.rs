//! Connections all the time, some that stay and some that come and go, until a test has seen
//! enough: none of them may fail.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::APPLICATION_UID;
use crate::applications::{Client, Ending};
use crate::eventually::pause;
use crate::namespace::Namespace;

/// New connections and long-lived ones, all the time, until stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Tally>>,
}

#[derive(Debug, Default)]
struct Tally {
    successes: usize,
    failures: Vec<String>,
}

impl Load {
    /// Four connections that stay open and talk, and two loops that open new ones, from an
    /// application in `namespace` to a server that greets and echoes.
    pub fn start(namespace: &Namespace, to: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = Vec::new();
        for number in 0..6 {
            let stopped = Arc::clone(&stop);
            let work = move || {
                if number < 4 {
                    stay(to, &stopped)
                } else {
                    come_and_go(to, &stopped)
                }
            };
            workers.push(namespace.spawn(APPLICATION_UID, work));
        }
        Self { stop, workers }
    }

    /// Ends the load; fails the test if anything in it failed. How much succeeded.
    pub fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let tallies: Vec<Tally> = self
            .workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .collect();
        let failures: Vec<_> = tallies.iter().flat_map(|tally| &tally.failures).collect();
        let successes = tallies.iter().map(|tally| tally.successes).sum();
        assert!(
            failures.is_empty(),
            "{} failures beside {successes} successes: {failures:#?}",
            failures.len()
        );
        assert!(
            tallies.iter().all(|tally| tally.successes > 0),
            "{tallies:?}"
        );
        successes
    }
}

fn stay(to: SocketAddr, stopped: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let talk = |tally: &mut Tally| -> std::io::Result<()> {
        let mut client = Client::here(to)?;
        client.line()?;
        while !stopped.load(Ordering::Relaxed) {
            let said = format!("number {}", tally.successes);
            let heard = client.echo(&said)?;
            if heard != said {
                return Err(std::io::Error::other(format!(
                    "said {said:?}, heard {heard:?}"
                )));
            }
            tally.successes += 1;
            pause(Duration::from_millis(50));
        }
        client.finish()?;
        match client.ending() {
            Ending::End(_) => Ok(()),
            reset => Err(std::io::Error::other(reset.to_string())),
        }
    };
    if let Err(error) = talk(&mut tally) {
        tally
            .failures
            .push(format!("a long-lived connection: {error}"));
    }
    tally
}

fn come_and_go(to: SocketAddr, stopped: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    while !stopped.load(Ordering::Relaxed) {
        let call = || -> std::io::Result<()> {
            let mut client = Client::here(to)?;
            client.line()?;
            client.echo("hello")?;
            client.finish()?;
            match client.ending() {
                Ending::End(_) => Ok(()),
                reset => Err(std::io::Error::other(reset.to_string())),
            }
        };
        match call() {
            Ok(()) => tally.successes += 1,
            Err(error) => tally.failures.push(format!("a new connection: {error}")),
        }
        // A pod has about 470 connections a second; this is not a test of that.
        pause(Duration::from_millis(20));
    }
    tally
}
