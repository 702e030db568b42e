//! Steps of an operator: Vault, then the controller. They are those of `deploy/`, run as they are written there.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use testbed::{Testbed, poll_until};

use crate::files;
use crate::follow::{crashes, is_ready};
use crate::replicas;
use crate::screen::{Screen, table};
use crate::shell::{Shell, logical_lines};

pub(crate) const NAMESPACE: &str = "kubernetes-vault";
pub(crate) const CONTAINER: &str = "kubernetes-vault";
const LABEL: &str = "app.kubernetes.io/name=kubernetes-vault";
const SETUP: &str = "deploy/vault/setup.sh";
/// What the set-up script says to run for a single controller.
const APPLY_SINGLE: &str = "kubectl apply -k deploy/quick-start";
/// The same with three.
const APPLY: &str = "kubectl apply -k deploy/replicated";
/// What it says to run for the sample application, which is a step of its own.
pub(crate) const APPLY_SAMPLE: &str = "kubectl apply -k deploy/sample-app/token";
/// The controller answers within a second; both cores may be busy.
const READY_LIMIT: Duration = Duration::from_secs(60);

pub(crate) async fn show_servers(bed: &Testbed, screen: &Screen) -> Result<()> {
    let kubernetes = bed.client().apiserver_version().await.context("cannot ask Kubernetes for its version")?;
    let health = bed.vault()?.read("sys/health").await?;
    let vault = health["version"].as_str().unwrap_or("?");
    screen.output(&table(&[
        [format!("Kubernetes {}", kubernetes.git_version), bed.control_plane().url()],
        [format!("Vault v{vault}"), bed.vault()?.address().to_owned()],
    ]));
    Ok(())
}

/// Runs the set-up script; returns the commands that it tells its user to run next.
pub(crate) async fn vault(shell: &Shell, screen: &Screen) -> Result<Vec<String>> {
    screen.step(&format!("Set up Vault ({SETUP})"));
    screen.note("An AppRole for the application, a policy and a token role for the controller:");
    let printed = shell.trace(SETUP).await?;
    for command in executed(files::text(SETUP).unwrap_or_default(), &printed.err) {
        screen.command(&command);
    }
    let commands = told(&printed.out);
    for expected in [APPLY_SINGLE, APPLY_SAMPLE] {
        ensure!(
            commands.iter().any(|command| command == expected),
            "{SETUP} does not say to run `{expected}`; it printed:\n{}",
            printed.out
        );
    }
    screen.done("Vault is set up");
    Ok(commands)
}

/// Installs three controllers and waits until they are ready, in one cluster.
pub(crate) async fn controllers(bed: &Testbed, shell: &Shell, screen: &Screen, commands: &[String]) -> Result<()> {
    screen.step("Install three controllers (deploy/replicated)");
    for command in commands.iter().filter(|command| ![APPLY_SINGLE, APPLY_SAMPLE].contains(&command.as_str())) {
        screen.command(command);
        shell.run(command).await?;
    }
    hide_token(bed, screen).await?;
    screen.command(APPLY);
    let printed = shell.run(APPLY).await?;
    screen.note(&made(&printed.out));
    screen.note(
        "Here every pod runs as root of a namespace without rights outside of it: of the security contexts in the \
         manifests only readOnlyRootFilesystem has an effect.",
    );
    let pods: Api<Pod> = Api::namespaced(bed.client(), NAMESPACE);
    poll_until("three controllers that are ready", READY_LIMIT, || async {
        let found = pods.list(&ListParams::default().labels(LABEL)).await?;
        if let Some(code) = found.iter().find_map(crashes) {
            bail!("one ends with exit code {code} again and again");
        }
        Ok((found.iter().filter(|pod| is_ready(pod)).count() == replicas::NAMES.len()).then_some(()))
    })
    .await
    .context("the controllers do not start")?;
    let pods = "kubectl -n kubernetes-vault get pods";
    screen.command(pods);
    screen.output(&shell.run(pods).await?.out);
    let found = replicas::agreement(bed).await?;
    screen.milestone(&format!("three voters, one leader: {}", found.leader));
    screen.done("the controllers are ready");
    Ok(())
}

/// Nothing should print the controller's token; the screen makes sure.
async fn hide_token(bed: &Testbed, screen: &Screen) -> Result<()> {
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(bed.client(), NAMESPACE);
    let secret = secrets.get("kubernetes-vault").await.context("the set-up made no Secret")?;
    match secret.data.iter().flatten().find(|(key, _)| *key == "token") {
        Some((_, token)) => screen.hide(&String::from_utf8_lossy(&token.0)),
        None => bail!("the Secret kubernetes-vault has no key `token`"),
    }
    Ok(())
}

/// The vault commands of a script that changed something, in its own words, of those that were executed.
fn executed(script: &str, trace: &str) -> Vec<String> {
    let plain = |text: &str| text.replace(['"', '\''], "");
    let ran: Vec<String> = trace.lines().filter_map(|line| Some(plain(line.strip_prefix("+ ")?))).collect();
    let command = |line: String| -> Option<String> {
        let command = line.rsplit_once("|| ").map_or(line.as_str(), |(_, command)| command);
        let is_ours = command.starts_with("vault ") && ran.iter().any(|line| line.trim_end() == plain(command));
        is_ours.then(|| command.to_owned())
    };
    logical_lines(script).into_iter().filter_map(command).collect()
}

/// The commands that stand indented at the end of what the script printed.
fn told(printed: &str) -> Vec<String> {
    let indented = |line: &String| line.starts_with("  ") && !line.trim().is_empty();
    logical_lines(printed).into_iter().filter(indented).map(|line| line.trim().to_owned()).collect()
}

/// `serviceaccount/x created` and so on, as one sentence.
fn made(printed: &str) -> String {
    let kind = |line: &str| -> Option<String> {
        let (kind, _) = line.strip_suffix(" created")?.split_once('/')?;
        Some(kind.split('.').next().unwrap_or(kind).to_owned())
    };
    let kinds: Vec<String> = printed.lines().filter_map(kind).collect();
    format!("created: {}", kinds.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_shown_as_written_if_they_ran() {
        let script = "has auth a/ || vault auth enable approle\nhas x || vault secrets enable kv\n\
                      vault kv put a m=\"b c\"\nvault write role \\\n  p=1\nrole_id=$(vault read x)\n";
        let trace = "+ has auth a/\n+ vault auth enable approle\n+ vault kv put a m=b c\n+ vault write role p=1\n+ vault read x\n";
        assert_eq!(
            executed(script, trace),
            ["vault auth enable approle", "vault kv put a m=\"b c\"", "vault write role p=1"]
        );
    }

    #[test]
    fn the_real_script_has_commands_to_show() {
        let script = files::text(SETUP).unwrap();
        let all: String = logical_lines(script).iter().map(|line| format!("+ {}\n", line.replace('"', ""))).collect();
        assert!(executed(script, &all).len() >= 5);
    }

    #[test]
    fn next_commands_are_the_indented_ones() {
        let printed = "Success!\n\nReady. These:\n\n  kubectl create \\\n    --from=x\n  kubectl apply -k d\n";
        assert_eq!(told(printed), ["kubectl create --from=x", "kubectl apply -k d"]);
    }

    #[test]
    fn what_was_made_is_one_sentence() {
        let printed = "serviceaccount/k created\nrole.rbac.authorization.k8s.io/k created\nnamespace/k configured\n";
        assert_eq!(made(printed), "created: serviceaccount, role");
    }
}
