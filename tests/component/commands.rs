//! The commands that people type, by the real binary: `check` against the real servers, `explain` and `status` beside a
//! running controller. Their words, their JSON, their exit codes.

use std::cell::RefCell;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testbed::fake_pods::FakePod;
use testbed::{ControllerPolicy, ROOT_TOKEN, poll_until};
use tokio::process::Command;

use crate::controller::{Controller, Pod, Settings, create, namespace};
use crate::fault_proxy::{Fault, FaultProxy};
use crate::kubernetes_watch::watcher_kubeconfig;
use crate::receivers::{Reaction, Receiver};
use crate::world::{LIMIT, World, cases};

cases! { ALL:
    check_of_what_is_well_exits_0_and_makes_nothing,
    check_names_each_right_that_is_missing_and_what_follows,
    check_names_what_is_wrong_with_the_token,
    check_tells_the_states_of_vault_and_its_certificate_apart,
    check_names_the_roles_that_pods_cannot_get,
    check_of_a_bad_configuration_lists_all_of_it_and_exits_2,
    explain_names_the_cause_of_each_pod_and_exits_by_it,
    explain_names_what_vault_lacks,
    without_a_controller_commands_exit_1_and_misuse_exits_2,
}

const SEALED: &str = r#"{"errors":["Vault is sealed"]}"#;
pub(crate) const STANDBY: &str = r#"{"standby":true}"#;
pub(crate) const DENIED: &str = r#"{"errors":["permission denied"]}"#;

/// The controller's program, with nothing of this process's environment that it would heed.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubernetes-vault"));
    for variable in ["KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HTTP_PROXY", "HTTPS_PROXY", "NO_COLOR"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// What a command has printed.
pub(crate) struct Printed {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
}

impl Printed {
    pub(crate) fn of(output: Output) -> Result<Self> {
        let text = String::from_utf8(output.stdout)? + &String::from_utf8(output.stderr)?;
        ensure!(!text.contains('\u{1b}'), "a pipe got colours: {text:?}");
        Ok(Self { code: output.status.code(), text })
    }

    pub(crate) fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("exit code {:?}: {}", self.code, self.text))
    }

    fn says(&self, code: i32, words: &[&str]) -> Result<()> {
        let says = self.code == Some(code) && words.iter().all(|word| self.text.contains(word));
        ensure!(says, "not {code} with {words:?}, but {:?}:\n{}", self.code, self.text);
        Ok(())
    }

    /// The findings of this level, cause and remedy.
    pub(crate) fn findings(&self, level: &str) -> Result<Vec<String>> {
        let json = self.json()?;
        let all = json["findings"].as_array().context("no findings")?;
        let of_level = all.iter().filter(|one| one["level"] == level);
        let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
        Ok(of_level.map(|one| format!("{} -> {}", text(one, "cause"), text(one, "remedy"))).collect())
    }
}

/// A configuration to check.
pub(crate) struct Checked {
    pub(crate) config: PathBuf,
    pub(crate) kubeconfig: PathBuf,
}

impl Checked {
    pub(crate) fn new(world: &World, namespaces: &str, token: &str) -> Result<Self> {
        let tls = format!("  tls: {{caCert: {}}}\n", world.ca_file().display());
        Self::with(world, namespaces, token, world.vault()?.address(), &tls)
    }

    pub(crate) fn with(world: &World, namespaces: &str, token: &str, vault: &str, tls: &str) -> Result<Self> {
        let text = format!(
            "vault:\n  addr: {vault}\n  token: {token}\n{tls}kubernetes:\n  watchNamespace: \"{namespaces}\"\n  \
             serviceNamespace: default\n  service: kubernetes\nraft: {{secrets: [{}]}}\n",
            "0123456789abcdef".repeat(3)
        );
        let config = world.bed.directory().join(world.name("check.yml"));
        std::fs::write(&config, text)?;
        Ok(Self { config, kubeconfig: world.bed.kubeconfig() })
    }

    pub(crate) async fn run(&self) -> Result<Printed> {
        let config = format!("--config={}", self.config.display());
        let arguments = ["check", "--output=json", config.as_str()];
        Printed::of(program().args(arguments).env("KUBECONFIG", &self.kubeconfig).output().await?)
    }
}

