//! Kubernetes: the watch of pending pods, Events on pods, and the client that both use.
//!
//! Owns every request to the API server, their limits and their back-off. Knows pods as [`crate::domain::pod::Pod`]
//! outwards, so that `kube` and `k8s-openapi` stay in this folder. Must never keep pods in memory (the workflow
//! keeps those that matter), never poll, and never retry without a wait.

pub mod client;
pub mod events;
#[cfg(test)]
mod fake_api;
pub mod health;
mod log_limit;
pub mod peers;
mod slim_pod;
pub mod watch;

/// `text` cut to at most `limit` bytes, at a character's border.
fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("añb", 2), "a");
        assert_eq!(cut("añb", 3), "añ");
        assert_eq!(cut("ab", 9), "ab");
    }
}
