//! Kubernetes: the watch of pending pods, our own peers, Events on pods, and the client that all of them use.
//!
//! Owns every request to the API server, their limits and their back-off. Knows pods as [`crate::domain::pod::Pod`]
//! outwards, so that `kube` and `k8s-openapi` stay in this folder. Must never keep other pods in memory than those
//! that are starting now ([`standby`]), never poll pods, and never retry without a wait.

pub mod access;
pub mod client;
pub mod events;
#[cfg(test)]
mod fake_api;
pub mod health;
mod log_limit;
pub mod peers;
mod slim_pod;
pub mod standby;
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
