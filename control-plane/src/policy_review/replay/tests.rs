use mesh_lite_proto::decision_record::{Outcome, Recording};
use serde_json::json;

use super::{
    super::{
        JudgedBy,
        tests::made_up::{
            API, Calls, GUEST, LEGACY_ADDRESS, PERMISSIVE, WEB, WORKLOADS, allowing, documents,
            noon, page, page_with, recorded,
        },
    },
    *,
};

fn replayed<T>(texts: &[&str], recordings: &[Recording], look: impl Fn(&Replay<'_>) -> T) -> T {
    let documents = documents(&[&[WORKLOADS], texts].concat());
    let recorded = recorded(&documents, recordings).unwrap();
    look(&replay(&documents, &recorded, None, noon()))
}

fn of_api(calls: &[Calls]) -> [Recording; 1] {
    [page("shop/api-1", calls)]
}

#[test]
fn documents_that_say_the_same_flip_nothing() {
    let recordings = of_api(&[Calls::of_web().count(41_000), Calls::of_guest().count(212)]);
    replayed(&[&allowing(&["web"])], &recordings, |replay| {
        assert_eq!((replay.connections, replay.distinct), (41_212, 2));
        assert!(replay.flips.is_empty(), "{:?}", replay.flips);
        assert!(replay.caveats.is_empty(), "{:?}", replay.caveats);
    });
}

#[test]
fn what_would_be_closed_says_by_which_rule_it_was_and_would_be() {
    let calls = [
        Calls::of_web().count(3),
        Calls::of_guest().with("decision", "allow").count(2),
    ];
    replayed(&[&allowing(&["web"])], &of_api(&calls), |replay| {
        let [flip] = &*replay.flips else {
            panic!("{:?}", replay.flips)
        };
        assert!(flip.closes());
        assert_eq!(flip.caller.unwrap().as_str(), GUEST);
        assert_eq!(flip.destination.port(), 8080);
        assert_eq!((flip.count, flip.then.outcome), (2, Outcome::Allow));
        let reason = &flip.now.reason;
        assert!(reason.contains("shop/api-callers (new.yaml:"), "{reason}");
        assert!(reason.contains("principals wants"), "{reason}");
    });
}

#[test]
fn what_would_be_opened_flips_too() {
    let recordings = of_api(&[Calls::of_web(), Calls::of_guest().count(7)]);
    replayed(&[&allowing(&["web", "guest"])], &recordings, |replay| {
        assert_eq!((replay.flipped(), replay.flipped_distinct()), (7, 1));
        assert!(!replay.flips[0].closes());
    });
}

#[test]
fn what_would_be_closed_comes_first_and_the_most_of_it_before_the_rest() {
    let calls = [
        Calls::of_guest().count(1_000),
        Calls::of_web().count(2),
        Calls::of(Some(API), "10.0.0.11:1", "allow").count(5),
    ];
    replayed(&[&allowing(&["guest"])], &of_api(&calls), |replay| {
        let order: Vec<_> = replay.flips.iter().map(|flip| flip.count).collect();
        assert_eq!(order, [5, 2, 1_000]);
    });
}

#[test]
fn one_caller_from_many_addresses_is_one_flip() {
    let calls: Vec<_> = (1..=9)
        .map(|last| Calls::of(Some(WEB), &format!("10.0.1.{last}:1"), "allow"))
        .collect();
    replayed(&[&allowing(&["guest"])], &of_api(&calls), |replay| {
        let [flip] = &*replay.flips else {
            panic!("{:?}", replay.flips)
        };
        assert_eq!((flip.sources.len(), flip.distinct, flip.count), (9, 9, 9));
    });
}

#[test]
fn plaintext_to_a_port_that_becomes_strict_flips_and_from_each_address_by_itself() {
    let calls = [
        Calls::of_legacy(),
        Calls::of(None, "10.0.0.99:1", "allow"),
        Calls::of(None, LEGACY_ADDRESS, "refuse").with("reason", "plaintext_to_strict"),
    ];
    replayed(&[&allowing(&["web"])], &of_api(&calls), |replay| {
        let steps: Vec<_> = replay
            .flips
            .iter()
            .map(|flip| flip.now.step.as_str())
            .collect();
        assert_eq!(steps, ["strict-port"; 2]);
    });
    // and the other way round
    let everybody = allowing(&["web"]).replace(
        "- from:\n    - source:",
        "- from:\n    - source: {ipBlocks: [0.0.0.0/0]}\n    - source:",
    );
    replayed(&[PERMISSIVE, &everybody], &of_api(&calls), |replay| {
        assert_eq!(replay.flipped(), 1);
        assert!(!replay.flips[0].closes());
    });
}

#[test]
fn what_never_came_as_far_as_policy_is_counted_and_not_judged() {
    let refused = Calls::of(None, LEGACY_ADDRESS, "refuse").with("reason", "handshake_timeout");
    replayed(&[], &of_api(&[refused.count(9)]), |replay| {
        assert_eq!((replay.connections, replay.not_asked), (0, 9));
        assert!(replay.flips.is_empty());
    });
}

#[test]
fn only_what_may_have_been_in_use_since_is_asked_about() {
    let old = || Calls::of_legacy().last(50);
    let since = |minutes: u64, calls: &[Calls]| {
        let documents = documents(&[WORKLOADS, &allowing(&["web"])]);
        let recordings = of_api(calls);
        let recorded = recorded(&documents, &recordings).unwrap();
        let from = noon() - std::time::Duration::from_secs(minutes * 60);
        let replay = replay(&documents, &recorded, Some(from), noon());
        (replay.connections, replay.flipped(), replay.flips_nothing())
    };
    assert_eq!(since(55, &[Calls::of_web(), old()]), (2, 1, false));
    assert_eq!(since(45, &[Calls::of_web(), old()]), (1, 0, true));
    // open still, however old
    assert_eq!(since(45, &[Calls::of_web(), old().open(1)]), (2, 1, false));
    // of that time there is nothing, which is no answer
    assert_eq!(since(10, &[Calls::of_web(), old()]), (0, 0, false));
}

#[test]
fn lost_records_are_told() {
    let header = json!({"forgotten": 12, "forgotten_let_through": 3});
    let recordings = [page_with("shop/api-1", &header, &[Calls::of_web()])];
    replayed(&[&allowing(&["web"])], &recordings, |replay| {
        let told = replay.caveats[0].to_string();
        assert!(told.contains("0 is incomplete: 12 records"), "{told}");
    });
}

#[test]
fn an_eviction_by_serial_is_told_as_nobody_knows_whom_it_cuts() {
    let eviction = "apiVersion: mesh-lite.io/v1\nkind: Eviction\n\
                    metadata: {name: lost-key, namespace: mesh-lite-system}\n\
                    spec: {serial: \"0a0b\"}\n---\n";
    replayed(
        &[&allowing(&["web"]), eviction],
        &of_api(&[Calls::of_web()]),
        |replay| {
            assert!(replay.flips.is_empty());
            let told = replay.caveats[0].to_string();
            assert!(told.starts_with("mesh-lite-system/lost-key"), "{told}");
        },
    );
}

fn out_to_api() -> Calls {
    Calls::of_web()
        .with("direction", "outbound")
        .with("decided_by", "peer")
}

#[test]
fn what_went_out_is_judged_where_it_arrives_and_it_is_told_if_that_is_not_here() {
    let web = page("shop/web-1", &[out_to_api().count(4)]);
    replayed(&[], std::slice::from_ref(&web), |replay| {
        assert_eq!(replay.connections, 0);
        let told = replay.caveats[0].to_string();
        assert!(
            told.starts_with("4 recorded connections went out to shop/api-1"),
            "{told}"
        );
    });
    let both = [web, page("shop/api-1", &[Calls::of_web().count(4)])];
    replayed(&[], &both, |replay| {
        assert_eq!((replay.connections, replay.flipped()), (4, 4));
        assert!(replay.caveats.is_empty(), "{:?}", replay.caveats);
    });
}

#[test]
fn callers_leave_a_server_that_is_evicted_and_one_that_is_cut_at_both_ends_counts_once() {
    let eviction = |id: &str, name: &str| {
        format!(
            "apiVersion: mesh-lite.io/v1\nkind: Eviction\n\
             metadata: {{name: {name}, namespace: mesh-lite-system}}\n\
             spec: {{spiffeId: \"{id}\"}}\n---\n"
        )
    };
    let recordings = [
        page("shop/web-1", &[out_to_api().count(4)]),
        page("shop/api-1", &[Calls::of_web().count(4)]),
    ];
    let api = eviction(API, "api");
    replayed(&[&allowing(&["web"]), &api], &recordings, |replay| {
        assert_eq!((replay.flipped(), replay.connections), (4, 4));
        assert_eq!(replay.flips[0].now.step, JudgedBy::Eviction);
        assert_eq!(replay.flips[0].workload.name.to_string(), "shop/web-1");
    });
    // of the server's side nothing is recorded
    replayed(&[&api], &recordings[..1], |replay| {
        assert_eq!((replay.flipped(), replay.connections), (4, 4));
    });
    let web = eviction(WEB, "web");
    replayed(&[&allowing(&["web"]), &api, &web], &recordings, |replay| {
        assert_eq!(replay.flipped(), 4);
    });
}

#[test]
fn a_document_that_can_not_be_loaded_denies_those_whom_it_may_have_been_about() {
    let broken = allowing(&["web"]).replace("principals", "requestPrincipals");
    replayed(&[&broken], &of_api(&[Calls::of_web()]), |replay| {
        assert_eq!(replay.flips[0].now.step.as_str(), "broken-document");
    });
}

#[test]
fn nothing_flips_only_if_nothing_is_missing_and_something_was_judged() {
    let same = allowing(&["web"]);
    let nothing = |recordings: &[Recording]| {
        replayed(&[&same], recordings, |replay| {
            assert!(replay.flips.is_empty(), "{:?}", replay.flips);
            let told = replay.caveats.iter().map(ToString::to_string);
            (replay.flips_nothing(), told.collect::<String>())
        })
    };
    assert_eq!(nothing(&of_api(&[Calls::of_web()])), (true, String::new()));
    let lost = page_with("shop/api-1", &json!({"forgotten": 1}), &[Calls::of_web()]);
    let (good, told) = nothing(&[lost]);
    assert!(!good && told.contains("1 record of it were lost"), "{told}");
    let noise = Calls::of_web()
        .with("decision", "refuse")
        .with("reason", "limit");
    for calls in [vec![], vec![noise]] {
        let (good, told) = nothing(&of_api(&calls));
        assert!(!good && told.contains("nothing was judged"), "{told}");
    }
}

#[test]
fn two_recordings_of_one_run_are_told_to_count_twice() {
    let call = |run: &str| Calls::of_web().with("conn_ids", json!([format!("{run}000000001")]));
    let twice = |one: &str, other: &str| {
        let recordings = [one, other].map(|run| page("shop/api-1", &[call(run)]));
        replayed(&[&allowing(&["web"])], &recordings, |replay| {
            replay
                .caveats
                .iter()
                .map(ToString::to_string)
                .collect::<String>()
        })
    };
    assert!(twice("aaaaaaa", "aaaaaaa").contains("0 and 1 tell of the same connections"));
    assert_eq!(twice("aaaaaaa", "bbbbbbb"), "");
}
