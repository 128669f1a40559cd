//! The documents that are edited, each written beside its place and renamed.

use anyhow::Context as _;
use mesh_lite_test_support::LoopbackMesh;

pub(crate) const NO_GUEST: &str = "no-guest.yaml";
pub(crate) const POLICY: &str = "policy.yaml";
/// More than a denial is compared with.
const NEARLY: usize = 300;
/// Documents in one file; it may have 1,024.
const DOCUMENTS: usize = 1000;

/// Who may call api. A name of its own makes it another policy that says the same.
pub(crate) fn allowing(name: &str) -> String {
    let callers = "\"cluster.local/ns/shop/sa/web\", \"cluster.local/ns/shop/sa/guest\"";
    allowing_callers(name, &[callers.to_owned()])
}

/// One rule for each of `callers`.
fn allowing_callers(name: &str, callers: &[String]) -> String {
    let head = format!(
        "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  selector: {{matchLabels: {{app: api}}}}\n  action: ALLOW\n  rules:\n"
    );
    callers.iter().fold(head, |text, callers| {
        text + &format!("  - from:\n    - source: {{principals: [{callers}]}}\n")
    })
}

/// Nobody may call api any more, and many rules name somebody whose name is much alike.
pub(crate) fn allow_only_others(mesh: &LoopbackMesh) {
    let callers = (0..NEARLY).map(|number| format!("\"cluster.local/ns/shop/sa/web-{number}\""));
    let callers: Vec<_> = callers.collect();
    mesh.write_documents(POLICY, &allowing_callers("api-callers", &callers));
}

/// As at the beginning.
pub(crate) fn allow_again(mesh: &LoopbackMesh) {
    mesh.write_documents(POLICY, &allowing("api-callers"));
}

/// One caller less.
pub(crate) fn deny_guest(mesh: &LoopbackMesh) {
    mesh.write_documents(
        NO_GUEST,
        &denying("- source: {principals: [\"cluster.local/ns/shop/sa/guest\"]}"),
    );
}

/// Nobody may call api any more.
pub(crate) fn deny_everybody(mesh: &LoopbackMesh) {
    mesh.write_documents(NO_GUEST, &denying("- source: {namespaces: [\"*\"]}"));
}

pub(crate) fn deny_nobody(mesh: &LoopbackMesh) {
    mesh.write_documents(NO_GUEST, "# nobody\n");
}

fn denying(from: &str) -> String {
    format!(
        "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{name: no-guest, namespace: shop}}\n\
         spec:\n  selector: {{matchLabels: {{app: api}}}}\n  action: DENY\n  rules:\n  \
         - from:\n    {from}\n"
    )
}

/// Policies of a thousand other workloads in a hundred namespaces.
pub(crate) fn of_others(mesh: &LoopbackMesh, count: usize) -> anyhow::Result<()> {
    for first in (0..count).step_by(DOCUMENTS) {
        let documents = (first..count.min(first.saturating_add(DOCUMENTS))).map(|number| {
            let (namespace, app) = (
                number.checked_rem(100).context("not by 100")?,
                number.checked_rem(1000).context("not by 1000")?,
            );
            Ok(format!(
                "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\n\
                 metadata: {{name: policy-{number}, namespace: other-{namespace}}}\n\
                 spec:\n  selector: {{matchLabels: {{app: app-{app}}}}}\n  action: ALLOW\n  \
                 rules:\n  - from:\n    - source: {{principals: \
                 [\"cluster.local/ns/other-{namespace}/sa/caller-{number}\"]}}\n    \
                 to:\n    - operation: {{ports: [\"8080\"]}}\n---\n"
            ))
        });
        let text = documents.collect::<anyhow::Result<String>>()?;
        mesh.write_documents(&format!("others-{first}.yaml"), &text);
    }
    Ok(())
}
