//! About which pods the API server asks the webhook.

use mesh_lite_proto::kubernetes::{NAMESPACE_WEBHOOK, POD_WEBHOOK};

use super::*;

/// As the API server evaluates a selector.
fn selects(selector: &Value, labels: &Value) -> bool {
    let expressions = selector["matchExpressions"].as_array().unwrap();
    expressions.iter().all(|expression| {
        let value = &labels[expression["key"].as_str().unwrap()];
        let listed = || expression["values"].as_array().unwrap().contains(value);
        match expression["operator"].as_str().unwrap() {
            "In" => !value.is_null() && listed(),
            "NotIn" => value.is_null() || !listed(),
            "DoesNotExist" => value.is_null(),
            other => panic!("{other}"),
        }
    })
}

/// The webhooks that are asked about a pod.
fn asked(choices: &Choices, namespace: &Value, pod: &Value) -> Vec<String> {
    let objects = manifests(choices);
    let webhooks = of_kind(&objects, "MutatingWebhookConfiguration")[0]["webhooks"].clone();
    let webhooks = webhooks.as_array().unwrap().iter();
    webhooks
        .filter(|webhook| {
            selects(&webhook["namespaceSelector"], namespace)
                && selects(&webhook["objectSelector"], pod)
        })
        .map(|webhook| webhook["name"].as_str().unwrap().to_owned())
        .collect()
}

fn namespace(name: &str, inject: Option<&str>) -> Value {
    let mut labels = json!({"kubernetes.io/metadata.name": name});
    if let Some(inject) = inject {
        labels[INJECT_LABEL] = json!(inject);
    }
    labels
}

#[test]
fn only_labelled_namespaces_and_labelled_pods_reach_the_webhook() {
    let choices = Choices::default();
    let plain = json!({"app": "a"});
    let [opted_in, opted_out] = ["enabled", "disabled"].map(|word| json!({INJECT_LABEL: word}));
    let asked = |namespace: &Value, pod: &Value| asked(&choices, namespace, pod);
    let none: [&str; 0] = [];

    let unlabelled = namespace("shop", None);
    assert_eq!(asked(&unlabelled, &plain), none);
    assert_eq!(asked(&unlabelled, &opted_out), none);
    assert_eq!(asked(&unlabelled, &opted_in), [POD_WEBHOOK]);

    let labelled = namespace("shop", Some("enabled"));
    assert_eq!(asked(&labelled, &plain), [NAMESPACE_WEBHOOK]);
    assert_eq!(asked(&labelled, &opted_in), [NAMESPACE_WEBHOOK]);
    assert_eq!(asked(&labelled, &opted_out), none);

    for word in ["disabled", "true", "Enabled", ""] {
        let other = namespace("shop", Some(word));
        assert_eq!(asked(&other, &plain), none, "{word}");
        assert_eq!(asked(&other, &opted_in), none, "{word}");
    }
}

#[test]
fn the_systems_namespace_and_our_own_are_never_asked_about_whatever_their_labels() {
    for choices in all_choices() {
        for name in ["kube-system", &choices.mesh_namespace] {
            for label in [None, Some("enabled"), Some("disabled")] {
                let asked = asked(
                    &choices,
                    &namespace(name, label),
                    &json!({INJECT_LABEL: "enabled"}),
                );
                assert!(asked.is_empty(), "{name} {label:?}: {asked:?}");
            }
        }
        let objects = manifests(&choices);
        let own = of_kind(&objects, "Namespace")[0];
        assert_eq!(own["metadata"]["labels"][INJECT_LABEL], "disabled");
    }
}

#[test]
fn the_captured_namespace_with_our_label_is_asked_about() {
    let text = include_str!("../../../tests/captured/namespace.json");
    let captured: Value = serde_json::from_str(text).unwrap();
    let mut labels = captured["metadata"]["labels"].clone();
    let asked_as_captured = asked(&Choices::default(), &labels, &json!({}));
    assert!(
        asked_as_captured.is_empty(),
        "it has another mesh's label: {labels}"
    );
    labels[INJECT_LABEL] = json!("enabled");
    assert_eq!(
        asked(&Choices::default(), &labels, &json!({})),
        [NAMESPACE_WEBHOOK]
    );
}

#[test]
fn the_webhook_fails_closed_and_soon() {
    for webhook in webhook_entries("mesh").as_array().unwrap() {
        assert_eq!(webhook["failurePolicy"], "Fail");
        assert!(webhook["timeoutSeconds"].as_u64().unwrap() <= 5);
        assert_eq!(webhook["sideEffects"], "None");
        assert_eq!(webhook["reinvocationPolicy"], "IfNeeded");
        let asked = [("CREATE", "pods"), ("UPDATE", "pods/ephemeralcontainers")];
        let rules = webhook["rules"].as_array().unwrap();
        assert_eq!(rules.len(), asked.len());
        for (rule, (operation, resource)) in rules.iter().zip(asked) {
            assert_eq!(rule["operations"], json!([operation]));
            assert_eq!(rule["resources"], json!([resource]));
        }
    }
}
