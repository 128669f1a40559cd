use mesh_lite_proto::decision_record::{Recording, Utc};
use serde_json::{Value, json};

use super::{
    super::tests::made_up::{
        Calls, LEGACY_ADDRESS, PERMISSIVE, WEB_ADDRESS, WORKLOADS, allowing, before_noon,
        documents, noon, page, page_with, recorded, shipped,
    },
    *,
};
use crate::policy_index::ShippedDefaults;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Of every meshed workload, that of api with these calls.
fn recordings(header: &Value, calls: &[Calls]) -> [Recording; 3] {
    [
        page("shop/web-1", &[]),
        page_with("shop/api-1", header, calls),
        page("shop/guest-1", &[]),
    ]
}

fn looked<T>(
    documents: &Documents,
    recordings: &[Recording],
    look: impl Fn(&StrictReadiness<'_>) -> T,
) -> T {
    let recorded = recorded(documents, recordings).unwrap();
    look(&strict_readiness(documents, &recorded, None, DAY, noon()))
}

fn permissive() -> Documents {
    documents(&[WORKLOADS, PERMISSIVE, &allowing(&["web"])])
}

fn with_calls<T>(calls: &[Calls], look: impl Fn(&StrictReadiness<'_>) -> T) -> T {
    looked(&permissive(), &recordings(&json!({}), calls), look)
}

fn not_ready_for(header: &Value, words: &str) {
    let recordings = recordings(header, &[Calls::of_web()]);
    looked(&permissive(), &recordings, |found| {
        assert!(!found.is_ready());
        assert_eq!(found.gaps.len(), 1, "{:?}", found.gaps);
        let told = found.gaps[0].to_string();
        assert!(
            told.contains("shop/api-1") && told.contains(words),
            "{told}"
        );
    });
}

#[test]
fn ready_if_everything_was_recorded_and_nothing_of_it_was_plaintext() {
    with_calls(&[Calls::of_web().count(1_000)], |found| {
        assert!(found.is_ready(), "{found:?}");
        assert_eq!(found.workloads, 3);
    });
}

/// As `texts` have it, nothing but web's mutual TLS having come in: what to do next.
fn next(texts: &[&str], namespace: Option<&str>) -> Option<NextStep> {
    let documents = documents(&[&[WORKLOADS], texts].concat());
    let recordings = recordings(&json!({}), &[Calls::of_web()]);
    let recorded = recorded(&documents, &recordings).unwrap();
    let found = strict_readiness(&documents, &recorded, namespace, DAY, noon());
    assert!(found.is_ready(), "{found:?}");
    found.next_step
}

#[test]
fn what_is_ready_is_told_what_to_put_in_force_and_that_makes_it_strict() {
    let web = allowing(&["web"]);
    for (namespace, words) in [
        (None, "namespace: mesh-lite-system"),
        (Some("shop"), "namespace: shop"),
    ] {
        let step = next(&[&web], namespace).unwrap();
        assert_eq!((step.in_place_of, &*step.still_permissive), (None, &[][..]));
        assert!(step.document.contains(words), "{}", step.document);
        assert_eq!(step.document.lines().count(), 5, "{}", step.document);
        let after = shipped(
            ShippedDefaults::PERMISSIVE,
            &[WORKLOADS, &web, &step.document],
        );
        assert_eq!(after.errors(), []);
        for workload in after.workloads() {
            let held = after.snapshot_for(workload, noon()).mutual_tls;
            assert_eq!((held.mode, held.ports.len()), (MutualTlsMode::Strict, 0));
        }
    }
}

#[test]
fn a_document_that_stays_permissive_or_has_the_name_is_told_of() {
    let web = allowing(&["web"]);
    // for one namespace it takes the place of the one there is
    let step = next(&[&web, PERMISSIVE], Some("shop")).unwrap();
    assert_eq!(&*step.in_place_of.unwrap().document, "shop/default");
    assert_eq!(step.still_permissive, []);
    // for the mesh, the one of the namespace goes before it
    let step = next(&[&web, PERMISSIVE], None).unwrap();
    assert_eq!(step.in_place_of, None);
    assert_eq!(&*step.still_permissive[0].document, "shop/default");
    // of a name that another one has which is narrower: no such document would be taken
    let narrow = PERMISSIVE.replace("spec: {", "spec: {selector: {matchLabels: {app: api}}, ");
    let step = next(&[&web, &narrow], Some("shop")).unwrap();
    assert!(
        step.document.contains("{name: strict, namespace: shop}"),
        "{}",
        step.document
    );
    assert_eq!(step.still_permissive.len(), 1);
    // of nobody who was asked about
    let others = narrow.replace("app: api", "app: nobody");
    assert_eq!(next(&[&web, &others], None).unwrap().still_permissive, []);
}

#[test]
fn nothing_is_proposed_that_would_be_for_workloads_that_were_not_judged() {
    let own = "apiVersion: mesh-lite.io/v1\nkind: Workload\n\
               metadata: {name: gateway, namespace: mesh-lite-system}\n\
               spec: {serviceAccount: gateway, addresses: [10.0.0.31]}\n---\n";
    let documents = documents(&[own]);
    let recordings = [page("mesh-lite-system/gateway", &[])];
    let recorded = recorded(&documents, &recordings).unwrap();
    let found = strict_readiness(&documents, &recorded, Some("mesh-lite-system"), DAY, noon());
    assert!(found.is_ready(), "{found:?}");
    assert_eq!(found.next_step, None);
    // nor by what is not ready
    with_calls(&[Calls::of_legacy()], |found| {
        assert_eq!(found.next_step, None)
    });
}

#[test]
fn plaintext_that_was_let_through_is_named_with_its_workload_and_since_when() {
    with_calls(&[Calls::of_web(), Calls::of_legacy().count(17)], |found| {
        assert!(!found.is_ready());
        let [call] = &*found.plaintext else {
            panic!("{found:?}")
        };
        assert_eq!(call.known.unwrap().name.to_string(), "shop/legacy");
        assert_eq!((call.port, call.count), (8080, 17));
        assert_eq!(Utc(call.first).to_string(), before_noon(60));
        assert_eq!(Utc(call.last).to_string(), before_noon(30));
    });
}

#[test]
fn one_plaintext_call_among_millions_is_enough() {
    let calls = [Calls::of_web().count(10_000_000), Calls::of_legacy()];
    with_calls(&calls, |found| assert!(!found.is_ready()));
}

#[test]
fn plaintext_of_an_address_that_nobody_has_is_named_by_it() {
    let stranger = Calls::of(None, "192.0.2.7:1", "allow");
    with_calls(&[stranger], |found| {
        assert!(!found.is_ready());
        assert_eq!(found.plaintext[0].known, None);
        assert_eq!(found.plaintext[0].peer.to_string(), "192.0.2.7");
    });
}

#[test]
fn what_came_before_the_window_counts_only_if_it_is_open_still() {
    let two_days_ago = || Calls::of_legacy().last(2 * 24 * 60);
    with_calls(&[two_days_ago()], |found| assert!(found.is_ready()));
    with_calls(&[two_days_ago().open(1)], |found| {
        assert!(!found.is_ready())
    });
}

#[test]
fn plaintext_that_is_refused_or_denied_already_is_told_and_stands_in_no_way() {
    let calls = [
        Calls::of(None, LEGACY_ADDRESS, "refuse").with("reason", "plaintext_to_strict"),
        Calls::of(None, WEB_ADDRESS, "deny"),
    ];
    with_calls(&calls, |found| {
        assert!(found.is_ready(), "{found:?}");
        assert_eq!(found.refused.len(), 2);
    });
    // a handshake that failed is no plaintext
    let noise = Calls::of(None, LEGACY_ADDRESS, "refuse").with("reason", "handshake");
    with_calls(&[noise], |found| assert!(found.refused.is_empty()));
}

#[test]
fn a_mesh_caller_that_only_permissive_lets_in_would_be_cut_too() {
    let calls = [Calls::of_web()];
    let lax = shipped(ShippedDefaults::PERMISSIVE, &[WORKLOADS]);
    looked(&lax, &recordings(&json!({}), &calls), |found| {
        assert!(!found.is_ready(), "{found:?}");
        let caller = &found.permissive_only[0];
        assert!(caller.caller.ends_with("sa/web"));
        assert!(caller.strict.reason.contains("STRICT denies"), "{caller:?}");
    });
    // a rule that names it stays what it is
    let named = shipped(
        ShippedDefaults::PERMISSIVE,
        &[WORKLOADS, &allowing(&["web"])],
    );
    looked(&named, &recordings(&json!({}), &calls), |found| {
        assert!(found.is_ready(), "{found:?}");
    });
}

#[test]
fn a_recording_that_begins_within_the_window_vouches_for_nothing() {
    not_ready_for(&json!({"since": before_noon(24 * 60 - 1)}), "begins at");
}

#[test]
fn a_recording_that_ends_long_ago_vouches_for_nothing() {
    not_ready_for(&json!({"until": before_noon(11)}), "ends at");
}

#[test]
fn a_recording_that_lost_what_was_let_through_vouches_for_nothing() {
    not_ready_for(
        &json!({"forgotten": 1, "forgotten_let_through": 1}),
        "lost 1 record",
    );
    // a flood of denied strangers hides nobody who was let through
    let flood = recordings(&json!({"forgotten": 9, "forgotten_let_through": 0}), &[]);
    looked(&permissive(), &flood, |found| assert!(found.is_ready()));
}

/// Whether api is ready by these two recordings of it.
fn ready_by_both(one: &Recording, other: &Recording) -> Result<(), String> {
    let [web, _, guest] = recordings(&json!({}), &[]);
    let documents = permissive();
    let named = ["a", "b", "c", "d"]
        .into_iter()
        .zip([&web, one, other, &guest]);
    let named: Vec<_> = named
        .map(|(name, recording)| super::super::NamedRecording { name, recording })
        .collect();
    let recorded = super::super::workloads_of(&documents, &named, noon()).unwrap();
    let found = strict_readiness(&documents, &recorded, None, DAY, noon());
    match &*found.gaps {
        [] => Ok(()),
        gaps => Err(gaps[0].to_string()),
    }
}

fn call_of_run(run: &str) -> Calls {
    Calls::of_web().with("conn_ids", json!([format!("{run}000000001")]))
}

#[test]
fn a_whole_recording_beside_a_partial_one_of_the_same_run_is_enough() {
    let whole = page("shop/api-1", &[call_of_run("aaaaaaa")]);
    let partial = page_with(
        "shop/api-1",
        &json!({"since": before_noon(60)}),
        &[call_of_run("aaaaaaa")],
    );
    assert_eq!(ready_by_both(&partial, &whole), Ok(()));
    let earlier = page_with("shop/api-1", &json!({"until": before_noon(20)}), &[]);
    assert_eq!(ready_by_both(&whole, &earlier), Ok(()));
}

#[test]
fn a_whole_recording_vouches_for_no_other_run_and_not_for_what_came_after_it() {
    let whole = page("shop/api-1", &[call_of_run("aaaaaaa")]);
    let since = json!({"since": before_noon(60)});
    // a sidecar that started again, and one that said nothing of its run
    for calls in [vec![call_of_run("bbbbbbb")], vec![]] {
        let restarted = page_with("shop/api-1", &since, &calls);
        let told = ready_by_both(&restarted, &whole).unwrap_err();
        assert!(told.contains("begins at"), "{told}");
    }
    let until = json!({"until": before_noon(9)});
    let whole = page_with("shop/api-1", &until, &[]);
    let lost = json!({"forgotten": 1, "forgotten_let_through": 1});
    let later = page_with("shop/api-1", &lost, &[]);
    let told = ready_by_both(&whole, &later).unwrap_err();
    assert!(told.contains("lost 1 record"), "{told}");
}

#[test]
fn who_was_let_in_and_is_denied_by_strict_is_a_reason_whatever_the_documents_say() {
    let strict = documents(&[WORKLOADS]);
    let calls = [Calls::of_web().with("step", "mutual-tls-mode")];
    looked(&strict, &recordings(&json!({}), &calls), |found| {
        assert!(!found.is_ready());
        assert_eq!(found.permissive_only.len(), 1, "{found:?}");
        let told = found.gaps[0].to_string();
        assert!(told.contains("is --config-dir what is in force"), "{told}");
    });
}

#[test]
fn plaintext_that_ended_within_the_window_counts_and_so_does_what_may_have() {
    let old = || Calls::of_legacy().last(2 * 24 * 60);
    with_calls(&[old().with("ended", before_noon(25 * 60))], |found| {
        assert!(found.is_ready(), "{found:?}");
    });
    with_calls(&[old().with("ended", before_noon(60))], |found| {
        assert!(!found.is_ready());
        assert_eq!(Utc(found.plaintext[0].last).to_string(), before_noon(60));
        assert!(!found.plaintext[0].end_unknown);
    });
    // of a page that does not note ends nobody knows
    let recordings = recordings(&json!({"ends_noted": null}), &[old()]);
    looked(&permissive(), &recordings, |found| {
        assert!(!found.is_ready());
        assert!(found.plaintext[0].end_unknown);
    });
}

#[test]
fn a_log_vouches_only_if_its_sidecar_began_with_it() {
    let line = |event: &str, minutes: u64, id: &str, facts: &str| {
        let time = before_noon(minutes);
        format!(r#"{{"time":"{time}","event":"{event}","conn_id":"{id}"{facts}}}"#) + "\n"
    };
    let allowed = r#","direction":"inbound","src.addr":"10.0.0.10:1","dst.addr":"10.0.0.11:8080","decision":"refuse","reason":"limit""#;
    let first = line("open", 48 * 60, "aaaaaaa000000000", allowed);
    let later = line("open", 30 * 60, "aaaaaaa000000001", allowed);
    let last = line("open", 1, "aaaaaaa000000002", allowed);
    let end = line("close", 1, "aaaaaaa000000001", "");
    for (text, words) in [
        (format!("{first}{later}{last}"), None),
        (
            format!("{later}{last}"),
            Some("begins later than its sidecar"),
        ),
        (format!("{later}{end}{last}"), Some("begins later")),
        (format!("{first}{end}{last}"), Some("lost 1 record")),
        // a connection that came and went in a piece that is lost
        (format!("{first}{last}"), Some("lost 1 record")),
    ] {
        let log = Recording::read("log", text.as_bytes()).unwrap();
        let recordings = [page("shop/web-1", &[]), log, page("shop/guest-1", &[])];
        looked(&permissive(), &recordings, |found| {
            let told = found.gaps.first().map(ToString::to_string);
            match words {
                None => assert!(found.is_ready(), "{found:?}"),
                Some(words) => assert!(told.unwrap().contains(words), "{found:?}"),
            }
        });
    }
}

#[test]
fn a_recording_older_than_a_short_window_vouches_for_nothing_of_it() {
    let until = Utc(noon() - Duration::from_secs(12)).to_string();
    let header = json!({ "until": until });
    let recordings =
        ["web-1", "api-1", "guest-1"].map(|name| page_with(&format!("shop/{name}"), &header, &[]));
    let documents = permissive();
    let recorded = recorded(&documents, &recordings).unwrap();
    let ready = |seconds| {
        let window = Duration::from_secs(seconds);
        strict_readiness(&documents, &recorded, None, window, noon()).is_ready()
    };
    assert!(!ready(8));
    assert!(ready(13));
}

#[test]
fn a_meshed_workload_without_a_recording_is_named() {
    let [web, api, _] = recordings(&json!({}), &[]);
    looked(&permissive(), &[web, api], |found| {
        assert!(!found.is_ready());
        let told = found.gaps[0].to_string();
        assert!(
            told.starts_with("shop/guest-1: nothing is recorded"),
            "{told}"
        );
    });
    // legacy has no sidecar: there is nothing to be recorded
}

#[test]
fn documents_that_can_not_be_read_may_hold_another_workload() {
    let broken = "apiVersion: mesh-lite.io/v1\nkind: Workload\n\
                  metadata: {name: new, namespace: shop}\nspec: {serviceAcount: new}\n";
    let documents = documents(&[WORKLOADS, PERMISSIVE, &allowing(&["web"]), broken]);
    looked(&documents, &recordings(&json!({}), &[]), |found| {
        assert!(
            matches!(*found.gaps, [Gap::Documents(_)]),
            "{:?}",
            found.gaps
        );
    });
}

#[test]
fn nobody_at_all_is_not_ready() {
    looked(&documents(&[]), &[], |found| {
        assert!(!found.is_ready());
        assert_eq!(*found.gaps, [Gap::NoWorkload(None)]);
    });
}

#[test]
fn a_namespace_is_ready_or_not_by_itself() {
    let elsewhere = WORKLOADS.replace("namespace: shop", "namespace: bank");
    let documents = documents(&[
        WORKLOADS,
        &elsewhere.replace("10.0.0.", "10.0.1."),
        PERMISSIVE,
        &allowing(&["web"]),
    ]);
    let recordings = recordings(&json!({}), &[Calls::of_web()]);
    let recorded = recorded(&documents, &recordings).unwrap();
    let ready =
        |namespace| strict_readiness(&documents, &recorded, namespace, DAY, noon()).is_ready();
    assert!(ready(Some("shop")));
    assert!(!ready(Some("bank")));
    assert!(!ready(Some("shop-2")));
    assert!(!ready(None));
}

#[test]
fn plaintext_that_goes_out_to_workloads_without_a_sidecar_is_told() {
    let out = |to: &str, name: &str| {
        Calls::of(None, WEB_ADDRESS, "pass")
            .with("direction", "outbound")
            .with("dst.addr", to)
            .with("plaintext", name)
    };
    let calls = [
        out(LEGACY_ADDRESS, "outbound_unmeshed"),
        out("203.0.113.9:443", "outbound_outside"),
    ];
    let recordings = [
        page("shop/web-1", &calls),
        page("shop/api-1", &[]),
        page("shop/guest-1", &[]),
    ];
    looked(&permissive(), &recordings, |found| {
        assert!(found.is_ready(), "{found:?}");
        let [call] = &*found.outbound else {
            panic!("{found:?}")
        };
        assert_eq!(call.known.unwrap().name.to_string(), "shop/legacy");
        assert_eq!(call.port, 4000);
    });
}
