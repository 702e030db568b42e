//! The commands that people type beside the running controller: what each prints, and its exit code.
//!
//! Owns no decision. A command waits for nothing without a limit.

use super::check;
use crate::cli::{Command, EXIT_NOT_WELL, EXIT_USAGE, EXIT_WELL, Output, Version};
use crate::config::{Config, ConfigError, Source};
use crate::control::{self, ClientError, Request};
use crate::domain::findings::{Level, worst};
use crate::print::{Paint, View, pretty};

/// What a command has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// With its last line's end.
    pub text: String,
    /// The exit code.
    pub code: u8,
}

/// Why a command has nothing to say.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It needs to know where the controller is.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The controller does not answer.
    #[error(transparent)]
    Control(#[from] ClientError),
}

impl CommandError {
    /// The exit code that belongs to it.
    pub fn code(&self) -> u8 {
        match self {
            Self::Config(_) => EXIT_USAGE,
            Self::Control(_) => EXIT_NOT_WELL,
        }
    }
}

/// Carries out `command`, for the configuration at `config`. Text is painted with `paint`.
///
/// # Errors
/// Why it cannot, in words for whoever has typed it.
pub async fn carry_out(command: &Command, config: &Source, paint: Paint) -> Result<Said, CommandError> {
    let view = |output: &Output| match output {
        Output::Text => View::Text(paint),
        Output::Json => View::Json,
    };
    let (request, view) = match command {
        // The caller runs the controller itself, and needs nobody to make manifests.
        Command::Run | Command::Manifests(_) => return Ok(Said { text: String::new(), code: EXIT_WELL }),
        Command::Version { output } => {
            let version = Version::of_this_build();
            let text = if *output == Output::Json { pretty(&version) } else { format!("{version}\n") };
            return Ok(Said { text, code: EXIT_WELL });
        }
        Command::Check { output } => {
            let checked = check::check(config).await;
            let code = match (checked.configured, worst(&checked.findings)) {
                (false, _) => EXIT_USAGE,
                (true, Level::Error) => EXIT_NOT_WELL,
                (true, Level::Ok | Level::Warning) => EXIT_WELL,
            };
            return Ok(Said { text: crate::check::report(&checked.findings, view(output)), code });
        }
        Command::Status { output } => (Request::Status, view(output)),
        Command::Explain { pod, output, .. } => (Request::Explain { pod: pod.clone() }, view(output)),
        Command::Recover { yes, output } => (Request::Recover { confirm: *yes }, view(output)),
    };
    let (config, _) = Config::load(config)?;
    let answer = control::ask(&config.raft_dir, &request).await?;
    let report = control::report(&answer, view);
    Ok(Said { text: report.text, code: if report.well { EXIT_WELL } else { EXIT_NOT_WELL } })
}
