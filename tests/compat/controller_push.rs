//! push.txt: what our controller sends to a Go init container, and how often.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use testbed::fake_pods::{self, FakePod};

use crate::case::Case;
use crate::controller::{Controller, Settings};
use crate::go_init::{GoInit, Received};
use crate::tls::{BOTH, TLS12, Versions};
use crate::vectors::{Section, sections, shape};
use crate::world::{PKI, ROLE, World};

/// Headers of Go's own client, which no receiver reads.
const NOT_CONTRACT: [&str; 2] = ["User-Agent", "Accept-Encoding"];
/// Our fields, after the recorded ones (design, section 9).
const OURS: &str = r#","attempt":STRING,"podName":STRING,"podNamespace":STRING,"podUID":STRING}"#;
/// reference-behaviour, section 9: `vaultCAs` is null over plain http. It was recorded with an http address and a CA.
const NULL_OVER_HTTP: &str = "vaultCAs is null over plain http";

/// A case for each recorded push, and how often one is made.
pub(crate) fn cases() -> Vec<Case> {
    let one = |section: Section| Case::of(section, move |world| check(world, section));
    let mut cases: Vec<_> = sections("push.txt").into_iter().map(one).collect();
    cases.push(Case::new("push: once for each instance, whatever its exit code", Vec::new(), once_per_instance));
    cases
}

/// A simulated pod whose init container is the Go one.
pub(crate) struct Simulated {
    pub(crate) pod: FakePod,
    pub(crate) ip: IpAddr,
}

impl Simulated {
    /// Creates the pod; its init container does not run yet.
    pub(crate) async fn create(world: &World, namespace: &str, role: &str) -> Result<Self> {
        let pod = FakePod::asking_for(namespace, &format!("pod-{}", world.next_number()), role);
        fake_pods::create_pending(&world.bed.client(), &pod).await?;
        Ok(Self { pod, ip: world.next_ip() })
    }

    /// The kubelet says that this instance runs.
    pub(crate) async fn runs(&self, world: &World, id: &str, restarts: u32) -> Result<()> {
        fake_pods::set_init_running(&world.bed.client(), &self.pod, self.ip, id, restarts).await
    }

    /// The kubelet says that it has ended.
    async fn ended(&self, world: &World, id: &str, code: i32) -> Result<()> {
        fake_pods::set_init_terminated(&world.bed.client(), &self.pod, id, code, "").await
    }
}

/// Lets one pod start, up to the end of its init container.
pub(crate) async fn deliver(world: &World, namespace: &str, versions: Versions) -> Result<(Simulated, Received)> {
    let simulated = Simulated::create(world, namespace, ROLE).await?;
    let mut init = GoInit::listen(simulated.ip, versions).await?;
    simulated.runs(world, "containerd://1", 0).await?;
    let received = init.pushed().await?;
    drop(init);
    simulated.ended(world, "containerd://1", 0).await?;
    Ok((simulated, received))
}

