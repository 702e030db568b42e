//! The real servers that the cases share: an API server and a Vault, set up as for the Go version.

use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use testbed::network::BRIDGE_IP;
use testbed::{ControllerPolicy, ROOT_TOKEN, Testbed, TokenRole, Vault, fake_pods};
use tokio::runtime::Runtime;

use crate::case::Case;
use crate::tls::Front;

/// The AppRole of the recordings.
pub(crate) const ROLE: &str = "sample-app";
/// The PKI mount that holds the authority of [`World::front`].
pub(crate) const PKI: &str = "root-ca";

/// What runs.
pub(crate) struct World {
    pub(crate) bed: Testbed,
    /// `http://…`, the real Vault.
    pub(crate) vault: String,
    /// The same Vault over TLS.
    pub(crate) front: Front,
    /// role_id of [`ROLE`].
    pub(crate) role_id: String,
    /// The controller's token, with the policy of the Go version's documents.
    pub(crate) token: String,
    pub(crate) http: reqwest::Client,
    numbers: AtomicU16,
}

/// TLS in front of Vault, with a certificate of Vault's own PKI: what `vaultCABackends` is for.
async fn front(vault: &Vault, listener: SocketAddr) -> Result<Front> {
    let ip = IpAddr::V4(BRIDGE_IP);
    vault.write(&format!("sys/mounts/{PKI}"), &json!({"type": "pki"})).await?;
    let root = json!({"common_name": "compat", "key_type": "ec", "key_bits": 256});
    vault.write(&format!("{PKI}/root/generate/internal"), &root).await?;
    let role = json!({"allow_any_name": true, "enforce_hostnames": false, "key_type": "ec", "key_bits": 256});
    vault.write(&format!("{PKI}/roles/vault"), &role).await?;
    let request =
        json!({"common_name": "vault", "ip_sans": ip.to_string(), "ttl": "24h", "private_key_format": "pkcs8"});
    let issued = vault.write(&format!("{PKI}/issue/vault"), &request).await?;
    let text = |key: &str| issued["data"][key].as_str().with_context(|| format!("no {key}"));
    Front::start(ip, (text("certificate")?, text("private_key")?, text("issuing_ca")?), listener).await
}

/// A wrapped secret_id.
pub(crate) struct Wrapped {
    pub(crate) token: String,
    pub(crate) creation_time: String,
    pub(crate) ttl: i64,
}

impl World {
    async fn start() -> Result<Self> {
        // Every pod is simulated, or is a process of a case.
        let bed = Testbed::builder().nodes(0).start().await?;
        let vault = bed.vault()?;
        let role_id = vault.set_up_app(ROLE).await?;
        let token = vault.create_controller_token(ControllerPolicy::Reference, &TokenRole::default()).await?;
        let address = vault.address().to_owned();
        let listener = address.strip_prefix("http://").context("Vault serves TLS itself")?.parse()?;
        let front = front(vault, listener).await?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { bed, vault: address, front, role_id, token, http, numbers: AtomicU16::new(1) })
    }

    /// A number that nobody else has.
    pub(crate) fn next_number(&self) -> u16 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The address of a simulated pod.
    pub(crate) fn next_ip(&self) -> IpAddr {
        fake_pods::simulated_ip(self.next_number())
    }

    /// A Kubernetes namespace of its own.
    pub(crate) async fn namespace(&self) -> Result<String> {
        let name = format!("compat-{}", self.next_number());
        fake_pods::create_namespace(&self.bed.client(), &name).await?;
        Ok(name)
    }

    /// Asks Vault as the Go controller does.
    pub(crate) async fn wrap(&self) -> Result<Wrapped> {
        let request = self.http.put(format!("{}/v1/auth/approle/role/{ROLE}/secret-id", self.vault));
        let request = request.header("X-Vault-Token", ROOT_TOKEN).header("X-Vault-Wrap-TTL", "60s").body("{}");
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        let info = &answer["wrap_info"];
        let text = |key: &str| Some(info[key].as_str()?.to_owned());
        Ok(Wrapped {
            token: text("token").context("no token")?,
            creation_time: text("creation_time").context("no creation_time")?,
            ttl: info["ttl"].as_i64().context("no ttl")?,
        })
    }
}

impl Wrapped {
    /// The message of the Go controller; `cas` is JSON.
    pub(crate) fn body(&self, vault: &str, cas: &str) -> String {
        let Self { token, creation_time, ttl } = self;
        format!(
            r#"{{"token":"{token}","creationTime":"{creation_time}","ttl":{ttl},"vaultAddr":"{vault}","vaultCAs":{cas}}}"#
        )
    }
}

/// The world, once a case wants it.
#[derive(Default)]
pub(crate) struct Shared(OnceLock<Result<(Runtime, &'static World), String>>);

impl Shared {
    /// Runs a case.
    pub(crate) fn run(&self, case: Case) -> Result<()> {
        let started = self.0.get_or_init(|| start().map_err(|error| format!("{error:#}")));
        let (runtime, world) = started.as_ref().map_err(|error| anyhow!("the servers did not start: {error}"))?;
        runtime.block_on((case.run)(world))
    }

    /// Ends the servers.
    pub(crate) fn stop(&self) {
        if let Some(Ok((runtime, world))) = self.0.get() {
            runtime.block_on(world.bed.stop());
        }
    }
}

fn start() -> Result<(Runtime, &'static World)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    // One for the whole process: cases may keep references to it in tasks of their own.
    let world = Box::leak(Box::new(runtime.block_on(World::start())?));
    Ok((runtime, world))
}
