//! The real controller as a process of its own, and the simulated pods that it serves.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use reqwest::Client;
use testbed::fake_pods::{self, FakePod};
use testbed::{ControllerPolicy, poll_until};
use tokio::process::{Child, Command};

use crate::world::{LIMIT, World};

/// A running controller. It is killed when dropped.
pub(crate) struct Controller {
    child: Child,
    config: PathBuf,
    raft_dir: PathBuf,
    log: PathBuf,
    address: IpAddr,
}

/// What may differ between controllers.
pub(crate) struct Settings {
    /// What its token may do.
    pub(crate) policy: ControllerPolicy,
    /// `vault.addr`, where it is not the real Vault's.
    pub(crate) vault: Option<String>,
    /// Where the API server is, where it is not asked directly.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// `vault.token`, where it is not one of `policy`.
    pub(crate) token: Option<String>,
    /// `vault.wrappingTTL`.
    pub(crate) wrapping_ttl: &'static str,
    /// Further lines of the section `vault`, indented by two.
    pub(crate) vault_lines: String,
    /// Further sections of the configuration.
    pub(crate) sections: String,
    /// Further arguments.
    pub(crate) arguments: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: ControllerPolicy::Ours,
            vault: None,
            kubeconfig: None,
            token: None,
            wrapping_ttl: "120s",
            vault_lines: String::new(),
            sections: String::new(),
            arguments: Vec::new(),
        }
    }
}

impl Controller {
    /// Starts one that watches `namespaces`, under our policy.
    pub(crate) async fn start(world: &World, namespaces: &str) -> Result<Self> {
        Self::start_with(world, namespaces, Settings::default()).await
    }

    /// Starts one and waits until it is ready.
    pub(crate) async fn start_with(world: &World, namespaces: &str, settings: Settings) -> Result<Self> {
        let mut controller = Self::spawn(world, namespaces, settings).await?;
        controller.wait_until_ready().await?;
        Ok(controller)
    }

    /// Starts one.
    pub(crate) async fn spawn(world: &World, namespaces: &str, settings: Settings) -> Result<Self> {
        let token = match settings.token {
            Some(token) => token,
            None => world.token(settings.policy).await?,
        };
        let (name, address) = (world.name("controller"), world.address());
        let directory = world.bed.directory();
        let (config, log) = (directory.join(format!("{name}.yml")), directory.join(format!("{name}.log")));
        let raft_dir = directory.join(format!("{name}.raft"));
        let tls = match &settings.vault {
            Some(_) => settings.vault_lines,
            None => format!("  tls:\n    caCert: {}\n{}", world.ca_file().display(), settings.vault_lines),
        };
        let vault = settings.vault.as_deref().unwrap_or(world.vault()?.address());
        let text = format!(
            "raftDir: {}\nvault:\n  addr: {vault}\n  token: {token}\n  wrappingTTL: {}\n{tls}\
             kubernetes:\n  watchNamespace: \"{namespaces}\"\n  serviceNamespace: default\n  service: kubernetes\n\
             prometheus: {{address: \"{address}:9102\"}}\nhealth: {{address: \"{address}:8080\"}}\n{}",
            raft_dir.display(),
            settings.wrapping_ttl,
            settings.sections
        );
        std::fs::write(&config, text)?;
        let file = std::fs::File::create(&log)?;
        let child = Command::new(env!("CARGO_BIN_EXE_kubernetes-vault"))
            .arg(format!("--config={}", config.display()))
            .args(settings.arguments)
            .env("KUBECONFIG", settings.kubeconfig.unwrap_or_else(|| world.bed.kubeconfig()))
            .env("HOSTNAME", &name)
            .env_remove("HTTP_PROXY")
            .env_remove("HTTPS_PROXY")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the controller")?;
        Ok(Self { child, config, raft_dir, log, address })
    }

    /// `program`, about to be asked by these arguments for this controller.
    pub(crate) fn command(&self, mut program: Command, arguments: &[&str]) -> Command {
        program.args(arguments).arg(format!("--config={}", self.config.display()));
        program
    }

    /// Tells it to stop, as Kubernetes does.
    pub(crate) async fn terminate(&self) -> Result<()> {
        let id = self.child.id().context("the controller has ended")?;
        let killed = Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status().await?;
        ensure!(killed.success(), "it cannot be signalled");
        Ok(())
    }

