//! The pod's annotations over its namespace's: what may be combined, and what only the namespace
//! may say.

use std::collections::BTreeSet;

use mesh_lite_proto::kubernetes::CONFIG_ANNOTATION_PREFIX;

use super::{
    AccessLog, Capture, CaptureKind, DRAIN_DELAY, Key, MIN_MEMORY_LIMIT, PodSettings,
    SHUTDOWN_GRACE_PERIOD, Written,
    quantity::{Quantity, Unit},
};
use crate::{
    injection_decision::{Place, Refusal},
    mesh_settings::Resources,
};

pub(super) struct Both<'a> {
    pub(super) namespace_name: &'a str,
    pub(super) namespace: &'a Written,
    pub(super) pod: &'a Written,
}

impl Both<'_> {
    /// What is wrong goes to `wrong`; the answer counts only if nothing is.
    pub(super) fn combine(&self, defaults: &Resources, wrong: &mut Vec<Refusal>) -> PodSettings {
        let (pod, namespace) = (self.pod, self.namespace);
        let settings = PodSettings {
            capture: self.capture(wrong),
            resources: self.resources(defaults, wrong),
            log_level: pod
                .log_level
                .clone()
                .or_else(|| namespace.log_level.clone()),
            access_log: pod.access_log.or(namespace.access_log),
            drain_delay: self.drain_delay().unwrap_or(DRAIN_DELAY),
            shutdown_grace_period: self.shutdown_grace_period(),
            rewrite_probes: pod
                .rewrite_probes
                .or(namespace.rewrite_probes)
                .unwrap_or(true),
            files: pod.files.clone().unwrap_or_default(),
        };
        if pod.access_log == Some(AccessLog::Off) && namespace.access_log != pod.access_log {
            wrong.push(self.loosens(
                Key::AccessLog,
                "off",
                "would hide who connected from the people who watch over this namespace",
            ));
        }
        if settings.drain_delay > settings.shutdown_grace_period {
            wrong.push(self.of_either(
                Key::DrainDelay,
                format!(
                    "is longer than shutdown-grace-period ({} s): connections would be cut before \
                     anybody is told; make that at least as long",
                    settings.shutdown_grace_period
                ),
            ));
        }
        if pod.raw.contains_key(&Key::OutboundUnmeshed) {
            wrong.push(self.of_pod(
                Key::OutboundUnmeshed,
                "is of namespaces only: write it on the namespace".to_owned(),
            ));
        }
        if namespace.files.is_some() {
            wrong.push(self.of_namespace(
                Key::Files,
                "names containers of one pod: write it on that pod".to_owned(),
            ));
        }
        settings
    }

    fn drain_delay(&self) -> Option<u32> {
        self.pod.drain_delay.or(self.namespace.drain_delay)
    }

    /// Who only asks for a delay gets the time for it.
    fn shutdown_grace_period(&self) -> u32 {
        let (pod, namespace) = (self.pod, self.namespace);
        let asked = pod
            .shutdown_grace_period
            .or(namespace.shutdown_grace_period);
        asked.unwrap_or_else(|| {
            self.drain_delay()
                .unwrap_or(0)
                .saturating_add(SHUTDOWN_GRACE_PERIOD)
        })
    }

    fn capture(&self, wrong: &mut Vec<Refusal>) -> Capture {
        let (pod, namespace) = (self.pod, self.namespace);
        let of_namespace = namespace.capture.unwrap_or(CaptureKind::Transparent);
        let kind = pod.capture.unwrap_or(of_namespace);
        if (kind, of_namespace) == (CaptureKind::Explicit, CaptureKind::Transparent) {
            wrong.push(self.loosens(
                Key::Capture,
                "explicit",
                "would leave the application's own connections uncaptured",
            ));
        }
        let (foreign, other) = match kind {
            CaptureKind::Transparent => (
                [Key::Upstreams, Key::InboundPorts].as_slice(),
                "explicit: set it on the namespace, or remove this",
            ),
            CaptureKind::Explicit => (
                [
                    Key::SkipInboundPorts,
                    Key::SkipOutboundPorts,
                    Key::SkipSubnets,
                ]
                .as_slice(),
                "transparent: without it nothing is captured that could be skipped; remove this",
            ),
        };
        for key in foreign {
            if pod.raw.contains_key(key) {
                wrong.push(self.of_pod(
                    *key,
                    format!("belongs to {CONFIG_ANNOTATION_PREFIX}capture: {other}"),
                ));
            }
        }
        match kind {
            CaptureKind::Transparent => self.transparent(wrong),
            CaptureKind::Explicit => {
                let own = |pod: &Option<_>, namespace: &Option<_>| {
                    pod.clone().or_else(|| namespace.clone())
                };
                Capture::Explicit {
                    upstreams: pod
                        .upstreams
                        .clone()
                        .or_else(|| namespace.upstreams.clone())
                        .unwrap_or_default(),
                    inbound_ports: own(&pod.inbound_ports, &namespace.inbound_ports)
                        .unwrap_or_default(),
                }
            }
        }
    }

    fn transparent(&self, wrong: &mut Vec<Refusal>) -> Capture {
        const PORTS: &str = "would open connections without mTLS and policy";
        let (pod, namespace) = (self.pod, self.namespace);
        let mut ports = |key, pod: &Option<BTreeSet<u16>>, namespace: &Option<BTreeSet<u16>>| {
            let allowed = namespace.clone().unwrap_or_default();
            let Some(pod) = pod else { return allowed };
            let new: Vec<String> = pod.difference(&allowed).map(u16::to_string).collect();
            if !new.is_empty() {
                wrong.push(self.loosens(key, &new.join(","), PORTS));
            }
            pod.clone()
        };
        let skip_inbound_ports = ports(
            Key::SkipInboundPorts,
            &pod.skip_inbound_ports,
            &namespace.skip_inbound_ports,
        );
        let skip_outbound_ports = ports(
            Key::SkipOutboundPorts,
            &pod.skip_outbound_ports,
            &namespace.skip_outbound_ports,
        );
        let allowed = namespace.skip_subnets.clone().unwrap_or_default();
        let skip_subnets = pod.skip_subnets.clone().unwrap_or_else(|| allowed.clone());
        let new: Vec<String> = skip_subnets
            .iter()
            .filter(|subnet| !allowed.iter().any(|allowed| allowed.contains(*subnet)))
            .map(ToString::to_string)
            .collect();
        if !new.is_empty() {
            wrong.push(self.loosens(Key::SkipSubnets, &new.join(","), PORTS));
        }
        Capture::Transparent {
            skip_inbound_ports,
            skip_outbound_ports,
            skip_subnets,
        }
    }

    fn resources(&self, defaults: &Resources, wrong: &mut Vec<Refusal>) -> Resources {
        let (pod, namespace) = (self.pod, self.namespace);
        let resources = Resources {
            cpu_request: first(pod.cpu_request, namespace.cpu_request, defaults.cpu_request),
            cpu_limit: first(pod.cpu_limit, namespace.cpu_limit, defaults.cpu_limit),
            memory_request: first(
                pod.memory_request,
                namespace.memory_request,
                defaults.memory_request,
            ),
            memory_limit: first(
                pod.memory_limit,
                namespace.memory_limit,
                defaults.memory_limit,
            ),
        };
        for (key, request, limit_key, limit) in [
            (
                Key::CpuRequest,
                resources.cpu_request,
                Key::CpuLimit,
                resources.cpu_limit,
            ),
            (
                Key::MemoryRequest,
                resources.memory_request,
                Key::MemoryLimit,
                resources.memory_limit,
            ),
        ] {
            if request.amount() > limit.amount() {
                let (written, other) = if self.is_written(key) {
                    (key, format!("is above {} ({limit})", limit_key.as_str()))
                } else {
                    (limit_key, format!("is below {} ({request})", key.as_str()))
                };
                let why = format!("{other}: change one of them");
                wrong.push(self.of_either(written, why));
            }
        }
        if resources.memory_limit.amount() < MIN_MEMORY_LIMIT {
            let least = Quantity::new(MIN_MEMORY_LIMIT, Unit::Memory);
            wrong.push(self.of_either(
                Key::MemoryLimit,
                format!("is less than a sidecar needs: give it at least {least}"),
            ));
        }
        resources
    }

    fn is_written(&self, key: Key) -> bool {
        self.pod.raw.contains_key(&key) || self.namespace.raw.contains_key(&key)
    }

    fn loosens(&self, key: Key, value: &str, what: &str) -> Refusal {
        self.of_pod(
            key,
            format!(
                "{what}; a pod may only tighten. Who may change the namespace can allow it there: \
                 kubectl annotate namespace {} {CONFIG_ANNOTATION_PREFIX}{}={value}",
                self.namespace_name,
                key.as_str()
            ),
        )
    }

    fn of_either(&self, key: Key, why: String) -> Refusal {
        if self.pod.raw.contains_key(&key) {
            self.of_pod(key, why)
        } else {
            self.of_namespace(key, why)
        }
    }

    fn of_pod(&self, key: Key, why: String) -> Refusal {
        refusal(Place::Pod, self.pod, key, why)
    }

    fn of_namespace(&self, key: Key, why: String) -> Refusal {
        let place = Place::Namespace(self.namespace_name.to_owned());
        refusal(place, self.namespace, key, why)
    }
}

fn first(pod: Option<Quantity>, namespace: Option<Quantity>, default: Quantity) -> Quantity {
    pod.or(namespace).unwrap_or(default)
}

fn refusal(place: Place, written: &Written, key: Key, why: String) -> Refusal {
    Refusal::Annotation {
        place,
        key: key.as_str().to_owned(),
        value: written.raw.get(&key).cloned().unwrap_or_default(),
        why,
    }
}
