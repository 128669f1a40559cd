//! How many files, and so how many connections, this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Design §14 speaks of 10,000 sidecars, each with one connection, two while it changes over.
const MAX_CONNECTIONS: usize = 20_000;
/// With a tiny limit it still serves.
const MIN_CONNECTIONS: usize = 64;
/// Documents, keys, tokens, watches, logs, listeners and connections to the admin port.
const OTHER_FILES: u64 = 256;

/// Raises the number of open files to what the user of this process may have, and says how many
/// that is. `None`: without a limit. The usual 1024 are fewer than there are sidecars.
pub(crate) fn raise() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    }
}

/// More than there are files for would fail to be accepted, again and again.
pub(crate) fn max_connections(open_files: Option<u64>) -> usize {
    let room = open_files.map_or(u64::MAX, |files| files.saturating_sub(OTHER_FILES));
    usize::try_from(room)
        .unwrap_or(MAX_CONNECTIONS)
        .clamp(MIN_CONNECTIONS, MAX_CONNECTIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_connections_than_files() {
        assert_eq!(max_connections(Some(1024)), 768);
        assert_eq!(max_connections(Some(1_048_576)), MAX_CONNECTIONS);
        assert_eq!(max_connections(None), MAX_CONNECTIONS);
        assert_eq!(max_connections(Some(20)), MIN_CONNECTIONS);
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise(), hard);
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
