//! One start of one container: from the pod's spec to a process, and what its end says.
//!
//! Owns: the process, its log file and its termination log.
//!
//! Must never happen: a secret in a command line. Arguments and variables go through a file on the tmpfs.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::env::lookup;
use super::expand::expand;
use super::images::Image;
use super::root::{Bind, EXIT_START, Launch};
use crate::sandbox::CONTAINER_ARG;

/// Where a container's last words go unless its spec says otherwise.
const TERMINATION_LOG: &str = "/dev/termination-log";
/// Kubernetes keeps this much of a termination message,
const MESSAGE_BYTES: usize = 4096;
/// and this much where it falls back to the log.
const FALLBACK_BYTES: usize = 2048;
/// It takes milliseconds; a machine that starts hundreds of containers at once takes longer.
const START_LIMIT: Duration = Duration::from_secs(60);
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the pod gives to each of its containers.
pub(crate) struct Surroundings<'a> {
    pub(crate) hostname: &'a str,
    pub(crate) network: Option<&'a str>,
    /// `<kubelet>/pods/<uid>`.
    pub(crate) directory: &'a Path,
    /// Volumes by name, with their folders.
    pub(crate) volumes: &'a [(String, PathBuf)],
    pub(crate) variables: Vec<(String, String)>,
}

/// A container that was started.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    started: Time,
    files: Files,
    fall_back_to_logs: bool,
}

/// The files of one start.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) log: PathBuf,
    termination: PathBuf,
    error: PathBuf,
}

/// `containerd://` and 64 hexadecimal digits that nothing had before.
pub(crate) fn new_id() -> Result<String> {
    let mut id = String::from("containerd://");
    for _ in 0..2 {
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("no random numbers")?;
        id.extend(uuid.chars().filter(char::is_ascii_hexdigit));
    }
    Ok(id)
}

/// Starts a container for the `attempt`-th time; returns when its program runs, or has failed to.
pub(crate) async fn start(
    container: &Container,
    image: &Image,
    around: Surroundings<'_>,
    attempt: i32,
) -> Result<Running> {
    let directory = around.directory.join("containers").join(&container.name).join(attempt.to_string());
    let root = directory.join("root");
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    let files = Files {
        log: directory.join("log"),
        termination: directory.join("termination-log"),
        error: directory.join("start-error"),
    };
    File::create(&files.termination)?;
    let launch = launch(container, image, around, &files, root);
    // A kubelet makes the folder of a subPath where the volume has none.
    for bind in launch.binds.iter().filter(|bind| !bind.source.exists()) {
        fs::create_dir_all(&bind.source).with_context(|| format!("cannot create {}", bind.source.display()))?;
    }
    let file = directory.join("launch.json");
    fs::write(&file, serde_json::to_vec(&launch)?)?;
    let log = File::create(&files.log)?;
    // Our own program, even where its file was replaced by a newer build in the meantime.
    let program = format!("/proc/{}/exe", std::process::id());
    // The process holds the writing end as its stdin until it turns into the program.
    let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
    let mut reader = pipe::Receiver::from_owned_fd(reader.into())?;
    let child = Command::new("unshare")
        .args(["--mount", "--uts", "--propagation", "private", "--", &program, CONTAINER_ARG])
        .arg(&file)
        .stdin(writer)
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start unshare")?;
    timeout(START_LIMIT, reader.read_to_end(&mut Vec::new())).await.context("the container does not start")??;
    let fall_back_to_logs = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    Ok(Running { child, started: Time(Timestamp::now()), files, fall_back_to_logs })
}

fn launch(container: &Container, image: &Image, around: Surroundings<'_>, files: &Files, root: PathBuf) -> Launch {
    let mut environment =
        vec![("PATH".to_owned(), PATH.to_owned()), ("HOSTNAME".to_owned(), around.hostname.to_owned())];
    environment.extend(image.environment.iter().cloned());
    environment.extend(around.variables);
    let expanded = |text: &String| expand(text, |name| lookup(&environment, name));
    let (mut words, from_image) = match &container.command {
        Some(command) if !command.is_empty() => (command.iter().map(expanded).collect(), false),
        _ => (vec![image.entry_point()], true),
    };
    match &container.args {
        Some(arguments) => words.extend(arguments.iter().map(expanded)),
        // CMD belongs to ENTRYPOINT: a pod's own command drops it.
        None if from_image => words.extend(image.arguments.iter().cloned()),
        None => {}
    }
    let mut words = words.into_iter();
    let message_path = container.termination_message_path.as_deref().unwrap_or(TERMINATION_LOG);
    let mut binds = vec![
        bind(&image.program, &image.entry_point(), true),
        bind(&around.directory.join("etc-hosts"), "/etc/hosts", false),
        bind(&files.termination, message_path, false),
    ];
    binds.extend(image.files.iter().map(|(source, target)| bind(source, target, true)));
    binds.extend(mounts(container, around.volumes, &expanded));
    let read_only_root = container.security_context.as_ref().and_then(|context| context.read_only_root_filesystem);
    Launch {
        hostname: around.hostname.to_owned(),
        network: around.network.map(str::to_owned),
        root,
        binds,
        read_only_root: read_only_root.unwrap_or(false),
        directory: container.working_dir.clone().unwrap_or_else(|| "/".to_owned()),
        program: words.next().unwrap_or_default(),
        arguments: words.collect(),
        environment,
        error_file: files.error.clone(),
    }
}

