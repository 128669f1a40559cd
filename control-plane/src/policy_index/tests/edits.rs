//! Generated edits of a directory, taken in file by file.

use std::collections::BTreeMap;

use mesh_lite_proto::authorization::document::load;
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;

const FILES: [&str; 3] = ["a.yaml", "b.yaml", "c.yaml"];
const NAMES: [&str; 4] = ["shop/a", "shop/b", "pay/a", "mesh-lite-system/a"];
const PLACES: [(&str, &str); 3] = [("shop", "api"), ("shop", "web"), ("pay", "api")];

/// Of each kind, specs that load and specs that do not.
fn some_readable() -> impl Strategy<Value = String> {
    let specs = vec![
        ("AuthorizationPolicy", "{rules: [{}]}"),
        ("AuthorizationPolicy", "{action: DENY, rules: [{}]}"),
        (
            "AuthorizationPolicy",
            "{selector: {matchLabels: {app: api}}, action: DENY, rules: [{}]}",
        ),
        ("AuthorizationPolicy", "{rules: 7}"),
        (
            "AuthorizationPolicy",
            "{selector: {matchLabels: {app: api}}, rules: 7}",
        ),
        ("PeerAuthentication", "{mtls: {mode: PERMISSIVE}}"),
        ("PeerAuthentication", "{mtls: {mode: 7}}"),
        (
            "Eviction",
            "{spiffeId: \"spiffe://cluster.local/ns/shop/sa/web\"}",
        ),
        (
            "Eviction",
            "{spiffeId: \"spiffe://cluster.local/ns/shop/sa/web\", until: soon}",
        ),
        ("Eviction", "{spiffeID: x}"),
        ("Workload", "{}"),
    ];
    let lines_above = select(vec!["", "# moved down\n"]);
    (select(specs), select(NAMES.to_vec()), lines_above)
        .prop_map(|((kind, spec), name, above)| format!("{above}{}", text(kind, name, spec)))
}

/// Each looks like no other, wherever it stands.
fn some_unreadable() -> impl Strategy<Value = String> {
    let headers = vec![
        "kind: AuthorizationPolicy\nmetadata: {x: 1, namespace: shop}\nspec: {rules: [{}]}\n",
        "kind: AuthorizationPolicy\nmetadata: {xy: 1, namespace: pay}\nspec: {rules: [{}]}\n",
        "kind: Workload\nmetadata: {xyz: 1, namespace: shop}\nspec: {}\n",
        "kind: [\nmetadata: {\n",
        "kind: Policy\nmetadata: {name: a, namespace: shop}\nspec: {}\n",
    ];
    select(headers).prop_map(|header| format!("apiVersion: mesh-lite.io/v1\n{header}"))
}

#[derive(Debug, Clone)]
enum Edit {
    Add(String),
    Change(usize, String),
    Remove(usize),
    Move(usize, usize),
    RemoveAll,
}

fn some_edit(document: BoxedStrategy<String>) -> impl Strategy<Value = (usize, Edit)> {
    let edit = prop_oneof![
        4 => document.clone().prop_map(Edit::Add),
        4 => (0..4_usize, document).prop_map(|(at, document)| Edit::Change(at, document)),
        3 => (0..4_usize).prop_map(Edit::Remove),
        2 => (0..4_usize, 0..FILES.len()).prop_map(|(at, to)| Edit::Move(at, to)),
        1 => Just(Edit::RemoveAll),
    ];
    (0..FILES.len(), edit)
}

/// What the files say; of a file that is not there, nothing.
#[derive(Default)]
struct Directory([Option<Vec<String>>; FILES.len()]);

impl Directory {
    /// Answers which files are not as they were.
    fn edit(&mut self, file: usize, edit: Edit) -> Vec<usize> {
        let documents = self.0[file].get_or_insert_default();
        match edit {
            Edit::Add(document) => documents.push(document),
            Edit::Change(at, document) if at < documents.len() => documents[at] = document,
            Edit::Remove(at) if at < documents.len() => _ = documents.remove(at),
            Edit::Move(at, to) if at < documents.len() => {
                let document = documents.remove(at);
                self.0[to].get_or_insert_default().push(document);
                return vec![file, to];
            }
            Edit::RemoveAll => self.0[file] = None,
            _ => {}
        }
        vec![file]
    }

    fn documents(&self, file: usize) -> Option<Documents> {
        let documents = self.0[file].as_ref()?;
        Some(split(FILES[file], documents.join("---\n").as_bytes()))
    }

