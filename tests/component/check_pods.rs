//! `check` and `explain`, tried on pods that ask wrongly, and on an API server that does not say how they are.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::ControllerPolicy;
use testbed::fake_pods::{FakePod, NODE};

use crate::api_proxy::ApiProxy;
use crate::check_failures::found;
use crate::commands::{Checked, explained};
use crate::controller::{Controller, Pod, Settings, create, namespace};
use crate::kubernetes_faults::spoilt;
use crate::kubernetes_watch::{kubeconfig, watcher_kubeconfig};
use crate::push_pods::odd_pod;
use crate::world::{World, cases};

cases! { ALL:
    each_pod_that_asks_wrongly_is_told_by_both,
    each_trouble_with_the_api_server_is_told,
    a_pod_that_cannot_be_decoded_is_named_by_both,
    a_right_that_was_taken_away_is_told,
}

/// Creates a pod for each way of asking wrongly. What is said of each.
async fn wrong_pods(world: &World, namespace: &str) -> Result<Vec<(String, &'static str)>> {
    let mut wrong = Vec::new();
    let long = "a".repeat(10_000);
    for (name, role, words) in [
        ("parent", "../../sys/seal", "the character '/'"),
        ("slash", "a/b", "the character '/'"),
        ("escaped", "a%2fb", "the character '%'"),
        ("newline", "a\nb", r"the character '\n'"),
        ("long", long.as_str(), "10000 bytes"),
        ("foreign", "rôle", "the character 'ô'"),
        ("empty", "", "it is empty"),
        ("dots", "..", "path segments"),
    ] {
        create(world, &FakePod::asking_for(namespace, name, role)).await?;
        wrong.push((name.to_owned(), words));
    }
    let names = |container: &str| {
        let annotations =
            json!({"pod.boostport.com/vault-approle": "odd", "pod.boostport.com/vault-init-container": container});
        json!({"/metadata/annotations": annotations})
    };
    let one = |annotation: &str| json!({"/metadata/annotations": {annotation: "init"}});
    let container = |name: &str| json!({"name": name, "image": "simulated"});
    let never = json!({"/spec": {
        "nodeName": NODE, "restartPolicy": "Never", "automountServiceAccountToken": false,
        "initContainers": [container("init")], "containers": [container("app")],
    }});
    let (pending, ended) = (json!({"phase": "Pending"}), ended());
    for (name, change, status, words) in [
        ("nowhere", names("nowhere"), &pending, "no init container of that name"),
        ("ordinary", names("app"), &pending, "which is an ordinary container"),
        ("roleless", one("pod.boostport.com/vault-init-container"), &pending, "vault-approle is missing"),
        ("half", one("pod.boostport.com/vault-approle"), &pending, "vault-init-container is missing"),
        ("ended", never, &ended, "exit code 7 and the pod's restartPolicy is Never"),
    ] {
        odd_pod(world, namespace, name, &change, status).await?;
        wrong.push((name.to_owned(), words));
    }
    Ok(wrong)
}

fn ended() -> Value {
    json!({"phase": "Pending", "initContainerStatuses": [{
        "name": "init", "image": "simulated", "imageID": "", "ready": false, "restartCount": 0, "containerID": "containerd://x",
        "state": {"terminated": {"exitCode": 7, "containerID": "containerd://x"}},
    }]})
}

// Bad-input table: odd role names; annotations naming no init container, an ordinary one, one that has ended.
async fn each_pod_that_asks_wrongly_is_told_by_both(world: &World) -> Result<()> {
    let namespace = namespace(world, "wrong").await?;
    let controller = Controller::start(world, &namespace).await?;
    let wrong = wrong_pods(world, &namespace).await?;
    let token = world.token(ControllerPolicy::Ours).await?;
    let printed = Checked::new(world, &namespace, &token)?.run().await?;
    for (name, words) in &wrong {
        // The controller serves all others, so that it is well.
        found(&printed, 0, "warning", &[&format!("{namespace}/{name} gets no token"), words, "correct the pod"])?;
    }
    let checks = async {
        for (name, words) in &wrong {
            explained(&controller, &format!("{namespace}/{name}"), "podRefused", 1, &[words]).await?;
        }
        Ok(())
    };
    controller.explain(checks).await
}

async fn each_trouble_with_the_api_server_is_told(world: &World) -> Result<()> {
    let (token, real) = (world.token(ControllerPolicy::Ours).await?, world.bed.control_plane().url());
    for (server, words) in [
        ("https://127.0.0.1:1", ["the API server cannot be reached", "is its address right"]),
        (real.as_str(), ["does not accept our credentials", "is the service account's token mounted"]),
    ] {
        let mut checked = Checked::new(world, "default", &token)?;
        checked.kubeconfig = kubeconfig(world, server, "nobody")?;
        let printed = checked.run().await?;
        found(&printed, 1, "error", &words)?;
        // What follows from it is said, and no second error.
        found(&printed, 1, "warning", &["which AppRoles pods ask for is not known"])?;
        ensure!(printed.findings("error")?.len() == 1, "{}", printed.text);
    }
    Ok(())
}

// Bad-input table: one undecodable pod.
async fn a_pod_that_cannot_be_decoded_is_named_by_both(world: &World) -> Result<()> {
    let namespace = namespace(world, "garbled").await?;
    let proxy = ApiProxy::start(world, Some((r#""hostNetwork":true"#, r#""hostNetwork":"no""#))).await?;
    spoilt(world, &namespace, "garbled").await?;
    let name = format!("{namespace}/garbled");
    let mut checked = Checked::new(world, &namespace, &world.token(ControllerPolicy::Ours).await?)?;
    checked.kubeconfig = proxy.kubeconfig();
    found(&checked.run().await?, 0, "warning", &["cannot be decoded are not served", &name, "explain pod tells why"])?;
    let settings = Settings { kubeconfig: Some(proxy.kubeconfig()), ..Settings::default() };
    let controller = Controller::start_with(world, &namespace, settings).await?;
    controller.explain(explained(&controller, &name, "unreadable", 1, &["cannot be decoded", "boolean"])).await
}

// Bad-input table: watch troubles: what it needs is forbidden meanwhile.
async fn a_right_that_was_taken_away_is_told(world: &World) -> Result<()> {
    let namespace = namespace(world, "withdrawn").await?;
    let settings = Settings { kubeconfig: Some(watcher_kubeconfig(world, &namespace).await?), ..Settings::default() };
    let controller = Controller::start_with(world, &namespace, settings).await?;
    let pod = Pod::pending(world, &namespace, "withdrawn").await?;
    let name = format!("{namespace}/{}", pod.fake.name);
    let checks = async {
        explained(&controller, &name, "initContainerNotStarted", 0, &[]).await?;
        world.bed.kubectl(&["delete", "rolebinding", "limited", "-n", &namespace]).await?;
        explained(&controller, &name, "unreadable", 1, &["403", "needs list and watch on pods"]).await
    };
    controller.explain(checks).await
}
