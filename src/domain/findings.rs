//! What `check` has found: each finding with its cause in one sentence, and what to do.
//!
//! Pure. Owns the levels, and the form of our texts: "cause; remedy".

/// What a finding is about. Findings are shown by these, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// The configuration file.
    Configuration,
    /// The API server, and our rights there.
    Kubernetes,
    /// Vault, and our token there.
    Vault,
    /// What waiting pods ask for.
    AppRoles,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Configuration, Self::Kubernetes, Self::Vault, Self::AppRoles];

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Configuration => "Configuration",
            Self::Kubernetes => "Kubernetes",
            Self::Vault => "Vault",
            Self::AppRoles => "AppRoles",
        }
    }

    /// For programs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Kubernetes => "kubernetes",
            Self::Vault => "vault",
            Self::AppRoles => "appRoles",
        }
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// The controller works without, and does less.
    Warning,
    /// The controller, or a pod, does not work.
    Error,
}

impl Level {
    /// Its name.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub group: Group,
    /// How much it matters.
    pub level: Level,
    /// What is so, in one sentence without its end.
    pub cause: String,
    /// What to do.
    pub remedy: Option<String>,
}

impl Finding {
    /// A finding whose text is "cause" or "cause; remedy".
    pub fn new(group: Group, level: Level, text: &str) -> Self {
        let (cause, remedy) = match text.split_once("; ") {
            Some((cause, remedy)) => (cause, Some(remedy.to_owned())),
            None => (text, None),
        };
        Self { group, level, cause: cause.to_owned(), remedy }
    }

    /// As it should be.
    pub fn ok(group: Group, text: impl Into<String>) -> Self {
        Self { group, level: Level::Ok, cause: text.into(), remedy: None }
    }
}

/// The worst level among `findings`.
pub fn worst(findings: &[Finding]) -> Level {
    findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_cause_and_a_remedy() {
        let finding = Finding::new(Group::Vault, Level::Error, "Vault is sealed; unseal it; then wait");
        assert_eq!(finding.cause, "Vault is sealed");
        assert_eq!(finding.remedy.as_deref(), Some("unseal it; then wait"));
        assert_eq!(Finding::new(Group::Vault, Level::Error, "it is so").remedy, None);
    }

    #[test]
    fn the_worst_level_counts() {
        let of = |level| Finding::new(Group::Vault, level, "x");
        assert_eq!(worst(&[]), Level::Ok);
        assert_eq!(worst(&[of(Level::Ok), of(Level::Warning)]), Level::Warning);
        assert_eq!(worst(&[of(Level::Error), of(Level::Warning)]), Level::Error);
    }
}
