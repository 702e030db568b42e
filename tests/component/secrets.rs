//! No secret is ever shown: the real controller at every level and in both formats, amid failures, and a search of all
//! that it prints, writes and serves for every secret that it has had in its hands.
//!
//! The never-log list is in docs/logging.md. `tests/e2e/canary.rs` does the same for all programs together.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use rcgen::{CertificateParams, KeyPair};
use reqwest::Method;
use serde_json::Value;
use testbed::{ControllerPolicy, Needles};

use crate::controller::{Controller, Pod, Settings, namespace};
use crate::fault_proxy::{Fault, FaultProxy};
use crate::receivers::{Reaction, Receiver};
use crate::world::{World, cases};

cases! { ALL:
    no_secret_is_in_a_log_an_event_a_metric_a_status_or_a_file,
}

const LEVELS: [&str; 4] = ["debug", "info", "warn", "error"];
const FORMATS: [&str; 2] = ["text", "json"];

// Issue 5, item 5: a never-log list with a test.
async fn no_secret_is_in_a_log_an_event_a_metric_a_status_or_a_file(world: &World) -> Result<()> {
    let mut runs = Vec::new();
    for format in FORMATS {
        for level in LEVELS {
            runs.push(run(world, level, format, false));
        }
        // The same with a Vault that repeats what it is asked with.
        runs.push(run(world, "debug", format, true));
    }
    try_join_all(runs).await.map(drop)
}

/// One controller, from its start to its end.
async fn run(world: &World, level: &'static str, format: &'static str, bad_vault: bool) -> Result<()> {
    let namespace = namespace(world, &format!("canary-{level}-{format}")).await?;
    let mut needles = Needles::default();
    let proxy = FaultProxy::start(world).await?;
    let settings = settings(world, level, format, bad_vault.then_some(&proxy), &mut needles).await?;
    if bad_vault {
        repeat_the_token(&proxy, settings.token.as_deref().unwrap_or_default());
    }
    let mut controller = Controller::start_with(world, &namespace, settings).await?;
    let stage = Stage::up(world, &namespace).await?;
    controller.explain(stage.act(world)).await?;
    let mut everything = vec![
        ("the metrics".to_owned(), controller.metrics().await?),
        ("the status".to_owned(), controller.status().await?),
    ];
    for (path, content) in controller.storage()? {
        everything.push((path.display().to_string(), String::from_utf8_lossy(&content).into_owned()));
    }
    controller.terminate().await?;
    controller.exit_code().await?;
    let events: Api<Event> = Api::namespaced(world.bed.client(), &namespace);
    for event in events.list(&ListParams::default()).await? {
        everything.push(("an Event".to_owned(), serde_json::to_string(&event)?));
    }
    everything.push(("the log".to_owned(), controller.log()));

    let pushes = stage.learn(world, &mut needles).await?;
    ensure!(needles.len() >= 3 + 2 * 4, "only {} secrets are known", needles.len());
    for (name, text) in &everything {
        if let Some(line) = needles.line(text) {
            anyhow::bail!("{level} {format}: a secret is in {name}: {line}");
        }
    }
    check_what_was_searched(&everything, &pushes)?;
    controller.explain(async { check_log(&controller.log(), level, format) }).await
}

/// A configuration in which everything that can be secret is.
async fn settings(
    world: &World,
    level: &str,
    format: &str,
    proxy: Option<&FaultProxy>,
    needles: &mut Needles,
) -> Result<Settings> {
    let token = world.token(ControllerPolicy::Ours).await?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["controller".to_owned()])?.self_signed(&key)?;
    let (secret, pem) = (key.serialize_der(), key.serialize_pem());
    // Random bytes that nobody else has: a key's end, as text.
    let secret: String = secret.iter().rev().take(32).map(|byte| format!("{byte:02x}")).collect();
    let stem = world.bed.directory().join(world.name("canary"));
    let (key_file, cert_file) = (stem.with_extension("key"), stem.with_extension("crt"));
    std::fs::write(&key_file, &pem)?;
    std::fs::write(&cert_file, certificate.pem())?;
    needles.add(&token);
    needles.add(&secret);
    pem.lines().filter(|line| !line.starts_with('-')).for_each(|line| needles.add(line));
    Ok(Settings {
        vault: proxy.map(FaultProxy::url),
        token: Some(token),
        vault_lines: match proxy {
            Some(_) => String::new(),
            None => format!("    clientCert: {}\n    clientKey: {}\n", cert_file.display(), key_file.display()),
        },
        sections: format!("raft: {{secrets: {secret}}}\n"),
        arguments: vec![format!("--log-level={level}"), format!("--log-format={format}")],
        ..Settings::default()
    })
}

/// Vault's errors hold what it was asked with, each kind of them once.
fn repeat_the_token(proxy: &FaultProxy, token: &str) {
    let body: &'static str = format!(r#"{{"errors":["no good: {token}"]}}"#).leak();
    for status in [403, 400, 500, 503] {
        // Twice the first: metadata is left out then, and it is asked once more.
        let times = if status == 403 { 2 } else { 1 };
        proxy.inject("/secret-id", Fault::Answer(status, Vec::new(), body), times);
    }
    proxy.inject("/destroy", Fault::Answer(500, Vec::new(), body), 1);
}

/// Pods with what happens to each.
struct Stage {
    pods: BTreeMap<&'static str, (Pod, Receiver)>,
}

