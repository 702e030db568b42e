//! What containers see: variables, volumes, names, the network.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use testbed::{Direction, Image, Testbed, fake_pods, poll_until};
use tokio::net::{TcpListener, TcpStream};

use super::bed::{LIMIT, create, shell, wait_for, wait_for_phase};
use super::order::init;

pub(super) async fn environment(bed: &Testbed) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(bed.client(), "default");
    let map = serde_json::from_value(json!({"metadata": {"name": "settings"}, "data": {"COLOUR": "green"}}))?;
    maps.create(&PostParams::default(), &map).await?;
    let script = "echo name=$POD_NAME host=$HOSTNAME/$(hostname) ip=$POD_IP colour=$COLOUR twice=$TWICE; \
        cat /settings/COLOUR; cat /tokens/token | wc -c; ls /var/run/secrets/kubernetes.io/serviceaccount; \
        touch /settings/x || echo read-only; grep $POD_NAME /etc/hosts; cat /labels/app";
    let mut app = shell("app", script);
    app["env"] = json!([
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "TWICE", "value": "$(POD_NAME)-$(POD_NAME)"},
    ]);
    app["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    app["volumeMounts"] = json!([
        {"name": "settings", "mountPath": "/settings", "readOnly": true},
        {"name": "tokens", "mountPath": "/tokens"},
        {"name": "labels", "mountPath": "/labels"},
    ]);
    let token = json!({"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}});
    let spec = json!({"restartPolicy": "Never", "containers": [app], "volumes": [
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "tokens", "projected": {"sources": [token]}},
        {"name": "labels", "downwardAPI": {"items": [{"path": "app", "fieldRef": {"fieldPath": "metadata.labels['app']"}}]}},
    ]});
    create(bed, "env", spec).await?;
    let pod = wait_for_phase(bed, "env", "Succeeded").await?;
    let ip = pod["status"]["podIP"].as_str().unwrap_or_default();
    let log = bed.logs("default", "env", "app")?;
    for wanted in [
        &format!("name=env host=env/env ip={ip} colour=green twice=env-env"),
        "\ngreen",
        "ca.crt\nnamespace\ntoken\n",
        "read-only\n",
        &format!("{ip} env\n"),
    ] {
        ensure!(log.contains(wanted), "{wanted:?} is not in:\n{log}");
    }
    ensure!(log.ends_with("env"), "{log}");
    Ok(())
}

pub(super) async fn mountinfo(bed: &Testbed) -> Result<()> {
    let spec = json!({"restartPolicy": "Never", "containers": [shell("app", "cat /proc/self/mountinfo")]});
    let pod = create(bed, "mounts", spec).await?;
    wait_for_phase(bed, "mounts", "Succeeded").await?;
    let log = bed.logs("default", "mounts", "app")?;
    let uid = pod.metadata.uid.unwrap_or_default();
    ensure!(log.contains(&format!("pods/{uid}/etc-hosts /etc/hosts ")), "{log}");
    Ok(())
}

pub(super) async fn cut(bed: &Testbed) -> Result<()> {
    let mut app = shell("app", "sleep 1000");
    app["env"] = json!([{"name": "SAID_BY", "value": "the pod"}]);
    create(bed, "network", json!({"containers": [app]})).await?;
    wait_for_phase(bed, "network", "Running").await?;
    let node = bed.node_of("default", "network")?;
    let said = node.exec("default", "network", "app", &["printenv", "SAID_BY"]).await?;
    ensure!(said.stdout == b"the pod\n", "{said:?}");
    let network = node.network("default", "network")?;
    let listener = TcpListener::bind((node.ip(), 0)).await?;
    let port = listener.local_addr()?.port();
    let url = format!("echo > /dev/tcp/{}/{port}", node.ip());
    let reaches = || async {
        let command = ["timeout", "0.5", "bash", "-c", &url];
        let answer = node.exec("default", "network", "app", &command).await?;
        anyhow::Ok(answer.status.success())
    };
    // A busy machine may need more than one try, and the kernel a second to believe in a mended link.
    let reaches_soon = |what: &'static str| poll_until(what, LIMIT, || async { Ok(reaches().await?.then_some(())) });
    reaches_soon("way to the node").await?;
    network.cut().await?;
    ensure!(!reaches().await?, "the cut link still works");
    network.mend().await?;
    reaches_soon("way through the mended link").await?;
    let peer = Some(node.ip().into());
    network.drop_packets(Direction::In, peer).await?;
    ensure!(!reaches().await?, "answers are not dropped");
    network.let_packets_through().await?;
    reaches_soon("answers again").await?;
    network.part_from(&[node.ip()]).await?;
    ensure!(!reaches().await?, "the peer is still reached");
    network.let_packets_through().await?;
    reaches_soon("answers again").await?;
    // The pod has a second address, which the bridge reaches.
    let ipv6 = TcpListener::bind((testbed::network::BRIDGE_IPV6, 0)).await?;
    let port = ipv6.local_addr()?.port();
    let url = format!("echo > /dev/tcp/{}/{port}", testbed::network::BRIDGE_IPV6);
    let command = ["timeout", "5", "bash", "-c", &url];
    let answer = node.exec("default", "network", "app", &command).await?;
    ensure!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    // One process listens on all simulated addresses.
    let listener = TcpListener::bind(("0.0.0.0", 0)).await?;
    let port = listener.local_addr()?.port();
    for index in [0, 77, 60_000] {
        TcpStream::connect((fake_pods::simulated_ip(index), port)).await?;
    }
    Ok(())
}

