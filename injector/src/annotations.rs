//! `config.mesh-lite.io/*`: settings of one pod, or of all pods of a namespace.
//!
//! The pod's wins, but **a pod may only tighten**; what loosens comes from the namespace, where who
//! may deploy an application does not decide alone. Per key, loosening is:
//!
//! | key | loosening |
//! | --- | --- |
//! | `skip-inbound-ports`, `skip-outbound-ports`, `skip-subnets` | anything that the namespace does not skip already: those connections have neither mTLS nor policy |
//! | `capture` | `explicit` where the namespace does not say so: the application's own connections are left to it |
//! | `outbound-unmeshed` | it is of namespaces only: the control plane reads it, not the sidecar |
//! | `access-log` | `off` where the namespace does not say so: what it records is the namespace's |
//! | others | nothing: they cost the pod itself something, or change how it is reached, never by whom |
//!
//! `files` gives a pod's key to containers of that pod: its author could take the sidecar's place
//! as well. All that is wrong is said at once.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use mesh_lite_proto::kubernetes::CONFIG_ANNOTATION_PREFIX;

pub use self::key::Key;
use self::quantity::{Quantity, Unit};
use crate::{
    injection_decision::{Place, Refusal},
    mesh_settings::Resources,
};

mod key;
pub mod quantity;
mod tightening;
mod value;

#[cfg(test)]
mod tests;

/// A native sidecar is told to end when the application is gone: nobody is left to be told.
pub const DRAIN_DELAY: u32 = 0;
/// Seconds for last words of connections that outlive the application.
pub const SHUTDOWN_GRACE_PERIOD: u32 = 1;
/// A sidecar with less memory than this could not hold its connections.
const MIN_MEMORY_LIMIT: u64 = 32 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureKind {
    Transparent,
    Explicit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLog {
    Off,
    Stdout,
}

impl AccessLog {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Stdout => "stdout",
        }
    }
}

/// How connections of the application get to the sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capture {
    Transparent {
        skip_inbound_ports: BTreeSet<u16>,
        skip_outbound_ports: BTreeSet<u16>,
        skip_subnets: Vec<IpNet>,
    },
    Explicit {
        /// As the sidecar reads them.
        upstreams: Vec<String>,
        inbound_ports: BTreeSet<u16>,
    },
}

/// The settings of one pod: parsed, combined, and nowhere looser than its namespace allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSettings {
    pub capture: Capture,
    pub resources: Resources,
    /// `None` is the sidecar's own default, as in the others.
    pub log_level: Option<String>,
    pub access_log: Option<AccessLog>,
    /// Seconds.
    pub drain_delay: u32,
    /// Seconds.
    pub shutdown_grace_period: u32,
    pub rewrite_probes: bool,
    /// Containers that get key, certificate and trust bundle as files.
    pub files: BTreeSet<String>,
}

/// What one place says.
#[derive(Debug, Default)]
struct Written {
    skip_inbound_ports: Option<BTreeSet<u16>>,
    skip_outbound_ports: Option<BTreeSet<u16>>,
    skip_subnets: Option<Vec<IpNet>>,
    capture: Option<CaptureKind>,
    upstreams: Option<Vec<String>>,
    inbound_ports: Option<BTreeSet<u16>>,
    cpu_request: Option<Quantity>,
    cpu_limit: Option<Quantity>,
    memory_request: Option<Quantity>,
    memory_limit: Option<Quantity>,
    log_level: Option<String>,
    access_log: Option<AccessLog>,
    drain_delay: Option<u32>,
    shutdown_grace_period: Option<u32>,
    rewrite_probes: Option<bool>,
    files: Option<BTreeSet<String>>,
    raw: BTreeMap<Key, String>,
}

impl Written {
    /// What the annotations of `place` say; what is wrong with them goes to `wrong`.
    fn read<'a>(
        annotations: impl Iterator<Item = (&'a str, &'a str)>,
        place: &Place,
        wrong: &mut Vec<Refusal>,
    ) -> Self {
        let mut written = Self::default();
        for (key, value) in annotations {
            let Some(key) = key.strip_prefix(CONFIG_ANNOTATION_PREFIX) else {
                continue;
            };
            let read = Key::parse(key).and_then(|key| {
                written.set(key, value.trim())?;
                written.raw.insert(key, value.to_owned());
                Ok(())
            });
            if let Err(why) = read {
                wrong.push(Refusal::Annotation {
                    place: place.clone(),
                    key: key.to_owned(),
                    value: value.to_owned(),
                    why,
                });
            }
        }
        written
    }

    fn set(&mut self, key: Key, text: &str) -> Result<(), String> {
        match key {
            Key::SkipInboundPorts => self.skip_inbound_ports = Some(value::ports(text)?),
            Key::SkipOutboundPorts => self.skip_outbound_ports = Some(value::ports(text)?),
            Key::SkipSubnets => self.skip_subnets = Some(value::subnets(text)?),
            Key::Capture => self.capture = Some(value::capture(text)?),
            Key::Upstreams => self.upstreams = Some(value::upstreams(text)?),
            Key::InboundPorts => self.inbound_ports = Some(value::ports(text)?),
            Key::CpuRequest => self.cpu_request = Some(Quantity::parse(text, Unit::Cpu)?),
            Key::CpuLimit => self.cpu_limit = Some(Quantity::parse(text, Unit::Cpu)?),
            Key::MemoryRequest => self.memory_request = Some(Quantity::parse(text, Unit::Memory)?),
            Key::MemoryLimit => self.memory_limit = Some(Quantity::parse(text, Unit::Memory)?),
            Key::LogLevel => self.log_level = Some(value::log_filter(text)?),
            Key::AccessLog => self.access_log = Some(value::access_log(text)?),
            Key::DrainDelay => self.drain_delay = Some(value::seconds(text)?),
            Key::ShutdownGracePeriod => self.shutdown_grace_period = Some(value::seconds(text)?),
            Key::RewriteProbes => self.rewrite_probes = Some(value::yes_or_no(text)?),
            // the control plane reads it of namespaces
            Key::OutboundUnmeshed => value::refuse_or_allow(text)?,
            Key::Files => self.files = Some(value::containers(text)?),
        }
        Ok(())
    }
}

/// The settings of a pod in a namespace.
///
/// # Errors
/// Everything that is wrong with the annotations of both, in a fixed order.
pub fn read<'a>(
    namespace: &str,
    namespace_annotations: &BTreeMap<String, String>,
    pod_annotations: impl Iterator<Item = (&'a str, &'a str)>,
    defaults: &Resources,
) -> Result<PodSettings, Vec<Refusal>> {
    let mut wrong = Vec::new();
    let place = Place::Namespace(namespace.to_owned());
    let of_namespace = Written::read(
        namespace_annotations
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str())),
        &place,
        &mut wrong,
    );
    let of_pod = Written::read(pod_annotations, &Place::Pod, &mut wrong);
    let both = tightening::Both {
        namespace_name: namespace,
        namespace: &of_namespace,
        pod: &of_pod,
    };
    let settings = both.combine(defaults, &mut wrong);
    if wrong.is_empty() {
        Ok(settings)
    } else {
        Err(wrong)
    }
}
