//! What happens to a sidecar and its capture in a pod's life: volumes as the kubelet makes them,
//! restarts, a lost sandbox, debug containers, the end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use mesh_lite_proxy::identity::state_file::StateFile;
use mesh_lite_test_support::applications::{Client, Ending, Server, converse, http_get};
use mesh_lite_test_support::mesh::{
    API_ID, API_VIPS, DOCUMENT_FILE, DOCUMENTS, WEB_ID, redirect_command,
};
use mesh_lite_test_support::process::{fail, succeed};
use mesh_lite_test_support::{
    APPLICATION_UID, Mesh, MeshSettings, Pod, ROOT_UID, SIDECAR_UID, eventually, needs_namespaces,
};
use rustix::process::Signal;

/// Of a pod with an fsGroup.
const FS_GROUP: u32 = 4000;
/// As the injector sets them for a native sidecar: when it is asked to end, the application is gone.
const NATIVE: [&str; 4] = ["--drain-delay", "0", "--shutdown-grace-period", "1"];

fn settings() -> MeshSettings {
    MeshSettings::captured_by(env!("CARGO_BIN_EXE_mesh-lite"), "auto").proxy(&NATIVE)
}

/// A memory volume as the kubelet makes it: root's, and everybody's to write.
fn volume(mesh: &Mesh, name: &str, fs_group: Option<u32>) -> PathBuf {
    let path = mesh.network.home().join(name);
    fs::create_dir(&path).unwrap();
    chown(&path, Some(ROOT_UID), fs_group).unwrap();
    let mode = if fs_group.is_some() { 0o2777 } else { 0o777 };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    path
}

/// `redirect` as the injector's init container runs it.
fn redirect(mesh: &Mesh, pod: &Pod, volume: &Path) {
    let (program, state) = (mesh.program(), volume.join("capture"));
    succeed(&mut redirect_command(
        &pod.namespace,
        program,
        "auto",
        &state,
        &[],
    ));
}

/// The sidecar with its state on the volume; what it is started with.
fn on_volume(
    mesh: &Mesh,
    letter: char,
    workload: &str,
    volume: &Path,
) -> (Vec<String>, PathBuf, u32) {
    let (mut arguments, data, uid) = mesh.sidecar_command(letter, workload, SIDECAR_UID);
    for (flag, folder) in [
        ("--data-dir", "sidecar"),
        ("--capture-state-dir", "capture"),
    ] {
        let at = arguments.iter().position(|text| text == flag).unwrap();
        arguments[at + 1] = volume.join(folder).display().to_string();
    }
    (arguments, data, uid)
}

/// A mesh whose pods a and b are as the injector makes them; b's volume.
fn started(settings: MeshSettings, fs_group: Option<u32>) -> (Mesh, PathBuf) {
    let mut mesh = settings.start_control_plane();
    let mut of_b = PathBuf::new();
    for (letter, workload) in [('a', "shop/web-1"), ('b', "shop/api-1")] {
        let volume = volume(&mesh, &format!("volume-{letter}"), fs_group);
        let pod = if letter == 'a' {
            &mesh.network.a
        } else {
            &mesh.network.b
        };
        redirect(&mesh, pod, &volume);
        let command = on_volume(&mesh, letter, workload, &volume);
        mesh.start_sidecar_as(letter, command);
        of_b = volume;
    }
    mesh.a().wait_ready(&mesh.network);
    mesh.b().wait_ready(&mesh.network);
    (mesh, of_b)
}

/// The serial number of a sidecar's certificate.
fn serial(pod: &Pod) -> String {
    let admin = SocketAddr::from(([127, 0, 0, 1], 15000));
    let (status, page) = http_get(&pod.namespace, admin, "/identity").unwrap();
    assert_eq!(status, 200, "{page}");
    let line = page.lines().find(|line| line.contains("\"serial"));
    line.unwrap_or_else(|| panic!("{page}")).trim().to_owned()
}

/// Waits until sidecar b could do without the control plane.
fn policy_is_saved(mesh: &Mesh, volume: &Path) {
    let file = StateFile::in_directory(&volume.join("sidecar"));
    eventually("the policy is saved", || {
        // nobody else may read it
        let read = mesh.network.b.namespace.run(SIDECAR_UID, || file.read());
        let saved = read.map_err(|error| error.to_string())?;
        let policy = saved.and_then(|saved| saved.rest.policy);
        policy.map(|_| ()).ok_or_else(|| "no policy".to_owned())
    });
}

fn mode(path: &Path) -> (u32, u32) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.uid(), metadata.mode() & 0o777)
}

