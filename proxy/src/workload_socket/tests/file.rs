use std::{
    fs::{self, Permissions},
    os::unix::{fs::MetadataExt, net::UnixListener as StdUnixListener},
};

use super::*;

async fn open(path: &Path) -> Result<WorkloadSocket, WorkloadSocketError> {
    let metrics = Metrics::new(&MetricsPrefix::default(), 10);
    let config = WorkloadSocketConfig {
        path: path.to_owned(),
        users: Vec::new(),
    };
    let (_, identities) = watch::channel(None);
    WorkloadSocket::open(&config, identities, &metrics, crate::clock::now).await
}

#[tokio::test]
async fn the_socket_is_open_to_all_users_so_that_a_stranger_hears_why_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _socket = open(&path).await.unwrap();
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o666);
}

#[tokio::test]
async fn a_killed_sidecars_socket_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    // nobody removes it, as after a kill
    drop(StdUnixListener::bind(&path).unwrap());
    let _socket = open(&path).await.unwrap();
    UnixStream::connect(&path).await.unwrap();
}

#[tokio::test]
async fn a_socket_that_somebody_serves_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let _other = StdUnixListener::bind(&path).unwrap();
    let error = open(&path).await.unwrap_err();
    assert!(matches!(error, WorkloadSocketError::InUse(_)), "{error}");
    UnixStream::connect(&path).await.unwrap();
}

#[tokio::test]
async fn what_is_no_socket_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("file"), folder.path().join("link"));
    fs::write(&file, "precious").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link, &folder.path().to_owned()] {
        let error = open(path).await.unwrap_err();
        assert!(
            matches!(error, WorkloadSocketError::NotASocket(_)),
            "{error}"
        );
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent/socket");
    let error = open(&path).await.unwrap_err().to_string();
    assert!(
        error.contains("install -d -o") && error.contains("absent"),
        "{error}"
    );
}

#[tokio::test]
async fn a_file_that_took_the_sockets_place_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let socket = open(&path).await.unwrap();
    fs::remove_file(&path).unwrap();
    let _other = StdUnixListener::bind(&path).unwrap();
    socket.close().await;
    UnixStream::connect(&path).await.unwrap();
}

#[tokio::test]
async fn a_directory_in_which_others_may_replace_the_socket_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mode = |mode| fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
    for open_to_others in [0o777, 0o770, 0o722, 0o702] {
        mode(open_to_others);
        let error = open(&path).await.unwrap_err();
        assert!(
            matches!(error, WorkloadSocketError::OpenDirectory { .. }),
            "{open_to_others:o}: {error}"
        );
        assert!(error.to_string().contains("chmod"), "{error}");
        assert!(!path.exists());
    }
    for kept in [0o755, 0o700, 0o1777] {
        mode(kept);
        open(&path).await.unwrap().close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_touches_a_socket_while_another_sidecar_may_be_binding_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    // as another sidecar leaves it between its bind and its listen
    drop(StdUnixListener::bind(&path).unwrap());
    let other = fs::metadata(&path).unwrap().ino();
    let lock = fs::File::open(folder.path()).unwrap();
    lock.lock().unwrap();
    let error = open(&path).await.unwrap_err();
    assert!(matches!(error, WorkloadSocketError::Locked(_)), "{error}");
    assert_eq!(fs::metadata(&path).unwrap().ino(), other);
    drop(lock);
    tokio::time::resume();
    let _socket = open(&path).await.unwrap();
    UnixStream::connect(&path).await.unwrap();
}
