use mesh_lite_proto::document::split;

use super::*;
use crate::outbound_rules::OutboundRules;

fn document(kind: &str, spec: &str) -> RawDocument {
    document_named(kind, "web", spec)
}

fn document_named(kind: &str, name: &str, spec: &str) -> RawDocument {
    let text = format!(
        "# one line before\napiVersion: mesh-lite.io/v1\nkind: {kind}\n\
         metadata: {{name: '{name}', namespace: shop, labels: {{app: web, tier: front}}}}\n{spec}\n"
    );
    let documents = split("docs.yaml", text.as_bytes());
    let [document] = <[RawDocument; 1]>::try_from(documents.readable).unwrap();
    document
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("mesh.test").unwrap()
}

/// No networks are stated.
fn anywhere_private() -> ClaimableAddresses {
    ClaimableAddresses::new("mesh", &OutboundRules::default())
}

fn workload_error(spec: &str) -> String {
    let document = document("Workload", &format!("spec: {spec}"));
    workload(&document, &trust_domain(), &anywhere_private())
        .expect_err(spec)
        .to_string()
}

fn service_error(spec: &str) -> String {
    service(
        &document("Service", &format!("spec: {spec}")),
        &anywhere_private(),
    )
    .expect_err(spec)
    .to_string()
}

/// SPIFFE-I9: refused where it is registered.
#[test]
fn takes_a_spiffe_id_of_the_greatest_length_and_no_longer_one() {
    let around = "spiffe://mesh.test/ns/shop/sa/".len();
    let spec = |length: usize| {
        let account = "x".repeat(length - around);
        format!("{{serviceAccount: {account}, addresses: [10.0.0.1]}}")
    };
    let longest = document("Workload", &format!("spec: {}", spec(2048)));
    let read = workload(&longest, &trust_domain(), &anywhere_private()).unwrap();
    assert_eq!(read.id.as_str().len(), 2048);
    let refused = workload_error(&spec(2049));
    assert!(refused.contains("2049"), "{refused}");
}

#[test]
fn reads_a_workload_with_everything_stated() {
    let document = document(
        "Workload",
        "spec:\n  serviceAccount: front\n  addresses: [10.0.0.1, 'fd00::1']\n  labels: {app: other}\n\
         \x20 ports: [{name: http, port: 8080}]\n  tunnelPort: 25008\n  meshed: true",
    );
    let read = workload(&document, &trust_domain(), &anywhere_private()).unwrap();
    assert_eq!(read.id.as_str(), "spiffe://mesh.test/ns/shop/sa/front");
    assert_eq!(read.name.to_string(), "shop/web");
    assert_eq!(read.addresses.len(), 2);
    assert_eq!(read.tunnel_port, Some(25008));
    assert_eq!(read.ports["http"], 8080);
    // the spec's own labels win over those of the metadata
    assert_eq!(
        (read.labels["app"].as_str(), read.labels["tier"].as_str()),
        ("other", "front")
    );
}

#[test]
fn takes_a_workload_for_meshed_unless_it_says_otherwise() {
    let read = |more: &str| {
        let spec = format!("spec: {{serviceAccount: a, addresses: [10.0.0.1]{more}}}");
        workload(
            &document("Workload", &spec),
            &trust_domain(),
            &anywhere_private(),
        )
        .unwrap()
        .tunnel_port
    };
    assert_eq!(read(""), Some(15008));
    assert_eq!(read(", meshed: true"), Some(15008));
    assert_eq!(read(", meshed: false"), None);
}

