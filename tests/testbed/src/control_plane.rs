//! The control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.
//!
//! Owns: their processes, certificates, kubeconfigs and logs, all under one directory.
//!
//! Must never happen: stopping etcd before the API server, which would wait for it; that the
//! caller goes on before the API server is ready and pods can be created.

mod audit;
mod flags;

pub use audit::Request;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::sync::Mutex;

use crate::pki::{Authority, Pair, signing_key};
use crate::process::{Server, poll_until};
use crate::servers::Servers;

/// The group that may do everything.
const ADMINISTRATORS: &str = "system:masters";
/// 200 client certificates of one test would be many; the longest start seen was 25 s on busy cores.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a server may take to end before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// The API server's port.
pub(crate) const API_PORT: u16 = 6443;

/// What may differ between control planes.
#[derive(Clone, Debug, Default)]
pub struct ControlPlaneOptions {
    /// Writes the metadata of every request to [`ControlPlane::audit_log`].
    pub audit: bool,
    /// Further flags of the API server.
    pub api_server_flags: Vec<String>,
}

/// A running control plane.
pub struct ControlPlane {
    servers: Servers,
    options: ControlPlaneOptions,
    directory: PathBuf,
    ip: Ipv4Addr,
    authority: Authority,
    etcd: Mutex<Option<Server>>,
    api_server: Mutex<Option<Server>>,
    others: Mutex<Vec<Server>>,
}

impl ControlPlane {
    /// Starts everything and waits until pods can be created.
    pub(crate) async fn start(
        servers: Servers,
        options: ControlPlaneOptions,
        directory: PathBuf,
        ip: Ipv4Addr,
    ) -> Result<Self> {
        let plane = Self {
            servers,
            options,
            authority: Authority::new("testbed")?,
            etcd: Mutex::new(None),
            api_server: Mutex::new(None),
            others: Mutex::new(Vec::new()),
            directory,
            ip,
        };
        plane.write_files()?;
        let etcd = Server::spawn("etcd", &plane.servers.etcd, &flags::etcd(&plane.directory, ip), &plane.directory)?;
        *plane.etcd.lock().await = Some(etcd);
        plane.start_api_server().await?;
        plane.start_others().await?;
        plane.wait_until_pods_can_be_created().await?;
        Ok(plane)
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.join("kubeconfig")
    }

