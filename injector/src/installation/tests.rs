use std::collections::BTreeSet;

use mesh_lite_proto::kubernetes::{INJECT_LABEL, NAMESPACE_WEBHOOK, POD_WEBHOOK};
use serde_json::{Value, json};

use super::*;

/// Every way in which objects can differ.
fn all_choices() -> Vec<Choices> {
    let full = Choices {
        mesh_namespace: "mesh".to_owned(),
        image: "images.example/mesh-lite:1.2@sha256:0123".to_owned(),
        image_pull_policy: PullPolicy::Always,
        image_pull_secret: Some("pull".to_owned()),
        trust_domain: TrustDomain::new("prod.example").unwrap(),
        strict: true,
        ha: true,
        mesh_cidrs: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        external_cidrs: vec!["10.9.0.0/16".parse().unwrap()],
        issuing_ca_secret: None,
        priority_class: Some("urgent".to_owned()),
    };
    let plugin = Choices {
        issuing_ca_secret: Some("cert-manager-made".to_owned()),
        ..full.clone()
    };
    let strict = Choices {
        strict: true,
        ..Choices::default()
    };
    let ha = Choices {
        ha: true,
        ..Choices::default()
    };
    vec![Choices::default(), strict, ha, full, plugin]
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

#[test]
fn everything_listens_on_ipv6_too_in_every_kind_of_cluster() {
    for choices in all_choices() {
        let objects = manifests(&choices);
        let texts: Vec<String> = of_kind(&objects, "Deployment")
            .iter()
            .flat_map(|deployment| {
                let args = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
                args.as_array().unwrap().clone()
            })
            .filter_map(|argument| argument.as_str().map(str::to_owned))
            .filter(|argument| argument.contains("listen="))
            .collect();
        assert_eq!(texts.len(), 4, "{texts:?}");
        for text in texts {
            assert!(text.contains("listen=[::]:"), "{text}");
        }
    }
}

#[test]
fn no_placeholder_is_left_and_no_secret_is_in_it() {
    for choices in all_choices() {
        let text = text(&choices);
        for forbidden in [
            "@{",
            "@when",
            "@part",
            "kind: Secret\n",
            "PRIVATE KEY",
            "stringData",
            "caBundle",
        ] {
            assert!(!text.contains(forbidden), "{forbidden}: {text}");
        }
    }
}

#[test]
fn the_text_reads_as_the_objects_it_was_made_of() {
    for choices in all_choices() {
        let text = text(&choices);
        let read: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        assert_eq!(read, manifests(&choices));
    }
}

#[test]
fn every_object_is_in_the_mesh_namespace_or_of_the_whole_cluster() {
    let cluster_wide = [
        "Namespace",
        "CustomResourceDefinition",
        "ClusterRole",
        "ClusterRoleBinding",
        "MutatingWebhookConfiguration",
    ];
    for choices in all_choices() {
        let mut seen = BTreeSet::new();
        for object in manifests(&choices) {
            let kind = object["kind"].as_str().unwrap().to_owned();
            let namespace = &object["metadata"]["namespace"];
            if cluster_wide.contains(&kind.as_str()) {
                assert!(namespace.is_null(), "{object}");
            } else {
                assert_eq!(namespace, &choices.mesh_namespace, "{object}");
            }
            let group = object["apiVersion"].as_str().unwrap().to_owned();
            assert!(
                seen.insert((group, kind, name(&object).to_owned())),
                "twice: {object}"
            );
        }
    }
}

#[test]
fn roles_name_what_they_allow() {
    for choices in all_choices() {
        let objects = manifests(&choices);
        for role in objects
            .iter()
            .filter(|o| o["kind"].as_str().unwrap().ends_with("Role"))
        {
            for rule in role["rules"].as_array().unwrap() {
                assert!(!rule.to_string().contains('*'), "{}: {rule}", name(role));
                let has = |field: &str, word: &str| {
                    let words = rule[field].as_array();
                    words.is_some_and(|words| words.contains(&json!(word)))
                };
                let secret = has("resources", "secrets");
                if secret && rule["verbs"] != json!(["create"]) {
                    assert!(rule["resourceNames"].is_array(), "{}: {rule}", name(role));
                }
                for verb in [
                    "list",
                    "watch",
                    "delete",
                    "deletecollection",
                    "escalate",
                    "bind",
                    "impersonate",
                ] {
                    assert!(!(secret && has("verbs", verb)), "{}: {rule}", name(role));
                }
                for word in [
                    "roles",
                    "clusterroles",
                    "pods/exec",
                    "serviceaccounts/token",
                ] {
                    assert!(!has("resources", word), "{}: {rule}", name(role));
                }
                if role["kind"] == "ClusterRole" {
                    assert!(!secret, "of every namespace: {rule}");
                }
            }
        }
    }
}

/// What is listed and watched is not asked for one by one.
#[test]
fn nothing_that_is_followed_may_be_gotten_by_name_too() {
    for choices in all_choices() {
        for role in of_kind(&manifests(&choices), "ClusterRole") {
            for rule in role["rules"].as_array().unwrap() {
                let verbs = rule["verbs"].as_array().unwrap();
                let has = |verb: &str| verbs.contains(&json!(verb));
                // the injector asks for one that its watch has not told of yet
                let excepted =
                    name(role).contains("injector") && rule["resources"] == json!(["namespaces"]);
                let both = has("get") && has("watch");
                assert!(!both || excepted, "{}: {rule}", name(role));
            }
        }
    }
}

#[test]
fn the_control_plane_reads_no_secret_at_all() {
    for choices in all_choices() {
        for role in manifests(&choices) {
            if role["metadata"]["name"] == "mesh-lite-control-plane" && role["rules"].is_array() {
                assert!(!role["rules"].to_string().contains("secrets"), "{role}");
            }
        }
    }
}

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
    let text = include_str!("../../tests/captured/namespace.json");
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

#[test]
fn every_pod_of_ours_meets_the_restricted_level_and_has_limits() {
    for choices in all_choices() {
        let mut pods = 0;
        for object in manifests(&choices) {
            let template = match object["kind"].as_str().unwrap() {
                "Deployment" | "Job" => &object["spec"]["template"],
                "CronJob" => &object["spec"]["jobTemplate"]["spec"]["template"],
                _ => continue,
            };
            pods += 1;
            let pod = &template["spec"];
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
            assert_eq!(
                pod["securityContext"]["seccompProfile"]["type"],
                "RuntimeDefault"
            );
            assert!(pod["serviceAccountName"].is_string());
            assert!(template["metadata"]["labels"].get(INJECT_LABEL).is_none());
            for container in pod["containers"].as_array().unwrap() {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false);
                assert_eq!(security["readOnlyRootFilesystem"], true);
                assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
                for bound in ["requests", "limits"] {
                    for resource in ["cpu", "memory"] {
                        assert!(container["resources"][bound][resource].is_string());
                    }
                }
            }
        }
        let root_jobs = if choices.issuing_ca_secret.is_none() {
            2
        } else {
            0
        };
        assert_eq!(pods, 2 + root_jobs);
    }
}

