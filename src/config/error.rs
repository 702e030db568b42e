//! What is wrong with a configuration, and what is merely odd.
//!
//! Owns the messages' form: one line a finding, its key first, then the line of the file, then what is accepted.
//! No finding ever holds a value of the file (a token may stand at any key by mistake); paths of files are the one
//! exception, see `files`.

use std::fmt;
use std::io;

/// Something that keeps the controller from starting.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem(Finding);

/// Something that works, but probably not as meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Warning(Finding);

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Finding {
    /// The full key, `vault.addr`; empty where the file as a whole is meant.
    pub(super) key: String,
    pub(super) line: Option<usize>,
    /// Continues a sentence that starts with the key.
    pub(super) text: String,
}

impl Problem {
    pub(super) fn new(finding: Finding) -> Self {
        Self(finding)
    }

    /// The key that the problem is about; empty where it is the file as a whole.
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// The line of the file, from 1, where YAML gives one.
    pub fn line(&self) -> Option<usize> {
        self.0.line
    }
}

impl Warning {
    pub(super) fn new(finding: Finding) -> Self {
        Self(finding)
    }

    /// The key that the warning is about; empty where it is the file as a whole.
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// The line of the file, from 1, where YAML gives one.
    pub fn line(&self) -> Option<usize> {
        self.0.line
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = if self.key.is_empty() { "the file" } else { &self.key };
        match self.line {
            Some(line) => write!(f, "{key} (line {line}) {}", self.text),
            None => write!(f, "{key} {}", self.text),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why there is no configuration. Its `Display` is complete and may take several lines; exit code 2 belongs to it.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {path}: {cause}. Give its path with --config")]
    Read {
        /// The path as given.
        path: String,
        /// What the operating system said.
        cause: io::Error,
    },
    /// The file was read; this is everything that is wrong with it.
    #[error("{}", report(.problems, .warnings))]
    Invalid {
        /// What keeps us from starting. Never empty.
        problems: Vec<Problem>,
        /// What else is odd: a misspelt key is often why the right one is missing.
        warnings: Vec<Warning>,
    },
}

impl ConfigError {
    /// Everything that is wrong with the content; empty when there was none.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Read { .. } => &[],
            Self::Invalid { problems, .. } => problems,
        }
    }
}

fn report(problems: &[Problem], warnings: &[Warning]) -> String {
    let mut out = format!("the configuration has {}", list("problem", problems));
    if !warnings.is_empty() {
        out.push_str(&format!("\n\nand {}", list("warning", warnings)));
    }
    out
}

fn list(noun: &str, findings: &[impl fmt::Display]) -> String {
    let plural = if findings.len() == 1 { "" } else { "s" };
    let mut out = format!("{} {noun}{plural}:\n", findings.len());
    for finding in findings {
        out.push_str(&format!("\n* {finding}"));
    }
    out
}
