//! How the process ends: its exit codes by cause, its last log line, and the termination message.
//!
//! | code | cause |
//! |---|---|
//! | 0 | done: the files are written (also: `version`) |
//! | 1 | something in the container's surroundings that this program cannot name better |
//! | 2 | the environment variables |
//! | 3 | no push could be used within TIMEOUT |
//! | 4 | CREDENTIALS_PATH cannot be written |
//! | 5 | port 50000 cannot be listened on |
//! | 6 | Vault refuses VAULT_ROLE_ID |
//! | 143 | SIGTERM |
//!
//! Must never: put a secret into the termination message. Everybody who may read the pod can read it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use crate::log;

/// Where the kubelet mounts the file that becomes `terminated.message` in the pod's status.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// The kubelet keeps this much of the message.
const TERMINATION_BYTES_MAX: usize = 4096;

/// Why the process ends without having done its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Internal,
    Configuration,
    Timeout,
    Directory,
    Listen,
    RoleId,
    Terminated,
}

impl Cause {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Configuration => 2,
            Self::Timeout => 3,
            Self::Directory => 4,
            Self::Listen => 5,
            Self::RoleId => 6,
            // 128 + SIGTERM, as a shell reports it.
            Self::Terminated => 143,
        }
    }

    /// The first word of the termination message.
    const fn word(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Configuration => "configuration",
            Self::Timeout => "timeout",
            Self::Directory => "directory",
            Self::Listen => "listen",
            Self::RoleId => "role-id",
            Self::Terminated => "terminated",
        }
    }

    /// What a person does about it.
    const fn advice(self) -> &'static str {
        match self {
            Self::Internal => "The kubelet will try again.",
            Self::Configuration => "Correct the environment of this init container in the pod's spec.",
            Self::Timeout => {
                "Look at the pod's Events (kubectl describe pod); likely causes: no kubernetes-vault controller is \
                 running or leading, its watchNamespace does not cover this namespace, the annotations \
                 pod.boostport.com/vault-approle or pod.boostport.com/vault-init-container are missing or name \
                 another container, a network policy closes port 50000."
            }
            Self::Directory => {
                "Mount a volume that this container may write at CREDENTIALS_PATH, and not by way of a symbolic link."
            }
            Self::Listen => {
                "Another process of this pod (or of the node, with hostNetwork) holds the port; it must go."
            }
            Self::RoleId => {
                "Compare VAULT_ROLE_ID with `vault read auth/<mount>/role/<role>/role-id`; the annotation \
                 pod.boostport.com/vault-approle names the role."
            }
            Self::Terminated => "Nothing was written.",
        }
    }
}

/// The end of a process that has failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// One sentence, without secrets.
    pub(crate) what: String,
}

impl Failure {
    pub(crate) fn new(cause: Cause, what: impl Into<String>) -> Self {
        Self { cause, what: what.into() }
    }

    /// Says it where people look: the last log line, and the termination message.
    pub(crate) fn report(&self) {
        leave_message(&format!("{}: {}", self.cause.word(), self.what));
        log::fatal(&format!("{} {}", self.what, self.cause.advice()));
    }
}

/// Writes the termination message. Best effort: outside Kubernetes there is no such file, and none is made.
pub(crate) fn leave_message(text: &str) {
    let end = text.floor_char_boundary(TERMINATION_BYTES_MAX);
    let file = OpenOptions::new()
        .write(true)
        .truncate(true)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(TERMINATION_LOG);
    if let Ok(mut file) = file {
        // Nobody is left to tell if this fails.
        let _ = file.write_all(&text.as_bytes()[..end]);
    }
}