#[test]
fn budgets_are_there_only_where_a_second_replica_is() {
    for choices in all_choices() {
        let objects = manifests(&choices);
        let budgets: BTreeSet<&str> = of_kind(&objects, "PodDisruptionBudget")
            .into_iter()
            .map(name)
            .collect();
        for deployment in of_kind(&objects, "Deployment") {
            let several = deployment["spec"]["replicas"].as_u64().unwrap() > 1;
            assert_eq!(
                budgets.contains(name(deployment)),
                several,
                "{}",
                name(deployment)
            );
        }
        let injector = of_kind(&objects, "Deployment")
            .into_iter()
            .find(|d| name(d) == "mesh-lite-injector");
        assert_eq!(injector.unwrap()["spec"]["replicas"], 2);
    }
}

#[test]
fn modes_are_said_at_the_top_and_in_the_control_planes_arguments() {
    for choices in all_choices() {
        let text = text(&choices);
        let (mode, unmeshed) = if choices.strict {
            ("# STRICT: ", "refuse")
        } else {
            ("# PERMISSIVE: ", "allow")
        };
        let top = text.split("---").next().unwrap();
        assert!(top.contains(mode), "{top}");
        let arguments = format!("outbound-unmeshed={unmeshed}");
        assert!(text.contains(&arguments), "{arguments}");
        let lower = if choices.strict {
            "strict"
        } else {
            "permissive"
        };
        assert!(text.contains(&format!("--shipped={lower}\"")), "{text}");
    }
}

