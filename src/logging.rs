//! The process's own log, on stderr: `RUST_LOG` decides how much, `info` if it is not set.

use std::{
    ffi::OsString,
    io::{self, IsTerminal},
};

use tracing::Level;
use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt,
    prelude::*,
};

/// Text on a terminal, JSON lines for programs.
pub(crate) fn start() {
    let (filter, refused) = filter(std::env::var_os("RUST_LOG"));
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
    if let Some(refused) = refused {
        tracing::warn!("{refused}");
    }
}

/// What `RUST_LOG` asks for (`debug`, or `mesh_lite_proxy=trace,h2=warn`), and a word about it if
/// it can't be read. What it does not name is logged from `info` up.
fn filter(asked: Option<OsString>) -> (Targets, Option<String>) {
    let usual = Targets::new()
        .with_default(Level::INFO)
        // an error for each attempt while an API server is away, which conditions say once
        .with_target("kube_client", LevelFilter::OFF);
    let Some(asked) = asked.filter(|text| !text.is_empty()) else {
        return (usual, None);
    };
    match asked.to_string_lossy().parse::<Targets>() {
        Ok(targets) if targets.default_level().is_none() => {
            (targets.with_default(Level::INFO), None)
        }
        Ok(targets) => (targets, None),
        Err(error) => (
            usual,
            Some(format!(
                "RUST_LOG={asked:?} is not used: {error}. Write a level (debug), or targets with levels \
                 (mesh_lite_proxy=trace,h2=warn)"
            )),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lets_through(filter: &Targets, target: &str) -> [bool; 3] {
        [Level::WARN, Level::INFO, Level::DEBUG].map(|level| filter.would_enable(target, &level))
    }

    #[test]
    fn logs_from_info_up_where_nothing_else_is_asked_for() {
        for asked in [None, Some(OsString::new()), Some("other=trace".into())] {
            let (filter, refused) = filter(asked);
            assert_eq!(lets_through(&filter, "mesh_lite"), [true, true, false]);
            assert_eq!(refused, None);
        }
    }

    #[test]
    fn takes_a_level_for_all_and_levels_for_targets() {
        let (filter, _) = filter(Some("warn,mesh_lite_proxy=debug".into()));
        assert_eq!(lets_through(&filter, "h2"), [true, false, false]);
        assert_eq!(lets_through(&filter, "mesh_lite_proxy::inbound"), [true; 3]);
    }

    #[test]
    fn says_what_it_could_not_read_and_logs_as_usual() {
        let (filter, refused) = filter(Some("mesh_lite[span{x=1}]=loud".into()));
        assert_eq!(lets_through(&filter, "mesh_lite"), [true, true, false]);
        assert!(refused.unwrap().contains("mesh_lite_proxy=trace"));
    }
}
