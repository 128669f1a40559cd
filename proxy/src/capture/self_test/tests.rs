use super::*;

fn record(network_namespace: u64, proxy_uid: u32) -> Record {
    let seen = (FamilyProof::Captured, FamilyProof::Captured);
    Record::new(network_namespace, "nft", proxy_uid, "00".repeat(32), seen)
}

#[tokio::test]
async fn without_a_record_nothing_is_proved() {
    let state_dir = tempfile::tempdir().unwrap();
    let unproved = prove(state_dir.path()).await.unwrap_err();
    assert!(matches!(
        unproved,
        CaptureUnproved::Record(RecordError::Missing { .. })
    ));
}

#[tokio::test]
async fn a_record_of_another_network_namespace_proves_nothing() {
    let state_dir = tempfile::tempdir().unwrap();
    let elsewhere = own_network_namespace().unwrap() + 1;
    record(elsewhere, 15008).write(state_dir.path()).unwrap();
    let unproved = prove(state_dir.path()).await.unwrap_err();
    assert!(
        matches!(unproved, CaptureUnproved::OtherNetworkNamespace { recorded, .. } if recorded == elsewhere)
    );
}

#[tokio::test]
async fn rules_for_another_user_prove_nothing() {
    let state_dir = tempfile::tempdir().unwrap();
    let own = rustix::process::geteuid().as_raw();
    let here = own_network_namespace().unwrap();
    record(here, own + 1).write(state_dir.path()).unwrap();
    let unproved = prove(state_dir.path()).await.unwrap_err();
    assert!(matches!(unproved, CaptureUnproved::NotExempt { exempt, .. } if exempt == own + 1));
    assert!(
        unproved
            .to_string()
            .contains(&format!("run it as {}", own + 1)),
        "{unproved}"
    );
}

#[test]
fn only_a_missing_way_counts_as_unreachable() {
    for (errno, expected) in [
        (rustix::io::Errno::NETUNREACH, true),
        (rustix::io::Errno::AFNOSUPPORT, true),
        (rustix::io::Errno::ADDRNOTAVAIL, true),
        (rustix::io::Errno::CONNREFUSED, false),
        (rustix::io::Errno::HOSTUNREACH, false),
        (rustix::io::Errno::TIMEDOUT, false),
        (rustix::io::Errno::ACCESS, false),
        (rustix::io::Errno::ADDRINUSE, false),
    ] {
        assert_eq!(no_such_way(&errno.into()), expected, "{errno}");
    }
    assert!(!no_such_way(&io::Error::other("not of the kernel")));
}

#[test]
fn a_missed_capture_says_where_the_connection_went() {
    let target = SocketAddr::new(Family::V6.unrouted(), 80);
    let missed = CaptureUnproved::NotCaptured {
        family: Family::V6,
        target,
        arrival: Arrival::Unanswered,
    };
    assert_eq!(
        missed.to_string(),
        "IPv6: a connection to [2001:db8::1]:80 was not captured, it went into the network; the \
         rules do not work in this pod"
    );
}

#[test]
fn a_missing_default_route_is_named_with_what_was_tried() {
    let words = CaptureUnproved::NoRoute.to_string();
    for part in ["default route", "192.0.2.1", "2001:db8::1"] {
        assert!(words.contains(part), "{part}: {words}");
    }
}
