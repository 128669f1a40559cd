//! The process's own log, on stderr: `RUST_LOG` decides how much, `info` if it is not set.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

/// Text on a terminal, JSON lines for programs.
pub(crate) fn start() {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .from_env_lossy();
    let registry = tracing_subscriber::registry().with(filter);
    let started = if io::stderr().is_terminal() {
        registry
            .with(fmt::layer().with_writer(io::stderr).with_target(false))
            .try_init()
    } else {
        registry
            .with(fmt::layer().json().with_writer(io::stderr))
            .try_init()
    };
    // a second start in one process keeps the first log
    let _ = started;
}
