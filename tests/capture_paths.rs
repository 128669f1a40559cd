//! Where captured connections go: DP-T1 to T12, T16 to T19, T21 to T24.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use mesh_lite_test_support::applications::{
    Client, Server, converse, http_get, loopback_like, refused,
};
use mesh_lite_test_support::mesh::{API_ID, API_VIPS, POLICY, WEB_ID};
use mesh_lite_test_support::network::{OUTSIDE_V4, OUTSIDE_V6};
use mesh_lite_test_support::{
    APPLICATION_UID, Mesh, MeshSettings, Namespace, ROOT_UID, SIDECAR_UID, eventually, holds_for,
    on_each_backend,
};

/// Anybody may call any port of b, also in plaintext.
const OPEN: &str = "\
apiVersion: mesh-lite.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: PERMISSIVE}}
---
apiVersion: mesh-lite.io/v1
kind: AuthorizationPolicy
metadata: {name: everybody, namespace: shop}
spec:
  action: ALLOW
  rules: [{}]
";

/// As the injector writes them.
const PROBES: &str = r#"{
    "/app-probes/web/readiness": {"http": {"port": 8080, "scheme": "HTTP", "path": "/ready?full=1",
        "headers": [["X-Probe", "yes"]]}, "timeoutSeconds": 1, "original": {}},
    "/app-probes/web/liveness": {"tcp": {"port": 8080}, "timeoutSeconds": 1, "original": {}},
    "/app-probes/web/startup": {"grpc": {"port": 8081}, "timeoutSeconds": 1, "original": {}}
}"#;

/// Ready for whoever asks as the probe says.
fn answer_ready(stream: TcpStream) -> io::Result<()> {
    let mut request = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if request.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let asked =
        head.starts_with("GET /ready?full=1 HTTP/1.1\r\n") && head.contains("x-probe: yes\r\n");
    let status = if asked { "200 OK" } else { "400 Bad Request" };
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
    (&stream).write_all(answer.as_bytes())
}

/// A gRPC server that says it is serving. It ends with what is returned.
fn grpc_health(namespace: &Namespace, address: SocketAddr) -> tokio::runtime::Runtime {
    let listener = namespace.run(APPLICATION_UID, || TcpListener::bind(address).unwrap());
    listener.set_nonblocking(true).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.spawn(async move {
        let (_reporter, service) = tonic_health::server::health_reporter();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener))
            .await
    });
    runtime
}

fn settings(backend: &'static str) -> MeshSettings {
    MeshSettings::captured_by(env!("CARGO_BIN_EXE_mesh-lite"), backend)
}

fn strict(backend: &'static str) -> Mesh {
    settings(backend).start()
}

fn permissive(backend: &'static str) -> Mesh {
    settings(backend).document(OPEN).start()
}

fn reaches_b(mesh: &Mesh, address: SocketAddr) {
    let server = Server::greeting(&mesh.network.b.namespace, address, "from b");
    assert_eq!(
        converse(&mesh.network.a.namespace, address).unwrap(),
        "from b"
    );
    let to = address.to_string();
    let outbound = mesh.a().log().wait_for(&[
        ("event", "open"),
        ("direction", "outbound"),
        ("src.identity", WEB_ID),
        ("dst.identity", API_ID),
        ("original_dst", &to),
    ]);
    assert_eq!(outbound["tls.version"], "TLSv1.3", "{outbound}");
    let inbound = mesh.b().log().wait_for(&[
        ("event", "open"),
        ("direction", "inbound"),
        ("src.identity", WEB_ID),
        ("dst.identity", API_ID),
        ("decision", "allow"),
    ]);
    assert_eq!(inbound["policy"], POLICY, "{inbound}");
    // The application is dialled on its own address, never on loopback.
    let peers = server.peers();
    assert_eq!(peers.len(), 1, "{peers:?}");
    assert_eq!(peers[0].ip(), address.ip());
}

