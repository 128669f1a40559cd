//! Applications that call all the time while something changes, and count what goes wrong.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use mesh_lite_test_support::{eventually, pause};

/// Between two connections: as fast as a busy pair of applications, and slow enough that two
/// cores have time for the rest.
const PACE: Duration = Duration::from_millis(20);
/// Errors kept for the report; all are counted.
const SHOWN: usize = 5;

/// New connections, one after the other, until it is stopped.
pub(crate) struct Traffic {
    counted: Arc<Counted>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counted {
    stop: AtomicBool,
    served: AtomicUsize,
    failed: AtomicUsize,
    errors: Mutex<Vec<String>>,
}

impl Traffic {
    pub(crate) fn start(call: impl Fn() -> io::Result<()> + Send + 'static) -> Self {
        let counted = Arc::<Counted>::default();
        let counting = Arc::clone(&counted);
        let thread = std::thread::spawn(move || {
            while !counting.stop.load(Ordering::Relaxed) {
                match call() {
                    Ok(()) => drop(counting.served.fetch_add(1, Ordering::Relaxed)),
                    Err(error) => {
                        counting.failed.fetch_add(1, Ordering::Relaxed);
                        let mut errors = counting.errors.lock().unwrap();
                        if errors.len() < SHOWN {
                            errors.push(error.to_string());
                        }
                    }
                }
                pause(PACE);
            }
        });
        let thread = Some(thread);
        Self { counted, thread }
    }

    pub(crate) fn served(&self) -> usize {
        self.counted.served.load(Ordering::Relaxed)
    }

    pub(crate) fn failed(&self) -> usize {
        self.counted.failed.load(Ordering::Relaxed)
    }

    /// Waits until this many more connections were served.
    pub(crate) fn wait_served(&self, more: usize) {
        let wanted = self.served() + more;
        eventually("connections are served", || {
            if self.served() >= wanted {
                Ok(())
            } else {
                Err(format!(
                    "{} of {wanted}: {:?}",
                    self.served(),
                    self.errors()
                ))
            }
        });
    }

    /// Waits until connections fail.
    pub(crate) fn wait_failed(&self) {
        eventually("connections fail", || {
            if self.failed() > 0 {
                Ok(())
            } else {
                Err(self.served())
            }
        });
    }

    pub(crate) fn assert_no_failure(&self) {
        assert_eq!(self.failed(), 0, "{:?}", self.errors());
    }

    fn errors(&self) -> Vec<String> {
        self.counted.errors.lock().unwrap().clone()
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.counted.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