async fn check(world: &World, section: Section) -> Result<()> {
    let namespace = world.namespace().await?;
    let good = Settings::good(world, &namespace);
    let ttl = recorded(section)?["ttl"].as_i64().context("no recorded ttl")?;
    let wrapping_ttl = format!("  wrappingTTL: {ttl}s\n");
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), format!("# ours\r\n{}", world.front.ca))?;
    let (vault, tls) = match section.title {
        "http Vault" => (&world.vault, String::new()),
        "caCert" => (&world.front.address, format!("  tls: {{caCert: {}}}\n", file.path().display())),
        // A scalar where a list is due is taken.
        "vaultCABackends" => (&world.front.address, format!("  tls: {{vaultCABackends: {PKI}}}\n")),
        _ => bail!("no case for this section"),
    };
    let settings = Settings { vault: vault.clone(), vault_more: format!("{wrapping_ttl}{tls}"), ..good };
    let controller = Controller::at_work(world, &settings).await?;
    let versions = if section.title == "caCert" { TLS12 } else { BOTH };
    let (simulated, received) = deliver(world, &namespace, versions).await?;
    controller.terminate().await?.expect(0, &[])?;
    same_request(&received, section, simulated.ip)?;
    let body = same_fields(&received, section)?;
    ensure!(body["ttl"] == ttl && body["vaultAddr"] == vault.as_str(), "{}", received.body);
    ensure!(body["podName"] == simulated.pod.name && body["podNamespace"] == namespace, "{}", received.body);
    let cas = match section.title {
        "http Vault" => Value::Null,
        "caCert" => wire::base64_encode(&std::fs::read(file.path())?).as_str().into(),
        _ => wire::base64_encode(ca_of_mount(world).await?.as_bytes()).as_str().into(),
    };
    ensure!(body["vaultCAs"] == cas, "vaultCAs: {} instead of {cas}", body["vaultCAs"]);
    if section.title == "caCert" {
        let settings = Settings { vault: world.vault.clone(), ..settings };
        let controller = Controller::at_work(world, &settings).await?;
        let (_, received) = deliver(world, &namespace, BOTH).await?;
        controller.terminate().await?.expect(0, &[])?;
        ensure!(received.body.contains(r#""vaultCAs":null"#), "{NULL_OVER_HTTP}: {}", received.body);
    }
    Ok(())
}

/// What Vault serves for the mount, without a token.
async fn ca_of_mount(world: &World) -> Result<String> {
    let url = format!("{}/v1/{PKI}/ca/pem", world.vault);
    Ok(world.http.get(url).send().await?.error_for_status()?.text().await?)
}

fn recorded(section: Section) -> Result<Value> {
    let (_, body) = section.text.split_once("\r\n\r\n").context("no end of the recorded head")?;
    Ok(serde_json::from_str(body)?)
}

/// Request line and the headers that matter; no server name and no ALPN in the handshake.
fn same_request(received: &Received, section: Section, ip: IpAddr) -> Result<()> {
    let (head, _) = section.text.split_once("\r\n\r\n").context("no end of the recorded head")?;
    ensure!(received.head.lines().next() == head.lines().next(), "{}", received.head);
    ensure!(received.server_name.is_none() && received.alpn.is_none(), "{received:?}");
    for line in head.lines().skip(1) {
        let (name, value) = line.split_once(": ").context("a recorded header has no value")?;
        if NOT_CONTRACT.contains(&name) {
            continue;
        }
        let wanted = match name {
            "Host" => format!("{ip}:50000"),
            "Content-Length" => received.body.len().to_string(),
            _ => value.to_owned(),
        };
        let ours = received.head.lines().filter_map(|line| line.split_once(": "));
        let found = ours.filter(|(ours, _)| ours.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        ensure!(found.eq([wanted.as_str()]), "{name} is not {wanted}: {}", received.head);
    }
    Ok(())
}

/// The recorded fields in their order, then ours; nothing else, and no line break at the end.
fn same_fields(received: &Received, section: Section) -> Result<Value> {
    let (_, recorded) = section.text.split_once("\r\n\r\n").context("no end of the recorded head")?;
    let wanted = format!("{}{OURS}", shape(recorded.trim_end()).trim_end_matches('}'));
    ensure!(shape(&received.body) == wanted, "{} instead of {wanted}", shape(&received.body));
    let body: Value = serde_json::from_str(&received.body)?;
    let time = body["creationTime"].as_str().unwrap_or_default();
    let form = r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$";
    ensure!(regex::Regex::new(form)?.is_match(time), "creationTime is {time}");
    Ok(body)
}

/// A Go init container ends after its 200, well or badly; a new instance gets a push of its own, the old one none.
/// (One that still runs after 30 s is served again: that is tested with paused time, beside `deliver`.)
async fn once_per_instance(world: &World) -> Result<()> {
    let namespace = world.namespace().await?;
    let controller = Controller::at_work(world, &Settings::good(world, &namespace)).await?;
    let simulated = Simulated::create(world, &namespace, ROLE).await?;
    let mut init = GoInit::listen(simulated.ip, BOTH).await?;
    simulated.runs(world, "containerd://first", 0).await?;
    let first = init.pushed().await?;
    // The status lags behind, and changes for another reason meanwhile; then another pod is served.
    simulated.runs(world, "containerd://first", 0).await?;
    deliver(world, &namespace, BOTH).await?;
    ensure!(init.posts() == 1, "{} pushes to one instance", init.posts());
    drop(init);
    simulated.ended(world, "containerd://first", 1).await?;
    let mut init = GoInit::listen(simulated.ip, BOTH).await?;
    simulated.runs(world, "containerd://second", 1).await?;
    let second = init.pushed().await?;
    simulated.ended(world, "containerd://second", 0).await?;
    deliver(world, &namespace, BOTH).await?;
    ensure!(init.posts() == 1, "{} pushes to the second instance", init.posts());
    let token = |received: &Received| {
        serde_json::from_str::<Value>(&received.body).map(|body| body["token"].as_str().map(str::to_owned))
    };
    ensure!(token(&first)? != token(&second)?, "one wrapping token for two instances");
    controller.terminate().await?.expect(0, &[])
}
