use serde_json::json;

use super::{
    super::tests::made_up::{
        API, Calls, WORKLOADS, allowing, before_noon, documents, noon, page, page_with, recorded,
    },
    *,
};

fn workload(documents: &Documents, recording: Recording) -> Result<String, String> {
    let recordings = [recording];
    recorded(documents, &recordings)
        .map(|found| found[0].workload.name.to_string())
        .map_err(|error| error.to_string())
}

fn nameless(header: &serde_json::Value, calls: &[Calls]) -> Recording {
    let mut header = header.clone();
    header["workload"] = serde_json::Value::Null;
    page_with("", &header, calls)
}

#[test]
fn a_recording_is_of_the_workload_that_it_names() {
    let documents = documents(&[WORKLOADS]);
    // whatever address it was called at
    let recording = page("shop/web-1", &[Calls::of_web()]);
    assert_eq!(workload(&documents, recording).unwrap(), "shop/web-1");
}

#[test]
fn a_workload_that_no_document_names_is_an_error_that_names_the_recording() {
    let documents = documents(&[WORKLOADS]);
    let error = workload(&documents, page("shop/new-1", &[Calls::of_web()])).unwrap_err();
    assert!(
        error.starts_with("0: this was recorded by shop/new-1"),
        "{error}"
    );
    assert!(error.contains("--config-dir"), "{error}");
}

#[test]
fn every_recording_without_a_workload_is_told_of_at_once() {
    let documents = documents(&[WORKLOADS]);
    let recordings = [
        page("shop/new-1", &[]),
        page("shop/api-1", &[]),
        page("shop/new-2", &[]),
    ];
    let error = recorded(&documents, &recordings).unwrap_err().to_string();
    assert!(error.contains("0: ") && error.contains("\n2: "), "{error}");
    assert!(!error.contains("api-1"), "{error}");
}

#[test]
fn without_a_name_the_address_that_was_called_tells_whose_it_is() {
    let documents = documents(&[WORKLOADS]);
    let recording = nameless(&json!({}), &[Calls::of_web()]);
    assert_eq!(workload(&documents, recording).unwrap(), "shop/api-1");
    // of what went out, the address from which it went
    let out = Calls::of_web()
        .with("direction", "outbound")
        .with("decided_by", "peer");
    let recording = nameless(&json!({}), &[out]);
    assert_eq!(workload(&documents, recording).unwrap(), "shop/web-1");
}

#[test]
fn addresses_of_two_workloads_are_no_answer() {
    let documents = documents(&[WORKLOADS]);
    let calls = [
        Calls::of_web(),
        Calls::of_web().with("dst.addr", "10.0.0.13:1"),
    ];
    let error = workload(&documents, nameless(&json!({}), &calls)).unwrap_err();
    assert!(error.contains("any of shop/api-1, shop/guest-1"), "{error}");
}

#[test]
fn without_a_known_address_the_identity_tells_whose_it_is_if_it_is_one_workloads() {
    let elsewhere = [Calls::of_web().with("dst.addr", "127.0.0.1:1")];
    let own = json!({"identity": API});
    let one = documents(&[WORKLOADS]);
    assert_eq!(
        workload(&one, nameless(&own, &elsewhere)).unwrap(),
        "shop/api-1"
    );
    let replica = WORKLOADS
        .replace("name: legacy", "name: api-2")
        .replace("serviceAccount: legacy", "serviceAccount: api");
    let two = documents(&[&replica]);
    let error = workload(&two, nameless(&own, &elsewhere)).unwrap_err();
    assert!(error.contains("shop/api-1, shop/api-2"), "{error}");
    let stranger = json!({"identity": "spiffe://cluster.local/ns/shop/sa/stranger"});
    let error = workload(&one, nameless(&stranger, &[])).unwrap_err();
    assert!(error.contains("sa/stranger"), "{error}");
    let error = workload(&one, nameless(&json!({}), &[])).unwrap_err();
    assert!(error.contains("nothing in it says"), "{error}");
}

