//! The spec of a `PeerAuthentication`.

use std::collections::BTreeMap;

use super::{
    super::{MutualTlsMode, SourceRef},
    PeerAuthentication, Selector,
};
use crate::document::{
    Node, RefusalClass,
    fields::{Fields, Path, parse_port},
};

/// `selector`: `None` if it is wrong. `of_istios_root`: a document of Istio's in its root namespace.
pub(super) fn read(
    spec: &Node,
    source: SourceRef,
    selector: Option<&Selector>,
    of_istios_root: bool,
    fields: &mut Fields<'_>,
) -> PeerAuthentication {
    let path = Path::root("spec");
    fields.map(spec, &path, &["selector", "mtls", "portLevelMtls"]);
    if let (true, Some(entry), false) = (
        of_istios_root,
        spec.entry("selector"),
        selector.is_none_or(Selector::is_everybody),
    ) {
        let problem = "spec.selector stands in Istio's root namespace, where Istio passes the \
                       document over";
        let remedy = "put it into the namespace of the workloads, or remove the selector";
        fields.error(RefusalClass::Contradiction, entry.at, problem, remedy);
    }
    let mut says_disable = false;
    let of_all = spec
        .entry("mtls")
        .and_then(|entry| mode(&entry.value, &path.key("mtls"), fields, &mut says_disable));
    let mut ports = BTreeMap::new();
    if let Some(entry) = spec.entry("portLevelMtls") {
        let path = path.key("portLevelMtls");
        if selector.is_some_and(Selector::is_everybody) {
            let class = RefusalClass::PortsWithoutSelector;
            let remedy = "state a selector: ports mean something for one workload only";
            fields.error(
                class,
                entry.at,
                format!("{path} without a selector"),
                remedy,
            );
        }
        for port in fields.open_map(&entry.value, &path) {
            let path = path.key(&port.key);
            let mode = mode(&port.value, &path, fields, &mut says_disable);
            match (parse_port(&port.key), mode) {
                (Some(number), Some(mode)) => {
                    ports.insert(number, mode);
                }
                (Some(_), None) => {}
                (None, _) => {
                    let problem = format!("{path}: {:?} is no port", port.key);
                    let remedy = "write a number from 1 to 65535";
                    fields.error(RefusalClass::BadPort, port.at, problem, remedy);
                }
            }
        }
    }
    PeerAuthentication {
        source,
        selector: selector.cloned().unwrap_or_default(),
        mode: of_all,
        ports,
        says_disable,
    }
}

/// `{mode: ...}`; UNSET and `{}` leave it to the next wider scope.
fn mode(
    node: &Node,
    path: &Path<'_>,
    fields: &mut Fields<'_>,
    says_disable: &mut bool,
) -> Option<MutualTlsMode> {
    fields.map(node, path, &["mode"]);
    let entry = node.entry("mode")?;
    let path = path.key("mode");
    let words = [
        ("STRICT", Some(MutualTlsMode::Strict)),
        ("PERMISSIVE", Some(MutualTlsMode::Permissive)),
        // callers of the mesh use mutual TLS all the same: only what is accepted differs
        (DISABLE, Some(MutualTlsMode::Permissive)),
        ("UNSET", None),
    ];
    let mode = fields.one_of(&entry.value, &path, &words)?;
    *says_disable |= node.text("mode") == Some(DISABLE);
    mode
}

const DISABLE: &str = "DISABLE";
