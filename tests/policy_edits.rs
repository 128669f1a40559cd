//! Edits of policy under live connections, with the real program: who is no longer allowed is
//! reset, with the reason in the log, and nobody else notices. (Ten thousand of them are held to
//! their policy in the sidecar's own tests; how fast is measured by `bench`.)

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::ErrorKind;
use std::net::Ipv4Addr;

use mesh_lite_test_support::applications::{Client, Ending, MARKER, Server, http_get_here};
use mesh_lite_test_support::{LoopbackMesh, eventually};

const PROGRAM: &str = env!("CARGO_BIN_EXE_mesh-lite");
/// Live connections of web; guest has one.
const WEBS: usize = 36;
const POLICY: &str = "policy.yaml";

/// Everybody in the namespace may call api: by the first rule web, by the second guest too.
const FROM_SHOP: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: api-from-shop, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  action: ALLOW
  rules:
  - from:
    - source: {principals: [\"cluster.local/ns/shop/sa/web\"]}
  - from:
    - source: {namespaces: [shop]}
";

/// Says the same in other words, beside policies that decide nothing.
const SAME_IN_OTHER_WORDS: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: callers-of-api, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  action: ALLOW
  rules:
  - from:
    - source: {namespaces: [shop]}
  - from:
    - source: {serviceAccounts: [web]}
---
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: nobody-tomorrow, namespace: shop}
spec:
  dryRun: true
  action: DENY
  rules:
  - from:
    - source: {namespaces: [\"*\"]}
---
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: watch-everybody, namespace: shop}
spec:
  action: AUDIT
  rules:
  - from:
    - source: {namespaces: [\"*\"]}
---
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: no-strangers, namespace: shop}
spec:
  action: DENY
  rules:
  - from:
    - source: {notTrustDomains: [cluster.local]}
";

/// The rule stands in line 8 of its document.
const NO_GUEST: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: no-guest, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  action: DENY
  rules:
  - from:
    - source: {principals: [\"cluster.local/ns/shop/sa/guest\"]}
";

/// Live connections to api, through real sidecars.
struct Crowd {
    webs: Vec<Client>,
    guest: Client,
    mesh: LoopbackMesh,
    _application: Server,
}

impl Crowd {
    fn gather(policy: &str) -> Self {
        let application = Server::greeting_here((Ipv4Addr::LOCALHOST, 0).into(), "api");
        let mut mesh = LoopbackMesh::start(PROGRAM, application.address().port(), policy);
        mesh.start_sidecars();
        let called = |caller| {
            let mut client = mesh.sidecar(caller).call().unwrap();
            assert_eq!(client.line().unwrap(), format!("{MARKER} api"));
            client
        };
        let webs = (0..WEBS).map(|_| called("web")).collect();
        let guest = called("guest");
        Self {
            webs,
            guest,
            mesh,
            _application: application,
        }
    }

    fn all_webs_echo(&mut self, what: &str) {
        for (number, web) in self.webs.iter_mut().enumerate() {
            let echoed = web.echo(what);
            assert_eq!(echoed.ok().as_deref(), Some(what), "web's {number}");
        }
    }

    /// Waits until api's sidecar has `policy` in force.
    fn in_force(&self, policy: &str) {
        let admin = self.mesh.sidecar("api").admin();
        eventually(&format!("{policy} is in force"), || {
            let (_, page) = http_get_here(admin, "/policy").unwrap();
            if page.contains(policy) {
                Ok(())
            } else {
                Err(page)
            }
        });
    }

    /// Guest's connection is reset, and it is the only one that ends; why, in api's log.
    fn guest_alone_is_cut(&mut self) -> String {
        assert_eq!(self.guest.ending(), Ending::Reset(Vec::new()));
        let log = &self.mesh.sidecar("api").log;
        let closed = log.wait_for(&[("event", "close"), ("end", "policy_changed")]);
        let opened = log.wait_for(&[
            ("event", "open"),
            ("conn_id", closed["conn_id"].as_str().unwrap()),
        ]);
        assert_eq!(
            opened["src.identity"],
            "spiffe://cluster.local/ns/shop/sa/guest"
        );
        self.all_webs_echo("still here");
        assert_eq!(self.mesh.sidecar("api").log.count(&[("event", "close")]), 1);
        closed["error"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_rule_that_denies_one_caller_resets_that_one_and_the_log_names_the_rule() {
    let mut crowd = Crowd::gather(FROM_SHOP);
    crowd.mesh.write_documents("no-guest.yaml", NO_GUEST);
    assert_eq!(
        crowd.guest_alone_is_cut(),
        "denied by shop/no-guest (no-guest.yaml:8): rules[0].from[0].source.principals matches"
    );
    // a new call hears the same
    let mut again = crowd.mesh.sidecar("guest").call().unwrap();
    assert_eq!(again.ending_after_hello(), Ending::Reset(Vec::new()));
    let log = &crowd.mesh.sidecar("api").log;
    let denied = log.wait_for(&[("event", "open"), ("decision", "deny")]);
    assert_eq!(denied["policy_source"], "no-guest.yaml:8", "{denied}");
}

#[test]
fn a_rule_that_is_gone_resets_whom_it_alone_allowed_and_the_log_names_what_is_left() {
    let mut crowd = Crowd::gather(FROM_SHOP);
    let (without, _) = FROM_SHOP.rsplit_once("  - from:").unwrap();
    crowd.mesh.write_documents(POLICY, without);
    assert_eq!(
        crowd.guest_alone_is_cut(),
        "no ALLOW rule matches; nearest is shop/api-from-shop (policy.yaml:8): \
         rules[0].from[0].source.principals wants cluster.local/ns/shop/sa/web, \
         not cluster.local/ns/shop/sa/guest"
    );
}

#[test]
fn an_edit_that_changes_nothing_for_anybody_ends_nothing() {
    let mut crowd = Crowd::gather(FROM_SHOP);
    crowd.mesh.write_documents(POLICY, SAME_IN_OTHER_WORDS);
    crowd.in_force("callers-of-api");
    crowd.all_webs_echo("in other words");
    assert_eq!(
        crowd.guest.echo("in other words").unwrap(),
        "in other words"
    );
    crowd.mesh.write_documents(POLICY, FROM_SHOP);
    crowd.in_force("api-from-shop");
    // the next change is judged after the ones before: had they ended anything, it would show
    crowd.mesh.write_documents("no-guest.yaml", NO_GUEST);
    crowd.guest_alone_is_cut();
}

#[test]
fn an_edit_that_opens_more_ends_nothing() {
    let mut crowd = Crowd::gather(FROM_SHOP);
    let wider = FROM_SHOP.replace("namespaces: [shop]", "namespaces: [\"*\"]");
    let everybody = format!("{wider}  - {{}}\n");
    let everybody = everybody.replace("api-from-shop", "api-from-everybody");
    crowd.mesh.write_documents(POLICY, &everybody);
    crowd.in_force("api-from-everybody");
    crowd.all_webs_echo("wider");
    assert_eq!(crowd.guest.echo("wider").unwrap(), "wider");
    crowd.mesh.write_documents("no-guest.yaml", NO_GUEST);
    crowd.guest_alone_is_cut();
}

#[test]
fn an_edit_that_cannot_be_loaded_ends_nothing_and_what_was_last_good_still_denies() {
    let mut crowd = Crowd::gather(FROM_SHOP);
    // were it in force it would cut everybody; were it nothing at all, the default would
    let broken = FROM_SHOP.replace("namespaces: [shop]", "namespace: [elsewhere]");
    crowd.mesh.write_documents(POLICY, &broken);
    eventually("the control plane says what is wrong", || {
        let (_, text) = crowd.mesh.control_plane_readiness().unwrap();
        if text.contains("policy.yaml") {
            Ok(())
        } else {
            Err(text)
        }
    });
    crowd.all_webs_echo("last good");
    assert_eq!(crowd.guest.echo("last good").unwrap(), "last good");
    crowd.mesh.write_documents("no-guest.yaml", NO_GUEST);
    crowd.guest_alone_is_cut();
}

/// Beside it, everybody may call whom no rule names.
const ALLOWED_BY_DEFAULT: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: by-default, namespace: shop}
spec: {defaultAction: ALLOW}
";

impl Crowd {
    /// Renames api's label, many times: of the workload, of its service and of the policy, all of
    /// them in one file at once, so that it means the same before and afterwards. In between,
    /// `between` looks at who is let in.
    fn rename_the_label(&mut self, policy: &str, mut between: impl FnMut(&mut Self)) {
        const RENAMES: usize = 100;
        let (label, workloads) = ("{app: api}", self.mesh.workloads());
        assert!(workloads.matches(label).count() == 2 && policy.matches(label).count() == 1);
        for rename in 0..RENAMES {
            let name = format!("renamed-{rename}");
            let all = format!("{workloads}---\n{}", policy.replace("RENAMED", &name));
            let all = all.replace(label, &format!("{{app: api-{rename}}}"));
            self.mesh.write_documents("workloads.yaml", &all);
            if rename == 0 {
                self.mesh
                    .write_documents(POLICY, "# it is with the workloads now\n");
            }
            let admin = self.mesh.sidecar("api").admin();
            eventually(&format!("{name} is in force"), || {
                between(self);
                let (_, page) = http_get_here(admin, "/policy").unwrap();
                if page.contains(&name) {
                    Ok(())
                } else {
                    Err(page)
                }
            });
        }
    }
}

#[test]
fn a_label_that_is_renamed_with_its_policy_cuts_nobody() {
    let mut crowd = Crowd::gather(FROM_SHOP);
    let policy = FROM_SHOP.replace("api-from-shop", "RENAMED");
    crowd.rename_the_label(&policy, |_| {});
    crowd.all_webs_echo("renamed");
    assert_eq!(crowd.guest.echo("renamed").unwrap(), "renamed");
    let log = &crowd.mesh.sidecar("api").log;
    assert_eq!(log.count(&[("event", "close")]), 0);
}

#[test]
fn a_label_that_is_renamed_with_its_policy_lets_nobody_in() {
    let before = format!("{NO_GUEST}---\n{ALLOWED_BY_DEFAULT}");
    let mut crowd = Crowd::gather(ALLOWED_BY_DEFAULT);
    crowd.mesh.write_documents(POLICY, &before);
    crowd.guest_alone_is_cut();
    let policy = before.replace("no-guest", "RENAMED");
    crowd.rename_the_label(&policy, |crowd| {
        match crowd.mesh.sidecar("guest").call() {
            Ok(mut guest) => assert_eq!(guest.ending_after_hello(), Ending::Reset(Vec::new())),
            // so early that nothing could be said
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
        }
    });
    crowd.all_webs_echo("renamed");
}
