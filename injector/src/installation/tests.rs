use std::collections::BTreeSet;

use mesh_lite_proto::kubernetes::INJECT_LABEL;
use serde_json::{Value, json};

use super::*;

mod permissions;
mod registration;
mod schemas;

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
