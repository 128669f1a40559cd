use mesh_lite_proto::decision_record::Recording;
use serde_json::json;

use super::{
    super::tests::made_up::{
        Calls, GUEST, GUEST_ADDRESS, WEB, WORKLOADS, allowing, documents, noon, page, page_with,
        recorded,
    },
    *,
};

fn planned<T>(texts: &[&str], calls: &[Calls], look: impl Fn(&Plan<'_>) -> T) -> T {
    planned_of(texts, &[page("shop/api-1", calls)], look)
}

fn planned_of<T>(texts: &[&str], recordings: &[Recording], look: impl Fn(&Plan<'_>) -> T) -> T {
    let documents = documents(&[&[WORKLOADS], texts].concat());
    let recorded = recorded(&documents, recordings).unwrap();
    look(&plan(&documents, &recorded, noon()))
}

fn of_guest(decision: &str) -> Calls {
    Calls::of(Some(GUEST), GUEST_ADDRESS, decision)
}

#[test]
fn only_what_is_open_is_closed() {
    let calls = [
        Calls::of_web().count(900).open(30),
        of_guest("allow").count(50).open(5),
    ];
    planned(&[&allowing(&["web"])], &calls, |plan| {
        assert_eq!((plan.live, plan.closed()), (35, 5));
        assert_eq!(plan.closes[0].caller.unwrap().as_str(), GUEST);
        assert!(plan.opens.is_empty() && plan.denies_later.is_empty());
    });
}

#[test]
fn an_edit_that_changes_nothing_for_anybody_closes_and_opens_nothing() {
    let calls = [Calls::of_web().open(3), Calls::of_guest()];
    let renamed = allowing(&["web"]).replace("api-callers", "renamed");
    planned(&[&renamed], &calls, |plan| {
        assert_eq!((plan.live, plan.closed()), (3, 0));
        assert!(plan.opens.is_empty() && plan.denies_later.is_empty());
    });
}

#[test]
fn callers_that_were_denied_and_would_be_allowed_are_opened_to() {
    let calls = [Calls::of_web().open(1), Calls::of_guest().count(14)];
    planned(&[&allowing(&["web", "guest"])], &calls, |plan| {
        assert_eq!(plan.closed(), 0);
        assert_eq!((plan.opens.len(), plan.opens[0].count), (1, 14));
        assert_eq!(plan.opened_to(), 1);
    });
    // denied by two policies, one after the other: still one caller
    let other = Calls::of_guest()
        .with("policy", "shop/old")
        .with("policy_source", "p.yaml:1");
    let calls = [Calls::of_guest(), other];
    planned(&[&allowing(&["web", "guest"])], &calls, |plan| {
        assert_eq!((plan.opens.len(), plan.opened_to()), (2, 1));
    });
}

#[test]
fn who_was_denied_before_and_let_through_since_is_not_opened_to() {
    let calls = [Calls::of_guest().last(40), of_guest("allow").last(20)];
    planned(&[&allowing(&["guest"])], &calls, |plan| {
        assert!(plan.opens.is_empty(), "{:?}", plan.opens);
    });
    // let through before and denied since: it is
    let calls = [Calls::of_guest().last(20), of_guest("allow").last(40)];
    planned(&[&allowing(&["guest"])], &calls, |plan| {
        assert_eq!(plan.opens.len(), 1);
    });
}

#[test]
fn a_denial_of_the_same_moment_counts_as_the_later_one() {
    let calls = [of_guest("allow").last(20), Calls::of_guest().last(20)];
    planned(&[&allowing(&["guest"])], &calls, |plan| {
        assert_eq!(plan.opens.len(), 1);
        assert!(plan.denies_later.is_empty());
    });
}

#[test]
fn who_has_nothing_open_and_could_not_come_again_is_told_beside() {
    let calls = [Calls::of_web().open(1), of_guest("allow").count(8)];
    planned(&[&allowing(&["web"])], &calls, |plan| {
        assert_eq!(plan.closed(), 0);
        assert_eq!(plan.denies_later.len(), 1);
        assert_eq!(plan.denies_later[0].count, 8);
    });
    // not a second time if it is cut anyway
    let calls = [
        of_guest("allow").open(1),
        of_guest("allow").with("src.addr", "10.0.0.14:1"),
    ];
    planned(&[&allowing(&["web"])], &calls, |plan| {
        assert_eq!(plan.closed(), 1);
        assert!(plan.denies_later.is_empty());
    });
}

#[test]
fn nobody_is_denied_only_if_callers_that_come_and_go_are_not_either() {
    let comes_and_goes = |texts: &[&str]| {
        planned(texts, &[of_guest("allow").count(342)], |plan| {
            assert_eq!((plan.live, plan.closed()), (0, 0));
            (plan.denied_later(), plan.denies_nobody())
        })
    };
    assert_eq!(comes_and_goes(&[&allowing(&["web"])]), (1, false));
    assert_eq!(comes_and_goes(&[&allowing(&["guest"])]), (0, true));
}

#[test]
fn what_the_shipped_default_alone_decides_is_counted() {
    let calls = [
        Calls::of_web().count(3),
        of_guest("allow").count(2).open(1),
        Calls::of_legacy().count(5),
    ];
    // STRICT by default: plaintext is refused, and whom no policy selects is denied
    planned(&[], &calls, |plan| {
        assert_eq!(plan.by_shipped_default, 10);
        let flips = plan.closes.iter().chain(&plan.denies_later);
        assert!(flips.clone().count() == 3 && flips.clone().all(|flip| flip.by_shipped_default));
    });
    // by a policy, and by a PeerAuthentication
    let strict = super::super::tests::made_up::PERMISSIVE.replace("PERMISSIVE", "STRICT");
    planned(&[&allowing(&["web"]), &strict], &calls, |plan| {
        assert_eq!(plan.by_shipped_default, 0);
        assert!(plan.closes.iter().all(|flip| !flip.by_shipped_default));
    });
}

#[test]
fn what_is_live_is_cut_however_long_ago_it_was_let_through() {
    // a caller that was let through by an earlier policy, is denied now, and is open still
    let calls = [
        of_guest("allow").last(300).open(2),
        Calls::of_guest().last(1),
    ];
    planned(&[&allowing(&["web"])], &calls, |plan| {
        assert_eq!((plan.live, plan.closed()), (2, 2));
    });
}

#[test]
fn what_is_not_known_is_told_once() {
    let header = json!({"forgotten": 2, "forgotten_let_through": 0});
    let recordings = [page_with(
        "shop/api-1",
        &header,
        &[
            Calls::of_web().open(1),
            Calls::of(Some(WEB), "10.0.0.20:1", "allow"),
        ],
    )];
    planned_of(&[&allowing(&["web"])], &recordings, |plan| {
        assert_eq!(plan.caveats.len(), 1, "{:?}", plan.caveats);
    });
}

#[test]
fn what_is_judged_elsewhere_is_told_in_one_number() {
    let out = || {
        Calls::of_web()
            .with("direction", "outbound")
            .with("decided_by", "peer")
    };
    let calls = [
        out().open(2),
        out().with("src.addr", "10.0.0.20:1").count(5),
    ];
    planned_of(&[], &[page("shop/web-1", &calls)], |plan| {
        let told: Vec<_> = plan.caveats.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with("7 recorded connections went out to shop/api-1"),
            "{told:?}"
        );
    });
}

#[test]
fn lost_records_of_a_page_hide_nothing_that_is_live_and_a_log_that_begins_late_does() {
    let open = r#"{"time":"2024-10-04T11:00:00.000Z","event":"open","conn_id":"aaaaaaa000000001","direction":"inbound","src.addr":"10.0.0.10:1","src.identity":"spiffe://cluster.local/ns/shop/sa/web","dst.addr":"10.0.0.11:8080","dst.identity":"spiffe://cluster.local/ns/shop/sa/api","decision":"allow","step":"allow-rule"}"#;
    let first = open.replace("000000001", "000000000");
    let log = |line: &str| Recording::read("log", line.as_bytes()).unwrap();
    let lost = json!({"forgotten": 2, "forgotten_let_through": 2});
    let calls = [Calls::of_web().open(1)];
    for (recording, good, words) in [
        (
            page_with("shop/api-1", &lost, &calls),
            false,
            "what closes is whole",
        ),
        (log(&first), true, ""),
        (log(open), false, "begins later than its sidecar"),
        (page("shop/api-1", &[]), false, "nothing was judged"),
    ] {
        planned_of(&[&allowing(&["web"])], &[recording], |plan| {
            assert_eq!(plan.closed(), 0);
            let told: String = plan.caveats.iter().map(ToString::to_string).collect();
            assert!(told.contains(words), "{told}");
            assert_eq!(plan.denies_nobody(), good, "{told}");
        });
    }
}
