//! Where tools get what sidecars recorded: from running ones, and from files.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use mesh_lite_proto::{
    decision_record::{ConnectionId, InvalidRecording, LoggedConnection, Recording},
    sidecar::ADMIN_PORT,
};

use crate::{
    sidecar_pages::{self, NoPage, PageName},
    terminal::harmless,
};

/// Who waits longer than this for a pipe is told for which one.
const PATIENCE: Duration = Duration::from_secs(2);

/// Stands for standard input.
const STDIN: &str = "-";

/// Which recordings a tool looks at.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Recordings")]
pub(crate) struct RecordingArgs {
    /// Admin address of a running sidecar, which is on loopback; may be repeated. This pod's or
    /// machine's sidecar, if neither this nor --records is given.
    #[arg(
        long,
        env = "MESH_LITE_ADMIN",
        value_delimiter = ',',
        value_name = "ADDRESS"
    )]
    admin: Vec<SocketAddr>,
    /// A saved page /decisions of a sidecar, or its access log, also as kubectl logs has it;
    /// a pipe is read to its end, and "-" is standard input. One file for each sidecar, with
    /// what was rotated away; may be repeated.
    #[arg(long, value_name = "FILE")]
    records: Vec<PathBuf>,
}

/// A recording, and where it came from.
#[derive(Debug)]
pub(crate) struct NamedRecording {
    /// The admin address, or the file as it was given.
    pub(crate) name: String,
    /// `None`: from a file.
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) recording: Recording,
    /// Of the connection that is asked for, what the lines of a log tell.
    pub(crate) logged: Vec<LoggedConnection>,
}

impl RecordingArgs {
    /// The sidecars to be asked: those named, or this pod's own if no file is named either.
    pub(crate) fn sidecars(&self) -> Vec<SocketAddr> {
        if self.admin.is_empty() && self.records.is_empty() {
            return vec![SocketAddr::from(([127, 0, 0, 1], ADMIN_PORT))];
        }
        self.admin.clone()
    }

    /// All of them: running sidecars first, then files, each in the order named.
    ///
    /// # Errors
    /// If one of them can't be had whole: what a tool says of the others would be believed of all.
    pub(crate) fn read(&self) -> Result<Vec<NamedRecording>, NoRecording> {
        self.read_for(None)
    }

    /// The same, and what access logs tell of this connection.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) fn read_for(
        &self,
        connection: Option<ConnectionId>,
    ) -> Result<Vec<NamedRecording>, NoRecording> {
        if self.records.iter().filter(|path| is_stdin(path)).count() > 1 {
            return Err(NoRecording::StdinTwice);
        }
        let running = self.sidecars().into_iter().map(of_sidecar);
        running
            .chain(self.records.iter().map(|path| of_file(connection, path)))
            .collect()
    }
}

/// # Errors
/// If no sidecar answers there.
pub(crate) fn of_sidecar(admin: SocketAddr) -> Result<NamedRecording, NoRecording> {
    let page = sidecar_pages::get(admin, PageName::Decisions)?;
    let name = admin.to_string();
    Ok(NamedRecording {
        recording: Recording::read(&name, page.as_slice())?,
        name,
        admin: Some(admin),
        logged: Vec::new(),
    })
}

fn of_file(connection: Option<ConnectionId>, path: &Path) -> Result<NamedRecording, NoRecording> {
    let name = if is_stdin(path) {
        "standard input".to_owned()
    } else {
        harmless(&path.display().to_string())
    };
    let (recording, logged) = saying_what_is_waited_for(&name, || {
        let input: Box<dyn BufRead> = if is_stdin(path) {
            Box::new(io::stdin().lock())
        } else {
            let file = File::open(path).map_err(|error| NoRecording::Open {
                path: path.to_owned(),
                error,
            })?;
            Box::new(BufReader::new(file))
        };
        Ok::<_, NoRecording>(Recording::read_for(connection, &name, input)?)
    })?;
    Ok(NamedRecording {
        recording,
        name,
        admin: None,
        logged,
    })
}

