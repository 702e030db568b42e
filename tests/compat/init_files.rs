//! vault-token, vault-secret-id, vault-wrapped-secret-id: the output files, byte for byte but for the values.

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::case::Case;
use crate::go_controller::push;
use crate::pod::Pod;
use crate::tls::BOTH;
use crate::vectors::{Section, sections, shape};
use crate::world::World;

/// Which switches ask for which file.
const FILES: &[(&str, &[(&str, &str)])] = &[
    ("vault-token", &[]),
    ("vault-secret-id", &[("RETRIEVE_TOKEN", "false")]),
    ("vault-wrapped-secret-id", &[("RETRIEVE_TOKEN", "False"), ("UNWRAP_SECRET", "FALSE")]),
];

pub(crate) fn cases() -> Vec<Case> {
    let one = |&(file, environment): &(&'static str, &'static [(&str, &str)])| {
        let section = sections(file)[0];
        Case::of(section, move |world| check(world, section, environment))
    };
    FILES.iter().map(one).collect()
}

async fn check(world: &World, section: Section, environment: &[(&str, &str)]) -> Result<()> {
    let pod = Pod::new(world).await?;
    let init = pod.listening(environment).await?;
    let wrapped = world.wrap().await?;
    let reply = push(pod.address(), BOTH, &wrapped.body(&world.vault, "null")).await?;
    ensure!(reply.status() == 200, "{reply:?}\n{}", init.printed());
    pod.expect_done(&init.end().await?, &[section.file])?;
    let text = pod.file(section.file)?;
    ensure!(shape(&text) == shape(section.text), "{} instead of {}", shape(&text), shape(section.text));
    let (ours, recorded): (Value, Value) = (serde_json::from_str(&text)?, serde_json::from_str(section.text)?);
    ensure!(ours["vaultAddr"] == world.vault.as_str());
    // The role of the recordings has the same token period.
    for key in ["leaseDuration", "renewable", "ttl"] {
        ensure!(ours[key] == recorded[key], "{key} is {} instead of {}", ours[key], recorded[key]);
    }
    if section.file == "vault-wrapped-secret-id" {
        ensure!(ours["wrappedSecretId"] == wrapped.token.as_str());
    }
    if section.file != "vault-token" {
        ensure!(ours["roleId"] == world.role_id.as_str());
    }
    Ok(())
}
