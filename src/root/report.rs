//! What `mesh-lite root` did, and what the operator does next.

use std::{fmt::Write as _, time::SystemTime};

use mesh_lite_control_plane::{
    clock,
    root_commands::{ClusterReport, ImportReport, Places, RootMode, RootReport},
};
use serde_json::json;

pub(super) fn print_root(report: &RootReport, places: &Places, as_json: bool) {
    let root_until = clock::readable(report.root_until);
    let issuing_until = clock::readable(report.issuing_until);
    if as_json {
        let text = json!({
            "trustDomain": report.trust_domain.to_string(),
            "root": { "directory": report.root, "until": root_until, "mode": report.mode.to_string() },
            "issuingCa": {
                "file": report.issuing_authority,
                "keyId": report.issuing_key_id,
                "until": issuing_until,
                "renewalDue": clock::readable(report.renewal_due),
                "warnsFrom": clock::readable(report.warns_from),
            },
            "trustBundle": report.trust_bundle,
        });
        println!("{text}");
        return;
    }
    println!("trust domain   {}", report.trust_domain);
    println!(
        "root           {} until {root_until}",
        report.root.display()
    );
    println!(
        "issuing CA     {} until {issuing_until}",
        report.issuing_authority.display()
    );
    println!("               key id {}", report.issuing_key_id);
    println!(
        "trust bundle   {} (give it to sidecars)",
        report.trust_bundle.display()
    );
    println!("\n{}", next_steps(report, places));
}

fn next_steps(report: &RootReport, places: &Places) -> String {
    let renew = format!(
        "mesh-lite root renew --data-dir {} --root-dir",
        places.data_dir.display()
    );
    let root = report.root.display();
    let date = |time: SystemTime| clock::readable(time);
    let (due, warns, until) = (
        date(report.renewal_due),
        date(report.warns_from),
        date(report.issuing_until),
    );
    let mut text = match report.mode {
        RootMode::Kept => format!(
            "Root mode kept. What to do now, once:\n  \
             1. Let only the user who signs read {root}; never the control plane's.\n  \
             2. Have a timer run this daily, as that user (it signs from {due} on):\n     \
                {renew} {root} --if-due"
        ),
        RootMode::Offline => format!(
            "Root mode offline. What to do now:\n  \
             1. Move {root} to a place that no network reaches, and keep a second copy elsewhere.\n  \
             2. Between {due} and {warns} bring it back and run:\n     \
                {renew} DIRECTORY_OF_THE_ROOT\n  \
             3. Take it away again. A running control plane takes over what was signed.\n\
             The control plane warns from {warns} on; after {until} nobody is certified."
        ),
    };
    if report.roots > 1 {
        // the text is in memory: writing to it can't fail
        let _ = write!(
            text,
            "\nThe trust bundle holds {} roots. Drop an old one from {} only when the last leaf signed \
             under it has ended: --leaf-lifetime after the control plane logged \"issuing CA changed\".",
            report.roots,
            report.trust_bundle.display()
        );
    }
    text
}

pub(super) fn print_cluster(report: &ClusterReport, as_json: bool) {
    let issuing_until = clock::readable(report.issuing_until);
    let root_until = report.root_until.map(clock::readable);
    if as_json {
        let text = json!({
            "trustDomain": report.trust_domain.to_string(),
            "root": { "place": report.root, "until": root_until, "mode": report.mode.to_string(), "made": report.root_made },
            "issuingCa": {
                "place": report.issuing_authority,
                "keyId": report.issuing_key_id,
                "until": issuing_until,
                "renewalDue": clock::readable(report.renewal_due),
                "warnsFrom": clock::readable(report.warns_from),
                "pluggedIn": report.plugged_in,
                "made": report.issuing_made,
            },
            "trustBundle": { "place": report.trust_bundle, "roots": report.roots, "written": report.bundle_written },
        });
        println!("{text}");
        return;
    }
    let was = |made: bool| if made { "made now" } else { "was there" };
    println!("trust domain   {}", report.trust_domain);
    match (&report.root, root_until) {
        (Some(root), Some(until)) => {
            println!(
                "root           {root} until {until}, {}",
                was(report.root_made)
            );
        }
        _ => println!("root           not within reach"),
    }
    println!(
        "issuing CA     {} until {issuing_until}, {}",
        report.issuing_authority,
        was(report.issuing_made)
    );
    println!("               key id {}", report.issuing_key_id);
    println!(
        "trust bundle   {}, {} root(s), {}",
        report.trust_bundle,
        report.roots,
        if report.bundle_written {
            "written now"
        } else {
            "as it was"
        }
    );
    println!("\n{}", cluster_next_steps(report));
}

fn cluster_next_steps(report: &ClusterReport) -> String {
    let (due, warns) = (
        clock::readable(report.renewal_due),
        clock::readable(report.warns_from),
    );
    match (report.plugged_in, report.mode) {
        (true, _) => "Another program keeps the issuing CA: nothing is signed here.".to_owned(),
        (false, RootMode::Kept) => format!("The CronJob signs the next issuing CA from {due} on."),
        (false, RootMode::Offline) => format!(
            "Root mode offline: between {due} and {warns} bring the root and run\n  \
             mesh-lite root renew --kubernetes --root-dir DIRECTORY_OF_THE_ROOT"
        ),
    }
}

pub(super) fn print_import(report: &ImportReport, as_json: bool) {
    let until = clock::readable(report.issuing_until);
    let warns_from = clock::readable(report.warns_from);
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    if as_json {
        let text = json!({
            "issuingCa": {
                "file": report.issuing_authority,
                "keyId": report.issuing_key_id,
                "until": until,
                "warnsFrom": warns_from,
                "intermediates": report.intermediates,
            },
            "trustBundle": report.trust_bundle,
            "warnings": report.warnings,
        });
        println!("{text}");
        return;
    }
    println!(
        "issuing CA     {} until {until}",
        report.issuing_authority.display()
    );
    println!(
        "               key id {}, {} intermediates",
        report.issuing_key_id, report.intermediates
    );
    println!(
        "trust bundle   {} (give it to sidecars)",
        report.trust_bundle.display()
    );
    println!(
        "\nRenewing it is up to you: import the next one before {until}. The control plane warns from \
         {warns_from} on."
    );
}
