//! The push message.
