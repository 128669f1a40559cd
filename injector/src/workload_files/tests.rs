use serde_json::{Value, json};

use super::*;
use crate::admission_review::AdmissionRequest;

const POD_SPEC: &str = "containers:
- name: app
  image: app:1
  env:
  - {name: NORWAY, value: \"no\"}
  - {name: ANSWER, value: \"0777\"}
  - {name: FLOAT, value: '1e3'}
  - {name: NOTHING, value: \"~\"}
  - {name: NIL, value: 'null'}
  - {name: DATE, value: \"2001-01-01\"}
  - name: LINES
    value: |
      first
        second

      third
  ports:
  - {containerPort: 8080, name: http}
  readinessProbe:
    httpGet: {port: http, path: /ready}
  unknownField: {kept: [1, 2.5, -3, true, null]}
";

fn mesh() -> MeshSettings {
    MeshSettings::with_image("mesh-lite:test").unwrap()
}

fn enabled() -> NamespaceFacts {
    NamespaceFacts::new([("mesh-lite.io/inject", "enabled")], [])
}

fn run(text: &str, task: &Task<'_>) -> Result<Rewritten, RewriteError> {
    rewrite(
        &[File {
            name: "web.yaml",
            text,
        }],
        task,
    )
}

fn injected_in(text: &str, namespace: &NamespaceFacts) -> Result<Rewritten, RewriteError> {
    let mesh = mesh();
    run(
        text,
        &Task::Inject {
            mesh: &mesh,
            namespace,
            default_namespace: "shop",
        },
    )
}

fn injected(text: &str) -> Rewritten {
    injected_in(text, &enabled()).unwrap()
}

fn uninjected(text: &str) -> String {
    run(text, &Task::Uninject).unwrap().text
}

fn values(text: &str) -> Vec<Value> {
    let file = File { name: "x", text };
    let (documents, _) = read(&file).unwrap();
    documents
        .iter()
        .map(|document| document.root.to_value())
        .collect()
}

fn indented(text: &str, spaces: usize) -> String {
    let pad = " ".repeat(spaces);
    text.lines()
        .map(|line| {
            if line.is_empty() {
                "\n".to_owned()
            } else {
                format!("{pad}{line}\n")
            }
        })
        .collect()
}

/// Every kind that makes pods, with the pointer to its pod.
fn workloads() -> Vec<(String, &'static str)> {
    let template = |indent| {
        let pad = " ".repeat(indent);
        format!(
            "{pad}metadata:\n{pad}  labels: {{app: web}}\n{pad}spec:\n{}",
            indented(POD_SPEC, indent + 2)
        )
    };
    let of = |version: &str, kind: &str| {
        format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: web, namespace: shop}}\nspec:\n  \
             replicas: 2\n  template:\n{}",
            template(4)
        )
    };
    let mut all: Vec<(String, &str)> = [
        ("apps/v1", "Deployment"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
        ("apps/v1", "ReplicaSet"),
        ("v1", "ReplicationController"),
        ("batch/v1", "Job"),
    ]
    .into_iter()
    .map(|(version, kind)| (of(version, kind), "/spec/template"))
    .collect();
    all.push((
        format!(
            "apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: web}}\nspec:\n  schedule: '* * * * *'\n  \
             jobTemplate:\n    spec:\n      template:\n{}",
            template(8)
        ),
        "/spec/jobTemplate/spec/template",
    ));
    all.push((format!("apiVersion: v1\nkind: Pod\n{}", template(0)), ""));
    all.push((
        format!(
            "apiVersion: v1\nkind: PodTemplate\ntemplate:\n{}",
            template(2)
        ),
        "/template",
    ));
    all
}

/// What the webhook answers for a pod made from a template, applied.
fn by_webhook(template: &Value) -> Value {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": template["metadata"], "spec": template["spec"],
    });
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "operation": "CREATE", "namespace": "shop", "object": pod,
            "resource": {"group": "", "version": "v1", "resource": "pods"},
        },
    });
    let request = AdmissionRequest::parse(review.to_string().as_bytes()).unwrap();
    let answer = request.answer(&mesh(), &enabled());
    let patch = answer.review.response.patch().expect("a patch");
    let patch: json_patch::Patch = serde_json::from_slice(patch).unwrap();
    let mut patched = pod;
    json_patch::patch(&mut patched, &patch).unwrap();
    patched
}

