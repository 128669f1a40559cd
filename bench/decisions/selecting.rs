//! A control plane's part: 10,000 documents, of which each of 1,000 workloads gets its own.

use std::{collections::BTreeMap, fmt::Write as _, time::SystemTime};

use crate::{Outcome, ROUNDS, cpu_time, median, microseconds, resident_kib, time_of};
use mesh_lite_control_plane::policy_index::{PolicyIndex, Selected, ShippedDefaults};
use mesh_lite_proto::{authorization::PolicySnapshot, document::split};

const NAMESPACES: u32 = 100;
const APPS: u32 = 10;
/// Of each application of each namespace.
const POLICIES: u32 = 10;

type Labels = BTreeMap<String, String>;

pub(crate) fn measure() -> Outcome<impl Sized> {
    let documents = NAMESPACES * APPS * POLICIES;
    println!(
        "a control plane with {documents} documents and {} workloads",
        NAMESPACES * APPS
    );
    let files: Vec<_> = (0..NAMESPACES)
        .map(|namespace| {
            split(
                &format!("team-{namespace}.yaml"),
                file(namespace).as_bytes(),
            )
        })
        .collect();
    let mut index = PolicyIndex::new(
        "cluster.local".parse()?,
        "mesh-lite-system",
        ShippedDefaults::STRICT,
    );
    let before = resident_kib()?;
    let cpu = cpu_time()?;
    index.replace_all(&files);
    let loading = cpu_time()?.saturating_sub(cpu);
    let memory = resident_kib()?.saturating_sub(before);
    println!(
        "    to load all documents      {:>9.1} ms, {memory} KiB",
        microseconds(loading) / 1e3
    );

    let workloads: Vec<(String, Labels)> = (0..NAMESPACES)
        .flat_map(|namespace| (0..APPS).map(move |app| workload(namespace, app)))
        .collect();
    let snapshots = || -> Vec<PolicySnapshot> {
        let of = |(namespace, labels): &(String, Labels)| {
            let selected = Selected { namespace, labels };
            index.snapshot_for(selected, SystemTime::UNIX_EPOCH)
        };
        workloads.iter().map(of).collect()
    };
    let before = resident_kib()?;
    let sent = snapshots();
    let memory = resident_kib()?.saturating_sub(before);
    let policies: usize = sent.iter().map(|snapshot| snapshot.policies.len()).sum();
    println!("    policies in all snapshots  {policies:>9}, {memory} KiB");
    print_median("all snapshots", &snapshots)?;
    print_median("and compared with sent", || snapshots() == sent)?;
    Ok((files, index, sent))
}

fn print_median<T>(what: &str, mut work: impl FnMut() -> T) -> Outcome<()> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push(time_of(&mut work)?);
    }
    let milliseconds = microseconds(median(times)) / 1e3;
    println!("    {what:<26} {milliseconds:>9.1} ms");
    Ok(())
}

fn workload(namespace: u32, app: u32) -> (String, Labels) {
    let labels = Labels::from([("app".to_owned(), format!("app-{app}"))]);
    (format!("team-{namespace}"), labels)
}

fn file(namespace: u32) -> String {
    let mut text = String::new();
    for app in 0..APPS {
        for number in 0..POLICIES {
            let _ = write!(
                text,
                "---\n\
                 apiVersion: mesh-lite.io/v1\n\
                 kind: AuthorizationPolicy\n\
                 metadata: {{name: app-{app}-from-{number}, namespace: team-{namespace}}}\n\
                 spec:\n  \
                   selector: {{matchLabels: {{app: app-{app}}}}}\n  \
                   rules:\n  \
                   - from:\n    \
                     - source: {{principals: [cluster.local/ns/team-{number}/sa/app-{app}]}}\n    \
                     to:\n    \
                     - operation: {{ports: [\"8080\"]}}\n",
            );
        }
    }
    text
}
