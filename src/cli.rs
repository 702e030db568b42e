//! The command line.
//!
//! Owns its grammar, the exit codes, the version line, the old spelling with one dash, and the image's entry point. It
//! reads no file and starts nothing. Exit code 2 belongs to its errors, as to those of the configuration.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use serde::Serialize;

use crate::config::{DEFAULT_PATH, Format, IMAGE_PATH, Level, Source};
use crate::domain::pod_name::PodName;
use crate::manifests;

const NAME: &str = "kubernetes-vault";

/// The exit code of a command that finds all well, and of a controller that was stopped.
pub const EXIT_WELL: u8 = 0;

/// The exit code of a command that finds something that is not well, or that nobody answers; of a controller that cannot
/// use Kubernetes, Vault or its storage.
pub const EXIT_NOT_WELL: u8 = 1;

/// The exit code for a mistake on the command line or in the configuration: trying again does not help.
pub const EXIT_USAGE: u8 = 2;

/// The name of the Go version's entry point, a shell script. In the image it is a link to this program.
const ENTRY_POINT: &str = "docker-entrypoint.sh";

/// The options that the Go version's documents write with one dash.
const OLD_STYLE: [&str; 3] = ["config", "log-level", "log-format"];

const EXIT_CODES: &str = "\
Exit codes:
  0  all is well (of the controller: it was told to stop)
  1  it is not, or nobody answers (of the controller: Kubernetes, Vault or its storage cannot be used)
  2  usage or configuration";

/// Hands every pod that asks for it a single-use, response-wrapped AppRole secret_id from Vault.
///
/// Without a command, runs the controller.
#[derive(Parser, Clone, PartialEq, Eq, Debug)]
#[command(name = NAME, disable_help_subcommand = false, after_help = EXIT_CODES)]
pub struct Cli {
    /// Path of the configuration file [default: kubernetes-vault.yml; of the image's entry point
    /// /kubernetes-vault/kubernetes-vault.yml]. Without it, the content of KUBERNETES_VAULT_LOCAL_CONFIG goes before both.
    #[arg(long, global = true, value_name = "PATH")]
    pub config: Option<PathBuf>,

    /// What is logged at least; wins over log.level of the configuration [default: debug].
    #[arg(long, global = true, value_name = "LEVEL", value_parser = named(&Level::ALL))]
    pub log_level: Option<Level>,

    /// The form of a log line; wins over log.format of the configuration [default: text].
    #[arg(long, global = true, value_name = "FORMAT", value_parser = named(&Format::ALL))]
    pub log_format: Option<Format>,

    /// What to do instead of running the controller.
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Whether this is the image's entry point.
    #[arg(skip)]
    entry_point: bool,
}

/// What to do.
#[derive(Subcommand, Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Run the controller: the same as no command.
    #[command(after_help = EXIT_CODES)]
    Run,
    /// Print version, commit and build date.
    #[command(after_help = EXIT_CODES)]
    Version {
        /// The form of what is printed.
        #[arg(long, value_name = "FORM", default_value = "text", value_parser = named(&Output::ALL))]
        output: Output,
    },
    /// Check the configuration, then the rights in Kubernetes, Vault, its token, and the AppRoles that pods wait for.
    ///
    /// Disturbs no controller and makes no secret_id. Inside a pod it asks with the pod's service account, elsewhere with
    /// KUBECONFIG or ~/.kube/config. Warnings alone are well.
    #[command(after_help = EXIT_CODES)]
    Check {
        /// The form of what is printed.
        #[arg(long, value_name = "FORM", default_value = "text", value_parser = named(&Output::ALL))]
        output: Output,
    },
    /// Show how the controller that runs here is, and its cluster.
    #[command(after_help = EXIT_CODES)]
    Status {
        /// The form of what is printed.
        #[arg(long, value_name = "FORM", default_value = "text", value_parser = named(&Output::ALL))]
        output: Output,
    },
    /// Tell why a pod has, or has not, its token. Well is a pod that has it, or will have it by itself.
    ///
    /// The controller that runs here is asked; the one that leads knows most.
    #[command(after_help = EXIT_CODES)]
    Explain {
        /// What to explain.
        #[arg(value_parser = named(&Kind::ALL))]
        kind: Kind,
        /// Which one.
        #[arg(value_name = "NAMESPACE/NAME")]
        pod: PodName,
        /// The form of what is printed.
        #[arg(long, value_name = "FORM", default_value = "text", value_parser = named(&Output::ALL))]
        output: Output,
    },
    /// Form the cluster anew after most of its voters were lost for good. Without --yes, only shows what is left.
    ///
    /// Asks each listed peer first, and refuses while a quorum could answer. To be run on one replica that has survived.
    #[command(after_help = EXIT_CODES)]
    Recover {
        /// Do it.
        #[arg(long)]
        yes: bool,
        /// The form of what is printed.
        #[arg(long, value_name = "FORM", default_value = "text", value_parser = named(&Output::ALL))]
        output: Output,
    },
    /// Print the manifests that install the controller, or what goes with it, on a cluster.
    ///
    /// Talks to nobody. A flag that has no effect for a case is refused.
    #[command(after_help = EXIT_CODES)]
    Manifests(Box<manifests::Flags>),
}

