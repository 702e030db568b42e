//! From what was typed to what it means: defaults, and what contradicts itself.
//!
//! Pure. Must never happen: a flag without an effect that nobody is told of.

use std::collections::BTreeMap;

use super::case::{Case, Image, Mode};
use super::error::Error;
use super::flags::Flags;
use super::reference;
use crate::config::{LABEL_ACCEPTED, VaultAddr, WatchNamespace, is_dns_label};

/// The namespace, the service, and the Secret of an installation.
pub(super) const NAME: &str = "kubernetes-vault";
/// What serves one namespace is called after none: it stands for a team's.
const TEAM: &str = "team-a";
/// Where the sample runs. The quick start serves pods there.
const SAMPLE_NAMESPACE: &str = "default";
/// What is served unless told otherwise: enough for the sample.
const TRIAL: &str = "~^(default|sample-.*)$";
/// The same for what is in earnest: an example, to be replaced by --watch-namespace.
const TEAMS: &str = "~^team-";
/// More than five do not vote.
const REPLICAS: [u32; 3] = [1, 3, 5];

/// The pods that are served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Watch {
    /// Those of one namespace.
    One(String),
    /// Those of namespaces that match; the text with its `~`.
    Matching(String),
}

impl Watch {
    /// As the configuration has it.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::One(text) | Self::Matching(text) => text,
        }
    }

    pub(super) fn one(&self) -> Option<&str> {
        match self {
            Self::One(name) => Some(name),
            Self::Matching(_) => None,
        }
    }
}

/// All that a case is made by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Settings {
    pub(super) case: Case,
    pub(super) namespace: String,
    pub(super) watch: Watch,
    /// `None`: it stands in the Secret.
    pub(super) vault_addr: Option<String>,
    pub(super) replicas: u32,
    pub(super) secret: String,
    /// `None`: metrics are scraped over http.
    pub(super) tls_secret: Option<String>,
    pub(super) prometheus_namespace: String,
    pub(super) mode: Mode,
    images: BTreeMap<Image, String>,
}

impl Settings {
    /// A case as it is documented, with these images.
    pub(super) fn documented(case: Case, mode: Mode, images: BTreeMap<Image, String>) -> Self {
        let (namespace, watch) = match case {
            Case::OneNamespace => (TEAM, Watch::One(TEAM.to_owned())),
            Case::SampleApp => (SAMPLE_NAMESPACE, Watch::Matching(TRIAL.to_owned())),
            Case::Reference => (reference::NAMESPACE, Watch::One(reference::NAMESPACE.to_owned())),
            Case::Production | Case::ExternalCa => (NAME, Watch::Matching(TEAMS.to_owned())),
            _ => (NAME, Watch::Matching(TRIAL.to_owned())),
        };
        let single = matches!(case, Case::QuickStart | Case::OneNamespace);
        Self {
            case,
            namespace: namespace.to_owned(),
            watch,
            vault_addr: None,
            replicas: if single { 1 } else { 3 },
            secret: if case == Case::SampleApp { "sample-app" } else { NAME }.to_owned(),
            tls_secret: case.is_secured().then(|| "kubernetes-vault-tls".to_owned()),
            prometheus_namespace: "monitoring".to_owned(),
            mode,
            images,
        }
    }

    /// What the flags mean for `case`.
    ///
    /// # Errors
    /// The first contradiction.
    pub(super) fn read(case: Case, flags: &Flags) -> Result<Self, Error> {
        no_idle_flag(case, flags)?;
        let mut settings = Self::documented(case, flags.mode.unwrap_or_default(), images(&flags.images)?);
        for (image, reference) in &settings.images {
            if !image.is_of(case) {
                return usage(format!(
                    "--image {}={reference} has no effect: {} has no such image; leave it out",
                    image.name(),
                    case.name()
                ));
            }
        }
        if let Some(namespace) = &flags.namespace {
            settings.namespace = label("--namespace", namespace)?;
            if matches!(case, Case::OneNamespace | Case::Reference) {
                settings.watch = Watch::One(settings.namespace.clone());
            }
        }
        if let Some(text) = &flags.watch_namespace {
            settings.watch = watch(case, &settings.namespace, text)?;
        }
        if let Some(addr) = &flags.vault_addr {
            settings.vault_addr = Some(vault_addr(case, addr)?);
        }
        if let Some(replicas) = flags.replicas {
            settings.replicas = count(replicas)?;
        }
        if let Some(secret) = &flags.secret {
            settings.secret = subdomain("--secret", secret)?;
        }
        if let Some(secret) = &flags.tls_secret {
            settings.tls_secret = Some(subdomain("--tls-secret", secret)?);
        }
        if let Some(namespace) = &flags.prometheus_namespace {
            settings.prometheus_namespace = label("--prometheus-namespace", namespace)?;
        }
        Ok(settings)
    }

