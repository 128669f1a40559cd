//! The spec of a `PeerAuthentication`.

use std::collections::BTreeMap;

use super::{
    super::{MutualTlsMode, SourceRef, pattern::parse_port},
    PeerAuthentication,
    fields::{Fields, Path},
};
use crate::document::Node;

pub(super) fn read(spec: &Node, source: SourceRef, fields: &mut Fields<'_>) -> PeerAuthentication {
    let path = Path::root("spec");
    fields.map(spec, &path, &["selector", "mtls", "portLevelMtls"]);
    let selector = fields.read_selector(spec);
    let mut says_disable = false;
    let of_all = spec
        .entry("mtls")
        .and_then(|entry| mode(&entry.value, &path.key("mtls"), fields, &mut says_disable));
    let mut ports = BTreeMap::new();
    if let Some(entry) = spec.entry("portLevelMtls") {
        let path = path.key("portLevelMtls");
        if fields
            .selector
            .as_ref()
            .is_some_and(super::Selector::is_everybody)
        {
            let remedy = "state a selector: ports mean something for one workload only";
            fields.error(entry.at, format!("{path} without a selector"), remedy);
        }
        for port in fields.open_map(&entry.value, &path) {
            let path = path.key(&port.key);
            let mode = mode(&port.value, &path, fields, &mut says_disable);
            match (parse_port(&port.key), mode) {
                (Ok(number), Some(mode)) => {
                    ports.insert(number, mode);
                }
                (Ok(_), None) => {}
                (Err(error), _) => {
                    fields.error(port.at, format!("{path}: {error}"), "correct the port");
                }
            }
        }
    }
    PeerAuthentication {
        source,
        selector,
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
    match fields.text(&entry.value, &path)? {
        "STRICT" => Some(MutualTlsMode::Strict),
        "PERMISSIVE" => Some(MutualTlsMode::Permissive),
        // callers of the mesh use mutual TLS all the same: only what is accepted differs
        "DISABLE" => {
            *says_disable = true;
            Some(MutualTlsMode::Permissive)
        }
        "UNSET" => None,
        other => {
            let problem = format!("unknown {path} {other:?}");
            fields.error(
                entry.value.at,
                problem,
                "use STRICT, PERMISSIVE, DISABLE or UNSET",
            );
            None
        }
    }
}
