//! `policy plan`: exactly the live connections that it names are cut, and exactly those callers
//! that it names get in.

use mesh_lite_test_support::{eventually, needs_namespaces};

use crate::recorded_mesh::{
    Call, Caller, PLAINTEXT_ON_9091, RecordedMesh, allowing, calls_of, is_cut, lives,
};

const LIVE: [Call; 7] = [
    (Caller::Web, 8080),
    (Caller::Web, 8080),
    (Caller::Web, 9090),
    (Caller::Guest, 8080),
    (Caller::Guest, 8080),
    (Caller::Guest, 9091),
    (Caller::Legacy, 9091),
];
const DENIED: [Call; 2] = [(Caller::Guest, 9090), (Caller::Web, 9091)];

fn before() -> String {
    allowing(&[
        ("web", 8080),
        ("web", 9090),
        ("guest", 8080),
        ("guest", 9091),
        ("10.77.0.1/32", 9091),
    ]) + PLAINTEXT_ON_9091
}

/// guest's port 8080 is closed and 9090 opened, and plaintext is over.
fn after() -> String {
    allowing(&[
        ("web", 8080),
        ("web", 9090),
        ("guest", 9090),
        ("guest", 9091),
        ("10.77.0.1/32", 9091),
    ])
}

#[test]
fn what_plan_foretells_is_cut_and_opened_and_nothing_else() {
    needs_namespaces!("policy_tools::plan");
    let mut mesh = RecordedMesh::start(&before(), true);
    let live = LIVE.map(|call| (call, mesh.holds(call)));
    for call in DENIED {
        assert!(!mesh.reaches(call), "{call:?}");
        assert!(!mesh.reaches(call), "{call:?}");
    }
    mesh.wait_open(7);

    the_documents_in_force_change_nothing(&mesh);

    let new = mesh.edited("new", &after()).display().to_string();
    let (text, code) = mesh.said(&["policy", "plan", "--config-dir", &new]);
    assert_eq!(code, 1);
    let headline = "this change closes 3 of 7 live connections, and opens to 1 caller that was \
                    denied (2 attempts)";
    assert!(text.starts_with(headline), "{text}");
    assert!(
        text.contains("→ shop/api-1:8080   2 live, the first from "),
        "{text}"
    );
    assert!(
        text.contains("would be DENY: no ALLOW rule matches; nearest is shop/api-callers ("),
        "{text}"
    );
    // a saved page foretells the same
    let page = mesh.saved_page('b');
    let (plan, _) = mesh.told(&["policy", "plan", "--config-dir", &new, "--records", &page]);
    let (closes, opens) = (calls_of(&plan["closes"]), calls_of(&plan["opens"]));
    assert_eq!(plan["closed"], 3, "{plan}");
    assert_eq!(plan["denies_later"].as_array().unwrap().len(), 0, "{plan}");
    assert_eq!(opens, [(Caller::Guest, 9090)]);

    mesh.apply(&after());
    let (mut closed, mut kept): (Vec<_>, Vec<_>) = live
        .into_iter()
        .partition(|(call, _)| closes.contains(call));
    for (_, client) in &mut closed {
        is_cut(client);
    }
    mesh.wait_open(4);
    for (_, client) in &mut kept {
        lives(client);
    }
    for call in DENIED {
        assert_eq!(mesh.reaches(call), opens.contains(&call), "{call:?}");
    }
    eventually("the three are in the log", || {
        match (mesh.mesh.b().log()).count(&[("event", "close"), ("end", "policy_changed")]) {
            3 => Ok(()),
            cut => Err(cut),
        }
    });
}

fn the_documents_in_force_change_nothing(mesh: &RecordedMesh) {
    let same = mesh.edited("same", &before()).display().to_string();
    let (nothing, code) = mesh.told(&["policy", "plan", "--config-dir", &same]);
    assert_eq!(
        (nothing["live"].as_u64(), nothing["closed"].as_u64(), code),
        (Some(7), Some(0), 0)
    );
    assert_eq!(nothing["opens"].as_array().unwrap().len(), 0, "{nothing}");
}

fn evicting(account: &str) -> String {
    before()
        + &format!(
            "---\napiVersion: mesh-lite.io/v1\nkind: Eviction\n\
             metadata: {{name: stolen, namespace: mesh-lite-system}}\n\
             spec: {{spiffeId: spiffe://cluster.local/ns/shop/sa/{account}}}\n"
        )
}

/// Whoever is evicted gets no policy any more, so nobody waits for it.
#[test]
fn a_caller_that_a_plan_evicts_is_cut_and_callers_leave_a_server_that_it_evicts() {
    needs_namespaces!("policy_tools::plan");
    for account in ["web", "api"] {
        let mesh = RecordedMesh::start(&before(), false);
        let mut web = mesh.holds((Caller::Web, 8080));
        mesh.wait_open(1);
        let new = mesh.edited("new", &evicting(account)).display().to_string();
        let (from, to) = (mesh.saved_page('a'), mesh.saved_page('b'));
        let arguments = [
            "policy",
            "plan",
            "--config-dir",
            &new,
            "--records",
            &from,
            "--records",
            &to,
        ];
        let (text, code) = mesh.said(&arguments);
        assert_eq!(code, 1, "{text}");
        assert!(
            text.starts_with("this change closes 1 of 1 live connection, "),
            "{text}"
        );
        assert!(
            text.contains("the peer is evicted by mesh-lite-system/stolen ("),
            "{text}"
        );
        mesh.put_in_force(&evicting(account));
        is_cut(&mut web);
    }
}
