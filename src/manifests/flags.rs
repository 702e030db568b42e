//! What can be said on the command line.
//!
//! Owns the grammar alone; [`super::settings`] says what of it goes together.

use std::path::PathBuf;

use super::case::{Case, Mode};
use crate::cli::named;

/// The flags of `kubernetes-vault manifests`.
#[derive(clap::Args, Clone, PartialEq, Eq, Debug, Default)]
pub struct Flags {
    /// What to print. Without it, and with --output-dir, all of them are written.
    #[arg(value_name = "CASE", value_parser = named(&Case::ALL))]
    pub case: Option<Case>,

    /// Writes a Kustomize base and overlay below this folder, instead of printing.
    #[arg(long, value_name = "DIR")]
    pub output_dir: Option<PathBuf>,

    /// The namespace that it is installed in [default: as the case is documented, mostly kubernetes-vault].
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,

    /// The pods to serve: a namespace, for which a Role is enough, or "~" and a regular expression [default: as the case
    /// is documented].
    #[arg(long, value_name = "NAME|~REGEX")]
    pub watch_namespace: Option<String>,

    /// Vault's address, as pods reach it [default: `addr` of the Secret].
    #[arg(long, value_name = "URL")]
    pub vault_addr: Option<String>,

    /// An image of yours, by tag or digest: controller, init or sample-app. May be given for each.
    #[arg(long = "image", value_name = "NAME=IMAGE")]
    pub images: Vec<String>,

    /// How many controllers [default: 3].
    #[arg(long, value_name = "NUMBER")]
    pub replicas: Option<u32>,

    /// The Secret with `addr` and `token`; of sample-app, with `role-id` [default: kubernetes-vault; sample-app].
    #[arg(long, value_name = "NAME")]
    pub secret: Option<String>,

    /// The Secret with certificates; of monitoring, with Prometheus' own, and metrics are scraped over https [default:
    /// kubernetes-vault-tls; none of monitoring].
    #[arg(long, value_name = "NAME")]
    pub tls_secret: Option<String>,

    /// The namespace of Prometheus, which may connect to the metrics page [default: monitoring].
    #[arg(long, value_name = "NAME")]
    pub prometheus_namespace: Option<String>,

    /// What the init container of sample-app leaves for it [default: token].
    #[arg(long, value_name = "MODE", value_parser = named(&Mode::ALL))]
    pub mode: Option<Mode>,
}