/// What can be explained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A pod.
    Pod,
}

impl Kind {
    /// Each with its name.
    pub const ALL: [(&str, Self); 1] = [("pod", Self::Pod)];
}

/// The form of what a command prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Output {
    /// Each with its name.
    pub const ALL: [(&str, Self); 2] = [("text", Self::Text), ("json", Self::Json)];
}

impl Cli {
    /// Reads the command line, the program's name first. An error knows its exit code and how to print itself
    /// (`--help` is one, with exit code 0).
    pub fn read(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut args: Vec<OsString> = args.into_iter().collect();
        let is =
            |at: usize, name: &str| args.get(at).is_some_and(|arg| Path::new(arg).file_name() == Some(name.as_ref()));
        let entry_point = is(0, ENTRY_POINT);
        if entry_point {
            // `docker run IMAGE kubernetes-vault version` is how the Go version's image was told what to do.
            args.drain(..if is(1, NAME) { 2 } else { 1 });
            args.insert(0, NAME.into());
        }
        Ok(Self { entry_point, ..Self::try_parse_from(with_two_dashes(args))? })
    }

    /// Where the configuration is; `variable` is what stands in [`LOCAL_CONFIG`](crate::config::LOCAL_CONFIG).
    pub fn source(&self, variable: Option<OsString>) -> Source {
        let default = if self.entry_point { IMAGE_PATH } else { DEFAULT_PATH };
        Source::choose(self.config.as_deref(), variable, default)
    }
}

/// What `version` prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// Of the package.
    pub version: &'static str,
    /// The commit that it was built from.
    pub commit: &'static str,
    /// When.
    pub build_date: &'static str,
}

impl Version {
    /// That of this program.
    pub fn of_this_build() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: option_env!("KUBERNETES_VAULT_COMMIT").unwrap_or("unknown"),
            build_date: option_env!("KUBERNETES_VAULT_BUILD_DATE").unwrap_or("unknown"),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, commit, build_date } = self;
        write!(f, "Kubernetes-Vault controller {version} ({commit}) built on {build_date}")
    }
}

/// Values by name; clap lists the names when a value is none of them.
pub(crate) fn named<T: Copy + Send + Sync + 'static>(
    all: &'static [(&'static str, T)],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.iter().map(|&(name, _)| name)).try_map(|text| {
        let found = all.iter().find(|&&(name, _)| name == text);
        found.map(|&(_, value)| value).ok_or("unknown name")
    })
}

