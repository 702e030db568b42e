//! The section `log`.
//!
//! Owns the names of levels and formats, which the command line shares.

use std::str::FromStr;

use super::lenient::{Context, Section};

/// What is logged, and how. The flags `--log-level` and `--log-format` win over these keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Log {
    /// `log.level`: `debug`, `info`, `warn` or `error`. Default `debug`.
    pub level: Level,
    /// `log.format`: `text` or `json`. Default `text`.
    pub format: Format,
}

/// The least severity that is logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Level {
    /// Everything. The default, as in the Go version.
    #[default]
    Debug,
    /// What happens to pods, and changes of state.
    Info,
    /// What is wrong but heals or can wait.
    Warn,
    /// What somebody has to look at.
    Error,
}

/// The form of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    /// For people. The default.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Level {
    /// All levels, least severe first, by the names that are accepted.
    pub const ALL: [(&str, Self); 4] =
        [("debug", Self::Debug), ("info", Self::Info), ("warn", Self::Warn), ("error", Self::Error)];

    /// The name, as accepted.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

impl Format {
    /// All formats, by the names that are accepted.
    pub const ALL: [(&str, Self); 2] = [("text", Self::Text), ("json", Self::Json)];
}

/// A name that is none of those accepted.
#[derive(Debug, thiserror::Error)]
#[error("must be one of {accepted}")]
pub struct UnknownName {
    accepted: String,
}

impl FromStr for Level {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        by_name(text, &Self::ALL)
    }
}

impl FromStr for Format {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        by_name(text, &Self::ALL)
    }
}

fn by_name<T: Copy>(text: &str, all: &[(&str, T)]) -> Result<T, UnknownName> {
    all.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|&(_, value)| value).ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|&(name, _)| name).collect();
        UnknownName { accepted: names.join(", ") }
    })
}

pub(super) fn read(section: &Section<'_>, cx: &mut Context<'_>) -> Log {
    Log { level: choice(section, "level", cx), format: choice(section, "format", cx) }
}

fn choice<T: FromStr<Err = UnknownName> + Default>(section: &Section<'_>, name: &str, cx: &mut Context<'_>) -> T {
    let Some(setting) = section.text(name, cx) else {
        return T::default();
    };
    setting.value.parse().unwrap_or_else(|error: UnknownName| {
        cx.problem(&setting.spot, error.to_string());
        T::default()
    })
}
