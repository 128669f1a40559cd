//! Says when files in a directory may have changed.
//!
//! The kernel's events are a hint, a slow poll is the guarantee: mounted volumes swap a symlink
//! and end a file's watch, network file systems send no events, and the number of watches is
//! limited. Who is woken reads the files and compares their contents.

use std::{path::PathBuf, sync::Arc, time::Duration};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::Notify, time};

/// Writers touch several files in a row; one look at the end of the row is enough.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How long a change may go unnoticed where there are no events.
const POLL: Duration = Duration::from_secs(5);

pub(crate) struct DirectoryChanges {
    hint: Arc<Notify>,
    /// Dropped, it stops watching. `None`: the poll alone must do.
    _watcher: Option<RecommendedWatcher>,
}

impl DirectoryChanges {
    pub(crate) fn watch(directories: &[PathBuf]) -> Self {
        let hint = Arc::new(Notify::new());
        let watcher = start(directories, Arc::clone(&hint))
            .inspect_err(|error| {
                tracing::warn!(%error, "no file events: looking every {POLL:?} instead");
            })
            .ok();
        Self {
            hint,
            _watcher: watcher,
        }
    }

    /// Returns when something may have changed: soon after an event, and now and then without.
    pub(crate) async fn wait(&self) {
        if time::timeout(POLL, self.hint.notified()).await.is_ok() {
            time::sleep(DEBOUNCE).await;
        }
    }
}

fn start(directories: &[PathBuf], hint: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // reading a file is an event too, and it is we who read
        let concerns = event.is_ok_and(|event| !event.kind.is_access());
        if concerns {
            hint.notify_one();
        }
    })?;
    for directory in directories {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}
