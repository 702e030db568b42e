//! A whole testbed: control plane, Vault and nodes, started together and stopped in order.
//!
//! Owns: the directory of one testbed on the sandbox's tmpfs, and everything that runs in it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use kube::Client;
use tokio::process::Command;

use crate::agent::{AgentOptions, Image, Images, KUBELET_RESTART_BASE, KUBELET_VOLUME_REFRESH, NodeAgent, agent_of};
use crate::control_plane::{API_PORT, ControlPlane, ControlPlaneOptions};
use crate::network;
use crate::sandbox;
use crate::vault::{Vault, VaultOptions};

/// What a testbed is made of.
#[derive(Debug)]
pub struct Builder {
    images: Images,
    vault: Option<VaultOptions>,
    nodes: u8,
    control_plane: ControlPlaneOptions,
    restart_base: Duration,
    ipv6: bool,
    volume_refresh: Duration,
    names: Vec<(String, String)>,
    errors: Vec<anyhow::Error>,
}

/// A running testbed. Dropping it leaves the processes to the end of the sandbox; [`Testbed::stop`] ends them.
pub struct Testbed {
    control_plane: ControlPlane,
    vault: Option<Vault>,
    nodes: Vec<NodeAgent>,
    client: Client,
    directory: PathBuf,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            images: Images::default(),
            vault: Some(VaultOptions::default()),
            nodes: 1,
            control_plane: ControlPlaneOptions::default(),
            restart_base: KUBELET_RESTART_BASE,
            ipv6: false,
            volume_refresh: KUBELET_VOLUME_REFRESH,
            names: Vec::new(),
            errors: Vec::new(),
        }
    }
}

impl Builder {
    /// A program that stands for an image.
    #[must_use]
    pub fn image(mut self, name: &str, image: Image) -> Self {
        self.errors.extend(self.images.add(name, image).err());
        self
    }

    /// How Vault runs.
    #[must_use]
    pub fn vault(mut self, options: VaultOptions) -> Self {
        self.vault = Some(options);
        self
    }

    /// No Vault at all.
    #[must_use]
    pub fn without_vault(mut self) -> Self {
        self.vault = None;
        self
    }

    /// How many nodes run pods. None is fine where every pod is simulated.
    #[must_use]
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes;
        self
    }

    /// How the control plane runs.
    #[must_use]
    pub fn control_plane(mut self, options: ControlPlaneOptions) -> Self {
        self.control_plane = options;
        self
    }

    /// The delay before a container's second restart, ten seconds as with a kubelet unless set.
    #[must_use]
    pub fn restart_base(mut self, base: Duration) -> Self {
        self.restart_base = base;
        self
    }

    /// How often volumes take over changed ConfigMaps and Secrets, once a minute unless set.
    #[must_use]
    pub fn volume_refresh(mut self, period: Duration) -> Self {
        self.volume_refresh = period;
        self
    }

    /// Gives each pod an IPv6 address, too. The servers stay on IPv4.
    #[must_use]
    pub fn ipv6(mut self) -> Self {
        self.ipv6 = true;
        self
    }

    /// A name that every pod finds in its hosts file.
    #[must_use]
    pub fn host(mut self, ip: Ipv4Addr, name: &str) -> Self {
        self.names.push((ip.to_string(), name.to_owned()));
        self
    }

    /// Starts everything and waits until pods can be created.
    pub async fn start(mut self) -> Result<Testbed> {
        if !self.errors.is_empty() {
            return Err(self.errors.remove(0));
        }
        // Failing means that the program has chosen its provider already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let servers = sandbox::servers()?;
        let (number, directory) = sandbox::claim_directory()?;
        let ip = network::server_ip(number);
        network::add_address(ip).await?;
        if self.ipv6 {
            network::add_ipv6().await?;
        }
        let folder = |name: &str| -> Result<PathBuf> {
            let path = directory.join(name);
            fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
            Ok(path)
        };
        let (plane_folder, vault_folder, kubelets) = (folder("control-plane")?, folder("vault")?, folder("nodes")?);
        let vault = async {
            let Some(options) = &self.vault else {
                return Ok(None);
            };
            Vault::start(&servers.vault, options, vault_folder, ip).await.map(Some)
        };
        let options = self.control_plane.clone();
        let plane = ControlPlane::start(servers.clone(), options, plane_folder, ip);
        let (control_plane, vault) = tokio::try_join!(plane, vault)?;
        let client = control_plane.client(&control_plane.kubeconfig()).await?;
        let mut testbed = Testbed { control_plane, vault, nodes: Vec::new(), client, directory };
        for index in 0..self.nodes {
            testbed.start_node(&self, number, index, &kubelets).await?;
        }
        Ok(testbed)
    }
}

