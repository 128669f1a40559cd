//! What captured connections meet when something is wrong: DP-T13 to T15, T20, T27 to T29,
//! T31 to T33, T39, T40. (T30 and T34 to T36 are in `capture_redirect.rs`.)

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use mesh_lite_proto::tunnel::{Header, Status, TraceId};
use mesh_lite_test_support::applications::{Client, Ending, MARKER, Server, converse, refused};
use mesh_lite_test_support::mesh::{DOCUMENT_FILE, POLICY};
use mesh_lite_test_support::network::{DEAD_V4, DEAD_V6, write_setting};
use mesh_lite_test_support::process::succeed;
use mesh_lite_test_support::{
    APPLICATION_UID, Mesh, MeshSettings, Namespace, ROOT_UID, eventually, holds_for,
    on_each_backend, pause,
};
use rustix::process::Signal;

mod tunnel_client;
use tunnel_client::{TunnelClient, saved_identity};

const PERMISSIVE: &str = "\
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

/// A workload that is said to be meshed and that nobody is.
const GONE: &str = "\
apiVersion: mesh-lite.io/v1
kind: Workload
metadata: {name: gone-1, namespace: shop}
spec:
  serviceAccount: gone
  addresses: [10.77.0.99, \"fd77::99\"]
";

fn settings(backend: &'static str) -> MeshSettings {
    MeshSettings::captured_by(env!("CARGO_BIN_EXE_mesh-lite"), backend)
}

fn greeting_at_b(mesh: &Mesh) -> Server {
    Server::greeting(
        &mesh.network.b.namespace,
        (mesh.network.b.v4, 8080),
        "from b",
    )
}

/// A connection through both sidecars that has said and heard something.
fn open(mesh: &Mesh) -> Client {
    let to = (mesh.network.b.v4, 8080);
    let mut client = Client::connect(&mesh.network.a.namespace, to).unwrap();
    assert!(client.line().unwrap().starts_with(MARKER));
    assert_eq!(client.echo("first").unwrap(), "first");
    client
}

/// Takes the redirection out of pod a, as an operator's `flush` would; the guard stays.
fn flush_nat(backend: &str, namespace: &Namespace) {
    let commands: &[&str] = if backend == "nft" {
        &[
            "nft flush chain inet meshlite out",
            "nft flush chain inet meshlite in",
        ]
    } else {
        &["iptables -t nat -F", "ip6tables -t nat -F"]
    };
    for command in commands {
        let mut words = command.split(' ');
        let mut command = namespace.command(ROOT_UID, words.next().unwrap());
        succeed(command.args(words));
    }
}

/// Takes the exemption of the sidecar's user out of the rules of a namespace.
fn stop_exempting_the_sidecar(backend: &str, namespace: &Namespace) {
    if backend == "nft" {
        let mut list = namespace.command(ROOT_UID, "nft");
        let rules = succeed(list.args(["-a", "list", "chain", "inet", "meshlite", "out"]));
        let exemption = rules.lines().find(|line| line.contains("skuid")).unwrap();
        let handle = exemption.rsplit(' ').next().unwrap();
        let mut delete = namespace.command(ROOT_UID, "nft");
        succeed(delete.args([
            "delete", "rule", "inet", "meshlite", "out", "handle", handle,
        ]));
        return;
    }
    for program in ["iptables", "ip6tables"] {
        let mut delete = namespace.command(ROOT_UID, program);
        let rule = "-t nat -D ML_OUT -m owner --uid-owner 15008 -j RETURN";
        succeed(delete.args(rule.split(' ')));
    }
}

on_each_backend! {
    /// DP-T13: a port nobody listens on is a reset, never an end, for plaintext both ways.
    fn a_closed_port_resets_plaintext(backend) {
        let mesh = settings(backend).document(PERMISSIVE).start();
        for address in mesh.network.b.sockets(7999) {
            refused(&mesh.network.c.namespace, APPLICATION_UID, address);
        }
        refused(&mesh.network.a.namespace, APPLICATION_UID, (mesh_lite_test_support::network::OUTSIDE_V4, 7999));
    }

    /// DP-T14: a port nobody listens on is a reset, never an end, through both sidecars.
    fn a_closed_port_resets_through_both_sidecars(backend) {
        let mesh = settings(backend).start();
        for address in mesh.network.b.sockets(7999) {
            refused(&mesh.network.a.namespace, APPLICATION_UID, address);
        }
        let line = mesh.b().log().wait_for(&[("direction", "inbound"), ("decision", "refuse")]);
        assert_eq!(line["reason"], "connect_failed", "{line}");
        let line = mesh.a().log().wait_for(&[("direction", "outbound"), ("decision", "refuse")]);
        assert_eq!(line["answer"], "refused", "{line}");
        assert!(line.get("policy").is_none(), "no policy refused it: {line}");
        // What was not let through has one line.
        assert_eq!(mesh.a().log().count(&[("event", "close")]), 0);
    }

    /// DP-T15: a host that does not answer is a reset after the dial's time.
    fn a_dead_host_is_a_reset(backend) {
        let mesh = settings(backend).document(GONE).start();
        for dead in [IpAddr::from(DEAD_V4), IpAddr::from(DEAD_V6)] {
            refused(&mesh.network.a.namespace, APPLICATION_UID, (dead, 8080));
        }
        refused(&mesh.network.a.namespace, APPLICATION_UID, ([198, 51, 100, 99], 8080));
        for line in mesh.a().log().lines() {
            let reason = line["reason"].as_str().unwrap();
            assert!(["connect_failed", "connect_timeout"].contains(&reason), "{line}");
        }
    }

    /// DP-T20: what is not TLS is closed on the tunnel port within the handshake's time.
    fn garbage_on_the_tunnel_port_is_closed_and_counted(backend) {
        let mesh = settings(backend).start();
        let garbage: [&[u8]; 4] = [
            b"GET / HTTP/1.1\r\nHost: b\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            &[0; 600],
            &[0x16, 0x03, 0x01, 0xff, 0xff, 0x01],
        ];
        for (bytes, to) in garbage.iter().zip(mesh.network.b.sockets(15008).repeat(2)) {
            let client = Client::connect(&mesh.network.c.namespace, to).unwrap();
            client.socket().write_all(bytes).unwrap();
            closed_without_an_answer(client.socket());
        }
        // Silence is cut as well.
        let client = Client::connect(&mesh.network.c.namespace, (mesh.network.b.v4, 15008)).unwrap();
        closed_without_an_answer(client.socket());
        eventually("all of them are counted", || {
            let counted = mesh.b().counter(&mesh.network, "mesh_lite_refused_total", "handshake");
            if counted >= 5.0 { Ok(()) } else { Err(counted) }
        });
        let _server = greeting_at_b(&mesh);
        assert_eq!(converse(&mesh.network.a.namespace, (mesh.network.b.v4, 8080)).unwrap(), "from b");
    }

    /// DP-T27: with the redirection flushed the guard refuses, connections in flight live on,
    /// and capture resumes when it is installed again.
    fn the_guard_refuses_when_the_redirection_is_gone(backend) {
        let mesh = settings(backend).start();
        let server = greeting_at_b(&mesh);
        let mut in_flight = open(&mesh);
        flush_nat(backend, &mesh.network.a.namespace);
        let accepted = server.peers().len();
        for address in [mesh.network.b.sockets(8080), mesh.network.c.sockets(8080)].concat() {
            refused(&mesh.network.a.namespace, APPLICATION_UID, address);
        }
        assert_eq!(server.peers().len(), accepted);
        assert_eq!(in_flight.echo("still there").unwrap(), "still there");
        let printed = mesh.capture('a');
        assert!(printed.contains("live connections kept"), "{printed}");
        assert_eq!(in_flight.echo("and now").unwrap(), "and now");
        assert_eq!(converse(&mesh.network.a.namespace, (mesh.network.b.v4, 8080)).unwrap(), "from b");
    }

    /// DP-T28: a sidecar killed in mid-transfer is a reset for the application, new connections
    /// are refused, and a new sidecar serves again.
    fn a_killed_sidecar_resets_and_serves_again_when_restarted(backend) {
        let mut mesh = settings(backend).start();
        let server = greeting_at_b(&mesh);
        for victim in ['a', 'b'] {
            let mut client = open(&mesh);
            let peers = server.peers().len();
            let killed = if victim == 'a' { mesh.a_mut() } else { mesh.b_mut() };
            killed.kill();
            assert!(matches!(client.ending(), Ending::Reset(_)), "killed {victim}");
            refused(&mesh.network.a.namespace, APPLICATION_UID, (mesh.network.b.v4, 8080));
            assert_eq!(server.peers().len(), peers);
            mesh.start_sidecar_again(victim);
            assert_eq!(converse(&mesh.network.a.namespace, (mesh.network.b.v4, 8080)).unwrap(), "from b");
        }
    }

    /// DP-T29: a sidecar that stands still for 10 s and goes on loses nothing and says nothing
    /// twice.
    fn a_stopped_sidecar_goes_on_where_it_was(backend) {
        let mesh = settings(backend).start();
        let _server = greeting_at_b(&mesh);
        let mut client = open(&mesh);
        mesh.b().stop();
        for line in 0..100 {
            client.send(&format!("line {line}\n")).unwrap();
        }
        client.socket().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let silence = client.line().unwrap_err();
        assert_eq!(silence.kind(), io::ErrorKind::WouldBlock, "{silence}");
        client.socket().set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        mesh.b().signal(Signal::CONT);
        for line in 0..100 {
            assert_eq!(client.line().unwrap(), format!("line {line}"));
        }
        client.finish().unwrap();
        assert_eq!(client.ending(), Ending::End(b"bye\n".to_vec()));
    }

    /// DP-T31: an answer that comes long after the request's end is delivered, although the
    /// kernel forgets half-closed connections sooner.
    fn a_late_answer_to_a_half_closed_connection_arrives(backend) {
        let mesh = settings(backend).start();
        for namespace in [&mesh.network.a.namespace, &mesh.network.b.namespace] {
            namespace.run(ROOT_UID, || {
                // Longer than the keepalive of 25 s, shorter than the wait.
                for state in ["close_wait", "fin_wait", "last_ack"] {
                    write_setting(&format!("net/netfilter/nf_conntrack_tcp_timeout_{state}"), "32");
                }
            });
        }
        let _server = answers_late(&mesh, true);
        let mut client =
            Client::connect(&mesh.network.a.namespace, (mesh.network.b.v4, 8080)).unwrap();
        client.send("question\n").unwrap();
        client.finish().unwrap();
        client.socket().set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        assert_eq!(client.ending(), Ending::End(b"late answer\n".to_vec()));
    }

    /// DP-T32: a server's message after a long silence is delivered, although the kernel forgets
    /// silent connections sooner.
    fn a_message_after_a_long_silence_arrives(backend) {
        let mesh = settings(backend).start();
        for namespace in [&mesh.network.a.namespace, &mesh.network.b.namespace] {
            namespace.run(ROOT_UID, || {
                write_setting("net/netfilter/nf_conntrack_tcp_timeout_established", "32");
            });
        }
        let _server = answers_late(&mesh, false);
        let mut client =
            Client::connect(&mesh.network.a.namespace, (mesh.network.b.v4, 8080)).unwrap();
        client.send("question\n").unwrap();
        client.socket().set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        assert_eq!(client.line().unwrap(), "late answer");
    }

    /// DP-T33: with all local ports in use a further connection is refused for that reason, on
    /// record, and the mesh serves again when ports are free.
    fn exhausted_local_ports_are_refused_by_name(backend) {
        let mesh = settings(backend).start();
        let _server = greeting_at_b(&mesh);
        mesh.network.b.namespace.run(ROOT_UID, || {
            write_setting("net/ipv4/ip_local_port_range", "40000 40063");
            write_setting("net/ipv4/tcp_tw_reuse", "1");
        });
        let to = SocketAddr::from((mesh.network.b.v4, 8080));
        let (mut served, mut reset) = (Vec::new(), 0);
        for _ in 0..80 {
            let mut client = Client::connect(&mesh.network.a.namespace, to).unwrap();
            match client.line() {
                Ok(_) => served.push(client),
                Err(_) => reset += 1,
            }
        }
        assert!((1..=64).contains(&served.len()), "{} served", served.len());
        assert!(reset >= 16, "{reset} reset");
        let line = mesh.b().log().wait_for(&[("direction", "inbound"), ("decision", "refuse")]);
        assert_eq!(line["reason"], "addresses_exhausted", "{line}");
        for client in &mut served {
            assert_eq!(client.echo("you are not touched").unwrap(), "you are not touched");
        }
        drop(served);
        eventually("ports are free again", || converse(&mesh.network.a.namespace, to));
    }

    /// DP-T39: a peer of the mesh that asks for what is not its to ask for is refused, and
    /// nothing is dialled; what it claims about its source is not believed.
    fn a_malicious_peer_reaches_only_the_application_it_may(backend) {
        let mesh = settings(backend).start();
        let identity = TunnelClient::of(mesh.a(), &mesh.network);
        let network = &mesh.network;
        let server = greeting_at_b(&mesh);
        let lures: Vec<Server> = ["127.0.0.1:15999", "127.0.0.1:7000"]
            .map(|address| {
                let address: SocketAddr = address.parse().unwrap();
                Server::greeting(&network.b.namespace, address, "lure")
            })
            .into();
        let third = Server::greeting(&network.c.namespace, (network.c.v4, 7000), "third pod");
        let header = |port: u16, claimed: IpAddr| Header {
            port,
            original_destination: claimed,
            trace_id: TraceId::NONE,
        };
        // Own ports, and a port on which only loopback or another pod listens.
        for (port, claimed) in [
            (15000, network.b.v4.into()),
            (15001, network.b.v4.into()),
            (15006, network.b.v4.into()),
            (15008, network.b.v4.into()),
            (15021, network.b.v4.into()),
            (7000, IpAddr::from([127, 0, 0, 1])),
            (7000, network.c.v4.into()),
            (15999, IpAddr::from([127, 0, 0, 1])),
        ] {
            let asked = header(port, claimed).encode();
            let said = identity.ask(network, asked.as_slice());
            assert_eq!(said.status, Status::Refused, "port {port}, claimed {claimed}");
            assert_eq!(said.decided_by, None, "port {port}, claimed {claimed}");
            assert_eq!(said.rest, b"", "port {port}, claimed {claimed}");
        }
        // A good header that claims to be from elsewhere still is from pod a, for the log and
        // for the application, which sees the pod itself.
        let asked = header(8080, IpAddr::from([127, 0, 0, 1])).encode();
        let said = identity.ask(network, asked.as_slice());
        assert_eq!(said.status, Status::Ok);
        // It learns where it stands who may call, and not who may.
        let place = format!("{POLICY} ({DOCUMENT_FILE}:{})", mesh.rule_line("api-from-web"));
        assert_eq!(said.decided_by, Some(place));
        assert!(said.rest.starts_with(MARKER.as_bytes()));
        assert_eq!(server.peers()[0].ip(), IpAddr::from(network.b.v4));
        let line = mesh.b().log().wait_for(&[("event", "open"), ("decision", "allow")]);
        assert!(line["src.addr"].as_str().unwrap().starts_with("10.77.0.10:"), "{line}");
        assert_eq!(line["original_dst_claimed"], "127.0.0.1", "{line}");
        // Headers that are none.
        for bad in [&b"ML2"[..], b"GET / HTTP/1.1\r\n\r\n", b"ML1\x01", b"ML1\0\x05\0\x1f\x90AAAA\0\0"] {
            let said = identity.ask(network, bad);
            assert_eq!((said.status, &said.rest[..]), (Status::BadHeader, &b""[..]), "{bad:?}");
        }
        assert!(lures.iter().chain([&third]).all(|lure| lure.peers().is_empty()));
        assert!(mesh.b().counter(network, "mesh_lite_refused_total", "own_port") >= 5.0);
        assert!(mesh.b().counter(network, "mesh_lite_refused_total", "bad_header") >= 4.0);
    }

    /// DP-T34, DP-T35: without a record of its own network namespace a sidecar is not ready, says
    /// why, and takes no connection; with one it is ready at its next start.
    fn a_sidecar_without_proof_of_capture_is_not_ready(backend) {
        let mut mesh = settings(backend).start_control_plane();
        let says = |mesh: &Mesh, wanted: &str| {
            eventually(&format!("it says {wanted:?}"), || match mesh.a().readiness(&mesh.network) {
                Ok((200, text)) => panic!("ready: {text}"),
                other if mesh.a().output().contains(wanted) => Ok(other.map(|_| ())),
                other => Err(format!("{other:?}: {}", mesh.a().output())),
            })
        };
        mesh.start_sidecar('a');
        let _ = says(&mesh, "mesh-lite redirect");
        // Killed before, it would start again with a token that is spent.
        saved_identity(mesh.a(), &mesh.network);
        mesh.a_mut().kill();
        // Another pod's record is no proof for this one.
        mesh.capture('b');
        std::fs::create_dir(mesh.state_dir('a')).unwrap();
        let record = mesh.state_dir('b').join("capture.json");
        std::fs::copy(record, mesh.state_dir('a').join("capture.json")).unwrap();
        mesh.start_sidecar_unready('a');
        let _ = says(&mesh, "rules were installed elsewhere");
        for loopback in ["127.0.0.1:15001", "[::1]:15001"] {
            let loopback: SocketAddr = loopback.parse().unwrap();
            refused(&mesh.network.a.namespace, APPLICATION_UID, loopback);
        }
        mesh.a_mut().kill();
        mesh.capture('a');
        mesh.start_sidecar_again('a');
    }

    /// DP-T40: a sidecar whose user the rules do not exempt does not call itself without end,
    /// and one that starts so does not become ready.
    fn a_sidecar_that_is_not_exempt_does_not_loop(backend) {
        let mut mesh = settings(backend).start();
        let _server = greeting_at_b(&mesh);
        stop_exempting_the_sidecar(backend, &mesh.network.a.namespace);
        refused(&mesh.network.a.namespace, APPLICATION_UID, (mesh.network.b.v4, 8080));
        holds_for(Duration::from_secs(1), "one connection stays a few", || {
            let opened = mesh.a().log().count(&[("event", "open")]);
            if opened <= 10 { Ok(()) } else { Err(opened) }
        });
        mesh.a_mut().kill();
        succeed(&mut mesh.redirect_command('a', &["--proxy-uid", "15009"]));
        mesh.start_sidecar_unready('a');
        eventually("it says what is wrong", || {
            let output = mesh.a().output();
            if output.contains("15009") { Ok(()) } else { Err(output) }
        });
        refused(&mesh.network.a.namespace, APPLICATION_UID, (mesh.network.b.v4, 8080));
        let ready = mesh.a().readiness(&mesh.network);
        assert!(!matches!(ready, Ok((200, _))), "{ready:?}");
    }
}

/// Takes a question and answers 40 s later: after the question's end, or in silence.
fn answers_late(mesh: &Mesh, after_the_end: bool) -> Server {
    let address = (mesh.network.b.v4, 8080);
    Server::start(
        &mesh.network.b.namespace,
        APPLICATION_UID,
        address,
        move |mut stream| {
            let mut question = [0; 64];
            let mut taken = stream.read(&mut question)?;
            while after_the_end && taken > 0 {
                taken = stream.read(&mut question)?;
            }
            // The wait is the scenario: nothing may happen meanwhile.
            stream.set_read_timeout(Some(Duration::from_secs(40)))?;
            if after_the_end {
                pause(Duration::from_secs(40));
            } else {
                let silence = stream.read(&mut question);
                assert!(silence.is_err(), "{silence:?}");
            }
            stream.write_all(b"late answer\n")
        },
    )
}

/// A TLS alert may come; nothing else, and then the end.
fn closed_without_an_answer(mut socket: &TcpStream) {
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}"),
    }
    assert!(answer.is_empty() || answer[0] == 0x15, "{answer:02x?}");
    assert!(answer.len() <= 64, "{answer:02x?}");
}
