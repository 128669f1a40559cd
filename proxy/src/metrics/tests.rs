use std::time::{Duration, SystemTime};

use mesh_lite_proto::{
    authorization::{PolicyAction, Recorded, SourceRef, Step, Verdict},
    identity::WorkloadId,
};

use super::*;

fn metrics(limit: usize) -> Metrics {
    Metrics::new(&MetricsPrefix::default(), limit)
}

fn id(account: &str) -> WorkloadId {
    format!("spiffe://cluster.local/ns/shop/sa/{account}")
        .parse()
        .unwrap()
}

fn inbound_from(account: &str) -> ConnectionLabels {
    ConnectionLabels {
        direction: Direction::Inbound,
        source: Some(id(account)),
        destination: Some(id("api")),
        mutual_tls: true,
    }
}

fn decision(verdict: Verdict, policy: &str) -> Decision {
    let policy = SourceRef {
        document: policy.into(),
        file: "p.yaml".into(),
        line: 3,
    };
    Decision {
        verdict,
        step: Step::AllowRule,
        policy: Some(policy),
        rule: Some(0),
        field: None,
        nearest_miss: None,
        recorded: Vec::new(),
        recorded_more: 0,
    }
}

fn page(metrics: &Metrics) -> String {
    metrics.encode(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000))
}

/// The value of the one line that starts with `series`.
fn value(page: &str, series: &str) -> f64 {
    let lines: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .collect();
    assert_eq!(lines.len(), 1, "{series} in:\n{page}");
    lines[0].parse().unwrap()
}

fn series_of(page: &str, family: &str) -> usize {
    page.lines()
        .filter(|line| line.starts_with(&format!("{family}{{")))
        .count()
}

const WEB_TO_API: &str = "{reporter=\"destination\",\
    source_principal=\"spiffe://cluster.local/ns/shop/sa/web\",source_workload_namespace=\"shop\",\
    destination_principal=\"spiffe://cluster.local/ns/shop/sa/api\",\
    destination_workload_namespace=\"shop\",connection_security_policy=\"mutual_tls\"}";

#[test]
fn counts_a_connection_from_open_to_close_with_istios_names_and_labels() {
    let metrics = metrics(10);
    let meter = metrics.connection(&inbound_from("web"));
    assert_eq!(metrics.active_connections(), 1);
    let open = page(&metrics);
    let of = |family: &str| format!("mesh_lite_tcp_{family}_total{WEB_TO_API}");
    assert_eq!(value(&open, &of("connections_opened")), 1.0);
    assert_eq!(value(&open, &of("connections_closed")), 0.0);

    meter.sent(10);
    meter.received(3);
    assert_eq!((meter.bytes_sent(), meter.bytes_received()), (10, 3));
    drop(meter);
    let closed = page(&metrics);
    assert_eq!(value(&closed, &of("connections_closed")), 1.0);
    assert_eq!(value(&closed, &of("sent_bytes")), 10.0);
    assert_eq!(value(&closed, &of("received_bytes")), 3.0);
    assert_eq!(metrics.active_connections(), 0);
}

#[test]
fn shows_the_bytes_of_a_connection_that_is_still_open() {
    let metrics = metrics(10);
    let meter = metrics.connection(&inbound_from("web"));
    for _ in 0..65 {
        meter.sent(1024);
    }
    let sent = value(
        &page(&metrics),
        &format!("mesh_lite_tcp_sent_bytes_total{WEB_TO_API}"),
    );
    assert!(sent >= 64.0 * 1024.0, "{sent}");
}

#[test]
fn counts_no_byte_twice_and_none_never_when_two_threads_share_a_meter() {
    let metrics = metrics(10);
    let meter = metrics.connection(&inbound_from("web"));
    std::thread::scope(|threads| {
        for _ in 0..2 {
            threads.spawn(|| (0..20_000).for_each(|_| meter.sent(40_000)));
        }
    });
    drop(meter);
    let sent = value(
        &page(&metrics),
        &format!("mesh_lite_tcp_sent_bytes_total{WEB_TO_API}"),
    );
    assert_eq!(sent, 2.0 * 20_000.0 * 40_000.0);
}

