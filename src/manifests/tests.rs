//! What holds for every case, without a server.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_yaml::Value;

use super::*;
use crate::config::Config;

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn flags(case: Case) -> Flags {
    Flags { case: Some(case), ..Flags::default() }
}

fn given(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn text(flags: &Flags) -> String {
    match make(flags) {
        Ok(Made::Text(text)) => text,
        other => panic!("{flags:?}: {other:?}"),
    }
}

fn refused(flags: &Flags) -> String {
    let error = make(flags).unwrap_err();
    assert!(error.is_usage(), "{error}");
    error.to_string()
}

fn objects(text: &str) -> Vec<Value> {
    serde_yaml::Deserializer::from_str(text).map(|document| Value::deserialize(document).unwrap()).collect()
}

fn object<'a>(objects: &'a [Value], kind: &str) -> Option<&'a Value> {
    objects.iter().find(|object| object["kind"] == kind)
}

fn cases() -> impl Iterator<Item = Settings> {
    let modes = Mode::ALL.into_iter().flat_map(|(_, mode)| Case::ALL.into_iter().map(move |(_, case)| (case, mode)));
    modes.map(|(case, mode)| Settings::documented(case, mode, BTreeMap::new()))
}

#[test]
fn every_comment_stands_above_something() {
    for mut settings in cases() {
        for addr in [None, given("https://vault.example:8200")] {
            settings.vault_addr = addr;
            for document in all(&settings) {
                assert_eq!(document.lost_notes(), Vec::<&str>::new(), "{:?}", settings.case);
            }
        }
    }
    let mut secured = Settings::documented(Case::Monitoring, Mode::Token, BTreeMap::new());
    secured.tls_secret = given("x");
    assert!(all(&secured).iter().all(|document| document.lost_notes().is_empty()));
}

#[test]
fn what_is_printed_is_yaml_of_short_lines_and_the_same_each_time() {
    for (_, case) in Case::ALL {
        let text = text(&flags(case));
        assert_eq!(text, self::text(&flags(case)));
        assert!(objects(&text).iter().all(|object| object["metadata"]["name"].is_string()), "{text}");
        let mut comments = text.lines().filter(|line| line.trim_start().starts_with('#'));
        assert_eq!(comments.find(|line| line.len() > 120), None, "{case:?}");
    }
}

#[test]
fn the_controller_takes_every_configuration_that_is_printed() {
    // The files that a configuration names are looked for.
    let folder = tempfile::tempdir().unwrap();
    for file in ["ca.crt", "vault-ca.crt", "metrics.crt", "metrics.key", "peer.crt", "peer.key"] {
        std::fs::write(folder.path().join(file), "").unwrap();
    }
    let tls = format!("{}/", folder.path().display());
    let environment = |name: &str| match name {
        "VAULT_ADDR" => given("https://vault.example:8200"),
        "VAULT_TOKEN" => given("hvs.x"),
        "KUBERNETES_NAMESPACE" => given("default"),
        _ => None,
    };
    for (_, case) in Case::ALL.into_iter().filter(|(_, case)| case.has_controller()) {
        let objects = objects(&text(&flags(case)));
        let map = object(&objects, "ConfigMap").unwrap();
        let file = map["data"]["kubernetes-vault.yml"].as_str().unwrap().replace("/tls/", &tls);
        let (config, warnings) = Config::parse(&file, &environment).unwrap_or_else(|error| panic!("{case:?}: {error}"));
        let warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        assert_eq!(warnings, Vec::<String>::new(), "{case:?}");
        assert_eq!(config.kubernetes.service, "kubernetes-vault", "{case:?}");
    }
}

#[test]
fn no_case_may_read_a_secret_or_change_a_pod() {
    for (_, case) in Case::ALL {
        for role in objects(&text(&flags(case))).iter().filter(|object| object.get("rules").is_some()) {
            for rule in role["rules"].as_sequence().unwrap() {
                let list = |key: &str| -> Vec<&str> {
                    rule[key].as_sequence().unwrap().iter().map(|word| word.as_str().unwrap()).collect()
                };
                assert!(!list("resources").contains(&"secrets"), "{case:?}");
                let reads = ["get", "list", "watch"];
                let writes = list("verbs").into_iter().any(|verb| !reads.contains(&verb));
                assert!(!writes || list("resources") == ["events"], "{case:?}: {rule:?}");
            }
        }
    }
}