on_each_backend! {
    /// DP-T1: an application reaches a meshed one over IPv4; the server speaks first.
    fn reaches_a_meshed_application_over_ipv4(backend) {
        let mesh = strict(backend);
        reaches_b(&mesh, (mesh.network.b.v4, 8080).into());
    }

    /// DP-T2: an application reaches a meshed one over IPv6; the server speaks first.
    fn reaches_a_meshed_application_over_ipv6(backend) {
        let mesh = strict(backend);
        reaches_b(&mesh, (mesh.network.b.v6, 8080).into());
    }

    /// DP-T3: outside the mesh's networks connections pass, and the server sees the pod.
    fn passes_to_an_unmeshed_server_outside(backend) {
        let mesh = strict(backend);
        for outside in [IpAddr::from(OUTSIDE_V4), IpAddr::from(OUTSIDE_V6)] {
            let server = Server::greeting(&mesh.network.c.namespace, (outside, 8080), "outside");
            let greeting = converse(&mesh.network.a.namespace, (outside, 8080)).unwrap();
            assert_eq!(greeting, "outside");
            assert_eq!(server.peers()[0].ip(), mesh.network.a.address_like(outside));
            let to = SocketAddr::new(outside, 8080).to_string();
            mesh.a().log().wait_for(&[("direction", "outbound"), ("original_dst", &to), ("decision", "pass")]);
        }
    }

    /// DP-T4: plaintext from an unmeshed pod is served where the port is permissive.
    fn serves_plaintext_where_permissive(backend) {
        let mesh = permissive(backend);
        for address in mesh.network.b.sockets(8080) {
            let _server = Server::greeting(&mesh.network.b.namespace, address, "from b");
            assert_eq!(converse(&mesh.network.c.namespace, address).unwrap(), "from b");
        }
        let line = mesh.b().log().wait_for(&[("event", "open"), ("direction", "inbound"), ("decision", "allow")]);
        assert!(line.get("src.identity").is_none(), "plaintext has no identity: {line}");
    }

    /// DP-T5: plaintext from an unmeshed pod is reset where the port is strict, and on record.
    fn resets_plaintext_where_strict(backend) {
        let mesh = strict(backend);
        for address in mesh.network.b.sockets(8080) {
            let server = Server::greeting(&mesh.network.b.namespace, address, "from b");
            refused(&mesh.network.c.namespace, APPLICATION_UID, address);
            assert_eq!(server.peers(), []);
        }
        mesh.b().log().wait_for(&[("event", "open"), ("direction", "inbound"), ("decision", "refuse")]);
    }

    /// DP-T6: an application reaches its own pod's address directly.
    fn own_address_is_reached_directly(backend) {
        let mesh = strict(backend);
        for address in mesh.network.a.sockets(8090) {
            direct_in_a(&mesh, APPLICATION_UID, address);
        }
    }

    /// DP-T7: an application reaches 127.0.0.1 directly.
    fn ipv4_loopback_is_reached_directly(backend) {
        let mesh = strict(backend);
        direct_in_a(&mesh, APPLICATION_UID, ([127, 0, 0, 1], 8090).into());
    }

    /// DP-T8: an application reaches ::1 directly.
    fn ipv6_loopback_is_reached_directly(backend) {
        let mesh = strict(backend);
        direct_in_a(&mesh, APPLICATION_UID, "[::1]:8090".parse().unwrap());
    }

    /// DP-T9: the sidecar's own user leaves uncaptured.
    fn the_sidecars_user_is_not_captured(backend) {
        let mesh = strict(backend);
        for address in mesh.network.c.sockets(8080) {
            let server = Server::greeting(&mesh.network.c.namespace, address, "from c");
            let mut client =
                Client::connect_as(&mesh.network.a.namespace, SIDECAR_UID, address).unwrap();
            assert!(client.line().unwrap().ends_with("from c"));
            assert_eq!(server.peers()[0].port(), client.socket().local_addr().unwrap().port());
        }
        assert!(!mesh.a().log().mentions(":8080"));
    }

    /// DP-T10: an excluded inbound port is reached without the sidecar.
    fn an_excluded_inbound_port_is_reached_directly(backend) {
        let mesh = settings(backend).redirect(&["--skip-inbound-ports", "9999"]).start();
        for address in mesh.network.b.sockets(9999) {
            let server = Server::greeting(&mesh.network.b.namespace, address, "from b");
            assert_eq!(converse(&mesh.network.c.namespace, address).unwrap(), "from b");
            assert_eq!(server.peers()[0].ip(), mesh.network.c.address_like(address.ip()));
            refused(&mesh.network.c.namespace, APPLICATION_UID, SocketAddr::new(address.ip(), 9998));
        }
        assert!(!mesh.b().log().mentions(":9999"));
    }

    /// DP-T11: excluded outbound ports and networks are reached without the sidecar.
    fn excluded_destinations_are_reached_directly(backend) {
        let exclusions =
            ["--skip-outbound-ports", "5432", "--skip-subnets", "198.51.100.0/24,2001:db8:77::/64"];
        let mesh = settings(backend).redirect(&exclusions).start();
        let outside = [(IpAddr::from(OUTSIDE_V4), 8080).into(), (IpAddr::from(OUTSIDE_V6), 8080).into()];
        for address in mesh.network.c.sockets(5432).into_iter().chain(outside) {
            let server = Server::greeting(&mesh.network.c.namespace, address, "from c");
            let mut client = Client::connect(&mesh.network.a.namespace, address).unwrap();
            assert!(client.line().unwrap().ends_with("from c"));
            assert_eq!(server.peers()[0].port(), client.socket().local_addr().unwrap().port());
            assert!(!mesh.a().log().mentions(&address.to_string()));
        }
    }

    /// DP-T12: an application that listens on loopback only stays unreachable from the network.
    fn a_loopback_only_application_is_never_touched(backend) {
        let mesh = permissive(backend);
        for address in mesh.network.b.sockets(7000) {
            let loopback = SocketAddr::new(loopback_like(address.ip()), 7000);
            let server = Server::greeting(&mesh.network.b.namespace, loopback, "private");
            refused(&mesh.network.c.namespace, APPLICATION_UID, address);
            refused(&mesh.network.a.namespace, APPLICATION_UID, address);
            assert_eq!(server.peers(), []);
        }
    }

    /// DP-T16: the outbound port is not reachable from outside; it arrives as an own port.
    fn the_outbound_port_is_closed_to_the_network(backend) {
        let mesh = permissive(backend);
        for address in mesh.network.b.sockets(15001) {
            refused(&mesh.network.c.namespace, APPLICATION_UID, address);
        }
        let line = mesh.b().log().wait_for(&[("direction", "inbound"), ("decision", "refuse")]);
        assert!(line.to_string().contains("own"), "{line}");
    }

    /// DP-T17: the inbound port is not reachable under its own number.
    fn the_inbound_port_is_closed_to_the_network(backend) {
        let mesh = permissive(backend);
        for address in mesh.network.b.sockets(15006) {
            refused(&mesh.network.c.namespace, APPLICATION_UID, address);
            refused(&mesh.network.node, ROOT_UID, address);
        }
        assert!(!mesh.b().log().mentions("15006"), "{:?}", mesh.b().log().lines());
    }

    /// DP-T18: an application that dials the outbound port is reset, without a loop.
    fn dialling_the_outbound_port_is_reset_without_a_loop(backend) {
        let mesh = strict(backend);
        for (tried, loopback) in ["127.0.0.1:15001", "[::1]:15001"].into_iter().enumerate() {
            let loopback: SocketAddr = loopback.parse().unwrap();
            refused(&mesh.network.a.namespace, APPLICATION_UID, loopback);
            opens_at_most(&mesh, tried + 1);
        }
    }

    /// DP-T19: an application that dials its own pod's inbound port is reset, without a loop.
    fn dialling_the_inbound_port_is_reset_without_a_loop(backend) {
        let mesh = permissive(backend);
        for (tried, own) in mesh.network.a.sockets(15006).into_iter().enumerate() {
            refused(&mesh.network.a.namespace, APPLICATION_UID, own);
            opens_at_most(&mesh, tried + 1);
        }
    }

    /// DP-T21: the sidecar's own user reaches its pod's address directly.
    fn own_address_is_reached_directly_by_the_sidecars_user(backend) {
        let mesh = strict(backend);
        for address in mesh.network.a.sockets(8090) {
            direct_in_a(&mesh, SIDECAR_UID, address);
        }
    }

    /// DP-T22: a service address leads to an endpoint by mutual TLS, also from the endpoint itself.
    fn a_service_address_leads_to_an_endpoint(backend) {
        let mesh = strict(backend);
        let _servers = mesh
            .network
            .b
            .sockets(8080)
            .map(|address| Server::greeting(&mesh.network.b.namespace, address, "from b"));
        for vip in API_VIPS {
            assert_eq!(converse(&mesh.network.a.namespace, (vip, 8080)).unwrap(), "from b");
            let to = SocketAddr::new(vip, 8080).to_string();
            mesh.a().log().wait_for(&[("direction", "outbound"), ("original_dst", &to), ("dst.identity", API_ID)]);
            assert_eq!(converse(&mesh.network.b.namespace, (vip, 8080)).unwrap(), "from b");
            mesh.b().log().wait_for(&[("direction", "outbound"), ("original_dst", &to), ("dst.identity", API_ID)]);
        }
        mesh.b().log().wait_for(&[("direction", "inbound"), ("src.identity", API_ID), ("decision", "allow")]);
    }

    /// DP-T23: in strict mode the application's port is reset for the node, and its probes work on 15021.
    fn a_probe_of_the_node_works_in_strict_mode(backend) {
        let mesh = settings(backend).proxy(&["--probes", PROBES]).start();
        let network = &mesh.network;
        for address in network.b.sockets(8080) {
            let health = SocketAddr::new(address.ip(), 15021);
            let probe = |kind: &str| {
                let path = format!("/app-probes/web/{kind}");
                http_get(&network.node, health, &path).unwrap()
            };
            for kind in ["readiness", "liveness", "startup"] {
                assert_eq!(probe(kind).0, 502, "{kind}: nothing listens yet");
            }
            let application = Server::start(&network.b.namespace, APPLICATION_UID, address, answer_ready);
            let grpc = SocketAddr::new(address.ip(), 8081);
            let _grpc = grpc_health(&network.b.namespace, grpc);
            for kind in ["readiness", "liveness", "startup"] {
                eventually(&format!("{kind} of {address}"), || match probe(kind) {
                    (200, text) => Ok(text),
                    other => Err(other),
                });
            }
            // a hook that there is none of gets no answer: the kubelet takes any for success
            let hook = http_get(&network.node, health, "/app-probes/web/pre-stop");
            assert!(hook.is_err(), "{hook:?}");
            assert!(application.peers().iter().all(|peer| peer.ip() == address.ip()));
            let asked = application.peers().len();
            refused(&network.node, ROOT_UID, address);
            refused(&network.node, ROOT_UID, grpc);
            assert_eq!(application.peers().len(), asked);
        }
        let (status, text) = mesh.b().readiness(network).unwrap();
        assert_eq!(status, 200, "{text}");
    }

    /// DP-T24: connections of one source port to three destinations all arrive where they should.
    fn one_source_port_to_three_destinations(backend) {
        let mesh = strict(backend);
        let network = &mesh.network;
        let targets: [SocketAddr; 3] =
            [(network.b.v4, 8080).into(), (network.b.v4, 8081).into(), (OUTSIDE_V4, 8082).into()];
        let namespaces = [&network.b.namespace, &network.b.namespace, &network.c.namespace];
        let _servers: Vec<Server> = targets
            .iter()
            .zip(namespaces)
            .map(|(target, namespace)| Server::greeting(namespace, *target, &format!("at {target}")))
            .collect();
        let from = SocketAddr::from((network.a.v4, 41000));
        let mut clients = targets.map(|target| {
            Client::connect_from(&network.a.namespace, APPLICATION_UID, from, target).unwrap()
        });
        for (client, target) in clients.iter_mut().zip(targets) {
            assert!(client.line().unwrap().ends_with(&format!("at {target}")));
            assert_eq!(client.echo("still you").unwrap(), "still you");
            let to = target.to_string();
            mesh.a().log().wait_for(&[("event", "open"), ("original_dst", &to)]);
            assert_eq!(mesh.a().log().count(&[("event", "open"), ("original_dst", &to)]), 1);
        }
    }
}

/// A loop opens more and more connections, each logged a moment later.
fn opens_at_most(mesh: &Mesh, attempts: usize) {
    holds_for(
        Duration::from_secs(1),
        "a connection for each attempt",
        || {
            let opened = mesh.a().log().count(&[("event", "open")]);
            if opened <= attempts {
                Ok(())
            } else {
                Err(opened)
            }
        },
    );
}

/// A connection inside pod a that the sidecar never sees.
fn direct_in_a(mesh: &Mesh, uid: u32, address: SocketAddr) {
    let namespace = &mesh.network.a.namespace;
    let server = Server::greeting(namespace, address, "own");
    let mut client = Client::connect_as(namespace, uid, address).unwrap();
    assert!(client.line().unwrap().ends_with("own"));
    assert_eq!(server.peers(), [client.socket().local_addr().unwrap()]);
    assert!(
        !mesh.a().log().mentions(":8090"),
        "{:?}",
        mesh.a().log().lines()
    );
}