async fn check_of_what_is_well_exits_0_and_makes_nothing(world: &World) -> Result<()> {
    let namespace = namespace(world, "checked").await?;
    let pod = Pod::pending(world, &namespace, "waits").await?;
    let token = world.token(ControllerPolicy::Ours).await?;
    let checked = Checked::new(world, &namespace, &token)?;
    let printed = checked.run().await?;
    ensure!(printed.code == Some(0) && printed.findings("error")?.is_empty(), "{}", printed.text);
    // Whose rights these are is told, since they are not the controller's.
    let warnings = printed.findings("warning")?;
    ensure!(warnings.len() == 1 && warnings[0].contains("kubeconfig's user"), "{warnings:?}");
    let well = printed.findings("ok")?.join("\n");
    let role = format!("AppRole \"{}\" ({namespace}/waits) exists and may be asked for", pod.role);
    for words in [role.as_str(), "unsealed and active", "passes the checks", "renew itself", "pending: 1"] {
        ensure!(well.contains(words), "no {words:?} in {well}");
    }
    ensure!(world.secret_ids(&pod.role).await?.is_empty(), "a secret_id was made");
    ensure!(!printed.text.contains(&token), "the token was printed");

    let mut text = program();
    text.arg("check").arg(format!("--config={}", checked.config.display())).env("KUBECONFIG", &checked.kubeconfig);
    Printed::of(text.output().await?)?
        .says(0, &["Configuration\n", "\nKubernetes\n", "\nVault\n", "\nAppRoles\n", "0 errors, 1 warning"])
}

async fn check_names_each_right_that_is_missing_and_what_follows(world: &World) -> Result<()> {
    let namespace = namespace(world, "rights").await?;
    let token = world.token(ControllerPolicy::Reference).await?;
    let mut checked = Checked::new(world, &namespace, &token)?;
    checked.kubeconfig = watcher_kubeconfig(world, &namespace).await?;
    let printed = checked.run().await?;
    let (errors, warnings) = (printed.findings("error")?, printed.findings("warning")?.join("\n"));
    ensure!(printed.code == Some(1) && errors.len() == 1, "{}", printed.text);
    ensure!(errors[0].contains("endpointslices") && errors[0].contains("do not find each other"), "{errors:?}");
    for words in ["create events", "get endpoints kubernetes", "list pods in the namespace default"] {
        ensure!(warnings.contains(words), "no {words:?} in {warnings}");
    }
    // The same rights do not suffice for more than that namespace.
    let mut wide = Checked::new(world, "~.", &token)?;
    wide.kubeconfig = checked.kubeconfig;
    let printed = wide.run().await?;
    let errors = printed.findings("error")?.join("\n");
    ensure!(errors.contains("list pods in all namespaces") && errors.contains("ClusterRole"), "{errors}");
    ensure!(printed.findings("warning")?.join("\n").contains("AppRoles pods ask for is not known"), "{}", printed.text);
    Ok(())
}

async fn check_names_what_is_wrong_with_the_token(world: &World) -> Result<()> {
    for (token, words) in [
        (ROOT_TOKEN, "root token -> create one from a token role"),
        ("hvs.nobody-made-this", "Vault refuses vault.token"),
    ] {
        let printed = Checked::new(world, "default", token)?.run().await?;
        let errors = printed.findings("error")?.join("\n");
        ensure!(printed.code == Some(1) && errors.contains(words), "{}", printed.text);
        ensure!(!printed.text.contains(token), "the token was printed");
    }
    Ok(())
}

async fn check_tells_the_states_of_vault_and_its_certificate_apart(world: &World) -> Result<()> {
    let token = world.token(ControllerPolicy::Ours).await?;
    let proxy = FaultProxy::start(world).await?;
    let behind = Checked::with(world, "default", &token, &proxy.url(), "")?;
    for (status, words) in [(503, "it is sealed -> unseal it"), (501, "not initialised"), (472, "disaster recovery")] {
        proxy.inject("sys/health", Fault::Answer(status, Vec::new(), "{}"), 1);
        let printed = behind.run().await?;
        let errors = printed.findings("error")?;
        ensure!(printed.code == Some(1) && errors.len() == 1 && errors[0].contains(words), "{errors:?}");
    }
    proxy.inject("lookup-self", Fault::Reset, 1);
    behind.run().await?.says(1, &["Vault cannot be reached"])?;
    let elsewhere = Checked::with(world, "default", &token, "https://127.0.0.1:1", "")?;
    elsewhere.run().await?.says(1, &["does Vault listen at vault.addr"])?;
    let address = world.vault()?.address();
    let public = Checked::with(world, "default", &token, address, "")?;
    public.run().await?.says(1, &["UnknownIssuer", "vault.tls.caCert"])?;
    let ca = world.ca_file();
    let tls = format!("  tls: {{caCert: {}, serverName: vault.example.com}}\n", ca.display());
    let misnamed = Checked::with(world, "default", &token, address, &tls)?;
    misnamed.run().await?.says(1, &["not valid for name", "vault.tls.serverName"])
}