#[test]
fn each_container_makes_its_own_directory_on_the_shared_volume() {
    needs_namespaces!("each_container_makes_its_own_directory_on_the_shared_volume");
    for fs_group in [None, Some(FS_GROUP)] {
        let (mesh, volume) = started(settings(), fs_group);
        assert_eq!(mode(&volume.join("sidecar")), (SIDECAR_UID, 0o700));
        assert_eq!(mode(&volume.join("capture")), (ROOT_UID, 0o755));
        assert_eq!(
            mode(&volume.join("capture/capture.json")),
            (ROOT_UID, 0o644)
        );
        // not even a container of the pod that got at the volume reads the key
        let unreadable = mesh
            .network
            .b
            .namespace
            .run(APPLICATION_UID, || fs::read_dir(volume.join("sidecar")));
        assert_eq!(
            unreadable.err().map(|error| error.kind()),
            Some(std::io::ErrorKind::PermissionDenied)
        );
        let to = SocketAddr::from((mesh.network.b.v4, 8080));
        let _server = Server::greeting(&mesh.network.b.namespace, to, "from b");
        assert_eq!(converse(&mesh.network.a.namespace, to).unwrap(), "from b");
    }
}

/// The sidecar alone crashes and the kubelet restarts it; nobody is there to issue a certificate.
#[test]
fn a_restarted_sidecar_keeps_its_identity_while_the_control_plane_is_away() {
    needs_namespaces!("a_restarted_sidecar_keeps_its_identity_while_the_control_plane_is_away");
    let (mut mesh, volume) = started(settings(), None);
    let before = serial(&mesh.network.b);
    let _servers = mesh
        .network
        .b
        .sockets(8080)
        .map(|to| Server::greeting(&mesh.network.b.namespace, to, "from b"));
    // asked for while there was somebody to ask
    let all_reached = |mesh: &Mesh| {
        for to in mesh.network.b.sockets(8080) {
            assert_eq!(converse(&mesh.network.a.namespace, to).unwrap(), "from b");
        }
    };
    all_reached(&mesh);
    policy_is_saved(&mesh, &volume);
    mesh.kill_control_plane();
    mesh.b_mut().kill();
    mesh.start_sidecar_again('b');
    assert_eq!(serial(&mesh.network.b), before);
    all_reached(&mesh);
}

/// The node restarts or the sandbox dies: same pod and volume, another network and address.
#[test]
fn after_a_lost_sandbox_capture_is_proved_anew_and_the_identity_stays() {
    needs_namespaces!("after_a_lost_sandbox_capture_is_proved_anew_and_the_identity_stays");
    let mut mesh = settings().start_control_plane();
    let volume = volume(&mesh, "volume-b", None);
    redirect(&mesh, &mesh.network.b, &volume);
    let command = on_volume(&mesh, 'b', "shop/api-1", &volume);
    mesh.start_sidecar_as('b', command.clone());
    mesh.b().wait_ready(&mesh.network);
    let before = serial(&mesh.network.b);
    mesh.b_mut().kill();

    // the new sandbox; its address in place of the old one's
    let (old, new) = (&mesh.network.b, &mesh.network.c);
    let moved = DOCUMENTS
        .replace(&old.v4.to_string(), &new.v4.to_string())
        .replace(&old.v6.to_string(), &new.v6.to_string());
    mesh.write_documents(DOCUMENT_FILE, &moved);
    mesh.start_sidecar_as('c', command);
    let reason = eventually("the old record is refused", || {
        match mesh.sidecar('c').readiness(&mesh.network) {
            Ok((503, text)) if text.contains("namespace") => Ok(text),
            other => Err(format!("{other:?}")),
        }
    });
    assert!(reason.contains("redirect"), "{reason}");
    redirect(&mesh, &mesh.network.c, &volume);
    mesh.sidecar('c').wait_ready(&mesh.network);
    assert_eq!(serial(&mesh.network.c), before);
    mesh.capture('a');
    mesh.start_sidecar('a');
    mesh.a().wait_ready(&mesh.network);
    for to in mesh.network.c.sockets(8080) {
        let _server = Server::greeting(&mesh.network.c.namespace, to, "moved");
        let greeted = eventually("the new address is known", || {
            converse(&mesh.network.a.namespace, to)
        });
        assert_eq!(greeted, "moved");
    }
    mesh.sidecar('c')
        .log()
        .wait_for(&[("direction", "inbound"), ("dst.identity", API_ID)]);
}

