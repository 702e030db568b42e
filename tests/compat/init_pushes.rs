//! init-push-cases.txt: what becomes of a push, good or bad, with a real Vault.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use anyhow::{Result, ensure};

use crate::case::Case;
use crate::go_controller::{Reply, push};
use crate::pod::Pod;
use crate::process::Running;
use crate::tls::{BOTH, TLS12, Versions};
use crate::vectors::{Section, sections};
use crate::world::{World, Wrapped};

/// design, section 9: the answers. The Go version says 200 before it has done anything.
const ANSWERS: &str = "200 only for a push whose work is done; what another push can mend leaves it waiting";

/// What our init container does with a recorded push.
#[derive(Clone, Copy)]
enum Ours {
    /// 200, and exit code 0 with these files.
    Done(&'static [&'static str]),
    /// This answer ([`ANSWERS`]), and it goes on waiting. The body begins with this.
    Waits(u16, &'static str),
    /// This answer, and it ends with this code and words, by this rule.
    Ends(u16, i32, &'static str, &'static str),
    /// It ends with this code and words before it listens, by this rule.
    NeverListens(i32, &'static str, &'static str),
}
use Ours::{Done, Ends, NeverListens, Waits};

const TABLE: &[(&str, Ours)] = &[
    // Bad-input table: expired or used wrapping token.
    ("expired", Waits(422, "expired: ")),
    ("invalid-token", Waits(422, "used: ")),
    ("already-unwrapped", Waits(422, "used: ")),
    // Bad-input table: role_id of another role.
    ("wrong-role-id", Ends(412, 6, "VAULT_ROLE_ID", "what no push can mend (role_id refused) ends it at once")),
    // Bad-input table: wrong JSON.
    ("no-vaultaddr", Waits(400, "Could not decode wrapped secret.")),
    ("no-creationtime", Waits(400, "Could not decode wrapped secret.")),
    ("unknown-field-and-case", Done(&["vault-token"])),
    ("vault-refused", Waits(503, "")),
    // Bad-input table: unwritable CREDENTIALS_PATH.
    ("no-directory", NeverListens(4, "No such file or directory", "a directory not writable ends it at once")),
    ("symlink", Done(&["vault-token"])),
    ("with-ca", Done(&["ca.crt", "vault-token"])),
    ("bad-then-good", Done(&["ca.crt", "vault-token"])),
    ("existing-0444-file", Done(&["ca.crt", "vault-token"])),
];

/// A case for each recorded push, over TLS 1.3 and over TLS 1.2.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for section in sections("init-push-cases.txt") {
        let Some((_, ours)) = TABLE.iter().find(|(title, _)| *title == section.title) else { continue };
        cases.push(Case::of(section, move |world| check(world, section, *ours, BOTH)));
        let older = format!("{}: {}, TLS 1.2", section.file, section.title);
        cases.push(Case::new(older, vec![section], move |world| check(world, section, *ours, TLS12)));
    }
    cases.push(Case::new("init: a push over https Vault leaves ca.crt byte for byte", Vec::new(), over_https));
    cases
}

async fn check(world: &World, section: Section, ours: Ours, versions: Versions) -> Result<()> {
    let exit = section.exit_code();
    match ours {
        // The contract: success stays success, failure stays failure or gets another chance.
        Done(_) => ensure!(exit == Some(0), "recorded as a failure"),
        _ => ensure!(exit == Some(1), "recorded as a success"),
    }
    let pod = Pod::new(world).await?;
    if let NeverListens(code, words, _rule) = ours {
        std::fs::remove_dir(pod.directory.path())?;
        return pod.start(&[], &[])?.end().await?.expect(code, &[words]);
    }
    let environment: &[_] = if section.title == "wrong-role-id" {
        &[("VAULT_ROLE_ID", "00000000-0000-0000-0000-000000000000")]
    } else {
        &[]
    };
    let init = pod.listening(environment).await?;
    let body = prepare(world, section, &pod).await?;
    if section.title == "bad-then-good" {
        let first = push(pod.address(), versions, "notjson").await?;
        ensure!(first.status() == 400 && first.body == "Could not decode wrapped secret.", "{first:?}");
    }
    let reply = push(pod.address(), versions, &body).await?;
    judge(world, ours, &pod, init, &reply).await?;
    if section.title == "symlink" {
        // Rule: a symlinked output file is replaced, not followed. The Go version wrote through it.
        ensure!(std::fs::read_to_string(pod.directory.path().with_extension("victim"))? == "untouched");
        std::fs::remove_file(pod.directory.path().with_extension("victim"))?;
    }
    if pod.path("ca.crt").exists() {
        ensure!(pod.file("ca.crt")? == bundle(world), "ca.crt is not the decoded vaultCAs");
    }
    Ok(())
}

