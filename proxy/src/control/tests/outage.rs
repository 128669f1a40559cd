//! What stays while the control plane is away, and over a restart.

use std::path::Path;

use super::*;
use crate::directory::DirectoryUnavailable;

#[tokio::test]
async fn answers_stay_while_the_control_plane_is_away_and_are_asked_for_again() {
    let mut server = ScriptedControlPlane::start();
    let (name, answer) = api(API);
    server.say(|script| drop(script.answers.insert(name.clone(), answer.clone())));
    let sidecar = start(&server);
    sidecar.identity().await;
    let directory = &sidecar.handles.directory;
    directory.resolve(&name).await.unwrap();
    server.kill();
    eventually("the loss", || {
        (!sidecar.handles.status.borrow().directory.connected).then_some(())
    })
    .await;
    assert_eq!(*directory.known(&name).unwrap(), answer);
    let unknown = Name::Address([10, 0, 0, 99].into());
    assert_eq!(
        directory.resolve(&unknown).await,
        Err(DirectoryUnavailable::NoAnswer {
            name: unknown.clone()
        })
    );
    let (_, changed) = api("spiffe://a.test/ns/shop/sa/new");
    server.forget_events();
    server.say(|script| drop(script.answers.insert(name.clone(), changed.clone())));
    server.revive().await;
    eventually("the change", || {
        directory.known(&name).filter(|it| **it == changed)
    })
    .await;
    let asked = server.events().into_iter().find_map(|event| match event {
        Event::Subscribed(names) => Some(names),
        _ => None,
    });
    let asked = asked.unwrap();
    assert!(
        asked.contains(&name) && asked.contains(&unknown),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_restart_while_the_control_plane_is_away_serves_what_it_knew() {
    let mut server = ScriptedControlPlane::start();
    let (name, answer) = api(API);
    server.say(|script| {
        script.policy = Some(policy(5, "a.test/ns/shop/sa/guest"));
        script.answers.insert(name.clone(), answer.clone());
        script.settings.mesh_cidrs = vec!["10.0.0.0/8".parse().unwrap()];
    });
    let files = files();
    let sidecar = start_with(config(&server, &files), &files);
    let before = sidecar.identity().await;
    let policy_before = sidecar.policy(5).await;
    sidecar.handles.directory.resolve(&name).await.unwrap();
    saved(files.path(), |facts| {
        facts.policy.is_some()
            && facts
                .directory
                .as_ref()
                .is_some_and(|it| !it.answers.is_empty())
    })
    .await;
    drop(sidecar);
    server.kill();

    let token_is_used_up = ControlConfig {
        token_file: None,
        ..config(&server, &files)
    };
    let sidecar = start_with(token_is_used_up, &files);
    let identity = sidecar
        .identity_now()
        .expect("at once, without the control plane");
    assert_eq!(identity.leaf, before.leaf);
    assert_eq!(sidecar.policy_now().unwrap(), policy_before);
    assert_eq!(*sidecar.handles.directory.known(&name).unwrap(), answer);
    assert_eq!(sidecar.handles.directory.settings().mesh_cidrs.len(), 1);
    server.revive().await;
    eventually("the streams", || {
        let status = sidecar.handles.status.borrow().clone();
        (status.policy.connected && status.directory.connected).then_some(())
    })
    .await;
}

/// Waits until the state file holds what is looked for.
async fn saved(directory: &Path, look: impl Fn(&crate::identity::state_file::SavedFacts) -> bool) {
    let file = StateFile::in_directory(directory);
    eventually("the state file", || {
        let state = file.read().ok().flatten()?;
        (state.key.is_some() && look(&state.rest)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_state_of_another_pod_is_not_used() {
    let mut server = ScriptedControlPlane::start();
    let files = files();
    let sidecar = start_with(config(&server, &files), &files);
    sidecar.identity().await;
    saved(files.path(), |_| true).await;
    drop(sidecar);
    server.kill();
    let other = ControlConfig {
        pod_uid: "pod-2".to_owned(),
        ..config(&server, &files)
    };
    let sidecar = start_with(other, &files);
    assert!(sidecar.identity_now().is_none());
    sidecar.issuing_error_with("can't connect to").await;
}
