//! Which pod gets what: names and addresses used twice, statuses that lag, and annotations that name nothing.

use anyhow::{Context as _, Result, ensure};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use testbed::fake_pods::{self, FakePod};

use crate::controller::{Controller, Pod, Settings, namespace};
use crate::fault_proxy::FaultProxy;
use crate::receivers::{Reaction, Receiver};
use crate::world::{World, cases};

cases! { ALL:
    pods_of_one_name_in_two_namespaces_are_both_served,
    a_pod_that_is_created_again_under_its_name_is_another_pod,
    an_address_that_two_live_pods_show_gets_nothing_until_one_goes,
    an_address_that_went_to_another_pod_serves_the_new_one,
    a_status_that_lags_behind_costs_no_surplus_secret_id,
    a_container_that_is_restarted_is_served_again,
    annotations_that_name_nothing_are_told,
    an_unknown_role_is_told_and_not_stormed,
    roles_that_are_no_names_are_told_and_never_asked_for,
}

fn uid(receiver: &Receiver) -> Value {
    receiver.pushes().first().map(|push| push.message["podUID"].clone()).unwrap_or_default()
}

// Bad-input table: two pods of the same name in two namespaces.
async fn pods_of_one_name_in_two_namespaces_are_both_served(world: &World) -> Result<()> {
    let stem = world.name("twins");
    let (one, two) = (format!("{stem}-one"), format!("{stem}-two"));
    for name in [&one, &two] {
        fake_pods::create_namespace(&world.bed.client(), name).await?;
    }
    let controller = Controller::start(world, &format!("~^{stem}-")).await?;
    let mut served = Vec::new();
    for name in [&one, &two] {
        let pod = Pod::pending(world, name, "twin").await?;
        let receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
        pod.run(world).await?;
        served.push((pod, receiver));
    }
    controller
        .explain(async {
            for (pod, receiver) in &served {
                receiver.wait_for(1).await?;
                pod.event(world, "SecretIdDelivered").await?;
                ensure!(receiver.pushes()[0].message["podNamespace"] == pod.fake.namespace.as_str());
                ensure!(world.secret_ids(&pod.role).await?.len() == 1 && receiver.pushes().len() == 1);
            }
            ensure!(uid(&served[0].1) != uid(&served[1].1));
            Ok(())
        })
        .await
}

// Bad-input table: a pod deleted and re-created under its name.
async fn a_pod_that_is_created_again_under_its_name_is_another_pod(world: &World) -> Result<()> {
    let namespace = namespace(world, "reborn").await?;
    let controller = Controller::start(world, &namespace).await?;
    let first = Pod::pending(world, &namespace, "reborn").await?;
    let receiver = Receiver::start(first.ip, &[Reaction::Takes]).await?;
    first.run(world).await?;
    controller
        .explain(async {
            receiver.wait_for(1).await?;
            first.event(world, "SecretIdDelivered").await?;
            fake_pods::delete(&world.bed.client(), &first.fake).await?;
            // Same name, same address, even the same containerID.
            let second = Pod { fake: first.fake.clone(), role: first.role.clone(), ip: first.ip, id: first.id.clone() };
            crate::controller::create(world, &second.fake).await?;
            second.run(world).await?;
            let pushes = receiver.wait_for(2).await?;
            ensure!(pushes[0].message["podUID"] != pushes[1].message["podUID"], "the same pod was served twice");
            world.wait_for_secret_ids(&first.role, 2).await
        })
        .await
}

// Bad-input table: an IP that two pods show.
async fn an_address_that_two_live_pods_show_gets_nothing_until_one_goes(world: &World) -> Result<()> {
    let namespace = namespace(world, "shared").await?;
    let controller = Controller::start(world, &namespace).await?;
    // The one that shows the address already asks for nothing.
    let stranger = Pod::of(world, FakePod::plain(&namespace, "stranger"), "none").await?;
    stranger.run(world).await?;
    let mut pod = Pod::pending(world, &namespace, "shared").await?;
    pod.ip = stranger.ip;
    let receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
    pod.run(world).await?;
    controller
        .explain(async {
            let note = pod.event(world, "PodAddressShared").await?;
            ensure!(note.contains(&pod.ip.to_string()), "{note}");
            ensure!(receiver.pushes().is_empty() && world.secret_ids(&pod.role).await?.is_empty());
            fake_pods::delete(&world.bed.client(), &stranger.fake).await?;
            receiver.wait_for(1).await?;
            pod.event(world, "SecretIdDelivered").await.map(drop)
        })
        .await
}