impl Stage {
    async fn up(world: &World, namespace: &str) -> Result<Self> {
        let mut pods = BTreeMap::new();
        let scripts: [(&'static str, &[Reaction]); 4] = [
            ("takes", &[Reaction::Takes]),
            ("refuses", &[Reaction::Echoes(400)]),
            ("tries", &[Reaction::Echoes(503), Reaction::Takes]),
            ("dies", &[Reaction::Cuts]),
        ];
        for (name, script) in scripts {
            let pod = Pod::pending(world, namespace, name).await?;
            let receiver = Receiver::start(pod.ip, script).await?;
            pod.run(world).await?;
            pods.insert(name, (pod, receiver));
        }
        Ok(Self { pods })
    }

    fn pod(&self, name: &str) -> Result<&(Pod, Receiver)> {
        self.pods.get(name).with_context(|| format!("no pod {name}"))
    }

    async fn act(&self, world: &World) -> Result<()> {
        for (name, reason) in
            [("takes", "SecretIdDelivered"), ("refuses", "PushRefused"), ("tries", "SecretIdDelivered")]
        {
            self.pod(name)?.0.event(world, reason).await?;
        }
        let (pod, receiver) = self.pod("dies")?;
        receiver.wait_for(1).await?;
        pod.event(world, "SecretIdRetrying").await?;
        // Its last words are the worst that they can be.
        let words = receiver.pushes()[0].message["token"].as_str().unwrap_or_default().to_owned();
        pod.exit(world, 1, &words).await?;
        world.wait_for_secret_ids(&pod.role, 0).await
    }

    /// All that came by in the end: wrapping tokens, `secret_id`s, `role_id`s. Returns the attempts that were pushed.
    async fn learn(&self, world: &World, needles: &mut Needles) -> Result<Vec<String>> {
        let vault = world.vault()?;
        let mut attempts = Vec::new();
        for (pod, receiver) in self.pods.values() {
            let role_id = vault.read(&format!("auth/approle/role/{}/role-id", pod.role)).await?;
            needles.add(role_id.pointer("/data/role_id").and_then(Value::as_str).context("no role_id")?);
            for push in receiver.pushes() {
                let token = push.message["token"].as_str().context("a push without a token")?;
                needles.add(token);
                attempts.push(push.attempt().to_owned());
                // The last one that was taken is there still.
                let unwrapped = vault.call(Method::POST, "sys/wrapping/unwrap", Some(token), None).await;
                if let Ok(answer) = unwrapped {
                    needles.add(answer.pointer("/data/secret_id").and_then(Value::as_str).context("no secret_id")?);
                }
            }
        }
        Ok(attempts)
    }
}

/// A search that misses something finds nothing either.
fn check_what_was_searched(everything: &[(String, String)], attempts: &[String]) -> Result<()> {
    let named = |name: &str, text: &str| everything.iter().any(|(of, found)| of.contains(name) && found.contains(text));
    ensure!(named("the metrics", "kubernetesvault_push_outcomes_total{outcome=\"unable\"} 1"), "not the metrics");
    ensure!(named("an Event", "[token]"), "no Event shows what a receiver repeated");
    ensure!(named("the status", "leader"), "not the status");
    for attempt in attempts {
        ensure!(named("raft", attempt), "the ledger's files were not searched: attempt {attempt} is in none");
    }
    Ok(())
}

/// A line of the log.
struct Line {
    level: String,
    delivered: bool,
    /// Those of the fields looked for that it has.
    fields: BTreeMap<&'static str, String>,
}

/// The fields of a delivery's line.
const FIELDS: [&str; 5] = ["pod", "pod.uid", "role", "attempt", "duration_ms"];

impl Line {
    fn of_json(text: &str) -> Result<Self> {
        let entry: Value = serde_json::from_str(text).with_context(|| format!("no JSON: {text}"))?;
        let field = |name: &'static str| entry.get(name).map(|value| (name, value.to_string()));
        Ok(Self {
            level: entry["level"].as_str().unwrap_or_default().to_owned(),
            delivered: entry["message"] == "delivered",
            fields: FIELDS.into_iter().filter_map(field).collect(),
        })
    }

    fn of_text(text: &str) -> Self {
        let field = |name: &'static str| {
            let rest = text.split_once(&format!(" {name}="))?.1;
            Some((name, rest.split(' ').next().unwrap_or_default().to_owned()))
        };
        Self {
            level: text.split_whitespace().nth(1).unwrap_or_default().to_owned(),
            delivered: text.contains(" delivered pod="),
            fields: FIELDS.into_iter().filter_map(field).collect(),
        }
    }

    fn has(&self, field: &str) -> bool {
        self.fields.contains_key(field)
    }
}

/// The lines are those of the level, in the format, with the fields that docs/logging.md promises.
fn check_log(log: &str, level: &str, format: &str) -> Result<()> {
    let rank = |level: &str| LEVELS.iter().position(|other| other.eq_ignore_ascii_case(level));
    let mut delivered: BTreeMap<String, usize> = BTreeMap::new();
    for text in log.lines() {
        let line = if format == "json" { Line::of_json(text)? } else { Line::of_text(text) };
        let at = rank(&line.level);
        ensure!(at.is_some() && at >= rank(level), "at {level} there is a line of {}: {text}", line.level);
        ensure!(!line.has("attempt") || (line.has("pod") && line.has("pod.uid")), "an attempt of which pod? {text}");
        if line.delivered {
            ensure!(FIELDS.iter().all(|field| line.has(field)), "fields are missing: {text}");
            ensure!(line.fields["duration_ms"].parse::<u64>().is_ok(), "{text}");
            *delivered.entry(line.fields["attempt"].clone()).or_default() += 1;
        }
    }
    let deliveries = if rank(level) <= rank("info") { 2 } else { 0 };
    ensure!(delivered.len() == deliveries && delivered.values().all(|times| *times == 1), "{delivered:?}");
    ensure!((rank(level) <= rank("warn")) == log.contains("not delivered: "), "what came to nothing is at warn");
    Ok(())
}