impl Testbed {
    /// What a testbed may be made of.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A client that may do everything.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.control_plane.kubeconfig()
    }

    /// The control plane.
    #[must_use]
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// Vault; an error where the testbed was built without.
    pub fn vault(&self) -> Result<&Vault> {
        self.vault.as_ref().context("this testbed was built without Vault")
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[NodeAgent] {
        &self.nodes
    }

    /// The node that runs, or ran, a pod.
    pub fn node_of(&self, namespace: &str, pod: &str) -> Result<&NodeAgent> {
        agent_of(&self.nodes, namespace, pod)
    }

    /// What a container printed since its last start.
    pub fn logs(&self, namespace: &str, pod: &str, container: &str) -> Result<String> {
        self.node_of(namespace, pod)?.logs(namespace, pod, container)
    }

    /// A directory of this testbed for files of a case; it goes with the sandbox.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Runs kubectl as the administrator; returns what it printed.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(self.control_plane.kubectl())
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", &self.directory)
            .output()
            .await
            .context("cannot start kubectl")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(output.status.success(), "kubectl {}: {}", arguments.join(" "), text(&output.stderr));
        Ok(text(&output.stdout))
    }

    /// The folder with kubectl, to be put in front of `PATH`.
    #[must_use]
    pub fn tools(&self) -> &Path {
        self.control_plane.kubectl().parent().unwrap_or(Path::new("/"))
    }

    /// `KUBECONFIG`, `VAULT_ADDR`, `VAULT_TOKEN` and, with TLS, `VAULT_CACERT`.
    pub fn variables(&self) -> Result<Vec<(String, String)>> {
        let mut variables = vec![("KUBECONFIG".to_owned(), self.kubeconfig().display().to_string())];
        if let Some(vault) = &self.vault {
            variables.push(("VAULT_ADDR".to_owned(), vault.address().to_owned()));
            variables.push(("VAULT_TOKEN".to_owned(), crate::vault::ROOT_TOKEN.to_owned()));
            if let Some(ca) = vault.ca() {
                let path = self.directory.join("vault-ca.crt");
                fs::write(&path, ca).with_context(|| format!("cannot write {}", path.display()))?;
                variables.push(("VAULT_CACERT".to_owned(), path.display().to_string()));
            }
        }
        Ok(variables)
    }

    /// Ends everything in order.
    pub async fn stop(&self) {
        for node in &self.nodes {
            node.stop();
        }
        let vault = async {
            if let Some(vault) = &self.vault {
                vault.stop().await;
            }
        };
        tokio::join!(self.control_plane.stop(), vault);
    }

    async fn start_node(&mut self, builder: &Builder, number: u8, index: u8, kubelets: &Path) -> Result<()> {
        let node = format!("node-{}", index + 1);
        let node_ip = network::node_ip(number, index);
        network::add_address(node_ip).await?;
        let directory = kubelets.join(&node).join("kubelet");
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        // Its own user name: the audit log tells its requests from those that a case counts.
        let kubeconfig = self.control_plane.kubeconfig_for(&format!("system:node:{node}"))?;
        let agent = NodeAgent::start(AgentOptions {
            client: self.control_plane.client(&kubeconfig).await?,
            node,
            node_ip,
            images: builder.images.clone(),
            directory,
            api_server: (self.control_plane.ip(), API_PORT),
            restart_base: builder.restart_base,
            ipv6: builder.ipv6,
            volume_refresh: builder.volume_refresh,
            names: builder.names.clone(),
        })
        .await?;
        self.nodes.push(agent);
        Ok(())
    }
}
