use serde_json::json;

use super::*;

fn object(value: Value) -> PolicyObject {
    let object: DynamicObject = serde_json::from_value(value).unwrap();
    policy_object(Kind::AuthorizationPolicy, object).unwrap()
}

fn spec(spec: Value) -> PolicyObject {
    object(json!({
        "apiVersion": "mesh-lite.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"namespace": "shop", "name": "api", "uid": "u", "generation": 3,
            "resourceVersion": "7", "managedFields": [{"manager": "kubectl"}]},
        "spec": spec,
    }))
}

/// As `kubectl get authorizationpolicy api -o yaml` prints it, but for quotes.
#[test]
fn is_the_document_that_kubectl_shows() {
    let policy = spec(json!({
        "selector": {"matchLabels": {"app": "api", "version": "2"}},
        "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web", "*"]}}],
            "to": [{"operation": {"ports": ["8080"]}}]}],
        "action": "ALLOW", "dryRun": false,
    }));
    let expected = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata:
  generation: 3
  name: api
  namespace: shop
  resourceVersion: \"0\"
  uid: u
spec:
  action: ALLOW
  dryRun: false
  rules:
  - from:
    - source:
        principals:
        - cluster.local/ns/shop/sa/web
        - \"*\"
    to:
    - operation:
        ports:
        - \"8080\"
  selector:
    matchLabels:
      app: api
      version: \"2\"
";
    assert_eq!(&*policy.text, expected);
    let documents = policy.documents(&Dialect::default());
    assert_eq!(
        (documents.readable.len(), documents.unreadable.len()),
        (1, 0)
    );
}

#[test]
fn what_only_the_status_changes_is_the_same_document() {
    let one = spec(json!({}));
    let other = object(json!({
        "metadata": {"namespace": "shop", "name": "api", "uid": "u", "generation": 3,
            "resourceVersion": "8"},
        "spec": {}, "status": {"conditions": [{"type": "Loaded", "status": "True",
            "reason": "Loaded", "message": "in force", "observedGeneration": 3}]},
    }));
    assert!(!one.differs(&other));
    assert_ne!(one, other, "what its status says is news");
}

#[test]
fn texts_that_yaml_takes_for_something_else_stay_texts() {
    let texts = [
        "",
        " ",
        "yes",
        "NO",
        "null",
        "~",
        "1e3",
        "0x1F",
        "0777",
        "1_000",
        "12:30",
        "2026-11-21",
        ".inf",
        "- a",
        "a: b",
        "a #b",
        "#a",
        "&a",
        "*a",
        "!a",
        "|",
        ">",
        "{a",
        "[a",
        "%a",
        "@a",
        "`a",
        "\"a",
        "'a",
        "a\tb",
        "a\u{85}b",
        "é",
        "\u{2028}",
        "\u{1}",
        "---",
        "...",
        "a\r\nb",
        " a\nb",
        "a \nb",
        "a\nb",
        "a\nb\n",
        "a\n\nb\n",
        "a\n---\nb",
        "\na",
        "a\n\n",
        "<<",
        "=",
    ];
    let labels: serde_json::Map<String, Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| (format!("k{index}"), json!(text)))
        .collect();
    let policy = object(json!({
        "metadata": {"namespace": "shop", "name": "api", "annotations": labels}, "spec": {},
    }));
    let documents = policy.documents(&Dialect::default());
    let [document] = documents.readable.as_slice() else {
        panic!("{:?}\n{}", documents.unreadable, policy.text);
    };
    for (index, text) in texts.iter().enumerate() {
        let read = document.annotations.get(&format!("k{index}"));
        assert_eq!(read.map(String::as_str), Some(*text), "\n{}", policy.text);
    }
}

/// The lines that kubectl 1.36 printed.
#[test]
fn long_texts_are_broken_where_kubectl_breaks_them() {
    let words = "word ".repeat(40);
    let sentence = words.trim_end();
    let (mut text, indent) = ("  a: ".to_owned(), 2);
    scalar(&words, indent, false, &mut text);
    let expected = format!(
        "  a: \"{}\n    {}\n    {}\"",
        "word ".repeat(16).trim_end(),
        "word ".repeat(16).trim_end(),
        "word ".repeat(8),
    );
    assert_eq!(text, expected);
    // and what is read is the text
    let quoted = "say \"this\": ".repeat(20);
    let values = [
        words.as_str(),
        sentence,
        &quoted,
        &"a  b ".repeat(50),
        &"\"".repeat(200),
    ];
    let annotations: serde_json::Map<String, Value> = values
        .iter()
        .enumerate()
        .map(|(index, text)| (format!("k{index}"), json!(text)))
        .collect();
    let policy = object(json!({
        "metadata": {"namespace": "shop", "name": "api", "annotations": annotations}, "spec": {},
    }));
    let documents = policy.documents(&Dialect::default());
    let document = documents.readable.first().unwrap();
    for (index, text) in values.iter().enumerate() {
        let read = document.annotations.get(&format!("k{index}"));
        assert_eq!(read.map(String::as_str), Some(*text), "\n{}", policy.text);
    }
}

/// Nobody's object may deny outside of its namespace, however it is made.
#[test]
fn what_cannot_be_read_is_of_its_own_namespace() {
    let mut deep = json!("end");
    for _ in 0..100 {
        deep = json!([deep]);
    }
    let wide: Vec<Value> = (0..200_000).map(|_| json!("a")).collect();
    for spec_of in [
        deep,
        json!(wide),
        json!("x".repeat(2 * MAX_FILE)),
        Value::Null,
    ] {
        let documents = spec(spec_of).documents(&Dialect::default());
        for unreadable in &documents.unreadable {
            assert_eq!(unreadable.namespace.as_deref(), Some("shop"));
            assert_eq!(unreadable.name.as_deref(), Some("api"));
        }
        assert_eq!(documents.readable.len() + documents.unreadable.len(), 1);
    }
}