async fn check_names_the_roles_that_pods_cannot_get(world: &World) -> Result<()> {
    let namespace = namespace(world, "roles").await?;
    let there = Pod::pending(world, &namespace, "there").await?;
    for (name, role) in [("gone", "no-such-role"), ("bad", "../../token/create")] {
        create(world, &FakePod::asking_for(&namespace, name, role)).await?;
    }
    let ours = Checked::new(world, &namespace, &world.token(ControllerPolicy::Ours).await?)?.run().await?;
    let (errors, warnings) = (ours.findings("error")?, ours.findings("warning")?.join("\n"));
    ensure!(ours.code == Some(1) && errors.len() == 1, "{}", ours.text);
    let gone = format!("AppRole \"no-such-role\" ({namespace}/gone) does not exist");
    ensure!(errors[0].contains(&gone), "{errors:?}");
    ensure!(warnings.contains(&format!("{namespace}/bad gets no token")), "{warnings}");
    // Under the Go version's policy nothing tells whether a role is there, and that is said.
    let minimal = Checked::new(world, &namespace, &world.token(ControllerPolicy::Reference).await?)?.run().await?;
    let warnings = minimal.findings("warning")?.join("\n");
    ensure!(minimal.code == Some(0) && warnings.contains("may not be destroyed"), "{}", minimal.text);
    let untold = format!("AppRole \"{}\" ({namespace}/there) may be asked for; whether", there.role);
    ensure!(minimal.findings("ok")?.join("\n").contains(&untold), "{}", minimal.text);
    ensure!(world.secret_ids(&there.role).await?.is_empty(), "a secret_id was made");
    Ok(())
}

async fn check_of_a_bad_configuration_lists_all_of_it_and_exits_2(world: &World) -> Result<()> {
    let config = world.bed.directory().join(world.name("bad.yml"));
    std::fs::write(&config, "vault: {addr: 'ftp://x', tokn: hvs.canary}\nkubernetes: {watchNamespace: '~('}\n")?;
    let checked = Checked { config, kubeconfig: world.bed.kubeconfig() };
    let printed = checked.run().await?;
    let errors = printed.findings("error")?.join("\n");
    ensure!(printed.code == Some(2), "exit code {:?}", printed.code);
    for key in
        ["vault.addr", "vault.token", "kubernetes.watchNamespace", "kubernetes.service", "kubernetes.serviceNamespace"]
    {
        ensure!(errors.contains(key), "no {key} in {errors}");
    }
    ensure!(printed.findings("warning")?.join("\n").contains("vault.tokn"), "{}", printed.text);
    ensure!(!printed.text.contains("canary"), "a value was printed");
    let nowhere = Checked { config: "/nowhere/kubernetes-vault.yml".into(), ..checked };
    nowhere.run().await?.says(2, &["cannot read the configuration file", "--config"])
}

