//! The other two things that an init container can leave: the same pod, with one or two variables more.

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{EnvVar, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, ResourceExt as _};
use testbed::Testbed;

use crate::follow::Follower;
use crate::sample;
use crate::screen::Screen;

struct Mode {
    pod: &'static str,
    variables: &'static [&'static str],
    means: &'static str,
}

const MODES: [Mode; 2] = [
    Mode {
        pod: "sample-secret-id",
        variables: &["RETRIEVE_TOKEN"],
        means: "the application gets the secret_id and logs in itself",
    },
    Mode {
        pod: "sample-wrapped",
        variables: &["RETRIEVE_TOKEN", "UNWRAP_SECRET"],
        means: "the application gets the wrapping token, and unwraps it too",
    },
];

/// Starts a pod in each mode, and shows what its application made of it.
pub(crate) async fn show(bed: &Testbed, screen: &Screen, pods: &mut Follower) -> Result<()> {
    screen.step("The same without the login, for applications that do it themselves");
    let api: Api<Pod> = Api::namespaced(bed.client(), sample::NAMESPACE);
    let deployments: Api<Deployment> = Api::namespaced(bed.client(), sample::NAMESPACE);
    let deployment = deployments.get(sample::DEPLOYMENT).await.context("the Deployment of the sample is gone")?;
    for mode in &MODES {
        let pod = pod(&deployment, mode)?;
        api.create(&PostParams::default(), &pod).await.with_context(|| format!("cannot create pod {}", mode.pod))?;
    }
    let is_wanted = |pod: &Pod| MODES.iter().any(|mode| mode.pod == pod.name_any());
    let seen = pods.until_running(MODES.len(), is_wanted, |_, _| Ok(())).await?;
    let logs = try_join_all(MODES.iter().map(|mode| sample::log(bed, mode.pod))).await?;
    for (mode, log) in MODES.iter().zip(logs) {
        let variables: Vec<String> = mode.variables.iter().map(|name| format!("{name}=false")).collect();
        let seen = seen.iter().find(|seen| seen.name() == mode.pod).context("a pod is missing")?;
        screen.milestone(&format!("{} ({})", variables.join(" "), seen.served_in()));
        screen.note(&format!("{}:", mode.means));
        screen.output(&brief(&log));
    }
    screen.done("both read the secret");
    Ok(())
}

/// The pod of the Deployment with the mode's variables. Without its labels: the Deployment would count it as its own.
fn pod(deployment: &Deployment, mode: &Mode) -> Result<Pod> {
    let template = deployment.spec.as_ref().map(|spec| spec.template.clone()).context("a Deployment without a spec")?;
    let metadata = ObjectMeta {
        name: Some(mode.pod.to_owned()),
        annotations: template.metadata.and_then(|metadata| metadata.annotations),
        ..ObjectMeta::default()
    };
    let mut spec = template.spec.context("a Deployment without a pod")?;
    let init = spec.init_containers.as_mut().and_then(|containers| containers.first_mut());
    let variable =
        |name: &&str| EnvVar { name: (*name).to_owned(), value: Some("false".to_owned()), ..EnvVar::default() };
    init.context("the sample has no init container")?
        .env
        .get_or_insert_default()
        .extend(mode.variables.iter().map(variable));
    Ok(Pod { metadata, spec: Some(spec), status: None })
}

/// What was left, what the application did, and what it read.
fn brief(log: &str) -> String {
    const SAID: [&str; 9] = [
        "role_id:",
        "secret_id:",
        "wrapping token:",
        "wrapping TTL:",
        "token:",
        "Unwrapped",
        "Logged in",
        "Read ",
        "message:",
    ];
    let wanted = |line: &&str| SAID.iter().any(|start| line.trim_start().starts_with(start));
    log.lines().filter(wanted).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_pod_is_that_of_the_deployment_with_more_variables() {
        let deployment: Deployment = serde_json::from_value(json!({"spec": {"selector": {}, "template": {
            "metadata": {"labels": {"a": "b"}, "annotations": {"c": "d"}},
            "spec": {"initContainers": [{"name": "i", "env": [{"name": "X"}]}], "containers": []},
        }}}))
        .unwrap();
        let pod = pod(&deployment, &MODES[1]).unwrap();
        assert!(pod.metadata.labels.is_none() && pod.metadata.annotations.is_some());
        let init = &pod.spec.unwrap().init_containers.unwrap()[0];
        let names: Vec<&str> = init.env.iter().flatten().map(|variable| variable.name.as_str()).collect();
        assert_eq!(names, ["X", "RETRIEVE_TOKEN", "UNWRAP_SECRET"]);
    }
}
