use super::*;

const NOW: u64 = 1_800_000_000;
const HOUR: u64 = 3600;

fn certificate() -> CertificateReport {
    CertificateReport {
        spiffe_id: "spiffe://a.test/ns/shop/sa/web".to_owned(),
        serial: "0a1b".to_owned(),
        workload: Some("web".to_owned()),
        not_before: NOW - HOUR,
        not_after: NOW + 23 * HOUR,
        issuer: AuthorityReport {
            key_id: Some("1111".to_owned()),
            not_after: Some(NOW + 20 * 24 * HOUR),
        },
        root: Some(AuthorityReport {
            key_id: Some("2222".to_owned()),
            not_after: Some(NOW + 3650 * 24 * HOUR),
        }),
        trust_bundle: "0123456789abcdef".to_owned(),
        roots: 2,
        revision: 1,
    }
}

fn valid() -> IdentityReport {
    IdentityReport {
        now: NOW,
        verdict: Verdict::Valid,
        certificate: Some(certificate()),
        renewal: RenewalReport {
            due: Some(NOW + 11 * HOUR),
            issued: Some(NOW - HOUR),
            ended: None,
            failure: None,
        },
        clock_skew_seconds: Some(0),
    }
}

fn failure() -> FailureReport {
    FailureReport {
        error: "the control plane can't issue now:\n\u{1b}[31mrefused".to_owned(),
        advice: "look at its log".to_owned(),
        since: NOW - 40 * 60,
        attempts: 12,
        next_attempt: NOW + 30,
    }
}

fn failing() -> IdentityReport {
    let mut report = valid();
    report.verdict = Verdict::Failing;
    report.renewal.failure = Some(failure());
    report
}

#[track_caller]
fn says(report: &IdentityReport, parts: &[&str]) {
    let text = describe(report);
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn a_valid_certificate_is_told_with_owner_end_signer_root_and_renewal() {
    says(
        &valid(),
        &[
            "web (spiffe://a.test/ns/shop/sa/web): valid, and renewed by itself\n",
            "valid         2027-01-15T07:00:00Z to 2027-01-16T07:00:00Z (23 h left)",
            "signed by     issuing CA, key id 1111, until 2027-02-04T08:00:00Z (in 20 days)",
            "root          1 of 2 in the trust bundle 0123456789ab, key id 2222, until",
            "issued        2027-01-15T07:00:00Z (60 min ago)",
            "renewal due   2027-01-15T19:00:00Z (in 11 h)",
            "clock         our clock agrees with the control plane's",
        ],
    );
    assert!(!describe(&valid()).contains("what to do"));
}

#[test]
fn a_failing_renewal_is_told_with_since_when_why_and_what_to_do() {
    says(
        &failing(),
        &[
            "valid for 23 h, but it can't be renewed\n",
            "failing       since 2027-01-15T07:20:00Z (40 min ago), 12 attempts",
            "why           the control plane can't issue now:  [31mrefused",
            "what to do    look at its log",
            "next attempt  in 30 s",
        ],
    );
}

/// A report in which every text that can be chosen tries to move the cursor, to hide the rest and
/// to turn it around.
fn hostile(verdict: Verdict) -> IdentityReport {
    let text = || "\u{1b}[2J\n\r\u{9b}31m\u{7f}\u{202e}\u{2028}words".to_owned();
    let signer = || AuthorityReport {
        key_id: Some(text()),
        not_after: None,
    };
    let mut report = failing();
    report.verdict = verdict;
    report.certificate = Some(CertificateReport {
        spiffe_id: text(),
        serial: text(),
        workload: Some(text()),
        issuer: signer(),
        root: Some(signer()),
        trust_bundle: text(),
        ..certificate()
    });
    report.renewal.failure = Some(FailureReport {
        error: text(),
        advice: text(),
        ..failure()
    });
    report
}

const OBEYED: [char; 4] = ['\u{202e}', '\u{2028}', '\u{200f}', '\u{2066}'];

#[test]
fn whoever_wrote_the_report_can_not_move_the_cursor() {
    for verdict in [
        Verdict::Valid,
        Verdict::Overdue,
        Verdict::Failing,
        Verdict::Expired,
        Verdict::NoCertificate,
    ] {
        let text = describe(&hostile(verdict));
        assert_eq!(text.lines().count(), describe(&failing()).lines().count());
        assert!(
            !text
                .chars()
                .any(|c| OBEYED.contains(&c) || c != '\n' && c.is_control()),
            "{text:?}"
        );
    }
}

#[test]
fn json_says_the_same_without_a_character_that_moves_the_cursor() {
    let report = hostile(Verdict::Failing);
    let text = json(&report).unwrap();
    assert!(
        !text
            .chars()
            .any(|c| OBEYED.contains(&c) || c != '\n' && c.is_control()),
        "{text:?}"
    );
    let read: IdentityReport = serde_json::from_str(&text).unwrap();
    assert_eq!(read, report);
}

#[test]
fn a_moment_at_the_end_of_all_numbers_is_told() {
    let mut report = failing();
    report.renewal.failure = Some(FailureReport {
        next_attempt: u64::MAX,
        ..failure()
    });
    report.clock_skew_seconds = Some(i64::MIN);
    report.now = 0;
    says(&report, &["next attempt  in 213503982334601 days"]);
}

#[test]
fn an_overdue_renewal_is_not_called_valid() {
    let mut report = valid();
    report.verdict = Verdict::Overdue;
    report.renewal.due = Some(NOW - 5 * 60);
    says(&report, &["its renewal is overdue", "(5 min ago)"]);
}

#[test]
fn an_ended_certificate_is_told_with_its_end_and_its_consequence() {
    let mut report = failing();
    report.verdict = Verdict::Expired;
    report.certificate = None;
    report.renewal.due = None;
    report.renewal.issued = None;
    report.renewal.ended = Some(NOW - 2 * HOUR);
    says(
        &report,
        &[
            "has ended",
            "nothing is accepted",
            "(2 h ago)",
            "what to do",
        ],
    );
}

#[test]
fn no_certificate_yet_is_told_with_the_reason() {
    let report = IdentityReport {
        now: NOW,
        verdict: Verdict::NoCertificate,
        certificate: None,
        renewal: RenewalReport {
            failure: Some(failure()),
            ..RenewalReport::default()
        },
        clock_skew_seconds: None,
    };
    says(
        &report,
        &["no certificate yet", "look at its log", "not compared"],
    );
}

#[test]
fn a_certificate_that_no_root_proves_is_told() {
    let mut report = valid();
    if let Some(certificate) = &mut report.certificate {
        certificate.root = None;
    }
    says(&report, &["peers refuse this certificate"]);
}

#[test]
fn a_clock_that_is_off_is_named_with_how_far() {
    let mut report = valid();
    report.clock_skew_seconds = Some(-3 * 3600);
    says(&report, &["our clock is 3 h behind the control plane's"]);
}
