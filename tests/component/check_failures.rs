//! `check`, tried on every failure of a configuration, a token and a Vault that the bad-input table lists: each is
//! named in one sentence.

use anyhow::{Context as _, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use testbed::ControllerPolicy;

use crate::commands::{Checked, Printed, STANDBY};
use crate::fault_proxy::{Fault, FaultProxy};
use crate::receivers::{Reaction, Receiver};
use crate::vault_tls::other_ca;
use crate::vault_tokens::{created, of_role};
use crate::world::{World, cases};

cases! { ALL:
    each_mistake_of_a_configuration_is_named_by_its_key,
    each_token_that_must_not_be_used_is_told_with_its_reason,
    each_trouble_with_vault_is_told_apart,
    each_certificate_that_proves_nothing_is_told,
}

/// Of the findings of this level one has all these words, in cause and remedy; each cause is one sentence.
pub(crate) fn found(printed: &Printed, code: i32, level: &str, words: &[&str]) -> Result<()> {
    let json = printed.json()?;
    for finding in json["findings"].as_array().context("no findings")? {
        let cause = finding["cause"].as_str().context("no cause")?;
        let one = !cause.is_empty() && !cause.ends_with('.') && !cause.contains(". ") && !cause.contains('\n');
        ensure!(one, "not one sentence: {cause:?}");
    }
    let findings = printed.findings(level)?;
    let told = findings.iter().any(|finding| words.iter().all(|word| finding.contains(word)));
    ensure!(told && printed.code == Some(code), "not {code}, {level}, {words:?}: {:?}\n{}", printed.code, printed.text);
    Ok(())
}

const SOUND: &str = "vault:\n  addr: http://vault:8200\n  token: hvs.canary\nkubernetes:\n  watchNamespace: default\n  \
                     serviceNamespace: default\n  service: kubernetes\n";

// Bad-input table: configuration: wrong type, duplicate key, bad regex, bad duration, unreadable file. (Several at once,
// unknown keys and a file that is not there: commands.rs.)
async fn each_mistake_of_a_configuration_is_named_by_its_key(world: &World) -> Result<()> {
    let instead = |old: &str, new: &str| SOUND.replace(old, new).into_bytes();
    for (name, content, words) in [
        ("type", instead("addr: http://vault:8200", "addr: [hvs.canary]"), ["vault.addr (line 2)", "single value"]),
        ("mapping", instead(SOUND, "- hvs.canary\n"), ["the file", "mapping of keys"]),
        ("twice", instead("  token", "  addr: http://hvs.canary\n  token"), ["vault.addr (line 3)", "set twice"]),
        (
            "regex",
            instead("watchNamespace: default", "watchNamespace: '~('"),
            ["kubernetes.watchNamespace (line 5)", ""],
        ),
        ("duration", instead("  token", "  wrappingTTL: soon\n  token"), ["vault.wrappingTTL (line 3)", "such as 60s"]),
        ("nothing", instead("  token", "  wrappingTTL: 0\n  token"), ["vault.wrappingTTL (line 3)", "one second"]),
        ("url", instead("http://vault:8200", "vault:8200"), ["vault.addr (line 2)", "https://"]),
        ("empty", Vec::new(), ["vault.addr", "is required"]),
        ("yaml", instead("token: hvs.canary", "token: [hvs.canary"), ["the file", "YAML"]),
        ("bytes", vec![0xff, 0xfe, b'a'], ["the file", "UTF-8"]),
    ] {
        let config = world.bed.directory().join(world.name(name));
        std::fs::write(&config, content)?;
        let printed = Checked { config, kubeconfig: world.bed.kubeconfig() }.run().await?;
        found(&printed, 2, "error", &words).with_context(|| name.to_owned())?;
        ensure!(!printed.text.contains("canary"), "{name}: a value was printed: {}", printed.text);
    }
    let directory = Checked { config: world.bed.directory().to_owned(), kubeconfig: world.bed.kubeconfig() };
    found(&directory.run().await?, 2, "error", &["cannot read the configuration file", "directory", "--config"])
}

// Bad-input table: non-renewable token, token without role, token role with explicit max TTL. (A root token, and one that
// was never made: commands.rs.)
async fn each_token_that_must_not_be_used_is_told_with_its_reason(world: &World) -> Result<()> {
    let vault = world.vault()?;
    let fixed = json!({"policies": ["default"], "renewable": false, "ttl": "1h"});
    let roleless = json!({"policies": ["default"], "period": "1h"});
    let capped = json!({"period": "1h", "explicit_max_ttl": "2h", "renewable": true});
    let revoked = world.token(ControllerPolicy::Ours).await?;
    vault.write("auth/token/revoke", &json!({"token": revoked})).await?;
    let hidden = world.name("hidden");
    vault.write(&format!("auth/token/roles/{hidden}"), &json!({"period": "1h", "renewable": true})).await?;
    let hidden = format!("auth/token/create/{hidden}");
    for (token, words) in [
        (created(world, "auth/token/create", fixed).await?, ["it is not renewable", "renewable=true"]),
        (created(world, "auth/token/create", roleless).await?, ["not created from a token role", "-role="]),
        (of_role(world, capped).await?, ["has an explicit max TTL", "explicit_max_ttl=0"]),
        (of_role(world, json!({"renewable": true})).await?, ["has no period", "set period="]),
        (created(world, &hidden, json!({"policies": ["default"]})).await?, ["cannot be read", "allow read on"]),
        (revoked, ["Vault refuses vault.token", "give a token that is valid"]),
    ] {
        let printed = Checked::new(world, "default", &token)?.run().await?;
        found(&printed, 1, "error", &words)?;
        ensure!(!printed.text.contains(&token), "the token was printed");
    }
    Ok(())
}

// Bad-input table: Vault standby, 429, 5xx, slow, redirect to another host, cut short. (Down and sealed: commands.rs.)
async fn each_trouble_with_vault_is_told_apart(world: &World) -> Result<()> {
    let token = world.token(ControllerPolicy::Ours).await?;
    let other = FaultProxy::start(world).await?;
    let to = |path: &str| vec![("Location", format!("{}/v1/{path}", other.url()))];
    let host = format!("redirects to another host ({})", other.url());
    let answer = |status, head, body| Fault::Answer(status, head, body);
    let own_error = r#"{"errors":["internal error"]}"#;
    let lookup = "auth/token/lookup-self";
    let rows = [
        (vec![("sys/health", answer(302, to("sys/health"), ""))], vec![host.as_str(), "point vault.addr at that host"]),
        (vec![(lookup, answer(307, to(lookup), ""))], vec![host.as_str()]),
        (
            vec![("sys/health", answer(429, vec![], STANDBY)), (lookup, answer(307, to(lookup), ""))],
            vec!["a standby that does not forward", "at the active node"],
        ),
        (vec![(lookup, answer(429, vec![("Retry-After", "7".into())], ""))], vec!["limits the rate", "quota"]),
        (vec![(lookup, answer(500, vec![], own_error))], vec!["Vault answers 500", "Vault's own log"]),
        (vec![("", answer(502, vec![], "<html>bad gateway</html>"))], vec!["Vault answers 502"]),
        (vec![(lookup, Fault::Truncate)], vec!["Vault cannot be reached"]),
        (vec![("sys/health", Fault::Reset)], vec!["Vault cannot be reached"]),
        // It takes the ten seconds that a request may take.
        (vec![(lookup, Fault::Hang)], vec!["did not answer in time", "overloaded"]),
    ];
    for (faults, words) in rows {
        let proxy = FaultProxy::start(world).await?;
        for (path, fault) in faults {
            proxy.inject(path, fault, usize::MAX);
        }
        let printed = Checked::with(world, "default", &token, &proxy.url(), "")?.run().await?;
        found(&printed, 1, "error", &words)?;
        ensure!(printed.findings("error")?.len() == 1, "more than the cause: {}", printed.text);
    }
    ensure!(other.seen("").is_empty(), "another host was asked");
    Ok(())
}

/// A proxy before Vault with a certificate for these years, and the file of the CA that issued it.
async fn serving_from(world: &World, years: std::ops::Range<i32>) -> Result<(FaultProxy, String)> {
    let (mut ca, ip) = (CertificateParams::new(Vec::new())?, world.address());
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "ca");
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate()?)?;
    let (mut leaf, key) = (CertificateParams::new(vec![ip.to_string()])?, KeyPair::generate()?);
    leaf.not_before = date_time_ymd(years.start, 1, 1);
    leaf.not_after = date_time_ymd(years.end, 1, 1);
    let leaf = leaf.signed_by(&key, &ca)?.der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![leaf], key)?;
    Ok((FaultProxy::start_tls(world, ip, tls).await?, trusting(world, &ca.pem())?))
}

