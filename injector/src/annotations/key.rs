//! The names of annotations under `config.mesh-lite.io/`.

use mesh_lite_proto::document::nearest_name::nearest;

/// Each is one flat string.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    SkipInboundPorts,
    SkipOutboundPorts,
    SkipSubnets,
    Capture,
    Upstreams,
    InboundPorts,
    CpuRequest,
    CpuLimit,
    MemoryRequest,
    MemoryLimit,
    LogLevel,
    AccessLog,
    DrainDelay,
    ShutdownGracePeriod,
    RewriteProbes,
    Files,
    OutboundUnmeshed,
}

impl Key {
    pub const ALL: [Self; 17] = [
        Self::SkipInboundPorts,
        Self::SkipOutboundPorts,
        Self::SkipSubnets,
        Self::Capture,
        Self::Upstreams,
        Self::InboundPorts,
        Self::CpuRequest,
        Self::CpuLimit,
        Self::MemoryRequest,
        Self::MemoryLimit,
        Self::LogLevel,
        Self::AccessLog,
        Self::DrainDelay,
        Self::ShutdownGracePeriod,
        Self::RewriteProbes,
        Self::Files,
        Self::OutboundUnmeshed,
    ];

    /// Without the prefix.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SkipInboundPorts => "skip-inbound-ports",
            Self::SkipOutboundPorts => "skip-outbound-ports",
            Self::SkipSubnets => "skip-subnets",
            Self::Capture => "capture",
            Self::Upstreams => "upstreams",
            Self::InboundPorts => "inbound-ports",
            Self::CpuRequest => "proxy-cpu-request",
            Self::CpuLimit => "proxy-cpu-limit",
            Self::MemoryRequest => "proxy-memory-request",
            Self::MemoryLimit => "proxy-memory-limit",
            Self::LogLevel => "proxy-log-level",
            Self::AccessLog => "access-log",
            Self::DrainDelay => "drain-delay",
            Self::ShutdownGracePeriod => "shutdown-grace-period",
            Self::RewriteProbes => "rewrite-probes",
            Self::Files => "files",
            Self::OutboundUnmeshed => "outbound-unmeshed",
        }
    }

    /// # Errors
    /// In words: what to use instead, or the name that was meant.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some(key) = Self::ALL.into_iter().find(|key| key.as_str() == text) {
            return Ok(key);
        }
        Err(match text {
            "mtls-mode" => "is not read from pods or namespaces: write a PeerAuthentication with \
                            spec.mtls.mode, which is checked and explained"
                .to_owned(),
            "native-sidecar" => "is not needed: the sidecar always is a native one (Kubernetes \
                                 1.33 and later); remove it"
                .to_owned(),
            "proxy-protocol" => "is not served by this version: remove it".to_owned(),
            _ => unknown(text),
        })
    }
}

fn unknown(text: &str) -> String {
    let names = Key::ALL.map(Key::as_str);
    match nearest(text, &names) {
        Some(name) => format!("is not known; did you mean {name}?"),
        None => format!("is not known; there are {}", names.join(", ")),
    }
}