    pub(super) fn image(&self, image: Image) -> String {
        self.images.get(&image).cloned().unwrap_or_else(|| image.default_reference())
    }

    /// The Secret with certificates, where the controller mounts one.
    pub(super) fn certificates(&self) -> Option<&str> {
        self.tls_secret.as_deref().filter(|_| self.case.is_secured())
    }

    /// Whether the namespace is there already, and others answer for what is enforced in it.
    pub(super) fn namespace_is_a_teams(&self) -> bool {
        self.watch.one() == Some(&self.namespace)
    }
}

/// The images that were named.
///
/// # Errors
/// The first that is none.
pub(super) fn images(given: &[String]) -> Result<BTreeMap<Image, String>, Error> {
    let mut images = BTreeMap::new();
    for text in given {
        let Some((name, reference)) = text.split_once('=') else {
            return usage(format!(
                "--image {text}: give NAME=IMAGE, such as controller=registry.example/controller:1.0"
            ));
        };
        let Some((_, image)) = Image::ALL.into_iter().find(|(known, _)| *known == name) else {
            return usage(format!(
                "--image {text}: there is no image {name:?}; there are controller, init and sample-app"
            ));
        };
        check_reference(name, reference)?;
        if images.insert(image, reference.to_owned()).is_some() {
            return usage(format!("--image {name}=... is given twice; give it once"));
        }
    }
    Ok(images)
}

fn check_reference(name: &str, reference: &str) -> Result<(), Error> {
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    if let Some(digest) = digest {
        let is_hex =
            |hex: &str| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !digest.strip_prefix("sha256:").is_some_and(is_hex) {
            return usage(format!(
                "--image {name}={reference}: a digest is \"sha256:\" and 64 hexadecimal digits; give that, or a tag"
            ));
        }
    }
    let (path, tag) = match rest.rsplit_once(':') {
        // What follows the colon of a registry's port has a slash in it.
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (rest, None),
    };
    let word = |text: &str, more: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
        text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') && text.chars().all(fits)
    };
    let fits = path.split('/').all(|part| word(part, ".-_:")) && tag.is_none_or(|tag| word(tag, ".-_"));
    if !fits {
        return usage(format!(
            "--image {name}={reference}: that is no image; give one such as registry.example/{name}:1.0"
        ));
    }
    if digest.is_none() && tag.is_none_or(|tag| tag == "latest") {
        // A node would keep whatever it had first under that name.
        return usage(format!(
            "--image {name}={reference}: name a version, by a tag other than \"latest\" or by digest, so that all nodes run the same"
        ));
    }
    Ok(())
}

