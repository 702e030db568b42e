//! By what this replica is known to its peers, at the start and whenever that is renewed.
//!
//! Owns the certificate that Vault has issued, on disk in `raftDir`: a replica that starts while Vault is sealed finds its
//! peers all the same. Must never: leave a key readable for others.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Error, reload};
use crate::causes::with_causes;
use crate::clock::Clock;
use crate::config::{Config, PeerFiles, PeerIdentity, PeerPki};
use crate::domain::backoff;
use crate::files;
use crate::metrics::{Metrics, TlsUse};
use crate::tls::{self, ClusterIdentity, IssuedPeer, PEER_TTL, Scope};
use crate::vault::{CertificateRequest, Handle, IssuedCertificate};

/// Where the issued certificate is kept, in `raftDir`.
const KEPT: &str = "peer-certificate.json";

/// While there is no certificate, why is logged this often at most.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// What an identity needs of this replica.
pub(super) struct Surroundings<'a> {
    pub(super) config: &'a Config,
    pub(super) vault: Handle,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) tasks: &'a TaskTracker,
    pub(super) stop: CancellationToken,
}

/// The scope in which a certificate is a peer's.
pub(super) fn scope(config: &Config) -> Scope {
    Scope {
        namespace: config.kubernetes.service_namespace.clone(),
        service: config.kubernetes.service.clone(),
        cluster: config.raft.cluster_name.clone(),
    }
}

/// The identity that is configured; it follows what is renewed until `stop`. Waits for Vault where that has to issue it.
///
/// # Errors
/// A file that cannot be used.
pub(super) async fn establish(around: Surroundings<'_>) -> Result<Option<ClusterIdentity>, Error> {
    let scope = scope(around.config);
    let identity = match &around.config.raft.identity {
        PeerIdentity::Files(files) => from_files(&around, scope, files)?,
        PeerIdentity::VaultPki(pki) => from_vault(around, scope, pki).await,
        PeerIdentity::Secrets(first, second) => ClusterIdentity::derive(&scope, first, second.as_ref())?,
        PeerIdentity::Token(token) => ClusterIdentity::derive(&scope, token, None)?,
        PeerIdentity::None { why } => {
            tracing::info!("this replica can only be alone, there is no identity for peers: {why}");
            return Ok(None);
        }
    };
    Ok(Some(identity))
}

/// By what peers know each other, in words.
pub(super) fn in_words(by: &PeerIdentity) -> &'static str {
    match by {
        PeerIdentity::Files(_) => "certificates of raft.tls",
        PeerIdentity::VaultPki(_) => "certificates of raft.tls from Vault",
        PeerIdentity::Secrets(..) => "keys derived from raft.secrets",
        PeerIdentity::Token(_) => "a key derived from vault.token",
        PeerIdentity::None { .. } => "none: this replica can only be alone",
    }
}

/// Shows `new` from now on.
fn replace(identity: &ClusterIdentity, new: &ClusterIdentity, metrics: &Metrics) {
    let parted = identity.replace(new);
    metrics.certificate_expires(TlsUse::Peers, identity.validity().map(|validity| validity.not_after));
    if parted > 0 {
        tracing::warn!(connections = parted, "peers whose certificates are not accepted any more were disconnected");
    }
}

fn from_files(around: &Surroundings<'_>, scope: Scope, files: &PeerFiles) -> Result<ClusterIdentity, Error> {
    let PeerFiles { cert, key, ca } = files.clone();
    let paths = tls::PeerFiles { cert, key, ca };
    let identity = ClusterIdentity::from_files(&scope, &paths, around.clock.now())?;
    let (clock, metrics) = (around.clock.clone(), around.metrics.clone());
    metrics.certificate_expires(TlsUse::Peers, identity.validity().map(|validity| validity.not_after));
    let watched = vec![paths.cert.clone(), paths.key.clone(), paths.ca.clone()];
    let (own, stop) = (identity.clone(), around.stop.clone());
    let load = move || {
        let new = ClusterIdentity::from_files(&scope, &paths, clock.now()).map_err(|error| with_causes(&error))?;
        replace(&own, &new, &metrics);
        Ok(())
    };
    let follow = reload::follow(watched, TlsUse::Peers, around.metrics.clone(), load);
    around.tasks.spawn(async move { stop.run_until_cancelled(follow).await });
    Ok(identity)
}

