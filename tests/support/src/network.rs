//! Three pods on a bridge inside a namespace that plays the node.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::leftovers;
use crate::namespace::Namespace;

pub const NODE_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const NODE_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// Pod c under addresses that belong to no network of the mesh.
pub const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 12);
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 0x12);
/// In the pods' network, but nobody has it.
pub const DEAD_V4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 99);
pub const DEAD_V6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x99);
/// The bridge inside the node's namespace.
pub const BRIDGE: &str = "br0";

/// A namespace on the bridge.
#[derive(Debug)]
pub struct Pod {
    pub namespace: Namespace,
    pub v4: Ipv4Addr,
    pub v6: Ipv6Addr,
}

impl Pod {
    /// This pod's address of the same family as `like`.
    pub fn address_like(&self, like: IpAddr) -> IpAddr {
        if like.is_ipv4() {
            self.v4.into()
        } else {
            self.v6.into()
        }
    }

    /// Both addresses with a port: for what has to hold for both families.
    pub fn sockets(&self, port: u16) -> [SocketAddr; 2] {
        [(self.v4, port).into(), (self.v6, port).into()]
    }
}

#[derive(Debug)]
pub struct Network {
    pub a: Pod,
    pub b: Pod,
    pub c: Pod,
    pub node: Namespace,
    /// Removed with the network; readable by every user.
    directory: PathBuf,
}

impl Network {
    pub fn new() -> Self {
        leftovers::sweep();
        let name = leftovers::unique_name();
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let node = Namespace::create(format!("{name}-node"));
        node.run(0, || {
            write_setting("net/ipv4/ip_forward", "1");
            write_setting("net/ipv6/conf/all/forwarding", "1");
            write_setting("net/ipv6/conf/default/accept_dad", "0");
        });
        ip(
            &node,
            &[
                format!(
                    "link add {BRIDGE} type bridge forward_delay 0 stp_state 0 mcast_snooping 0"
                ),
                format!("link set {BRIDGE} up"),
                format!("addr add {NODE_V4}/24 dev {BRIDGE}"),
                format!("addr add {NODE_V6}/64 dev {BRIDGE} nodad"),
                format!("route add 198.51.100.0/24 dev {BRIDGE}"),
                format!("route add 2001:db8:77::/64 dev {BRIDGE}"),
            ],
        );
        let [a, b, c] = [("a", 0x10, 10), ("b", 0x11, 11), ("c", 0x12, 12)]
            .map(|(letter, v6, v4)| pod(&node, &name, letter, v4, v6));
        ip(
            &c.namespace,
            &[
                format!("addr add {OUTSIDE_V4}/32 dev eth0"),
                format!("addr add {OUTSIDE_V6}/128 dev eth0 nodad"),
            ],
        );
        Self {
            a,
            b,
            c,
            node,
            directory,
        }
    }

    /// A new directory that belongs to `uid` alone.
    pub fn directory(&self, name: &str, uid: u32) -> PathBuf {
        let path = self.directory.join(name);
        fs::create_dir(&path).unwrap();
        chown(&path, Some(uid), Some(uid)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// The directory of everything in this network.
    pub fn home(&self) -> &Path {
        &self.directory
    }

    pub fn pods(&self) -> [&Pod; 3] {
        [&self.a, &self.b, &self.c]
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for pod in self.pods() {
                let _ = Command::new("ip")
                    .args(["-n", pod.namespace.name(), "addr"])
                    .status();
            }
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn pod(node: &Namespace, network: &str, letter: &str, v4: u8, v6: u16) -> Pod {
    let namespace = Namespace::create(format!("{network}-{letter}"));
    let v4 = Ipv4Addr::new(10, 77, 0, v4);
    let v6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, v6);
    namespace.run(0, || write_setting("net/ipv6/conf/default/accept_dad", "0"));
    let pod_name = namespace.name();
    ip(
        node,
        &[
            format!("link add veth-{letter} type veth peer name eth0 netns {pod_name}"),
            format!("link set veth-{letter} master {BRIDGE} up"),
        ],
    );
    ip(
        &namespace,
        &[
            "link set eth0 up".to_owned(),
            format!("addr add {v4}/24 dev eth0"),
            format!("addr add {v6}/64 dev eth0 nodad"),
            format!("route add default via {NODE_V4}"),
            format!("route add default via {NODE_V6}"),
        ],
    );
    Pod { namespace, v4, v6 }
}

/// Writes a network setting of the namespace that the calling thread is in.
pub fn write_setting(path: &str, value: &str) {
    let path = Path::new("/proc/sys").join(path);
    fs::write(&path, value).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Runs lines of `ip` inside a namespace.
pub fn ip(namespace: &Namespace, lines: &[String]) {
    let mut child = Command::new("ip")
        .args(["-n", namespace.name(), "-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let text = lines.join("\n") + "\n";
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "ip in {}: {}\n{text}",
        namespace.name(),
        String::from_utf8_lossy(&output.stderr)
    );
}