// Bad-input table: an IP that went to another pod.
async fn an_address_that_went_to_another_pod_serves_the_new_one(world: &World) -> Result<()> {
    let namespace = namespace(world, "moved").await?;
    let controller = Controller::start(world, &namespace).await?;
    let old = Pod::pending(world, &namespace, "old").await?;
    let proof = Reaction::Says(421, "", "this is another pod");
    let receiver = Receiver::start(old.ip, &[proof, Reaction::Takes]).await?;
    old.run(world).await?;
    controller
        .explain(async {
            receiver.wait_for(1).await?;
            world.wait_for_secret_ids(&old.role, 0).await?;
            fake_pods::delete(&world.bed.client(), &old.fake).await?;
            let mut new = Pod::pending(world, &namespace, "new").await?;
            new.ip = old.ip;
            new.run(world).await?;
            new.event(world, "SecretIdDelivered").await?;
            ensure!(receiver.pushes().iter().skip(1).any(|push| push.message["podName"] == "new"));
            ensure!(world.secret_ids(&new.role).await?.len() == 1);
            Ok(())
        })
        .await
}

// reference-behaviour 8: statuses that lag behind make the reference issue surplus secret_ids.
async fn a_status_that_lags_behind_costs_no_surplus_secret_id(world: &World) -> Result<()> {
    let namespace = namespace(world, "lags").await?;
    let controller = Controller::start(world, &namespace).await?;
    let mut pods = Vec::new();
    for index in 0..5 {
        let pod = Pod::pending(world, &namespace, &format!("lags-{index}")).await?;
        let receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
        pod.run(world).await?;
        pods.push((pod, receiver));
    }
    controller
        .explain(async {
            for (pod, receiver) in &pods {
                receiver.wait_for(1).await?;
                pod.event(world, "SecretIdDelivered").await?;
            }
            // The containers are gone, their statuses say "running", and each is shown to the watch again.
            let pods: Vec<Pod> = pods.into_iter().map(|(pod, _)| pod).collect();
            let api: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(world.bed.client(), &namespace);
            for round in 0..3 {
                for pod in &pods {
                    let touch = json!({"metadata": {"labels": {"touched": round.to_string()}}});
                    api.patch(&pod.fake.name, &PatchParams::default(), &Patch::Merge(touch)).await?;
                }
            }
            // What comes after them in the watch is served: so they have been looked at.
            let last = Pod::pending(world, &namespace, "last").await?;
            let _receiver = Receiver::start(last.ip, &[Reaction::Takes]).await?;
            last.run(world).await?;
            last.event(world, "SecretIdDelivered").await?;
            for pod in &pods {
                ensure!(world.secret_ids(&pod.role).await?.len() == 1, "a surplus secret_id");
            }
            Ok(())
        })
        .await
}

async fn a_container_that_is_restarted_is_served_again(world: &World) -> Result<()> {
    let namespace = namespace(world, "restarts").await?;
    let controller = Controller::start(world, &namespace).await?;
    let pod = Pod::pending(world, &namespace, "restarts").await?;
    let receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
    pod.run(world).await?;
    controller
        .explain(async {
            receiver.wait_for(1).await?;
            pod.exit(world, 3, "the role_id was refused").await?;
            fake_pods::set_init_running(&world.bed.client(), &pod.fake, pod.ip, &format!("{}-second", pod.id), 1)
                .await?;
            receiver.wait_for(2).await?;
            world.wait_for_secret_ids(&pod.role, 2).await
        })
        .await
}

/// Creates a pod from JSON with our annotations, and gives it a status.
pub(crate) async fn odd_pod(world: &World, namespace: &str, name: &str, change: &Value, status: &Value) -> Result<Pod> {
    let role = "odd";
    let fake = FakePod::asking_for(namespace, name, role);
    let container = |name: &str| json!({"name": name, "image": "simulated"});
    let mut object = json!({
        "metadata": {"name": name, "namespace": namespace, "annotations": fake.annotations},
        "spec": {
            "nodeName": fake_pods::NODE, "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0,
            "initContainers": [container("init")], "containers": [container("app")],
        },
    });
    for (pointer, value) in change.as_object().context("no object")? {
        let at = object.pointer_mut(pointer).with_context(|| format!("no {pointer}"))?;
        *at = value.clone();
    }
    let api: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(world.bed.client(), namespace);
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    let status = Patch::Merge(json!({"status": status}));
    api.patch_status(name, &PatchParams::default(), &status).await?;
    Ok(Pod { fake, role: role.to_owned(), ip: world.address(), id: "containerd://odd".to_owned() })
}

