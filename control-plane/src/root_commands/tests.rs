use tempfile::TempDir;

use super::*;
use crate::clock::from_unix_seconds;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn now() -> SystemTime {
    from_unix_seconds(1_800_000_000)
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("mesh.test").unwrap()
}

fn issuing_lifetime() -> Duration {
    RootMode::Kept.issuing_lifetime()
}

fn new() -> NewRoot {
    NewRoot {
        trust_domain: trust_domain(),
        root_lifetime: ROOT_LIFETIME,
        mode: None,
        issuing_lifetime: None,
    }
}

fn with_mode(mode: RootMode) -> NewRoot {
    NewRoot {
        mode: Some(mode),
        ..new()
    }
}

fn places(directory: &TempDir) -> Places {
    Places {
        data_dir: directory.path().join("state"),
        root_dir: None,
    }
}

#[test]
fn makes_a_root_once_and_renews_its_issuing_authority() {
    let directory = TempDir::new().unwrap();
    let places = places(&directory);
    let first = init_root(&places, &new(), now()).unwrap();
    assert_eq!(first.issuing_until, now() + issuing_lifetime());
    let again = init_root(&places, &new(), now()).unwrap_err();
    assert!(
        again.to_string().contains("a root is never overwritten"),
        "{again}"
    );

    let bundle = std::fs::read(&first.trust_bundle).unwrap();
    let second = renew_root(&places, Renewal::default(), now()).unwrap();
    assert_ne!(first.issuing_key_id, second.issuing_key_id);
    assert_eq!(std::fs::read(&second.trust_bundle).unwrap(), bundle);
}

#[test]
fn repairs_by_renewing_what_a_broken_off_init_left_out() {
    let directory = TempDir::new().unwrap();
    let places = places(&directory);
    let first = init_root(&places, &new(), now()).unwrap();
    let bundle = std::fs::read(&first.trust_bundle).unwrap();
    std::fs::remove_file(&first.trust_bundle).unwrap();
    std::fs::remove_file(&first.issuing_authority).unwrap();
    assert!(renewal_is_due(&places, &trust_domain(), now()).unwrap());
    renew_root(&places, Renewal::default(), now()).unwrap();
    assert_eq!(std::fs::read(&first.trust_bundle).unwrap(), bundle);
}

#[test]
fn is_due_from_half_of_the_issuing_authoritys_life() {
    let directory = TempDir::new().unwrap();
    let places = places(&directory);
    init_root(&places, &new(), now()).unwrap();
    let due = |at| renewal_is_due(&places, &trust_domain(), at).unwrap();
    assert!(!due(now()));
    assert!(!due(
        now() + issuing_lifetime() / 2 - Duration::from_secs(600)
    ));
    assert!(due(now() + issuing_lifetime() / 2));
}

#[test]
fn keeps_the_root_where_it_is_told_to() {
    let directory = TempDir::new().unwrap();
    let root = directory.path().join("elsewhere");
    let places = Places {
        root_dir: Some(root.clone()),
        ..places(&directory)
    };
    let report = init_root(&places, &new(), now()).unwrap();
    assert_eq!(report.root, root);
    assert!(root.join("root.pem").exists());
    assert!(!places.data_dir.join("root").exists());
}

#[test]
fn refuses_lifetimes_that_can_not_be() {
    let directory = TempDir::new().unwrap();
    let upside_down = NewRoot {
        root_lifetime: Duration::from_secs(60),
        ..new()
    };
    assert!(init_root(&places(&directory), &upside_down, now()).is_err());
    assert!(!directory.path().join("state/root").exists());
}

#[test]
fn refuses_to_renew_without_a_root_or_with_one_that_expired() {
    let directory = TempDir::new().unwrap();
    assert!(renew_root(&places(&directory), Renewal::default(), now()).is_err());
    init_root(&places(&directory), &new(), now()).unwrap();
    let expired = renew_root(
        &places(&directory),
        Renewal::default(),
        now() + ROOT_LIFETIME,
    );
    assert!(expired.unwrap_err().to_string().contains("expired at"));
}

#[test]
fn refuses_tokens_where_there_is_no_mesh() {
    let directory = TempDir::new().unwrap();
    let workload = "shop/web".parse().unwrap();
    let refused = create_token(directory.path(), &workload, TOKEN_LIFETIME, now())
        .err()
        .unwrap();
    assert!(
        refused.to_string().contains("mesh-lite root init"),
        "{refused}"
    );
}

#[test]
fn signs_for_thirty_days_where_a_timer_renews_and_for_a_year_where_a_person_does() {
    for (mode, days) in [(RootMode::Kept, 30), (RootMode::Offline, 365)] {
        let directory = TempDir::new().unwrap();
        let places = places(&directory);
        let report = init_root(&places, &with_mode(mode), now()).unwrap();
        assert_eq!(report.issuing_until, now() + days * DAY);
        // renewal goes on in the mode that the mesh was made in
        let later = now() + 10 * DAY;
        let renewed = renew_root(&places, Renewal::default(), later).unwrap();
        assert_eq!(renewed.mode, mode);
        assert_eq!(renewed.issuing_until, later + days * DAY);
    }
}

