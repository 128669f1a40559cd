//! The JSON Schema of documents takes what the loader takes, and refuses what a schema can.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{fs, path::Path, process::Command};

use jsonschema::Validator;
use mesh_lite_control_plane::{
    outbound_rules::OutboundRules,
    policy_index::ShippedDefaults,
    policy_review::{Documents, ReviewSettings},
};
use mesh_lite_proto::document::{Dialect, DocumentError, RefusalClass};
use serde_json::Value;

const SCHEMA: &str = include_str!("../deploy/schema/mesh-lite.io-v1.json");

/// What no schema can say of one document: that it is YAML at all, what other documents say, which
/// settings a control plane has, what rules come to.
const BEYOND_A_SCHEMA: [RefusalClass; 15] = [
    RefusalClass::UnreadableFile,
    RefusalClass::TooLarge,
    RefusalClass::TooManyDocuments,
    RefusalClass::NotUtf8,
    RefusalClass::NotYaml,
    RefusalClass::DuplicateKey,
    RefusalClass::MergeKey,
    RefusalClass::YamlTag,
    RefusalClass::TooComplex,
    RefusalClass::TooManyErrors,
    RefusalClass::TestsFailed,
    RefusalClass::EvictionNotPermitted,
    RefusalClass::AddressNotClaimable,
    RefusalClass::DuplicatePort,
    RefusalClass::DefinedTwice,
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn schema() -> Validator {
    jsonschema::draft202012::new(&serde_json::from_str(SCHEMA).unwrap()).unwrap()
}

/// The documents of a text, as an editor sees them.
fn values(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn complaints(schema: &Validator, value: &Value) -> Vec<String> {
    let errors = schema.iter_errors(value);
    errors
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect()
}

fn loads(text: &str) -> bool {
    errors(text).is_empty()
}

fn errors(text: &str) -> Vec<DocumentError> {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("documents.yaml");
    fs::write(&path, text).unwrap();
    let settings = ReviewSettings {
        trust_domain: "cluster.local".parse().unwrap(),
        mesh_namespace: "mesh-lite-system".to_owned(),
        dialect: Dialect::default(),
        shipped: ShippedDefaults::STRICT,
        outbound: OutboundRules::default(),
    };
    let documents = Documents::read(&[path], &settings).unwrap();
    documents.errors().to_vec()
}

/// Files below a directory of the repository, with one of these endings.
fn files(directory: &str, endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(directory)).unwrap() {
        let path = entry.unwrap().path();
        let below = path.strip_prefix(root()).unwrap().to_str().unwrap();
        if path.is_dir() {
            found.extend(files(below, endings));
        } else if endings.iter().any(|ending| below.ends_with(ending))
            && let Ok(text) = fs::read_to_string(&path)
        {
            found.push((below.to_owned(), text));
        }
    }
    found
}

/// The documents that stand as literals in a program's text: from a line that begins one to the
/// end of the literal.
fn literals(program: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = program;
    while let Some((_, behind)) = rest.split_once("\napiVersion: mesh-lite.io/v1\n") {
        let end = ["\";", "\"#", "\")", "\","]
            .iter()
            .filter_map(|end| behind.find(&format!("\n{end}")))
            .min();
        let Some((literal, after)) = end.map(|end| behind.split_at(end)) else {
            break;
        };
        // PORT stands for a port that is found when the program runs
        let literal = literal.replace("\\\"", "\"").replace("PORT", "8080");
        found.push(format!("apiVersion: mesh-lite.io/v1\n{literal}\n"));
        rest = after;
    }
    found
}

/// Blocks of YAML in a text of Markdown, without their indentation.
fn fenced(markdown: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open: Option<usize> = None;
    for line in markdown.lines() {
        match (open, line.trim_start()) {
            (None, "```yaml") => {
                open = Some(line.len() - "```yaml".len());
                found.push(String::new());
            }
            (Some(_), "```") => open = None,
            (Some(indent), _) => {
                let block = found.last_mut().unwrap();
                block.push_str(line.get(indent..).unwrap_or_default());
                block.push('\n');
            }
            (None, _) => {}
        }
    }
    found
}

#[test]
fn the_program_prints_the_schema_that_is_published() {
    let output = Command::new(env!("CARGO_BIN_EXE_mesh-lite"))
        .args(["policy", "schema"])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), SCHEMA);
}

