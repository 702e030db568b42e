//! What can be printed: an installation, or something that goes with one.

/// A documented case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Case {
    /// One replica, for a trial.
    QuickStart,
    /// Three, which know each other by the token that they share.
    Replicated,
    /// Three, TLS everywhere, certificates by Vault's PKI, and all that a cluster shared with others asks for.
    Production,
    /// The same, with certificates of a CA of one's own, as files.
    ExternalCa,
    /// One replica without any right outside of the one namespace that it serves.
    OneNamespace,
    /// The quick start of the Go version, with today's API versions.
    Reference,
    /// What Prometheus and Grafana need.
    Monitoring,
    /// An application that shows what it was given.
    SampleApp,
}

impl Case {
    /// Each with its name, and what it is.
    pub const ALL: [(&str, Self); 8] = [
        ("quick-start", Self::QuickStart),
        ("replicated", Self::Replicated),
        ("production", Self::Production),
        ("external-ca", Self::ExternalCa),
        ("one-namespace", Self::OneNamespace),
        ("reference", Self::Reference),
        ("monitoring", Self::Monitoring),
        ("sample-app", Self::SampleApp),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, case)| *case == self).map_or("", |(name, _)| *name)
    }

    /// Whether it has TLS towards everybody.
    pub(super) fn is_secured(self) -> bool {
        matches!(self, Self::Production | Self::ExternalCa)
    }

    /// Whether a controller is part of it.
    pub(super) fn has_controller(self) -> bool {
        !matches!(self, Self::Monitoring | Self::SampleApp)
    }

    /// Whether it stands on what most installations have in common. The Go version's has all that in its own way.
    pub(super) fn has_base(self) -> bool {
        self.has_controller() && self != Self::Reference
    }
}

/// What the init container of a sample application leaves for it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Mode {
    /// A token.
    #[default]
    Token,
    /// A `secret_id`: the application logs in.
    SecretId,
    /// A wrapping token: the application unwraps it, and logs in.
    WrappedSecretId,
}

impl Mode {
    /// Each with its name.
    pub const ALL: [(&str, Self); 3] =
        [("token", Self::Token), ("secret-id", Self::SecretId), ("wrapped-secret-id", Self::WrappedSecretId)];

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, mode)| *mode == self).map_or("", |(name, _)| *name)
    }
}

/// The images of this project.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Image {
    Controller,
    Init,
    SampleApp,
}

impl Image {
    pub(super) const ALL: [(&str, Self); 3] =
        [("controller", Self::Controller), ("init", Self::Init), ("sample-app", Self::SampleApp)];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, image)| *image == self).map_or("", |(name, _)| *name)
    }

    /// As it is called where it was built and not renamed.
    pub(super) fn default_reference(self) -> String {
        format!("kubernetes-vault/{}:{}", self.name(), env!("CARGO_PKG_VERSION"))
    }

    pub(super) fn is_of(self, case: Case) -> bool {
        if self == Self::Controller { case.has_controller() } else { case == Case::SampleApp }
    }
}
