use mesh_lite_proto::decision_record::Recording;
use serde_json::json;

use super::{
    super::{
        replay,
        tests::made_up::{
            Calls, GUEST, GUEST_ADDRESS, WEB, WORKLOADS, documents, noon, page, page_with,
            recorded, settings,
        },
        workloads_of,
    },
    *,
};
use crate::policy_index::ShippedDefaults;

fn suggested(calls: &[Calls]) -> Suggestion {
    suggested_for(WORKLOADS, &[page("shop/api-1", calls)])
}

fn suggested_for(workloads: &str, recordings: &[Recording]) -> Suggestion {
    let documents = documents(&[workloads]);
    let recorded = recorded(&documents, recordings).unwrap();
    suggest(
        &documents,
        &recorded,
        &settings(ShippedDefaults::STRICT),
        noon(),
    )
    .unwrap()
}

/// Connections that flip if nothing but the suggestion holds.
fn flipped(suggestion: &Suggestion, calls: &[Calls]) -> u64 {
    let documents = documents(&[WORKLOADS, &suggestion.text]);
    assert!(
        documents.errors().is_empty(),
        "{:?}\n{}",
        documents.errors(),
        suggestion.text
    );
    let recordings = [page("shop/api-1", calls)];
    let recorded = recorded(&documents, &recordings).unwrap();
    replay(&documents, &recorded, None, noon()).flipped()
}

fn of_guest(decision: &str) -> Calls {
    Calls::of(Some(GUEST), GUEST_ADDRESS, decision)
}

#[test]
fn who_was_let_through_is_again_and_who_was_denied_is_not() {
    let calls = [Calls::of_web().count(1_200), Calls::of_guest().count(3)];
    let suggestion = suggested(&calls);
    assert_eq!(flipped(&suggestion, &calls), 0);
    assert_eq!((suggestion.kept, suggestion.denied), (1_200, 3));
    for line in [
        "  selector: {matchLabels: {app: api}}",
        "        - cluster.local/ns/shop/sa/web  # 1200 connections, last ",
        "    - operation: {ports: [\"8080\"]}",
        "  - {from: cluster.local/ns/shop/sa/web, port: 8080, expect: ALLOW}",
        "  - {from: cluster.local/ns/shop/sa/guest, sourceIp: \"10.0.0.13\", port: 8080, expect: DENY}",
        "  - {from: cluster.local/ns/shop/sa/stranger, port: 8080, expect: DENY}",
        "#   cluster.local/ns/shop/sa/guest from 10.0.0.13 to port 8080: 3 connections, last ",
    ] {
        assert!(
            suggestion.text.contains(&format!("\n{line}")),
            "{line}\n{}",
            suggestion.text
        );
    }
}

#[test]
fn nobody_gets_a_port_that_it_did_not_use() {
    let calls = [
        Calls::of_web(),
        Calls::of_web().with("dst.addr", "10.0.0.11:9090"),
        of_guest("allow"),
    ];
    let suggestion = suggested(&calls);
    assert_eq!(flipped(&suggestion, &calls), 0);
    let unused = [of_guest("allow").with("dst.addr", "10.0.0.11:9090")];
    assert_eq!(flipped(&suggestion, &unused), 1);
}

#[test]
fn callers_of_the_same_ports_share_a_rule() {
    let text = suggested(&[Calls::of_web(), of_guest("allow")]).text;
    assert_eq!(text.matches("  - from:\n").count(), 1, "{text}");
    let (guest, web) = (
        text.find("sa/guest  #").unwrap(),
        text.find("sa/web  #").unwrap(),
    );
    assert!(guest < web, "sorted: {text}");
}

#[test]
fn plaintext_is_never_let_in_and_the_text_says_what_to_do() {
    let calls = [Calls::of_web(), Calls::of_legacy().count(17)];
    let suggestion = suggested(&calls);
    assert_eq!(suggestion.plaintext, 17);
    assert_eq!(flipped(&suggestion, &calls), 17);
    let rule = "  # - from: [{source: {ipBlocks: [\"10.0.0.12/32\"]}}]  # 17 connections";
    assert!(suggestion.text.contains(rule), "{}", suggestion.text);
    assert!(
        suggestion
            .text
            .contains("put the\n  # caller into the mesh"),
        "{}",
        suggestion.text
    );
}

#[test]
fn the_rule_for_plaintext_does_what_it_says_once_its_comment_is_taken_away() {
    let calls = [Calls::of_web(), Calls::of_legacy()];
    let text = suggested(&calls).text;
    let text = text
        .replace("  # - from: [{", "  - from: [{")
        .replace("  #   to: [{", "    to: [{");
    let documents = documents(&[WORKLOADS, super::super::tests::made_up::PERMISSIVE, &text]);
    assert!(
        documents.errors().is_empty(),
        "{:?}\n{text}",
        documents.errors()
    );
    let recordings = [page("shop/api-1", &calls)];
    let recorded = recorded(&documents, &recordings).unwrap();
    assert_eq!(replay(&documents, &recorded, None, noon()).flipped(), 0);
}

