//! What tools on recorded connections have in common: which documents, which recordings, and what
//! is done with the answer.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::ValueEnum;
use mesh_lite_control_plane::{
    clock,
    policy_review::{Documents, NamedRecording, Recorded, workloads_of},
};
use serde_json::Value;

pub(crate) use self::{
    as_json::{caveats_json, errors_json, flips_json, recordings_json},
    wording::{MAX_SHOWN, SHIPPED_HINT, Wording, and_more, connections, seconds, thousands},
};
use super::DocumentArgs;
use crate::{
    recordings::{self, RecordingArgs},
    terminal::{self, Paint, harmless},
};

mod as_json;
mod wording;

/// Wrong usage, or something that can't be read: a script must not take it for an answer.
pub(crate) const UNREADABLE: u8 = 2;
/// Documents that are looked at by themselves.
#[derive(Debug, clap::Args)]
pub(crate) struct AloneArgs {
    /// Files, and directories with .yaml and .yml files.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    documents: DocumentArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl AloneArgs {
    /// Reads them, prints the answer, and exits with 1 if it is no good one.
    pub(crate) fn answer(
        &self,
        look: impl FnOnce(&Documents, Output) -> Answer,
    ) -> anyhow::Result<ExitCode> {
        unless_unreadable(|| {
            let documents = self.documents.read_some(&self.paths)?;
            let Answer { text, is_good } = look(&documents, self.output.output);
            terminal::print(&text)?;
            Ok(ExitCode::from(u8::from(!is_good)))
        })
    }
}

/// Which documents are tried on which recordings.
#[derive(Debug, clap::Args)]
pub(crate) struct ReviewArgs {
    /// Directory or file with documents, those of workloads included; may be repeated.
    #[arg(
        long,
        env = "MESH_LITE_CONFIG_DIR",
        value_delimiter = ',',
        required = true
    )]
    pub(crate) config_dir: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) documents: DocumentArgs,
    #[command(flatten)]
    pub(crate) recordings: RecordingArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// text for people, json for programs.
    #[arg(
        long,
        help_heading = "Output",
        env = "MESH_LITE_OUTPUT",
        value_enum,
        default_value_t = Output::Text,
        value_name = "FORM"
    )]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Text,
    Json,
}

/// Everything that was read.
struct Reviewed {
    documents: Documents,
    recordings: Vec<recordings::NamedRecording>,
}

impl ReviewArgs {
    /// # Errors
    /// If documents or recordings can't be read.
    fn read(&self) -> anyhow::Result<Reviewed> {
        Ok(Reviewed {
            documents: self.documents.read(&self.config_dir)?,
            recordings: self.recordings.read()?,
        })
    }
}

impl Reviewed {
    /// # Errors
    /// If it is not clear which workload a recording is of.
    fn recorded(&self, now: SystemTime) -> anyhow::Result<Vec<Recorded<'_>>> {
        let named = named(&self.recordings);
        Ok(workloads_of(&self.documents, &named, now)?)
    }
}

pub(crate) fn named(recordings: &[recordings::NamedRecording]) -> Vec<NamedRecording<'_>> {
    recordings
        .iter()
        .map(|one| NamedRecording {
            name: &one.name,
            recording: &one.recording,
        })
        .collect()
}

/// What a tool was asked to look at, and how it is to say what it found.
pub(crate) struct Question<'a> {
    pub(crate) recorded: &'a [Recorded<'a>],
    pub(crate) wording: Wording<'a>,
    pub(crate) output: Output,
}

impl Question<'_> {
    /// What is printed, in the form that was asked for.
    pub(crate) fn answer(
        &self,
        is_good: bool,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> Answer {
        self.output.answer(is_good, json, text)
    }
}

impl Output {
    /// As [`Question::answer`].
    pub(crate) fn answer(
        self,
        is_good: bool,
        json: impl FnOnce() -> Value,
        text: impl FnOnce() -> String,
    ) -> Answer {
        let text = match self {
            Self::Json => format!("{}\n", terminal::json(&json())),
            Self::Text => text(),
        };
        Answer { text, is_good }
    }
}

/// What a tool prints, and whether there was nothing to be found.
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) is_good: bool,
}

impl ReviewArgs {
    /// Reads what is named, prints the answer, and exits with 1 if there was something to be
    /// found or a document can't be loaded.
    pub(crate) fn answer(
        &self,
        look: impl FnOnce(&Question<'_>) -> Answer,
    ) -> anyhow::Result<ExitCode> {
        unless_unreadable(|| {
            let reviewed = self.read()?;
            let now = clock::now();
            let recorded = reviewed.recorded(now)?;
            let documents = &reviewed.documents;
            let Answer { text, is_good } = look(&Question {
                recorded: &recorded,
                wording: Wording {
                    documents,
                    shipped_is_assumed: self.documents.shipped_is_assumed(),
                    now,
                    paint: Paint::for_stdout(),
                },
                output: self.output.output,
            });
            terminal::print(&text)?;
            let is_good = is_good && documents.errors().is_empty();
            Ok(ExitCode::from(u8::from(!is_good)))
        })
    }
}

/// What stops a tool is no finding: exit code 2.
pub(crate) fn unless_unreadable(
    run: impl FnOnce() -> anyhow::Result<ExitCode>,
) -> anyhow::Result<ExitCode> {
    run().or_else(|error| {
        for line in format!("{error:#}").lines() {
            eprintln!("mesh-lite: {}", harmless(line));
        }
        Ok(ExitCode::from(UNREADABLE))
    })
}

/// A number and one of s, m, h, d.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number and one of s, m, h, d: 24h".to_owned();
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(wrong()),
    };
    let number = text.strip_suffix(unit).unwrap_or_default();
    let number: u64 = number.parse().map_err(|_| wrong())?;
    match number.checked_mul(seconds) {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(wrong()),
    }
}

/// So long before now; of all time, if that is before there were clocks.
pub(crate) fn from(since: Duration, now: SystemTime) -> SystemTime {
    now.checked_sub(since).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_number_and_a_unit() {
        assert_eq!(span("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(span("24h"), span("1d"));
        for wrong in [
            "",
            "s",
            "24",
            "-1h",
            "1.5h",
            "24 h",
            "0s",
            "h24",
            "99999999999999999999d",
            "1é",
        ] {
            assert!(span(wrong).is_err(), "{wrong:?}");
        }
    }
}
