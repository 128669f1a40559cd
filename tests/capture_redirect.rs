//! `mesh-lite redirect` itself, without sidecars: DP-T30 and T34 to T36, and that it can be
//! repeated.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mesh_lite_test_support::applications::refused;
use mesh_lite_test_support::mesh::{place_program, redirect_command};
use mesh_lite_test_support::process::{fail, finish, succeed};
use mesh_lite_test_support::{
    APPLICATION_UID, Network, ROOT_UID, SIDECAR_UID, eventually, on_each_backend, requirements,
};
use socket2::{Domain, SockRef, Socket, Type};

struct Pod {
    network: Network,
    program: PathBuf,
    state: PathBuf,
    backend: &'static str,
}

impl Pod {
    fn new(backend: &'static str) -> Self {
        let network = Network::new();
        let state = network.directory("state", ROOT_UID);
        let program = place_program(Path::new(env!("CARGO_BIN_EXE_mesh-lite")));
        Self {
            network,
            program,
            state,
            backend,
        }
    }

    fn redirect(&self, arguments: &[&str]) -> Command {
        let namespace = &self.network.a.namespace;
        redirect_command(
            namespace,
            &self.program,
            self.backend,
            &self.state,
            arguments,
        )
    }

    /// `redirect` on a machine whose tools are those in `tools`.
    fn redirect_with_tools(&self, tools: &Path) -> Command {
        let inner = self.redirect(&[]);
        let mut command = Command::new("unshare");
        let script = format!("mount --bind {} /usr/sbin && exec \"$@\"", tools.display());
        command.args(["--mount", "sh", "-c", &script, "sh"]);
        command.arg(inner.get_program()).args(inner.get_args());
        command
    }

    fn record(&self) -> Option<serde_json::Value> {
        let text = fs::read_to_string(self.state.join("capture.json")).ok()?;
        Some(serde_json::from_str(&text).unwrap())
    }

    /// Everything of ours that the kernel has, as text.
    fn installed(&self) -> String {
        let programs = if self.backend == "nft" {
            vec![vec!["nft", "list", "ruleset"]]
        } else {
            vec![vec!["iptables-save"], vec!["ip6tables-save"]]
        };
        let mut found = String::new();
        for program in programs {
            let mut command = self.network.a.namespace.command(ROOT_UID, program[0]);
            let text = succeed(command.args(&program[1..]));
            let ours = text
                .lines()
                .filter(|line| line.contains("ML_") || line.contains("meshlite"));
            ours.for_each(|line| {
                found.push_str(line.split(" [").next().unwrap());
                found.push('\n');
            });
        }
        found
    }

    /// Stand-ins for the sidecar's outbound listeners, of its user.
    fn outbound_listeners(&self) -> [TcpListener; 2] {
        ["127.0.0.1:15001", "[::1]:15001"].map(|address| {
            self.network
                .a
                .namespace
                .run(SIDECAR_UID, || TcpListener::bind(address).unwrap())
        })
    }
}

/// Where the kernel says a captured connection was meant to go.
fn original_destination(stream: &TcpStream) -> SocketAddr {
    let socket = SockRef::from(stream);
    let original = if stream.local_addr().unwrap().is_ipv4() {
        socket.original_dst_v4()
    } else {
        socket.original_dst_v6()
    };
    original.unwrap().as_socket().unwrap()
}

/// A directory of tools as /usr/sbin has them, in which some may be replaced.
fn tools(pod: &Pod) -> PathBuf {
    let tools = pod.network.directory("tools", ROOT_UID);
    for multi in ["nft", "xtables-nft-multi"] {
        fs::copy(
            format!("/usr/sbin/{multi}"),
            tools.join(format!("real-{multi}")),
        )
        .unwrap();
    }
    symlink("real-nft", tools.join("nft")).unwrap();
    for family in ["iptables", "ip6tables"] {
        for suffix in ["", "-save", "-restore"] {
            symlink(
                "real-xtables-nft-multi",
                tools.join(format!("{family}{suffix}")),
            )
            .unwrap();
        }
    }
    tools
}

