//! Probes of an application that go through its sidecar: what the injector took out of a pod, and
//! what the sidecar asks the application when the kubelet asks for it.
//!
//! Under STRICT the kubelet, which has no identity, can't reach the application's ports. So its
//! probes ask the sidecar's health port instead, each at a path of its own:
//!
//! ```text
//! kubelet ── GET :15021/app-probes/web/readiness ──▶ sidecar ── GET :8080/ready ──▶ web
//! ```

use std::{collections::BTreeMap, fmt, num::NonZeroU16, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

mod action;

pub use action::{GrpcProbe, HttpProbe, InvalidAction, ProbeAction, ProbePort, Scheme};

/// Of every probe, on the health port.
pub const PATH_PREFIX: &str = "/app-probes/";
/// A container has five at most: more than these are a pod of a size that nobody runs.
pub const MAX_PROBES: usize = 64;
/// Seconds of one try. Nobody waits an hour for a probe; hooks may take as long as the pod's
/// grace period, which ends them.
pub const MAX_TIMEOUT: u16 = 3600;
/// Bytes of the whole table. Linux takes 128 KiB for one environment variable.
pub const MAX_TEXT: usize = 96 * 1024;
/// Of a container's name: a DNS label.
const MAX_CONTAINER_NAME: usize = 63;

/// Which probe of which container.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeName {
    container: String,
    pub kind: ProbeKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
    /// A hook that runs beside the container's start.
    PostStart,
    /// A hook that runs before the container is asked to end.
    PreStop,
}

impl ProbeKind {
    pub const ALL: [Self; 5] = [
        Self::Startup,
        Self::Liveness,
        Self::Readiness,
        Self::PostStart,
        Self::PreStop,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
            Self::PostStart => "post-start",
            Self::PreStop => "pre-stop",
        }
    }

    /// Whether the request changes something in the application: a hook, not a probe.
    pub const fn is_hook(self) -> bool {
        matches!(self, Self::PostStart | Self::PreStop)
    }
}

impl ProbeName {
    /// # Errors
    /// If `container` is no name of a container.
    pub fn new(container: &str, kind: ProbeKind) -> Result<Self, InvalidProbes> {
        let is_label = !container.is_empty()
            && container.len() <= MAX_CONTAINER_NAME
            && container
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !is_label {
            return Err(InvalidProbes::Container(
                container.chars().take(80).collect(),
            ));
        }
        Ok(Self {
            container: container.to_owned(),
            kind,
        })
    }

    pub fn container(&self) -> &str {
        &self.container
    }
}

/// Shown as its path.
impl fmt::Display for ProbeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PATH_PREFIX}{}/{}", self.container, self.kind.as_str())
    }
}

impl FromStr for ProbeName {
    type Err = InvalidProbes;

    fn from_str(path: &str) -> Result<Self, Self::Err> {
        let wrong = || InvalidProbes::Path(path.chars().take(120).collect());
        let (container, kind) = path
            .strip_prefix(PATH_PREFIX)
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(wrong)?;
        let kind = ProbeKind::ALL
            .into_iter()
            .find(|known| known.as_str() == kind)
            .ok_or_else(wrong)?;
        Self::new(container, kind)
    }
}

/// One probe as the pod's author wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppProbe {
    pub action: ProbeAction,
    /// Seconds that one try may take, at most [`MAX_TIMEOUT`].
    pub timeout: NonZeroU16,
    /// What the injector replaced, with its key, as in `{"tcpSocket": {"port": "sql"}}`.
    pub original: Value,
}

/// The probes of one pod. At most [`MAX_PROBES`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AppProbes(BTreeMap<ProbeName, AppProbe>);

