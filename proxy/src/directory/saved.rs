//! The directory in the state file: as the message that would bring it.

use mesh_lite_proto::{
    wire::mesh_lite::v1 as wire,
    workload_directory::{Answer, MeshSettings, Name},
};

use super::Shared;

pub(super) fn to_wire(shared: &Shared) -> wire::DirectoryResponse {
    let answers = shared.answers.load();
    let settings = shared.settings.load();
    wire::DirectoryResponse {
        revision: 0,
        mesh: Some(settings.as_ref().into()),
        answers: answers
            .iter()
            .map(|(name, known)| known.answer.to_wire(name))
            .collect(),
    }
}

/// Refuses everything if they can't be read: what they allowed may be over.
pub(super) fn settings(saved: &wire::DirectoryResponse) -> MeshSettings {
    saved
        .mesh
        .as_ref()
        .and_then(|settings| MeshSettings::try_from(settings).ok())
        .unwrap_or_default()
}

/// Those that can be read; the others are asked for like any new name.
pub(super) fn answers(
    saved: &wire::DirectoryResponse,
) -> impl Iterator<Item = (Name, Answer)> + '_ {
    saved.answers.iter().filter_map(|answer| {
        let name = Name::try_from(answer.name.as_ref()?).ok()?;
        Some((name, Answer::from_wire(answer, None).ok()?))
    })
}