    /// Its exit code, once it has ended by itself.
    pub(crate) async fn exit_code(&mut self) -> Result<Option<i32>> {
        let ended = tokio::time::timeout(LIMIT, self.child.wait()).await.context("the controller goes on")?;
        Ok(ended?.code())
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let (http, url) = (client()?, format!("http://{}:8080/readyz", self.address));
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            if http.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the controller ended ({status}):\n{}", self.log());
            }
            ensure!(tokio::time::Instant::now() < deadline, "the controller is not ready:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What `status` says about it, in both forms: all that is printed.
    pub(crate) async fn status(&self) -> Result<String> {
        let mut printed = String::new();
        for form in ["text", "json"] {
            let output = Command::new(env!("CARGO_BIN_EXE_kubernetes-vault"))
                .args(["status", "--output", form, &format!("--config={}", self.config.display())])
                .output()
                .await?;
            printed.push_str(&String::from_utf8_lossy(&output.stdout));
            printed.push_str(&String::from_utf8_lossy(&output.stderr));
        }
        Ok(printed)
    }

    /// The files of its `raftDir` with what is in them.
    pub(crate) fn storage(&self) -> Result<Vec<(PathBuf, Vec<u8>)>> {
        let mut files = Vec::new();
        let mut folders = vec![self.raft_dir.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder)? {
                let entry = entry?;
                let kind = entry.file_type()?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() {
                    // RocksDB deletes files as it goes on.
                    std::fs::read(entry.path()).map(|content| files.push((entry.path(), content))).ok();
                }
            }
        }
        Ok(files)
    }

    /// A sample of its metrics by the start of its line; 0 where it is not there.
    pub(crate) async fn metric(&self, line: &str) -> Result<f64> {
        let text = client()?.get(format!("http://{}:9102/metrics", self.address)).send().await?.text().await?;
        let found = text.lines().find_map(|sample| sample.strip_prefix(line)?.trim().parse().ok());
        Ok(found.unwrap_or_default())
    }

    /// Its metrics page.
    pub(crate) async fn metrics(&self) -> Result<String> {
        Ok(client()?.get(format!("http://{}:9102/metrics", self.address)).send().await?.text().await?)
    }

    /// Runs a case's checks; what they find wrong is told with the end of the controller's log.
    pub(crate) async fn explain<T>(&self, checks: impl Future<Output = Result<T>>) -> Result<T> {
        checks.await.with_context(|| {
            let log = self.log();
            let from = log.floor_char_boundary(log.len().saturating_sub(6_000));
            format!("the controller's log ends with\n{}", &log[from..])
        })
    }
}

fn client() -> Result<Client> {
    Ok(Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(10)).build()?)
}

/// A simulated pod with its role and address.
pub(crate) struct Pod {
    pub(crate) fake: FakePod,
    pub(crate) role: String,
    pub(crate) ip: IpAddr,
    /// The containerID of its init container.
    pub(crate) id: String,
}

/// A new namespace in which pods can be created.
pub(crate) async fn namespace(world: &World, stem: &str) -> Result<String> {
    let name = world.name(stem);
    fake_pods::create_namespace(&world.bed.client(), &name).await?;
    Ok(name)
}

impl Pod {
    /// A pod that asks for a role of its own, and does not run yet.
    pub(crate) async fn pending(world: &World, namespace: &str, name: &str) -> Result<Self> {
        let role = world.approle(name).await?;
        Self::of(world, FakePod::asking_for(namespace, name, &role), &role).await
    }

    /// A pod made as `fake` says.
    pub(crate) async fn of(world: &World, fake: FakePod, role: &str) -> Result<Self> {
        create(world, &fake).await?;
        let id = format!("containerd://{}", world.name(&fake.name));
        Ok(Self { role: role.to_owned(), ip: world.address(), id, fake })
    }

    /// Its init container runs from now on.
    pub(crate) async fn run(&self, world: &World) -> Result<()> {
        fake_pods::set_init_running(&world.bed.client(), &self.fake, self.ip, &self.id, 0).await
    }

    /// Its init container has ended.
    pub(crate) async fn exit(&self, world: &World, code: i32, message: &str) -> Result<()> {
        fake_pods::set_init_terminated(&world.bed.client(), &self.fake, &self.id, code, message).await
    }

    /// Waits for an Event of that reason; its note.
    pub(crate) async fn event(&self, world: &World, reason: &str) -> Result<String> {
        let what = format!("Event {reason} on {}/{}", self.fake.namespace, self.fake.name);
        let found = poll_until(&what, LIMIT, || async { Ok(self.events(world).await?.remove(reason)) }).await;
        found.with_context(|| what)
    }

    /// The Events on it: reason and note.
    pub(crate) async fn events(&self, world: &World) -> Result<BTreeMap<String, String>> {
        let events: Api<Event> = Api::namespaced(world.bed.client(), &self.fake.namespace);
        let all = events.list(&ListParams::default()).await?;
        let ours = all.items.into_iter().filter(|event| {
            event.regarding.as_ref().and_then(|pod| pod.name.as_deref()) == Some(self.fake.name.as_str())
        });
        Ok(ours.map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default())).collect())
    }
}

/// Creates the object. A namespace that is seconds old may lack its service account.
pub(crate) async fn create(world: &World, fake: &FakePod) -> Result<k8s_openapi::api::core::v1::Pod> {
    let client = world.bed.client();
    poll_until(&format!("pod {}", fake.name), LIMIT, || async {
        match fake_pods::create_pending(&client, fake).await {
            Ok(pod) => Ok(Some(pod)),
            Err(error) if format!("{error:#}").contains("serviceaccount") => Ok(None),
            Err(error) => Err(error),
        }
    })
    .await
}