#[test]
fn a_flood_of_identities_ends_in_one_series() {
    let metrics = metrics(3);
    for n in 0..1_000 {
        drop(metrics.connection(&inbound_from(&format!("web-{n}"))));
    }
    let page = page(&metrics);
    assert_eq!(
        series_of(&page, "mesh_lite_tcp_connections_opened_total"),
        4
    );
    let other = page
        .lines()
        .find(|line| line.starts_with("mesh_lite_tcp_connections_opened_total{reporter=\"other\""))
        .unwrap();
    assert!(other.ends_with(" 997"), "{other}");
}

#[test]
fn a_label_set_known_before_the_flood_keeps_its_series() {
    let metrics = metrics(1);
    drop(metrics.connection(&inbound_from("web")));
    drop(metrics.connection(&inbound_from("guest")));
    drop(metrics.connection(&inbound_from("web")));
    let opened = format!("mesh_lite_tcp_connections_opened_total{WEB_TO_API}");
    assert_eq!(value(&page(&metrics), &opened), 2.0);
}

#[test]
fn a_dry_run_is_counted_beside_the_decision_and_not_as_one() {
    let metrics = metrics(10);
    let mut decision = decision(Verdict::Allow, "shop/api");
    decision.recorded = vec![Recorded {
        policy: SourceRef {
            document: "shop/next".into(),
            file: "n.yaml".into(),
            line: 9,
        },
        rule: Some(2),
        action: PolicyAction::Deny,
        dry_run: true,
    }];
    metrics.decided(&decision);
    let page = page(&metrics);
    let authz = |labels: &str| value(&page, &format!("mesh_lite_authz_total{{{labels}}}"));
    assert_eq!(
        authz("decision=\"allow\",policy=\"shop/api\",rule=\"0\""),
        1.0
    );
    assert_eq!(
        authz("decision=\"would_deny\",policy=\"shop/next\",rule=\"2\""),
        1.0
    );
}

#[test]
fn whom_no_rule_of_a_dry_run_would_let_in_is_counted_as_would_deny_without_a_rule() {
    let metrics = metrics(10);
    let mut decision = decision(Verdict::Allow, "shop/api");
    let recorded = |rule| Recorded {
        policy: SourceRef {
            document: "shop/next".into(),
            file: "n.yaml".into(),
            line: 9,
        },
        rule,
        action: PolicyAction::Allow,
        dry_run: true,
    };
    decision.recorded = vec![recorded(None)];
    metrics.decided(&decision);
    decision.recorded = vec![recorded(Some(0))];
    metrics.decided(&decision);
    metrics.decided(&decision);
    let page = page(&metrics);
    for (labels, count) in [
        (
            "decision=\"would_deny\",policy=\"shop/next\",rule=\"none\"",
            1.0,
        ),
        (
            "decision=\"would_allow\",policy=\"shop/next\",rule=\"0\"",
            2.0,
        ),
        ("decision=\"allow\",policy=\"shop/api\",rule=\"0\"", 3.0),
    ] {
        let name = format!("mesh_lite_authz_total{{{labels}}}");
        assert_eq!(value(&page, &name), count, "{labels}");
    }
}

#[test]
fn dry_runs_that_a_decision_does_not_name_are_counted_as_others() {
    let metrics = metrics(10);
    let others = "mesh_lite_authz_total{decision=\"other\",policy=\"other\",rule=\"other\"}";
    metrics.decided(&decision(Verdict::Allow, "shop/api"));
    assert!(!page(&metrics).contains(others));
    for _ in 0..2 {
        metrics.decided(&Decision {
            recorded_more: 984,
            ..decision(Verdict::Allow, "shop/api")
        });
    }
    assert_eq!(value(&page(&metrics), others), 1968.0);
}

#[test]
fn policies_cannot_flood_the_metrics_either() {
    let metrics = metrics(2);
    for n in 0..100 {
        metrics.decided(&decision(Verdict::Deny, &format!("shop/p{n}")));
    }
    assert_eq!(series_of(&page(&metrics), "mesh_lite_authz_total"), 3);
}

#[test]
fn control_characters_and_quotes_in_a_label_forge_no_series() {
    let metrics = metrics(10);
    let forged = "a\"} 1\nmesh_lite_capture_ok 1\r\u{1b}[2J";
    metrics.decided(&decision(Verdict::Allow, forged));
    let page = page(&metrics);
    assert_eq!(
        page.lines()
            .filter(|line| line.starts_with("mesh_lite_capture_ok "))
            .count(),
        1
    );
    assert_eq!(value(&page, "mesh_lite_capture_ok"), 0.0);
    assert!(
        page.chars().all(|c| c == '\n' || !c.is_control()),
        "{page:?}"
    );
}