#[test]
fn a_hostile_name_of_a_file_steers_no_terminal() {
    let documents = documents(&[WORKLOADS]);
    let recording = page("shop/new-1", &[]);
    let named = [NamedRecording {
        name: "a\x1b[2Jb",
        recording: &recording,
    }];
    let error = workloads_of(&documents, &named, noon())
        .unwrap_err()
        .to_string();
    assert!(!error.contains('\x1b'), "{error:?}");
}

#[test]
fn a_recording_that_contradicts_its_document_or_the_clock_is_refused() {
    let documents = documents(&[WORKLOADS]);
    let with = |header| workload(&documents, page_with("shop/api-1", &header, &[]));
    assert!(with(json!({"identity": API})).is_ok());
    let error = with(json!({"identity": super::super::tests::made_up::WEB})).unwrap_err();
    assert!(
        error.contains("sa/web, and in the documents shop/api-1 is"),
        "{error}"
    );
    let after = |seconds| {
        let until = noon() + Duration::from_secs(seconds);
        with(json!({"until": Utc(until).to_string()}))
    };
    assert!(after(120).is_ok());
    let error = after(121).unwrap_err();
    assert!(error.contains("later than now"), "{error}");
}

#[test]
fn a_name_that_no_workload_can_have_is_told_as_such() {
    let documents = documents(&[WORKLOADS]);
    let error = workload(&documents, page("shop/A_b", &[])).unwrap_err();
    assert!(error.contains("no namespace/name of a Workload"), "{error}");
}

fn evicting(subject: &str) -> String {
    format!(
        "apiVersion: mesh-lite.io/v1\nkind: Eviction\n\
         metadata: {{name: stolen, namespace: mesh-lite-system}}\nspec: {{{subject}}}\n---\n"
    )
}

fn judged(text: &str, calls: Calls) -> Option<Judgement> {
    let documents = documents(&[WORKLOADS, &allowing(&["web"]), text]);
    let recording = page("shop/api-1", &[calls]);
    let name = "shop/api-1".parse().unwrap();
    let snapshot = documents.snapshot_for(documents.workload(&name).unwrap(), noon());
    let facts = judged_facts(&recording.records[0])?;
    Some(judge(&snapshot, &facts, noon()))
}

#[test]
fn an_eviction_counts_before_every_rule_as_long_as_it_is_in_force() {
    let web = format!("spiffeId: \"{}\"", super::super::tests::made_up::WEB);
    let judgement = judged(&evicting(&web), Calls::of_web()).unwrap();
    assert!(!judgement.allowed);
    assert_eq!(judgement.step, JudgedBy::Eviction);
    assert!(
        judgement
            .reason
            .contains("mesh-lite-system/stolen (new.yaml:"),
        "{judgement:?}"
    );
    let over = format!("{web}, until: \"{}\"", before_noon(1));
    assert!(judged(&evicting(&over), Calls::of_web()).unwrap().allowed);
}

#[test]
fn who_had_been_evicted_is_judged_by_policy_once_it_no_longer_is() {
    let evicted = || {
        Calls::of_web()
            .with("decision", "refuse")
            .with("reason", "evicted")
    };
    assert!(judged("", evicted()).unwrap().allowed);
    // every other refusal says nothing of policy
    assert_eq!(judged("", evicted().with("reason", "untrusted")), None);
}

#[test]
fn an_address_that_two_workloads_claim_is_nobodys() {
    let claimed = WORKLOADS.replace("[10.0.0.13]", "[10.0.0.13, 10.0.0.11]");
    let documents = documents(&[&claimed]);
    let at = |address: &str| {
        let found = documents.workload_at(address.parse().unwrap());
        found.map(|workload| workload.name.to_string())
    };
    assert_eq!(at("10.0.0.11"), None);
    assert_eq!(at("::ffff:10.0.0.13").as_deref(), Some("shop/guest-1"));
}