#[test]
fn a_plain_namespace_gets_a_role_in_it_and_a_regular_expression_a_cluster_role() {
    for case in [Case::QuickStart, Case::Replicated, Case::Production, Case::ExternalCa] {
        let plain = objects(&text(&Flags { watch_namespace: given("Team-A"), ..flags(case) }));
        assert!(object(&plain, "ClusterRole").is_none() && object(&plain, "ClusterRoleBinding").is_none());
        let binding = plain
            .iter()
            .find(|object| object["kind"] == "RoleBinding" && object["metadata"]["name"] == "kubernetes-vault");
        let binding = binding.unwrap();
        assert_eq!(binding["metadata"]["namespace"], "team-a");
        assert_eq!(binding["subjects"][0]["namespace"], "kubernetes-vault");
        let matching = objects(&text(&Flags { watch_namespace: given("~^a$"), ..flags(case) }));
        assert!(object(&matching, "ClusterRole").is_some());
    }
}

#[test]
fn a_teams_namespace_is_left_as_it_is() {
    let own = Flags { namespace: given("team-b"), watch_namespace: given("team-b"), ..flags(Case::Production) };
    for flags in [own, flags(Case::OneNamespace), Flags { namespace: given("b"), ..flags(Case::OneNamespace) }] {
        let objects = objects(&text(&flags));
        assert!(object(&objects, "Namespace").is_none());
        assert!(object(&objects, "ClusterRole").is_none());
    }
    let objects = objects(&text(&Flags { namespace: given("vault"), ..flags(Case::Production) }));
    assert_eq!(object(&objects, "Namespace").unwrap()["metadata"]["name"], "vault");
}