#[test]
fn an_unauthenticated_caller_is_unknown_and_not_mutual_tls() {
    let metrics = metrics(10);
    drop(metrics.connection(&ConnectionLabels {
        direction: Direction::Outbound,
        source: Some(id("web")),
        destination: None,
        mutual_tls: false,
    }));
    let page = page(&metrics);
    assert!(page.contains("reporter=\"source\""));
    assert!(page.contains("destination_principal=\"unknown\""));
    assert!(page.contains("connection_security_policy=\"none\""));
}

#[test]
fn every_reason_is_shown_before_it_happens() {
    let metrics = metrics(10);
    metrics.refused(Refusal::OwnPort);
    let page = page(&metrics);
    assert_eq!(
        value(&page, "mesh_lite_refused_total{reason=\"own_port\"}"),
        1.0
    );
    assert_eq!(
        value(&page, "mesh_lite_refused_total{reason=\"loop\"}"),
        0.0
    );
    assert_eq!(
        series_of(&page, "mesh_lite_refused_total"),
        Refusal::ALL.len()
    );
}

#[test]
fn no_two_reasons_share_a_name() {
    fn check<R: Reason>() {
        let mut names: Vec<_> = R::ALL.iter().map(|reason| reason.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), R::ALL.len());
        for (at, reason) in R::ALL.iter().enumerate() {
            assert_eq!(reason.index(), at);
        }
    }
    check::<Refusal>();
    check::<Plaintext>();
    check::<Termination>();
    check::<Renewal>();
    check::<AcceptError>();
}

#[test]
fn an_expiry_that_is_not_known_is_not_shown_as_1970() {
    let metrics = metrics(10);
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500);
    metrics.certificate_expires(CertificateKind::Leaf, at);
    let page = page(&metrics);
    assert_eq!(
        value(
            &page,
            "mesh_lite_cert_expiry_timestamp_seconds{kind=\"leaf\"}"
        ),
        1_500.0
    );
    assert_eq!(
        series_of(&page, "mesh_lite_cert_expiry_timestamp_seconds"),
        1
    );
}

#[test]
fn time_to_breakage_runs_down_and_below_zero_and_disappears_when_repaired() {
    let metrics = metrics(10);
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
    metrics.breakage_at(BreakageCause::Leaf, Some(start + Duration::from_secs(60)));
    let left = |at| {
        value(
            &metrics.encode(at),
            "mesh_lite_time_to_breakage_seconds{cause=\"leaf\"}",
        )
    };
    assert_eq!(left(start), 60.0);
    assert_eq!(left(start + Duration::from_secs(70)), -10.0);
    metrics.breakage_at(BreakageCause::Leaf, None);
    assert_eq!(
        series_of(&metrics.encode(start), "mesh_lite_time_to_breakage_seconds"),
        0
    );
}

#[test]
fn accept_errors_are_told_apart() {
    let metrics = metrics(10);
    metrics.accept_failed(&io::Error::from_raw_os_error(24));
    metrics.accept_failed(&io::Error::from_raw_os_error(103));
    metrics.accept_failed(&io::Error::other("no number"));
    let page = page(&metrics);
    for error in ["process_files", "aborted", "other"] {
        let series = format!("mesh_lite_accept_errors_total{{error=\"{error}\"}}");
        assert_eq!(value(&page, &series), 1.0);
    }
}

#[test]
fn the_prefix_of_istio_gives_istios_names() {
    let metrics = Metrics::new(&"istio".parse().unwrap(), 10);
    drop(metrics.connection(&inbound_from("web")));
    assert!(page(&metrics).contains("\nistio_tcp_sent_bytes_total{"));
}

#[test]
fn refuses_a_prefix_that_would_break_the_page() {
    for bad in [
        "",
        "1a",
        "_a",
        "a_",
        "a-b",
        "a b",
        "a\nb",
        "é",
        &"a".repeat(65),
    ] {
        assert!(bad.parse::<MetricsPrefix>().is_err(), "{bad:?}");
    }
}

#[test]
fn the_page_ends_as_openmetrics_demands() {
    assert!(page(&metrics(1)).ends_with("# EOF\n"));
}