#[test]
fn refuses_workloads_that_mean_nothing_and_says_where() {
    for (spec, said) in [
        ("{addresses: [10.0.0.1]}", "service_account"),
        ("{serviceAccount: a}", "addresses"),
        ("{serviceAccount: a, addresses: []}", "addresses is empty"),
        (
            "{serviceAccount: a, addresses: [10.0.0.256]}",
            "docs.yaml:5",
        ),
        (
            "{serviceAccount: a, addresses: [0.0.0.0]}",
            "0.0.0.0 is no address",
        ),
        ("{serviceAccount: a, addresses: ['::']}", ":: is no address"),
        (
            "{serviceAccount: a, addresses: [224.0.0.1]}",
            "224.0.0.1 is no address",
        ),
        (
            "{serviceAccount: 'a/b', addresses: [10.0.0.1]}",
            "SPIFFE ID",
        ),
        ("{serviceAccount: '', addresses: [10.0.0.1]}", "SPIFFE ID"),
        (
            "{serviceAccount: a, addresses: [10.0.0.1], tunnelPort: 0}",
            "\"0\" is no port",
        ),
        (
            "{serviceAccount: a, addresses: [10.0.0.1], tunnelPort: 65536}",
            "docs.yaml:5",
        ),
        (
            "{serviceAccount: a, addresses: [10.0.0.1], meshed: false, tunnelPort: 1}",
            "no tunnel port",
        ),
        (
            "{serviceAccount: a, addresses: [10.0.0.1], mesh: false}",
            "mesh",
        ),
        (
            "{serviceAccount: a, addresses: [10.0.0.1], ports: [{name: x, port: 1}, {name: x, port: 2}]}",
            "two ports of the name",
        ),
        (
            "{serviceAccount: a, addresses: [10.0.0.1], ports: [{name: x, port: 0}]}",
            "\"0\" is no port",
        ),
    ] {
        let error = workload_error(spec);
        assert!(error.contains("docs.yaml:5"), "{spec}: {error}");
        assert!(
            error.contains(said) || error.contains("serviceAccount"),
            "{spec}: {error}"
        );
    }
}

#[test]
fn reports_everything_wrong_with_a_document_at_once() {
    let error =
        workload_error("{serviceAccount: a, addresses: [0.0.0.0, 224.0.0.1], tunnelPort: 0}");
    assert_eq!(error.lines().count(), 3, "{error}");
}

/// Kubernetes allows longer names; a common name has at most 64 characters.
#[test]
fn refuses_a_name_that_no_certificate_could_carry() {
    let spec = "spec: {serviceAccount: a, addresses: [10.0.0.1]}";
    let document = document_named("Workload", &"n".repeat(64), spec);
    let error = workload(&document, &trust_domain(), &anywhere_private()).unwrap_err();
    assert!(error.to_string().contains("can't be a name"), "{error}");
}

#[test]
fn reads_a_service_and_the_defaults_of_its_ports() {
    let spec = "spec:\n  addresses: [10.96.0.1]\n  ports:\n  - {port: 80, targetPort: 8080}\n\
                \x20 - {name: metrics, port: 9090}\n  - {port: 443, targetPort: https}\n\
                \x20 selector: {app: api}\n  sessionAffinity: ClientIP";
    let read = service(&document("Service", spec), &anywhere_private()).unwrap();
    let targets: Vec<_> = read.ports.into_iter().map(|port| port.target).collect();
    let named = TargetPort::Name("https".to_owned());
    assert_eq!(
        targets,
        [TargetPort::Number(8080), TargetPort::Number(9090), named]
    );
    assert!(read.session_affinity);
    let headless = "spec: {ports: [{port: 80}], selector: {app: api}}";
    let read = service(&document("Service", headless), &anywhere_private()).unwrap();
    assert_eq!((read.addresses.len(), read.session_affinity), (0, false));
}

#[test]
fn refuses_services_that_select_everything_or_have_no_ports() {
    for (spec, said) in [
        ("{ports: [{port: 80}]}", "selector"),
        (
            "{ports: [{port: 80}], selector: {}}",
            "would select every workload",
        ),
        ("{ports: [], selector: {app: a}}", "ports is empty"),
        (
            "{ports: [{port: 0}], selector: {app: a}}",
            "\"0\" is no port",
        ),
        (
            "{ports: [{port: 80, targetPort: 0}], selector: {app: a}}",
            "\"0\" is no port",
        ),
        (
            "{ports: [{port: 80}, {port: 80}], selector: {app: a}}",
            "there twice",
        ),
        (
            "{ports: [{port: 80}], selector: {app: a}, sessionAffinity: Cookie}",
            "docs.yaml:5",
        ),
        (
            "{ports: [{port: 80, protocol: UDP}], selector: {app: a}}",
            "protocol",
        ),
        (
            "{ports: [{port: 80}], selector: {app: a}, type: LoadBalancer}",
            "type",
        ),
    ] {
        let error = service_error(spec);
        assert!(
            error.contains(said) && error.contains("docs.yaml:5"),
            "{spec}: {error}"
        );
    }
}