/// The lines of a configuration that trust these certificates.
fn trusting(world: &World, pem: &str) -> Result<String> {
    let file = world.bed.directory().join(world.name("trusted"));
    std::fs::write(&file, pem)?;
    Ok(format!("  tls: {{caCert: {}}}\n", file.display()))
}

// Bad-input table: Vault with a wrong certificate. (Of an unknown CA, and for another name: commands.rs.)
async fn each_certificate_that_proves_nothing_is_told(world: &World) -> Result<()> {
    let token = world.token(ControllerPolicy::Ours).await?;
    let (expired, trusts_expired) = serving_from(world, 2020..2021).await?;
    let (early, trusts_early) = serving_from(world, 4000..4001).await?;
    let clear = FaultProxy::start(world).await?;
    let answers = Receiver::start(world.address(), &[Reaction::PlainHttp]).await?;
    let vault = world.vault()?.address();
    let (none, ours) = (String::new(), trusting(world, &world.vault()?.ca().context("no TLS")?)?);
    let namesake = trusting(world, &other_ca("testbed-vault")?)?;
    for (address, tls, words) in [
        (expired.url(), trusts_expired, ["certificate expired", "renew Vault's certificate"]),
        (early.url(), trusts_early, ["not valid yet", "clock"]),
        (vault.to_owned(), namesake, ["invalid peer certificate", "vault.tls.caCert"]),
        // One hangs up on what is no HTTP; the other answers it, as Vault does.
        (clear.url().replace("http://", "https://"), ours.clone(), ["handshake", "is it http://"]),
        (format!("https://{}:50000", answers.ip), ours, ["Vault cannot be reached", "is it http://"]),
        (vault.replace("https://", "http://"), none, ["seems to want TLS", "say https:// in vault.addr"]),
    ] {
        let printed = Checked::with(world, "default", &token, &address, &tls)?.run().await?;
        found(&printed, 1, "error", &words)?;
        ensure!(printed.findings("error")?.len() == 1, "more than the cause: {}", printed.text);
    }
    Ok(())
}