async fn judge(world: &World, ours: Ours, pod: &Pod, init: Running, reply: &Reply) -> Result<()> {
    match ours {
        Done(files) => {
            // Empty, as the Go version's: this push names no attempt.
            ensure!(reply.status() == 200 && reply.body.is_empty(), "{reply:?}\n{}", init.printed());
            pod.expect_done(&init.end().await?, files)
        }
        Ends(status, code, words, rule) => {
            ensure!(reply.status() == status, "{rule}: {reply:?}");
            init.end().await?.expect(code, &[words])?;
            ensure!(pod.left()?.is_empty(), "a partial file");
            Ok(())
        }
        NeverListens(..) => Ok(()),
        Waits(status, words) => {
            ensure!(reply.status() == status && reply.body.starts_with(words), "{ANSWERS}: {reply:?}");
            ensure!(pod.left()?.is_empty(), "a partial file");
            let good = world.wrap().await?.body(&world.vault, "null");
            let reply = push(pod.address(), BOTH, &good).await?;
            ensure!(reply.status() == 200, "it waits no more: {reply:?}\n{}", init.printed());
            let ended = init.end().await?;
            if words.starts_with("used") {
                // Bad-input table: a used wrapping token says loudly that somebody else may have unwrapped it.
                ended.expect(0, &["SOMEBODY ELSE MAY HAVE UNWRAPPED"])?;
            }
            pod.expect_done(&ended, &["vault-token"])
        }
    }
}

/// The push that was recorded, and what must be there before it.
async fn prepare(world: &World, section: Section, pod: &Pod) -> Result<String> {
    let wrapped = world.wrap().await?;
    let good = wrapped.body(&world.vault, "null");
    let cas = format!("\"{}\"", wire::base64_encode(bundle(world).as_bytes()));
    Ok(match section.title {
        "expired" => {
            Wrapped { creation_time: "2026-01-02T03:04:05.678901234Z".to_owned(), ..wrapped }.body(&world.vault, "null")
        }
        "invalid-token" => Wrapped { token: "hvs.CAESINotAToken".to_owned(), ..wrapped }.body(&world.vault, "null"),
        "already-unwrapped" => {
            let request = world.http.put(format!("{}/v1/sys/wrapping/unwrap", world.vault));
            request.header("X-Vault-Token", &wrapped.token).send().await?.error_for_status()?;
            good
        }
        "no-vaultaddr" => wrapped.body("", "null"),
        "no-creationtime" => good.replace(&format!(r#""creationTime":"{}","#, wrapped.creation_time), ""),
        "unknown-field-and-case" => {
            good.replace(r#"{"token""#, r#"{"new":{"a":[1]},"TOKEN""#).replace("vaultAddr", "VaultADDR")
        }
        // Nobody listens there.
        "vault-refused" => wrapped.body("http://127.0.0.1:9", "null"),
        "symlink" => {
            let victim = pod.directory.path().with_extension("victim");
            std::fs::write(&victim, "untouched")?;
            symlink(&victim, pod.path("vault-token"))?;
            good
        }
        "with-ca" | "bad-then-good" => wrapped.body(&world.vault, &cas),
        "existing-0444-file" => {
            for name in ["ca.crt", "vault-token"] {
                std::fs::write(pod.path(name), "of an earlier start")?;
                std::fs::set_permissions(pod.path(name), std::fs::Permissions::from_mode(0o444))?;
            }
            wrapped.body(&world.vault, &cas)
        }
        _ => good,
    })
}

/// A bundle with what PEM allows around the certificate.
fn bundle(world: &World) -> String {
    format!("# Vault's authority\r\n{}", world.front.ca)
}

async fn over_https(world: &World) -> Result<()> {
    let pod = Pod::new(world).await?;
    let init = pod.listening(&[]).await?;
    let cas = format!("\"{}\"", wire::base64_encode(bundle(world).as_bytes()));
    let reply = push(pod.address(), TLS12, &world.wrap().await?.body(&world.front.address, &cas)).await?;
    ensure!(reply.status() == 200, "{reply:?}\n{}", init.printed());
    pod.expect_done(&init.end().await?, &["ca.crt", "vault-token"])?;
    ensure!(pod.file("ca.crt")? == bundle(world), "ca.crt is not the decoded vaultCAs");
    Ok(())
}
