//! Each kind of mistake in a document, as its author sees it: `<class>[-variant].yaml`, and beside
//! it `.txt`, exactly what `mesh-lite policy lint` prints about it.
//!
//! Where a mistake is stands in the document itself, so that a wrong place can't be taken for the
//! right one: in a comment above the line, with a `v` at each column, or as `# column 1`.
//! `UPDATE_GOLDEN=1` writes the `.txt` files anew. Read them before they are committed.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use mesh_lite_proto::document::{MAX_DOCUMENTS, MAX_FILE, RefusalClass};

/// Of a file that can't be read there is nothing to show: the control plane's `/readyz` says so,
/// see the tests of `directory_of_files`.
const WITHOUT_DOCUMENT: [RefusalClass; 1] = [RefusalClass::UnreadableFile];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy_refusals")
}

/// A document that is refused: the name of its file without the ending, and what it says.
struct Refused {
    name: String,
    text: Vec<u8>,
}

/// Those in the directory, and those that are too long to lie there.
fn all() -> Vec<Refused> {
    let mut refused: Vec<Refused> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "yaml"))
        .map(|path| Refused {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            text: fs::read(&path).unwrap(),
        })
        .collect();
    let header = "apiVersion: mesh-lite.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\n";
    let policy = header.replace("AuthorizationPolicy", "PeerAuthentication")
        + "spec: {mtls: {mode: STRICT}}\n";
    let named = |index: usize| format!("---\n{}", policy.replace(": a}", &format!(": a{index}}}")));
    let documents: String = (0..MAX_DOCUMENTS).map(named).collect();
    let test = "  - {from: plaintext, port: 80, expect: DENY}\n";
    let ports = "  rules: [{to: [{operation: {ports: [";
    let marks = format!("#{}{}", " ".repeat(ports.len() - 1), "v  ".repeat(50));
    for (name, text) in [
        ("too-large", "#".repeat(MAX_FILE + 1)),
        (
            "too-many-documents",
            format!("{documents}# column 1\n---\n{policy}"),
        ),
        (
            "too-many-entries",
            format!("{header}spec:\n# v\n  tests:\n{}", test.repeat(101)),
        ),
        (
            "too-many-errors",
            format!(
                "{header}spec:\n{marks}\n{ports}{}]}}}}]}}]\n",
                "0, ".repeat(300)
            ),
        ),
    ] {
        refused.push(Refused {
            name: name.to_owned(),
            text: text.into_bytes(),
        });
    }
    refused.sort_by(|one, other| one.name.cmp(&other.name));
    refused
}

impl Refused {
    /// What is printed about it.
    fn printed(&self) -> String {
        let scratch = tempfile::tempdir().unwrap();
        let file = format!("{}.yaml", self.name);
        fs::write(scratch.path().join(&file), &self.text).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_mesh-lite"))
            .args(["policy", "lint", &file])
            .current_dir(&scratch)
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert_eq!(complaint, "", "{}", self.name);
        assert_eq!(output.status.code(), Some(1), "{}", self.name);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Line and column of each mistake, as the document itself says.
    fn marked(&self) -> BTreeSet<(usize, usize)> {
        let text = String::from_utf8_lossy(&self.text);
        let mut places = BTreeSet::new();
        for (index, line) in text.lines().enumerate() {
            let below = index + 2;
            if line == "# column 1" {
                places.insert((below, 1));
            } else if let Some(marks) = line.strip_prefix('#')
                && marks.contains('v')
                && marks.chars().all(|c| c == ' ' || c == 'v')
            {
                let columns = line.chars().enumerate().filter(|(_, c)| *c == 'v');
                places.extend(columns.map(|(column, _)| (below, column + 1)));
            }
        }
        if places.is_empty() {
            // of a file that is refused as a whole
            places.insert((1, 1));
        }
        places
    }
}

/// Line and column of each mistake, as it is printed; warnings and notes are no mistakes.
fn printed_places(printed: &str) -> BTreeSet<(usize, usize)> {
    let mut places = BTreeSet::new();
    let mut of_error = false;
    for line in printed.lines() {
        of_error = line.starts_with("error[")
            || of_error && !line.starts_with("warning[") && !line.starts_with("note[");
        if let Some(place) = line.trim_start().strip_prefix("--> ")
            && of_error
        {
            let mut numbers = place.rsplit(':').map(|number| number.parse().unwrap());
            let column = numbers.next().unwrap();
            places.insert((numbers.next().unwrap(), column));
        }
    }
    places
}

/// The classes that are printed, as in `error[class]`.
fn printed_classes(printed: &str) -> BTreeSet<&str> {
    let classes = printed
        .lines()
        .filter_map(|line| line.strip_prefix("error[")?.split(']').next());
    classes.collect()
}

#[test]
fn each_mistake_is_printed_as_it_was_agreed() {
    let mut differences = Vec::new();
    for refused in all() {
        let file = directory().join(format!("{}.txt", refused.name));
        let printed = refused.printed();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, &printed).unwrap();
        }
        let agreed = fs::read_to_string(&file).unwrap_or_default();
        if printed != agreed {
            differences.push(format!(
                "=== {}\n{printed}--- agreed\n{agreed}",
                refused.name
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn each_mistake_is_where_its_document_says_and_nowhere_else() {
    let mut wrong = Vec::new();
    for refused in all() {
        let printed = refused.printed();
        let (places, marked) = (printed_places(&printed), refused.marked());
        if places != marked {
            wrong.push(format!("{}: {marked:?} expected\n{printed}", refused.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn there_is_a_document_for_each_class_and_a_class_for_each_document() {
    let mut covered = BTreeSet::new();
    for refused in all() {
        let printed = refused.printed();
        let classes = printed_classes(&printed);
        let of_name = classes.iter().filter(|class| {
            let rest = refused.name.strip_prefix(*class);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        });
        assert!(
            of_name.count() > 0,
            "{} is refused as {classes:?}",
            refused.name
        );
        covered.extend(classes.into_iter().map(str::to_owned));
    }
    for class in RefusalClass::ALL {
        let has_one = covered.contains(class.as_str());
        assert_eq!(has_one, !WITHOUT_DOCUMENT.contains(&class), "{class}");
    }
}
