//! Every key there is: the one list that tells known keys from unknown ones, and that docs/configuration.md is made of.
//!
//! Owns names, kinds, defaults and meanings in words. It reads nothing: what a key does is up to its section, and tests
//! hold the two together.

/// One key of the configuration file.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// In full, `vault.addr`.
    pub name: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// What holds where it is not set.
    pub default: Fallback,
    /// A value as it may stand in the file.
    pub example: &'static str,
    /// What it means: Markdown, one line.
    pub meaning: &'static str,
    /// How something new takes effect.
    pub change: Change,
    /// The reference has it, too.
    pub in_reference: bool,
}

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A text.
    Text,
    /// One text, or several: a list, or one text with commas.
    Texts,
    /// A path of a file or folder.
    Path,
    /// `true` or `false`.
    Flag,
    /// A number.
    Number,
    /// A Go duration: `300ms`, `1m30s`.
    Duration,
    /// `:PORT`, `IPv4:PORT` or `[IPv6]:PORT`.
    Listen,
    /// One of a few words.
    Choice,
}

/// What holds where a key is not set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallback {
    /// The controller does not start without it.
    Required,
    /// Nothing.
    Unset,
    /// The same as this value.
    Value(&'static str),
    /// Said in words: Markdown.
    Words(&'static str),
}

/// How something new takes effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// The controller reads it when it starts.
    Restart,
    /// The path is read at the start; the file is read again when it changes.
    File,
    /// The name is read at the start; what it names in Vault is asked for again by itself.
    Renewed,
}

