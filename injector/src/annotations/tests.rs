use proptest::prelude::*;

use super::*;
use crate::injection_decision::Place;

const PREFIX: &str = CONFIG_ANNOTATION_PREFIX;

fn read_both(
    namespace: &[(&str, &str)],
    pod: &[(&str, &str)],
) -> Result<PodSettings, Vec<Refusal>> {
    let namespace = namespace
        .iter()
        .map(|(key, value)| (format!("{PREFIX}{key}"), (*value).to_owned()))
        .collect();
    let pod: Vec<(String, &str)> = pod
        .iter()
        .map(|(key, value)| (format!("{PREFIX}{key}"), *value))
        .collect();
    let pod = pod.iter().map(|(key, value)| (key.as_str(), *value));
    read("shop", &namespace, pod, &Resources::default())
}

fn of_pod(pod: &[(&str, &str)]) -> Result<PodSettings, Vec<Refusal>> {
    read_both(&[], pod)
}

/// The words of the only refusal.
fn refused(result: Result<PodSettings, Vec<Refusal>>) -> String {
    let refusals = result.unwrap_err();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    refusals[0].to_string()
}

fn ports(ports: &[u16]) -> BTreeSet<u16> {
    ports.iter().copied().collect()
}

fn skipped_inbound(settings: &PodSettings) -> BTreeSet<u16> {
    match &settings.capture {
        Capture::Transparent {
            skip_inbound_ports, ..
        } => skip_inbound_ports.clone(),
        Capture::Explicit { .. } => panic!("explicit"),
    }
}

#[test]
fn without_annotations_everything_is_captured_and_nothing_is_tuned() {
    let settings = of_pod(&[]).unwrap();
    assert_eq!(
        settings.capture,
        Capture::Transparent {
            skip_inbound_ports: BTreeSet::new(),
            skip_outbound_ports: BTreeSet::new(),
            skip_subnets: Vec::new(),
        }
    );
    assert_eq!(
        (settings.drain_delay, settings.shutdown_grace_period),
        (0, 1)
    );
    assert!(settings.rewrite_probes && settings.files.is_empty());
    assert_eq!(settings.resources, Resources::default());
}

#[test]
fn a_pod_that_skips_what_its_namespace_does_not_is_refused_with_what_to_do() {
    for (key, value) in [
        ("skip-inbound-ports", "9100"),
        ("skip-outbound-ports", "5432"),
        ("skip-subnets", "10.9.0.0/16"),
        ("capture", "explicit"),
        ("access-log", "off"),
    ] {
        let words = refused(of_pod(&[(key, value)]));
        let remedy = format!("kubectl annotate namespace shop {PREFIX}{key}={value}");
        assert!(words.contains("may only tighten"), "{words}");
        assert!(words.contains(&remedy), "{words}");
    }
}

#[test]
fn the_namespace_may_loosen_and_its_pods_inherit_that() {
    let namespace = [("skip-inbound-ports", "9100, 25"), ("access-log", "off")];
    let settings = read_both(&namespace, &[]).unwrap();
    assert_eq!(skipped_inbound(&settings), ports(&[25, 9100]));
    assert_eq!(settings.access_log, Some(AccessLog::Off));
}

#[test]
fn a_pod_tightens_what_its_namespace_allows() {
    let namespace = [
        ("skip-inbound-ports", "9100,25"),
        ("access-log", "off"),
        ("skip-subnets", "10.0.0.0/8"),
    ];
    let pod = [
        ("skip-inbound-ports", "25"),
        ("access-log", "stdout"),
        ("skip-subnets", "10.9.0.0/16"),
    ];
    let settings = read_both(&namespace, &pod).unwrap();
    assert_eq!(skipped_inbound(&settings), ports(&[25]));
    assert_eq!(settings.access_log, Some(AccessLog::Stdout));

    let none = read_both(&namespace, &[("skip-inbound-ports", "")]).unwrap();
    assert_eq!(skipped_inbound(&none), ports(&[]));
    let back = read_both(&[("capture", "explicit")], &[("capture", "transparent")]).unwrap();
    assert!(matches!(back.capture, Capture::Transparent { .. }));
}

#[test]
fn a_pod_that_names_one_port_too_many_is_refused_for_that_one() {
    let words = refused(read_both(
        &[("skip-inbound-ports", "25")],
        &[("skip-inbound-ports", "25,9100")],
    ));
    assert!(words.ends_with("skip-inbound-ports=9100"), "{words}");
}