/// Flags that mean nothing for a case are refused: who gives one believes that it has an effect.
fn no_idle_flag(case: Case, flags: &Flags) -> Result<(), Error> {
    use Case::{ExternalCa, Monitoring, OneNamespace, Production, QuickStart, Reference, Replicated, SampleApp};
    let controllers: &[Case] = &[QuickStart, Replicated, Production, ExternalCa, OneNamespace];
    let table: [(&str, bool, &[Case]); 7] = [
        ("--watch-namespace", flags.watch_namespace.is_some(), controllers),
        (
            "--vault-addr",
            flags.vault_addr.is_some(),
            &[QuickStart, Replicated, Production, ExternalCa, OneNamespace, Reference, SampleApp],
        ),
        ("--replicas", flags.replicas.is_some(), &[Replicated, Production, ExternalCa]),
        (
            "--secret",
            flags.secret.is_some(),
            &[QuickStart, Replicated, Production, ExternalCa, OneNamespace, Reference, SampleApp],
        ),
        ("--tls-secret", flags.tls_secret.is_some(), &[Production, ExternalCa, Monitoring]),
        ("--prometheus-namespace", flags.prometheus_namespace.is_some(), &[Production, ExternalCa]),
        ("--mode", flags.mode.is_some(), &[SampleApp]),
    ];
    for (flag, is_given, cases) in table {
        if is_given && !cases.contains(&case) {
            let names: Vec<&str> = cases.iter().map(|case| case.name()).collect();
            return usage(format!(
                "{flag} has no effect for {}: leave it out, or choose {}",
                case.name(),
                any_of(&names)
            ));
        }
    }
    Ok(())
}

fn any_of(names: &[&str]) -> String {
    match names {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        names => names.concat(),
    }
}

fn watch(case: Case, namespace: &str, text: &str) -> Result<Watch, Error> {
    let parsed = match WatchNamespace::parse(text) {
        Ok(parsed) => parsed,
        Err(reason) => return usage(format!("--watch-namespace {reason}")),
    };
    let Some(name) = parsed.exact() else {
        if case == Case::OneNamespace {
            return usage(
                "--watch-namespace with \"~\" needs rights in all namespaces, and one-namespace has none: choose quick-start, \
                 replicated, production or external-ca",
            );
        }
        let begins_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '{');
        if text.split('$').skip(1).any(|rest| rest.starts_with(begins_a_name)) {
            return usage(
                "--watch-namespace: \"$\" before a letter names a variable of the controller's environment; use \"$\" at the end only",
            );
        }
        return Ok(Watch::Matching(text.to_owned()));
    };
    if case == Case::OneNamespace && name != namespace {
        return usage(format!(
            "one-namespace serves the namespace that it is in, and that is {namespace}: give --namespace {name} alone, or choose quick-start"
        ));
    }
    Ok(Watch::One(name.to_owned()))
}

fn vault_addr(case: Case, text: &str) -> Result<String, Error> {
    let Some(addr) = VaultAddr::parse(text).filter(|_| !text.contains('$')) else {
        return usage(
            "--vault-addr must be an http:// or https:// URL with a host, such as https://vault.example:8200",
        );
    };
    if !addr.url().username().is_empty() || addr.url().password().is_some() {
        return usage(
            "--vault-addr has a user or a password in it, and everybody who reads pods would see them: leave them out",
        );
    }
    if case.is_secured() && !addr.is_https() {
        return usage(format!(
            "{} verifies Vault by its CA, and http:// has no certificate: give an https:// address, or choose replicated",
            case.name()
        ));
    }
    Ok(text.to_owned())
}

fn count(replicas: u32) -> Result<u32, Error> {
    if REPLICAS.contains(&replicas) {
        return Ok(replicas);
    }
    let why = match replicas {
        0 => "none serves nobody",
        2 => "two bear the loss of none, as one does",
        4 => "four bear the loss of one, as three do",
        _ => "at most five vote",
    };
    usage(format!("--replicas {replicas}: {why}; give 1, 3 or 5"))
}

fn label(flag: &str, text: &str) -> Result<String, Error> {
    if is_dns_label(text) {
        return Ok(text.to_owned());
    }
    usage(format!("{flag} {text:?} is no name of a namespace: {LABEL_ACCEPTED}"))
}

fn subdomain(flag: &str, text: &str) -> Result<String, Error> {
    /// As the API server has it.
    const LONGEST: usize = 253;
    if text.len() <= LONGEST && text.split('.').all(is_dns_label) {
        return Ok(text.to_owned());
    }
    usage(format!("{flag} {text:?} is no name of a Secret: parts between periods, each {LABEL_ACCEPTED}"))
}

fn usage<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::Usage(why.into()))
}
