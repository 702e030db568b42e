//! Who gets through, and who does not.