fn bind(source: &Path, target: &str, read_only: bool) -> Bind {
    Bind { source: source.to_owned(), target: target.to_owned(), read_only }
}

fn mounts(container: &Container, volumes: &[(String, PathBuf)], expanded: &impl Fn(&String) -> String) -> Vec<Bind> {
    let mut binds: Vec<Bind> = container
        .volume_mounts
        .iter()
        .flatten()
        .filter_map(|mount| {
            let (_, folder) = volumes.iter().find(|(name, _)| *name == mount.name)?;
            let below = mount.sub_path.clone().or_else(|| mount.sub_path_expr.as_ref().map(expanded));
            let source = below.map_or_else(|| folder.clone(), |path| folder.join(path));
            Some(bind(&source, &mount.mount_path, mount.read_only.unwrap_or(false)))
        })
        .collect();
    // A mount inside another one must come after it.
    binds.sort_by_key(|bind| bind.target.len());
    binds
}

impl Running {
    /// The container's process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    pub(crate) fn started(&self) -> Time {
        self.started.clone()
    }

    pub(crate) fn files(&self) -> Files {
        self.files.clone()
    }

    /// Waits for its end; whatever it started ends with it, as with a process namespace.
    pub(crate) async fn wait(mut self, id: String) -> ContainerStateTerminated {
        let pid = self.child.id();
        let status = self.child.wait().await;
        if let Some(pid) = pid {
            signal_group(pid, Signal::KILL);
        }
        let code = status.as_ref().map_or(EXIT_START, exit_code);
        let start_error = fs::read_to_string(&self.files.error).unwrap_or_default();
        let reason = match code {
            _ if !start_error.is_empty() => "StartError",
            0 => "Completed",
            _ => "Error",
        };
        let message = if start_error.is_empty() { self.message(code) } else { start_error };
        ContainerStateTerminated {
            container_id: Some(id),
            exit_code: code,
            finished_at: Some(Time(Timestamp::now())),
            message: (!message.is_empty()).then_some(message),
            reason: Some(reason.to_owned()),
            signal: None,
            started_at: Some(self.started),
        }
    }

    fn message(&self, code: i32) -> String {
        let mut message = fs::read(&self.files.termination).unwrap_or_default();
        message.truncate(MESSAGE_BYTES);
        if message.is_empty() && code != 0 && self.fall_back_to_logs {
            let log = fs::read(&self.files.log).unwrap_or_default();
            message = log[log.len().saturating_sub(FALLBACK_BYTES)..].to_vec();
        }
        String::from_utf8_lossy(&message).into_owned()
    }
}

/// A process that died of a signal has 128 and its number, as containerd reports it.
fn exit_code(status: &ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| EXIT_START + status.signal().unwrap_or_default())
}

/// Signals a container's first process; none is there any more = done.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = kill_process(pid, signal);
    }
}

/// Signals everything that a container runs.
pub(crate) fn signal_group(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.cast_signed()) {
        let _ = kill_process_group(pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn launched(container: serde_json::Value) -> Launch {
        let container: Container = serde_json::from_value(container).unwrap();
        let image = Image::new("/opt/app").args(["--cmd"]).env("A", "image");
        let volumes = [("v".to_owned(), PathBuf::from("/k/v"))];
        let around = Surroundings {
            hostname: "pod",
            network: None,
            directory: Path::new("/k"),
            volumes: &volumes,
            variables: vec![("B".into(), "2".into())],
        };
        let files = Files { log: "/l".into(), termination: "/t".into(), error: "/e".into() };
        launch(&container, &image, around, &files, "/r".into())
    }

    #[test]
    fn command_and_arguments_follow_the_rules_of_images() {
        let plain = launched(json!({"name": "c"}));
        assert_eq!((plain.program.as_str(), plain.arguments), ("/app", vec!["--cmd".to_owned()]));
        let args = launched(json!({"name": "c", "args": ["x$(B)"]}));
        assert_eq!((args.program.as_str(), args.arguments), ("/app", vec!["x2".to_owned()]));
        let command = launched(json!({"name": "c", "command": ["/bin/sh", "$(A)"]}));
        assert_eq!((command.program.as_str(), command.arguments), ("/bin/sh", vec!["image".to_owned()]));
    }

    #[test]
    fn inner_mounts_come_after_outer_ones() {
        let launch = launched(json!({"name": "c", "volumeMounts": [
            {"name": "v", "mountPath": "/a/b", "subPath": "s"}, {"name": "v", "mountPath": "/a", "readOnly": true}]}));
        let last: Vec<&str> = launch.binds.iter().rev().take(2).map(|bind| bind.target.as_str()).collect();
        assert_eq!(last, ["/a/b", "/a"]);
        assert_eq!(launch.binds.last().unwrap().source, Path::new("/k/v/s"));
    }

    #[test]
    fn ids_differ_and_look_like_containerd() {
        let (one, two) = (new_id().unwrap(), new_id().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), "containerd://".len() + 64);
    }
}