/// A pipe into which nobody writes is waited for, from when it is opened, until somebody does.
fn saying_what_is_waited_for<T>(name: &str, read: impl FnOnce() -> T) -> T {
    let (reading, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                eprintln!("mesh-lite: waiting for {name}");
            }
        });
        let read = read();
        drop(reading);
        read
    })
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new(STDIN)
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum NoRecording {
    #[error(transparent)]
    Sidecar(#[from] NoPage),
    #[error(
        "{0}. --records takes one sidecar's saved page /decisions, or its access log; lines of the \
         sidecar's own log, as kubectl logs has them, are passed over, and nothing else is. If you \
         know that the line is none of the access log's, leave it out: grep '\"event\":' FILE"
    )]
    Content(InvalidRecording),
    #[error("{path:?} can't be opened: {error}")]
    Open { path: PathBuf, error: io::Error },
    #[error("standard input can be read once: name \"-\" once")]
    StdinTwice,
}

// no `#[from]`: its words are in ours, and a source would be said again
impl From<InvalidRecording> for NoRecording {
    fn from(invalid: InvalidRecording) -> Self {
        Self::Content(invalid)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use clap::{Args, Command, FromArgMatches};

    use super::*;

    const LINE: &str = r#"{"time":"2026-11-21T13:00:00.100Z","event":"open","conn_id":"06920f12d0000001","direction":"inbound","src.addr":"10.0.0.9:40001","decision":"refuse","reason":"limit"}"#;

    fn parsed(arguments: &[&str]) -> RecordingArgs {
        let command = RecordingArgs::augment_args(Command::new("tool"));
        let matches = command.get_matches_from(["tool"].iter().chain(arguments));
        RecordingArgs::from_arg_matches(&matches).unwrap()
    }

    fn refusal(arguments: &[&str]) -> String {
        parsed(arguments).read().unwrap_err().to_string()
    }

    #[test]
    fn the_sidecar_of_this_pod_is_asked_only_if_nothing_is_named() {
        let own = "127.0.0.1:15000".parse().unwrap();
        assert_eq!(parsed(&[]).sidecars(), [own]);
        assert_eq!(parsed(&["--records", "x"]).sidecars(), []);
        let both = parsed(&["--admin", "127.0.0.1:1", "--admin", "127.0.0.1:2"]);
        assert_eq!(both.sidecars().len(), 2);
    }

    #[test]
    fn files_are_read_in_the_order_named_each_under_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["b.log", "a.log"].map(|name| {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("{LINE}\n")).unwrap();
            path.display().to_string()
        });
        let [first, second] = &paths;
        let read = parsed(&["--records", first, "--records", second]).read();
        let names: Vec<_> = read.unwrap().into_iter().map(|it| it.name).collect();
        assert_eq!(names, paths);
    }

    #[test]
    fn one_source_that_can_not_be_had_whole_refuses_all_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let good = write("good.log", LINE);
        let bad = write("bad.log", &format!("{LINE}\nsomething else\n{LINE}\n"));
        let missing = folder.path().join("none.log").display().to_string();
        let directory = folder.path().display().to_string();
        for (named, words) in [
            (&bad, "bad.log:2: "),
            (&missing, "can't be opened"),
            (&directory, ":1: it can't be read"),
        ] {
            let message = refusal(&["--records", &good, "--records", named]);
            assert!(message.contains(words), "{message}");
        }
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let closed = closed.unwrap().to_string();
        let message = refusal(&["--records", &good, "--admin", &closed]);
        assert!(message.contains(&closed), "{message}");
    }

    #[test]
    fn standard_input_is_named_once() {
        let message = refusal(&["--records", "-", "--records", "-"]);
        assert!(message.contains("standard input"), "{message}");
    }
}
