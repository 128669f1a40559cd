use super::*;

fn registration(webhooks: Value) -> Registration {
    let object = json!({"metadata": {"name": INJECTOR_SERVICE}, "webhooks": webhooks});
    Registration::read(&serde_json::from_value(object).unwrap())
}

#[test]
fn only_the_cas_of_our_own_webhooks_are_repaired() {
    let readable = json!([
        {"name": "others.example.com", "clientConfig": {}},
        {"name": POD_WEBHOOK, "clientConfig": {"service": {"name": "x"}}},
        {"name": NAMESPACE_WEBHOOK, "clientConfig": {"caBundle": "b2xk"}},
    ]);
    let seen = registration(readable.clone());
    assert!(!seen.carries("new"));
    let mut object = json!({"webhooks": readable});
    json_patch::patch(&mut object, &seen.repair("new").unwrap()).unwrap();
    let bundles: Vec<&Value> = (0..3)
        .map(|index| &object["webhooks"][index]["clientConfig"]["caBundle"])
        .collect();
    assert_eq!(bundles, [&Value::Null, &json!("bmV3"), &json!("bmV3")]);
    assert_eq!(
        object["webhooks"][1]["clientConfig"]["service"]["name"],
        "x"
    );
    let repaired = registration(object["webhooks"].clone());
    assert!(repaired.carries("new"));
    assert!(repaired.repair("new").is_none());
}

#[test]
fn a_patch_does_not_apply_once_the_webhooks_stand_elsewhere() {
    let ours = json!({"name": POD_WEBHOOK, "clientConfig": {}});
    let patch = registration(json!([ours])).repair("new").unwrap();
    let mut moved = json!({"webhooks": [{"name": "others.example.com", "clientConfig": {}}, ours]});
    assert!(json_patch::patch(&mut moved, &patch).is_err());
}

#[test]
fn without_a_webhook_of_ours_nothing_is_carried_and_nothing_repaired() {
    for seen in [
        Registration::Unknown,
        Registration::Absent,
        registration(json!([])),
        registration(json!([{"name": "others.example.com", "clientConfig": {}}])),
        registration(Value::Null),
    ] {
        assert!(!seen.carries("new"), "{seen:?}");
        assert!(seen.repair("new").is_none(), "{seen:?}");
    }
}