/// Everything wrong with the address, of a workload and of a service.
fn claims(namespace: &str, address: &str, claimable: &ClaimableAddresses) -> [Option<String>; 2] {
    let moved = |kind: &str, spec: &str| {
        let text = format!(
            "apiVersion: mesh-lite.io/v1\nkind: {kind}\n\
             metadata: {{name: x, namespace: {namespace}}}\nspec: {spec}\n"
        );
        split("docs.yaml", text.as_bytes()).readable.remove(0)
    };
    let spec = format!("{{serviceAccount: a, addresses: ['{address}']}}");
    let of_workload = workload(&moved("Workload", &spec), &trust_domain(), claimable);
    let spec = format!("{{selector: {{app: a}}, ports: [{{port: 80}}], addresses: ['{address}']}}");
    let of_service = service(&moved("Service", &spec), claimable);
    [of_workload.err(), of_service.err()].map(|error| error.map(|error| error.to_string()))
}

#[test]
fn refuses_addresses_that_are_not_the_meshs_to_give() {
    let stated = OutboundRules {
        mesh_cidrs: vec![
            "10.0.0.0/8".parse().unwrap(),
            "169.254.0.0/16".parse().unwrap(),
        ],
        external_cidrs: vec!["10.9.0.0/16".parse().unwrap()],
        ..OutboundRules::default()
    };
    let stated = ClaimableAddresses::new("mesh", &stated);
    let unstated = anywhere_private();
    for (claimable, address, words) in [
        (
            &unstated,
            "8.8.8.8",
            "state the mesh's networks with --mesh-cidrs",
        ),
        (&unstated, "::ffff:8.8.8.8", "8.8.8.8 is no private address"),
        (&unstated, "2001:4860:4860::8888", "no --mesh-cidrs"),
        (&unstated, "169.254.169.254", "is link-local"),
        (&unstated, "::ffff:169.254.169.254", "is link-local"),
        (&unstated, "fe80::1", "is link-local"),
        (&stated, "169.254.169.254", "is link-local"),
        (&stated, "8.8.8.8", "is in none of the --mesh-cidrs"),
        (&stated, "192.168.0.1", "add its network to --mesh-cidrs"),
        (&stated, "127.0.0.1", "is in none of the --mesh-cidrs"),
        (&stated, "10.9.0.1", "take it out of --external-cidrs"),
        (&stated, "::ffff:10.9.0.1", "as --external-cidrs says"),
    ] {
        for error in claims("shop", address, claimable) {
            let error = error.unwrap_or_else(|| panic!("{address} is claimed"));
            assert!(error.starts_with("docs.yaml:4:"), "{error}");
            assert!(error.contains(words), "{error}");
        }
        assert_eq!(
            claims("mesh", address, claimable),
            [None, None],
            "{address}"
        );
    }
}

#[test]
fn takes_addresses_of_the_mesh() {
    for address in [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "127.0.0.2",
        "::1",
        "fd00::1",
    ] {
        assert_eq!(
            claims("shop", address, &anywhere_private()),
            [None, None],
            "{address}"
        );
    }
    let stated = OutboundRules {
        mesh_cidrs: vec!["203.0.113.0/24".parse().unwrap()],
        ..OutboundRules::default()
    };
    let stated = ClaimableAddresses::new("mesh", &stated);
    assert_eq!(claims("shop", "203.0.113.9", &stated), [None, None]);
}