/// An iptables-restore that passes the test of its text, breaks when it counts (the other family
/// is in by then), and works again when what was installed is taken back.
fn breaks_once(tools: &Path) -> String {
    format!(
        "case \"$*\" in *--test*) cat >/dev/null; exit 0;; esac\n\
         if [ ! -e {0}/broke ]; then : > {0}/broke; cat >/dev/null; echo broken >&2; exit 1; fi\n\
         exec /usr/sbin/real-xtables-nft-multi ip6tables-restore \"$@\"",
        tools.display()
    )
}

fn replace_tool(tools: &Path, name: &str, script: &str) {
    let path = tools.join(name);
    fs::remove_file(&path).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

on_each_backend! {
    /// Both families are captured, with their original destination, whoever connects; only the
    /// sidecar's user is not.
    fn captures_both_families_and_exempts_one_user(backend) {
        let pod = Pod::new(backend);
        let printed = succeed(&mut pod.redirect(&[]));
        assert!(printed.contains("IPv4 captured, IPv6 captured"), "{printed}");
        let record = pod.record().unwrap();
        assert_eq!(record["backend"], backend);
        assert_eq!(record["proxyUid"], SIDECAR_UID);
        let listeners = pod.outbound_listeners();
        for (listener, target) in listeners.iter().zip(pod.network.c.sockets(8080)) {
            for uid in [APPLICATION_UID, ROOT_UID] {
                let client =
                    pod.network.a.namespace.run(uid, || TcpStream::connect(target).unwrap());
                let (accepted, peer) = listener.accept().unwrap();
                assert_eq!(peer, client.local_addr().unwrap());
                assert_eq!(original_destination(&accepted), target);
            }
            // Nobody listens at the target: the sidecar's user is refused by pod c itself.
            refused(&pod.network.a.namespace, SIDECAR_UID, target);
            listener.set_nonblocking(true).unwrap();
            listener.accept().expect_err("the sidecar's user was captured");
        }
    }

    /// Repeating it changes nothing and leaves nothing twice, also with other settings between.
    fn can_be_repeated(backend) {
        let pod = Pod::new(backend);
        succeed(&mut pod.redirect(&[]));
        let (rules, record) = (pod.installed(), pod.record());
        assert!(!rules.is_empty());
        succeed(&mut pod.redirect(&["--skip-outbound-ports", "5432", "--skip-subnets", "10.9.0.0/16,fd09::/16"]));
        assert_ne!(pod.record(), record);
        let printed = succeed(&mut pod.redirect(&[]));
        assert!(printed.contains("earlier rules replaced"), "{printed}");
        assert_eq!(pod.installed(), rules);
        assert_eq!(pod.record(), record);
    }

    /// With a sidecar on the outbound port it still installs, and proves itself by it.
    fn can_be_repeated_while_the_sidecar_listens(backend) {
        let pod = Pod::new(backend);
        succeed(&mut pod.redirect(&[]));
        let _sidecar = pod.outbound_listeners();
        let printed = succeed(&mut pod.redirect(&[]));
        assert!(printed.contains("live connections kept"), "{printed}");
    }

    /// A stranger on the outbound port is refused before anything is installed.
    fn refuses_where_a_stranger_listens(backend) {
        let pod = Pod::new(backend);
        let stranger = pod
            .network
            .a
            .namespace
            .run(APPLICATION_UID, || TcpListener::bind("127.0.0.1:15001").unwrap());
        let complaint = fail(&mut pod.redirect(&[]));
        assert!(complaint.contains("another mesh's sidecar"), "{complaint}");
        assert_eq!(pod.installed(), "");
        assert_eq!(pod.record(), None);
        drop(stranger);
    }

    /// DP-T30: a connection that the kernel tracked before the rules is captured after them.
    fn a_stale_tracked_connection_does_not_bypass_capture(backend) {
        let pod = Pod::new(backend);
        let namespace = &pod.network.a.namespace;
        let target = SocketAddr::from((pod.network.c.v4, 8080));
        let from = SocketAddr::from((pod.network.a.v4, 41000));
        let stale = format!(
            "-I -p tcp -s {} -d {} --sport {} --dport {} --state ESTABLISHED -t 600 -u ASSURED",
            from.ip(), target.ip(), from.port(), target.port()
        );
        succeed(namespace.command(ROOT_UID, "conntrack").args(stale.split(' ')));
        succeed(&mut pod.redirect(&[]));
        let listeners = pod.outbound_listeners();
        let _client = namespace.run(APPLICATION_UID, || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&from.into()).unwrap();
            socket.connect_timeout(&target.into(), Duration::from_secs(10)).unwrap();
            socket
        });
        let (accepted, _) = listeners[0].accept().unwrap();
        assert_eq!(original_destination(&accepted), target);
    }

    /// DP-T34: rules that leave one family out are found by the proof: no record, no success.
    fn rules_for_one_family_only_are_not_taken_for_capture(backend) {
        let pod = Pod::new(backend);
        let tools = tools(&pod);
        if backend == "nft" {
            let only_v4 = "if [ \"$1\" = -f ]; then sed -e 's/table inet/table ip/' -e '/ip6/d' -e '/skip_net6/,/}/d' | /usr/sbin/real-nft -f -; else exec /usr/sbin/real-nft \"$@\"; fi";
            replace_tool(&tools, "nft", only_v4);
        } else {
            replace_tool(&tools, "ip6tables-restore", "cat >/dev/null");
        }
        let complaint = fail(&mut pod.redirect_with_tools(&tools));
        assert!(complaint.contains("IPv6: a connection to [2001:db8::1]"), "{complaint}");
        assert!(complaint.contains("not captured"), "{complaint}");
        assert_eq!(pod.record(), None);
    }

    /// DP-T35: a rule text that the kernel's tool refuses leaves nothing installed, not even a
    /// part, and no record.
    fn a_refused_rule_text_leaves_nothing_installed(backend) {
        let pod = Pod::new(backend);
        let tools = tools(&pod);
        if backend == "nft" {
            let broken = "if [ \"$1\" = -f ]; then (cat; echo broken) | /usr/sbin/real-nft -f -; else exec /usr/sbin/real-nft \"$@\"; fi";
            replace_tool(&tools, "nft", broken);
        } else {
            replace_tool(&tools, "ip6tables-restore", &breaks_once(&tools));
        }
        let complaint = fail(&mut pod.redirect_with_tools(&tools));
        assert!(complaint.contains("capture was not installed"), "{complaint}");
        assert!(complaint.contains("broken"), "{complaint}");
        assert_eq!(pod.installed(), "");
        assert_eq!(pod.record(), None);
    }

    /// A call that fails leaves earlier rules and their jumps as they were.
    fn a_refused_rule_text_leaves_earlier_rules_in_place(backend) {
        let pod = Pod::new(backend);
        let tools = tools(&pod);
        succeed(&mut pod.redirect(&["--skip-outbound-ports", "5432"]));
        let before = pod.installed();
        if backend == "nft" {
            let broken = "if [ \"$1\" = -f ]; then (cat; echo broken) | /usr/sbin/real-nft -f -; else exec /usr/sbin/real-nft \"$@\"; fi";
            replace_tool(&tools, "nft", broken);
        } else {
            replace_tool(&tools, "ip6tables-restore", &breaks_once(&tools));
        }
        let complaint = fail(&mut pod.redirect_with_tools(&tools));
        assert!(complaint.contains("broken"), "{complaint}");
        assert_eq!(pod.installed(), before);
        assert_eq!(pod.record(), None, "the earlier record does not survive a failed call");
    }

    /// DP-T36: an application that may set marks on its packets is captured nevertheless.
    fn a_mark_does_not_get_past_capture(backend) {
        let pod = Pod::new(backend);
        succeed(&mut pod.redirect(&[]));
        let listeners = pod.outbound_listeners();
        for mark in [1337, 0x539, SIDECAR_UID] {
            for (listener, target) in listeners.iter().zip(pod.network.c.sockets(8080)) {
                let _client = pod.network.a.namespace.run(ROOT_UID, || {
                    let socket = Socket::new(Domain::for_address(target), Type::STREAM, None).unwrap();
                    socket.set_mark(mark).unwrap();
                    socket.connect_timeout(&target.into(), Duration::from_secs(10)).unwrap();
                    socket
                });
                let (accepted, _) = listener.accept().unwrap();
                assert_eq!(original_destination(&accepted), target);
            }
        }
    }

    /// Without the right to change rules it says so and leaves no record.
    fn without_net_admin_nothing_is_installed(backend) {
        let pod = Pod::new(backend);
        let program = pod.program.to_str().unwrap();
        let mut command = pod.network.a.namespace.command(APPLICATION_UID, program);
        let state = pod.network.directory("state-of-the-application", APPLICATION_UID);
        command.args(["redirect", "--backend", backend, "--state-dir"]).arg(&state);
        let complaint = fail(&mut command);
        assert!(complaint.contains("capture was not installed"), "{complaint}");
        assert_eq!(pod.installed(), "");
    }

    /// With nobody on the outbound port, connections are refused: nothing leaves in plaintext.
    fn without_a_sidecar_connections_are_refused(backend) {
        let pod = Pod::new(backend);
        succeed(&mut pod.redirect(&[]));
        for target in pod.network.c.sockets(8080) {
            let _server = pod.network.c.namespace.run(APPLICATION_UID, || TcpListener::bind(target).unwrap());
            refused(&pod.network.a.namespace, APPLICATION_UID, target);
        }
        for target in pod.network.a.sockets(8080) {
            let _server = pod.network.a.namespace.run(APPLICATION_UID, || TcpListener::bind(target).unwrap());
            refused(&pod.network.c.namespace, APPLICATION_UID, target);
        }
    }
}