impl AppProbes {
    /// # Errors
    /// If the table is full, or the probe may take too long.
    pub fn insert(&mut self, name: ProbeName, probe: AppProbe) -> Result<(), InvalidProbes> {
        if self.0.len() >= MAX_PROBES && !self.0.contains_key(&name) {
            return Err(InvalidProbes::TooMany);
        }
        if probe.timeout.get() > MAX_TIMEOUT {
            return Err(InvalidProbes::Timeout(name));
        }
        self.0.insert(name, probe);
        Ok(())
    }

    pub fn get(&self, name: &ProbeName) -> Option<&AppProbe> {
        self.0.get(name)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&ProbeName, &AppProbe)> {
        self.0.iter()
    }

    /// As JSON in one line, the same for the same probes.
    ///
    /// # Errors
    /// If it is longer than [`MAX_TEXT`].
    pub fn to_text(&self) -> Result<String, InvalidProbes> {
        let table: BTreeMap<String, Written> = self
            .0
            .iter()
            .map(|(name, probe)| (name.to_string(), Written::from(probe)))
            .collect();
        let text = serde_json::to_string(&table)?;
        if text.len() > MAX_TEXT {
            return Err(InvalidProbes::TooLong);
        }
        Ok(text)
    }
}

/// From [`AppProbes::to_text`]. Empty text is an empty table.
impl FromStr for AppProbes {
    type Err = InvalidProbes;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        if text.len() > MAX_TEXT {
            return Err(InvalidProbes::TooLong);
        }
        let table: BTreeMap<String, Written> = serde_json::from_str(text)?;
        let mut probes = Self::default();
        for (path, written) in table {
            let name: ProbeName = path.parse()?;
            let probe = written.parse(&name)?;
            probes.insert(name, probe)?;
        }
        Ok(probes)
    }
}

/// A probe as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<action::WrittenHttp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<action::WrittenTcp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc: Option<action::WrittenGrpc>,
    timeout_seconds: NonZeroU16,
    original: Value,
}

impl Written {
    fn parse(self, name: &ProbeName) -> Result<AppProbe, InvalidProbes> {
        let action = match (self.http, self.tcp, self.grpc) {
            (Some(http), None, None) => http.parse().map(ProbeAction::Http),
            (None, Some(tcp), None) => tcp.parse(),
            (None, None, Some(grpc)) => grpc.parse().map(ProbeAction::Grpc),
            _ => return Err(InvalidProbes::NotOneAction(name.clone())),
        };
        Ok(AppProbe {
            action: action.map_err(|source| InvalidProbes::Action {
                name: name.clone(),
                source,
            })?,
            timeout: self.timeout_seconds,
            original: self.original,
        })
    }
}

impl From<&AppProbe> for Written {
    fn from(probe: &AppProbe) -> Self {
        let mut written = Self {
            http: None,
            tcp: None,
            grpc: None,
            timeout_seconds: probe.timeout,
            original: probe.original.clone(),
        };
        match &probe.action {
            ProbeAction::Http(http) => written.http = Some(http.into()),
            ProbeAction::Tcp(port) => written.tcp = Some(action::WrittenTcp::new(*port)),
            ProbeAction::Grpc(grpc) => written.grpc = Some(grpc.into()),
        }
        written
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidProbes {
    #[error("the application's probes are no JSON of this version: {0}")]
    Json(#[from] serde_json::Error),
    #[error(
        "the application's probes take more than {MAX_TEXT} bytes: shorten their paths and headers"
    )]
    TooLong,
    #[error("a pod has more than {MAX_PROBES} probes and hooks: make some of them exec probes")]
    TooMany,
    #[error("{0:?} is no path of a probe, as in {PATH_PREFIX}web/readiness")]
    Path(String),
    #[error("{0:?} is no name of a container")]
    Container(String),
    #[error("{0}: a probe is one of http, tcp and grpc")]
    NotOneAction(ProbeName),
    #[error("{0}: one try may take {MAX_TIMEOUT} seconds at most")]
    Timeout(ProbeName),
    #[error("{name}: {source}")]
    Action {
        name: ProbeName,
        source: InvalidAction,
    },
}

#[cfg(test)]
mod tests;