/// Asks until the answer is of this kind and its conclusion has these words; then checks the rest of it.
pub(crate) async fn explained(controller: &Controller, pod: &str, kind: &str, code: i32, words: &[&str]) -> Result<()> {
    let what = format!("{pod}: {kind}");
    let last = RefCell::new(String::new());
    let found = poll_until(&what, LIMIT, || async {
        let arguments = ["explain", "pod", pod, "--output=json"];
        let printed = Printed::of(controller.command(program(), &arguments).output().await?)?;
        let Ok(json) = printed.json() else {
            // It has just been started.
            last.replace(printed.text);
            return Ok(None);
        };
        let conclusion = json["conclusion"].as_str().context("no conclusion")?;
        let sentence = conclusion.strip_suffix('.').context("no sentence")?;
        ensure!(!sentence.ends_with('.') && !sentence.contains(". "), "more than a sentence: {conclusion}");
        let is_it = json["kind"] == kind && words.iter().all(|word| conclusion.contains(word));
        *last.borrow_mut() = conclusion.to_owned();
        Ok(is_it.then_some(printed))
    });
    let printed = found.await.with_context(|| format!("{what} {words:?}; last: {}", last.borrow()))?;
    ensure!(printed.code == Some(code), "{pod}: exit code {:?}: {}", printed.code, printed.text);
    let text = Printed::of(controller.command(program(), &["explain", "pod", pod]).output().await?)?;
    ensure!(text.text.lines().next().is_some_and(|first| first.contains(pod)), "{}", text.text);
    Ok(())
}

async fn explain_names_the_cause_of_each_pod_and_exits_by_it(world: &World) -> Result<()> {
    let namespace = namespace(world, "explained").await?;
    let controller = Controller::start(world, &namespace).await?;
    let name = |pod: &str| format!("{namespace}/{pod}");
    let served = Pod::pending(world, &namespace, "served").await?;
    let takes = Receiver::start(served.ip, &[Reaction::Takes]).await?;
    let refuses = Pod::pending(world, &namespace, "refuses").await?;
    let says = Reaction::Says(412, "", "Vault does not know VAULT_ROLE_ID");
    let _no = Receiver::start(refuses.ip, &[says]).await?;
    let silent = Pod::pending(world, &namespace, "silent").await?;
    let unable = Pod::pending(world, &namespace, "unable").await?;
    let _later = Receiver::start(unable.ip, &[Reaction::Says(503, "retry-after: 60\r\n", "Vault is down")]).await?;
    let fallen = Pod::pending(world, &namespace, "fallen").await?;
    let unknown = FakePod::asking_for(&namespace, "unknown", "no-such-role");
    let unknown = Pod::of(world, unknown, "no-such-role").await?;
    let _waits = Receiver::start(unknown.ip, &[Reaction::Takes]).await?;
    let stolen = Pod::pending(world, &namespace, "stolen").await?;
    let used = Reaction::Says(422, "", "used: Vault does not know the wrapping token");
    let _robbed = Receiver::start(stolen.ip, &[used]).await?;
    let closes = Pod::pending(world, &namespace, "closes").await?;
    let _hangs_up = Receiver::start(closes.ip, &[Reaction::Closes]).await?;
    for pod in [&served, &refuses, &silent, &unable, &fallen, &unknown, &stolen, &closes] {
        pod.run(world).await?;
    }
    create(world, &FakePod::asking_for(&namespace, "parent", "../../token/create")).await?;
    create(world, &FakePod::plain(&namespace, "plain")).await?;
    let mut half = FakePod::asking_for(&namespace, "half", "web");
    half.annotations.remove("pod.boostport.com/vault-init-container");
    create(world, &half).await?;
    let idle = Pod::pending(world, &namespace, "idle").await?;
    controller
        .explain(async {
            takes.wait_for(1).await?;
            explained(&controller, &name("served"), "deliveredStillRuns", 0, &["attempt"]).await?;
            let attempt = takes.pushes()[0].attempt().to_owned();
            served.exit(world, 0, &format!("attempt={attempt}")).await?;
            explained(&controller, &name("served"), "delivered", 0, &["has its token", &attempt]).await?;
            explained(&controller, &name("refuses"), "pushRefused", 1, &["412", "VAULT_ROLE_ID"]).await?;
            explained(&controller, &name("silent"), "unreachable", 1, &["port 50000"]).await?;
            explained(&controller, &name("unable"), "retrying", 1, &["503"]).await?;
            explained(&controller, &name("unknown"), "roleRefused", 1, &["the AppRole does not exist"]).await?;
            explained(&controller, &name("stolen"), "tokenUsedByAnother", 1, &["somebody else"]).await?;
            explained(&controller, &name("closes"), "retrying", 1, &["no complete answer"]).await?;
            explained(&controller, &name("parent"), "podRefused", 1, &["no AppRole name"]).await?;
            fallen.exit(world, 5, "").await?;
            explained(&controller, &name("fallen"), "initContainerFailed", 1, &["exit code 5", "port 50000"]).await?;
            explained(&controller, &name("plain"), "notAnnotated", 1, &["none of our annotations"]).await?;
            explained(&controller, &name("half"), "podRefused", 1, &["vault-init-container is missing"]).await?;
            explained(&controller, &name(&idle.fake.name), "initContainerNotStarted", 0, &[]).await?;
            explained(&controller, &name("nobody"), "notFound", 1, &["There is no pod"]).await?;
            let outside = FakePod::asking_for("default", &world.name("outside"), "web");
            create(world, &outside).await?;
            let outside = format!("default/{}", outside.name);
            explained(&controller, &outside, "namespaceNotWatched", 1, &["kubernetes.watchNamespace"]).await?;
            let status = Printed::of(controller.command(program(), &["status", "--output=json"]).output().await?)?;
            let json = status.json()?;
            ensure!(status.code == Some(0) && json["role"] == "leader", "{}", status.text);
            ensure!(json["anotherClusterMetMs"].is_null(), "{}", status.text);
            Ok(())
        })
        .await
}

