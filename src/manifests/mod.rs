//! The manifests that install the controller, made from typed values: `kubernetes-vault manifests`.
//!
//! Owns what is in `deploy/`, but for Vault's policies and the sources of the dashboard and the alerts. It talks to nobody,
//! and reads nothing but its flags: the same flags are the same text, everywhere and always.
//!
//! Must never happen: a secret in what is printed, or a right that the controller does not use.

mod access;
mod around;
mod case;
mod configuration;
mod controller;
mod document;
mod error;
mod flags;
mod kustomize;
mod monitoring;
mod network;
mod parts;
mod reference;
mod sample;
mod settings;
mod write;
mod yaml;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use self::case::{Case, Mode};
pub use self::error::Error;
pub use self::flags::Flags;

use self::document::Document;
use self::kustomize::File;
use self::settings::{NAME, Settings};

/// What became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Made {
    /// To be printed.
    Text(String),
    /// Files that were written.
    Files(Vec<PathBuf>),
}

/// Makes what `flags` ask for.
///
/// # Errors
/// Why not, with the remedy. Nothing was written then.
pub fn make(flags: &Flags) -> Result<Made, Error> {
    match (flags.case, &flags.output_dir) {
        (Some(case), None) => {
            let settings = Settings::read(case, flags)?;
            Ok(Made::Text(document::join(&all(&settings))))
        }
        (Some(case), Some(folder)) => {
            let settings = Settings::read(case, flags)?;
            let mut files = kustomize::folder(&settings, &settings.namespace);
            if case.has_base() {
                files.extend(kustomize::base_folder(&settings.namespace));
            }
            write::all(folder, &files).map(Made::Files)
        }
        (None, Some(folder)) => write::all(folder, &documented(flags, folder)?).map(Made::Files),
        (None, None) => {
            let names: Vec<&str> = Case::ALL.iter().map(|(name, _)| *name).collect();
            Err(Error::Usage(format!("say what to print: {}; or give --output-dir for all of them", names.join(", "))))
        }
    }
}

/// All documented cases. Each has settings of its own, so that flags for one of them do not fit the others.
fn documented(flags: &Flags, folder: &Path) -> Result<Vec<File>, Error> {
    let plain = Flags { output_dir: Some(folder.to_owned()), images: flags.images.clone(), ..Flags::default() };
    if *flags != plain {
        return Err(Error::Usage(
            "without a CASE only --output-dir and --image have a meaning: name a CASE".to_owned(),
        ));
    }
    let images = settings::images(&flags.images)?;
    let settings = |case, mode| Settings::documented(case, mode, images.clone());
    let mut files = kustomize::base_folder(NAME);
    for (_, case) in Case::ALL {
        let modes: &[_] = if case == Case::SampleApp { &Mode::ALL } else { &Mode::ALL[..1] };
        for &(_, mode) in modes {
            files.extend(kustomize::folder(&settings(case, mode), NAME));
        }
    }
    let mut secured = settings(Case::Monitoring, Mode::default());
    secured.tls_secret = Some(monitoring::SCRAPER_SECRET.to_owned());
    files.extend(kustomize::secured_monitoring_folder(&secured));
    Ok(files)
}

/// Each object of a case, in the order in which they can be applied.
fn all(settings: &Settings) -> Vec<Document> {
    let mut documents = own(settings);
    if settings.case.has_base() {
        // After the namespace, if there is one.
        let at = usize::from(documents.first().is_some_and(|first| first.value["kind"] == "Namespace"));
        documents.splice(at..at, base(&settings.namespace));
    }
    if settings.case == Case::Monitoring {
        documents =
            vec![monitoring::service_monitor(settings), monitoring::rules(settings), monitoring::dashboard(settings)];
    }
    documents
}

/// What most cases have in common.
fn base(namespace: &str) -> Vec<Document> {
    let mut documents = Vec::from(access::base(namespace));
    documents.push(network::service(namespace));
    documents
}

/// What a case has beside.
fn own(settings: &Settings) -> Vec<Document> {
    match settings.case {
        Case::Reference => return reference::documents(settings),
        Case::SampleApp => return sample::documents(settings),
        // Kustomize makes one of its objects of a file.
        Case::Monitoring => return Vec::new(),
        _ => {}
    }
    let mut documents = Vec::from_iter(around::namespace(settings));
    documents.extend(access::pods(settings));
    documents.push(configuration::config_map(settings));
    if settings.case.is_secured() {
        documents.extend([around::priority_class(), network::policy(settings)]);
    }
    if !matches!(settings.case, Case::QuickStart | Case::OneNamespace) {
        documents.push(around::disruption_budget(settings));
    }
    documents.push(controller::workload(settings));
    documents
}