/// What Vault has issued, as it is now.
struct Held {
    scope: Scope,
    issued: Mutex<IssuedPeer>,
    identity: ClusterIdentity,
    /// What is to be kept on disk.
    keep: watch::Sender<IssuedPeer>,
    /// Vault has another CA: what it has issued before is of no use to whoever begins with that one alone.
    sooner: Notify,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl Held {
    /// Makes the identity anew, uses it, and has kept what it is made of.
    fn change(&self, change: impl FnOnce(&IssuedPeer) -> IssuedPeer) -> Result<(), String> {
        let mut issued = self.issued.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = change(&issued);
        let new = ClusterIdentity::from_vault(&self.scope, &changed, self.clock.now());
        self.metrics.tls_reloaded(TlsUse::Peers, new.is_err());
        replace(&self.identity, &new.map_err(|error| with_causes(&error))?, &self.metrics);
        self.keep.send_replace(changed.clone());
        *issued = changed;
        Ok(())
    }

    fn renew(&self, new: IssuedCertificate) -> Result<(), String> {
        self.change(|former| with_certificate(former.clone(), new))
    }

    fn believe(&self, cas: &str) -> Result<(), String> {
        if self.issued.lock().unwrap_or_else(PoisonError::into_inner).cas == cas {
            return Ok(());
        }
        self.change(|former| former.with_cas(cas, self.clock.now()))?;
        self.sooner.notify_one();
        Ok(())
    }
}

async fn from_vault(around: Surroundings<'_>, scope: Scope, pki: &PeerPki) -> ClusterIdentity {
    let Surroundings { config, vault, metrics, clock, tasks, stop } = around;
    let request = CertificateRequest {
        mount: pki.mount.clone(),
        role: pki.role.clone(),
        uri_sans: scope.uri(),
        ttl: format!("{}s", PEER_TTL.as_secs()),
        ..CertificateRequest::default()
    };
    let path = config.raft_dir.join(KEPT);
    let origin = format!("{}/issue/{}", pki.mount, pki.role);
    let kept = read(&path, &origin).and_then(|kept| {
        let identity = ClusterIdentity::from_vault(&scope, &kept, clock.now()).map_err(|error| with_causes(&error))?;
        Ok((kept, identity))
    });
    let is_new = kept.is_err();
    let (issued, identity) = match kept {
        Ok(kept) => kept,
        Err(why) => {
            tracing::info!(cause = why, "a certificate for peers is asked of Vault");
            first(&vault, &request, &scope, (&origin, &pki.cas), &*clock).await
        }
    };
    let (keep, kept) = watch::channel(issued.clone());
    let until = identity.validity().map(|validity| validity.not_after);
    metrics.certificate_expires(TlsUse::Peers, until);
    let left = until.unwrap_or_default().saturating_sub(i64::try_from(clock.now().0 / 1000).unwrap_or(i64::MAX));
    let left = Duration::from_secs(u64::try_from(left).unwrap_or_default());
    let (issued, sooner) = (Mutex::new(issued), Notify::new());
    let held = Held { scope, issued, identity: identity.clone(), keep, sooner, metrics, clock: clock.clone() };
    let mounts = pki.cas.clone();
    let follow = async move {
        let renew = vault.keep_certificate(request, left, &held.sooner, || clock.now().0 / 1000, |new| held.renew(new));
        let failing = |failing| held.metrics.tls_reloaded(TlsUse::Peers, failing);
        let believe = vault.follow_cas(&mounts, |bundle| held.believe(bundle), failing);
        tokio::join!(renew, believe, keep_on_disk(path, kept, is_new))
    };
    tasks.spawn(async move { stop.run_until_cancelled(follow).await });
    identity
}

/// Writes what is to be kept: at once if it `is_new`, and whenever it changes. A disk that stalls holds up nobody else.
async fn keep_on_disk(path: PathBuf, mut issued: watch::Receiver<IssuedPeer>, is_new: bool) {
    if is_new {
        issued.mark_changed();
    }
    while let Ok(()) = issued.changed().await {
        let (path, issued) = (path.clone(), issued.borrow_and_update().clone());
        let _ = tokio::task::spawn_blocking(move || keep(&path, &issued)).await;
    }
}

fn with_certificate(former: IssuedPeer, new: IssuedCertificate) -> IssuedPeer {
    IssuedPeer { certificate: new.certificate, ca_chain: new.ca_chain, key: new.private_key, ..former }
}

/// The first certificate: waits for it as long as it takes.
async fn first(
    vault: &Handle,
    request: &CertificateRequest,
    scope: &Scope,
    (origin, cas): (&str, &[String]),
    clock: &dyn Clock,
) -> (IssuedPeer, ClusterIdentity) {
    let (mut failures, mut told) = (0, None::<tokio::time::Instant>);
    loop {
        let why = match ask(vault, request, (origin, cas)).await {
            Ok(issued) => match ClusterIdentity::from_vault(scope, &issued, clock.now()) {
                Ok(identity) => return (issued, identity),
                Err(error) => with_causes(&error),
            },
            Err(why) => why,
        };
        if told.is_none_or(|at| at.elapsed() >= LOG_EVERY) {
            tracing::warn!(cause = why, "waiting for a certificate for peers from Vault ({origin})");
            told = Some(tokio::time::Instant::now());
        }
        failures += 1;
        sleep(backoff::VAULT.wait(failures, rand::random())).await;
    }
}

async fn ask(vault: &Handle, request: &CertificateRequest, from: (&str, &[String])) -> Result<IssuedPeer, String> {
    let (origin, cas) = from;
    let cas = vault.ca_certificates(cas).await?;
    let issued = vault.issue_certificate(request).await.map_err(|trouble| trouble.to_string())?;
    Ok(IssuedPeer {
        origin: origin.to_owned(),
        certificate: issued.certificate,
        ca_chain: issued.ca_chain,
        key: issued.private_key,
        cas,
        former: Vec::new(),
    })
}

/// What is kept at `path`, if it came from `origin`.
fn read(path: &Path, origin: &str) -> Result<IssuedPeer, String> {
    let bytes = files::read(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "none is kept in raftDir".to_owned(),
        _ => format!("{}: {error}", path.display()),
    })?;
    let kept = IssuedPeer::from_bytes(&bytes).map_err(|error| with_causes(&error))?;
    if kept.origin == origin { Ok(kept) } else { Err(format!("the one kept in raftDir is of {}", kept.origin)) }
}

/// Keeps `issued` at `path`. Where it cannot be kept, this replica goes on without.
fn keep(path: &Path, issued: &IssuedPeer) {
    if let Err(error) = write(path, &issued.to_bytes()) {
        tracing::warn!(
            path = %path.display(),
            %error,
            "the certificate for peers cannot be kept; after a restart this replica has to wait for Vault"
        );
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Whole or not at all: a torn one would be as good as none, and would be found when Vault is sealed.
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_kept_is_for_this_user_alone_and_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("raft").join(KEPT);
        for content in ["one", "two"] {
            write(&path, content.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_kept_of_another_role_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(KEPT);
        assert_eq!(read(&path, "pki/issue/peer").err().unwrap(), "none is kept in raftDir");
        let issued = IssuedPeer {
            origin: "pki/issue/peer".to_owned(),
            certificate: String::new(),
            ca_chain: Vec::new(),
            key: "key".into(),
            cas: String::new(),
            former: Vec::new(),
        };
        keep(&path, &issued);
        assert!(read(&path, "pki/issue/peer").is_ok());
        assert_eq!(read(&path, "pki/issue/other").err().unwrap(), "the one kept in raftDir is of pki/issue/peer");
    }
}