#[test]
fn a_wider_subnet_than_the_namespace_allows_is_refused() {
    refused(read_both(
        &[("skip-subnets", "10.9.0.0/16")],
        &[("skip-subnets", "10.0.0.0/8")],
    ));
    refused(read_both(
        &[("skip-subnets", "10.9.0.0/16")],
        &[("skip-subnets", "fd00::/8")],
    ));
}

#[test]
fn explicit_capture_takes_its_upstreams_and_ports_from_the_pod() {
    let pod = [
        ("upstreams", "8081=shop/api:8080, 8082=shop/db:5432"),
        ("inbound-ports", "8080"),
    ];
    let settings = read_both(&[("capture", "explicit")], &pod).unwrap();
    assert_eq!(
        settings.capture,
        Capture::Explicit {
            upstreams: vec![
                "8081=shop/api:8080".to_owned(),
                "8082=shop/db:5432".to_owned()
            ],
            inbound_ports: ports(&[8080]),
        }
    );
}

#[test]
fn settings_of_the_other_capture_are_refused() {
    let explicit = [("capture", "explicit"), ("skip-inbound-ports", "25")];
    for (namespace, pod) in [
        ([].as_slice(), [("upstreams", "8081=shop/api:80")]),
        (&[], [("inbound-ports", "80")]),
        (&explicit, [("skip-inbound-ports", "25")]),
        (&explicit, [("skip-outbound-ports", "25")]),
        (&explicit, [("skip-subnets", "10.0.0.0/8")]),
    ] {
        let words = refused(read_both(namespace, &pod));
        assert!(words.contains("belongs to"), "{words}");
    }
}

#[test]
fn what_has_its_place_elsewhere_says_where() {
    for (key, value, word) in [
        ("mtls-mode", "STRICT", "PeerAuthentication"),
        ("native-sidecar", "false", "always is a native one"),
        ("proxy-protocol", "8080", "not served"),
        ("outbound-unmeshed", "refuse", "write it on the namespace"),
        (
            "skip-inbound-port",
            "25",
            "did you mean skip-inbound-ports?",
        ),
        ("Capture", "explicit", "did you mean capture?"),
        ("zebra", "1", "there are skip-inbound-ports"),
        ("", "1", "is not known"),
    ] {
        let words = refused(of_pod(&[(key, value)]));
        assert!(words.contains(word), "{key}: {words}");
    }
    let words = refused(read_both(&[("files", "app")], &[]));
    assert!(
        words.contains("of namespace \"shop\"") && words.contains("on that pod"),
        "{words}"
    );
    assert!(read_both(&[("outbound-unmeshed", "allow")], &[]).is_ok());
    refused(read_both(&[("outbound-unmeshed", "yes")], &[]));
}

