use super::*;

const GOOD: &str = "\
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: a, namespace: shop}
spec: {}
";

fn only(text: &str) -> RawDocument {
    let mut documents = split("p.yaml", text.as_bytes());
    assert_eq!(documents.unreadable, []);
    assert_eq!(documents.readable.len(), 1, "{text}");
    documents.readable.remove(0)
}

fn only_unreadable(text: &str) -> UnreadableDocument {
    let mut documents = split("p.yaml", text.as_bytes());
    assert_eq!(documents.readable, []);
    assert_eq!(documents.unreadable.len(), 1, "{text}");
    documents.unreadable.remove(0)
}

#[test]
fn reads_every_document_of_a_file_with_its_first_line() {
    let text = format!(
        "# policies\n---\n{GOOD}---\n# second\n\n{}...\n",
        GOOD.replace(": a,", ": b,")
    );
    let documents = split("p.yaml", text.as_bytes());
    assert_eq!(documents.unreadable, []);
    let found: Vec<_> = documents
        .readable
        .iter()
        .map(|document| (document.key.to_string(), document.line))
        .collect();
    assert_eq!(
        found,
        [
            ("AuthorizationPolicy shop/a".to_owned(), 3),
            ("AuthorizationPolicy shop/b".to_owned(), 10)
        ]
    );
}

#[test]
fn a_broken_document_does_not_take_its_neighbours_with_it() {
    let broken = "apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: {name: e}\nspec: {a\n";
    let text = format!("{GOOD}---\n{broken}---\n{}", GOOD.replace(": a,", ": b,"));
    let documents = split("p.yaml", text.as_bytes());
    assert_eq!(documents.unreadable, []);
    let readable: Vec<_> = documents
        .readable
        .iter()
        .map(|document| document.spec_node().is_ok())
        .collect();
    assert_eq!(readable, [true, false, true]);
    let errors = documents.readable[1].spec_node().unwrap_err();
    assert!(errors.to_string().starts_with("p.yaml:9:7: "), "{errors}");
}

#[test]
fn errors_name_the_line_of_the_file_not_of_the_document() {
    let text = format!("{GOOD}---\n{}spce: {{}}\n", GOOD.replace(": a,", ": b,"));
    let documents = split("dir/p.yaml", text.as_bytes());
    let errors = documents.readable[1].spec_node().unwrap_err();
    assert_eq!(
        errors.to_string(),
        "dir/p.yaml:10:1: unknown field \"spce\"; did you mean \"spec\"? \
         a document has apiVersion, kind, metadata and spec"
    );
}

#[test]
fn a_marker_cuts_even_inside_of_a_text() {
    let documents = split("p.yaml", format!("a: |\n  x\n---\n{GOOD}").as_bytes());
    assert_eq!(
        (documents.readable.len(), documents.unreadable.len()),
        (1, 1)
    );
    assert_eq!(documents.readable[0].line, 4);
}

#[test]
fn dashes_that_are_no_marker_do_not_cut() {
    let text = GOOD.replace("spec: {}", "spec:\n  a: |\n    ---\n  b: ---x");
    assert!(only(&text).spec_node().is_ok());
}

#[test]
fn comments_directives_and_empty_documents_are_no_documents() {
    for text in [
        "",
        "\n\n",
        "# only this\n",
        "---\n---\n...\n",
        "%YAML 1.2\n---\n# x\n",
    ] {
        assert_eq!(
            split("p.yaml", text.as_bytes()),
            Documents::default(),
            "{text:?}"
        );
    }
}

#[test]
fn reads_files_of_windows_editors() {
    let text = format!("\u{feff}{}", GOOD.replace('\n', "\r\n"));
    assert_eq!(only(&text).key.to_string(), "AuthorizationPolicy shop/a");
}

#[test]
fn the_namespace_defaults_as_kubectl_has_it() {
    assert_eq!(
        &*only(&GOOD.replace(", namespace: shop", "")).key.namespace,
        "default"
    );
}

#[test]
fn a_misspelt_namespace_does_not_move_the_document() {
    let document = only(&GOOD.replace("namespace:", "namspace:"));
    let errors = document.spec_node().unwrap_err().to_string();
    assert!(
        errors.starts_with("p.yaml:3:21: unknown field metadata.namspace"),
        "{errors}"
    );
}

#[test]
fn takes_what_the_kubernetes_api_server_adds() {
    let text = GOOD.replace(
        "{name: a,",
        "{name: a, uid: x, resourceVersion: \"1\", generation: 2, managedFields: [], annotations: {a: b},",
    );
    assert!(
        only(&format!("{text}status: {{conditions: []}}\n"))
            .spec_node()
            .is_ok()
    );
}

