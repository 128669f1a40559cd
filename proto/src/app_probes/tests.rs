use proptest::prelude::*;
use serde_json::json;

use super::*;

fn port(number: u16) -> ProbePort {
    ProbePort::new(number).unwrap()
}

fn probe(action: ProbeAction) -> AppProbe {
    AppProbe {
        action,
        timeout: NonZeroU16::new(2).unwrap(),
        original: json!({"httpGet": {"port": "http", "unknownToUs": [1]}}),
    }
}

fn http(path: &str) -> Result<HttpProbe, InvalidAction> {
    HttpProbe::new(Scheme::Http, port(8080), path, Vec::new())
}

fn name(container: &str, kind: ProbeKind) -> ProbeName {
    ProbeName::new(container, kind).unwrap()
}

fn refused(text: &str) -> String {
    text.parse::<AppProbes>().unwrap_err().to_string()
}

#[test]
fn reads_back_what_was_written() {
    let headers = vec![("X-Probe".to_owned(), "liveness".to_owned())];
    let https = HttpProbe::new(Scheme::Https, port(8443), "/live?full=1", headers).unwrap();
    let grpc = GrpcProbe::new(port(50051), "shop.v1.Cart").unwrap();
    let mut probes = AppProbes::default();
    for (kind, action) in [
        (ProbeKind::Liveness, ProbeAction::Http(https)),
        (ProbeKind::Startup, ProbeAction::Tcp(port(5432))),
        (ProbeKind::Readiness, ProbeAction::Grpc(grpc)),
    ] {
        probes.insert(name("web", kind), probe(action)).unwrap();
    }
    let text = probes.to_text().unwrap();
    assert!(!text.contains('\n'));
    assert_eq!(text.parse::<AppProbes>().unwrap(), probes);
}

#[test]
fn no_text_is_no_probes() {
    for text in ["", " ", "{}"] {
        assert!(text.parse::<AppProbes>().unwrap().is_empty());
    }
}

#[test]
fn a_path_names_a_container_and_a_probe() {
    for kind in ProbeKind::ALL {
        let named = name("log-shipper", kind);
        assert_eq!(named.to_string().parse::<ProbeName>().unwrap(), named);
    }
    for path in [
        "",
        "/app-probes/",
        "/app-probes/web",
        "/app-probes/web/",
        "/app-probes/web/ready",
        "/app-probes/web/readiness/",
        "/app-probes//readiness",
        "/app-probes/../readiness",
        "/app-probes/Web/readiness",
        "/app-probes/web%2f/readiness",
        "/readyz",
    ] {
        assert!(path.parse::<ProbeName>().is_err(), "{path}");
    }
    let long = "a".repeat(64);
    ProbeName::new(&long, ProbeKind::Startup).unwrap_err();
}

#[test]
fn a_path_is_sent_as_a_url_would_send_it() {
    for (written, sent) in [
        ("", "/"),
        ("ready", "/ready"),
        ("/ready?full=1#top", "/ready?full=1"),
        ("/a b", "/a%20b"),
        ("/%41", "/%41"),
        ("/\u{fc}", "/%C3%BC"),
        ("/a\r\nX: 1", "/a%0D%0AX:%201"),
    ] {
        assert_eq!(http(written).unwrap().path(), sent);
    }
    assert_eq!(http(&"/a".repeat(1025)), Err(InvalidAction::Path));
}