/// All keys, in the order of the page.
pub const KEYS: &[Key] = &[
    key("raftDir", Kind::Path, Fallback::Value("/var/lib/kubernetes-vault/"), "/var/lib/kubernetes-vault/").of_reference(
        "where the ledger of deliveries is kept, and the socket of `status`. One folder for each replica",
    ),
    key("vault.addr", Kind::Text, Fallback::Required, "https://vault.example:8200").of_reference(
        "Vault's URL. Pods get it as it is written, so it must be one that they can reach",
    ),
    key("vault.token", Kind::Text, ONE_LOGIN, "$VAULT_TOKEN").of_reference(
        "a renewable, periodic token of a token role. From the environment rather than in the file",
    ),
    key("vault.tokenFile", Kind::Path, ONE_LOGIN, "/etc/kubernetes-vault/token")
        .of_ours("a file with a token that somebody else keeps fresh")
        .read_again(),
    key("vault.kubernetesAuth.role", Kind::Text, ONE_LOGIN, "kubernetes-vault")
        .of_ours("logs in with the controller's service account, as this role"),
    key("vault.kubernetesAuth.mount", Kind::Text, Fallback::Value("kubernetes"), "clusters/blue")
        .of_ours("where Vault's Kubernetes auth is mounted, without `auth/`"),
    key(
        "vault.kubernetesAuth.tokenPath",
        Kind::Path,
        Fallback::Words("`/var/run/secrets/kubernetes.io/serviceaccount/token`"),
        "/var/run/secrets/vault/token",
    )
    .of_ours("the service account's token, better one projected for Vault; read at each login")
    .read_again(),
    key("vault.skipTokenRoleNameValidation", Kind::Flag, Fallback::Value("false"), "true")
        .of_reference("takes a `vault.token` that does not come from a token role"),
    key("vault.namespace", Kind::Text, Fallback::Unset, "team-a")
        .of_ours("the Vault namespace of AppRole, of PKI mounts and of the login"),
    key("vault.approleMount", Kind::Text, Fallback::Value("approle"), "team/approle")
        .of_ours("where AppRole is mounted, without `auth/`"),
    key("vault.wrappingTTL", Kind::Duration, Fallback::Value("60s"), "2m").of_reference(
        "how long an init container has to unwrap its `secret_id`. A plain number is seconds; Vault gets it as written",
    ),
    key("vault.tls.caCert", Kind::Path, Fallback::Words("the public roots"), "/etc/kubernetes-vault/vault-ca.pem")
        .of_reference("absolute path of a PEM bundle that verifies Vault; pods get it as `ca.crt`")
        .read_again(),
    key("vault.tls.vaultCABackends", Kind::Texts, Fallback::Unset, "[root-ca, intermediate-ca]")
        .of_reference(
            "PKI mounts whose CA certificates verify Vault, read from `<addr>/v1/<mount>/ca/pem`; not together with \
             `vault.tls.caCert`",
        )
        .renewed(),
    key(
        "vault.tls.caFingerprint",
        Kind::Texts,
        Fallback::Unset,
        "A1:B2:C3:D4:E5:F6:07:18:29:3A:4B:5C:6D:7E:8F:90:A1:B2:C3:D4:E5:F6:07:18:29:3A:4B:5C:6D:7E:8F:90",
    )
    .of_ours(
        "SHA-256 of the certificates that may be read from `vault.tls.vaultCABackends`. Without it, what is read first \
         is trusted",
    ),
    key("vault.tls.serverName", Kind::Text, Fallback::Words("the host of `vault.addr`"), "vault.internal")
        .of_ours("the name that Vault's certificate must have"),
    key("vault.tls.clientCert", Kind::Path, Fallback::Unset, "/etc/kubernetes-vault/client.crt")
        .of_ours("the certificate that is shown to Vault, PEM; needs `vault.tls.clientKey`")
        .read_again(),
    key("vault.tls.clientKey", Kind::Path, Fallback::Unset, "/etc/kubernetes-vault/client.key")
        .of_ours("its key, PEM, not encrypted")
        .read_again(),
    key("kubernetes.watchNamespace", Kind::Text, Fallback::Required, "\"~^team-\"").of_reference(
        "a namespace, or `~` and a regular expression that is found anywhere in the name. Letter case does not matter",
    ),
    key("kubernetes.serviceNamespace", Kind::Text, Fallback::Required, "kubernetes-vault")
        .of_reference("the namespace of the controller's service"),
    key("kubernetes.service", Kind::Text, Fallback::Required, "kubernetes-vault")
        .of_reference("the name of the controller's headless service"),
    key("prometheus.address", Kind::Listen, Fallback::Words("`:80`, or `:443` with a certificate"), ":9090")
        .of_ours("where `/metrics` is served"),
    key("prometheus.tls.certFile", Kind::Path, Fallback::Unset, "/etc/kubernetes-vault/metrics.crt")
        .of_reference("the certificate of `/metrics` and its chain, PEM; needs `prometheus.tls.certKey`")
        .read_again(),
    key("prometheus.tls.certKey", Kind::Path, Fallback::Unset, "/etc/kubernetes-vault/metrics.key")
        .of_reference("its key, PEM, not encrypted")
        .read_again(),
    key("prometheus.tls.caCert", Kind::Path, Fallback::Unset, "/etc/kubernetes-vault/scrapers.pem")
        .of_reference(
            "the CAs of scrapers, PEM: with it, a scraper without a certificate of theirs is refused. Needs a \
             certificate to serve",
        )
        .read_again(),
    key("prometheus.tls.vaultCertBackend", Kind::Text, Fallback::Unset, "pki")
        .of_reference(
            "the PKI mount that issues the certificate of `/metrics`, in place of files; needs \
             `prometheus.tls.vaultCertRole`. Renewed at half of its life",
        )
        .renewed(),
    key("prometheus.tls.vaultCertRole", Kind::Text, Fallback::Unset, "metrics")
        .of_reference("the role of that mount; it must allow the service's name, our host name and our IP address"),
    key("prometheus.tls.vaultCABackends", Kind::Texts, Fallback::Unset, "[root-ca]")
        .of_reference("PKI mounts whose CAs sign scrapers' certificates, in place of `prometheus.tls.caCert`")
        .renewed(),
    key("health.address", Kind::Listen, Fallback::Value(":8080"), ":8081")
        .of_ours("where `/livez`, `/readyz` and `/startupz` are served, over plain http"),
    key("log.level", Kind::Choice, Fallback::Value("debug"), "info")
        .of_ours("`debug`, `info`, `warn` or `error`; the flag `--log-level` wins"),
    key("log.format", Kind::Choice, Fallback::Value("text"), "json")
        .of_ours("`text` or `json`; the flag `--log-format` wins"),
    key("limits.inFlight", Kind::Number, Fallback::Value("2048"), "500").of_ours(
        "how many deliveries may be under way at once, from the claim to the init container's answer: 1 to 10000",
    ),
    key("limits.vaultRequestsPerSecond", Kind::Number, Fallback::Value("1000"), "200")
        .of_ours("how many `secret_id`s Vault is asked for a second, for all pods together: 0.01 to 1000000"),
    key("limits.perRolePerSecond", Kind::Number, Fallback::Value("500"), "50")
        .of_ours("the same for each AppRole"),
    key("limits.perNamespacePerSecond", Kind::Number, Fallback::Value("500"), "50")
        .of_ours("the same for each namespace of pods"),
    key("raft.secrets", Kind::Texts, Fallback::Words("derived from `vault.token`"), "[$RAFT_SECRET]").of_ours(
        "what all replicas share to know each other by: one secret of at least 32 random bytes (`openssl rand -hex 32`), \
         or two while it is replaced",
    ),
    key("raft.clusterName", Kind::Text, Fallback::Unset, "blue")
        .of_ours("tells apart clusters that share secret, namespace and service"),
    key("raft.tls.certFile", Kind::Path, Fallback::Unset, "/etc/kubernetes-vault/peer.crt")
        .of_ours(
            "the certificate that this replica shows to the others, PEM, in place of `raft.secrets`; all three files go \
             together",
        )
        .read_again(),
    key("raft.tls.certKey", Kind::Path, Fallback::Unset, "/etc/kubernetes-vault/peer.key")
        .of_ours("its key, PEM, not encrypted")
        .read_again(),
    key("raft.tls.caCert", Kind::Path, Fallback::Unset, "/etc/kubernetes-vault/peers-ca.pem")
        .of_ours("the CA of all replicas and of nobody else, PEM")
        .read_again(),
    key("raft.tls.vaultCertBackend", Kind::Text, Fallback::Unset, "pki-peers")
        .of_ours(
            "the PKI mount that issues this replica's certificate for the others, in place of files; needs \
             `raft.tls.vaultCertRole`. Kept in `raftDir`, so that a sealed Vault does not part replicas",
        )
        .renewed(),
    key("raft.tls.vaultCertRole", Kind::Text, Fallback::Unset, "peer")
        .of_ours("the role of that mount, for replicas alone; it must allow their URI SAN"),
    key("raft.tls.vaultCABackends", Kind::Texts, Fallback::Words("the mount that issues"), "[pki-peers, pki-old]")
        .of_ours("PKI mounts whose CAs sign replicas' certificates")
        .renewed(),
    key("raft.peers", Kind::Texts, Fallback::Words("read from the service"), "[kv-0, kv-1, kv-2]")
        .of_ours("the addresses of all replicas, this one included, for runs without Kubernetes"),
    key("raft.heartbeat", Kind::Duration, Fallback::Value("60ms"), "100ms")
        .of_ours("how often a leader says that it is there. More than two must fit into `raft.electionMin`"),
    key("raft.electionMin", Kind::Duration, Fallback::Value("150ms"), "250ms")
        .of_ours("the shortest silence after which a leader counts as lost; less than `raft.electionMax`"),
    key("raft.electionMax", Kind::Duration, Fallback::Value("300ms"), "500ms")
        .of_ours("the longest, and for how long a leader may act without having heard of a majority"),
    key("raft.deadServerGrace", Kind::Duration, Fallback::Value("10m"), "30m")
        .of_ours("how long a replica that is gone without having left stays a voter"),
    key("raft.leaveOnTerminate", Kind::Choice, Fallback::Value("auto"), "always").of_ours(
        "whether a replica that is stopped leaves the cluster: `auto` (if its storage goes with the pod), `always` or \
         `never`",
    ),
];

/// There are three ways to log in.
const ONE_LOGIN: Fallback = Fallback::Words("one way to log in is required");

const fn key(name: &'static str, kind: Kind, default: Fallback, example: &'static str) -> Key {
    Key { name, kind, default, example, meaning: "", change: Change::Restart, in_reference: false }
}

impl Key {
    const fn of_reference(self, meaning: &'static str) -> Self {
        Self { meaning, in_reference: true, ..self }
    }

    const fn of_ours(self, meaning: &'static str) -> Self {
        Self { meaning, in_reference: false, ..self }
    }

    const fn read_again(self) -> Self {
        Self { change: Change::File, ..self }
    }

    const fn renewed(self) -> Self {
        Self { change: Change::Renewed, ..self }
    }
}
