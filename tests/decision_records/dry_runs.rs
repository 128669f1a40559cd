//! An allow-list that is tried first: whom it would cut, before it does.

use super::*;

/// [`WEB_ONLY`] as a dry run, or enforced.
fn allow_list(dry_run: bool) -> String {
    format!("{WEB_ONLY}  dryRun: {dry_run}\n")
}

const EVERYBODY_ELSE: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: default, namespace: mesh-lite-system}
spec: {defaultAction: ALLOW}
";

fn effects(record: &DecisionRecord) -> Vec<(&str, Option<usize>, &str)> {
    let recorded = record.recorded.iter();
    recorded
        .map(|it| (&*it.policy.document, it.rule, it.effect().as_str()))
        .collect()
}

#[test]
fn an_allow_list_in_dry_run_names_whom_it_would_cut_and_cuts_exactly_those_once_enforced() {
    const LIST: &str = "shop/api-from-web";
    let server = application();
    let policy = format!("{}---\n{EVERYBODY_ELSE}", allow_list(true));
    let mut mesh = LoopbackMesh::start(PROGRAM, server.address().port(), &policy);
    mesh.start_sidecars();
    let mut web = greeted(&mesh, "web");
    let mut guest = greeted(&mesh, "guest");
    let (_, records) = agreed_of(&mesh, "api", Direction::Inbound, (2, 2));
    let [of_web, of_guest] = records.as_slice() else {
        panic!("{records:#?}");
    };
    assert!(of_web.is_let_through() && of_guest.is_let_through());
    assert_eq!(effects(of_web), [(LIST, Some(0), "would_allow")]);
    assert_eq!(effects(of_guest), [(LIST, None, "would_deny")]);
    // at the document's first line: no rule has a part in it
    assert_eq!(of_guest.recorded[0].policy.line, 1);
    let metrics = body(http_get_here(mesh.sidecar("api").admin(), "/metrics").unwrap());
    for labels in [
        "{decision=\"would_allow\",policy=\"shop/api-from-web\",rule=\"0\"} 1",
        "{decision=\"would_deny\",policy=\"shop/api-from-web\",rule=\"none\"} 1",
        "{decision=\"allow\",policy=\"mesh-lite-system/default\",rule=\"none\"} 2",
    ] {
        assert!(metrics.contains(labels), "{labels}: {metrics}");
    }

    let policy = format!("{}---\n{EVERYBODY_ELSE}", allow_list(false));
    mesh.write_documents("policy.yaml", &policy);
    assert_eq!(guest.ending(), Ending::Reset(Vec::new()));
    assert_eq!(web.echo("still here").unwrap(), "still here");
}