#[test]
fn who_was_denied_the_last_time_is_not_let_in_for_what_was_before() {
    let calls = [
        Calls::of_web(),
        of_guest("allow").count(5).last(50),
        Calls::of_guest().last(5),
    ];
    let suggestion = suggested(&calls);
    assert_eq!(suggestion.superseded, 5);
    assert_eq!(flipped(&suggestion, &calls), 5);
    assert!(
        suggestion
            .text
            .contains("before that let through: 5 connections")
    );
    // of two in the same moment nobody knows which was the last: denied
    let calls = [of_guest("allow").last(5), Calls::of_guest().last(5)];
    assert_eq!(suggested(&calls).superseded, 1);
    // the other way round it is
    let calls = [Calls::of_guest().last(50), of_guest("allow").last(5)];
    let suggestion = suggested(&calls);
    assert_eq!((suggestion.kept, suggestion.superseded), (1, 0));
}

#[test]
fn a_caller_that_was_denied_from_one_address_stays_denied_from_there() {
    let elsewhere = "10.0.7.7:1";
    let calls = [Calls::of_web(), Calls::of(Some(WEB), elsewhere, "deny")];
    let suggestion = suggested(&calls);
    assert_eq!(flipped(&suggestion, &calls), 0);
    assert!(
        suggestion.text.contains("notIpBlocks: [\"10.0.7.7/32\"]"),
        "{}",
        suggestion.text
    );
}

#[test]
fn where_everybody_was_denied_everybody_stays_denied() {
    let calls = [Calls::of_guest()];
    let suggestion = suggested(&calls);
    assert_eq!(flipped(&suggestion, &calls), 0);
    assert!(
        suggestion.text.contains("  rules: []"),
        "{}",
        suggestion.text
    );
}

#[test]
fn of_a_workload_that_nobody_called_no_policy_is_made() {
    let text = suggested(&[]).text;
    assert!(text.contains("# Nobody called it"), "{text}");
    assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
}

#[test]
fn workloads_with_the_same_labels_have_one_policy() {
    let replica = WORKLOADS
        .replace("name: guest-1", "name: api-2")
        .replace("serviceAccount: guest", "serviceAccount: api")
        .replace("app: guest", "app: api");
    let recordings = [
        page("shop/api-1", &[Calls::of_web()]),
        page(
            "shop/api-2",
            &[of_guest("allow").with("dst.addr", "10.0.0.13:8080")],
        ),
    ];
    let suggestion = suggested_for(&replica, &recordings);
    assert_eq!(
        suggestion.text.matches("kind: AuthorizationPolicy").count(),
        1
    );
    assert_eq!(suggestion.kept, 2);
    // one of the two has no recording: it is told that the policy is for it too
    let suggestion = suggested_for(&replica, &recordings[..1]);
    let told = "# The labels select these too, so it is for them as well: shop/api-2";
    assert!(suggestion.text.contains(told), "{}", suggestion.text);
}

#[test]
fn labels_that_select_somebody_else_too_are_told_with_whom_they_would_let_in() {
    let canary = WORKLOADS
        .replace("name: guest-1", "name: canary")
        .replace("app: guest", "app: api, track: canary");
    let recordings = [
        page("shop/api-1", &[Calls::of_web()]),
        page(
            "shop/canary",
            &[Calls::of(Some(WEB), "10.0.0.10:1", "deny").with("dst.addr", "10.0.0.13:8080")],
        ),
    ];
    let suggestion = suggested_for(&canary, &recordings);
    assert_eq!(suggestion.widened.len(), 1, "{:?}", suggestion.widened);
    let told = &suggestion.widened[0];
    assert!(
        told.starts_with("cluster.local/ns/shop/sa/web to shop/canary, port 8080"),
        "{told}"
    );
}

#[test]
fn without_labels_a_policy_is_for_the_namespace_only_if_nobody_else_is_in_it() {
    let alone = "apiVersion: mesh-lite.io/v1\nkind: Workload\n\
                 metadata: {name: api-1, namespace: shop}\n\
                 spec: {serviceAccount: api, addresses: [10.0.0.11]}\n---\n";
    let recordings = [page("shop/api-1", &[Calls::of_web()])];
    let suggestion = suggested_for(alone, &recordings);
    assert_eq!(suggestion.kept, 1);
    assert!(
        suggestion.text.contains("for the whole of namespace shop"),
        "{}",
        suggestion.text
    );
    let among_others = WORKLOADS.replace(", labels: {app: api}", "");
    let suggestion = suggested_for(&among_others, &recordings);
    assert_eq!((suggestion.kept, suggestion.left_out), (0, 1));
    assert!(
        suggestion.text.lines().all(|line| line.starts_with('#')),
        "{}",
        suggestion.text
    );
    assert!(
        suggestion.text.contains("shop/guest-1"),
        "{}",
        suggestion.text
    );
}