    fn all(&self) -> Vec<Documents> {
        (0..FILES.len())
            .filter_map(|file| self.documents(file))
            .collect()
    }

    fn take_in(&self, index: &mut PolicyIndex, changed: Vec<usize>) {
        let changed = changed.into_iter().map(|file| {
            let documents = self.documents(file).map(Arc::new);
            (Arc::from(FILES[file]), documents)
        });
        index.replace_files(changed.collect::<BTreeMap<_, _>>());
    }
}

/// All that anybody is told.
fn said(index: &PolicyIndex) -> impl PartialEq + std::fmt::Debug + use<> {
    let snapshots: Vec<PolicySnapshot> = PLACES
        .iter()
        .map(|(namespace, app)| snapshot_of(index, namespace, app))
        .collect();
    let problems: Vec<Problem> = index.problems().collect();
    let evictions: Vec<Eviction> = index.evictions().cloned().collect();
    (snapshots, problems, evictions)
}

/// Nothing of it counts as read.
fn forget_what_was_read(index: &mut PolicyIndex) {
    for entry in index.documents.values_mut() {
        entry.read = None;
    }
}

/// Each of them denies until it is readable or gone, so it is in a place of its own.
fn denying(index: &PolicyIndex, directory: &Directory) -> Vec<(usize, String)> {
    let mut denying = Vec::new();
    for problem in index.problems() {
        if problem.key.is_some() || problem.effect != Effect::Denies {
            continue;
        }
        let file = FILES.iter().position(|file| **file == *problem.source.file);
        let file = file.unwrap();
        let mut line = 1;
        for document in directory.0[file].iter().flatten() {
            let end = line + document.lines().count();
            if (line..end).contains(&(problem.source.line as usize)) {
                denying.push((file, document.clone()));
            }
            line = end + 1;
        }
    }
    denying.sort();
    denying
}

proptest! {
    #[test]
    fn what_is_taken_in_file_by_file_is_what_reading_all_anew_says(
        edits in vec(
            some_edit(prop_oneof![2 => some_readable(), 1 => some_unreadable()].boxed()),
            1..25,
        ),
    ) {
        let (mut by_file, mut anew) = (index(ShippedDefaults::PERMISSIVE), index(ShippedDefaults::PERMISSIVE));
        let mut directory = Directory::default();
        for (file, edit) in edits {
            let was_denying = denying(&by_file, &directory);
            let changed = directory.edit(file, edit);
            directory.take_in(&mut by_file, changed);
            forget_what_was_read(&mut anew);
            anew.replace_all(&directory.all());
            prop_assert_eq!(said(&by_file), said(&anew));
            let still: Vec<_> = denying(&by_file, &directory);
            for one in was_denying {
                let copies = directory.0[one.0].iter().flatten().filter(|it| **it == one.1).count();
                prop_assert!(copies == 0 || still.contains(&one), "{one:?} no longer denies");
            }
        }
    }

    #[test]
    fn an_index_is_that_of_its_documents_and_their_last_good_versions(
        edits in vec(some_edit(some_readable().boxed()), 1..25),
    ) {
        let mut by_file = index(ShippedDefaults::PERMISSIVE);
        let mut directory = Directory::default();
        let mut last_good: BTreeMap<DocumentKey, RawDocument> = BTreeMap::new();
        for (file, edit) in edits {
            let changed = directory.edit(file, edit);
            directory.take_in(&mut by_file, changed);
            let all = directory.all();
            let mut fresh = index(ShippedDefaults::PERMISSIVE);
            last_good.retain(|key, _| all.iter().flat_map(|it| &it.readable).any(|raw| raw.key == *key));
            for good in last_good.values() {
                fresh.upsert(good);
            }
            fresh.replace_all(&all);
            prop_assert_eq!(said(&by_file), said(&fresh));
            for raw in all.iter().flat_map(|it| &it.readable) {
                let alone = all.iter().flat_map(|it| &it.readable).filter(|it| it.key == raw.key).count() == 1;
                let loaded = raw.key.kind.is_policy() && load(raw, &by_file.trust_domain).is_ok();
                // who may evict whom is not asked by whoever loads
                let may = raw.key.kind != Kind::Eviction || *raw.key.namespace != *"pay";
                if alone && loaded && may {
                    last_good.insert(raw.key.clone(), raw.clone());
                }
            }
        }
    }
}