#[test]
fn every_kind_gets_what_the_webhook_would_give_a_pod_of_it() {
    for (text, way) in workloads() {
        let before = values(&text).remove(0);
        let result = injected(&text);
        assert_eq!(result.reports[0].outcome, Outcome::Injected, "{text}");
        let mut after = values(&result.text).remove(0);
        let pod = after.pointer(way).unwrap();
        let webhook = by_webhook(before.pointer(way).unwrap());
        assert_eq!(pod["spec"], webhook["spec"], "{text}");
        assert_eq!(pod["metadata"], webhook["metadata"], "{text}");
        assert_ne!(pod["spec"], before.pointer(way).unwrap()["spec"]);
        // and nothing else of it
        *after.pointer_mut(way).unwrap() = before.pointer(way).unwrap().clone();
        assert_eq!(after, before);
    }
}

#[test]
fn uninject_gives_back_what_inject_was_given() {
    for (text, _) in workloads() {
        let injected_once = injected(&text).text;
        let twice = injected(&injected_once).text;
        assert_eq!(values(&injected_once), values(&twice), "not idempotent");
        assert_eq!(values(&uninjected(&injected_once)), values(&text), "{text}");
    }
}

#[test]
fn uninject_gives_back_every_captured_pod() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut seen = 0;
    for entry in std::fs::read_dir(golden).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        if !name.ends_with(".request.json") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let review: Value = serde_json::from_str(&text).unwrap();
        let mut pod = review["request"]["object"].clone();
        let Some(object) = pod.as_object_mut() else {
            continue;
        };
        object.insert("apiVersion".to_owned(), json!("v1"));
        object.insert("kind".to_owned(), json!("Pod"));
        // in the order and form of kubectl get -o yaml
        let original = crate::installation::yaml::to_text(&uninjected_value(&pod));
        let Ok(result) = injected_in(&original, &enabled()) else {
            continue;
        };
        assert_eq!(
            values(&uninjected(&result.text)),
            values(&original),
            "{name}"
        );
        seen += 1;
    }
    assert!(seen > 15, "{seen}");
}

fn uninjected_value(pod: &Value) -> Value {
    without_injection(pod)
}

#[test]
fn lists_and_documents_of_other_kinds_stay_in_their_order() {
    let (deployment, _) = workloads().remove(0);
    let text = format!(
        "# lost\napiVersion: v1\nkind: Service\nmetadata: {{name: z, annotations: {{b: '1', a: '2'}}}}\n---\n---\n\
         {deployment}---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: ConfigMap\n  data: {{yes: \"on\"}}\n\
         - apiVersion: v1\n  kind: Pod\n  metadata: {{name: p}}\n  spec:\n{}",
        indented(POD_SPEC, 4)
    );
    let result = injected(&text);
    let outcomes: Vec<String> = result.reports.iter().map(ToString::to_string).collect();
    assert_eq!(outcomes.len(), 4, "{outcomes:?}");
    assert!(
        outcomes[0].starts_with("web.yaml:2: Service z: unchanged"),
        "{outcomes:?}"
    );
    assert!(
        outcomes[1].ends_with("Deployment shop/web: injected"),
        "{outcomes:?}"
    );
    assert!(outcomes[3].ends_with("Pod p: injected"), "{outcomes:?}");
    let kinds: Vec<Value> = values(&result.text)
        .iter()
        .map(|value| value["kind"].clone())
        .collect();
    assert_eq!(kinds, ["Service", "Deployment", "List"]);
    let (b, a) = (result.text.find("b: \"1\""), result.text.find("a: \"2\""));
    assert!(b.unwrap() < a.unwrap(), "{}", result.text);
    assert_eq!(values(&uninjected(&result.text)), values(&text));
}

#[test]
fn texts_that_look_like_something_else_stay_texts() {
    let (text, way) = workloads().remove(0);
    let output = injected(&text).text;
    let value = values(&output).remove(0);
    let env = &value.pointer(way).unwrap()["spec"]["containers"][0]["env"];
    let texts: Vec<&str> = (0..7)
        .map(|index| env[index]["value"].as_str().unwrap())
        .collect();
    let lines = "first\n  second\n\nthird\n";
    assert_eq!(
        texts,
        ["no", "0777", "1e3", "~", "null", "2001-01-01", lines]
    );
    for quoted in [
        "\"no\"",
        "\"0777\"",
        "\"1e3\"",
        "\"~\"",
        "\"null\"",
        "\"2001-01-01\"",
        "value: |\n",
    ] {
        assert!(output.contains(quoted), "{quoted} is not in\n{output}");
    }
}

