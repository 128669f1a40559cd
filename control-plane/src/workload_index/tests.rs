use mesh_lite_proto::workload_directory::Service;

use super::*;

fn workload(name: &str, addresses: &[&str]) -> Workload {
    let name: WorkloadName = name.parse().unwrap();
    Workload {
        id: format!("spiffe://mesh.test/ns/{}/sa/{}", name.namespace, name.name)
            .parse()
            .unwrap(),
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        labels: BTreeMap::from([("app".to_owned(), "api".to_owned())]),
        ports: BTreeMap::from([("http".to_owned(), 8080)]),
        tunnel_port: Some(15008),
        uid: None,
        node: None,
        host: None,
        name,
    }
}

fn service(name: &str, addresses: &[&str], target: TargetPort) -> ServiceDocument {
    let (namespace, name) = name.split_once('/').unwrap();
    ServiceDocument {
        name: ServiceName {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
        addresses: addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect(),
        ports: vec![ServicePortDocument { port: 80, target }],
        selector: BTreeMap::from([("app".to_owned(), "api".to_owned())]),
        listed: None,
        session_affinity: false,
        same_node_only: false,
    }
}

fn address(text: &str) -> Name {
    Name::Address(text.parse().unwrap())
}

fn by_name(text: &str) -> Name {
    let (namespace, name) = text.split_once('/').unwrap();
    Name::Service(ServiceName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

fn answer(index: &WorkloadIndex, name: &Name) -> Answer {
    Answer::clone(&index.answer(name, &MeshSettings::default()))
}

fn service_of(index: &WorkloadIndex, name: &Name) -> Service {
    match answer(index, name) {
        Answer::Service(service) => service,
        other => panic!("{name} is no service: {other:?}"),
    }
}

#[test]
fn snapshots_share_the_answers_that_did_not_change() {
    let stays = workload("a/x", &["10.0.0.1"]);
    let moves = |at: &str| workload("a/y", &[at]);
    let first = WorkloadIndex::default().successor(vec![stays.clone(), moves("10.0.0.2")], vec![]);
    let second = first.successor(vec![stays, moves("10.0.0.3")], vec![]);
    let settings = MeshSettings::default();
    let of = |index: &WorkloadIndex, text| index.answer(&address(text), &settings);
    assert!(Arc::ptr_eq(
        &of(&first, "10.0.0.1"),
        &of(&second, "10.0.0.1")
    ));
    assert_ne!(of(&first, "10.0.0.2"), of(&second, "10.0.0.2"));
    assert_ne!(of(&first, "10.0.0.3"), of(&second, "10.0.0.3"));
}

#[test]
fn gives_an_address_with_two_claimants_to_nobody() {
    let claims = [
        (
            vec![
                workload("a/x", &["10.0.0.1"]),
                workload("b/y", &["10.0.0.1"]),
            ],
            vec![],
        ),
        (
            vec![
                workload("a/x", &["10.0.0.1"]),
                workload("b/y", &["::ffff:10.0.0.1"]),
            ],
            vec![],
        ),
        (
            vec![workload("a/x", &["10.0.0.1"])],
            vec![service("a/s", &["10.0.0.1"], TargetPort::Number(80))],
        ),
        (
            vec![],
            vec![
                service("a/s", &["10.0.0.1"], TargetPort::Number(80)),
                service("b/s", &["10.0.0.1"], TargetPort::Number(80)),
            ],
        ),
    ];
    for (workloads, services) in claims {
        let index = WorkloadIndex::default().successor(workloads, services);
        let found = answer(&index, &address("10.0.0.1"));
        assert!(matches!(found, Answer::Unknown { .. }), "{found:?}");
        assert_eq!(index.conflicts().len(), 1);
    }
}

#[test]
fn takes_an_address_that_a_document_states_twice_for_one_claim() {
    let twice = workload("a/x", &["10.0.0.1", "10.0.0.1"]);
    let index = WorkloadIndex::default().successor(vec![twice], Vec::new());
    assert!(matches!(
        answer(&index, &address("10.0.0.1")),
        Answer::Endpoint(_)
    ));
    assert_eq!(index.conflicts().len(), 0);
}

#[test]
fn selects_workloads_of_the_services_own_namespace_by_all_its_labels() {
    let mut other_label = workload("a/z", &["10.0.0.3"]);
    other_label
        .labels
        .insert("app".to_owned(), "web".to_owned());
    let workloads = vec![
        workload("a/x", &["10.0.0.1"]),
        workload("b/y", &["10.0.0.2"]),
        other_label,
    ];
    let services = vec![service("a/s", &[], TargetPort::Number(8080))];
    let index = WorkloadIndex::default().successor(workloads, services);
    let found = service_of(&index, &by_name("a/s"));
    let addresses: Vec<_> = found.endpoints.keys().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.0.0.1"]);
}

fn target_port_of(service: &Service) -> Option<u16> {
    let endpoint = service.endpoints.values().next()?;
    service.target_port(endpoint, 80)
}

#[test]
fn resolves_a_named_port_only_where_all_workloads_agree() {
    let named = || service("a/s", &[], TargetPort::Name("http".to_owned()));
    let mut other = workload("a/y", &["10.0.0.2"]);
    let agreeing = vec![workload("a/x", &["10.0.0.1"]), other.clone()];
    let index = WorkloadIndex::default().successor(agreeing, vec![named()]);
    assert_eq!(
        target_port_of(&service_of(&index, &by_name("a/s"))),
        Some(8080)
    );
    other.ports.insert("http".to_owned(), 9090);
    let quarrelling = vec![workload("a/x", &["10.0.0.1"]), other];
    let index = WorkloadIndex::default().successor(quarrelling, vec![named()]);
    assert_eq!(target_port_of(&service_of(&index, &by_name("a/s"))), None);
    let index = WorkloadIndex::default().successor(Vec::new(), vec![named()]);
    assert_eq!(target_port_of(&service_of(&index, &by_name("a/s"))), None);
}

#[test]
fn tells_outside_from_unknown_by_the_mesh_settings() {
    let index = WorkloadIndex::default();
    let settings = MeshSettings {
        mesh_cidrs: vec!["192.0.2.0/24".parse().unwrap()],
        external_cidrs: vec!["192.0.2.128/25".parse().unwrap()],
        ..MeshSettings::default()
    };
    let unknown = |text: &str| {
        matches!(
            *index.answer(&address(text), &settings),
            Answer::Unknown { .. }
        )
    };
    assert!(unknown("192.0.2.1"));
    assert!(unknown("::ffff:192.0.2.1"));
    assert!(!unknown("192.0.2.200"));
    assert!(!unknown("10.0.0.1"));
}

#[test]
fn names_what_changed_since_an_earlier_revision() {
    let first = WorkloadIndex::beginning_at(1_000).successor(
        vec![
            workload("a/x", &["10.0.0.1"]),
            workload("a/y", &["10.0.0.2"]),
        ],
        Vec::new(),
    );
    let second = first.successor(
        vec![
            workload("a/x", &["10.0.0.1"]),
            workload("a/y", &["10.0.0.3"]),
        ],
        Vec::new(),
    );
    let changes = second.changes_since(first.revision());
    assert!(!changes.concern(&address("10.0.0.1")));
    assert!(changes.concern(&address("10.0.0.2")));
    assert!(changes.concern(&address("10.0.0.3")));
    let none = second.changes_since(second.revision());
    assert!(!none.concern(&address("10.0.0.3")));
    let same = second.successor(
        vec![
            workload("a/x", &["10.0.0.1"]),
            workload("a/y", &["10.0.0.3"]),
        ],
        Vec::new(),
    );
    assert!(
        !same
            .changes_since(second.revision())
            .concern(&address("10.0.0.3"))
    );
}

#[test]
fn forgets_old_changes_and_then_says_everything() {
    let mut index = WorkloadIndex::beginning_at(7);
    let first = index.successor(Vec::new(), Vec::new()).revision();
    for number in 0..REMEMBERED_REVISIONS + 10 {
        let name = format!("a/x{number}");
        index = index.successor(vec![workload(&name, &["10.0.0.1"])], Vec::new());
    }
    assert_eq!(index.changes.len(), REMEMBERED_REVISIONS);
    assert_eq!(index.changes_since(first), Changes::Everything);
    assert_eq!(index.changes_since(0), Changes::Everything);
    let recent = index.changes_since(index.revision() - 1);
    assert!(!recent.concern(&address("10.0.0.99")));
}

#[test]
fn says_everything_rather_than_remember_a_very_large_change() {
    let many = (0..=MAX_REMEMBERED_NAMES).map(|number| {
        let [.., high, low] = number.to_be_bytes();
        workload(&format!("a/x{number}"), &[&format!("10.0.{high}.{low}")])
    });
    let before = WorkloadIndex::beginning_at(1);
    let after = before.successor(many.collect(), Vec::new());
    assert_eq!(after.changes_since(before.revision()), Changes::Everything);
}

#[test]
fn reads_names_of_workloads_strictly() {
    assert!("shop/web-1.blue".parse::<WorkloadName>().is_ok());
    let long = format!("shop/{}", "a".repeat(64));
    for text in [
        "",
        "web",
        "shop/",
        "/web",
        "shop/web/x",
        "Shop/web",
        "shop/w_b",
        "shop/-web",
        "shop/web.",
        &long,
        "../..",
        "shop/wéb",
    ] {
        assert!(text.parse::<WorkloadName>().is_err(), "{text}");
    }
}

#[test]
fn a_pod_is_gone_once_it_was_there_and_is_not_and_not_before() {
    let pod = |uid: &str| {
        let mut pod = workload("shop/web", &[]);
        pod.uid = Some(uid.into());
        vec![pod]
    };
    let empty = WorkloadIndex::default();
    let first = empty.successor(pod("1"), Vec::new());
    assert!(!first.is_gone("1") && !first.is_gone("2"));
    let second = first.successor(pod("2"), Vec::new());
    assert!(second.is_gone("1") && !second.is_gone("2"));
    let third = second.successor(vec![workload("shop/web", &[])], Vec::new());
    assert!(third.is_gone("1") && third.is_gone("2"));
    // one that could not be read for a while
    let fourth = third.successor(pod("2"), Vec::new());
    assert!(fourth.is_gone("1") && !fourth.is_gone("2"));
    let other = WorkloadIndex::default().successor(Vec::new(), Vec::new());
    assert!(!other.is_gone("1"), "of another index");
}