#[test]
fn in_the_meshs_own_namespace_no_policy_without_labels_is_made() {
    let own = "apiVersion: mesh-lite.io/v1\nkind: Workload\n\
               metadata: {name: api-1, namespace: mesh-lite-system}\n\
               spec: {serviceAccount: api, addresses: [192.0.2.11]}\n---\n";
    let documents = documents(&[own, WORKLOADS]);
    let recordings = [page("mesh-lite-system/api-1", &[Calls::of_web()])];
    let recorded = recorded(&documents, &recordings).unwrap();
    let suggestion = suggest(
        &documents,
        &recorded,
        &settings(ShippedDefaults::STRICT),
        noon(),
    )
    .unwrap();
    assert_eq!(
        (suggestion.kept, suggestion.left_out),
        (0, 1),
        "{}",
        suggestion.text
    );
}

#[test]
fn nothing_in_a_recording_or_a_document_breaks_out_of_its_line() {
    let hostile = WORKLOADS.replace(
        "{app: api}",
        r#"{app: "a\"}}\n- x: \u0085\u2028\u001b", "on": "yes"}"#,
    );
    let calls = [
        Calls::of_web(),
        Calls::of_guest().with("reason", "x\u{1b}[2J\nspec: {}\u{85}\u{2028}kind: y"),
    ];
    let recordings = [page("shop/api-1", &calls)];
    let documents = documents(&[&hostile]);
    assert!(documents.errors().is_empty(), "{:?}", documents.errors());
    let named = [NamedRecording {
        name: "file\n---\nkind: z",
        recording: &recordings[0],
    }];
    let recorded = workloads_of(&documents, &named, noon()).unwrap();
    let suggestion = suggest(
        &documents,
        &recorded,
        &settings(ShippedDefaults::STRICT),
        noon(),
    )
    .unwrap();
    let steers = |c: char| c != '\n' && (c.is_control() || c == '\u{2028}');
    assert!(
        !suggestion.text.chars().any(steers),
        "{:?}",
        suggestion.text
    );
    assert_eq!(
        suggestion.text.matches("\nspec:").count(),
        1,
        "{}",
        suggestion.text
    );
    assert_eq!(suggestion.kept, 1, "{}", suggestion.text);
}

#[test]
fn many_callers_are_all_in_the_rules_and_some_of_them_in_tests_and_comments() {
    let mut calls: Vec<_> = (0..150)
        .map(|number| {
            let id = format!("spiffe://cluster.local/ns/shop/sa/caller-{number}");
            Calls::of(Some(&id), "10.0.9.9:1", "allow")
        })
        .collect();
    calls.extend((0..150).map(|number| {
        let id = format!("spiffe://cluster.local/ns/shop/sa/denied-{number}");
        Calls::of(Some(&id), "10.0.9.8:1", "deny")
    }));
    let suggestion = suggested(&calls);
    assert_eq!(flipped(&suggestion, &calls), 0);
    let tests = suggestion.text.matches("expect: ").count();
    assert_eq!(tests, 90, "{}", suggestion.text);
    assert!(suggestion.text.contains("sa/stranger, port"));
    assert!(
        suggestion.text.contains("# and 130 more"),
        "{}",
        suggestion.text
    );
}

#[test]
fn what_was_lost_is_told_in_the_text_and_beside_it() {
    let header = json!({"forgotten": 4, "forgotten_let_through": 4});
    let recordings = [page_with("shop/api-1", &header, &[Calls::of_web()])];
    let suggestion = suggested_for(WORKLOADS, &recordings);
    assert_eq!(suggestion.caveats.len(), 1);
    assert!(
        suggestion.text.contains("incomplete: 4 records"),
        "{}",
        suggestion.text
    );
}

#[test]
fn without_documents_the_recording_says_whose_it_is() {
    let trust_domain = "cluster.local".parse().unwrap();
    let by = |header| {
        let recording = page_with("shop/api-1", &header, &[Calls::of_web()]);
        let named = [NamedRecording {
            name: "0",
            recording: &recording,
        }];
        workloads_by_recording(&named, &trust_domain)
            .map(|found| found[0].name.to_string())
            .map_err(|error| error.to_string())
    };
    let own = super::super::tests::made_up::API;
    assert_eq!(by(json!({"identity": own})).unwrap(), "shop/api-1");
    assert_eq!(
        by(json!({"identity": own, "workload": null})).unwrap(),
        "shop/api"
    );
    assert!(by(json!({})).unwrap_err().contains("nothing in it says"));
    assert!(by(json!({"identity": "spiffe://other.org/ns/shop/sa/api"})).is_err());
}