#[test]
fn refuses_headers_that_do_not_say_which_document_this_is() {
    for (text, problem) in [
        (
            "just text\n",
            "p.yaml:1:1: a document is a map, found a text",
        ),
        ("- a\n", "a document is a map, found a list"),
        (
            "apiVersion: mesh-lite.io/v1\nmetadata: {name: a}\n",
            "kind is missing",
        ),
        (
            "apiVersion: mesh-lite.io/v1\nkind: AuthorisationPolicy\nmetadata: {name: a}\n",
            "p.yaml:2:7: unknown kind \"AuthorisationPolicy\"",
        ),
        (
            "apiVersion: mesh-lite.io/v1\nkind: Eviction\n",
            "metadata is missing",
        ),
        (
            "apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: {namespace: shop}\n",
            "p.yaml:3:11: metadata.name is missing",
        ),
        (
            "apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: []\n",
            "metadata is a map",
        ),
        (
            "apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: {name: 17}\n",
            "p.yaml:3:18: metadata.name is a text, found a number",
        ),
        (
            "apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: {name: A/b}\n",
            "not a valid name",
        ),
        (
            "apiVersion: mesh-lite.io/v1\nkind: Eviction\nmetadata: {name: a, namespace: \"\"}\n",
            "metadata.namespace \"\" is not a valid name",
        ),
    ] {
        let document = only_unreadable(text);
        let errors = document.errors.to_string();
        assert!(errors.contains(problem), "{text}\n{errors}");
        assert!(document.may_be_policy, "{text}");
    }
}

#[test]
fn what_cannot_be_read_keeps_the_namespace_that_can() {
    let document = only_unreadable(
        "apiVersion: mesh-lite.io/v1\nkind: Odd\nmetadata: {name: a, namespace: shop}\n",
    );
    assert_eq!(document.namespace.as_deref(), Some("shop"));
}

#[test]
fn a_document_of_somebody_else_is_no_policy() {
    let document = only_unreadable("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n");
    assert!(!document.may_be_policy);
}

/// As `kubectl get authorizationpolicies -o yaml` shows several.
#[test]
fn a_list_is_refused_with_the_way_to_documents() {
    let list = "apiVersion: v1\nitems:\n- apiVersion: mesh-lite.io/v1\n  kind: AuthorizationPolicy\n\
                kind: List\n";
    let errors = only_unreadable(list).errors.to_string();
    assert!(errors.contains("mesh-lite policy documents"), "{errors}");
    assert!(!errors.contains("write apiVersion"), "{errors}");
    let other = only_unreadable("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n");
    assert!(!other.errors.to_string().contains("List"));
}

#[test]
fn of_a_document_of_somebody_else_only_its_version_is_refused() {
    for text in [
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: b}\n",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n",
    ] {
        let errors = only_unreadable(text).errors;
        assert_eq!(errors.count(), 1, "{errors}");
    }
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {type: ClusterIP}\n";
    let document = only(service);
    assert_eq!(document.spec_node().unwrap_err().count(), 1);
    assert_eq!(document.spec_beside_errors(), None);
}

#[test]
fn istios_api_version_is_refused_but_the_document_is_known() {
    let document = only(&GOOD.replace("mesh-lite.io/v1", "security.istio.io/v1"));
    let errors = document.spec_node().unwrap_err().to_string();
    assert_eq!(
        errors,
        "p.yaml:1:13: apiVersion \"security.istio.io/v1\" is Istio's; \
         write apiVersion: mesh-lite.io/v1, or have Istio's documents taken as they are: \
         --istio-root-namespace istio-system"
    );
}

#[test]
fn the_header_of_a_document_that_is_no_yaml_is_salvaged() {
    let document = only(&GOOD.replace("spec: {}", "spec:\n  rules:\n   - a\n  - b: [\n"));
    assert_eq!(document.key.to_string(), "AuthorizationPolicy shop/a");
    assert!(document.spec_node().is_err());
}

#[test]
fn a_header_inside_of_a_text_is_not_salvaged() {
    let text = format!("note: \"\nkind: Workload\n\"\n{GOOD}bad: [\n");
    let document = only_unreadable(&text);
    assert!(document.may_be_policy, "the kind stands there twice");
}

#[test]
fn a_spec_that_says_nothing_is_missing() {
    for text in [
        GOOD.replace("spec: {}\n", ""),
        GOOD.replace("spec: {}", "spec:"),
    ] {
        let errors = only(&text).spec_node().unwrap_err().to_string();
        assert!(errors.contains("spec is missing"), "{errors}");
    }
}

