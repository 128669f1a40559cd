use super::*;

fn exclusions() -> Exclusions {
    Exclusions {
        inbound_ports: vec![9999],
        outbound_ports: vec![5432],
        subnets: vec![
            "10.88.0.0/16".parse().unwrap(),
            "fd88::/16".parse().unwrap(),
        ],
    }
}

fn problems(proxy_uid: u32, exclusions: &Exclusions) -> Vec<InvalidRule> {
    RuleSet::new(proxy_uid, exclusions).unwrap_err().0
}

#[test]
fn nft_text_without_exclusions_is_the_verified_one() {
    let rules = RuleSet::new(SIDECAR_UID, &Exclusions::default()).unwrap();
    assert_eq!(rules.nft(), include_str!("golden/plain.nft"));
}

#[test]
fn nft_text_with_exclusions_is_the_verified_one() {
    let rules = RuleSet::new(SIDECAR_UID, &exclusions()).unwrap();
    assert_eq!(rules.nft(), include_str!("golden/exclusions.nft"));
}

#[test]
fn iptables_text_has_the_subnets_of_its_own_family_only() {
    let rules = RuleSet::new(SIDECAR_UID, &exclusions()).unwrap();
    let absent = JumpsPresent::default();
    assert_eq!(
        rules.iptables(Family::V4, absent),
        include_str!("golden/exclusions.iptables")
    );
    assert_eq!(
        rules.iptables(Family::V6, absent),
        include_str!("golden/exclusions.ip6tables")
    );
}

#[test]
fn a_jump_that_is_there_already_is_taken_out_before_it_is_put_in() {
    let rules = RuleSet::new(SIDECAR_UID, &Exclusions::default()).unwrap();
    let present = JumpsPresent {
        filter: [false; 2],
        nat: [true, false],
    };
    let text = rules.iptables(Family::V4, present);
    let deletions: Vec<_> = text.lines().filter(|line| line.starts_with("-D")).collect();
    assert_eq!(deletions, ["-D OUTPUT -p tcp -j ML_OUT"]);
    assert_eq!(
        text.lines().filter(|line| line.starts_with("-I")).count(),
        4
    );
}

#[test]
fn more_ports_than_multiport_takes_are_split_over_rules() {
    let many = Exclusions {
        outbound_ports: (1000..1040).collect(),
        ..Exclusions::default()
    };
    let rules = RuleSet::new(SIDECAR_UID, &many).unwrap();
    let text = rules.iptables(Family::V4, JumpsPresent::default());
    let lists: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("-A ML_OUT") && line.contains("--dports"))
        .collect();
    assert_eq!(lists.len(), 3);
    for list in lists {
        let ports = list
            .split_once("--dports ")
            .unwrap()
            .1
            .split_once(' ')
            .unwrap()
            .0;
        assert!(ports.split(',').count() <= 15, "{list}");
    }
}

#[test]
fn the_order_in_which_exclusions_are_named_does_not_change_the_text() {
    let mut shuffled = exclusions();
    shuffled.subnets.reverse();
    shuffled.subnets.push("10.88.3.0/24".parse().unwrap());
    shuffled.outbound_ports.push(5432);
    assert_eq!(
        RuleSet::new(SIDECAR_UID, &shuffled).unwrap(),
        RuleSet::new(SIDECAR_UID, &exclusions()).unwrap()
    );
}

#[test]
fn users_of_root_and_of_other_meshes_are_refused() {
    for uid in [0, 1337, 2102] {
        assert_eq!(
            problems(uid, &Exclusions::default()),
            [InvalidRule::ForbiddenUid(uid)]
        );
    }
}

#[test]
fn port_zero_is_refused() {
    let zero = Exclusions {
        inbound_ports: vec![0],
        ..Exclusions::default()
    };
    assert_eq!(
        problems(SIDECAR_UID, &zero),
        [InvalidRule::PortZero {
            setting: "--skip-inbound-ports"
        }]
    );
}

#[test]
fn the_sidecars_own_ports_cannot_be_excluded() {
    for port in [15000, 15001, 15006] {
        let own = Exclusions {
            inbound_ports: vec![port],
            ..Exclusions::default()
        };
        assert_eq!(
            problems(SIDECAR_UID, &own),
            [InvalidRule::OwnPort {
                setting: "--skip-inbound-ports",
                port
            }]
        );
    }
}

#[test]
fn a_subnet_of_every_address_is_refused() {
    for every in ["0.0.0.0/0", "::/0"] {
        let subnet: IpNet = every.parse().unwrap();
        let all = Exclusions {
            subnets: vec![subnet],
            ..Exclusions::default()
        };
        assert_eq!(
            problems(SIDECAR_UID, &all),
            [InvalidRule::EverySubnet(subnet)]
        );
    }
}

#[test]
fn a_subnet_that_holds_the_address_of_the_proof_is_refused() {
    for (subnet, probe) in [
        ("192.0.2.0/24", IpAddr::V4(UNROUTED_V4)),
        ("192.0.0.0/8", IpAddr::V4(UNROUTED_V4)),
        ("2001:db8::/32", IpAddr::V6(UNROUTED_V6)),
    ] {
        let subnet: IpNet = subnet.parse().unwrap();
        let holding = Exclusions {
            subnets: vec![subnet],
            ..Exclusions::default()
        };
        assert_eq!(
            problems(SIDECAR_UID, &holding),
            [InvalidRule::ProbeExcluded { subnet, probe }]
        );
    }
}

#[test]
fn too_long_lists_are_refused() {
    let long = Exclusions {
        outbound_ports: (1..=257).collect(),
        ..Exclusions::default()
    };
    assert_eq!(
        problems(SIDECAR_UID, &long),
        [InvalidRule::TooMany {
            setting: "--skip-outbound-ports",
            count: 257
        }]
    );
}

#[test]
fn every_problem_is_named_at_once() {
    let bad = Exclusions {
        inbound_ports: vec![0, 15006],
        outbound_ports: vec![0],
        subnets: vec!["0.0.0.0/0".parse().unwrap()],
    };
    let error = RuleSet::new(1337, &bad).unwrap_err();
    assert_eq!(error.0.len(), 5);
    assert_eq!(error.to_string().lines().count(), 5);
}

#[test]
fn the_port_of_the_proof_is_one_that_is_captured() {
    let first = Exclusions {
        outbound_ports: vec![1, 2, 4],
        ..Exclusions::default()
    };
    let rules = RuleSet::new(SIDECAR_UID, &first).unwrap();
    assert_eq!(rules.captured_outbound_port(), 3);
}