async fn explain_names_what_vault_lacks(world: &World) -> Result<()> {
    let namespace = namespace(world, "lacking").await?;
    let proxy = FaultProxy::start(world).await?;
    let settings = Settings { vault: Some(proxy.url()), ..Settings::default() };
    let controller = Controller::start_with(world, &namespace, settings).await?;
    // Not before it is logged in: then everything is refused alike.
    poll_until("a login", LIMIT, || async { Ok(controller.log().contains("logged in to Vault").then_some(())) })
        .await?;
    let answers = |status, body| {
        proxy.heal();
        proxy.inject("", Fault::Answer(status, Vec::new(), body), usize::MAX);
    };
    answers(503, SEALED);
    let waiting = async |name: &str| {
        let pod = Pod::pending(world, &namespace, name).await?;
        let receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
        pod.run(world).await?;
        anyhow::Ok(receiver)
    };
    let receiver = waiting("first").await?;
    controller
        .explain(async {
            let name = format!("{namespace}/first");
            explained(&controller, &name, "vaultUnavailable", 1, &["Vault is sealed"]).await?;
            answers(429, STANDBY);
            explained(&controller, &name, "vaultUnavailable", 1, &["standby"]).await?;
            proxy.heal();
            receiver.wait_for(1).await?;
            explained(&controller, &name, "deliveredStillRuns", 0, &[]).await?;
            answers(403, DENIED);
            let _waits = waiting("second").await?;
            let name = format!("{namespace}/second");
            explained(&controller, &name, "vaultUnavailable", 1, &["token"]).await
        })
        .await
}

async fn without_a_controller_commands_exit_1_and_misuse_exits_2(world: &World) -> Result<()> {
    let checked = Checked::new(world, "default", "hvs.nobody")?;
    let config = format!("--config={}", checked.config.display());
    let run = async |arguments: &[&str]| Printed::of(program().args(arguments).output().await?);
    for command in [["explain", "pod", "a/b"].as_slice(), &["status"], &["recover"]] {
        let with_config = [command, &[config.as_str()]].concat();
        run(&with_config).await?.says(1, &["is the controller running"])?;
        let nowhere = [command, &["--config=/nowhere.yml"]].concat();
        run(&nowhere).await?.says(2, &["cannot read the configuration file"])?;
    }
    let mut homeless = program();
    homeless.args(["check", "--output=json", &config]).env("HOME", "/nowhere");
    let homeless = Printed::of(homeless.output().await?)?;
    let errors = homeless.findings("error")?;
    let remedy = " -> set KUBECONFIG, or run this in the controller's pod";
    ensure!(homeless.code == Some(1) && errors.iter().any(|one| one.ends_with(remedy)), "{}", homeless.text);
    run(&["explain", "pod", "web-0"]).await?.says(2, &["NAMESPACE/NAME"])?;
    run(&["version"]).await?.says(0, &["Kubernetes-Vault controller "])?;
    let version = run(&["version", "--output", "json"]).await?;
    ensure!(version.json()?["version"].is_string() && version.code == Some(0), "{}", version.text);
    run(&["--help"]).await?.says(0, &["explain", "check", "Exit codes:"])
}