/// `kubectl debug`: another image and user, the same network namespace.
#[test]
fn a_debug_container_is_captured_like_the_application() {
    needs_namespaces!("a_debug_container_is_captured_like_the_application");
    let (mesh, _) = started(settings(), None);
    let from = &mesh.network.a.namespace;
    let to = SocketAddr::from((mesh.network.b.v4, 8080));
    let server = Server::greeting(&mesh.network.b.namespace, to, "from b");
    for (tries, uid) in [ROOT_UID, 4711].into_iter().enumerate() {
        let mut client = Client::connect_as(from, uid, to).unwrap();
        assert!(client.line().unwrap().ends_with("from b"));
        // what reached the application came from its sidecar
        let peers = server.peers();
        assert_eq!((peers.len(), peers[tries].ip()), (tries + 1, to.ip()));
        drop(client);
    }
    let opens = [
        ("event", "open"),
        ("direction", "outbound"),
        ("src.identity", WEB_ID),
    ];
    eventually("both are on record", || {
        let seen = mesh.a().log().count(&opens);
        (seen == 2).then_some(()).ok_or(seen)
    });
}

/// Own service (hairpin) and own address, both families; then another pod by its address, as
/// headless services and StatefulSets are reached.
#[test]
fn a_pod_reaches_itself_and_pods_by_their_address() {
    needs_namespaces!("a_pod_reaches_itself_and_pods_by_their_address");
    let (mesh, _) = started(settings(), None);
    let b = &mesh.network.b;
    // either family's endpoint may be picked for a service
    let _servers = b
        .sockets(8080)
        .map(|own| Server::greeting(&b.namespace, own, "from b"));
    for (vip, own) in API_VIPS.into_iter().zip(b.sockets(8080)) {
        assert_eq!(converse(&b.namespace, (vip, 8080)).unwrap(), "from b");
        let to = SocketAddr::new(vip, 8080).to_string();
        mesh.b().log().wait_for(&[
            ("direction", "outbound"),
            ("original_dst", &to),
            ("dst.identity", API_ID),
        ]);
        // the own address does not leave the pod: nobody stands between
        assert_eq!(converse(&b.namespace, own).unwrap(), "from b");
        assert_eq!(converse(&mesh.network.a.namespace, own).unwrap(), "from b");
    }
    mesh.b()
        .log()
        .wait_for(&[("direction", "inbound"), ("src.identity", API_ID)]);
}

/// A native sidecar is asked to end when the application is gone; a Job's success is its exit code.
#[test]
fn a_native_sidecar_ends_well_with_its_log_written() {
    needs_namespaces!("a_native_sidecar_ends_well_with_its_log_written");
    let (mut mesh, _) = started(settings(), None);
    let to = SocketAddr::from((mesh.network.b.v4, 8080));
    let _server = Server::greeting(&mesh.network.b.namespace, to, "from b");
    let mut held = Client::connect(&mesh.network.a.namespace, to).unwrap();
    held.line().unwrap();
    mesh.b().signal(Signal::TERM);
    let status = mesh.b_mut().ended();
    assert_eq!(status.code(), Some(0), "{}", mesh.b().output());
    assert!(matches!(held.ending(), Ending::Reset(_)));
    let closed = [("event", "close"), ("direction", "inbound")];
    assert_eq!(mesh.b().log().count(&closed), 1, "written before it ended");
    // nobody is connected any more: nothing to wait for
    mesh.a().signal(Signal::TERM);
    assert_eq!(mesh.a_mut().ended().code(), Some(0));
}

/// Manifests leave variables behind that are set to nothing.
#[test]
fn empty_settings_are_no_settings() {
    let program = env!("CARGO_BIN_EXE_mesh-lite");
    for role in ["proxy", "redirect"] {
        let help = succeed(Command::new(program).args([role, "--help"]));
        let variables: Vec<String> = help
            .split("[env: ")
            .skip(1)
            .filter_map(|rest| rest.split(['=', ']']).next())
            .map(str::to_owned)
            .collect();
        assert!(variables.len() >= 5, "{variables:?}");
        let mut command = Command::new(program);
        command.arg(role);
        for variable in variables {
            command.env(variable, "");
        }
        let complaint = fail(&mut command);
        assert!(
            complaint.contains("required arguments were not provided"),
            "{complaint}"
        );
        assert!(!complaint.contains("invalid value"), "{complaint}");
        // never a redirect that might capture this machine
        if role == "redirect" {
            continue;
        }
        command.args([
            "--control-plane",
            "localhost:1",
            "--trust-bundle",
            "/no/bundle",
        ]);
        command.args(["--data-dir", "/no/such/dir"]);
        let complaint = fail(&mut command);
        assert!(complaint.contains("/no/such/dir"), "{complaint}");
    }
}