#[test]
fn yaml_is_read_as_kubectl_reads_it() {
    let value = values("{readOnly: yes, mode: 0400, off: x, port: '80:80', m: 80:80}").remove(0);
    let wanted = json!({"readOnly": true, "mode": 256, "off": "x", "port": "80:80", "m": "80:80"});
    assert_eq!(value, wanted);
}

#[test]
fn json_stays_json() {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "\u{1f600}\u{2028}"},
        "spec": {"containers": [{"name": "app", "image": "x"}]}});
    let text = format!("{pod}\n{{\"kind\": \"Service\", \"escaped\": \"\\ud83d\\ude00\\/\"}}");
    let result = injected(&text);
    assert!(result.text.starts_with("{\n"), "{}", result.text);
    assert_eq!(result.reports[1].place, "web.yaml:2: Service");
    assert_eq!(values(&uninjected(&result.text)), values(&text));
}

#[test]
fn all_that_is_refused_is_said_with_its_line_and_nothing_is_given() {
    let pod = |name: &str, uid: u32| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  containers:\n  - name: app\n    \
             image: x\n    securityContext: {{runAsUser: {uid}}}\n"
        )
    };
    let text = [pod("a", 15008), pod("good", 1), pod("b", 15008)].join("---\n");
    let refused = injected_in(&text, &enabled()).unwrap_err().to_string();
    let lines: Vec<&str> = refused.lines().collect();
    assert_eq!(lines.len(), 2, "{refused}");
    assert!(lines[0].starts_with("web.yaml:1: Pod a: "), "{refused}");
    assert!(lines[1].starts_with("web.yaml:19: Pod b: "), "{refused}");
    assert!(lines[1].contains("15008"), "{refused}");
}

#[test]
fn what_is_no_manifest_is_an_error_with_its_line() {
    for (text, line) in [
        ("a: 1\na: 2\n", 2),
        ("ok: 1\n---\nx: [\n", 3),
        ("{\"a\": 1", 1),
        ("ok: &a {b: 1}\nc: *d\n", 2),
        ("number: .inf\n", 1),
    ] {
        let error = run(text, &Task::Uninject).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("web.yaml:{line}: ")),
            "{text:?}: {error}"
        );
    }
    let deep = "[".repeat(10_000);
    assert!(matches!(
        run(&deep, &Task::Uninject),
        Err(RewriteError::Read(_))
    ));
    let long = " ".repeat(MAX_FILE + 1);
    assert!(matches!(
        run(&long, &Task::Uninject),
        Err(RewriteError::Read(_))
    ));
}

#[test]
fn control_characters_of_a_file_reach_no_terminal() {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: \"a\\e[31m\"}\nspec: {containers: [{name: x}]}\n";
    let reports = injected(text).reports;
    assert!(!reports[0].to_string().contains('\u{1b}'), "{reports:?}");
    let error = run("a: 1\n\"\\e[31m\": 1\n\"\\e[31m\": 1\n", &Task::Uninject);
    assert!(!error.unwrap_err().to_string().contains('\u{1b}'));
}

#[test]
fn a_pod_out_of_the_mesh_stays_as_it_is() {
    let (text, _) = workloads().remove(0);
    let absent = NamespaceFacts::new([], []);
    let result = injected_in(&text, &absent).unwrap();
    assert!(matches!(result.reports[0].outcome, Outcome::Skipped(_)));
    assert_eq!(values(&result.text), values(&text));
    // a kind of another group of the API only has the name
    let other = text.replace("apps/v1", "example.com/v1");
    assert_eq!(injected(&other).reports[0].outcome, Outcome::NoPod);
}

mod of_any_value {
    use proptest::prelude::*;

    use super::*;

    fn any_text() -> impl Strategy<Value = String> {
        prop_oneof![
            "\\PC{0,12}",
            "[a-z \t\n:#|>'\"{}\\[\\],&*!%@`~?-]{0,20}",
            "[0-9eE.+_xob:-]{0,8}",
            "(?s).{0,8}",
            prop::sample::select(vec![
                "yes", "No", "~", "null", "0x1f", "1e3", ".5", "-", "---", "...", "<<", "="
            ])
            .prop_map(str::to_owned),
        ]
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(|float: f64| Value::from(float)),
            any_text().prop_map(Value::from),
        ];
        scalar.prop_recursive(4, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(any_text(), inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_as_what_was_meant(value in any_value()) {
            let tree = Tree::of(&json!({"document": value}), None);
            for style in [Style::Yaml, Style::Json] {
                let text = write(std::slice::from_ref(&tree), style);
                prop_assert!(text.is_ok(), "{style:?}: {tree:?}");
            }
        }
    }
}