#[test]
fn values_that_are_none_are_refused() {
    let many = (1..=257)
        .map(|port| port.to_string())
        .collect::<Vec<_>>()
        .join(",");
    let long = "a".repeat(300);
    for (key, value) in [
        ("skip-inbound-ports", "0"),
        ("skip-inbound-ports", "65536"),
        ("skip-inbound-ports", "-1"),
        ("skip-inbound-ports", "1-5"),
        ("skip-inbound-ports", "15008"),
        ("skip-outbound-ports", "15001"),
        ("skip-outbound-ports", "http"),
        ("skip-outbound-ports", many.as_str()),
        ("skip-subnets", "0.0.0.0/0"),
        ("skip-subnets", "::/0"),
        ("skip-subnets", "192.0.2.0/24"),
        ("skip-subnets", "2001:db8::/32"),
        ("skip-subnets", "10.0.0.0/33"),
        ("skip-subnets", "example.com"),
        ("capture", ""),
        ("capture", "none"),
        ("upstreams", "8081=api:80"),
        ("upstreams", "8081=shop/api"),
        ("upstreams", "8081=shop/api:0"),
        ("upstreams", "15001=shop/api:80"),
        ("upstreams", "8081=shop/api:80,8081=shop/db:80"),
        ("upstreams", "0.0.0.0:8081=shop/api:80"),
        ("upstreams", "8081=SHOP/api:80"),
        ("upstreams", "8081=shop/api:80\n--x"),
        ("inbound-ports", "15021"),
        ("proxy-cpu-request", "lots"),
        ("proxy-cpu-request", "1Mi"),
        ("proxy-cpu-limit", "0"),
        ("proxy-cpu-limit", "5m"),
        ("proxy-memory-limit", "16Mi"),
        ("proxy-memory-request", "1Gi"),
        ("proxy-memory-request", "1m"),
        ("proxy-memory-request", "-1"),
        ("proxy-log-level", ""),
        ("proxy-log-level", "debug;rm"),
        ("proxy-log-level", "$(KEY)"),
        ("proxy-log-level", long.as_str()),
        ("access-log", "/dev/stdout"),
        ("drain-delay", "1m"),
        ("drain-delay", "-1"),
        ("drain-delay", "3601"),
        ("rewrite-probes", "no"),
        ("files", ""),
        ("files", "App"),
        ("files", "a/b"),
    ] {
        let explicit = [("capture", "explicit")];
        let namespace = match key {
            "upstreams" | "inbound-ports" => explicit.as_slice(),
            _ => &[],
        };
        let refusals = read_both(namespace, &[(key, value)]).unwrap_err();
        assert_eq!(refusals[0].label(), "annotation", "{key}={value}");
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once_and_in_place() {
    let refusals = read_both(
        &[("proxy-memory-limit", "lots")],
        &[("drain-delay", "soon"), ("zebra", "1")],
    )
    .unwrap_err();
    let places: Vec<bool> = refusals
        .iter()
        .map(|refusal| matches!(refusal, Refusal::Annotation { place, .. } if *place == Place::Pod))
        .collect();
    assert_eq!(places, [false, true, true], "{refusals:?}");
}

#[test]
fn a_delay_brings_the_time_it_needs_and_a_longer_one_than_the_end_is_refused() {
    let settings = of_pod(&[("drain-delay", "5s")]).unwrap();
    assert_eq!(
        (settings.drain_delay, settings.shutdown_grace_period),
        (5, 6)
    );
    let words = refused(of_pod(&[
        ("drain-delay", "5"),
        ("shutdown-grace-period", "4"),
    ]));
    assert!(words.contains("drain-delay"), "{words}");
}

#[test]
fn amounts_are_written_as_kubernetes_writes_them() {
    for (text, unit, written) in [
        ("2000m", Unit::Cpu, "2"),
        ("0.5", Unit::Cpu, "500m"),
        ("1.5", Unit::Cpu, "1500m"),
        (".1", Unit::Cpu, "100m"),
        ("0.0001", Unit::Cpu, "1m"),
        ("1000", Unit::Cpu, "1k"),
        ("1024Mi", Unit::Memory, "1Gi"),
        ("1.5Gi", Unit::Memory, "1536Mi"),
        ("67108864", Unit::Memory, "67108864"),
        ("64000000", Unit::Memory, "64M"),
        ("100000k", Unit::Memory, "100M"),
        ("1000Ki", Unit::Memory, "1000Ki"),
    ] {
        assert_eq!(
            Quantity::parse(text, unit).unwrap().to_string(),
            written,
            "{text}"
        );
    }
    for text in [
        "",
        ".",
        "1..2",
        "1.2.3",
        "1e3",
        "1 Mi",
        "Mi",
        "9999999999999999",
        "9999999Pi",
    ] {
        assert!(Quantity::parse(text, Unit::Memory).is_err(), "{text}");
    }
}

proptest! {
    /// What reaches a terminal has no control characters, whatever an annotation holds.
    #[test]
    fn no_value_panics_or_reaches_a_terminal_raw(
        key in prop_oneof![
            prop::sample::select(Key::ALL.map(Key::as_str).to_vec()).prop_map(str::to_owned),
            "\\PC{0,12}",
        ],
        value in "(\\PC|\u{1b}|\n|[0-9,./=:]){0,40}",
    ) {
        for refusal in of_pod(&[(&key, &value)]).err().into_iter().flatten() {
            let words = refusal.to_string();
            prop_assert!(!words.chars().any(char::is_control), "{:?}", words);
        }
    }

    /// What is written is what the API server makes of it.
    #[test]
    fn an_amount_means_the_same_after_it_was_written(amount in 1u64..1 << 50, memory: bool) {
        let unit = if memory { Unit::Memory } else { Unit::Cpu };
        let written = Quantity::new(amount, unit).to_string();
        if let Ok(again) = Quantity::parse(&written, unit) {
            prop_assert_eq!(again.amount(), amount);
            prop_assert_eq!(again.to_string(), written);
        } else {
            // more digits than anybody writes
            prop_assert!(written.len() > 15, "{}", written);
        }
    }
}
