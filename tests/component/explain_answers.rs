//! `explain`, tried on everything that an init container may do: its answers, its silence, its end.

use anyhow::{Context as _, Result};
use testbed::fake_pods::FakePod;

use crate::commands::explained;
use crate::controller::{Controller, Pod, namespace};
use crate::receivers::{Reaction, Receiver};
use crate::world::{World, cases};

cases! { ALL:
    each_answer_that_is_complete_is_explained,
    each_init_container_without_an_answer_is_explained,
    each_end_of_an_init_container_is_explained,
}

/// What an init container does, and what is said of its pod: kind, exit code, words.
type Row = (&'static str, Option<Reaction>, &'static str, i32, &'static [&'static str]);

/// All of them at once, by one controller.
async fn each(world: &World, stem: &str, rows: &[Row]) -> Result<()> {
    let namespace = namespace(world, stem).await?;
    let controller = Controller::start(world, &namespace).await?;
    let role = world.approle(stem).await?;
    let mut receivers = Vec::new();
    for (name, reaction, ..) in rows {
        let pod = Pod::of(world, FakePod::asking_for(&namespace, name, &role), &role).await?;
        if let Some(reaction) = reaction {
            receivers.push(Receiver::start(pod.ip, std::slice::from_ref(reaction)).await?);
        }
        pod.run(world).await?;
    }
    let checks = async {
        for (name, _, kind, code, words) in rows {
            explained(&controller, &format!("{namespace}/{name}"), kind, *code, words).await?;
        }
        Ok(())
    };
    controller.explain(checks).await
}

// Bad-input table: an init container that answers any status.
async fn each_answer_that_is_complete_is_explained(world: &World) -> Result<()> {
    let says = |status, head, body| Some(Reaction::Says(status, head, body));
    each(
        world,
        "answers",
        &[
            ("created", says(201, "", ""), "pushRefused", 1, &["refused the push for good", "it answered 201"]),
            ("empty", says(204, "", ""), "pushRefused", 1, &["it answered 204"]),
            ("moved", says(302, "location: https://10.99.0.1/\r\n", ""), "pushRefused", 1, &["it answered 302"]),
            ("bad", says(400, "", "not ours"), "pushRefused", 1, &["it answered 400: not ours"]),
            ("missing", says(404, "", ""), "pushRefused", 1, &["it answered 404"]),
            ("another", says(421, "", "another pod"), "wrongPod", 1, &["belongs to another pod"]),
            ("expired", says(422, "", "expired: too late"), "retrying", 1, &["it answered 422: expired: too late"]),
            ("broken", says(500, "", "Vault is down"), "retrying", 1, &["it answered 500: Vault is down"]),
            ("busy", says(409, "", ""), "delivering", 0, &["is being served now"]),
            ("earlier", says(410, "", ""), "doneEarlier", 0, &["took a secret_id before"]),
        ],
    )
    .await
}

// Bad-input table: closes, accepts and hangs, answers 1 GiB, speaks plain HTTP, refuses.
async fn each_init_container_without_an_answer_is_explained(world: &World) -> Result<()> {
    each(
        world,
        "silence",
        &[
            ("closes", Some(Reaction::Closes), "retrying", 1, &["no complete answer: the connection broke"]),
            ("cuts", Some(Reaction::Cuts), "retrying", 1, &["no complete answer"]),
            ("floods", Some(Reaction::Floods), "retrying", 1, &["no complete answer"]),
            ("hangs", Some(Reaction::Hangs), "delivering", 0, &["is being served now"]),
            ("plain", Some(Reaction::PlainHttp), "unreachable", 1, &["on port 50000", "no TLS"]),
            ("mute", Some(Reaction::NoHandshake), "unreachable", 1, &["on port 50000", "no handshake within 1s"]),
            ("refuses", None, "unreachable", 1, &["on port 50000", "refused"]),
        ],
    )
    .await
}

// Bad-input table: exits while it answers; the init container's own mistakes, as the controller sees them.
async fn each_end_of_an_init_container_is_explained(world: &World) -> Result<()> {
    let namespace = namespace(world, "ends").await?;
    let controller = Controller::start(world, &namespace).await?;
    let role = world.approle("ends").await?;
    let pod = async |name: &str| Pod::of(world, FakePod::asking_for(&namespace, name, &role), &role).await;
    let checks = async {
        let answering = pod("answering").await?;
        let receiver = Receiver::start(answering.ip, &[Reaction::Closes]).await?;
        answering.run(world).await?;
        receiver.wait_for(1).await?;
        answering.exit(world, 1, "").await?;
        let name = format!("{namespace}/answering");
        explained(&controller, &name, "initContainerFailed", 1, &["ended with exit code 1"]).await?;
        for (code, words) in [
            (2, "exit code 2: its environment variables cannot be used"),
            (3, "exit code 3: no push that it could use came within its TIMEOUT"),
            (4, "exit code 4: CREDENTIALS_PATH cannot be written"),
            (6, "exit code 6: Vault refuses its VAULT_ROLE_ID"),
            (101, "exit code 101."),
            (137, "exit code 137: it was killed"),
            (143, "exit code 143: it was told to stop"),
        ] {
            let ended = pod(&format!("ends-{code}")).await?;
            ended.run(world).await?;
            ended.exit(world, code, "").await?;
            let name = format!("{namespace}/{}", ended.fake.name);
            let found = explained(&controller, &name, "initContainerFailed", 1, &[words]).await;
            found.with_context(|| format!("exit code {code}"))?;
        }
        Ok(())
    };
    controller.explain(checks).await
}
