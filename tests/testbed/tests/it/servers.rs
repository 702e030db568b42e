//! What cases do with the servers, and with pods that are simulated.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use testbed::fake_pods::{self, FakePod};
use testbed::{Image, Testbed, poll_until};

use super::bed::{LIMIT, create, shell, wait_for_phase};
use super::order::summary;

pub(super) async fn simulated(bed: &Testbed) -> Result<()> {
    let client = bed.client();
    fake_pods::create_namespace(&client, "simulated").await?;
    let all: Vec<FakePod> =
        (0..50).map(|index| FakePod::asking_for("simulated", &format!("fake-{index}"), "web")).collect();
    fake_pods::for_all(&all, |_, pod| fake_pods::create_pending(&client, pod)).await?;
    let running = |index: usize, pod| {
        let (client, id) = (&client, format!("containerd://{index:064x}"));
        let ip = fake_pods::simulated_ip(u16::try_from(index).unwrap_or_default());
        async move { fake_pods::set_init_running(client, pod, ip, &id, 0).await }
    };
    fake_pods::for_all(&all, running).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "simulated");
    let pending = ListParams::default().fields("status.phase=Pending");
    ensure!(pods.list(&pending).await?.items.len() == 50, "not all are pending");
    let status = serde_json::to_value(pods.get("fake-7").await?.status)?;
    ensure!(summary("ADDED", &status) == "ADDED Pending ip running 0", "{status}");
    fake_pods::set_init_terminated(&client, &all[0], "containerd://a", 0, "attempt=1").await?;
    fake_pods::set_running(&client, &all[1], fake_pods::simulated_ip(1), "containerd://b").await?;
    ensure!(pods.list(&pending).await?.items.len() == 49, "one has left Pending");
    fake_pods::for_all(&all, |_, pod| fake_pods::delete(&client, pod)).await?;
    ensure!(pods.list(&ListParams::default()).await?.items.is_empty(), "some are left");
    Ok(())
}

pub(super) async fn audited(bed: &Testbed) -> Result<()> {
    let lists = || async {
        let requests = bed.control_plane().audited()?;
        anyhow::Ok(requests.iter().filter(|r| r.user == "counted" && r.verb == "list" && r.resource == "pods").count())
    };
    let kubeconfig = bed.control_plane().kubeconfig_for("counted")?;
    let client = bed.control_plane().client(&kubeconfig).await?;
    let pods: Api<Pod> = Api::all(client);
    pods.list(&ListParams::default()).await?;
    poll_until("the request in the audit log", LIMIT, || async { Ok((lists().await? == 1).then_some(())) }).await
}

pub(super) async fn api_server_restart(bed: &Testbed) -> Result<()> {
    bed.control_plane().kill_api_server().await;
    bed.control_plane().start_api_server().await?;
    create(bed, "later", json!({"restartPolicy": "Never", "containers": [shell("app", "true")]})).await?;
    wait_for_phase(bed, "later", "Succeeded").await.map(drop)
}

pub(super) async fn vault_sealed(bed: &Testbed) -> Result<()> {
    let vault = bed.vault()?;
    let role_id = vault.set_up_app("web").await?;
    ensure!(!role_id.is_empty(), "no role_id");
    let token = vault.create_controller_token(testbed::ControllerPolicy::Ours, &testbed::TokenRole::default()).await?;
    let path = "auth/approle/role/web/secret-id";
    let answer = vault.call(http::Method::POST, path, Some(&token), Some(&json!({}))).await?;
    ensure!(answer["data"]["secret_id"].is_string(), "no secret_id");
    ensure!(vault.list(path).await?.len() == 1, "one accessor");
    vault.seal().await?;
    ensure!(vault.read("secret/data/web/greeting").await.is_err(), "a sealed Vault answers");
    vault.unseal().await?;
    let secret = vault.read("secret/data/web/greeting").await?;
    ensure!(secret["data"]["data"]["message"] == "hello web", "{secret}");
    Ok(())
}

/// In one process; several processes have networks of their own anyway.
pub(super) async fn second_testbed(bed: &Testbed) -> Result<()> {
    let image = Image::new("/bin/sh");
    let second = Testbed::builder().without_vault().image("shell", image).start().await?;
    create(&second, "there", json!({"containers": [shell("app", "sleep 1000")]})).await?;
    wait_for_phase(&second, "there", "Running").await?;
    let here: Api<Pod> = Api::namespaced(bed.client(), "default");
    ensure!(here.get_opt("there").await?.is_none(), "both are one cluster");
    second.stop().await;
    Ok(())
}