/// Kernels without nf_tables have the older interface; where its tools are, it works as well.
#[test]
fn captures_by_the_older_iptables_interface() {
    let test = "captures_by_the_older_iptables_interface";
    mesh_lite_test_support::needs_namespaces!(test);
    if requirements::program(test, "iptables-legacy-restore") {
        captures_both_families_and_exempts_one_user::scenario("iptables-legacy");
    }
}

/// DP-T35: settings that would leave a hole are refused, all of them at once, before anything is
/// installed.
#[test]
fn settings_that_would_leave_a_hole_are_refused_by_name() {
    let state = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh-lite"));
    command.args([
        "redirect",
        "--proxy-uid",
        "1337",
        "--skip-subnets",
        "0.0.0.0/0",
    ]);
    command
        .args(["--skip-inbound-ports", "15006", "--state-dir"])
        .arg(state.path());
    let complaint = fail(&mut command);
    for named in ["1337", "0.0.0.0/0", "15006"] {
        assert!(complaint.contains(named), "{complaint}");
    }
}

/// Leftovers of a killed run are found by name and removed.
#[test]
fn a_network_leaves_nothing_behind() {
    mesh_lite_test_support::needs_namespaces!("a_network_leaves_nothing_behind");
    let network = Network::new();
    let (name, home) = (network.node.name().to_owned(), network.home().to_owned());
    drop(network);
    let listed =
        String::from_utf8(finish(Command::new("ip").args(["netns", "list"])).stdout).unwrap();
    assert!(!listed.contains(&name), "{listed}");
    eventually("the directory is gone", || {
        if home.exists() {
            Err("it is there")
        } else {
            Ok(())
        }
    });
}
