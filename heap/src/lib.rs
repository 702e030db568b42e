//! One heap for all threads of the controller.
//!
//! glibc gives threads that allocate at once heaps of their own, up to eight for each core, and a burst leaves free room
//! in every one of them that no other can use: with a few threads it is a fifth of what 5,000 pending pods cost, and
//! there may be more of them the more cores a node has. There is an environment variable for it, which would have to be
//! set by everybody who starts the controller, and no safe call. So this is the only package of the project that may
//! use `unsafe`, and this is all that it does.

/// Has all threads share one heap. To be called first in `main`: heaps that exist stay. Returns whether it was done;
/// elsewhere than with glibc there is nothing to do.
pub fn share() -> bool {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: mallopt(3) takes two numbers and no pointer, and no other thread runs yet.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) == 1 }
    }
    #[cfg(not(target_env = "gnu"))]
    true
}

#[cfg(test)]
mod tests {
    #[test]
    fn glibc_takes_it() {
        assert!(super::share());
    }
}