#[test]
fn a_job_that_would_differ_has_another_name() {
    let job = |choices: &Choices| {
        let objects = manifests(choices);
        name(of_kind(&objects, "Job")[0]).to_owned()
    };
    let default = Choices::default();
    let first = job(&default);
    assert_eq!(
        first,
        job(&Choices {
            ha: true,
            strict: true,
            ..default.clone()
        })
    );
    let others = [
        Choices {
            image: "other".to_owned(),
            ..default.clone()
        },
        Choices {
            image_pull_policy: PullPolicy::Never,
            ..default.clone()
        },
        Choices {
            mesh_namespace: "other".to_owned(),
            ..default.clone()
        },
        Choices {
            trust_domain: TrustDomain::new("other").unwrap(),
            ..default
        },
    ];
    let names: BTreeSet<String> = others.iter().map(job).chain([first]).collect();
    assert_eq!(names.len(), 5);
}

#[test]
fn with_an_issuing_ca_of_somebody_else_nothing_makes_a_root() {
    let choices = all_choices().pop().unwrap();
    let text = text(&choices);
    assert!(!text.contains("mesh-lite-root"), "{text}");
    assert!(!text.contains("mesh-lite-issuing-ca"), "{text}");
    assert!(text.contains("name: cert-manager-made"), "{text}");
}

/// What the API server demands of a structural schema, and what we do so that no field is lost.
fn judge_schema(node: &Value, path: &str, within_logic: bool) {
    let Some(fields) = node.as_object() else {
        return;
    };
    for (key, value) in fields {
        let place = format!("{path}.{key}");
        let banned = [
            "$ref",
            "if",
            "then",
            "else",
            "const",
            "propertyNames",
            "patternProperties",
            "$defs",
            "definitions",
            "default",
            "$schema",
            "examples",
            "dependencies",
        ];
        assert!(!banned.contains(&key.as_str()), "{place}");
        match key.as_str() {
            "properties" => {
                assert!(
                    within_logic
                        || node["x-kubernetes-preserve-unknown-fields"] == true
                        || path.contains(".status."),
                    "{path} would lose fields"
                );
                for (name, node) in value.as_object().unwrap() {
                    judge_schema(node, &format!("{place}.{name}"), within_logic);
                }
            }
            "items" | "additionalProperties" => {
                assert!(value.is_object(), "{place}");
                judge_schema(value, &place, within_logic);
            }
            "not" => judge_schema(value, &place, true),
            "anyOf" | "oneOf" | "allOf" => {
                for node in value.as_array().unwrap() {
                    judge_schema(node, &place, true);
                }
            }
            _ => {}
        }
    }
    if within_logic {
        for banned in ["type", "description", "additionalProperties", "nullable"] {
            assert!(
                !fields.contains_key(banned),
                "{path} within logic: {banned}"
            );
        }
    } else {
        let typed = fields.get("type").is_some_and(Value::is_string);
        assert!(
            typed != fields.contains_key("x-kubernetes-int-or-string"),
            "{path}: {node}"
        );
        assert!(
            !(fields.contains_key("properties") && fields.contains_key("additionalProperties"))
        );
    }
}

#[test]
fn schemas_are_structural_and_lose_no_unknown_field() {
    let definitions = custom_resource_definitions();
    assert_eq!(definitions.len(), 3);
    for definition in definitions {
        let version = &definition["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"];
        assert_eq!(schema["required"], json!(["spec"]));
        let mut judged = schema.clone();
        // the API server's own
        judged["properties"]
            .as_object_mut()
            .unwrap()
            .remove("metadata");
        judge_schema(&judged, name(&definition), false);
        assert!(version["subresources"]["status"].is_object());
        for column in ["Loaded", "Reason", "Age"] {
            assert!(
                version["additionalPrinterColumns"]
                    .to_string()
                    .contains(column)
            );
        }
    }
}

#[test]
fn ports_without_a_selector_are_refused_in_words() {
    let definitions = custom_resource_definitions();
    let of = |kind: &str| {
        let mut all = definitions.iter();
        let found = all.find(|found| found["spec"]["names"]["kind"] == kind);
        found.unwrap()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
            .clone()
    };
    let spec = of("PeerAuthentication");
    let rules = spec["x-kubernetes-validations"].as_array().unwrap();
    assert_eq!(rules.len(), 1);
    let message = rules[0]["message"].as_str().unwrap();
    assert!(
        message.starts_with("portLevelMtls needs a selector"),
        "{message}"
    );
    assert!(
        spec.get("allOf").is_none(),
        "its own words would come first, and alone"
    );
    assert!(
        of("AuthorizationPolicy")
            .get("x-kubernetes-validations")
            .is_none()
    );
}
