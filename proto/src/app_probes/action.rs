//! What is asked of an application, and where.

use std::num::NonZeroU16;

use serde::{Deserialize, Serialize};

use crate::sidecar::OWN_PORTS;

/// Longest path with its query; longer ones are refused by common servers.
const MAX_PATH: usize = 2048;
const MAX_HEADERS: usize = 16;
const MAX_HEADER_NAME: usize = 128;
const MAX_HEADER_VALUE: usize = 1024;
/// Of a gRPC service, with its package.
const MAX_SERVICE: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeAction {
    Http(HttpProbe),
    /// Good if it accepts a connection.
    Tcp(ProbePort),
    Grpc(GrpcProbe),
}

/// A port of the application: never one of the sidecar's, which would ask itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbePort(NonZeroU16);

impl ProbePort {
    /// # Errors
    /// For 0 and the sidecar's own ports.
    pub fn new(port: u16) -> Result<Self, InvalidAction> {
        NonZeroU16::new(port)
            .filter(|port| !OWN_PORTS.contains(&port.get()))
            .map(Self)
            .ok_or(InvalidAction::Port(port))
    }

    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

/// A GET, good if the answer's status is 200 to 399.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProbe {
    port: ProbePort,
    scheme: Scheme,
    path: String,
    headers: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    #[default]
    Http,
    /// Whoever answers: certificates of probes are not verified, as the kubelet doesn't either.
    Https,
}

impl HttpProbe {
    /// `path` is with its query, as a pod's author wrote it.
    ///
    /// # Errors
    /// If a request can't have this path or these headers.
    pub fn new(
        scheme: Scheme,
        port: ProbePort,
        path: &str,
        headers: Vec<(String, String)>,
    ) -> Result<Self, InvalidAction> {
        let path = request_path(path);
        if path.len() > MAX_PATH {
            return Err(InvalidAction::Path);
        }
        if headers.len() > MAX_HEADERS {
            return Err(InvalidAction::TooManyHeaders);
        }
        if let Some((name, _)) = headers.iter().find(|(name, value)| !is_header(name, value)) {
            return Err(InvalidAction::Header(name.chars().take(80).collect()));
        }
        Ok(Self {
            port,
            scheme,
            path,
            headers,
        })
    }

    pub const fn port(&self) -> ProbePort {
        self.port
    }

    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Begins with `/`; with the query, without a fragment; visible ASCII.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn headers(&self) -> &[(String, String)] {
        &self.headers
    }
}

/// What a URL sends of it: a `/` in front, nothing behind `#`, the rest of what no request line
/// may contain as `%XX`.
fn request_path(text: &str) -> String {
    let sent = text.split('#').next().unwrap_or_default();
    let mut path = String::with_capacity(sent.len() + 1);
    if !sent.starts_with('/') {
        path.push('/');
    }
    for byte in sent.bytes() {
        let allowed = byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte);
        if allowed {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

/// RFC 9110: a name is a token; a value has no control characters but tabs.
fn is_header(name: &str, value: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty()
        && name.len() <= MAX_HEADER_NAME
        && name.bytes().all(token)
        && value.len() <= MAX_HEADER_VALUE
        && value.chars().all(|c| c == '\t' || !c.is_control())
}

/// `grpc.health.v1.Health/Check` without TLS, good if the answer is SERVING.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcProbe {
    port: ProbePort,
    service: String,
}

impl GrpcProbe {
    /// # Errors
    /// If `service` is no name of a service.
    pub fn new(port: ProbePort, service: &str) -> Result<Self, InvalidAction> {
        if service.len() > MAX_SERVICE || service.chars().any(char::is_control) {
            return Err(InvalidAction::Service);
        }
        Ok(Self {
            port,
            service: service.to_owned(),
        })
    }

    pub const fn port(&self) -> ProbePort {
        self.port
    }

    pub fn service(&self) -> &str {
        &self.service
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAction {
    #[error("port {0} is none that an application can have in the mesh")]
    Port(u16),
    #[error("its path has more than {MAX_PATH} bytes")]
    Path,
    #[error("it has more than {MAX_HEADERS} headers")]
    TooManyHeaders,
    #[error(
        "no request can have its header {0:?}: a name has letters, digits and - in {MAX_HEADER_NAME} \
         bytes, a value no control characters in {MAX_HEADER_VALUE}"
    )]
    Header(String),
    #[error("its service is no name of a gRPC service in {MAX_SERVICE} bytes")]
    Service,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenHttp {
    port: u16,
    scheme: Scheme,
    path: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenTcp {
    port: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenGrpc {
    port: u16,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    service: String,
}

impl WrittenHttp {
    pub(super) fn parse(self) -> Result<HttpProbe, InvalidAction> {
        let port = ProbePort::new(self.port)?;
        HttpProbe::new(self.scheme, port, &self.path, self.headers)
    }
}

impl WrittenTcp {
    pub(super) const fn new(port: ProbePort) -> Self {
        Self { port: port.get() }
    }

    pub(super) fn parse(&self) -> Result<ProbeAction, InvalidAction> {
        ProbePort::new(self.port).map(ProbeAction::Tcp)
    }
}

impl WrittenGrpc {
    pub(super) fn parse(self) -> Result<GrpcProbe, InvalidAction> {
        GrpcProbe::new(ProbePort::new(self.port)?, &self.service)
    }
}

impl From<&HttpProbe> for WrittenHttp {
    fn from(probe: &HttpProbe) -> Self {
        Self {
            port: probe.port.get(),
            scheme: probe.scheme,
            path: probe.path.clone(),
            headers: probe.headers.clone(),
        }
    }
}

impl From<&GrpcProbe> for WrittenGrpc {
    fn from(probe: &GrpcProbe) -> Self {
        Self {
            port: probe.port.get(),
            service: probe.service.clone(),
        }
    }
}