#[test]
fn every_field_says_what_it_means() {
    fn check(schema: &Value, at: &str, bare: &mut Vec<String>) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (name, field) in properties {
                if field.get("description").is_none() {
                    bare.push(format!("{at}.{name}"));
                }
            }
        }
        let subschemas = ["properties", "$defs"]
            .into_iter()
            .filter_map(|key| schema.get(key)?.as_object())
            .flatten();
        for (name, field) in subschemas {
            check(field, &format!("{at}.{name}"), bare);
        }
        if let Some(items) = schema.get("items") {
            check(items, &format!("{at}[]"), bare);
        }
    }
    let mut bare = Vec::new();
    check(&serde_json::from_str(SCHEMA).unwrap(), "", &mut bare);
    assert_eq!(bare, [""; 0]);
}

#[test]
fn takes_every_document_that_the_loader_takes() {
    let schema = schema();
    let programs = ["src", "tests", "bench", "proto/src", "control-plane/src"]
        .into_iter()
        .flat_map(|directory| files(directory, &[".rs"]))
        .flat_map(|(file, text)| {
            literals(&text)
                .into_iter()
                .map(move |text| (file.clone(), text))
        });
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let readme = fenced(&readme)
        .into_iter()
        .map(|text| ("README.md".to_owned(), text));
    let istios = files("tests/istio", &[".yaml"])
        .into_iter()
        .map(|(file, text)| {
            let text = text.replace("security.istio.io/v1beta1", "mesh-lite.io/v1");
            (
                file,
                text.replace("security.istio.io/v1", "mesh-lite.io/v1"),
            )
        });
    let mut taken = 0;
    let mut refused = Vec::new();
    for (file, text) in programs.chain(readme).chain(istios) {
        // some are wrong on purpose, or patterns to fill in
        if !loads(&text) {
            continue;
        }
        for value in values(&text) {
            let complaints = complaints(&schema, &value);
            if complaints.is_empty() {
                taken += 1;
            } else {
                refused.push(format!("{file}: {complaints:?}\n{value:#}"));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(taken > 80, "only {taken} documents were found");
    println!("{taken} documents");
}

#[test]
fn refuses_every_kind_of_mistake_that_a_schema_can_see() {
    let schema = schema();
    let mut seen = 0;
    for (file, text) in files("tests/policy_refusals", &[".yaml"]) {
        let beyond = |class: &RefusalClass| {
            let name = file.rsplit('/').next().unwrap();
            name.starts_with(class.as_str())
        };
        if BEYOND_A_SCHEMA.iter().any(beyond) {
            continue;
        }
        let refused = values(&text)
            .iter()
            .any(|value| !complaints(&schema, value).is_empty());
        assert!(refused, "{file}");
        seen += 1;
    }
    assert!(seen > 35, "only {seen}");
}

/// Mistakes of classes that a schema sees otherwise, which no pattern can tell: nobody is surprised
/// by a document that an editor takes and the loader refuses, if it stands here.
#[test]
fn takes_what_only_the_loader_can_tell_to_be_wrong() {
    let schema = schema();
    let source = |source: &str| format!("{{rules: [{{from: [{{source: {{{source}}}}}]}}]}}");
    let long = format!("principals: [cluster.local/ns/{}/sa/b]", "a".repeat(2030));
    let evicted = |field: &str| format!("{{serial: 'f0', {field}}}");
    let (policy, eviction) = ("AuthorizationPolicy", "Eviction");
    for (kind, spec, class) in [
        (
            policy,
            source("ipBlocks: ['1:2']"),
            RefusalClass::BadIpBlock,
        ),
        (
            policy,
            source("ipBlocks: ['::::']"),
            RefusalClass::BadIpBlock,
        ),
        (
            policy,
            source("ipBlocks: ['::ffff:10.0.0.1']"),
            RefusalClass::BadIpBlock,
        ),
        (
            policy,
            source("principals: [a/../b]"),
            RefusalClass::BadPrincipal,
        ),
        (
            policy,
            source("principals: [cluster.local/ns/.]"),
            RefusalClass::BadPrincipal,
        ),
        (policy, source(&long), RefusalClass::BadPrincipal),
        (
            policy,
            "{tests: [{from: plaintext, sourceIp: '1:2', port: 80, expect: DENY}]}".to_owned(),
            RefusalClass::BadAddress,
        ),
        (
            eviction,
            evicted("until: '2030-13-31T23:59:59Z'"),
            RefusalClass::BadTime,
        ),
        (
            eviction,
            evicted("until: '2030-12-31T23:59:59+24:00'"),
            RefusalClass::BadTime,
        ),
        (
            eviction,
            "{serial: '0'}".to_owned(),
            RefusalClass::BadSerial,
        ),
    ] {
        let text = format!(
            "apiVersion: mesh-lite.io/v1\nkind: {kind}\n\
             metadata: {{name: a, namespace: mesh-lite-system}}\nspec: {spec}\n"
        );
        assert_eq!(complaints(&schema, &values(&text)[0]), [""; 0], "{spec}");
        let classes: Vec<RefusalClass> = errors(&text).iter().map(|error| error.class).collect();
        assert_eq!(classes, [class], "{spec}");
        assert!(
            !BEYOND_A_SCHEMA.contains(&class),
            "{class}: some of them a schema sees"
        );
    }
}

#[test]
fn refuses_single_mistakes_in_what_it_takes() {
    let schema = schema();
    let policy = |spec: &str| {
        let text = format!(
            "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a}}\nspec: {spec}\n"
        );
        complaints(&schema, &values(&text)[0])
    };
    let rule = |source: &str| {
        policy(&format!(
            "{{rules: [{{from: [{{source: {{{source}}}}}]}}]}}"
        ))
    };
    assert_eq!(policy("{}"), [""; 0]);
    assert_eq!(rule("principals: ['*']"), [""; 0]);
    for (source, fine) in [
        ("principals: [a.b/ns/c/sa/d]", true),
        ("principals: [spiffe://a.b/ns/c/sa/d]", true),
        ("principals: ['a*', '*b', 'spiffe://*']", true),
        ("principals: [a.b]", false),
        ("principals: ['a*b']", false),
        ("principals: [A.b/ns/c/sa/d]", false),
        ("principals: ['']", false),
        ("principals: a.b/ns/c/sa/d", false),
        ("ipBlocks: [10.0.0.0/8, 'fd00::/8', 10.1.2.3]", true),
        ("ipBlocks: [10.0.0.0/33]", false),
        ("ipBlocks: [10.0.0.1/08]", false),
        ("ipBlocks: ['fd00::/064']", false),
        ("ipBlocks: [web]", false),
        ("namespaces: [a, 'b*']", true),
        ("namespaces: [a/b]", false),
        ("serviceAccounts: [a, b/c]", true),
        ("serviceAccounts: [a/b/c]", false),
        ("trustDomains: [A]", false),
        ("requestPrincipals: [a]", false),
    ] {
        assert_eq!(rule(source).is_empty(), fine, "{source}");
    }
    for (spec, fine) in [
        ("{dryRun: true, rules: [{}]}", true),
        ("{dryRun: true, defaultAction: DENY}", false),
        ("{dryRun: false, defaultAction: DENY}", true),
        (
            "{rules: [{to: [{operation: {ports: [80, '81', 65535]}}]}]}",
            true,
        ),
        ("{rules: [{to: [{operation: {ports: [0]}}]}]}", false),
        ("{rules: [{to: [{operation: {ports: ['65536']}}]}]}", false),
        ("{rules: [{to: [{operation: {ports: [65536]}}]}]}", false),
        ("{tests: [{from: plaintext, port: 80, expect: DENY}]}", true),
        ("{tests: [{from: plaintext, port: 80}]}", false),
        ("{tests: [{from: shop/web, port: 80, expect: DENY}]}", false),
        (
            "{tests: [{from: 'spiffe://shop/web', port: 80, expect: DENY}]}",
            true,
        ),
        ("{tests: [{from: a.b/c/d, port: 80, expect: DENY}]}", true),
        ("[]", false),
    ] {
        assert_eq!(policy(spec).is_empty(), fine, "{spec}");
    }
}
