//! What the controller's account may do by the manifests: what `check` asks for, and nothing else.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use futures::FutureExt as _;
use kubernetes_vault::domain::rights::uses;
use serde_json::json;
use testbed::Testbed;

use super::world::{Beds, Case, file, printed};

pub(crate) const ALL: &[(&str, Case)] =
    &[("the_account_may_do_what_check_asks_for_and_nothing_else", |beds| exactly(beds).boxed_local())];

/// A right as kubectl lists it: resource, name, verb.
type Right = (String, String, String);

async fn exactly(beds: &Beds) -> Result<()> {
    let bed = beds.start_plane().await?;
    for namespace in ["team-a", "team-b"] {
        let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}).to_string();
        bed.kubectl(&["apply", "--server-side", "-f", &file(bed, "namespace.json", &made)?]).await?;
    }
    let plain = ["production", "--namespace=plain", "--watch-namespace=team-b"];
    for (arguments, own, watched) in [
        (&["one-namespace"][..], "team-a", Some("team-a")),
        (&plain[..], "plain", Some("team-b")),
        (&["quick-start", "--namespace=matching"][..], "matching", None),
    ] {
        let path = file(bed, "case.yaml", &printed(arguments)?)?;
        bed.kubectl(&["apply", "--server-side", "-f", &path]).await?;
        for namespace in [own, "team-a", "team-b", "kube-system"] {
            let found = listed(bed, own, "kubernetes-vault", namespace).await?;
            let usual = listed(bed, own, "default", namespace).await?;
            let found: BTreeSet<Right> = found.difference(&usual).cloned().collect();
            let wanted = wanted(own, watched, namespace);
            ensure!(found == wanted, "{arguments:?}, in {namespace}: it may {found:?}\n\nand uses {wanted:?}");
        }
        // Said in so many words, since it is the promise that counts most.
        let account = format!("--as=system:serviceaccount:{own}:kubernetes-vault");
        for verb in ["get", "list", "watch", "create", "update", "delete"] {
            for namespace in [own, "team-b", "kube-system"] {
                let answer = bed.kubectl(&["auth", "can-i", verb, "secrets", "-n", namespace, &account]).await;
                ensure!(answer.is_err(), "{arguments:?}: it may {verb} secrets in {namespace}");
            }
        }
    }
    Ok(())
}

/// What the controller uses in a namespace.
fn wanted(own: &str, watched: Option<&str>, namespace: &str) -> BTreeSet<Right> {
    let all = uses(watched, Some((own, "kubernetes-vault"))).into_iter().map(|used| used.right);
    let here = all.filter(|right| right.namespace.as_deref().is_none_or(|of| of == namespace));
    let right = |right: kubernetes_vault::domain::rights::Right| {
        let group = if right.group.is_empty() { String::new() } else { format!(".{}", right.group) };
        (format!("{}{group}", right.resource), right.name.unwrap_or_default(), right.verb.to_owned())
    };
    here.map(right).collect()
}

/// What an account may do in a namespace.
async fn listed(bed: &Testbed, own: &str, account: &str, namespace: &str) -> Result<BTreeSet<Right>> {
    let account = format!("--as=system:serviceaccount:{own}:{account}");
    let table = bed.kubectl(&["auth", "can-i", "--list", "--no-headers", "-n", namespace, &account]).await?;
    let mut rights = BTreeSet::new();
    for line in table.lines() {
        // The resource, then three lists in brackets: URLs, names, verbs.
        let (resource, lists) = line.split_at(line.find('[').unwrap_or(line.len()));
        let lists: Vec<Vec<&str>> =
            lists.split(']').filter_map(|list| Some(list.split_once('[')?.1.split_whitespace().collect())).collect();
        let [_, names, verbs] = &lists[..] else { anyhow::bail!("kubectl lists {line:?}") };
        let names = if names.is_empty() { &vec![""] } else { names };
        for (name, verb) in names.iter().flat_map(|name| verbs.iter().map(move |verb| (*name, *verb))) {
            rights.insert((resource.trim().to_owned(), name.to_owned(), verb.to_owned()));
        }
    }
    Ok(rights)
}
