use super::*;
use proptest::prelude::*;
use serde_json::json;

/// The operations of the patch, short.
fn operations(before: &Value, after: &Value) -> Vec<String> {
    let patch = serde_json::to_value(patch(before, after).unwrap()).unwrap();
    let text = |operation: &Value, key: &str| operation[key].as_str().unwrap_or("").to_owned();
    patch
        .as_array()
        .unwrap()
        .iter()
        .map(|operation| {
            let (op, path) = (text(operation, "op"), text(operation, "path"));
            format!("{op} {}{path}", text(operation, "from"))
        })
        .collect()
}

fn list(names: &[&str]) -> Value {
    names
        .iter()
        .map(|name| json!({"name": name}))
        .collect::<Vec<_>>()
        .into()
}

#[test]
fn what_is_put_first_leaves_what_was_there_alone() {
    let before = json!({"initContainers": list(&["a", "b"])});
    let after = json!({"initContainers": list(&["redirect", "proxy", "a", "b"])});
    assert_eq!(
        operations(&before, &after),
        ["add /initContainers/0", "add /initContainers/1"]
    );
}

/// DP: rules before the sidecar before everybody else, also after another webhook.
#[test]
fn what_another_webhook_put_before_us_is_moved_behind_us() {
    let before = json!({"c": list(&["late", "redirect", "proxy"])});
    let after = json!({"c": list(&["redirect", "proxy", "late"])});
    assert_eq!(
        operations(&before, &after),
        ["move /c/1/c/0", "move /c/2/c/1"]
    );
}

#[test]
fn equal_pods_need_no_operation() {
    let pod = json!({"a": [1, {"b": null}], "c": {"d": "e"}});
    assert_eq!(operations(&pod, &pod), Vec::<String>::new());
}

#[test]
fn keys_with_slashes_and_tildes_are_written_as_pointers() {
    let before = json!({"annotations": {}});
    let after = json!({"annotations": {"a.io/b~c": "1"}});
    assert_eq!(operations(&before, &after), ["add /annotations/a.io~1b~0c"]);
}

#[test]
fn a_list_that_is_null_or_absent_is_given_whole() {
    for before in [json!({"volumes": null}), json!({})] {
        let after = json!({"volumes": list(&["a"])});
        let operations = operations(&before, &after);
        assert_eq!(operations.len(), 1, "{operations:?}");
    }
}

#[test]
fn lists_whose_names_repeat_are_compared_as_wholes() {
    let before = json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]});
    let after = json!({"env": [{"name": "A", "value": "2"}]});
    assert_eq!(operations(&before, &after), ["replace /env"]);
}

/// JSON as somebody may have written a pod: names that repeat, lists of everything.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-c/~]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 5, |inner| {
        let named = ("[a-d]", inner.clone())
            .prop_map(|(name, value)| json!({"name": name, "value": value}));
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec(named, 0..5).prop_map(Value::from),
            prop::collection::btree_map("[a-c/~]{1,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// `patch` refuses what does not; it never has to.
    #[test]
    fn a_patch_gives_what_was_meant(before in anything(), after in anything()) {
        prop_assert!(patch(&before, &after).is_ok());
    }
}