#[test]
fn a_header_that_would_end_the_header_is_refused() {
    let with = |name: &str, value: &str| {
        let headers = vec![(name.to_owned(), value.to_owned())];
        HttpProbe::new(Scheme::Http, port(80), "/", headers)
    };
    with("Authorization", "Basic\tYTpi").unwrap();
    for (name, value) in [
        ("", "x"),
        ("a b", "x"),
        ("a:", "x"),
        ("a\r\nb", "x"),
        ("a", "x\r\ny: z"),
        ("a", "x\0"),
    ] {
        assert!(
            matches!(with(name, value), Err(InvalidAction::Header(_))),
            "{name:?} {value:?}"
        );
    }
    assert!(with("a", &"x".repeat(1025)).is_err());
    assert!(with(&"a".repeat(129), "x").is_err());
    let many = vec![("a".to_owned(), String::new()); 17];
    assert_eq!(
        HttpProbe::new(Scheme::Http, port(80), "/", many),
        Err(InvalidAction::TooManyHeaders)
    );
}

/// The sidecar would ask itself, which asks the sidecar.
#[test]
fn the_sidecars_own_ports_are_none_of_the_application() {
    for own in OWN {
        assert_eq!(ProbePort::new(own), Err(InvalidAction::Port(own)));
        let text = format!(
            r#"{{"/app-probes/web/liveness":{{"tcp":{{"port":{own}}},"timeoutSeconds":1,"original":{{}}}}}}"#
        );
        assert!(refused(&text).contains(&own.to_string()));
    }
}

const OWN: [u16; 7] = [0, 15000, 15001, 15006, 15008, 15020, 15021];

#[test]
fn tables_of_others_are_refused() {
    let good =
        r#"{"/app-probes/web/liveness":{"tcp":{"port":80},"timeoutSeconds":1,"original":{}}}"#;
    good.parse::<AppProbes>().unwrap();
    for (from, to) in [
        ("\"original\"", "\"host\":\"10.0.0.1\",\"original\""),
        ("\"port\":80", "\"port\":80,\"host\":\"10.0.0.1\""),
        ("\"port\":80", "\"port\":80000"),
        ("\"tcp\":{\"port\":80},", ""),
        ("\"timeoutSeconds\":1", "\"timeoutSeconds\":0"),
        ("\"timeoutSeconds\":1", "\"timeoutSeconds\":3601"),
        ("\"tcp\"", "\"grpc\":{\"port\":81},\"tcp\""),
        ("liveness", "alive"),
        ("}}", "}"),
    ] {
        assert!(good.contains(from));
        refused(&good.replacen(from, to, 1));
    }
    assert!(refused(&" ".repeat(MAX_TEXT).replacen(' ', "{", 1)).contains("no JSON"));
    assert!(refused(&format!("{good}{}", " ".repeat(MAX_TEXT))).contains("bytes"));
}

#[test]
fn there_are_only_so_many_probes() {
    let mut probes = AppProbes::default();
    let tcp = || probe(ProbeAction::Tcp(port(80)));
    for number in 0..MAX_PROBES {
        let container = format!("c{number}");
        probes
            .insert(name(&container, ProbeKind::Startup), tcp())
            .unwrap();
    }
    let again = name("c0", ProbeKind::Startup);
    probes.insert(again, tcp()).unwrap();
    let more = probes.insert(name("c0", ProbeKind::Liveness), tcp());
    assert!(matches!(more, Err(InvalidProbes::TooMany)));
}

#[test]
fn a_table_that_no_environment_can_carry_is_not_written() {
    let mut probes = AppProbes::default();
    let mut large = probe(ProbeAction::Tcp(port(80)));
    large.original = json!("x".repeat(MAX_TEXT));
    probes
        .insert(name("web", ProbeKind::Startup), large)
        .unwrap();
    assert!(matches!(probes.to_text(), Err(InvalidProbes::TooLong)));
}

proptest! {
    #[test]
    fn any_path_becomes_one_that_stays_as_it_is(path in ".{0,100}") {
        let sent = http(&path).unwrap().path().to_owned();
        prop_assert!(sent.starts_with('/') && sent.bytes().all(|byte| byte.is_ascii_graphic()));
        let again = http(&sent).unwrap();
        prop_assert_eq!(again.path(), sent);
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = text.parse::<AppProbes>();
        let _ = text.parse::<ProbeName>();
    }
}
