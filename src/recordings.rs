//! Where tools get what sidecars recorded: from running ones, and from files.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use mesh_lite_proto::{
    decision_record::{InvalidRecording, Recording},
    sidecar::ADMIN_PORT,
};

use crate::sidecar_pages::{self, NoPage, PageName};

/// Stands for standard input.
const STDIN: &str = "-";

/// Which recordings a tool looks at.
#[derive(Debug, clap::Args)]
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
    /// A saved page /decisions of a sidecar, or its access log; "-" is standard input. One file
    /// for each sidecar; may be repeated.
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
        if self.records.iter().filter(|path| is_stdin(path)).count() > 1 {
            return Err(NoRecording::StdinTwice);
        }
        let running = self.sidecars().into_iter().map(of_sidecar);
        running
            .chain(self.records.iter().map(|path| of_file(path)))
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
    })
}

fn of_file(path: &Path) -> Result<NamedRecording, NoRecording> {
    let (name, input): (_, Box<dyn BufRead>) = if is_stdin(path) {
        ("standard input".to_owned(), Box::new(io::stdin().lock()))
    } else {
        let file = File::open(path).map_err(|source| NoRecording::Open {
            path: path.to_owned(),
            source,
        })?;
        (path.display().to_string(), Box::new(BufReader::new(file)))
    };
    Ok(NamedRecording {
        recording: Recording::read(&name, input)?,
        name,
        admin: None,
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
        "{0}. --records takes one sidecar's saved page /decisions, or its access log, and nothing \
         else in the file"
    )]
    Content(#[from] InvalidRecording),
    #[error("{path:?} can't be opened: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("standard input can be read once: name \"-\" once")]
    StdinTwice,
}