pub(super) async fn probes(bed: &Testbed) -> Result<()> {
    let mut side = shell("side", "sleep 0.3; touch /shared/side; sleep 1000");
    side["restartPolicy"] = json!("Always");
    side["startupProbe"] = json!({"exec": {"command": ["/bin/sh", "-c", "test -e /shared/side"]}, "periodSeconds": 1});
    let mut app = shell("app", "test -e /shared/side && touch /shared/app && sleep 1000");
    app["readinessProbe"] = json!({"exec": {"command": ["/bin/ls", "/shared/app"]}, "periodSeconds": 1});
    for container in [&mut side, &mut app] {
        container["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    }
    let volumes = json!([{"name": "shared", "emptyDir": {}}]);
    create(bed, "probes", json!({"initContainers": [side], "containers": [app], "volumes": volumes})).await?;
    let ready = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    };
    let pod = wait_for(bed, "probes", "ready", ready).await?;
    ensure!(init(&pod)["started"] == true && init(&pod)["state"]["running"].is_object(), "{pod}");
    Ok(())
}

pub(super) async fn names(bed: &Testbed) -> Result<()> {
    let service = serde_json::from_value(json!({"metadata": {"name": "front"},
        "spec": {"clusterIP": "None", "selector": {"app": "named"}, "ports": [{"port": 80}]}}))?;
    let services: Api<Service> = Api::namespaced(bed.client(), "default");
    services.create(&PostParams::default(), &service).await?;
    create(bed, "named", json!({"containers": [shell("app", "sleep 1000")]})).await?;
    let ip = wait_for_phase(bed, "named", "Running").await?["status"]["podIP"].clone();
    let node = bed.node_of("default", "named")?;
    poll_until("name of the service", LIMIT, || async {
        let answer = node.exec("default", "named", "app", &["getent", "ahostsv4", "front.default.svc"]).await?;
        Ok(String::from_utf8_lossy(&answer.stdout).starts_with(ip.as_str().unwrap_or("no address")).then_some(()))
    })
    .await
}

pub(super) async fn changed_volume(bed: &Testbed) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(bed.client(), "default");
    let map = |value: &str| serde_json::from_value(json!({"metadata": {"name": "changing"}, "data": {"KEY": value}}));
    maps.create(&PostParams::default(), &map("old")?).await?;
    let mut app = shell("app", "until grep -q new /changing/KEY; do sleep 0.05; done");
    app["volumeMounts"] = json!([{"name": "changing", "mountPath": "/changing"}]);
    let volumes = json!([{"name": "changing", "configMap": {"name": "changing"}}]);
    let spec = json!({"restartPolicy": "Never", "containers": [app], "volumes": volumes});
    create(bed, "changing", spec).await?;
    wait_for_phase(bed, "changing", "Running").await?;
    maps.replace("changing", &PostParams::default(), &map("new")?).await?;
    wait_for_phase(bed, "changing", "Succeeded").await.map(drop)
}

pub(super) async fn host_network(bed: &Testbed) -> Result<()> {
    let spec = json!({"hostNetwork": true, "restartPolicy": "Never",
        "containers": [shell("app", "cat /sys/class/net/br0/operstate || ls /proc/sys/net/ipv4/conf")]});
    create(bed, "hostnet", spec).await?;
    let pod = wait_for_phase(bed, "hostnet", "Succeeded").await?;
    ensure!(pod["status"]["podIP"] == pod["status"]["hostIP"], "{pod}");
    ensure!(bed.logs("default", "hostnet", "app")?.contains("br0"), "not in the node's network");
    Ok(())
}

/// With nothing but what every pod gets: variables, token, authority and the network.
pub(super) async fn api_server_from_a_pod(bed: &Testbed) -> Result<()> {
    let kubectl = bed.control_plane().kubectl();
    bed.nodes()[0].add_image("kubectl", Image::new(kubectl))?;
    let app = json!({"name": "app", "image": "kubectl:1", "args": ["auth", "whoami"]});
    create(bed, "client", json!({"restartPolicy": "Never", "containers": [app]})).await?;
    wait_for_phase(bed, "client", "Succeeded").await?;
    let log = bed.logs("default", "client", "app")?;
    ensure!(log.contains("system:serviceaccount:default:default"), "{log}");
    Ok(())
}