#[test]
fn refuses_what_would_hide_meaning_from_a_reader() {
    for (spec, problem) in [
        ("{a: 1, a: 2}", "duplicate mapping key"),
        ("{a: &x {b: 1}, c: {<<: *x}}", "merge key"),
        ("{a: !secret x}", "tag"),
    ] {
        let errors = only(&GOOD.replace("{}", spec))
            .spec_node()
            .unwrap_err()
            .to_string();
        assert!(errors.contains(problem), "{spec}: {errors}");
    }
}

#[test]
fn bounds_what_a_document_may_cost() {
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let wide = format!("[{}]", "1,".repeat(30_000));
    let mut bomb = "\n  a0: &a0 [x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let below = level - 1;
        bomb += &format!(
            "  a{level}: &a{level} [{}]\n",
            vec![format!("*a{below}"); 8].join(", ")
        );
    }
    for spec in [deep, wide, bomb] {
        let document = only(&GOOD.replace("{}", &spec));
        assert!(document.spec_node().is_err());
    }
}

#[test]
fn bounds_the_size_and_the_number_of_documents_of_a_file() {
    let documents = split("p.yaml", &vec![b'#'; MAX_FILE + 1]);
    assert!(
        documents.unreadable[0]
            .errors
            .to_string()
            .contains("split it into several files")
    );
    let documents = split("p.yaml", "---\na: b\n".repeat(MAX_DOCUMENTS + 5).as_bytes());
    assert_eq!(documents.unreadable.len(), MAX_DOCUMENTS + 1);
    let last = documents.unreadable.last().unwrap();
    assert!(last.may_be_policy && last.errors.to_string().contains("more than"));
}

#[test]
fn bytes_that_are_not_utf_8_spoil_their_document_only() {
    let mut bytes = GOOD.replace("spec: {}", "spec: {a: X}").into_bytes();
    let position = bytes.iter().position(|byte| *byte == b'X').unwrap();
    bytes[position] = 0xff;
    bytes.extend_from_slice(b"---\n");
    bytes.extend_from_slice(GOOD.replace(": a,", ": b,").as_bytes());
    let documents = split("p.yaml", &bytes);
    let errors = documents.readable[0].spec_node().unwrap_err().to_string();
    assert_eq!(
        errors,
        "p.yaml:4:11: the line is not UTF-8; save the file as UTF-8"
    );
    assert!(documents.readable[1].spec_node().is_ok());
}

#[test]
fn words_that_old_yaml_takes_for_booleans_are_texts() {
    let document = only(&GOOD.replace("namespace: shop", "namespace: no"));
    assert_eq!(&*document.key.namespace, "no");
}

/// A control plane holds all documents, and one of them may have 20,000 values.
#[test]
fn a_document_is_held_in_no_more_memory_than_its_values_take() {
    let ports = vec!["80"; 10_000].join(",");
    let text = format!("{{ports: [{ports}], a: 1, b: 2, c: 3}}");
    let Value::Map(entries) = Node::parse(&text, 0).unwrap().value else {
        panic!("a map");
    };
    let Value::List(items) = &entries[0].value.value else {
        panic!("a list");
    };
    assert_eq!(items.capacity(), items.len());
    assert_eq!(entries.capacity(), entries.len());
    assert!(size_of::<Node>() <= 40 && size_of::<Entry>() <= 72);
}

#[test]
fn a_tag_that_makes_something_else_of_a_value_is_refused_wherever_it_stands() {
    for (from, to) in [
        (
            "spec: {}",
            "spec: {rules: [{from: [{source: {namespaces: [!!binary c2hvcA==]}}]}]}",
        ),
        ("spec: {}", "spec: {!!binary cnVsZXM=: []}"),
        ("name: a", "name: !!binary YQ=="),
        ("spec: {}", "spec: !!null everything"),
    ] {
        let documents = split("p.yaml", GOOD.replace(from, to).as_bytes());
        let of_spec = documents
            .readable
            .iter()
            .filter_map(|raw| raw.spec_node().err());
        let of_header = documents
            .unreadable
            .iter()
            .map(|unreadable| &unreadable.errors);
        let errors: Vec<&DocumentError> = of_spec
            .chain(of_header)
            .flat_map(DocumentErrors::iter)
            .collect();
        assert!(
            errors
                .iter()
                .any(|error| error.class == RefusalClass::YamlTag),
            "{to}: {errors:?}"
        );
        // nobody goes by a name that can't be read
        let hidden = to.starts_with("name");
        let mut names = documents.readable.iter().map(|raw| &*raw.key.name);
        assert!(!hidden || names.all(|name| name != "a"), "{to}");
    }
}