#[test]
fn more_callers_than_a_file_of_documents_holds_are_refused_with_what_to_do() {
    let calls: Vec<_> = (0..12_000)
        .map(|number| {
            let id = format!("spiffe://cluster.local/ns/shop/sa/caller-of-some-length-{number}");
            Calls::of(Some(&id), "10.0.9.9:1", "allow")
        })
        .collect();
    let documents = documents(&[WORKLOADS]);
    let recordings = [page("shop/api-1", &calls)];
    let recorded = recorded(&documents, &recordings).unwrap();
    let settings = settings(ShippedDefaults::STRICT);
    let error = suggest(&documents, &recorded, &settings, noon()).unwrap_err();
    assert!(
        error.to_string().contains("ask for fewer recordings"),
        "{error}"
    );
}

#[test]
fn without_documents_nobody_knows_who_else_is_in_the_namespace_so_nothing_is_in_force() {
    let recording = page_with(
        "shop/api-1",
        &json!({"identity": super::super::tests::made_up::API}),
        &[Calls::of_web().count(3)],
    );
    let named = [NamedRecording {
        name: "0",
        recording: &recording,
    }];
    let workloads = workloads_by_recording(&named, &"cluster.local".parse().unwrap()).unwrap();
    let recorded = [Recorded {
        name: "0",
        recording: &recording,
        workload: &workloads[0],
    }];
    let settings = settings(ShippedDefaults::STRICT);
    let suggestion = suggest(&documents(&[]), &recorded, &settings, noon()).unwrap();
    let text = &suggestion.text;
    assert!(text.lines().all(|line| line.starts_with('#')), "{text}");
    assert!(text.contains("Give its Workload by --config-dir"), "{text}");
    assert!(!suggestion.is_whole());
    assert_eq!(suggestion.left_out, 3);
}

#[test]
fn a_broken_document_or_an_eviction_says_nothing_of_who_may_call() {
    let broken = Calls::of(Some(WEB), "10.0.0.10:1", "deny").with("step", "broken-document");
    let evicted = Calls::of(Some(WEB), "10.0.0.10:1", "refuse").with("reason", "evicted");
    for denied in [broken, evicted] {
        let calls = [Calls::of_web().count(9), denied.last(5)];
        let suggestion = suggested(&calls);
        let told = (suggestion.kept, suggestion.superseded, suggestion.unmeant);
        assert_eq!(told, (9, 0, 1), "{}", suggestion.text);
        assert!(!suggestion.text.contains("expect: DENY}  # denied"));
    }
    // what a rule denied is meant
    let calls = [
        Calls::of_web().count(9),
        Calls::of(Some(WEB), "10.0.0.10:1", "deny").last(5),
    ];
    let suggestion = suggested(&calls);
    assert_eq!((suggestion.kept, suggestion.superseded), (0, 9));
    let told = "nobody with an identity was let through the last time it came";
    assert!(suggestion.text.contains(told), "{}", suggestion.text);
}

#[test]
fn who_is_connected_and_would_be_cut_is_named() {
    let denied_since = [
        of_guest("allow").open(2).last(50),
        Calls::of_guest().last(5),
    ];
    let suggestion = suggested(&denied_since);
    assert_eq!(
        suggestion.cut,
        ["cluster.local/ns/shop/sa/guest to shop/api-1, port 8080: 2 open"]
    );
    assert!(!suggestion.is_whole());
    let plaintext = suggested(&[Calls::of_web().open(7), Calls::of_legacy().open(1)]);
    assert_eq!(
        plaintext.cut,
        ["plaintext of 10.0.0.12 to shop/api-1, port 8080: 1 open"]
    );
    assert!(suggested(&[Calls::of_web().open(7), Calls::of_legacy()]).is_whole());
}

#[test]
fn documents_are_separated_and_none_of_them_is_empty() {
    let recordings = [
        page("shop/api-1", &[Calls::of_web()]),
        page(
            "shop/guest-1",
            &[Calls::of_web().with("dst.addr", "10.0.0.13:1")],
        ),
        page("shop/web-1", &[]),
    ];
    let text = suggested_for(WORKLOADS, &recordings).text;
    let separators = text.lines().filter(|line| *line == "---").count();
    assert_eq!(separators, 1, "{text}");
    assert!(!text.trim_end().ends_with("---"), "{text}");
    let suggestion = suggested(&[Calls::of_web()]).text;
    assert!(!suggestion.contains("---"), "{suggestion}");
}