#[test]
fn flags_are_where_they_belong() {
    let image = format!("controller=registry.example:5000/a/b@{DIGEST}");
    let all = Flags {
        namespace: given("vault"),
        watch_namespace: given("~^x-"),
        vault_addr: given("https://v.example"),
        images: vec![image.clone()],
        replicas: Some(5),
        secret: given("s.one"),
        tls_secret: given("t"),
        prometheus_namespace: given("prom"),
        ..flags(Case::Production)
    };
    let text = text(&all);
    let objects = objects(&text);
    let set = object(&objects, "StatefulSet").unwrap();
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], image.split_once('=').unwrap().1);
    assert_eq!(set["spec"]["replicas"], 5);
    assert_eq!(pod["containers"][0]["env"][0]["name"], "VAULT_TOKEN");
    assert_eq!(pod["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]["name"], "s.one");
    assert_eq!(pod["volumes"][2]["secret"]["secretName"], "t");
    assert!(text.contains("addr: https://v.example\n") && text.contains("watchNamespace: \"~^x-\"\n"));
    assert!(text.contains("kubernetes.io/metadata.name: prom\n"));
    let namespaces: Vec<&Value> = objects.iter().filter_map(|object| object["metadata"].get("namespace")).collect();
    assert!(namespaces.len() > 5 && namespaces.iter().all(|namespace| **namespace == "vault"));
    let sample = Flags {
        mode: Some(Mode::WrappedSecretId),
        vault_addr: given("https://v.example"),
        images: vec![format!("init=i@{DIGEST}"), "sample-app=s:1".to_owned()],
        ..flags(Case::SampleApp)
    };
    let text = self::text(&sample);
    for wanted in ["name: VAULT_ADDR", "name: RETRIEVE_TOKEN", "name: UNWRAP_SECRET", "image: s:1", DIGEST] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[test]
fn what_contradicts_itself_is_one_line_that_names_the_remedy() {
    use Case::{ExternalCa, Monitoring, OneNamespace, Production, QuickStart, Reference, Replicated, SampleApp};
    let image = |text: &str| Flags { images: vec![text.to_owned()], ..flags(Production) };
    let watch = |case, text: &str| Flags { watch_namespace: given(text), ..flags(case) };
    let addr = |case, text: &str| Flags { vault_addr: given(text), ..flags(case) };
    let replicas = |case, count| Flags { replicas: Some(count), ..flags(case) };
    for (flags, said, remedy) in [
        (Flags::default(), "say what to print", "--output-dir"),
        (replicas(Production, 2), "two bear the loss of none", "give 1, 3 or 5"),
        (replicas(Production, 0), "none serves nobody", "give 1, 3 or 5"),
        (replicas(Replicated, 7), "at most five vote", "give 1, 3 or 5"),
        (replicas(QuickStart, 3), "--replicas has no effect for quick-start", "replicated, production or external-ca"),
        (watch(OneNamespace, "~^a"), "one-namespace has none", "choose quick-start"),
        (watch(OneNamespace, "b"), "that is team-a", "--namespace b alone"),
        (watch(QuickStart, "~("), "--watch-namespace", "RE2"),
        (watch(QuickStart, "a b"), "--watch-namespace", "must be the name of a namespace"),
        (watch(QuickStart, "~^$HOME"), "names a variable", "at the end only"),
        (watch(Reference, "a"), "has no effect for reference", "leave it out"),
        (addr(Production, "http://vault:8200"), "verifies Vault by its CA", "https://"),
        (addr(ExternalCa, "http://vault:8200"), "verifies Vault by its CA", "choose replicated"),
        (addr(QuickStart, "vault:8200"), "--vault-addr must be", "such as https://vault.example:8200"),
        (addr(QuickStart, "https://$HOST"), "--vault-addr must be", "such as https://vault.example:8200"),
        (addr(QuickStart, "https://me:secret@vault"), "a user or a password", "leave them out"),
        (addr(Monitoring, "https://v"), "has no effect for monitoring", "leave it out"),
        (image("controller"), "give NAME=IMAGE", "controller=registry.example/controller:1.0"),
        (image("nginx=a:1"), "there is no image", "controller, init and sample-app"),
        (image("init=a:1"), "production has no such image", "leave it out"),
        (image("controller=a"), "name a version", "by digest"),
        (image("controller=a:latest"), "name a version", "by digest"),
        (image("controller=a@0123"), "\"sha256:\" and 64", "or a tag"),
        (image("controller=a@sha256:0123"), "\"sha256:\" and 64", "or a tag"),
        (image("controller=a b:1"), "that is no image", "registry.example/controller:1.0"),
        (image("controller=:1"), "that is no image", "registry.example/controller:1.0"),
        (Flags { namespace: given("Vault"), ..flags(Production) }, "no name of a namespace", "a to z"),
        (Flags { secret: given("a..b"), ..flags(Production) }, "no name of a Secret", "a to z"),
        (Flags { tls_secret: given("t"), ..flags(QuickStart) }, "--tls-secret has no effect", "monitoring"),
        (Flags { prometheus_namespace: given("p"), ..flags(Replicated) }, "has no effect", "production or external-ca"),
        (Flags { mode: Some(Mode::Token), ..flags(Production) }, "--mode has no effect", "choose sample-app"),
        (Flags { secret: given("s"), ..flags(Monitoring) }, "--secret has no effect for monitoring", "leave it out"),
        (Flags { images: vec!["init=a:1".into(), "init=a:2".into()], ..flags(SampleApp) }, "given twice", "once"),
        (
            Flags { output_dir: Some("x".into()), replicas: Some(3), ..Flags::default() },
            "without a CASE",
            "name a CASE",
        ),
    ] {
        let error = refused(&flags);
        assert!(error.contains(said) && error.contains(remedy) && !error.contains('\n'), "{flags:?}: {error}");
    }
}

#[test]
fn folders_are_written_again_but_nobody_elses_file_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let flags = Flags { output_dir: Some(folder.path().to_owned()), ..Flags::default() };
    let Ok(Made::Files(files)) = make(&flags) else { panic!("nothing was written") };
    assert_eq!(make(&flags).unwrap(), Made::Files(files));
    let ours = folder.path().join("quick-start/configmap.yaml");
    let before = std::fs::read_to_string(&ours).unwrap();
    // An edit by hand in a file of ours goes; without our first line it is somebody else's.
    std::fs::write(&ours, before.clone() + "# mine\n").unwrap();
    make(&flags).unwrap();
    assert_eq!(std::fs::read_to_string(&ours).unwrap(), before);
    let own = before.split_once('\n').unwrap().1;
    std::fs::write(&ours, own).unwrap();
    std::fs::remove_file(folder.path().join("base/rbac.yaml")).unwrap();
    let error = refused(&flags);
    assert!(error.contains("quick-start/configmap.yaml") && error.contains("Nothing was written"), "{error}");
    assert_eq!(std::fs::read_to_string(&ours).unwrap(), own);
    assert!(!folder.path().join("base/rbac.yaml").exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = make(&Flags { output_dir: Some(file), ..flags(Case::QuickStart) }).unwrap_err();
    assert!(!error.is_usage() && error.to_string().contains("/file/"), "{error}");
}

#[test]
fn one_case_brings_its_own_base_and_no_other_case() {
    let folder = tempfile::tempdir().unwrap();
    let flags =
        Flags { output_dir: Some(folder.path().to_owned()), namespace: given("vault"), ..flags(Case::Production) };
    let Ok(Made::Files(files)) = make(&flags) else { panic!("nothing was written") };
    let is_expected =
        |path: &PathBuf| ["base", "production"].iter().any(|name| path.starts_with(folder.path().join(name)));
    assert!(files.iter().all(is_expected), "{files:?}");
    let base = std::fs::read_to_string(folder.path().join("base/rbac.yaml")).unwrap();
    assert!(base.contains("namespace: vault") && !base.contains("namespace: kubernetes-vault"));
}
