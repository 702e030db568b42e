//! Which Vault tokens are beyond guessing.
//!
//! Owns the forms in which Vault and OpenBao generate service tokens. Pure. Must never take a text that a person may
//! have chosen: Vault lets nobody choose an id of these forms (`vault token create -id`), so what has one is random.
//!
//! Not the same question as in `keys`: there a text is suspected, here it is trusted.

/// Characters that Vault draws for an id.
const ID_CHARS: usize = 24;

/// Longest name of a Vault namespace that follows an id: Vault's have 5 characters, OpenBao's 6.
const NAMESPACE_CHARS_MAX: usize = 8;

/// Whether `token` is a service token as Vault generates them: `hvs.` and an id in base64url, or the older `s.` and 24
/// letters and digits, either followed by a namespace or not. Batch and recovery tokens (`hvb.`, `b.`, `hvr.`, `r.`)
/// are never periodic, so no controller has one.
pub(super) fn is_generated_service_token(token: &str) -> bool {
    let (body, id): (&str, fn(&str) -> bool) = if let Some(body) = token.strip_prefix("hvs.") {
        (body, |id| {
            id.len() >= ID_CHARS && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        })
    } else if let Some(body) = token.strip_prefix("s.") {
        (body, |id| id.len() == ID_CHARS && id.bytes().all(|byte| byte.is_ascii_alphanumeric()))
    } else {
        return false;
    };
    match body.split_once('.') {
        None => id(body),
        Some((body, namespace)) => {
            id(body)
                && (1..=NAMESPACE_CHARS_MAX).contains(&namespace.len())
                && namespace.bytes().all(|byte| byte.is_ascii_alphanumeric())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_vault_generates() {
        for token in [
            "hvs.CAESIJRM-T1bnTGdMnLr_qFiYLq3RtkOLNVLHuHkq0eNYWO6Gh4KHGh2cy5EVkVRSVZ0Q2FjWjVxUGZ3Uk9hbUVUbUE",
            "hvs.zcRGGjMGDpYdaYbhRdrEcoxC",
            "hvs.zcRGGjMGDpYdaYbhRdrEcoxC.yAfmm",
            "s.iyNUhq8Ov4hIAx6snw5mB2nL",
            "s.iyNUhq8Ov4hIAx6snw5mB2nL.yAfmm",
        ] {
            assert!(is_generated_service_token(token), "{token}");
        }
        for token in [
            "",
            "root",
            "hvs.",
            "hvs.root",
            "hvs.zcRGGjMGDpYdaYbhRdrEcox",
            "hvs.zcRGGjMGDpYdaYbhRdrEcox/",
            "HVS.zcRGGjMGDpYdaYbhRdrEcoxC",
            "s.iyNUhq8Ov4hIAx6snw5mB2n",
            "s.iyNUhq8Ov4hIAx6snw5mB2nLL",
            "s.iyNUhq8Ov4hIAx6snw5mB2n-",
            "s.iyNUhq8Ov4hIAx6snw5mB2nL.",
            "s.iyNUhq8Ov4hIAx6snw5mB2nL.a.b",
            "s.iyNUhq8Ov4hIAx6snw5mB2nL.toolong99",
            "hvb.AAAAAQJRMT1bnTGdMnLrqFiYLq3RtkOLNVLHuHkq0eNYWO6",
            "b.AAAAAQJRMT1bnTGdMnLrqFiYLq3RtkOLNVLHuHkq0eNYWO6",
            "hvr.zcRGGjMGDpYdaYbhRdrEcoxC",
            "00000000-0000-0000-0000-000000000000",
            "a-token-that-somebody-has-made-up-for-the-lab",
        ] {
            assert!(!is_generated_service_token(token), "{token}");
        }
    }
}