/// `-config x` and `-config=x` become `--config x` and `--config=x`.
fn with_two_dashes(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut out: Vec<OsString> = Vec::new();
    let mut is_value = false;
    for arg in args {
        let old = arg.to_str().filter(|_| !is_value).and_then(|text| text.strip_prefix('-')).and_then(|text| {
            let name = text.split('=').next()?;
            OLD_STYLE.contains(&name).then(|| OsString::from(format!("--{text}")))
        });
        let arg = old.unwrap_or(arg);
        // What follows `--config` is a path, whatever it looks like.
        is_value = !is_value
            && arg.to_str().and_then(|text| text.strip_prefix("--")).is_some_and(|name| OLD_STYLE.contains(&name));
        out.push(arg);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn read(args: &[&str]) -> Result<Cli, clap::Error> {
        Cli::read(std::iter::once("kubernetes-vault").chain(args.iter().copied()).map(OsString::from))
    }

    #[test]
    fn definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_argument_runs_with_defaults() {
        let cli = read(&[]).unwrap();
        assert_eq!(cli.source(None).to_string(), "kubernetes-vault.yml");
        assert_eq!((cli.log_level, cli.log_format, cli.command), (None, None, None));
    }

    #[test]
    fn one_dash_and_two_mean_the_same() {
        for args in [
            ["--config", "/a.yml", "--log-level", "error"].as_slice(),
            &["-config", "/a.yml", "-log-level", "error"],
            &["--config=/a.yml", "--log-level=error"],
            &["-config=/a.yml", "-log-level=error"],
        ] {
            let cli = read(args).unwrap();
            assert_eq!(cli.config, Some("/a.yml".into()), "{args:?}");
            assert_eq!(cli.log_level, Some(Level::Error), "{args:?}");
        }
        assert_eq!(read(&["--config=-config"]).unwrap().config, Some("-config".into()));
        assert_eq!(read(&["-log-format=json"]).unwrap().log_format, Some(Format::Json));
    }

    /// What the Go version's entry point did with its arguments.
    #[test]
    fn as_entry_point_it_reads_the_image_s_configuration_and_may_be_told_its_own_name() {
        let entered = |args: &[&str]| {
            let all = std::iter::once("/usr/local/bin/docker-entrypoint.sh").chain(args.iter().copied());
            Cli::read(all.map(OsString::from))
        };
        for args in [[].as_slice(), &["kubernetes-vault"], &["--log-level=error"], &["/bin/kubernetes-vault", "run"]] {
            let cli = entered(args).unwrap();
            assert_eq!(cli.source(None).to_string(), "/kubernetes-vault/kubernetes-vault.yml", "{args:?}");
            assert_eq!(cli.source(Some("vault: {}".into())).to_string(), "$KUBERNETES_VAULT_LOCAL_CONFIG");
        }
        for args in [["-config=/a.yml"].as_slice(), &["kubernetes-vault", "--config", "/a.yml"]] {
            assert_eq!(entered(args).unwrap().source(Some("vault: {}".into())).to_string(), "/a.yml", "{args:?}");
        }
        let version = entered(&["kubernetes-vault", "version"]).unwrap().command;
        assert_eq!(version, Some(Command::Version { output: Output::Text }));
        // There is no shell in the image.
        assert_eq!(entered(&["sh"]).unwrap_err().exit_code(), i32::from(EXIT_USAGE));
        assert!(entered(&["--help"]).unwrap_err().to_string().contains("Usage: kubernetes-vault"));
    }

    #[test]
    fn every_level_is_taken_and_a_bad_one_is_told_what_is() {
        for (name, level) in Level::ALL {
            assert_eq!(read(&["--log-level", name]).unwrap().log_level, Some(level));
            assert_eq!(level.as_str(), name);
        }
        let error = read(&["--log-level", "loud"]).unwrap_err();
        assert_eq!(error.exit_code(), i32::from(EXIT_USAGE));
        for (name, _) in Level::ALL {
            assert!(error.to_string().contains(name), "{error}");
        }
        let error = read(&["--log-format", "xml"]).unwrap_err().to_string();
        assert!(error.contains("text") && error.contains("json"), "{error}");
    }

    #[test]
    fn usage_mistakes_exit_2_and_help_exits_0() {
        for args in [["--nope"].as_slice(), &["nope"], &["--config"], &["-c", "x"]] {
            assert_eq!(read(args).unwrap_err().exit_code(), i32::from(EXIT_USAGE), "{args:?}");
        }
        assert_eq!(read(&["--help"]).unwrap_err().exit_code(), 0);
    }

    #[test]
    fn status_and_recover() {
        let command = |args: &[&str]| read(args).unwrap().command.unwrap();
        assert_eq!(command(&["status"]), Command::Status { output: Output::Text });
        assert_eq!(command(&["status", "--output", "json"]), Command::Status { output: Output::Json });
        assert_eq!(command(&["recover"]), Command::Recover { yes: false, output: Output::Text });
        assert_eq!(
            command(&["recover", "--yes", "--output=json"]),
            Command::Recover { yes: true, output: Output::Json }
        );
        let cli = read(&["status", "-config=/a.yml"]).unwrap();
        assert_eq!(cli.config, Some("/a.yml".into()));
        for args in [["status", "--yes"], ["status", "--output=xml"], ["recover", "now"], ["recover", "--yes=maybe"]] {
            assert_eq!(read(&args).unwrap_err().exit_code(), i32::from(EXIT_USAGE), "{args:?}");
        }
    }

    #[test]
    fn explain_wants_a_pod_by_namespace_and_name() {
        let output = Output::Text;
        let pod: PodName = "team-a/web-0".parse().unwrap();
        let explained = read(&["explain", "pod", "team-a/web-0"]).unwrap().command;
        assert_eq!(explained, Some(Command::Explain { kind: Kind::Pod, pod, output }));
        for args in [["explain", "pod", "web-0"], ["explain", "node", "a/b"], ["explain", "pod", "a/b,c"]] {
            assert_eq!(read(&args).unwrap_err().exit_code(), i32::from(EXIT_USAGE), "{args:?}");
        }
        assert!(read(&["explain", "pod", "web-0"]).unwrap_err().to_string().contains("NAMESPACE/NAME"));
        assert!(read(&["explain", "pod"]).is_err() && read(&["explain"]).is_err());
    }

    #[test]
    fn run_is_a_command_and_check_takes_no_more_than_its_form() {
        assert_eq!(read(&["run", "--config=/a.yml"]).unwrap().command, Some(Command::Run));
        assert_eq!(read(&["check"]).unwrap().command, Some(Command::Check { output: Output::Text }));
        assert_eq!(read(&["check", "--output=json"]).unwrap().command, Some(Command::Check { output: Output::Json }));
        assert!(read(&["check", "--fix"]).is_err() && read(&["run", "--output=json"]).is_err());
    }

    #[test]
    fn manifests_take_a_case_and_flags() {
        let read_flags = |args: &[&str]| match read(args).unwrap().command {
            Some(Command::Manifests(flags)) => *flags,
            other => panic!("{args:?}: {other:?}"),
        };
        assert_eq!(read_flags(&["manifests"]), manifests::Flags::default());
        let flags =
            read_flags(&["manifests", "production", "--image", "controller=a:1", "--image=init=b:1", "--replicas=5"]);
        assert_eq!((flags.case, flags.replicas), (Some(manifests::Case::Production), Some(5)));
        assert_eq!(flags.images, ["controller=a:1", "init=b:1"]);
        for args in [["manifests", "nope"], ["manifests", "--replicas=x"], ["manifests", "--mode=nope"]] {
            assert_eq!(read(&args).unwrap_err().exit_code(), i32::from(EXIT_USAGE), "{args:?}");
        }
    }

    #[test]
    fn the_exit_codes_are_in_the_help_of_every_command() {
        let mut command = Cli::command();
        command.build();
        for one in std::iter::once(&command).chain(command.get_subcommands().filter(|one| one.get_name() != "help")) {
            let help = one.clone().render_help().to_string();
            for line in ["0  all is well", "1  it is not, or nobody answers", "2  usage or configuration"] {
                assert!(help.contains(line), "{}: {help}", one.get_name());
            }
        }
    }

    /// The Go version's line (vector "version"): `Kubernetes-Vault controller dev (739fb5a) built on 2026-11-23`.
    #[test]
    fn version() {
        let text = Some(Command::Version { output: Output::Text });
        assert_eq!(read(&["version"]).unwrap().command, text);
        assert_eq!(read(&["-log-level=error", "version"]).unwrap().command, text);
        let line = Version::of_this_build().to_string();
        let rest = line.strip_prefix("Kubernetes-Vault controller ").unwrap();
        let (version, rest) = rest.split_once(" (").unwrap();
        let (commit, date) = rest.split_once(") built on ").unwrap();
        assert!([version, commit, date].iter().all(|part| !part.is_empty() && !part.contains(' ')), "{line}");
        let json = serde_json::to_value(Version::of_this_build()).unwrap();
        assert_eq!(json, serde_json::json!({"version": version, "commit": commit, "buildDate": date}));
    }
}