    /// The URL of the API server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}:{API_PORT}", self.ip)
    }

    /// The address of the API server.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        self.ip
    }

    /// One JSON object a line for each request, where [`ControlPlaneOptions::audit`] is set.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.directory.join("audit.log")
    }

    /// Every request so far, where [`ControlPlaneOptions::audit`] is set.
    pub fn audited(&self) -> Result<Vec<Request>> {
        audit::read(&self.audit_log())
    }

    /// Where the servers' logs are.
    #[must_use]
    pub fn logs(&self) -> &Path {
        &self.directory
    }

    /// The certificate authority of the API server, PEM.
    #[must_use]
    pub fn ca(&self) -> String {
        self.authority.pem()
    }

    /// The kubectl that fits.
    #[must_use]
    pub fn kubectl(&self) -> &Path {
        &self.servers.kubectl
    }

    /// A kubeconfig for another user, who may do everything but is told apart in the audit log.
    pub fn kubeconfig_for(&self, user: &str) -> Result<PathBuf> {
        let path = self.directory.join(format!("{}.kubeconfig", user.replace(':', "-")));
        self.write_kubeconfig(&path, &self.authority.client(user, ADMINISTRATORS)?)?;
        Ok(path)
    }

    /// A client for a kubeconfig.
    pub async fn client(&self, kubeconfig: &Path) -> Result<Client> {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // A proxy of the user's environment cannot reach the private network.
        config.proxy_url = None;
        Ok(Client::try_from(config)?)
    }

    /// Starts the API server (again) and waits until it is ready.
    pub async fn start_api_server(&self) -> Result<()> {
        let mut slot = self.api_server.lock().await;
        ensure!(slot.is_none(), "the API server runs already");
        let flags = flags::api_server(&self.directory, self.ip, &self.options);
        let server = Server::spawn("kube-apiserver", &self.servers.api_server, &flags, &self.directory)?;
        let server = slot.insert(server);
        let client = self.client(&self.kubeconfig()).await?;
        server.wait_until("answer on /readyz", START_LIMIT, || ready(client.clone())).await
    }

    /// Ends the API server as an orderly restart would.
    pub async fn stop_api_server(&self) {
        if let Some(mut server) = self.api_server.lock().await.take() {
            server.stop(STOP_GRACE).await;
        }
    }

    /// Ends the API server as a crash would.
    pub async fn kill_api_server(&self) {
        if let Some(mut server) = self.api_server.lock().await.take() {
            server.kill().await;
        }
    }

    /// Crashes the API server and its controllers, as the machine that runs them would; etcd goes on elsewhere.
    ///
    /// Controllers that outlive several crashes of the API server within two minutes wait up to a minute each before
    /// they look at it again (client-go's reflector): then nothing is scheduled or replaced for minutes.
    pub async fn crash(&self) {
        self.kill_api_server().await;
        for mut server in std::mem::take(&mut *self.others.lock().await) {
            server.kill().await;
        }
    }

    /// Starts what [`Self::crash`] has ended, and waits until the API server is ready.
    pub async fn recover(&self) -> Result<()> {
        self.start_api_server().await?;
        self.start_others().await
    }

    /// Ends everything in order.
    pub(crate) async fn stop(&self) {
        let mut others = std::mem::take(&mut *self.others.lock().await);
        futures::future::join_all(others.iter_mut().map(|server| server.stop(STOP_GRACE))).await;
        self.stop_api_server().await;
        if let Some(mut etcd) = self.etcd.lock().await.take() {
            etcd.stop(STOP_GRACE).await;
        }
    }

    async fn start_others(&self) -> Result<()> {
        let (directory, ip) = (&self.directory, self.ip);
        let manager = flags::controller_manager(directory, ip);
        let scheduler = flags::scheduler(directory, ip);
        self.others.lock().await.extend([
            Server::spawn("kube-controller-manager", &self.servers.controller_manager, &manager, directory)?,
            Server::spawn("kube-scheduler", &self.servers.scheduler, &scheduler, directory)?,
        ]);
        Ok(())
    }

    /// Pods need the `default` service account, and their token volume needs the CA's ConfigMap.
    async fn wait_until_pods_can_be_created(&self) -> Result<()> {
        let client = self.client(&self.kubeconfig()).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "default");
        let maps: Api<ConfigMap> = Api::namespaced(client, "default");
        let mut others = self.others.lock().await;
        let manager = others.first_mut().context("no controller-manager")?;
        manager
            .wait_until("default ServiceAccount", START_LIMIT, || async {
                accounts.get("default").await?;
                maps.get("kube-root-ca.crt").await?;
                Ok(())
            })
            .await
    }

    fn write_files(&self) -> Result<()> {
        let (private, public) = signing_key()?;
        let names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
        let addresses = [self.ip, crate::network::KUBERNETES_SERVICE_IP, Ipv4Addr::LOCALHOST];
        let serving = self.authority.server("kube-apiserver", &names, &addresses)?;
        for (name, content) in [
            ("ca.crt", &self.authority.pem()),
            ("apiserver.crt", &serving.certificate),
            ("apiserver.key", &serving.key),
            ("accounts.key", &private),
            ("accounts.pub", &public),
            ("audit-policy.yaml", &flags::AUDIT_POLICY.to_owned()),
        ] {
            let path = self.directory.join(name);
            fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let admin = self.authority.client("testbed-admin", ADMINISTRATORS)?;
        self.write_kubeconfig(&self.kubeconfig(), &admin)?;
        // Each has the rights that Kubernetes gives this user name, and no others.
        for user in ["system:kube-controller-manager", "system:kube-scheduler"] {
            let path = self.directory.join(format!("{}.kubeconfig", user.replace(':', "-")));
            self.write_kubeconfig(&path, &self.authority.client(user, "testbed")?)?;
        }
        Ok(())
    }

    /// Everything inline, so that the file can be handed around alone.
    fn write_kubeconfig(&self, path: &Path, user: &Pair) -> Result<()> {
        let base64 = |text: &str| ByteString(text.as_bytes().to_vec());
        let content = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "testbed",
            "clusters": [{"name": "testbed", "cluster": {
                "server": self.url(),
                "certificate-authority-data": base64(&self.authority.pem()),
            }}],
            "users": [{"name": "testbed", "user": {
                "client-certificate-data": base64(&user.certificate),
                "client-key-data": base64(&user.key),
            }}],
            "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "testbed"}}],
        });
        fs::write(path, content.to_string()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Waits until the API server answers, for a case that started it by hand.
    pub async fn wait_until_ready(&self, limit: Duration) -> Result<()> {
        let client = self.client(&self.kubeconfig()).await?;
        poll_until("ready API server", limit, || async { Ok(ready(client.clone()).await.ok()) }).await
    }
}

async fn ready(client: Client) -> Result<()> {
    let request = http::Request::get("/readyz").body(Vec::new())?;
    client.request_text(request).await?;
    Ok(())
}