// Bad-input table: annotation naming no init container, an ordinary container, one that ended without success and
// will not restart.
async fn annotations_that_name_nothing_are_told(world: &World) -> Result<()> {
    let namespace = namespace(world, "odd").await?;
    let controller = Controller::start(world, &namespace).await?;
    // Its service account is there once a first pod could be created.
    Pod::pending(world, &namespace, "first").await?;
    let names = |name: &str| {
        let annotations = json!({
            "pod.boostport.com/vault-approle": "odd", "pod.boostport.com/vault-init-container": name,
        });
        json!({"/metadata/annotations": annotations})
    };
    let only_role = json!({"/metadata/annotations": {"pod.boostport.com/vault-approle": "odd"}});
    let never = json!({"/spec": {
        "nodeName": fake_pods::NODE, "restartPolicy": "Never", "automountServiceAccountToken": false,
        "initContainers": [{"name": "init", "image": "simulated"}], "containers": [{"name": "app", "image": "simulated"}],
    }});
    let ended = json!({"phase": "Pending", "initContainerStatuses": [{
        "name": "init", "image": "simulated", "imageID": "", "ready": false, "restartCount": 0, "containerID": "containerd://x",
        "state": {"terminated": {"exitCode": 7, "containerID": "containerd://x"}},
    }]});
    let pending = json!({"phase": "Pending"});
    controller
        .explain(async {
            for (name, change, status, words) in [
                ("nowhere", names("nowhere"), &pending, "no init container of that name"),
                ("ordinary", names("app"), &pending, "ordinary container"),
                ("half", only_role, &pending, "pod needs both"),
                ("ended", never, &ended, "exit code 7"),
            ] {
                let pod = odd_pod(world, &namespace, name, &change, status).await?;
                let note = pod.event(world, "SecretIdNotDelivered").await?;
                ensure!(note.contains(words), "{name}: {note}");
            }
            Ok(())
        })
        .await
}

// Bad-input table: unknown role: Event on the pod, no retry storm, no new metric label.
async fn an_unknown_role_is_told_and_not_stormed(world: &World) -> Result<()> {
    let namespace = namespace(world, "unknown").await?;
    let controller = Controller::start(world, &namespace).await?;
    let role = world.name("never-made");
    let pod = Pod::of(world, FakePod::asking_for(&namespace, "unknown", &role), &role).await?;
    let receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
    pod.run(world).await?;
    controller
        .explain(async {
            let note = pod.event(world, "AppRoleRefused").await?;
            ensure!(note.contains("does not exist"), "{note}");
            // Another role is served meanwhile.
            let other = Pod::pending(world, &namespace, "other").await?;
            let _other = Receiver::start(other.ip, &[Reaction::Takes]).await?;
            other.run(world).await?;
            other.event(world, "SecretIdDelivered").await?;
            let metrics = controller.metrics().await?;
            ensure!(!metrics.contains(&role) && metrics.contains(&other.role), "labels:\n{metrics}");
            let refusals = controller.log().matches("Vault issues no secret_id for this role").count();
            ensure!(refusals <= 4, "{refusals} requests for a role that does not exist");
            ensure!(receiver.pushes().is_empty());
            // Once it exists the pod is served, without anything else being done.
            world.vault()?.create_approle("approle", &role, &["default"]).await?;
            pod.event(world, "SecretIdDelivered").await.map(drop)
        })
        .await
}

// Bad-input table: role with `../`, `/`, `%2f`, newline, 10 kB, non-ASCII: Event on the pod, no request.
async fn roles_that_are_no_names_are_told_and_never_asked_for(world: &World) -> Result<()> {
    let namespace = namespace(world, "names").await?;
    let proxy = FaultProxy::start(world).await?;
    let settings = Settings { vault: Some(proxy.url()), ..Settings::default() };
    let controller = Controller::start_with(world, &namespace, settings).await?;
    let long = "a".repeat(10_000);
    let mut pods = Vec::new();
    for (index, role) in ["../../sys/seal", "a/b", "a%2fb", "a\nb", &long, "rôle", "", ".."].into_iter().enumerate() {
        let fake = FakePod::asking_for(&namespace, &format!("names-{index}"), role);
        let pod = Pod::of(world, fake, role).await?;
        let receiver = Receiver::start(pod.ip, &[Reaction::Takes]).await?;
        pod.run(world).await?;
        pods.push((pod, receiver));
    }
    let checks = async {
        for (pod, receiver) in &pods {
            let note = pod.event(world, "SecretIdNotDelivered").await?;
            ensure!(note.contains("is no AppRole name"), "{note}");
            ensure!(receiver.pushes().is_empty());
        }
        let asked: Vec<String> = proxy.seen("").into_iter().map(|seen| seen.path).collect();
        ensure!(!asked.is_empty() && asked.iter().all(|path| path.starts_with("/v1/auth/token/")), "{asked:?}");
        Ok(())
    };
    controller.explain(checks).await
}