#[test]
fn changes_the_root_mode_when_told_to() {
    let directory = TempDir::new().unwrap();
    let places = places(&directory);
    init_root(&places, &new(), now()).unwrap();
    let offline = Renewal {
        mode: Some(RootMode::Offline),
        issuing_lifetime: Some(200 * DAY),
    };
    let report = renew_root(&places, offline, now()).unwrap();
    assert_eq!(report.issuing_until, now() + 200 * DAY);
    assert_eq!(report.warns_from, now() + 140 * DAY);
    let again = renew_root(&places, Renewal::default(), now()).unwrap();
    assert_eq!(again.mode, RootMode::Offline);
    let next_root = Places {
        root_dir: Some(directory.path().join("next-root")),
        ..places
    };
    let next = init_root(&next_root, &new(), now()).unwrap();
    assert_eq!(next.mode, RootMode::Offline, "the mesh's, not the default");
}

#[test]
fn refuses_issuing_cas_that_live_longer_than_their_root_mode_allows() {
    let directory = TempDir::new().unwrap();
    let places = places(&directory);
    let with = |mode, lifetime| NewRoot {
        issuing_lifetime: Some(lifetime),
        ..with_mode(mode)
    };
    let refused = init_root(&places, &with(RootMode::Kept, 91 * DAY), now()).unwrap_err();
    let text = refused.to_string();
    assert!(
        text.contains("root mode kept") && text.contains("90d at most, not 91d"),
        "{text}"
    );
    assert!(text.contains("--root-mode offline"), "{text}");
    assert!(init_root(&places, &with(RootMode::Offline, 367 * DAY), now()).is_err());
    assert!(!directory.path().join("state/root").exists());
    init_root(&places, &with(RootMode::Kept, 90 * DAY), now()).unwrap();
    let too_long = Renewal {
        mode: None,
        issuing_lifetime: Some(366 * DAY),
    };
    assert!(renew_root(&places, too_long, now()).is_err());
}

/// The bundle is only added to, and what is to be done with the old root can be said.
#[test]
fn adds_a_second_root_beside_the_first() {
    let directory = TempDir::new().unwrap();
    let first = places(&directory);
    assert_eq!(init_root(&first, &new(), now()).unwrap().roots, 1);
    let second = Places {
        root_dir: Some(directory.path().join("second")),
        ..first
    };
    assert_eq!(init_root(&second, &new(), now()).unwrap().roots, 2);
}

#[test]
fn a_timer_leaves_alone_what_a_person_renews() {
    let directory = TempDir::new().unwrap();
    let places = places(&directory);
    init_root(&places, &with_mode(RootMode::Offline), now()).unwrap();
    for later in [Duration::ZERO, 300 * DAY, 400 * DAY] {
        let refused = renewal_is_due(&places, &trust_domain(), now() + later).unwrap_err();
        assert!(refused.to_string().contains("Stop the timer"), "{refused}");
    }
    let kept = Renewal {
        mode: Some(RootMode::Kept),
        ..Renewal::default()
    };
    renew_root(&places, kept, now()).unwrap();
    assert!(!renewal_is_due(&places, &trust_domain(), now()).unwrap());
    assert!(renewal_is_due(&places, &trust_domain(), now() + 16 * DAY).unwrap());
}

#[test]
fn an_import_never_turns_a_mesh_into_one_of_another_trust_domain() {
    let (ours, other) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let report = init_root(&places(&ours), &new(), now()).unwrap();
    let before = std::fs::read(&report.issuing_authority).unwrap();
    let elsewhere = NewRoot {
        trust_domain: TrustDomain::new("other.test").unwrap(),
        ..new()
    };
    let given = init_root(&places(&other), &elsewhere, now()).unwrap();
    let import = |data_dir: PathBuf| Import {
        data_dir,
        trust_domain: elsewhere.trust_domain.clone(),
        chain: given.issuing_authority.clone(),
        key: given.issuing_authority.clone(),
        roots: Some(given.trust_bundle.clone()),
    };
    let refused = import_authority(&import(places(&ours).data_dir), now()).unwrap_err();
    let words = "is of trust domain mesh.test, not other.test: nothing is written";
    assert!(refused.to_string().contains(words), "{refused}");
    assert_eq!(std::fs::read(&report.issuing_authority).unwrap(), before);
    // where no mesh is yet, it makes one
    let empty = TempDir::new().unwrap();
    import_authority(&import(places(&empty).data_dir), now()).unwrap();
}
